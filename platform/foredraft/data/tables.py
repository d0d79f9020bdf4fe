"""A wide table from a file, or one clear line about what is wrong in it.

Shapes: T rows (time steps), C variates. Rows in messages are counted from 1 and leave out the
header.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from foredraft.data import columns, dialect, formats, values
from foredraft.data.errors import DataError, MissingCells
from foredraft.data.formats import Found
from foredraft.data.reading import Reading
from foredraft.data.steps import instants


class Table(NamedTuple):
    """One multivariate series as it is in its file."""

    values_TC: np.ndarray
    """float32; NaN where a cell is missing"""
    variates: tuple[str, ...]
    time: pd.DatetimeIndex | None
    step: Any = None
    level_C: np.ndarray | None = None
    """float64: true value = values + level; 0, or None for all, unless float32 would swallow the
    variation of a column"""
    filled: int = 0
    """cells filled by `interpolated`"""
    series: tuple[Any, ...] = ()


def read(path: Path, *, reading: Reading | None = None) -> Table:
    """The file's table, its missing cells as NaN; its time as found or as the reading says.

    Raises:
        DataError: not a table, no rows, a column that is no variate, a cell that is no number.
    """
    frame, found = formats.read(path, reading=reading)
    return of_frame(frame, found=found, reading=reading, label=str(path))


def of_frame(
    frame: pd.DataFrame, *, found: Found, reading: Reading | None = None, label: str
) -> Table:
    """The table of a frame of raw columns; the frame is used up, its memory is given back.

    Raises:
        DataError: as `read`.
    """
    reading = reading or Reading()
    if frame.empty:
        raise DataError(f"{label} has a header but no rows of data")
    refuse_rows_of_series(frame, label=label)
    if reading.columns is None and reading.time is None:
        columns.refuse_long(frame.drop(columns=list(reading.ignore), errors="ignore"), label=label)
    time, frame = columns.judged(frame, reading=reading, label=label)
    if frame.columns.empty:
        raise DataError(f"{label} has a time column only; add one column per variate")
    values_TC = np.empty(frame.shape, dtype=np.float32)
    level_C = np.zeros(len(frame.columns))
    for index, name in enumerate(frame.columns):
        place = f"{label}: column {name!r}"
        wide_T = values.numbers(
            frame.iloc[:, index], decimal=found.decimal, reading=reading, label=place
        )
        values_TC[:, index], level_C[index] = values.narrowed(wide_T, label=place)
    return Table(values_TC, tuple(frame.columns), time, level_C=level_C)


def refuse_rows_of_series(frame: pd.DataFrame, *, label: str) -> None:
    """Nothing; raises where each row is a series, as in M4: V1, V2, ... behind a name."""
    names = [str(name) for name in frame.columns]
    numbered = all(name == f"V{place}" for place, name in enumerate(names, start=1))
    dated = sum(map(dialect.is_time, names[1:])) > len(names) / 2
    first = frame.iloc[:, 0]
    if len(names) > 2 and (numbered or dated) and not pd.api.types.is_numeric_dtype(first):
        raise DataError(
            f"{label}: each row is a series ({first.iloc[0]!s}, ...) and each column a time; "
            "transpose it: one row per time, one column per series"
        )


def refuse_missing(table: Table, *, path: Path) -> None:
    """Nothing; raises DataError with the count and the first place if a cell is missing."""
    place = first_missing(table)
    if place is not None:
        count = int(np.isnan(table.values_TC).sum())
        raise MissingCells(
            f"{path}: {count} of {table.values_TC.size} cells are missing, the first in column "
            f"{place[0]!r}, row {place[1]}"
        )


def first_missing(table: Table) -> tuple[str, int] | None:
    """Column and row of the missing cell that a reader meets first, or None."""
    hole_TC = np.isnan(table.values_TC)
    if not hole_TC.any():
        return None
    row, column = np.unravel_index(int(hole_TC.argmax()), hole_TC.shape)
    return table.variates[int(column)], int(row) + 1


def interpolated(table: Table, *, path: Path) -> Table:
    """The table with missing cells filled, linearly in time; at the edges with the nearest value.

    Raises:
        DataError: a column holds no value at all.
    """
    values_TC = table.values_TC.copy()
    at_T = np.arange(len(values_TC), dtype=np.float64)
    if table.time is not None and table.time.is_monotonic_increasing and table.time.is_unique:
        at_T = ((table.time - table.time[0]) / pd.Timedelta(seconds=1)).to_numpy()
    hole_TC = np.isnan(values_TC)
    for column in np.flatnonzero(hole_TC.any(axis=0)):
        hole_T = hole_TC[:, column]
        if hole_T.all():
            raise DataError(
                f"{path}: column {table.variates[column]!r} holds no value at all; remove it"
            )
        values_TC[hole_T, column] = np.interp(
            at_T[hole_T], at_T[~hole_T], values_TC[~hole_T, column]
        )
    return table._replace(values_TC=values_TC, filled=int(hole_TC.sum()))


def refuse_disorder(time: pd.DatetimeIndex, *, path: Path) -> None:
    """Nothing; raises DataError if a time stamp is not later than the one in the row before."""
    step_T = np.diff(instants(time))
    bad = np.flatnonzero(step_T <= np.timedelta64(0))
    if not bad.size:
        return
    row = int(bad[0]) + 1
    if step_T[row - 1] == np.timedelta64(0):
        trouble, remedy = "repeats", "keep one row per time (local times repeat in autumn: use UTC)"
    else:
        trouble, remedy = "goes back behind", "sort the rows by time"
    raise DataError(
        f"{path}: row {row + 1} ({time[row]}) {trouble} the time of row {row} "
        f"({time[row - 1]}); {remedy}"
    )
