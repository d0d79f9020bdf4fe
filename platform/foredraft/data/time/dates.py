"""Dates like 11/02/2024, which read two ways: the column as a whole decides which."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd

from foredraft.data.errors import DataError
from foredraft.data.time.steps import OffGrid, infer

_DATE = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})(?!\d)(.*)")
_CLOCKS = (
    ("%H:%M", r"\d{1,2}:\d{2}"),
    ("%H:%M:%S", r"\d{1,2}:\d{2}:\d{2}"),
    ("%H:%M:%S.%f", r"\d{1,2}:\d{2}:\d{2}\.\d+"),
    ("%I:%M %p", r"\d{1,2}:\d{2} [APap][Mm]"),
    ("%I:%M:%S %p", r"\d{1,2}:\d{2}:\d{2} [APap][Mm]"),
)
COVERED = 0.5
"""share of the rows between first and last that a reading must find there to count as even"""


def day_and_month(
    texts: pd.Series, first: str, *, dayfirst: bool | None, zoned: bool, label: str
) -> pd.DatetimeIndex | None:
    """The times, NaT where a row does not read; None where the first text is no such date.

    Where every row reads both ways the evenly spaced reading is taken.

    Raises:
        DataError: both readings are evenly spaced, or neither is, or each fails in some row.
    """
    if not _DATE.fullmatch(first):
        return None
    if dayfirst is not None:
        return _parsed(texts, first, dayfirst=dayfirst, zoned=zoned)
    by_day = _as_first(texts, first, dayfirst=True, zoned=zoned)
    by_month = _as_first(texts, first, dayfirst=False, zoned=zoned)
    if by_day.hasnans and by_month.hasnans:
        by_day = _parsed(texts, first, dayfirst=True, zoned=zoned)
        by_month = _parsed(texts, first, dayfirst=False, zoned=zoned)
    no_day, no_month = np.asarray(by_day.isna()), np.asarray(by_month.isna())
    if (no_day & ~no_month).any() and (no_month & ~no_day).any():
        rows = [int((no_month & ~no_day).argmax()), int((no_day & ~no_month).argmax())]
        shown = [f"row {row + 1} ({texts.iloc[row]!r})" for row in rows]
        raise DataError(
            f"{label}: {shown[0]} reads only with the day first and {shown[1]} only with the month "
            "first; write every row like 2024-01-31 13:00"
        )
    if no_day.sum() != no_month.sum() or by_day.equals(by_month):
        return by_day if no_day.sum() <= no_month.sum() else by_month
    return _evener(by_day, by_month, texts=texts, label=label)


def _as_first(texts: pd.Series, first: str, *, dayfirst: bool, zoned: bool) -> pd.DatetimeIndex:
    """The times of rows that are written like the first; NaT for others."""
    shape = _shape(first, dayfirst=dayfirst, zoned=zoned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pd.DatetimeIndex(pd.to_datetime(texts, format=shape, errors="coerce", utc=zoned))


def _parsed(texts: pd.Series, first: str, *, dayfirst: bool, zoned: bool) -> pd.DatetimeIndex:
    """The times of rows that may be written unlike the first: with seconds, or no clock time."""
    time = _as_first(texts, first, dayfirst=dayfirst, zoned=zoned)
    if not time.hasnans:
        return time
    parts = texts.str.extract(_DATE.pattern)
    day, month = (parts[0], parts[2]) if dayfirst else (parts[2], parts[0])
    year = parts[3].where(parts[3].str.len() != 2, "20" + parts[3])
    year = year.where((parts[3].str.len() != 2) | (parts[3].astype(float) < 69), "19" + parts[3])
    iso = year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2) + parts[4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        slow = pd.to_datetime(iso, format="ISO8601", errors="coerce", utc=zoned)
    return pd.DatetimeIndex(slow) if slow.isna().sum() < np.sum(time.isna()) else time


def _shape(first: str, *, dayfirst: bool, zoned: bool) -> str:
    """The format of the first text, as strptime has it."""
    _, between, _, year, rest = _DATE.fullmatch(first).groups()  # type: ignore[union-attr]
    date = between.join(("%d", "%m") if dayfirst else ("%m", "%d"))
    date += between + ("%Y" if len(year) == 4 else "%y")
    end = r"(Z|[+-]\d{2}(:?\d{2})?)" if zoned else ""
    for clock, pattern in _CLOCKS:
        if found := re.fullmatch(rf"(,? +|T){pattern}( *){end}", rest):
            return date + found[1] + clock + (found[2] + "%z" if zoned else "")
    return date


def _evener(
    by_day: pd.DatetimeIndex, by_month: pd.DatetimeIndex, *, texts: pd.Series, label: str
) -> pd.DatetimeIndex:
    rises = [time.is_monotonic_increasing and time.is_unique for time in (by_day, by_month)]
    cover = [_coverage(time) for time in (by_day, by_month)]
    if rises[0] != rises[1]:
        cover = [share if up else 0.0 for share, up in zip(cover, rises, strict=True)]
    for mine, other, time in ((cover[0], cover[1], by_day), (cover[1], cover[0], by_month)):
        if mine >= COVERED and (other < COVERED or (mine == 1.0 and other < 1.0)):
            return time
    row = int(np.asarray(by_day != by_month).argmax())
    even = "evenly spaced both ways" if min(cover) >= COVERED else "unevenly spaced both ways"
    raise DataError(
        f"{label}, row {row + 1}: {texts.iloc[row]!r} is {by_day[row]:%-d %B %Y} or "
        f"{by_month[row]:%-d %B %Y}, and the rows are {even}; say --dayfirst or "
        "--monthfirst"
    )


def _coverage(time: pd.DatetimeIndex) -> float:
    """Rows there are, of those that an even series from the first to the last time would have."""
    time = time.dropna().unique().sort_values()
    step = infer(time)
    if step is None:
        return 0.0
    try:
        return len(time) / float(step.places(time)[-1] + 1)
    except OffGrid:
        return 0.0
