"""Rows that are absent and cells that are missing: one idea, refused, left or filled.

    table = settled(read(path), missing="interpolate", reading=Reading(), label=str(path))
    table.filled                               # cells, those of absent rows among them

An absent row is found by the step of the times and put in as a row of missing cells, so that rows
are evenly spaced ever after. Shapes: T rows, C variates, S series one below the other (1 where they
stand side by side).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from foredraft.data.errors import DataError, MissingCells
from foredraft.data.reading import Missing, Reading
from foredraft.data.tables.long import bounds_of
from foredraft.data.tables.table import Table
from foredraft.data.time.steps import OffGrid, Step, infer, instants

STRETCH = 10
"""Rows of the full grid for each row of the file, beyond which a time is taken for a mistake."""
_LOOKED_AT = 5
"""Series whose times are asked for the step of a panel, the longest first."""


class Place(NamedTuple):
    """A cell, as a person counts."""

    column: str
    """variate or series"""
    row: int
    """from 1, without the header; of a series its own"""


def settled(
    table: Table, *, missing: Missing, reading: Reading, label: str, by_rows: bool = False
) -> Table:
    """The table on its full grid, its step known, its holes left or filled as asked.

    Args:
        table: as read; its values are changed in place.
        missing: refuse; skip leaves NaN; interpolate fills linearly in time; seasonal from the same
            place of the neighbouring seasons, linearly where no season has a value there.
        reading: may give the step.
        label: the file.
        by_rows: rows count as evenly spaced whatever their times say.

    Raises:
        MissingCells: there are holes, and they are to be refused.
        DataError: times that repeat, go back or keep no step; a column without any value.
    """
    _refuse_empty(table, label=label)
    step = step_of(table, reading=reading, label=label, by_rows=by_rows)
    table = table._replace(step=step)
    if step is not None and table.time is not None and not by_rows:
        table = _on_grid(table, table.time, step, missing=missing, label=label)
    hole_TC = np.isnan(table.values_TC)
    if not hole_TC.any():
        return table
    if missing == "refuse":
        raise MissingCells(_what(table, hole_TC, label=label))
    if missing == "skip":
        return table
    if missing == "seasonal" and step is None:
        raise DataError(
            f"{label}: nothing tells how long a season is; say --step, or --missing interpolate"
        )
    season = step.season if step is not None and missing == "seasonal" else 1
    _fill(table, hole_TC, season=season)
    return table._replace(filled=int(hole_TC.sum()), filled_TC=hole_TC)


def step_of(table: Table, *, reading: Reading, label: str, by_rows: bool = False) -> Step | None:
    """The step of the table's times, or the one that is said; None without either.

    Raises:
        DataError: times that repeat, go back or keep no step.
    """
    said = Step.of(reading.step) if reading.step is not None else None
    if table.time is None or by_rows:
        return said or (None if table.time is None else infer(table.time))
    bounds = bounds_of(table.series, len(table.values_TC))
    for name, (first, end) in _named(table, bounds):
        _refuse_disorder(table.time[first:end], label=f"{label}{name}")
    longest = np.argsort(bounds[:, 0] - bounds[:, 1], kind="stable")[:_LOOKED_AT]
    if said is not None or bounds[longest[0], 1] - bounds[longest[0], 0] < 2:
        return said
    for first, end in bounds[longest].tolist():
        if (step := infer(table.time[first:end])) is not None:
            return step
    raise DataError(f"{label}: {_irregular(table.time[slice(*bounds[longest[0]].tolist())])}")


def first_missing(table: Table, hole_TC: np.ndarray | None = None) -> Place | None:
    """The missing cell that a reader meets first, or None."""
    hole_TC = np.isnan(table.values_TC) if hole_TC is None else hole_TC
    if not hole_TC.any():
        return None
    row, column = (int(place) for place in np.unravel_index(int(hole_TC.argmax()), hole_TC.shape))
    for one in table.series:
        if one.first <= row < one.end:
            return Place(one.name, row - one.first + 1)
    return Place(table.variates[column], row + 1)


def _what(table: Table, hole_TC: np.ndarray, *, label: str) -> str:
    place = first_missing(table, hole_TC)
    assert place is not None
    kind = "series" if table.series else "column"
    return (
        f"{label}: {int(hole_TC.sum())} of {hole_TC.size} cells are missing, the first in {kind} "
        f"{place.column!r}, row {place.row}"
    )


def _named(table: Table, bounds: np.ndarray) -> Iterator[tuple[str, tuple[int, int]]]:
    """What a message adds to the file's name, and the rows, for each series."""
    for index, (first, end) in enumerate(bounds.tolist()):
        yield (f": series {table.series[index].name!r}" if table.series else "", (first, end))


