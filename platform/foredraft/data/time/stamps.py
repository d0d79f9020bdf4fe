"""Columns that read as times. Rows in messages are counted from 1 and leave out the header.

    stamps(pd.Series(["2024-W05", "2024-W06"]), reading=Reading(), label="a.csv: column 'week'")

Times that name a zone keep it; others have none unless `Reading.timezone` gives it. No files here,
and no clock. Shapes: T rows.
"""

from __future__ import annotations

import datetime
import re
import warnings
import zoneinfo
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.cells import is_time
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.time.dates import day_and_month

WRITE = "write every row like 2024-01-31 13:00"

_NAMED = {"date", "time", "timestamp", "datetime", "ds", "month", "quarter", "week", "period"}
_EPOCH_WORDS = {"time", "timestamp", "ts", "epoch", "unix", "date", "datetime", "ds"}
_EPOCHS = {"s": (1e8, 1e10), "ms": (1e11, 1e13), "us": (1e14, 1e16), "ns": (1e17, 1e19)}
_SERIALS = (20_000, 80_000)  # days since 1899-12-30 of a spreadsheet: 1954 to 2119
_ALIASES = {" UTC": "Z", " GMT": "Z", " Z": "Z"}
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*([ap]m)?", re.IGNORECASE)
_QUARTER = r"(?:(?P<y>\d{4})[-/ ]?Q(?P<q>[1-4])|Q(?P<q2>[1-4])[-/ ]?(?P<y2>\d{4}))"
_WEEK = r"(?P<y>\d{4})-?W(?P<w>\d{2})(?:-?(?P<d>[1-7]))?"
_YEAR_MONTH = r"(?P<y>\d{4})[-/. ]?M?(?P<m>0[1-9]|1[0-2])"
_MONTH_YEAR = r"(?P<m>0?[1-9]|1[0-2])[-/.](?P<y>\d{4})"
_STARTS = (_QUARTER, _WEEK, _YEAR_MONTH, _MONTH_YEAR)
_WORDS = ("%b %Y", "%B %Y", "%b-%Y", "%B-%Y", "%Y %b", "%Y-%b", "%b-%y", "%b %y", "%d-%b-%y")
_NAMED_MONTH = re.compile(
    r"(\d{1,2}[- ])?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-., ]+\d{1,4}\b.*", re.I
)
_OFFSET = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_ZONES = (
    "Europe/London", "Europe/Berlin", "Europe/Athens", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "Australia/Sydney",
)  # fmt: skip


def stamps(column: pd.Series, *, reading: Reading, label: str) -> pd.DatetimeIndex | None:
    """The column's times, in their zone if they name one; None where it is no time.

    Epochs are in UTC by what they are. Other times are of `reading.timezone`, or of none.

    Raises:
        DataError: a row that does not read as a time among others that do; dates that read two
            ways; clock times without a day; a local time that its zone does not have, or has twice.
    """
    time = _read(column, reading=reading, label=label)
    if time is None:
        return None
    if (bad := np.flatnonzero(time.isna())).size:
        value = column.iloc[int(bad[0])]
        what = "has no time" if pd.isna(value) else f"{value!r} does not read as a time"
        raise DataError(f"{label}, row {bad[0] + 1}: {what}; {WRITE}")
    return time if reading.timezone is None else _in_zone(time, reading.timezone, label=label)


def _read(column: pd.Series, *, reading: Reading, label: str) -> pd.DatetimeIndex | None:
    name = str(column.name).strip().lower()
    asked = reading.time == str(column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.PeriodDtype):
        return pd.DatetimeIndex(column.dt.to_timestamp())
    if types.is_datetime64_any_dtype(column):
        return pd.DatetimeIndex(column)
    if types.is_bool_dtype(column):
        return None
    if types.is_numeric_dtype(column):
        return _of_numbers(column, name=name, asked=asked)
    present = column.dropna()
    if present.empty:
        return None
    first = present.iloc[0]
    if isinstance(first, datetime.date):  # and of datetimes
        return pd.DatetimeIndex(pd.to_datetime(column, errors="coerce"))
    if isinstance(first, pd.Period):
        return pd.PeriodIndex(column).to_timestamp()
    texts = column.astype("str").str.strip()
    first = str(first).strip()
    if _CLOCK.fullmatch(first) or isinstance(present.iloc[0], datetime.time):
        raise DataError(
            f"{label}, row {int(column.notna().argmax()) + 1}: {first!r} is a clock time "
            "without a day; write the day too, like 2024-01-31 13:00, or leave the column out with "
            f"--ignore {column.name}"
        )
    if re.fullmatch(r"\d+(\.0*)?", first):
        try:
            numbers = pd.to_numeric(column, errors="coerce")
        except OverflowError:  # a whole number beyond every float is no time
            return None
        return _of_numbers(numbers, name=name, asked=asked)
    if not (asked or name in _NAMED or is_time(first) or _is_start(first)):
        return None
    return _of_texts(texts, first, reading=reading, label=label)


