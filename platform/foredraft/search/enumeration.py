"""Every rule of a draft in a moment: thousands of settings, and what each is expected to come to.

    inner = enumerate_rules(terms, {"scale": 0.7}, prepared)

The rules of a study's space are spread over it evenly, then ever closer round those that are on the
front of what is expected. Nothing is decoded. What is kept is that front; and what it would be for
a draft that is nearer to the target, or farther from it, as the next draft may be.

Shapes: Q rules, N of them on the front, D objectives, each better the higher it is, B bounds of the
budget.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foredraft.judge import closed_form
from foredraft.judge.closed_form import Expected
from foredraft.judge.evaluate import Accuracy
from foredraft.search import rulebook
from foredraft.search.gain import front_of, spread_along
from foredraft.search.judging import Prepared
from foredraft.settings.config import Evaluation
from foredraft.settings.drafts import DRAFT_DIMENSIONS
from foredraft.settings.study import OBJECTIVES, POLICY_DIMENSIONS, Study
from speculation import Acceptance, cost

EVENLY = 4096
"""Rules that are spread over the space."""
REFINED = 2048
"""Rules that are tried round the front, each time."""
STEPS = (0.15, 0.05, 0.015)
"""How far from the front, as deviations along each dimension of the unit cube."""
NEARER = (0.25, 0.5, 1.0, 2.0, 4.0)
"""By how much the squared distances of another draft's proposals may differ."""
OUTER = (*DRAFT_DIMENSIONS, *POLICY_DIMENSIONS)
"""What tells apart drafts and policies; all else is a rule's."""
SKETCHED = 32
"""Rules of the front that are asked what another draft would make of them."""


class Terms(NamedTuple):
    """In what terms a study sees what is expected of rules: its objectives, and its budget."""

    study: Study
    evaluation: Evaluation
    """horizon, policy and batch"""
    reference: Accuracy
    """of the target alone, under the study's reference policy"""
    patch: int
    """time steps of a patch"""

    def goals(
        self, expected: Expected, rules: Sequence[Acceptance], costs: cost.PassCosts
    ) -> Tensor:
        """The study's objectives [Q, D], turned so that higher is better."""
        values = {
            "acceptance_rate": expected.acceptance_rate_Q,
            "accept_length": expected.accept_length_Q,
            "predicted_speedup": expected.speedups(
                costs, rules, evaluation=self.evaluation, patch=self.patch
            ),
            "mse": expected.mse_Q,
            "mae": expected.mae_Q.nan_to_num(torch.inf),
            "deviation": expected.deviation_Q,
            **self._ratios(expected),
        }
        objectives = self.study.objectives
        signed = [values[n] if OBJECTIVES[n] == "max" else -values[n] for n in objectives]
        return torch.stack(signed, 1)

    def room(self, expected: Expected) -> Tensor:
        """What each rule is expected to leave of each bound of the budget, float64 [Q, B]."""
        ratios = self._ratios(expected)
        return torch.stack([b - ratios[n] for n, b in self.study.budget.bounds.items()], 1)

    def _ratios(self, expected: Expected) -> dict[str, Tensor]:
        """What a budget may bound, by its name, each [Q]."""
        return {
            "mse_ratio": expected.mse_Q / self.reference.mse,
            "deviation_ratio": expected.deviation_Q / self.reference.mse,
        }


class Sketch(NamedTuple):
    """Some rules all along the front, and what other drafts would make of them."""

    rules: list[Acceptance]
    expected: list[Expected]
    """of each factor of `NEARER`"""
    costs: cost.PassCosts
    terms: Terms

    def of_another(self, *, draft_cost: float, opens_alone: bool) -> Sketch:
        """The same with another draft.

        Args:
            draft_cost: seconds of its passes, over those of this draft's.
            opens_alone: whether it proposes nothing in a first round, as heads do not.
        """
        draft_s = tuple(tuple(s * draft_cost for s in column) for column in self.costs.draft_s)
        costs = dataclasses.replace(self.costs, draft_s=draft_s, opens_alone=opens_alone)
        return self._replace(costs=costs)

    def goals(self, *, nearer: float = 1.0) -> Tensor:
        """The goals [N, D] of those of these rules that keep the budget.

        Args:
            nearer: the factor of `NEARER` that the draft's distances have.
        """
        expected = self.expected[NEARER.index(nearer)]
        kept = _within(self.terms.room(expected))
        return self.terms.goals(expected, self.rules, self.costs)[kept]


class Inner(NamedTuple):
    """The rules of one draft under one context policy that nothing else of them beats."""

    settings: list[dict[str, Any]]
    goals_ND: Tensor
    """float64, the study's objectives, turned so that higher is better"""
    room_NB: Tensor
    """float64, what they are expected to leave of each bound of the budget"""
    rules: int
    """that were looked at"""
    sketch: Sketch


def enumerate_rules(
    terms: Terms, fixed: Mapping[str, Any], prepared: Mapping[bool, Prepared]
) -> Inner:
    """The front of some 10,000 rules.

    Args:
        terms: the study, and what it asks of a rule.
        fixed: the settings of the draft and of the policy.
        prepared: the pair, by whether rules emit the draft's patches.
    """
    study, space = terms.study, _Space(terms, fixed, prepared)
    generator = torch.Generator().manual_seed(study.seed)
    engine = torch.quasirandom.SobolEngine(space.width, scramble=True, seed=study.seed)
    parts = [space.looked_at(engine.draw(EVENLY, dtype=torch.float64))]
    for step in STEPS:
        table = _together(parts)
        front = table.at(table.front(study))
        parents = torch.randint(len(front.settings), (REFINED,), generator=generator)
        noise = torch.randn(REFINED, space.width, generator=generator, dtype=torch.float64)
        near = (front.point_QI[parents] + step * noise).clamp(0.0, 1.0 - 1e-9)
        parts.append(space.looked_at(near))
    table = _together(parts)
    best = table.at(table.front(study))
    within = best.at(_within(best.room_QB).nonzero().flatten())
    return Inner(
        settings=within.settings,
        goals_ND=within.goals_QD,
        room_NB=within.room_QB,
        rules=len(table.settings),
        sketch=space.sketch(best),
    )


