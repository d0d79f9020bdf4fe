"""The search within the search: drafts on the outside, all rules of each in closed form inside.

    nested = Nested(job, at_once=1)
    settings = nested.next(asked, left=20)        # None while a draft is prepared

A draft costs minutes, and once it is trained and has been played against the target
(`foredraft.judge.courses`) a rule of it costs a fraction of a millisecond. So the function that is
searched is taken apart: settings lead to what a draft costs and proposes, and from there every
objective follows by known arithmetic. That is grey-box, or composite, Bayesian optimisation
(Astudillo and Frazier, arXiv 1906.01537 and 2201.00272; of several objectives: arXiv 2311.02146),
with a cost for each evaluation that is its own, as in the decoupled hypervolume knowledge gradient
(HVKG: Daulton et al., arXiv 2311.09343).

Exact: the closed form's rounds, for rules that propose means (see there); the hypervolume that a
point adds (`foredraft.search.gain`). Measured: what passes cost. Modelled:

- what a draft that nobody has trained proposes: what the most alike draft does, but that its
  distances are larger or smaller by a factor, the less sure the less alike they are;
- what it costs: in proportion to its parameters, both in training and in a pass (heads: none);
- whether a rule near a bound of the budget keeps it: by how far off decoding was so far.

What is decoded is the setting whose expected point adds most to the front, if that is worth one of
the trials that are left; else the draft is prepared whose whole front is expected to add most a
second.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import ray
import torch
from torch import Tensor

from foredraft import bank
from foredraft.cluster.tasks import HEAD, OPTIONS, last_line
from foredraft.search import front, samplers
from foredraft.search.enumeration import NEARER, OUTER, Inner, Sketch
from foredraft.search.gain import front_of, gains, spread_along, volume
from foredraft.search.progress import say
from foredraft.search.stopping import Residuals
from foredraft.search.trial import Trial
from foredraft.search.workshop import Job, Workshop
from foredraft.settings.config import Evaluation, Training
from foredraft.settings.dimensions import ChoiceDimension, FloatDimension
from foredraft.settings.study import POLICY_DIMENSIONS

PREPARING_S = 20.0
"""What playing a pair, timing its passes and going through its rules is taken to cost."""
UNKNOWN_RATE = 1e-4
"""Seconds of training that a parameter is taken to cost before any draft was trained."""
SURE = 0.7
"""How much the distances of a draft just like another differ, as the deviation of their log2."""
NEGLIGIBLE = 0.01
"""Weight below which a factor is passed over."""
LEAST_GAIN = 3e-4
"""The part of the front's volume that a setting has to add to be worth a trial."""
TRIES = 2
"""How often a draft is tried to be prepared."""
BOXES = 200_000
"""Into how many boxes the points of a front may cut the space; of more points some are left out."""


@dataclass(eq=False)
class Prospect:
    """A draft under a context policy, and what is known of its rules."""

    settings: dict[str, Any]
    """of the draft and of the policy"""
    training: Training
    evaluation: Evaluation
    path: Path
    """where its draft is in the bank, or will be"""
    inner: Inner | None = None
    preparing: Any = None
    """the future of `inner`, while it is made"""
    failures: int = 0


class Asked(NamedTuple):
    """A trial that has begun."""

    key: str
    """`key_of` what was drawn for it"""
    trial: Trial


class NextSetting(NamedTuple):
    """Settings that may be decoded next."""

    settings: dict[str, Any]
    goals_D: Tensor
    """what is expected of them"""
    gain: float
    """volume that this is expected to add"""


