"""What a study's trials are compared with: the target alone, each draft alone, and the ceiling.

Errors are held against the target's own under the study's reference policy, whatever the policy of
a draft; what a policy costs the target itself stands beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from pydantic import Field

from foredraft.search.trial import Errors, Outcome, Part, Sizes, Trial
from foredraft.settings.budgets import Budget
from foredraft.settings.config import Evaluation
from foredraft.settings.study import Study
from speculation import ContextPolicy, cost

CEILING_AT = tuple(i / 20 for i in range(21))
"""Acceptance rates at which the ceiling is told."""


class Naive(Errors):
    """Seasonal naive on the study's windows: what a forecast is worth that costs nothing."""

    season: int
    """rows that it repeats"""
    mase: float | None = None
    """mae over what it errs by in training"""


class Target(Sizes):
    """The target alone, under the study's reference policy."""

    key: str
    parameters: int
    patch: int
    """time steps of a patch"""
    mse: float
    mae: float
    naive: Naive | None = None
    """None for a study of before it was measured"""


class TargetAlone(Target):
    """The target alone, with what the trials tell of it."""

    step_s: float | None = None
    """seconds of one step, at the study's batch"""
    policy: str = "sliding"
    """the study's reference policy, by its name"""
    policies: dict[str, Errors] = Field(default_factory=dict)
    """its errors under each context policy that was tried, by the policy's name"""


class DraftAlone(Sizes):
    """A draft alone, under one context policy."""

    key: str
    scale: float | None = None
    """None where depth and width are both given"""
    depth: float | None = None
    """of the layers alone; None where they follow scale"""
    width: float | None = None
    """of all other sizes; None where they follow scale"""
    parameters: int
    policy: str
    mse: float
    mae: float
    mse_ratio: float
    """over the target's under the study's reference policy"""
    deviation_ratio: float | None = None
    """deviation from the target's own forecast under that policy, over the same; None of a study
    of before it was counted"""
    speedup_alone: float
    """seconds of the target over seconds of the draft, each alone"""


class CeilingPoint(Part):
    """The highest speedup that the cost model grants an acceptance rate, with the best draft."""

    acceptance: float
    speedup: float


class References(Part):
    """What a report draws beside the trials."""

    target: TargetAlone
    drafts: tuple[DraftAlone, ...] = ()
    ceiling: tuple[CeilingPoint, ...] = ()
    horizon: int
    batch: int
    budget: Budget

    @classmethod
    def of(cls, study: Study, target: Target, trials: Iterable[Trial]) -> References:
        """What is known of the target alone, and what the trials tell."""
        judged = one_per_draft_and_policy(study, trials)
        alone = TargetAlone(
            **{name: getattr(target, name) for name in Target.model_fields},
            step_s=judged[0][1].costs.step_s[-1] if judged else None,
            policy=policy_in_words(study.reference),
            policies={
                policy_in_words(policy_of(trial, study)): outcome.target
                for trial, outcome in judged
            },
        )
        return cls(
            target=alone,
            drafts=tuple(_draft_alone(study, trial, outcome) for trial, outcome in judged),
            ceiling=_ceiling(study, judged, patch=target.patch),
            horizon=study.evaluation.horizon,
            batch=study.evaluation.batch,
            budget=study.budget,
        )


Judged = tuple[Trial, Outcome]
"""A trial that was judged, beside what it came to."""


def one_per_draft_and_policy(study: Study, trials: Iterable[Trial]) -> list[Judged]:
    """The last trial of each draft under each context policy, smallest draft first."""
    found = {
        (trial.outcome.draft.key, policy_of(trial, study)): (trial, trial.outcome)
        for trial in trials
        if trial.outcome
    }
    return sorted(found.values(), key=lambda judged: judged[1].draft.parameters)


def policy_of(trial: Trial, study: Study) -> ContextPolicy:
    """How both models read in a trial."""
    names = ("context_policy", "renorm_every")
    return study.policy({n: trial.settings[n] for n in names if n in trial.settings})


def evaluation_of(trial: Trial, study: Study) -> Evaluation:
    """What the trial was judged on."""
    return study.evaluation.model_copy(update={"policy": policy_of(trial, study)})


def policy_in_words(policy: ContextPolicy) -> str:
    """A context policy as a report names it."""
    return (
        f"{policy.kind}, anew every {policy.renorm_every}" if policy.renorm_every else policy.kind
    )


def _draft_alone(study: Study, trial: Trial, outcome: Outcome) -> DraftAlone:
    draft, reference_mse = outcome.draft, outcome.reference.mse
    deviation = draft.deviation
    return DraftAlone(
        **draft.architecture.model_dump(),
        scale=_factor(trial, "scale"),
        depth=_factor(trial, "depth"),
        width=_factor(trial, "width"),
        key=draft.key,
        parameters=draft.parameters,
        policy=policy_in_words(policy_of(trial, study)),
        mse=draft.errors.mse,
        mae=draft.errors.mae,
        mse_ratio=draft.errors.mse / reference_mse,
        deviation_ratio=None if deviation is None else deviation / reference_mse,
        speedup_alone=draft.speedup,
    )


def _factor(trial: Trial, name: str) -> float | None:
    value = trial.settings.get(name)
    return float(value) if value is not None else None


def _ceiling(study: Study, judged: list[Judged], *, patch: int) -> tuple[CeilingPoint, ...]:
    patches, batch = -(-study.evaluation.horizon // patch), study.evaluation.batch
    by_draft = {
        _best_speedups(
            outcome.costs,
            patches=patches,
            renorm_every=policy_of(trial, study).renorm_every,
            batch=batch,
        )
        for trial, outcome in judged
    }
    best = map(max, zip(*by_draft, strict=True))
    return tuple(
        CeilingPoint(acceptance=acceptance, speedup=speedup)
        for acceptance, speedup in zip(CEILING_AT if by_draft else (), best, strict=True)
    )


@functools.lru_cache(maxsize=512)
def _best_speedups(
    costs: cost.PassCosts, *, patches: int, renorm_every: int, batch: int
) -> tuple[float, ...]:
    """The ceiling that one draft's costs grant; whoever watches a study asks for it often."""
    return cost.best_speedups(
        costs, CEILING_AT, patches=patches, renorm_every=renorm_every, batch=batch
    )
