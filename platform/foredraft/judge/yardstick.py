"""Seasonal naive: the forecast that costs nothing, beside which every error is to be read.

    season = season_of(evaluation, target.config)
    naive = seasonal_naive(windows, season=season)            Naive(season=24, mse=.51, mae=.47)

It says again what was observed one season before (Hyndman and Athanasopoulos, "Forecasting:
principles and practice", 3rd edition, 5.2). A target that errs more is not worth its seconds,
however fast a draft makes it.

Shapes: W windows, T time steps of a context, H time steps of a horizon, C variates, V variates that
are forecast together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foredraft import data
from foredraft.data.seasonal import naive_errors
from foredraft.judge import evaluate
from foredraft.settings.config import Evaluation
from speculation.forecaster import Architecture


class Naive(NamedTuple):
    """Errors of seasonal naive on the windows of an evaluation, standardised as every error is."""

    season: int
    """rows; 1 says the last row again"""
    mse: float
    mae: float
    mase: float | None = None
    """mae over what it errs by in training, variate by variate"""


def season_of(evaluation: Evaluation, config: Architecture) -> int:
    """Rows of the season that is repeated: as given, else by the data's step (hours: a day).

    1 where the data have no step, or the context is shorter than their season.

    Raises:
        DataError: the data cannot be read, or the season that is given is longer than the context.
    """
    if evaluation.season is not None:
        if evaluation.season > config.context:
            raise data.DataError(
                f"season is {evaluation.season} rows: the context has {config.context}, and no "
                "more is known; give a shorter one"
            )
        return evaluation.season
    dataset = data.load(evaluation.data, missing=evaluation.missing, reading=evaluation.reading)
    season = dataset.step.season if dataset.step else 1
    return season if season <= config.context else 1


def unit_of(evaluation: Evaluation, *, season: int) -> Tensor | None:
    """What seasonal naive errs by in training, float64 [C], standardised: the unit of MASE.

    Hyndman and Koehler, International Journal of Forecasting 22 (2006), equation 5. None of a
    panel, whose windows are of many series.

    Raises:
        DataError: the data cannot be read.
    """
    dataset = data.load(evaluation.data, missing=evaluation.missing, reading=evaluation.reading)
    if dataset.series:
        return None
    error_C = naive_errors(dataset, dataset.ranges["train"], season=season)
    return torch.from_numpy(error_C / dataset.deviation_C)


def mase(
    forecast_WHC: Tensor, windows: evaluate.EvaluationWindows, *, unit_C: Tensor | None
) -> float | None:
    """Mean absolute error in units of what seasonal naive errs by in training.

    The mean of the variates, without those that never differ from a season before; None where no
    variate is left, or the unit is not known.
    """
    if unit_C is None:
        return None
    error_WHV = (forecast_WHC.double() - windows.truth_WHC.double()).abs()
    known_WHV = windows.observed_WHC
    if known_WHV is None:
        known_WHV = torch.ones_like(error_WHV, dtype=torch.bool)
    error_WV = error_WHV.where(known_WHV, 0.0).sum(1)
    count_WV = known_WHV.double().sum(1)
    variates_WV = windows.variates_WV
    if variates_WV is None:
        variates_WV = torch.arange(len(unit_C)).expand(len(error_WV), -1)
    error_C, count_C = (
        torch.zeros_like(unit_C).index_add(0, variates_WV.flatten(), part.flatten())
        for part in (error_WV, count_WV)
    )
    scaled_C = error_C / count_C / unit_C
    scaled_C = scaled_C[torch.isfinite(scaled_C)]
    return float(scaled_C.mean()) if len(scaled_C) else None


def seasonal_naive(
    windows: evaluate.EvaluationWindows, *, season: int, unit_C: Tensor | None = None
) -> Naive:
    """The errors of repeating the context's last season over the horizon."""
    forecast_WHC = repeated(windows.context_WTC, horizon=windows.truth_WHC.shape[1], season=season)
    errors = windows.errors_of(forecast_WHC)
    return Naive(season, *errors, mase(forecast_WHC, windows, unit_C=unit_C))


def repeated(context_WTC: Tensor, *, horizon: int, season: int) -> Tensor:
    """The last season over and over, [W, H, C]."""
    return context_WTC[:, -season:][:, torch.arange(horizon) % season]
