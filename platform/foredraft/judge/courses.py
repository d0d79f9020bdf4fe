"""The courses that a forecast may take: every round that may come, and what each may lead to.

    courses = grow(target, draft, windows, reference_WHC, probes=rules, evaluation=evaluation)

A round accepts some of its proposals and goes on behind the patch after them. What draft and target
say next depends on what was accepted so far, and on nothing else: not on the rule. So the rounds of
all rules are one tree for each window, with as many branches as a round can end in, and a rule is
but how likely it takes each. The rounds are played here, once per draft, with all that a rule could
ask of them; `foredraft.judge.closed_form` then walks the tree for any rule.

A forecast of N patches has 2^(N-1) rounds that may come. Those alone are played that one of some
`probes` is likely to reach; one that is not leads on where the most alike of the others does, with
the same patches to go and most of the last ones accepted alike. That, and the rules that draw what
they propose, are where the closed form is a model; for all else it is exact.

Shapes: W windows, R rounds, K proposals, M = K + 1 ways to end a round, C variates, Q probes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Evaluation
from speculation import Acceptance
from speculation.decode import Pair
from speculation.distribution import Outlook
from speculation.forecaster import Forecaster

WINDOWS_AT_ONCE = 16
"""Windows whose rounds are played in one batch: what they remember is held for each course."""
LIKELY = 0.15
"""A round is played that some probe reaches with this probability."""
REMEMBERED = 62
"""Patches by which two courses are told alike: as many bits as an integer has."""


class Courses(NamedTuple):
    """The rounds that may come, those with fewer patches behind them first."""

    place_R: Tensor
    """int64, patches that stand when the round begins; the first W rounds are the windows' first"""
    limit_R: Tensor
    """int64, proposals that the round may make"""
    distance_RKC: Tensor
    """float32, mean squared distances of proposals to the target's means, in its units"""
    next_RM: Tensor
    """int64, the round after each way to end; R where the forecast is done"""
    errors_RM4: Tensor
    """float32, what the patches of each way to end add to mse, mae and deviation over all windows,
    and what drawing them with variance 1, in the target's units, would add to the mse"""
    windows: int


def ends(chance_RKQ: Tensor, limit_RQ: Tensor) -> Tensor:
    """Probabilities [R, M, Q] that a round accepts m proposals: the first rejection ends it."""
    position_K1 = torch.arange(chance_RKQ.shape[1])[:, None]
    allowed_RKQ = torch.where(position_K1 < limit_RQ[:, None], chance_RKQ, 0.0)
    reached_RMQ = torch.cat((torch.ones_like(chance_RKQ[:, :1]), allowed_RKQ), 1).cumprod(1)
    reached_RMQ[:, :-1] -= reached_RMQ[:, 1:].clone()
    return reached_RMQ


@torch.no_grad()
def grow(
    target: Forecaster,
    draft: Forecaster,
    windows: EvaluationWindows,
    reference_WHC: Tensor,
    *,
    probes: Sequence[Acceptance],
    evaluation: Evaluation,
) -> Courses:
    """The courses of all windows.

    Args:
        target, draft: as `ready` gives them.
        windows: to forecast.
        reference_WHC: the forecasts to which deviation is counted.
        probes: rules that span those to be asked for; all emit what the first emits, and the
            longest lookahead of them is the longest that can be asked for.
        evaluation: horizon and context policy.
    """
    known = windows.truth_WHC.numel()
    if windows.observed_WHC is not None:
        known = int(windows.observed_WHC.sum())
    parts = [
        _Growth(target, draft, windows.at(index_W), reference_WHC[index_W], probes, evaluation)
        for index_W in torch.arange(len(reference_WHC)).split(WINDOWS_AT_ONCE)
    ]
    courses = _joined([part.courses() for part in parts])
    # Sums until here, so that windows of which less was observed weigh less.
    totals = torch.tensor([known, known, reference_WHC.numel(), known], dtype=torch.float64)
    return courses._replace(errors_RM4=(courses.errors_RM4 / totals).float())


class _Round(NamedTuple):
    """One batch of rounds, played."""

    window_R: Tensor
    place_R: Tensor
    pattern_R: Tensor
    """which of the last patches were accepted, the newest in the lowest bit"""
    limit_R: Tensor
    distance_RKC: Tensor
    errors_RM4: Tensor
    """float64"""


