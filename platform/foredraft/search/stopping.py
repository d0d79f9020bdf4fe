"""How wrong the closed form has been in a study, and which trials it may therefore stop.

A trial is decoded unless the closed form tells that it will miss the budget or the front even if it
were wrong by more than it ever was before. What it does not tell is unbeatable, and before it has
been put to the test it stops nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from foredraft.search import front
from foredraft.search.trial import Metrics, Prediction, Reason, Trial
from foredraft.settings.budgets import Budget
from foredraft.settings.study import OBJECTIVES, Study

TRIED = 8
"""Decoded trials that put the closed form to the test before it is trusted to stop one."""
EXACT = 1e-6
"""A trial whose acceptance came out as predicted to within this drew no lots that mattered, as one
of a tolerance does: it tells nothing of how far off the next may be."""
SAFETY = 2.0
"""By how much more than ever before it may be wrong this time."""
USUAL = 0.95
"""The part of the trials that stayed within the error that is told beside a prediction."""


RATIOS = tuple(Budget.model_fields)
"""Metrics that a budget may bound."""
SQUARES = {"mse": "mse_ratio", "deviation": "deviation_ratio"}
"""Objectives of which the closed form tells the ratio, by its name."""


class Residuals(NamedTuple):
    """By how much decoding was off the closed form, trial by trial."""

    acceptance_rate: tuple[float, ...]
    speedup: tuple[float, ...]
    """as fractions of what was predicted"""
    mse_ratio: tuple[float, ...]
    deviation_ratio: tuple[float, ...]

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> Residuals:
        """Those of the trials that were predicted and then decoded."""
        decoded = [
            (one.outcome, one.outcome.prediction)
            for one in trials
            if one.outcome and one.outcome.prediction and not one.outcome.stopped
        ]
        counted = [(outcome.metrics, told) for outcome, told in decoded]
        return cls(
            tuple(abs(was.acceptance_rate - told.acceptance_rate) for was, told in counted),
            tuple(abs(was.predicted_speedup / told.speedup - 1) for was, told in counted),
            *(
                tuple(
                    abs(was - expected)
                    for outcome, told in decoded
                    if (was := outcome.ratios[name]) is not None
                    and (expected := getattr(told, name)) is not None
                )
                for name in RATIOS
            ),
        )

    @property
    def usual(self) -> dict[str, float | None]:
        """What 95 % of them stayed within, as a prediction names it."""
        names = ("acceptance_error", "speedup_error", *(f"{name}_error" for name in RATIOS))
        return {n: _quantile(values) for n, values in zip(names, self, strict=True)}

    @property
    def slack(self) -> Slack | None:
        """By how much it may be wrong, or None while that is not known."""
        tested = sum(off > EXACT for off in self.acceptance_rate)
        if min(tested, *(len(values) for values in self)) < TRIED:
            return None
        return Slack(*(SAFETY * max(values) for values in self))

    @property
    def trust(self) -> Trust:
        """What of them a trial needs to know."""
        return Trust(self.slack, self.usual)


class Slack(NamedTuple):
    """By how much the closed form may be wrong at most."""

    acceptance_rate: float
    speedup: float
    """as a fraction"""
    mse_ratio: float
    deviation_ratio: float


class Trust(NamedTuple):
    """How far the closed form is to be trusted; as short after a thousand trials as after one.

    Tune keeps what a trial is given, with every trial, in memory and on the storage.
    """

    slack: Slack | None
    usual: Mapping[str, float | None]


def prediction_of(metrics: Metrics, trust: Trust, *, reference_mse: float) -> Prediction:
    """The closed form's metrics as a prediction, with its usual errors."""
    return Prediction(
        acceptance_rate=metrics.acceptance_rate,
        speedup=metrics.predicted_speedup,
        **metrics.ratios(reference_mse=reference_mse),
        **trust.usual,
    )


def why_stop(
    metrics: Metrics,
    study: Study,
    best: Sequence[front.Goals],
    *,
    slack: Slack | None,
    reference_mse: float,
) -> Reason | None:
    """Why a trial of which the closed form tells so much is hopeless, or None.

    Args:
        metrics: what the closed form tells.
        study: its objectives and budget.
        best: the goals of the front.
        slack: by how much the closed form may be wrong; None stops nothing.
        reference_mse: of the target alone, under the study's reference policy.
    """
    if slack is None or not study.stop_early:
        return None
    least = {
        name: ratio - getattr(slack, name)
        for name, ratio in metrics.ratios(reference_mse=reference_mse).items()
        if ratio is not None
    }
    if any(room < 0 for room in study.budget.room(least).values()):
        return "budget"
    bounds = {
        "acceptance_rate": metrics.acceptance_rate + slack.acceptance_rate,
        "predicted_speedup": metrics.predicted_speedup * (1 + slack.speedup),
        **least,
        **{name: least[of] * reference_mse for name, of in SQUARES.items() if of in least},
    }
    optimistic = tuple(
        math.inf if (bound := bounds.get(name)) is None else _signed(name, bound)
        for name in study.objectives
    )
    return "front" if any(front.beats(other, optimistic) for other in best) else None


def _signed(objective: str, value: float) -> float:
    return value if OBJECTIVES[objective] == "max" else -value


def _quantile(values: Sequence[float]) -> float | None:
    """The least of the values that `USUAL` of them do not exceed."""
    return sorted(values)[math.ceil(USUAL * len(values)) - 1] if values else None