def _refuse_empty(table: Table, *, label: str) -> None:
    """Nothing; raises where a variate, or a series, has no value at all."""
    for name, (first, end) in _named(table, bounds_of(table.series, len(table.values_TC))):
        values_TC = table.values_TC[first:end]
        # Nearly always the first row tells.
        for column in np.flatnonzero(np.isnan(values_TC[0])):
            if np.isnan(values_TC[:, column]).all():
                where = name or f": column {table.variates[column]!r}"
                leave = "" if name else f" (--ignore {table.variates[column]})"
                raise DataError(f"{label}{where} holds no value at all; remove it{leave}")


# Times


def _refuse_disorder(time: pd.DatetimeIndex, *, label: str) -> None:
    """Nothing; raises if a time stamp is not later than the one in the row before."""
    if time.is_monotonic_increasing and time.is_unique:
        return
    step_T = np.diff(instants(time))
    row = int(np.flatnonzero(step_T <= np.timedelta64(0))[0]) + 1
    if step_T[row - 1] == np.timedelta64(0):
        trouble, remedy = "repeats", "keep one row per time"
        if time.tz is None:
            remedy += " (local times repeat in autumn: name their zone, --timezone Europe/Berlin)"
    else:
        trouble, remedy = "goes back behind", "sort the rows by time"
    raise DataError(
        f"{label}: row {row + 1} ({time[row]}) {trouble} the time of row {row} "
        f"({time[row - 1]}); {remedy}"
    )


def _irregular(time: pd.DatetimeIndex) -> str:
    ahead_T = np.diff(instants(time))
    lengths, counts = np.unique(ahead_T, return_counts=True)
    usual = lengths[counts.argmax()]
    row = int(np.flatnonzero(ahead_T != usual)[0])
    local = ""
    if {pd.Timedelta(hours=23), pd.Timedelta(hours=25)} & {pd.Timedelta(one) for one in lengths}:
        local = "days of 23 and 25 hours are a zone's: name it, --timezone Europe/Berlin; else "
    return (
        f"the times keep no step: row {row + 2} is {pd.Timedelta(ahead_T[row])} after the row "
        f"before, most are {pd.Timedelta(usual)}; {local}resample it to an even step, or take the "
        "rows as they come with --time none"
    )


def _on_grid(
    table: Table, time: pd.DatetimeIndex, step: Step, *, missing: Missing, label: str
) -> Table:
    """The table with a row of NaN for every row that is absent."""
    bounds = bounds_of(table.series, len(table.values_TC))
    places_T = _places(table, time, bounds, step, label=label)
    ends = places_T[bounds[:, 1] - 1] + 1
    absent_S = ends - (bounds[:, 1] - bounds[:, 0])
    absent = int(absent_S.sum())
    if not absent:
        return table
    gappy = int(absent_S.argmax())
    name, (first, end) = list(_named(table, bounds))[gappy]
    ahead_T = np.diff(places_T[first:end])
    row = int((ahead_T > 1).argmax())
    if ends.sum() > STRETCH * len(time) + 1000:
        row = int(ahead_T.argmax())
        raise DataError(
            f"{label}{name}: row {row + 2} ({time[first + row + 1]}) is {ahead_T[row]:,} steps of "
            f"{step.name} after the row before ({time[first + row]}); correct the time, or cut "
            "the file there"
        )
    if missing == "refuse":
        where = f"{name.replace(':', ' in')} after row {row + 1} ({time[first + row]})"
        first_gap = "" if absent == 1 else f" the first {ahead_T[row] - 1} of them"
        rows = "1 row is" if absent == 1 else f"{absent} rows are"
        raise MissingCells(f"{label}: {rows} absent (a row every {step.name}),{first_gap}{where}")
    starts = np.concatenate(([0], np.cumsum(ends)))
    row_T = places_T + np.repeat(starts[:-1], bounds[:, 1] - bounds[:, 0])
    values_TC = np.full((int(starts[-1]), table.values_TC.shape[1]), np.nan, dtype=np.float32)
    values_TC[row_T] = table.values_TC
    return table._replace(
        values_TC=values_TC,
        time=_full_time(time, bounds, starts, row_T, step),
        absent=absent,
        series=tuple(
            one._replace(first=int(starts[index]), end=int(starts[index + 1]))
            for index, one in enumerate(table.series)
        ),
    )


