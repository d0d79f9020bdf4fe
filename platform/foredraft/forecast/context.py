"""What a forecast starts from: the rows before its origin, if a recipe can read them.

    context = context_of(load("my.csv"), reads, source="my.csv", at="2024-03-31 23:00")
    context.values_TC, context.axis(96)

Shapes: T rows of the context, C variates.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, field_validator, model_validator

from foredraft import data
from foredraft.data.tables.long import Series
from foredraft.data.time.steps import Step, gaps, infer
from foredraft.errors import ConfigError
from foredraft.settings.config import Count, Positive, Settings

# Series drift, so a scaler is another one only where its unit is: kW for MW is a factor of 1000.
UNIT_FACTOR = 30.0
FILL = "fill them with --missing interpolate"


class Reads(Settings):
    """In which steps and units the data came on which a recipe was found."""

    patch: Count
    context: Count
    step: Annotated[str, Field(min_length=1)] | None
    """time between two rows, as pandas names it"""
    variates: tuple[str, ...]
    mean: tuple[float, ...]
    """per variate, of the training split"""
    deviation: tuple[Positive, ...]

    @field_validator("step")
    @classmethod
    def _is_known(cls, step: str | None) -> str | None:
        try:
            return None if step is None else Step.of(step).name
        except data.DataError as error:
            raise ValueError("pandas knows no such step; write it like h, B or ME") from error

    @model_validator(mode="after")
    def _is_whole(self) -> Reads:
        for name in ("mean", "deviation"):
            if len(getattr(self, name)) != len(self.variates):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} numbers for {len(self.variates)} "
                    "variates: one for each"
                )
        return self

    @property
    def scaler(self) -> dict[str, tuple[float, float]]:
        """Mean and deviation by variate."""
        return dict(zip(self.variates, zip(self.mean, self.deviation, strict=True), strict=True))


class Context(NamedTuple):
    """The rows that a forecast goes on from."""

    values_TC: np.ndarray
    """float64, in the data's units"""
    variates: tuple[str, ...]
    last: pd.Timestamp | None
    """of the last row, in the data's zone"""
    step: Step | None
    filled: int
    """cells that were missing in the data"""
    filled_rows: int
    """rows of which every cell was"""

    def axis(self, horizon: int) -> pd.Index:
        """The times that follow; where the data have none, the numbers from 1."""
        if self.last is None:
            return pd.RangeIndex(1, horizon + 1)
        assert self.step is not None
        return self.step.after(self.last, horizon)


def contexts_of(
    dataset: data.Dataset, reads: Reads, *, source: str, at: str | None = None
) -> list[Context]:
    """The context; of a panel that of each series with as many rows up to its end, or that time.

    Raises:
        ConfigError: no row is at that time.
        DataError: as `context_of`, or no series has as many rows.
    """
    if not dataset.series:
        return [context_of(dataset, reads, source=source, at=at)]
    enough = [
        one
        for one in dataset.series
        if _end_of(dataset, at, one, source=source, strict=False) - one.first >= reads.context
    ]
    if not enough:
        upto = "" if at is None else f" up to {at}"
        raise data.DataError(
            f"{source}: none of its {len(dataset.series)} series has the {reads.context} rows"
            f"{upto} that the model reads as its context"
        )
    return [context_of(dataset, reads, source=source, at=at, series=one) for one in enough]


def context_of(
    dataset: data.Dataset,
    reads: Reads,
    *,
    source: str,
    at: str | None = None,
    series: Series | None = None,
) -> Context:
    """The context that ends with the last row, or with the row at a time.

    Args:
        dataset: a panel only with one of its series.
        reads: of the recipe.
        source: the data by their name.
        at: a time.
        series: of a panel.

    Raises:
        ConfigError: no row is at that time.
        DataError: too few rows before it; rows or cells that are missing; times that keep no step,
            or another one than the recipe's, so that a patch is another stretch of time; or a
            variate of the same name in another unit.
    """
    low = 0 if series is None else series.first
    end = _end_of(dataset, at, series, source=source)
    if series is not None:
        source = f"{source}: series {series.name!r}"
    first = end - reads.context
    if first < low:
        upto = "" if at is None else f" up to {at}"
        raise data.DataError(
            f"{source} has {end - low} rows{upto}: the model reads a context of {reads.context}"
        )
    step = _step_of(dataset, reads, first, end, low=low, source=source)
    values_TC = dataset.rows(first, end)
    variates = dataset.variates if series is None else (series.name,)
    _refuse_missing(values_TC, dataset, first, low=low, variates=variates, source=source)
    for index, name in enumerate(variates):
        if name in reads.scaler:
            _check_unit(values_TC[:, index], reads.scaler[name], what=f"{source}: {name}")
    hole_TC = np.zeros((0, 1)) if dataset.filled_TC is None else dataset.filled_TC[first:end]
    return Context(
        values_TC=values_TC,
        variates=variates,
        last=None if dataset.time is None else dataset.time[end - 1],
        step=step,
        filled=int(hole_TC.sum()),
        filled_rows=int(hole_TC.all(axis=1).sum()),
    )