def _of_numbers(column: pd.Series, *, name: str, asked: bool) -> pd.DatetimeIndex | None:
    """Years, months as 202401, days as 20240131, epochs, days of a spreadsheet; None if none."""
    words = set(re.findall(r"[a-z]+", name))
    if column.empty or column.isna().any():
        return None
    values_T = column.to_numpy(dtype=np.float64)
    low, high = values_T.min(), values_T.max()
    whole = bool((values_T % 1 == 0).all())
    rises = len(values_T) > 1 and bool((np.diff(values_T) > 0).all())
    dated = asked or bool(words & (_EPOCH_WORDS | {"day", "month", "period"}))
    if whole and 1000 <= low <= high < 3000 and (asked or ("year" in name and rises)):
        return _of_parts(values_T.astype(int))
    if whole and dated and 100_001 <= low <= high < 300_000:
        year_T, month_T = np.divmod(values_T.astype(int), 100)
        return _of_parts(year_T, month_T) if ((month_T > 0) & (month_T < 13)).all() else None
    if whole and dated and 10_000_101 <= low <= high < 30_000_000:
        return pd.DatetimeIndex(
            pd.to_datetime(column.astype("int64").astype(str), format="%Y%m%d", errors="coerce")
        )
    if (asked or "date" in words) and _SERIALS[0] <= low <= high <= _SERIALS[1]:
        seconds_T = np.round(values_T * 86_400).astype(np.int64)
        return pd.DatetimeIndex(
            np.datetime64("1899-12-30", "s") + seconds_T.astype("timedelta64[s]")
        )
    for unit, (least, most) in _EPOCHS.items():
        if (asked or words & _EPOCH_WORDS) and least <= low <= high < most:
            return _of_epochs(column, unit).tz_localize("UTC")
    return None


def _of_epochs(column: pd.Series, unit: str) -> pd.DatetimeIndex:
    if types.is_float_dtype(column) and unit == "s":
        counts_T, unit = np.round(column.to_numpy(np.float64) * 1e6), "us"
        return pd.DatetimeIndex(counts_T.astype(np.int64).astype("datetime64[us]"))
    return pd.DatetimeIndex(column.to_numpy(np.int64).astype(f"datetime64[{unit}]"))


def _of_parts(year_T: np.ndarray, month_T: np.ndarray | int = 1) -> pd.DatetimeIndex:
    months_T = (year_T - 1970) * 12 + (month_T - 1)
    return pd.DatetimeIndex(months_T.astype("datetime64[M]").astype("datetime64[s]"))


def _is_start(text: str) -> bool:
    """Whether a text names a month, a quarter or a week, or the month of a day in letters."""
    shapes = (*_STARTS, _NAMED_MONTH.pattern)
    return any(re.fullmatch(shape, text, re.IGNORECASE) for shape in shapes)


def _of_texts(
    texts: pd.Series, first: str, *, reading: Reading, label: str
) -> pd.DatetimeIndex | None:
    for pattern in _STARTS:
        if re.fullmatch(pattern, first, re.IGNORECASE):
            return _of_pattern(texts, pattern)
    for end, short in _ALIASES.items():
        if first.upper().endswith(end):
            texts = texts.str.replace(f"{end}$", short, regex=True, case=False)
            first = first[: -len(end)] + short
    zoned = bool(re.search(_OFFSET, first)) and ":" in first
    time = day_and_month(texts, first, dayfirst=reading.dayfirst, zoned=zoned, label=label)
    if time is None:
        time = min(_guesses(texts, zoned=zoned), key=lambda guess: np.count_nonzero(guess.isna()))
    if zoned:
        return _in_own_zone(time, texts, label=label)
    return time


