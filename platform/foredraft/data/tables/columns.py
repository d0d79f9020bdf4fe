"""Which column is the time, which are variates, and which are neither: counters, ids, more times.

Rows in messages are counted from 1 and leave out the header.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.cells import is_time
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables.values import option
from foredraft.data.time.stamps import stamps

TIME_NAMES = ("date", "time", "timestamp", "datetime")
NO_TIME = "none"
"""`--time none`: no column is the time, not even one that counts"""

_TIME_WORDS = {"date", "time", "timestamp", "datetime", "ts", "ds", "epoch", "unix", "year", "jahr"}
_COUNTER_WORDS = {"no", "nr", "id", "idx", "index", "row", "obs", "seq", "unnamed", "counter", "#"}
_PARTS = ("year", "month", "day", "hour", "minute", "second")
CLOCK = re.compile(r"\d{1,2}[:.]\d{2}([:.]\d{2})?")


def judged(
    frame: pd.DataFrame, *, reading: Reading, label: str
) -> tuple[pd.DatetimeIndex | None, pd.DataFrame]:
    """The times, and the columns that are variates.

    Raises:
        DataError: a name that no column has; a column that is neither, with the option that says
            what it is.
    """
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    frame = without_ignored(frame, reading=reading, label=label)
    time, rest = _with_time(frame, reading=reading, label=label)
    if reading.columns is not None:
        return time, _of_names(rest, reading.columns, label=label)
    skip = 1 if reading.time == NO_TIME else 0
    for place, name in enumerate(rest.columns[skip:], start=skip):
        _refuse_no_variate(rest[name], first=time is None and place == 0, label=label)
    return time, rest


def without_ignored(frame: pd.DataFrame, *, reading: Reading, label: str) -> pd.DataFrame:
    """The columns that are not to be ignored; raises on a name that is none of them."""
    for name in reading.ignore:
        _known(name, frame, option_name="ignore", label=label)
    frame = frame.drop(columns=list(reading.ignore))
    for name in reading.columns or ():
        _known(name, frame, option_name="columns", label=label)
    return frame


def _of_names(rest: pd.DataFrame, names: Sequence[str], *, label: str) -> pd.DataFrame:
    """The named variates in that order; raises where one of them was taken as the time."""
    for name in names:
        if name not in rest.columns:
            raise DataError(f"{label}: column {name!r} is the time; leave it out of --columns")
    return rest[list(names)]


def _known(name: str, frame: pd.DataFrame, *, option_name: str, label: str) -> None:
    if name in frame.columns:
        return
    close = difflib.get_close_matches(name, frame.columns, n=1, cutoff=0.5)
    lower = [known for known in frame.columns if known.lower().strip() == name.lower().strip()]
    names = ", ".join(frame.columns[:6]) + (", ..." if len(frame.columns) > 6 else "")
    found = [*lower, *close]
    hint = f"did you mean {found[0]!r}" if found else f"it has {names}"
    raise DataError(f"{label}: no column is named {name!r} (--{option_name}): {hint}")


def _with_time(
    frame: pd.DataFrame, *, reading: Reading, label: str
) -> tuple[pd.DatetimeIndex | None, pd.DataFrame]:
    if reading.time == NO_TIME or frame.columns.empty:
        # Rows as they come, whatever their times say.
        dated = not frame.columns.empty and is_dated(frame.iloc[:, 0])
        return None, frame.iloc[:, 1:] if dated else frame
    if reading.time is not None:
        _known(reading.time, frame, option_name="time", label=label)
        time = _stamps(frame[reading.time], reading=reading, label=label)
        if time is None:
            raise DataError(
                f"{label}: column {reading.time!r} does not read as a time (such as "
                f"{frame[reading.time].iloc[0]!r}); name another with --time, or none with "
                "--time none"
            )
        return time, frame.drop(columns=reading.time)
    joined = _joined(frame, reading=reading, label=label)
    if joined is not None:
        return joined
    first = frame.columns[0]
    time = _stamps(frame[first], reading=reading, label=label)
    if time is not None:
        return time, frame.iloc[:, 1:]
    if first.strip().lower() in TIME_NAMES and types.is_numeric_dtype(frame[first]):
        raise DataError(
            f"{label}: column {first!r} holds numbers such as {frame[first].iloc[0]}; write times "
            f"like 2024-01-31 13:00, leave it out with {option('ignore', first)}, or say --time "
            "none if it is a variate"
        )
    return None, frame


def _stamps(column: pd.Series, *, reading: Reading, label: str) -> pd.DatetimeIndex | None:
    return stamps(_starts(column), reading=reading, label=f"{label}: column {str(column.name)!r}")


def _starts(column: pd.Series) -> pd.Series:
    """The column, of intervals like `01.01.2020 00:00 - 01.01.2020 01:00` only their starts."""
    value = next(iter(column.dropna()), None)
    both = value.split(" - ") if isinstance(value, str) else []
    if len(both) != 2 or not all(map(is_time, both)):
        return column
    return column.str.partition(" - ")[0].rename(str(column.name))


# Times that lie in several columns


def _joined(
    frame: pd.DataFrame, *, reading: Reading, label: str
) -> tuple[pd.DatetimeIndex, pd.DataFrame] | None:
    """The times of year, month, day, hour or of a date and a clock in columns of their own."""
    lower = {name.strip().lower(): name for name in frame.columns}
    if "year" in lower and "month" in lower and _whole(frame[lower["year"]]):
        names = [lower[part] for part in _PARTS if part in lower]
        return _of_parts(frame, names=names, label=label)
    if "year" in lower and "quarter" in lower and _whole(frame[lower["year"]]):
        names = [lower["year"], lower["quarter"]]
        months = pd.to_numeric(frame[names[1]], errors="coerce") * 3 - 2
        parts = pd.DataFrame({"year": frame[names[0]], "month": months})
        return _of_parts(
            parts, names=["year", "month"], label=label, rest=frame.drop(columns=names)
        )
    return _of_date_and_clock(frame, reading=reading, label=label)


def _of_parts(
    frame: pd.DataFrame, *, names: list[str], label: str, rest: pd.DataFrame | None = None
) -> tuple[pd.DatetimeIndex, pd.DataFrame]:
    parts = frame[names].rename(columns=lambda name: name.strip().lower())
    parts = parts.assign(day=parts.get("day", 1))
    time = pd.to_datetime(parts, errors="coerce")
    bad = np.flatnonzero(time.isna())
    if bad.size:
        wrong = ", ".join(str(value) for value in frame[names].iloc[bad[0]])
        raise DataError(
            f"{label}: columns {', '.join(names)}, row {bad[0] + 1}: {wrong} is no time; correct "
            "the row, or name the time with --time"
        )
    return pd.DatetimeIndex(time), frame.drop(columns=names) if rest is None else rest


def _of_date_and_clock(
    frame: pd.DataFrame, *, reading: Reading, label: str
) -> tuple[pd.DatetimeIndex, pd.DataFrame] | None:
    if len(frame.columns) < 3:
        return None
    date, clock = frame.iloc[:, 0], frame.iloc[:, 1]
    if types.is_numeric_dtype(date) or types.is_datetime64_any_dtype(date):
        return None
    clocks = clock.dropna().astype(str).str.strip()
    if clocks.empty or not is_time(str(date.iloc[0])) or ":" in str(date.iloc[0]):
        return None
    if not types.is_numeric_dtype(clock) and CLOCK.fullmatch(clocks.iloc[0]):
        text = date.astype(str).str.strip() + " " + clocks.str.replace(".", ":")
        name = f"{frame.columns[0]} {frame.columns[1]}"
        time = _stamps(text.rename(name), reading=reading, label=label)
        return None if time is None else (time, frame.iloc[:, 2:])
    if str(clock.name).strip().lower() in ("hour", "stunde") and _whole(clock):
        days = _stamps(date, reading=reading, label=label)
        if days is not None and clock.between(0, 23).all():
            return days + pd.to_timedelta(clock.to_numpy(), unit="h"), frame.iloc[:, 2:]
    return None


def _whole(column: pd.Series) -> bool:
    """Whether a column holds whole numbers in every row."""
    return types.is_numeric_dtype(column) and bool(
        column.notna().all() and (column.astype(float) % 1 == 0).all()
    )


# What is no variate


def _refuse_no_variate(column: pd.Series, *, first: bool, label: str) -> None:
    name = str(column.name)
    leave = f"leave it out with {option('ignore', name)}"
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        words = set(re.findall(r"[a-z]+|#", name.lower()))
        named = bool(words & (_TIME_WORDS | _COUNTER_WORDS))
        if (first or named) and _counts(column):
            raise DataError(
                f"{label}: column {name!r} rises by one step from row to row ("
                f"{column.iloc[0]}, {column.iloc[1]}, ...), as a time or a counter does; take it "
                f"as the time with {option('time', name)}, {leave}"
                + (", or say --time none if it is a variate" if first else "")
            )
        if first and re.fullmatch(r"index|level_\d|unnamed: 0", name.lower()) and _whole(column):
            raise DataError(f"{label}: column {name!r} is an index without a name; {leave}")
        return
    if is_dated(column):
        raise DataError(
            f"{label}: column {name!r} holds times (such as {column.dropna().iloc[0]!s}); only one "
            f"column may: take it as the time with {option('time', name)}, or {leave}"
        )


def is_dated(column: pd.Series) -> bool:
    """Whether a column holds dates, by its type or by the look of its first cell."""
    if types.is_datetime64_any_dtype(column) or isinstance(column.dtype, pd.PeriodDtype):
        return True
    value = next(iter(column.dropna()), None)
    return isinstance(value, datetime.date) or (isinstance(value, str) and is_time(value))


def _counts(column: pd.Series) -> bool:
    """Whether three or more numbers rise by one constant step."""
    if len(column) < 3 or column.isna().any():
        return False
    step_T = np.diff(column.to_numpy(dtype=np.float64))
    return bool(step_T[0] > 0 and np.allclose(step_T, step_T[0], rtol=1e-6, atol=0))
