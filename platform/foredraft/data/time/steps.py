"""The step between two rows: recognised in the times of a table, checked, counted and continued.

    step = infer(time)                        # Step(name='ME'): 31 January, 29 February, 31 March
    step.after(time[-1], 3)                   # the next three month ends
    step.places(time)                         # 0, 1, 2, 4: one row is absent before the last
    gaps(time, step)                          # [Gap(row=3, absent=1)]

Steps below a day are stretches of absolute time: an hour is an hour through both changes of the
clock. Steps of a day and more go by the calendar of the time's own zone, so that midnight stays
midnight. Shapes: T rows.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from pandas.tseries import frequencies

from foredraft.data.errors import DataError

DAY = pd.Timedelta(days=1)
SEASONS = {"D": 7, "B": 5, "W": 52, "M": 12, "Q": 4, "Y": 1, "SM": 24}
_ONCE = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns"} | {
    "M": "ME", "BM": "BME", "Q": "QE", "BQ": "BQE", "Y": "YE", "A": "YE", "BY": "BYE", "d": "D"
}  # fmt: skip


class OffGrid(DataError):
    """A stamp lies between two steps."""

    def __init__(self, row: int, time: pd.Timestamp, step: str) -> None:
        super().__init__(
            f"row {row + 1} ({time}) lies between two steps of {step}; correct its time or resample"
        )
        self.row = row
        """counted from 0"""
        self.time = time


@dataclass(frozen=True)
class Step:
    """A step of the calendar or of the clock, by the name that pandas has for it."""

    name: str
    """such as h, 15min, D, B, W-FRI, MS, ME, QE-DEC, YE-DEC"""

    @staticmethod
    def of(text: str) -> Step:
        """The step that pandas knows by that name, or knew by it once.

        Raises:
            DataError: it knows none.
        """
        word, _, anchor = text.strip().partition("-")
        count = word[: len(word) - len(word.lstrip("0123456789"))]
        word = count + _ONCE.get(word[len(count) :], word[len(count) :])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                offset = frequencies.to_offset(word + (f"-{anchor}" if anchor else ""))
            known = offset is not None and offset.n > 0
        except (ValueError, TypeError):
            known = False
        if not known:
            raise DataError(
                f"step is {text!r}, which is none: write it like h, 15min, D, B, W-FRI, MS, ME, "
                "QE-DEC, YE-DEC"
            )
        return _named(cast(pd.DateOffset, offset))

    @property
    def offset(self) -> pd.DateOffset:
        """Of pandas; adding it to a time of the grid gives the next."""
        return _offset(self.name)

    @property
    def length(self) -> pd.Timedelta | None:
        """Of a step of the clock; None for a step of the calendar, whose lengths may differ."""
        offset = self.offset
        return pd.Timedelta(offset) if isinstance(offset, pd.offsets.Tick) else None

    @property
    def season(self) -> int:
        """Rows in a season: a day of hours or minutes, a week of days, a year of months; else 1."""
        if self.length is not None:
            whole = not DAY % self.length and self.length >= pd.Timedelta(seconds=1)
            return DAY // self.length if whole else 1
        base, count = self.kind
        rows, rest = divmod(SEASONS.get(base, 1), count)
        return 1 if rest else max(1, rows)

    @property
    def kind(self) -> tuple[str, int]:
        """What is stepped by and how many of it, whichever day it is anchored to.

        Month starts and month ends are both (M, 1), seven days and weeks from any day (W, 1).
        """
        if self.length is not None:
            return "ns", self.length.value
        word = self.name.partition("-")[0].lstrip("0123456789")
        base = word if word in ("B", "D", "W") else word.removeprefix("B")[:-1]
        weeks, days = divmod(self.offset.n, 7)
        return ("W", weeks) if base == "D" and not days else (base, self.offset.n)

    def alike(self, other: Step) -> bool:
        """Whether both are one stretch of time: a model found at one reads the other."""
        return self.kind == other.kind

    def after(self, last: pd.Timestamp, count: int) -> pd.DatetimeIndex:
        """The `count` times that follow `last`, in its zone."""
        if self.length is not None:
            return pd.date_range(last, periods=count + 1, freq=self.offset)[1:]
        wall = last.tz_localize(None)
        grid = pd.date_range(wall, periods=count + 1, freq=self.offset)
        grid = grid[1:] if grid[0] == wall else grid[:count]
        if last.tz is None:
            return grid
        # A midnight that the clocks skip or repeat: the first moment of that day.
        return grid.tz_localize(
            last.tz, ambiguous=np.ones(len(grid), dtype=bool), nonexistent="shift_forward"
        ).as_unit(last.unit)

    def places(self, time: pd.DatetimeIndex) -> np.ndarray:
        """int64 [T]: how many steps each row lies after the first.

        Raises:
            OffGrid: a stamp lies between two steps.
        """
        if not len(time):
            return np.zeros(0, dtype=np.int64)
        if self.length is not None:
            places_T, off_T = _divided(time, self.length)
        elif self.kind[0] in ("D", "W"):
            places_T, off_T = self._days(_wall(time))
        else:
            places_T, off_T = self._on_calendar(_wall(time))
        if off_T.any():
            row = int(off_T.argmax())
            raise OffGrid(row, time[row], self.name)
        return places_T

    def _days(self, wall: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
        base, count = self.kind
        places_T, off_T = _divided(wall, DAY * count * (7 if base == "W" else 1))
        if isinstance(self.offset, pd.offsets.Week):
            off_T |= np.asarray(wall.day_of_week) != cast(Any, self.offset).weekday
        return places_T, off_T

    def _on_calendar(self, wall: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
        grid = pd.date_range(wall.min(), wall.max(), freq=self.offset)
        places_T = grid.as_unit(wall.unit).get_indexer(wall).astype(np.int64)
        off_T = places_T < 0
        if len(grid) and grid[0] != wall.min():  # pandas goes on to the first day of its calendar
            off_T = off_T | np.asarray(wall < grid[0])
        return places_T - places_T[0], off_T


class Gap(NamedTuple):
    """Rows that are absent."""

    row: int
    """before which, counted from 0"""
    absent: int
    """how many, in steps"""


def gaps(time: pd.DatetimeIndex, step: Step) -> list[Gap]:
    """Where rows are absent, in order.

    Raises:
        OffGrid: a stamp lies between two steps.
    """
    ahead_T = np.diff(step.places(time))
    rows = np.flatnonzero(ahead_T > 1)
    return [Gap(int(row) + 1, int(ahead_T[row]) - 1) for row in rows]


def instants(time: pd.DatetimeIndex) -> np.ndarray:
    """datetime64 [T] in UTC, whatever the zone in which they are told."""
    return time.asi8.view(f"datetime64[{time.unit}]")


def infer(time: pd.DatetimeIndex) -> Step | None:
    """The step of the times, of which some may be absent; None where they keep none.

    A step is one that all times keep, and at least half of them one step after the time before.
    """
    if len(time) < 2:
        return None
    if not (time.is_monotonic_increasing and time.is_unique):
        time = time.unique().sort_values()
    for step in _candidates(time):
        try:
            ahead_T = np.diff(step.places(time))
        except OffGrid:
            continue
        if 2 * np.count_nonzero(ahead_T == 1) >= len(ahead_T):
            return step
    return None


def _candidates(time: pd.DatetimeIndex) -> Iterator[Step]:
    """Steps that the times may keep, the likeliest first."""
    if len(time) < 2:
        return
    least = pd.Timedelta(np.diff(instants(time)).min())
    if least > DAY / 2:  # a day in spring has 23 hours, and less where a zone moved
        yield from _of_calendar(_wall(time))
    yield _named(cast(pd.DateOffset, frequencies.to_offset(least)))


def _of_calendar(wall: pd.DatetimeIndex) -> Iterator[Step]:
    days = wall.normalize()
    if len((wall - days).unique()) > 1:
        return
    yield from _of_months(days)
    ahead_T = np.diff(days.to_numpy().astype("datetime64[D]")).astype(np.int64)
    least = int(ahead_T.min())
    even = bool((ahead_T == least).all())
    if least % 7 == 0:
        yield _weeks(least // 7, days[0])
    if not (even and len(ahead_T) > 1) and (ahead_T > 1).any() and (days.day_of_week < 5).all():
        yield Step("B")
    if least >= 13 and not even:
        yield from (Step("SMS-15"), Step("SME-15"))
    yield Step("D" if least == 1 else f"{least}D")


def _of_months(days: pd.DatetimeIndex) -> Iterator[Step]:
    """Months, quarters or years, if all days are a month's first or last ones."""
    months_T = np.asarray(days.year) * 12 + np.asarray(days.month) - 1
    ahead_T = np.diff(months_T)
    if not (least := int(ahead_T.min())) or (ahead_T % least).any():
        return
    month = int(days.month[0])
    anchor = f"{days[0]:%b}".upper()
    for end, letters in ((True, "E"), (False, "S")):
        if least % 12 == 0:
            names = [f"{_times(least // 12)}{{}}Y{letters}-{anchor}"]
        elif least == 3:
            first = (3, 1, 2)[month % 3] if not end else (12, 10, 11)[month % 3]
            names = [f"{{}}Q{letters}-{pd.Timestamp(2000, first, 1):%b}".upper()]
        else:
            names = [f"{_times(least)}{{}}M{letters}"]
        yield from (Step(name.format(day)) for name in names for day in ("", "B"))