def _of_pattern(texts: pd.Series, pattern: str) -> pd.DatetimeIndex:
    """Starts of quarters, ISO weeks or months; NaT where a row is written otherwise."""
    unique, place_T = np.unique(texts.to_numpy(dtype=object).astype(str), return_inverse=True)
    found = [_start(re.fullmatch(pattern, text, re.IGNORECASE)) for text in unique]
    return pd.DatetimeIndex(np.array(found, dtype="datetime64[s]")[place_T])


def _start(match: re.Match[str] | None) -> str:
    if match is None:
        return "NaT"
    part = {name[0]: int(value) for name, value in match.groupdict().items() if value}
    if "w" in part:
        try:
            return datetime.date.fromisocalendar(part["y"], part["w"], part.get("d", 1)).isoformat()
        except ValueError:  # a year of 52 weeks has no 53rd
            return "NaT"
    return f"{part['y']:04d}-{part['m'] if 'm' in part else 3 * part['q'] - 2:02d}-01"


def _guesses(texts: pd.Series, *, zoned: bool) -> Iterator[pd.DatetimeIndex]:
    """Readings of dates whose order is beyond doubt, of which the best is taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says that it guesses a format
        iso = pd.DatetimeIndex(pd.to_datetime(texts, format="ISO8601", utc=zoned, errors="coerce"))
        iso = pd.DatetimeIndex(iso.where(iso.year >= 1000))  # 1-02 is no year 1
        yield iso
        if not iso.isna().any():
            return
        for words in _WORDS:
            yield pd.DatetimeIndex(pd.to_datetime(texts, format=words, errors="coerce"))
        guess = pd.DatetimeIndex(pd.to_datetime(texts, utc=zoned, errors="coerce"))
        dated_T = texts.str.contains(r"\d{4}", na=False).to_numpy(dtype=bool)
        yield pd.DatetimeIndex(guess.where(dated_T))


# Zones


def _in_own_zone(time: pd.DatetimeIndex, texts: pd.Series, *, label: str) -> pd.DatetimeIndex:
    """Times in UTC told in the zone of their own offsets: one offset, or a zone that has them all.

    Many zones have the same offsets in the same months; one of them stands for all.
    """
    offsets = texts.str.extract(rf"({_OFFSET})", expand=False)
    if (bad := np.flatnonzero(offsets.isna().to_numpy() & time.notna())).size:
        raise DataError(
            f"{label}, row {bad[0] + 1}: {texts.iloc[int(bad[0])]!r} names no zone, and other rows "
            "do; write the offset in every row, like 2024-01-31T13:00+01:00"
        )
    kinds = pd.unique(offsets.dropna())
    if len(kinds) == 1:
        offset = kinds[0]
        return time if _minutes(offset) == 0 else time.tz_convert(_fixed(offset))
    wall = time.tz_localize(None) + pd.to_timedelta(
        offsets.map({kind: _minutes(kind) for kind in kinds}).to_numpy(dtype=np.float64), unit="m"
    )
    for zone in _ZONES:
        if (time.tz_convert(zone).tz_localize(None) == wall).all():
            return time.tz_convert(zone)
    return time


def _minutes(offset: str) -> int:
    if offset == "Z":
        return 0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return (-1 if offset[0] == "-" else 1) * (60 * int(digits[:2]) + int(digits[2:]))


def _fixed(offset: str) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(minutes=_minutes(offset)))


def _in_zone(time: pd.DatetimeIndex, name: str, *, label: str) -> pd.DatetimeIndex:
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise DataError(
            f"--timezone is {name!r}, which is no zone: name it like Europe/Berlin or UTC"
        ) from error
    if time.tz is not None:
        return time.tz_convert(zone)
    ambiguous = time.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna()
    exists = time.tz_localize(
        zone, ambiguous=np.ones(len(time), dtype=bool), nonexistent="NaT"
    ).notna()
    if not exists.all():
        row = int(exists.argmin())
        raise DataError(
            f"{label}, row {row + 1}: {time[row]} does not exist in {name}, where the clocks go "
            "forward; correct the row, or name the zone that the times were taken in (standard "
            "time all the year: --timezone Etc/GMT-1 is UTC+1)"
        )
    if not ambiguous.any():
        return time.tz_localize(zone)
    try:
        return time.tz_localize(zone, ambiguous="infer")
    except ValueError as error:
        row = int(ambiguous.argmax())
        raise DataError(
            f"{label}, row {row + 1}: {time[row]} is twice in {name}, where the clocks go back, "
            "and the rows do not show which; write both hours, or times with their offset, like "
            "2024-10-27T02:00+01:00"
        ) from error
