"""What seasonal naive errs by in training: the unit in which MASE tells every other error.

    error_C = naive_errors(dataset, dataset.ranges["train"], season=24)

Hyndman and Koehler, International Journal of Forecasting 22 (2006), equation 5. Shapes: T rows, C
variates, of a panel its S series.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from foredraft.data.dataset import Dataset
from foredraft.data.tables.table import Table


class Stretch(NamedTuple):
    """The values of one variate, or of one series."""

    name: str
    column: int
    first: int
    end: int


def stretches(data: Table | Dataset) -> list[Stretch]:
    """Of a panel its series, of another data set its variates."""
    if data.series:
        return [Stretch(one.name, 0, one.first, one.end) for one in data.series]
    rows = len(data.values_TC)
    return [Stretch(name, column, 0, rows) for column, name in enumerate(data.variates)]


def naive_errors(data: Table | Dataset, ranges_S2: np.ndarray, *, season: int) -> np.ndarray:
    """Mean absolute difference to the value one season before, in those rows and the data's units.

    Of each variate, or series: float64 [C]; NaN where no two observed values are a season apart.
    """
    return np.array([_error(v_T, season) for v_T in _observed(data, ranges_S2)])


def median_naive_error(
    data: Table | Dataset, ranges_S2: np.ndarray, *, season: int
) -> float | None:
    """The error in deviations of each variate, or series; of these the median, None without any."""
    found = []
    for values_T in _observed(data, ranges_S2):
        error = _error(values_T, season)
        if not np.isnan(error) and np.nanmin(values_T) < np.nanmax(values_T):
            found.append(error / np.sqrt(_mean(values_T**2)))
    return float(np.median(found)) if found else None


def _observed(data: Table | Dataset, ranges_S2: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each variate, or series, as float64 around 0; NaN where nothing was observed."""
    for index, one in enumerate(stretches(data)):
        first, end = ranges_S2[index if data.series else 0].tolist()
        values_T = data.values_TC[first:end, one.column].astype(np.float64)
        if data.filled_TC is not None:
            values_T[data.filled_TC[first:end, one.column]] = np.nan
        yield values_T - _mean(values_T)


def _error(values_T: np.ndarray, season: int) -> float:
    return _mean(np.abs(values_T[season:] - values_T[:-season]))


def _mean(values_T: np.ndarray) -> float:
    known_T = values_T[~np.isnan(values_T)]
    return float(known_T.mean()) if len(known_T) else float("nan")