class Nested:
    """Chooses what to decode next, and has drafts made as they are expected to pay."""

    def __init__(self, job: Job, *, at_once: int) -> None:
        self.job, self.study, self.at_once = job, job.study, at_once
        self.workshop = Workshop(job)
        self.prospects = self._all_prospects()
        if self.study.outer != "gain":
            samplers.named(self.study.outer, self.study, seed=self.study.seed)  # may need a library
        self.expected: dict[str, Tensor] = {}
        """goals of the settings that were chosen, by `key_of` them"""
        self.exhausted = False
        """whether no setting of any draft is expected to add anything"""

    def next(self, asked: Sequence[Asked], *, left: int) -> dict[str, Any] | None:
        """The settings of the next trial, or None while there is nothing that is worth one.

        What they leave out is anybody's to draw: all of it where nothing at all is expected to keep
        the budget.

        Args:
            asked: every trial that has begun.
            left: trials that may still begin.
        """
        self._collect()
        for prospect in self.prospects:
            if prospect.failures == TRIES:  # its trial meets the same error, and reports it
                self.prospects.remove(prospect)
                return prospect.settings
        decoded = [one.trial for one in asked if one.trial.state == "complete"]
        within = [trial for trial in decoded if trial.is_within(self.study.budget)]
        front_KD = self._front(asked, within)
        least = LEAST_GAIN * volume(front_KD, self._worst_D) if self._known else 0.0
        tried, residuals = {one.key for one in asked}, Residuals.of(decoded)
        best = self._best(front_KD, tried, residuals, least=least)
        waiting = [
            prospect
            for prospect in self.prospects
            if prospect.inner is None and prospect.preparing is None
        ]
        hopes = [(hope, c) for hope, c in self._hopes(waiting, front_KD) if hope > least]
        dearest = sorted((hope for hope, _ in hopes), reverse=True)[:left]
        is_worth_it = best is not None and best.gain * left >= sum(dearest)
        preparing = sum(prospect.preparing is not None for prospect in self.prospects)
        if hopes and preparing < self.at_once - is_worth_it:
            self._prepare(self._next_of(hopes))
            preparing += 1
        if best and (is_worth_it or not preparing):
            self.expected[key_of(best.settings)] = best.goals_D
            return best.settings
        if preparing or any(one.trial.state == "running" for one in asked):
            return None
        # Where something keeps the budget that was not expected to, the expectation is no guide.
        self.exhausted = bool(within) and any(inner.settings for inner in self._known)
        return None if self.exhausted else {}

    @property
    def is_waiting(self) -> bool:
        """Whether nothing that is being prepared is ready."""
        preparing = [
            prospect.preparing for prospect in self.prospects if prospect.preparing is not None
        ]
        return not preparing or not ray.wait(preparing, timeout=0)[0]

    @property
    def in_words(self) -> str:
        """Why nothing else is tried."""
        rules, drafts = sum(inner.rules for inner in self._known), len(self._known)
        return (
            f"of {rules:,} rules of {drafts} draft{'s' if drafts > 1 else ''} in closed form none "
            "else is expected to add to the front"
        )

    def close(self) -> None:
        """Give up what is still being prepared."""
        for prospect in self.prospects:
            if prospect.preparing is not None:
                ray.cancel(prospect.preparing)

    def _all_prospects(self) -> list[Prospect]:
        """Every draft under every policy, each once."""
        study, architecture = self.study, self.job.architecture
        dimensions = study.dimensions
        found: dict[tuple[str, str], Prospect] = {}
        for settings in study.draft.drawn(architecture, dimensions, beside=POLICY_DIMENSIONS):
            training, evaluation = self.workshop.training(settings), study.judged_on(settings)
            path = self.workshop.place_of(training)
            prospect = Prospect(settings, training, evaluation, path)
            found.setdefault((path.name, repr(evaluation.policy)), prospect)
        return list(found.values())

    def _prepare(self, prospect: Prospect) -> None:
        options = {**OPTIONS, "num_cpus": 0, "resources": HEAD}
        prospect.preparing = (
            ray.remote(_inner_of).options(**options).remote(self.job, prospect.settings)
        )

    def _collect(self) -> None:
        """Take what has been prepared since."""
        for prospect in self.prospects:
            if prospect.preparing is None or not ray.wait([prospect.preparing], timeout=0)[0]:
                continue
            try:
                prospect.inner = ray.get(prospect.preparing)
            except ray.exceptions.RayError as error:
                prospect.failures += 1
                say(f"{_in_words(prospect.settings)}: {last_line(error)}")
            else:
                rules, count = prospect.inner.rules, len(prospect.inner.settings)
                say(
                    f"{_in_words(prospect.settings)}: {rules:,} rules in closed form, {count:,} of "
                    "them on the front that is expected"
                )
            prospect.preparing = None

    def _front(self, asked: Sequence[Asked], within: Sequence[Trial]) -> Tensor:
        """The goals [K, D] of what kept the budget, and what was expected of it, or still is.

        Of a setting that came out worse than expected the like are not tried again and again.
        """
        objectives = self.study.objectives
        points = [front.goals(one.outcome, objectives) for one in within if one.outcome]
        kept = {trial.number for trial in within}
        expected = [
            self.expected[one.key][None]
            for one in asked
            if one.key in self.expected
            and (one.trial.state == "running" or one.trial.number in kept)
        ]
        there_KD = torch.tensor(points, dtype=torch.float64).reshape(-1, len(objectives))
        all_KD = torch.cat((there_KD, *expected))
        return _thinned(all_KD[front_of(all_KD)])

    @functools.cached_property
    def _worst_D(self) -> Tensor:
        """The goals from which volumes are counted: no acceptance, no speed, the budget used up."""
        reference, budget = self._known[0].sketch.terms.reference, self.study.budget
        worst = {
            "mse": budget.largest_mse_ratio * reference.mse,
            "mae": budget.largest_mse_ratio * reference.mae,
            "mse_ratio": budget.largest_mse_ratio,
            "deviation": budget.largest_deviation_ratio * reference.mse,
            "deviation_ratio": budget.largest_deviation_ratio,
        }
        return torch.tensor([-worst.get(name, 0.0) for name in self.study.objectives]).double()

    def _best(
        self, front_KD: Tensor, tried: Collection[str], residuals: Residuals, *, least: float
    ) -> NextSetting | None:
        """The untried settings that are expected to add most, or None where none adds `least`."""
        best: NextSetting | None = None
        for inner in self._known:
            gain_N = gains(inner.goals_ND, front_KD, self._worst_D)
            for room_N, name in zip(inner.room_NB.T, self.study.budget.bounds, strict=True):
                gain_N = gain_N * _chance(room_N, getattr(residuals, name))
            for n in gain_N.argsort(descending=True).tolist():
                if gain_N[n] <= (best.gain if best else least):
                    break
                if key_of(inner.settings[n]) not in tried:
                    best = NextSetting(inner.settings[n], inner.goals_ND[n], float(gain_N[n]))
                    break
        return best

    @property
    def _known(self) -> list[Inner]:
        return [prospect.inner for prospect in self.prospects if prospect.inner is not None]

    def _hopes(self, waiting: Sequence[Prospect], front_KD: Tensor) -> list[tuple[float, Prospect]]:
        """What the whole front of each is expected to add to all fronts that are known."""
        known = [
            (prospect, prospect.inner) for prospect in self.prospects if prospect.inner is not None
        ]
        if not known:
            return [(1.0, prospect) for prospect in waiting]
        there_KD = torch.cat((front_KD, *(inner.sketch.goals() for _, inner in known)))
        there_KD = _thinned(there_KD[front_of(there_KD)])
        before = volume(there_KD, self._worst_D)
        told: dict[tuple[int, float, float, bool], float] = {}
        hopes = []
        for prospect in waiting:
            apart = [self._distance(prospect.settings, other.settings) for other, _ in known]
            unlike = min(apart)
            nearest, like = known[apart.index(unlike)]
            cost = self._cost_of(prospect) / max(1, _parameters(nearest))
            is_heads = self._is_heads(prospect)
            key = (id(nearest), unlike, cost, is_heads)
            if key not in told:
                sketch = like.sketch.of_another(draft_cost=cost, opens_alone=is_heads)
                told[key] = self._hope(sketch, there_KD, unlike=unlike) - before
            hopes.append((told[key], prospect))
        return hopes

    def _is_heads(self, prospect: Prospect) -> bool:
        return self.study.draft.kind_of(prospect.settings) == "heads"

    def _cost_of(self, prospect: Prospect) -> int:
        """What a pass of a draft costs, as parameters: heads ask for none of their own."""
        return 0 if self._is_heads(prospect) else _parameters(prospect)

    def _hope(self, sketch: Sketch, there_KD: Tensor, *, unlike: float) -> float:
        """The volume with a draft that is like another, but for some factor of its distances."""
        hope = total = 0.0
        for nearer in NEARER:
            weight = math.exp(-0.5 * (math.log2(nearer) / (SURE + unlike)) ** 2)
            if weight < NEGLIGIBLE:
                continue
            together_KD = torch.cat((there_KD, sketch.goals(nearer=nearer)))
            hope += weight * volume(together_KD, self._worst_D)
            total += weight
        return hope / total

    def _distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """How unlike settings are: each choice that differs counts 1, each number its share."""
        return sum(self._apart(n, one.get(n), other.get(n)) for n in one.keys() | other.keys())

    def _apart(self, name: str, one: Any, other: Any) -> float:
        if one == other:
            return 0.0
        dimension = self.study.dimensions[name]
        if isinstance(dimension, ChoiceDimension) or one is None or other is None:
            return 1.0
        low, high = dimension.ends
        return float(abs(one - other) / (high - low))

    def _next_of(self, hopes: Sequence[tuple[float, Prospect]]) -> Prospect:
        """The prospect that is expected to add most a second, or what an outer sampler says."""
        if self.study.outer != "gain" and self._known:
            return self._drawn([prospect for _, prospect in hopes])
        return max(hopes, key=lambda one: one[0] / self._seconds(one[1]))[1]

    def _drawn(self, waiting: Sequence[Prospect]) -> Prospect:
        """The one most like what a sampler of Optuna draws, told the volume of every known one."""
        seed = self.study.seed + len(self._known)  # the same one would draw the same again
        sampler = samplers.named(self.study.outer, self.study, seed=seed)
        outer = optuna.create_study(sampler=sampler, direction="maximize")
        dimensions = {n: d for n, d in self.study.dimensions.items() if n in OUTER}
        for prospect in self.prospects:
            if prospect.inner is not None:
                outer.enqueue_trial(prospect.settings)
                trial = outer.ask()
                samplers.draw(trial, dimensions)
                sketch = prospect.inner.sketch
                outer.tell(trial, volume(sketch.goals(), self._worst_D))
        wanted = samplers.draw(outer.ask(), dimensions)
        return min(waiting, key=lambda prospect: self._distance(prospect.settings, wanted))

    def _seconds(self, prospect: Prospect) -> float:
        """What it takes to have the rules of a prospect: as the drafts that are there took."""
        if bank.is_whole(prospect.path):
            return PREPARING_S
        trained = {c.path: c.training for c in self.prospects if bank.is_whole(c.path)}
        alike = [
            p for p, training in trained.items() if training.stages == prospect.training.stages
        ]
        rates = [
            model.metrics["seconds"] / model.config.num_parameters
            for model in map(bank.open_model, alike or trained)
        ]
        rate = statistics.median(rates) if rates else UNKNOWN_RATE
        return PREPARING_S + rate * _parameters(prospect)


def key_of(settings: Mapping[str, Any]) -> str:
    """Settings as one tells them apart, whoever drew them."""
    rounded = FloatDimension.rounded
    return repr(sorted((n, rounded(v) if isinstance(v, float) else v) for n, v in settings.items()))


def _inner_of(job: Job, settings: Mapping[str, Any]) -> Inner:
    """All rules of a prospect; a task that waits for others and computes nothing itself."""
    return Workshop(job).inner(settings)


def _parameters(prospect: Prospect) -> int:
    return prospect.training.model.num_parameters


def _chance(room_N: Tensor, residuals: Sequence[float]) -> Tensor:
    """Probabilities that a bound is kept by what is expected to leave so much room below it."""
    if not residuals:
        return (room_N >= 0).double()
    deviation = max(1e-9, math.sqrt(sum(r * r for r in residuals) / len(residuals)))
    return torch.special.ndtr(room_N / deviation)


def _thinned(points_KD: Tensor) -> Tensor:
    """Points of a front, as many as the volume can be told of."""
    most = int(BOXES ** (1 / points_KD.shape[1]))
    return points_KD[spread_along(points_KD, most)]


def _in_words(settings: Mapping[str, Any]) -> str:
    """A prospect as one says it."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "the draft"