def _within(room_QB: Tensor) -> Tensor:
    """Which rules keep every bound, bool [Q]."""
    return (room_QB >= 0).all(1)


class _Table(NamedTuple):
    """Rules that were looked at, and where in the unit cube they are."""

    settings: list[dict[str, Any]]
    point_QI: Tensor
    goals_QD: Tensor
    room_QB: Tensor

    def at(self, index_Q: Tensor) -> _Table:
        """Some of them."""
        settings = [self.settings[q] for q in index_Q.tolist()]
        return _Table(settings, *(column[index_Q] for column in self[1:]))

    def front(self, study: Study) -> Tensor:
        """The rules within the budget that none of them beats; those nearest to it if none is.

        What a bound leaves counts as a goal where no objective goes its way: else all that stand
        would be as near to the bound as can be, and half of them beyond it once they are decoded.
        """
        budget = study.budget
        within = _within(self.room_QB).nonzero().flatten()
        if not len(within):
            bound_B = torch.tensor([*budget.bounds.values()], dtype=torch.float64)
            return (self.room_QB / bound_B).amin(1).argsort(descending=True)[:SKETCHED]
        apart = [b for b, name in enumerate(budget.bounds) if not _aims_at(study, name)]
        goals_QD = torch.cat((self.goals_QD, self.room_QB[:, apart]), 1)
        return within[front_of(goals_QD[within])]


def _aims_at(study: Study, bounded: str) -> bool:
    """Whether some objective is the better the more room a bound has."""
    return bounded in study.objectives or bounded.removesuffix("_ratio") in study.objectives


def _together(tables: Sequence[_Table]) -> _Table:
    settings = [one for table in tables for one in table.settings]
    return _Table(
        settings, *(torch.cat(part) for part in zip(*(t[1:] for t in tables), strict=True))
    )


class _Space:
    """The rules of a study's space that go with one draft under one policy."""

    def __init__(
        self, terms: Terms, fixed: Mapping[str, Any], prepared: Mapping[bool, Prepared]
    ) -> None:
        self.terms, self.study = terms, terms.study
        self.fixed, self.prepared = fixed, prepared
        self.searched = [name for name in self.study.dimensions if name not in fixed]
        self.width = max(1, len(self.searched))
        self.costs = next(iter(prepared.values())).costs
        self.seen: set[str] = set()

    def looked_at(self, point_QI: Tensor) -> _Table:
        """What the rules at some points of the unit cube are expected to come to, each once."""
        kept, settings = [], []
        for index, point in enumerate(point_QI.tolist()):
            shares = dict(zip(self.searched, point, strict=False))
            one = rulebook.at(self.study.dimensions, shares, fixed=self.fixed)
            if (name := repr(one)) not in self.seen and self._is_of_this_draft(one):
                self.seen.add(name)
                kept.append(index)
                settings.append(one)
        rules = [self.study.rule(one) for one in settings]
        if not rules:
            none_QD = torch.zeros(0, len(self.study.objectives), dtype=torch.float64)
            none_QB = torch.zeros(0, len(self.study.budget.bounds), dtype=torch.float64)
            return _Table([], point_QI[:0], none_QD, none_QB)
        expected = self._expected(rules)
        goals_QD, room_QB = self.terms.goals(expected, rules, self.costs), self.terms.room(expected)
        return _Table(settings, point_QI[kept], goals_QD, room_QB)

    def sketch(self, front: _Table) -> Sketch:
        """What drafts that are nearer to the target or farther from it would make of a front."""
        places = spread_along(front.goals_QD, SKETCHED).tolist()
        rules = [self.study.rule(front.settings[q]) for q in places]
        expected = [self._with_another(rules, nearer=factor) for factor in NEARER]
        return Sketch(rules, expected, self.costs, self.terms)

    def _is_of_this_draft(self, settings: Mapping[str, Any]) -> bool:
        """Whether what was drawn beside them leaves the draft and the policy as they are."""
        return {name for name in settings if name in OUTER} == self.fixed.keys()

    def _with_another(self, rules: Sequence[Acceptance], *, nearer: float) -> Expected:
        """What would be expected, had all distances a factor: what follows from them has it too."""
        expected, own = self._expected(rules, nearer=nearer), self.terms.reference.mse
        return expected._replace(
            mse_Q=own + nearer * (expected.mse_Q - own), deviation_Q=nearer * expected.deviation_Q
        )

    def _expected(self, rules: Sequence[Acceptance], *, nearer: float = 1.0) -> Expected:
        """What the closed form tells of rules, whatever they emit, in their order."""
        groups: defaultdict[bool, list[int]] = defaultdict(list)
        for index, rule in enumerate(rules):
            groups[rule.emits_draft].append(index)
        parts = []
        for emits_draft, indices in groups.items():
            courses = self.prepared[emits_draft].courses
            if nearer != 1.0:
                courses = courses._replace(distance_RKC=courses.distance_RKC * nearer)
            some = [rules[index] for index in indices]
            parts.append(closed_form.expect(courses, some, steps=self.terms.patch))
        back = torch.tensor([i for indices in groups.values() for i in indices]).argsort()
        return Expected(*(torch.cat(columns)[back] for columns in zip(*parts, strict=True)))