def _end_of(
    dataset: data.Dataset,
    at: str | None,
    series: Series | None,
    *,
    source: str,
    strict: bool = True,
) -> int:
    """The row after the one at a time, or after the last; where not strict 0 if there is none.

    The time is of the data's zone where it names none.
    """
    low, high = (0, len(dataset.values_TC)) if series is None else (series.first, series.end)
    if at is None:
        return high
    if dataset.time is None:
        raise ConfigError(f"--at is {at!r}, and {source} has no times: leave it out")
    time = dataset.time[low:high]
    try:
        wanted = pd.Timestamp(at)
        if wanted.tz is None and time.tz is not None:
            wanted = wanted.tz_localize(time.tz)
    except ValueError as error:
        raise ConfigError(
            f"--at is {at!r}, which is no time of the data: write it like {time[-1]}"
        ) from error
    if pd.isna(wanted) or (wanted.tz is None) != (time.tz is None):
        raise ConfigError(f"--at is {at!r}: write it like the data's own times, {time[-1]}")
    rows = np.flatnonzero(time == wanted)
    if rows.size:
        return low + int(rows[-1]) + 1
    if not strict:
        return 0
    raise ConfigError(
        f"--at is {at!r}, and no row of {source} is at that time: it has rows from {time[0]} "
        f"to {time[-1]}"
    )


def _step_of(
    dataset: data.Dataset, reads: Reads, first: int, end: int, *, low: int, source: str
) -> Step | None:
    """The step of the context, which is one throughout; None where the data have no times.

    The whole data tell it best: three days of a business week look like three days of any.
    """
    if dataset.time is None:
        return None
    time = dataset.time[first:end]
    step = dataset.step or infer(time)
    if step is None:
        raise data.DataError(
            f"{source}: the times of the context, rows {first - low + 1} to {end - low}, "
            "keep no step; resample them to an even one"
        )
    if reads.step is not None and not step.alike(Step.of(reads.step)):
        raise data.DataError(
            f"{source} has a row every {step.name}: the recipe's patch is {reads.patch} rows "
            f"of {reads.step}; resample the data"
        )
    if holes := gaps(time, step):
        absent, place = sum(hole.absent for hole in holes), first + holes[0].row
        raise data.MissingCells(
            f"{source}: {absent} {'row is' if absent == 1 else 'rows are'} absent (a row every "
            f"{step.name}) from the context of {reads.context}, the first before row "
            f"{place - low + 1} ({dataset.time[place]})",
            FILL,
        )
    return step


def _refuse_missing(
    values_TC: np.ndarray,
    dataset: data.Dataset,
    first: int,
    *,
    low: int,
    variates: tuple[str, ...],
    source: str,
) -> None:
    hole_TC = np.isnan(values_TC)
    if not hole_TC.any():
        return
    row, column = np.unravel_index(int(hole_TC.argmax()), hole_TC.shape)
    when = "" if dataset.time is None else f" ({dataset.time[first + int(row)]})"
    raise data.MissingCells(
        f"{source}: {int(hole_TC.sum())} cells of the context are missing, the first in column "
        f"{variates[int(column)]!r}, row {first - low + int(row) + 1}{when}",
        FILL,
    )


def _check_unit(values_T: np.ndarray, scaler: tuple[float, float], *, what: str) -> None:
    mean, deviation = scaler
    now_mean, now = float(values_T.mean()), float(values_T.std())
    ratio = now / deviation
    other_spread = now > 0 and not 1 / UNIT_FACTOR < ratio < UNIT_FACTOR
    if other_spread or abs(now_mean - mean) > UNIT_FACTOR * max(deviation, now):
        raise data.DataError(
            f"{what} has mean {now_mean:.4g} and deviation {now:.4g}: the recipe's scaler has "
            f"{mean:.4g} and {deviation:.4g}; give it in the same unit, or rename it"
        )