class _Growth:
    """Plays round after round of some windows, branching where probes go different ways."""

    def __init__(
        self,
        target: Forecaster,
        draft: Forecaster,
        windows: EvaluationWindows,
        reference_WHC: Tensor,
        probes: Sequence[Acceptance],
        evaluation: Evaluation,
    ) -> None:
        self.probes, self.patch = probes, target.config.patch
        self.patches = -(-evaluation.horizon // self.patch)
        self.lookahead = max(rule.lookahead for rule in probes)
        self.longest_Q = torch.tensor([rule.lookahead for rule in probes])
        longest = max(probes, key=lambda rule: rule.lookahead)
        self.emits_draft = longest.emits_draft
        self.pair = Pair(
            target,
            draft,
            windows.context_WTC.to(target.device),
            patches=self.patches,
            acceptance=longest,
            policy=evaluation.policy,
        )
        self.yardsticks = _Yardsticks.of(
            windows, reference_WHC, patches=self.patches, patch=self.patch
        )

    def courses(self) -> Courses:
        """All rounds, and what they lead to."""
        count = len(self.yardsticks.truth_WNCP)
        window_R, pattern_R = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        mass_RQ = torch.ones(count, len(self.probes))
        straight_R = torch.ones(count, dtype=torch.bool)  # nothing accepted so far
        played: list[_Round] = []
        while len(window_R):
            one, outlook, proposal_RKCP = self._play(window_R, pattern_R)
            played.append(one)
            chance_RKQ = torch.stack(
                [p.patch_probability(one.distance_RKC, steps=self.patch) for p in self.probes], -1
            )
            limit_RQ = torch.minimum(one.limit_R[:, None], self.longest_Q)
            onward_RMQ = ends(chance_RKQ, limit_RQ) * mass_RQ[:, None]
            likely_RM = onward_RMQ.amax(2) >= LIKELY
            likely_RM[:, 0] |= straight_R  # so that there is a round at every place
            accepted_M = torch.arange(likely_RM.shape[1])
            likely_RM &= accepted_M <= one.limit_R[:, None]
            likely_RM &= one.place_R[:, None] + accepted_M + 1 < self.patches
            from_A, accepted_A = likely_RM.nonzero().unbind(1)
            window_R, mass_RQ = window_R[from_A], onward_RMQ[from_A, accepted_A]
            pattern_R = _continued(pattern_R[from_A], accepted_A)
            straight_R = straight_R[from_A] & (accepted_A == 0)
            if len(from_A):
                self._go_on(outlook, proposal_RKCP, from_A, accepted_A)
        return _linked(played, patches=self.patches)

    def _play(self, window_R: Tensor, pattern_R: Tensor) -> tuple[_Round, Outlook, Tensor]:
        """One round of each course, without an end to it."""
        place_R = self.pair.history.emitted_B
        limit_R = self.pair.begin_round()
        count = int(limit_R.max())
        proposal_RKCP, _ = self.pair.propose(count)
        outlook = self.pair.verify(count)
        apart = (proposal_RKCP - outlook.mean[:, :count]) / outlook.unit[:, :count]
        distance_RKC = torch.full((len(apart), self.lookahead, apart.shape[2]), torch.inf)
        distance_RKC[:, :count] = apart.square().mean(3).float().cpu()
        errors_RM4 = self.yardsticks.errors(outlook, window_R, place_R)
        if self.emits_draft:
            drafted = Outlook(proposal_RKCP, None, outlook.unit[:, :count])
            kept_RK4 = self.yardsticks.errors(drafted, window_R, place_R).cumsum(1)
            errors_RM4 = errors_RM4 + pad(kept_RK4, (0, 0, 1, 0))
        else:
            errors_RM4 = errors_RM4.cumsum(1)
        room = self.lookahead - count
        one = _Round(
            window_R,
            place_R,
            pattern_R,
            limit_R,
            distance_RKC,
            pad(errors_RM4, (0, 0, 0, room)),
        )
        return one, outlook, proposal_RKCP

    def _go_on(
        self, outlook: Outlook, proposal_RKCP: Tensor, from_A: Tensor, accepted_A: Tensor
    ) -> None:
        """The pair behind these ways to end the round."""
        pair, rows_A = self.pair, from_A.to(outlook.mean.device)
        pair.select(from_A)
        for context in (pair.judging, pair.drafting):
            context.keep(pair.history.end + accepted_A)
        emitted = outlook.mean[rows_A]
        if self.emits_draft:
            kept = torch.arange(proposal_RKCP.shape[1]) < accepted_A[:, None]
            kept = kept.to(emitted.device)[..., None, None]
            proposals = proposal_RKCP[rows_A]
            emitted[:, : proposals.shape[1]] = torch.where(
                kept, proposals, emitted[:, : proposals.shape[1]]
            )
        pair.history.commit(emitted, accepted_A + 1)


class _Yardsticks(NamedTuple):
    """What the patches of each window are held against, [W, N, C, P]."""

    truth_WNCP: Tensor
    reference_WNCP: Tensor
    known_WNCP: Tensor
    """1 where the truth was observed, within the horizon; else 0"""
    within_WNCP: Tensor
    """1 within the horizon"""

    @classmethod
    def of(
        cls, windows: EvaluationWindows, reference_WHC: Tensor, *, patches: int, patch: int
    ) -> _Yardsticks:
        """The yardsticks, with nothing past the horizon."""
        room = patches * patch - reference_WHC.shape[1]

        def cut(x_WHC: Tensor) -> Tensor:
            whole = pad(x_WHC.double(), (0, 0, 0, room))
            return whole.unflatten(1, (patches, patch)).transpose(2, 3)

        within = torch.ones_like(reference_WHC)
        known = within if windows.observed_WHC is None else windows.observed_WHC
        return cls(*(cut(x) for x in (windows.truth_WHC, reference_WHC, known, within)))

    def errors(self, outlook: Outlook, window_R: Tensor, place_R: Tensor) -> Tensor:
        """Sums over variates and steps of each expected patch, [R, M, 4].

        Squared and absolute error, squared deviation, and the units' squares.
        """
        emitted = outlook.mean.double().cpu()
        place_RM = place_R[:, None] + torch.arange(emitted.shape[1])
        beyond_RM = place_RM >= self.truth_WNCP.shape[1]
        at = window_R[:, None], place_RM.clamp_max(self.truth_WNCP.shape[1] - 1)
        known = self.known_WNCP[at]
        apart = (emitted - self.truth_WNCP[at]) * known
        away = (emitted - self.reference_WNCP[at]) * self.within_WNCP[at]
        units = outlook.unit.double().cpu() ** 2 * known
        parts = (apart.square(), apart.abs(), away.square(), units)
        sums_RM4 = torch.stack([part.sum((2, 3)) for part in parts], -1)
        return sums_RM4.masked_fill(beyond_RM[..., None], 0.0)


def _continued(pattern_A: Tensor, accepted_A: Tensor) -> Tensor:
    """Which of the last patches were accepted, the newest in the lowest bit."""
    kept = pattern_A & ((1 << (REMEMBERED - 1 - accepted_A)) - 1)
    return (kept << (accepted_A + 1)) | (((1 << accepted_A) - 1) << 1)


def _linked(played: Sequence[_Round], *, patches: int) -> Courses:
    """The rounds in the order of their places, and what each end of them leads to."""
    window_R, place_R, pattern_R, limit_R, distance_RKC, errors_RM4 = (
        torch.cat(parts) for parts in zip(*played, strict=True)
    )
    order_R = torch.argsort(place_R, stable=True)
    rounds = len(order_R)
    there: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    windows, places, patterns = (x[order_R].tolist() for x in (window_R, place_R, pattern_R))
    for row, (window, place, pattern) in enumerate(zip(windows, places, patterns, strict=True)):
        there[window, place][pattern] = row
    next_RM = torch.full((rounds, errors_RM4.shape[1]), rounds)
    accepted_M = torch.arange(errors_RM4.shape[1])
    onward_RM = _continued(pattern_R[order_R][:, None], accepted_M[None]).tolist()
    limits = limit_R[order_R].tolist()
    for row in range(rounds):
        for accepted in range(min(limits[row], patches - places[row] - 2) + 1):
            found = there[windows[row], places[row] + accepted + 1]
            next_RM[row, accepted] = _most_alike(found, onward_RM[row][accepted])
    return Courses(
        place_R[order_R],
        limit_R[order_R],
        distance_RKC[order_R],
        next_RM,
        errors_RM4[order_R],
        windows=int(window_R.max()) + 1,
    )


def _most_alike(found: dict[int, int], pattern: int) -> int:
    """The round whose course agrees with the pattern longest, from the newest patch back."""
    if pattern in found:
        return found[pattern]
    return found[min(found, key=lambda other: f"{other ^ pattern:0{REMEMBERED}b}"[::-1])]


def _joined(parts: Sequence[Courses]) -> Courses:
    """The courses of all windows, in the order of their places again."""
    first = [0]
    for part in parts:
        first.append(first[-1] + len(part.place_R))
    rounds = first[-1]
    place_R = torch.cat([part.place_R for part in parts])
    order_R = torch.argsort(place_R, stable=True)
    now_at_R = torch.empty(rounds + 1, dtype=torch.int64)
    now_at_R[order_R] = torch.arange(rounds)
    now_at_R[rounds] = rounds
    next_RM = torch.cat(
        [
            torch.where(part.next_RM == len(part.place_R), rounds, part.next_RM + begin)
            for part, begin in zip(parts, first, strict=False)
        ]
    )
    limit_R, distance_RKC, errors_RM4 = (
        torch.cat([getattr(part, name) for part in parts])[order_R]
        for name in ("limit_R", "distance_RKC", "errors_RM4")
    )
    return Courses(
        place_R[order_R],
        limit_R,
        distance_RKC,
        now_at_R[next_RM[order_R]],
        errors_RM4,
        windows=sum(part.windows for part in parts),
    )