def _weeks(count: int, day: pd.Timestamp) -> Step:
    return Step(f"{_times(count)}W-{day:%a}".upper())


def _times(count: int) -> str:
    return "" if count == 1 else str(count)


def _wall(time: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """What the clocks of the zone show."""
    return time if time.tz is None else time.tz_localize(None)


def _divided(time: pd.DatetimeIndex, length: pd.Timedelta) -> tuple[np.ndarray, np.ndarray]:
    """Whole lengths from the first time to each, and where something is left over."""
    fine = time.unit == "ns" or length.value % 1000
    ticks_T = time.as_unit("ns" if fine else "us").asi8
    return np.divmod(ticks_T - ticks_T[0], length.value if fine else length.value // 1000)


def _named(offset: pd.DateOffset) -> Step:
    """Whole days are the calendar's, whole weeks too where they are said as such."""
    if isinstance(offset, pd.offsets.Tick):
        length = pd.Timedelta(offset)
        if length % DAY == pd.Timedelta(0):
            return Step(f"{_times(length // DAY)}D")
        return Step(cast(pd.DateOffset, frequencies.to_offset(length)).freqstr)
    return Step(offset.freqstr)


@functools.lru_cache(maxsize=256)
def _offset(name: str) -> pd.DateOffset:
    return cast(pd.DateOffset, frequencies.to_offset(name))