def _places(
    table: Table, time: pd.DatetimeIndex, bounds: np.ndarray, step: Step, *, label: str
) -> np.ndarray:
    """Of each row, how many steps it lies after the first of its series, int64 [T]."""
    parts = []
    for name, (first, end) in _named(table, bounds):
        try:
            parts.append(step.places(time[first:end]))
        except OffGrid as error:
            raise DataError(f"{label}{name}: {error}") from error
    return np.concatenate(parts)


def _full_time(
    time: pd.DatetimeIndex, bounds: np.ndarray, starts: np.ndarray, row_T: np.ndarray, step: Step
) -> pd.DatetimeIndex:
    """The times of the full grid: those that were there, and between them those that follow."""
    instant_T = np.zeros(int(starts[-1]), dtype=f"datetime64[{time.unit}]")
    for index, (first, end) in enumerate(bounds.tolist()):
        start, stop = int(starts[index]), int(starts[index + 1])
        if stop - start > end - first:
            after = step.after(time[first], stop - start - 1)
            instant_T[start + 1 : stop] = instants(after.as_unit(time.unit))
    instant_T[row_T] = instants(time)
    full = pd.DatetimeIndex(instant_T)
    return full if time.tz is None else full.tz_localize("UTC").tz_convert(time.tz)


# Filling


def _fill(table: Table, hole_TC: np.ndarray, *, season: int) -> None:
    """Nothing; the holes of the table's values are filled in place."""
    bounds = bounds_of(table.series, len(table.values_TC))
    for first, end in bounds[_with_holes(bounds, hole_TC)].tolist():
        at_T = _seconds(None if table.time is None else table.time[first:end], end - first)
        for column in np.flatnonzero(hole_TC[first:end].any(axis=0)):
            values_T = table.values_TC[first:end, column]
            hole_T = hole_TC[first:end, column]
            left_T = _fill_by_season(values_T, hole_T, season=season) if season > 1 else hole_T
            known_T = ~hole_T
            values_T[left_T] = np.interp(at_T[left_T], at_T[known_T], values_T[known_T])


def _with_holes(bounds: np.ndarray, hole_TC: np.ndarray) -> np.ndarray:
    """Indices of the series in which a cell is missing."""
    rows = np.flatnonzero(hole_TC.any(axis=1))
    return np.unique(np.searchsorted(bounds[:, 1], rows, side="right"))


def _seconds(time: pd.DatetimeIndex | None, rows: int) -> np.ndarray:
    """Where the rows lie in time; by their number where the times do not advance."""
    if time is None or not (time.is_monotonic_increasing and time.is_unique):
        return np.arange(rows, dtype=np.float64)
    return ((time - time[0]) / pd.Timedelta(seconds=1)).to_numpy()


def _fill_by_season(values_T: np.ndarray, hole_T: np.ndarray, *, season: int) -> np.ndarray:
    """Which holes are left, after the others were filled from the same place of the seasons."""
    left_T = hole_T.copy()
    for phase in np.unique(np.flatnonzero(hole_T) % season):
        hole_N = hole_T[phase::season]
        if not hole_N.all():
            at_N, own_N = np.arange(len(hole_N)), values_T[phase::season]
            own_N[hole_N] = np.interp(at_N[hole_N], at_N[~hole_N], own_N[~hole_N])
            left_T[phase::season] = False
    return left_T
