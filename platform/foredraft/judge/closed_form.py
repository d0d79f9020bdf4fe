"""What rules come to, from the courses of a draft: no decoding, a fraction of a millisecond a rule.

    expected = expect(courses, rules, steps=96)
    speedups = expected.speedups(costs, rules, evaluation=evaluation, patch=96)

A rule says how likely each proposal is accepted; with that the forecasts of all windows go down
their courses (`foredraft.judge.courses`) as probabilities do. What comes of it is the expectation
over the lots that decoding would draw: of acceptance, of the rounds, and of the errors.

Exact, for rules that propose means: the probability of every round that was played, and with it all
that is counted there. Modelled: rounds that no probe was likely to reach; samples (`propose`),
whose courses are taken for those of the means; and a rule that adapts, which is given the best
fixed lookahead at the costs in question.

Shapes: R rounds, K proposals, M = K + 1 ways to end a round, C variates, Q rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft.judge.courses import Courses
from foredraft.settings.config import Evaluation
from speculation import Acceptance, cost
from speculation.plan import WORTHWHILE

RULES_AT_ONCE = 64
"""Rules that go down the courses together: enough to share the work, few enough for the cache."""
NEGLIGIBLE = 1e-5
"""A round that all of them together reach less often than this is passed over."""


class Expected(NamedTuple):
    """What each rule is expected to come to; float64, by rule."""

    acceptance_rate_Q: Tensor
    accept_length_Q: Tensor
    pass_rates_QK: Tensor
    """per position, how often a proposal is accepted when all before it were"""
    mse_Q: Tensor
    mae_Q: Tensor
    """that of the means: not a number for a rule that draws samples"""
    deviation_Q: Tensor
    """mean squared difference to the reference's forecast"""

    def speedups(
        self,
        costs: cost.PassCosts,
        rules: Sequence[Acceptance],
        *,
        evaluation: Evaluation,
        patch: int,
    ) -> Tensor:
        """The predicted speedups [Q], as `evaluate.predict` gives them."""
        patches = -(-evaluation.horizon // patch)
        speedup_Q = torch.ones(len(rules), dtype=torch.float64)
        for lookahead in range(1, self.pass_rates_QK.shape[1] + 1):
            wanted = [q for q, rule in enumerate(rules) if _may_propose(rule, lookahead)]
            if not wanted:
                continue
            rows = torch.tensor(wanted)
            fast = cost.predicted_speedups(
                costs,
                self.pass_rates_QK[rows],
                lookahead=lookahead,
                patches=patches,
                renorm_every=evaluation.policy.renorm_every,
                batch=evaluation.batch,
            )
            adapts = torch.tensor([rules[q].adapt for q in wanted])
            better = (fast >= WORTHWHILE) & (fast > speedup_Q[rows])
            speedup_Q[rows] = torch.where(~adapts | better, fast, speedup_Q[rows])
        return speedup_Q


def expect(courses: Courses, rules: Sequence[Acceptance], *, steps: int) -> Expected:
    """What the rules come to on the windows of the courses.

    Args:
        courses: as `grow` gives them, of at least the rules' lookahead.
        rules: any rules that emit what the courses do.
        steps: time steps of a patch.
    """
    by_lookahead: defaultdict[int, list[int]] = defaultdict(list)
    for index, rule in enumerate(rules):
        by_lookahead[rule.lookahead].append(index)
    order: list[int] = []
    parts: list[Expected] = []
    for indices in by_lookahead.values():
        for begin in range(0, len(indices), RULES_AT_ONCE):
            some = indices[begin : begin + RULES_AT_ONCE]
            order += some
            parts.append(_Walk(courses, [rules[i] for i in some], steps=steps).expected())
    back = torch.argsort(torch.tensor(order))
    return Expected(*(torch.cat(columns)[back] for columns in zip(*parts, strict=True)))


class _Walk:
    """Rules of one lookahead on their way down the courses, place by place."""

    def __init__(self, courses: Courses, rules: Sequence[Acceptance], *, steps: int) -> None:
        self.courses, self.rules, self.lookahead = courses, rules, rules[0].lookahead
        self.chance_RKQ = _chances(courses, rules, steps=steps)
        rounds, longest = courses.next_RM.shape[0], courses.next_RM.shape[1] - 1
        self.mass_RQ = torch.zeros(rounds + 1, len(rules))
        self.mass_RQ[: courses.windows] = 1.0
        self.tested_KQ, self.passed_KQ = torch.zeros(2, longest, len(rules), dtype=torch.float64)
        self.rounds_Q = torch.zeros(len(rules), dtype=torch.float64)
        self.proposed_Q = torch.zeros(len(rules), dtype=torch.float64)
        self.errors_Q4 = torch.zeros(len(rules), 4, dtype=torch.float64)

    def expected(self) -> Expected:
        """All sums, divided."""
        places, counts = self.courses.place_R.unique_consecutive(return_counts=True)
        begin = 0
        for count in counts.tolist():
            self._pass(begin, begin + count)
            begin += count
        patches = int(places[-1]) + 1
        tested_QK, passed_QK = self.tested_KQ.T, self.passed_KQ.T
        rates_QK = passed_QK / tested_QK
        for k in range(rates_QK.shape[1]):  # never reached: as the one before, as `pass_rates`
            before = rates_QK[:, k - 1] if k else torch.zeros(len(rates_QK))
            reached = tested_QK[:, k] > NEGLIGIBLE * self.courses.windows
            rates_QK[:, k] = torch.where(reached, rates_QK[:, k], before)
        mse_Q, mae_Q, deviation_Q, unit_Q = self.errors_Q4.unbind(1)
        drawn_Q = torch.tensor([_noise(rule) for rule in self.rules])
        return Expected(
            (passed_QK.sum(1) / self.proposed_Q).nan_to_num(),
            patches * self.courses.windows / self.rounds_Q,
            rates_QK,
            mse_Q + drawn_Q * unit_Q,
            torch.where(drawn_Q > 0, torch.nan, mae_Q),
            deviation_Q + drawn_Q * unit_Q,
        )

    def _pass(self, begin: int, end: int) -> None:
        """The rounds of one place, each left by every way that it may end."""
        mass_RQ = self.mass_RQ[begin:end]
        here_A = (mass_RQ.amax(1) > NEGLIGIBLE).nonzero().flatten()
        if not len(here_A):
            return
        mass_AQ, rows_A = mass_RQ[here_A], here_A + begin
        # All rounds of a place may propose alike many: what is left, or leads to the next anchor.
        limit = min(int(self.courses.limit_R[begin]), self.lookahead)
        reached_AMQ = mass_AQ[:, None]
        if limit:
            alive_AKQ = mass_AQ[:, None] * self.chance_RKQ[rows_A, :limit].cumprod(1)
            reached_AMQ = torch.cat((reached_AMQ, alive_AKQ), 1)
        reached_MQ = reached_AMQ.sum(0, dtype=torch.float64)
        self.rounds_Q += reached_MQ[0]
        self.proposed_Q += limit * reached_MQ[0]
        self.tested_KQ[:limit] += reached_MQ[:limit]
        self.passed_KQ[:limit] += reached_MQ[1:]
        ended_AMQ = reached_AMQ.clone()
        ended_AMQ[:, :-1] -= reached_AMQ[:, 1:]
        flow_XQ = ended_AMQ.flatten(0, 1)
        errors_X4 = self.courses.errors_RM4[rows_A, : limit + 1].flatten(0, 1)
        self.errors_Q4 += (flow_XQ.T @ errors_X4).double()
        self.mass_RQ.index_add_(0, self.courses.next_RM[rows_A, : limit + 1].flatten(), flow_XQ)


def _chances(courses: Courses, rules: Sequence[Acceptance], *, steps: int) -> Tensor:
    """Probabilities [R, K, Q] with which each rule accepts each proposal alone."""
    each_RKC = courses.distance_RKC
    # What is judged over all variates together needs but their mean.
    joint_RK1, variates = each_RKC.mean(-1, keepdim=True), each_RKC.shape[-1]
    chance_RKQ = torch.empty(*each_RKC.shape[:2], len(rules))
    for q, rule in enumerate(rules):
        if getattr(rule, "scope", "joint") == "joint":
            chance_RKQ[..., q] = rule.patch_probability(joint_RK1, steps=steps * variates)
        else:
            chance_RKQ[..., q] = rule.patch_probability(each_RKC, steps=steps)
    return chance_RKQ


def _noise(rule: Acceptance) -> float:
    """Variance of what a rule emits round its means, in the target's squared units."""
    return float(getattr(rule, "sigma", 0.0)) ** 2 if rule.needs == "samples" else 0.0


def _may_propose(rule: Acceptance, lookahead: int) -> bool:
    return lookahead <= rule.lookahead if rule.adapt else lookahead == rule.lookahead
