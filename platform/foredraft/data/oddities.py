"""What looks odd in the values of a data set: told with its place, and left as it is.

    for finding in oddities(load("load.csv")): ...

A value that may be a code for a missing one, an outlier, a dead meter, a constant. Shapes: N values
that are looked at, T values that were observed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from foredraft.data.dataset import Dataset
from foredraft.data.seasonal import Stretch, stretches
from foredraft.data.tables.table import Table
from foredraft.data.tables.values import option

LOOKED_AT = 10_000_000
"""Cells; of a larger data set evenly spaced rows are looked at."""
FAR = 8.0
"""Robust deviations from all other values, beyond which a value that stands often is a code."""
OUTLYING = 20.0
"""Robust deviations from the median, beyond which a value is told as an outlier."""
OFTEN = 3
STUCK_SEASONS = 3
"""Seasons without any change, after which a meter may be dead."""
SHOWN = 5
"""Variates that are named; of more, how many."""

_told: set[str] = set()
"""Identities of the data sets of which this process has told."""


class Finding(NamedTuple):
    """One thing about a data set."""

    level: str
    """ok, note (it can be used), or refused (as it was asked for it cannot)"""
    what: str
    remedy: str = ""

    def told(self) -> str:
        """In one line."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def notes(dataset: Dataset) -> list[str]:
    """What looks odd in a data set that could be read, each in one line that names it.

    A data set of which this has been told in this process has none any more.
    """
    if dataset.identity in _told:
        return []
    _told.add(dataset.identity)
    return [f"{dataset.name}: {finding.told()}" for finding in oddities(dataset)]


def oddities(dataset: Dataset) -> list[Finding]:
    """What looks odd in the values of a data set that could be read."""
    found = list(odd_values(dataset))
    if dataset.filled:
        share = dataset.filled / dataset.values_TC.size
        what = f"{dataset.filled:,} cells ({share:.2%}) were missing and are filled"
        found.insert(0, Finding("note", what))
    return found


def is_constant(data: Table | Dataset, one: Stretch) -> bool:
    """Whether every value of a variate, or of a series, is the same."""
    values_T = data.values_TC[one.first : one.end, one.column]
    low, high = np.fmin.reduce(values_T), np.fmax.reduce(values_T)
    return bool(low == high)


def odd_values(data: Table | Dataset) -> Iterator[Finding]:
    """What looks odd in each variate or series, one finding a kind."""
    every = max(1, data.values_TC.size // LOOKED_AT)
    about = "about " if every > 1 else ""
    season = data.step.season if data.step else 1
    constant: list[str] = []
    codes: list[str] = []
    said: dict[str, None] = {}
    outliers: list[tuple[int, str]] = []
    stuck: list[tuple[int, str]] = []
    for index, one in enumerate(stretches(data)):
        values_N, rows_N = _observed(data, one, every=every)
        level = 0.0 if data.level_C is None else float(data.level_C[index])
        if not len(values_N):
            continue
        if values_N.min() == values_N.max() and is_constant(data, one):
            constant.append(one.name)
            continue
        if (code := _code(values_N)) is not None:
            codes.append(f"{one.name} {code[0] + level:g} ({about}{code[1] * every} times)")
            said[option("na", f"{code[0] + level:g}")] = None
            rows_N, values_N = rows_N[values_N != code[0]], values_N[values_N != code[0]]
        if count := _outlying(values_N):
            far = int(np.abs(values_N - np.median(values_N)).argmax())
            place = f"{values_N[far] + level:g} at {_place(data, one, int(rows_N[far]))}"
            outliers.append((count, f"{one.name} {about}{count * every} ({place})"))
        first, longest = _longest_run(values_N)
        if longest * every > max(STUCK_SEASONS * season, 24):
            place = _place(data, one, int(rows_N[first]))
            stuck.append((longest, f"{one.name} {about}{longest * every} (from {place})"))
    if constant:
        ignore = " ".join(option("ignore", name) for name in constant[:SHOWN])
        yield Finding("note", f"constant: {few(constant)}", f"they say nothing ({ignore})")
    if codes:
        what = f"one value again and again, far from all others: {few(codes)}"
        remedy = f"if it stands for a missing value: {' '.join(list(said)[:SHOWN])}"
        yield Finding("note", what, remedy)
    if outliers:
        yield _counted("values far beyond all others", outliers)
    if stuck:
        yield _counted("rows without any change", stuck)


def _observed(data: Table | Dataset, one: Stretch, *, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Values that were observed, float64, and their rows; of a large data set some of them."""
    rows_N = np.arange(one.first, one.end, every)
    values_N = np.asarray(data.values_TC[one.first : one.end : every, one.column], dtype=np.float64)
    known_N = ~np.isnan(values_N)
    if data.filled_TC is not None:
        known_N &= ~data.filled_TC[one.first : one.end : every, one.column]
    return values_N[known_N], rows_N[known_N]


def _place(data: Table | Dataset, one: Stretch, row: int) -> str:
    """A row by its time, or by its number as a person counts."""
    return f"row {row - one.first + 1}" if data.time is None else str(data.time[row])


def _counted(what: str, found: list[tuple[int, str]]) -> Finding:
    return Finding("note", f"{what}: {few([text for _, text in sorted(found, reverse=True)])}")


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _robust(values_T: np.ndarray) -> tuple[float, float]:
    """Median, and the deviation that a normal distribution of that spread would have."""
    low, middle, high = np.percentile(values_T, [25, 50, 75])
    return float(middle), float(high - low) / 1.349


def _code(values_T: np.ndarray) -> tuple[float, int] | None:
    """A value that stands often at one end, with nothing near it: -9999, or 0 among thousands."""
    _, deviation = _robust(values_T)
    for end in (values_T.min(), values_T.max()):
        others_T = values_T[values_T != end]
        count = len(values_T) - len(others_T)
        away = np.abs(others_T - end).min()
        if count >= OFTEN and 2 * count < len(values_T) and away > FAR * deviation > 0:
            return float(end), count
    return None


def _outlying(values_T: np.ndarray) -> int:
    middle, deviation = _robust(values_T)
    return int((np.abs(values_T - middle) > OUTLYING * deviation).sum()) if deviation else 0


def _longest_run(values_T: np.ndarray) -> tuple[int, int]:
    """First row and length of the longest stretch in which nothing changes."""
    if not len(values_T):
        return 0, 0
    changed = np.flatnonzero(np.diff(values_T))
    edges = np.concatenate(([-1], changed, [len(values_T) - 1]))
    longest = int(np.diff(edges).argmax())
    return int(edges[longest]) + 1, int(edges[longest + 1] - edges[longest])
