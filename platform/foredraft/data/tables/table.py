"""A wide table from a file, or one clear line about what is wrong in it.

Shapes: T rows (time steps), C variates. Rows in messages are counted from 1 and leave out the
header.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from foredraft.data.cells import is_time
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables import columns, formats, long, values
from foredraft.data.tables.formats import Found
from foredraft.data.time.steps import Step


class Table(NamedTuple):
    """One multivariate series, or the series of a panel, as they are in their file."""

    values_TC: np.ndarray
    """float32; NaN where a cell is missing; a panel's series one below the other, C being 1"""
    variates: tuple[str, ...]
    """of a panel the names of its series"""
    time: pd.DatetimeIndex | None
    step: Step | None = None
    level_C: np.ndarray | None = None
    """float64, of each variate (each series of a panel): true value = values + level; 0, or None
    for all, unless float32 would swallow the variation"""
    filled: int = 0
    """cells that were missing"""
    filled_TC: np.ndarray | None = None
    """bool, which; None: none of them"""
    absent: int = 0
    """rows that were put in"""
    series: tuple[long.Series, ...] = ()
    """of a panel"""


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
    if (layout := long.layout_of(frame, reading=reading)) is not None:
        rows = long.unstacked(frame, layout, reading=reading, decimal=found.decimal, label=label)
        return _of_long(rows, label=label)
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


def _of_long(rows: long.Rows, *, label: str) -> Table:
    """The table of long format in single precision."""
    values_TC = np.empty(rows.values_TC.shape, dtype=np.float32)
    level_C = np.zeros(len(rows.names))
    for index, name in enumerate(rows.names):
        place = (slice(None), index)
        if rows.series:
            place = (slice(rows.series[index].first, rows.series[index].end), 0)
        values_TC[place], level_C[index] = values.narrowed(
            rows.values_TC[place], label=f"{label}: series {name!r}"
        )
    return Table(values_TC, rows.names, rows.time, level_C=level_C, series=rows.series)


def refuse_rows_of_series(frame: pd.DataFrame, *, label: str) -> None:
    """Nothing; raises where each row is a series, as in M4: V1, V2, ... behind a name."""
    names = [str(name) for name in frame.columns]
    numbered = all(name == f"V{place}" for place, name in enumerate(names, start=1))
    dated = sum(map(is_time, names[1:])) > len(names) / 2
    first = frame.iloc[:, 0]
    if len(names) > 2 and (numbered or dated) and not pd.api.types.is_numeric_dtype(first):
        raise DataError(
            f"{label}: each row is a series ({first.iloc[0]!s}, ...) and each column a time; "
            "transpose it: one row per time, one column per series"
        )
