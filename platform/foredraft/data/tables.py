"""A wide table from a CSV, Parquet or plain text file, or one clear line about what is wrong in it.

Shapes: T rows (time steps), C variates. Rows in messages are counted from 1 and leave out the
header.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.errors import DataError, MissingCells

FORMATS = (".csv", ".parquet", ".txt")
TIME_NAMES = ("date", "time", "timestamp", "datetime")

_DATE = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}(?!\d)")


class Table(NamedTuple):
    """One multivariate series as it is in its file."""

    values_TC: np.ndarray
    """float32; NaN where a cell is missing"""
    variates: tuple[str, ...]
    time: pd.DatetimeIndex | None
    """UTC without a zone, if the file has a time column"""
    filled: int = 0
    """cells filled by `interpolated`"""


def read(path: Path) -> Table:
    """The file's table, its missing cells as NaN; the first column is the time if it holds dates.

    Raises:
        DataError: not a table, no rows, dates that do not parse, text or infinite values.
    """
    frame = _frame(path)
    if frame.empty:
        raise DataError(f"{path} has a header but no rows of data")
    time, frame = _without_time(frame, path=path)
    if frame.columns.empty:
        raise DataError(f"{path} has a time column only; add one column per variate")
    values_TC = np.empty(frame.shape, dtype=np.float32)
    for index, name in enumerate(frame.columns):
        values_TC[:, index] = _numbers(frame.iloc[:, index], label=f"{path}: column {str(name)!r}")
    return Table(values_TC, tuple(str(name) for name in frame.columns), time)


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
    step_T = np.diff(time.to_numpy())
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


def _frame(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    _refuse_other_formats(path, suffix)
    try:
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = _delimited(path, header=0 if suffix == ".csv" else None)
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty") from error
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: rows have more fields than the header; name every column"
        ) from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path} is not text in UTF-8 (byte 0x{byte:02x}); save it as UTF-8"
        ) from error
    except pd.errors.ParserError as error:
        raise DataError(f"{path}: {_parser_trouble(error)}") from error
    except OSError as error:
        if error.strerror is None:  # Arrow's own
            raise DataError(f"{path} is no readable Parquet file; write it anew") from error
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # Arrow's are ValueErrors too
        raise DataError(f"{path} is no readable {suffix[1:]} file; write it anew") from error
    return _with_plain_index(frame, path=path)


def _refuse_other_formats(path: Path, suffix: str) -> None:
    """Nothing; raises where the name, or the first bytes, are those of another kind of file."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError(f"{path} is empty")
    for magic, (what, remedy) in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what}; {remedy}")
    if suffix not in FORMATS:
        raise DataError(
            f"{path}: suffix {path.suffix!r} is none of {', '.join(FORMATS)}; "
            "write the table as one of these"
        )


_UNPACK = "unpack it and give what was in it"
_OTHER_FORMATS = {
    b"\x1f\x8b": ("compressed by gzip", _UNPACK),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"\xfd7zX": ("compressed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
}


def _parser_trouble(error: pd.errors.ParserError) -> str:
    """What the parser stumbled over; its own rows count the header, and from 0 or 1."""
    text = str(error)
    if fields := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        expected, line, seen = fields.groups()
        return f"line {line} has {seen} fields, those before it {expected}; write one per column"
    if quote := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"the quotation mark in row {quote.group(1)} is never closed; close or remove it"
    return "its rows are no table of comma-separated fields; write it anew"


def _delimited(path: Path, *, header: int | None) -> pd.DataFrame:
    with warnings.catch_warnings():
        # Without index_col=False a field too many would silently make the first column an index.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path, header=header, index_col=False, low_memory=False, skipinitialspace=True
        )


def _with_plain_index(frame: pd.DataFrame, *, path: Path) -> pd.DataFrame:
    """The frame with its rows numbered, after the ways in which a file misleads the reader."""
    if isinstance(frame.index, pd.DatetimeIndex):
        if frame.index.name in frame.columns:
            raise DataError(
                f"{path}: index and a column are both named {frame.index.name!r}; rename one"
            )
        return frame.reset_index()
    if path.suffix.lower() == ".parquet":
        return frame.reset_index(drop=True)
    first = str(frame.columns[0])
    if len(frame.columns) == 1 and ";" in first:
        raise DataError(f"{path}: fields are separated by ';'; write commas and decimal points")
    # What pandas writes unless told index=False: it would become a variate that counts the rows.
    if first == "Unnamed: 0" and np.array_equal(frame.iloc[:, 0], np.arange(len(frame))):
        raise DataError(f"{path}: the first column has no name and counts the rows; remove it")
    return frame


def _without_time(
    frame: pd.DataFrame, *, path: Path
) -> tuple[pd.DatetimeIndex | None, pd.DataFrame]:
    name, column = str(frame.columns[0]), frame.iloc[:, 0]
    named = name.strip().lower() in TIME_NAMES
    if types.is_numeric_dtype(column):
        if not named:
            return None, frame
        raise DataError(
            f"{path}: column {name!r} holds numbers such as {column.iloc[0]}; "
            "write times like 2024-01-31 13:00, or rename the column if it is a variate"
        )
    if not (named or types.is_datetime64_any_dtype(column) or _DATE.match(str(column.iloc[0]))):
        return None, frame
    return _dates(column, label=f"{path}: column {name!r}"), frame.iloc[:, 1:]


def _dates(column: pd.Series, *, label: str) -> pd.DatetimeIndex:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas says that it guesses a format
        time = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        if time.isna().any():
            guess = pd.to_datetime(column, utc=True, errors="coerce")
            time = guess if guess.isna().sum() < time.isna().sum() else time
    bad = np.flatnonzero(time.isna())
    if bad.size:
        raise DataError(
            f"{label}, row {bad[0] + 1}: {column.iloc[bad[0]]!r} does not read as a time; "
            "write every row like 2024-01-31 13:00"
        )
    return pd.DatetimeIndex(time).tz_localize(None)


def _numbers(column: pd.Series, *, label: str) -> np.ndarray:
    """The column as float32 with NaN for missing cells."""
    if types.is_datetime64_any_dtype(column):
        raise DataError(f"{label} holds times; only the first column may")
    try:
        numbers = pd.to_numeric(column, errors="coerce")
    except OverflowError:  # a whole number beyond every float, which as text reads as infinite
        numbers = pd.to_numeric(column.astype(str), errors="coerce")
    bad = np.flatnonzero(numbers.isna() & column.notna())
    if bad.size:
        raise DataError(
            f"{label}, row {bad[0] + 1}: {column.iloc[bad[0]]!r} is not a number; leave missing "
            f"cells empty, and remove columns of text (a time column comes first, named date)"
        )
    values_T = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(over="ignore"):
        narrow_T = values_T.astype(np.float32)
    bad = np.flatnonzero(np.isinf(narrow_T))
    if bad.size:
        raise DataError(
            f"{label}, row {bad[0] + 1}: {values_T[bad[0]]} is infinite as float32; "
            "leave the cell empty if the value is unknown, or rescale the column"
        )
    return narrow_T
