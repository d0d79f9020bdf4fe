"""What a person should know of a data set before a model learns from it.

    report = check("load.csv")                 what the file is, its holes, what looks odd in it
    for finding in oddities(load("load.csv")): ...

Nothing here changes a value: what looks like a code for a missing value, an outlier or a dead meter
is told with its place, and left as it is. Shapes: T rows, C variates, S series of a panel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from foredraft.data import holes
from foredraft.data.dataset import Dataset
from foredraft.data.errors import DataError
from foredraft.data.loading import AS_FOUND, goes_by_rows, matching
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import locate, verified
from foredraft.data.seasonal import Stretch, median_naive_error, stretches
from foredraft.data.splits import split, with_a_scale
from foredraft.data.tables import formats
from foredraft.data.tables.long import bounds_of
from foredraft.data.tables.table import Table, of_frame
from foredraft.data.tables.values import option
from foredraft.data.time.steps import Step, gaps

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
DONE = {"skip": "no window touches one", "interpolate": "they are filled linearly in time"} | {
    "seasonal": "they are filled from the seasons beside"
}

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


def check(
    source: str | Path, *, reading: Reading = AS_FOUND, missing: Missing = "refuse"
) -> dict[str, Any]:
    """What a file (or a named data set's file) holds, as a JSON-able report.

    Missing cells and absent rows are counted, whatever would be done about them; `usable` says
    whether `load` takes the file as it is asked for here.

    Raises:
        DataError: what would stop `load` even with `missing="interpolate"`.
    """
    path, entry = locate(str(source))
    content = verified(path, entry=entry)
    frame, found = formats.read(path, reading=reading)
    table = of_frame(frame, found=found, reading=reading, label=str(path))
    published = matching(table, entry=entry, path=path)
    by_rows = goes_by_rows(path, entry)
    rows, absent = len(table.values_TC), []
    missing_C = np.isnan(table.values_TC).sum(axis=0)
    cells, place = int(missing_C.sum()), holes.first_missing(table)
    worst = None if table.series or not cells else table.variates[int(missing_C.argmax())]
    time, series = table.time, table.series
    step = holes.step_of(table, reading=reading, label=str(path), by_rows=by_rows)
    if time is not None and step is not None and not by_rows:
        absent = list(_absent(time, step, bounds_of(series, rows)))
    table = holes.settled(
        table, missing="interpolate", reading=reading, label=str(path), by_rows=by_rows
    )
    ranges = split(table, fractions=None, entry=published, label=str(path))
    level = [] if table.level_C is None else _names(table.variates, table.level_C != 0)
    findings = [
        *_holes(cells, place, worst, absent, missing=missing),
        *_unlearnable(table, ranges, step, missing=missing, name=path.stem),
        *_levels(level),
        *_oddities(table),
        *_empty(ranges),
    ]
    return {
        "file": str(path),
        "format": found.told(),
        "digest": content,
        "rows": rows,
        "variates": len(table.variates),
        "series": len(series),
        **_times(time, step, absent),
        "missing": cells,
        "first_missing": place._asdict() if place else None,
        "most_missing": worst,
        "constant": [one.name for one in stretches(table) if _is_constant(table, one)],
        "seasonal_naive": median_naive_error(
            table, ranges["train"], season=step.season if step else 1
        ),
        "splits": {name: int(np.diff(r).sum()) for name, r in ranges.items()},
        "borders": _borders(table.time, ranges) if not series else None,
        "usable": not any(finding.level == "refused" for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def _times(
    time: pd.DatetimeIndex | None, step: Step | None, absent: list[dict[str, Any]]
) -> dict[str, Any]:
    """Of a report: from when to when rows are there, how far apart, and where they are not."""
    return {
        "start": None if time is None else str(time[0]),
        "end": None if time is None else str(time[-1]),
        "step": step and step.name,
        "season": step and step.season,
        "zone": None if time is None or time.tz is None else str(time.tz),
        "absent": sum(gap["rows"] for gap in absent),
        "gaps": None if time is None else len(absent),
        "longest_gap": max(absent, key=lambda gap: int(gap["rows"]), default=None),
    }


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
    found = list(_oddities(dataset))
    if dataset.filled:
        share = dataset.filled / dataset.values_TC.size
        what = f"{dataset.filled:,} cells ({share:.2%}) were missing and are filled"
        found.insert(0, Finding("note", what))
    return found


def _is_constant(data: Table | Dataset, one: Stretch) -> bool:
    values_T = data.values_TC[one.first : one.end, one.column]
    low, high = np.fmin.reduce(values_T), np.fmax.reduce(values_T)
    return bool(low == high)


def _oddities(data: Table | Dataset) -> Iterator[Finding]:
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
        if values_N.min() == values_N.max() and _is_constant(data, one):
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
        yield Finding("note", f"constant: {_few(constant)}", f"they say nothing ({ignore})")
    if codes:
        what = f"one value again and again, far from all others: {_few(codes)}"
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
    return Finding("note", f"{what}: {_few([text for _, text in sorted(found, reverse=True)])}")


def _few(names: list[str]) -> str:
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


def _absent(time: pd.DatetimeIndex, step: Step, bounds: np.ndarray) -> Iterator[dict[str, Any]]:
    for first, end in bounds.tolist():
        for gap in gaps(time[first:end], step):
            yield {"rows": gap.absent, "after": str(time[first + gap.row - 1])}


def _holes(
    cells: int,
    place: holes.Place | None,
    worst: str | None,
    absent: list[dict[str, Any]],
    *,
    missing: Missing,
) -> Iterator[Finding]:
    level, remedy = "note", DONE.get(missing, "")
    if missing == "refuse":
        level = "refused"
        remedy = "--missing interpolate fills, --missing skip leaves out the windows that touch one"
    if absent:
        longest = max(absent, key=lambda gap: int(gap["rows"]))
        rows = sum(int(gap["rows"]) for gap in absent)
        what = (
            f"{_are(rows, 'row')} absent in {len(absent)} gaps, the longest of {longest['rows']} "
        )
        yield Finding(level, f"{what}after {longest['after']}", remedy)
    if place is not None:
        what = f"{_are(cells, 'cell')} missing, the first in {place.column}, row {place.row}"
        what += f", most of them in {worst}" if worst and worst != place.column else ""
        yield Finding(level, what, remedy)
    if not absent and place is None:
        yield Finding("ok", "no row is absent, no cell is missing")


def _are(count: int, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count:,} {noun}s are"


def _unlearnable(
    table: Table,
    ranges: dict[str, np.ndarray],
    step: Step | None,
    *,
    missing: Missing,
    name: str,
) -> Iterator[Finding]:
    """What `load` would refuse though the file could be read; holes themselves are told before."""
    if table.filled_TC is None or missing == "refuse":
        return
    if missing == "seasonal" and step is None:
        what = "nothing tells how long a season is"
        yield Finding("refused", what, "say --step, or --missing interpolate")
        return
    known = [
        not table.filled_TC[slice(*ranges["train"][index if table.series else 0]), one.column].all()
        for index, one in enumerate(stretches(table))
    ]
    mean_C = np.where(known, 0.0, np.nan)
    try:
        with_a_scale(table, ranges, mean_C, np.ones_like(mean_C), name=name)
    except DataError as error:
        yield Finding("refused", str(error))


def _empty(ranges: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Splits without a row."""
    names = [name for name, ranges_S2 in ranges.items() if not np.diff(ranges_S2).any()]
    if names:
        verb = "has" if len(names) == 1 else "have"
        yield Finding("note", f"{' and '.join(names)} {verb} no row", "add rows")


def _levels(names: list[str]) -> Iterator[Finding]:
    if names:
        what = f"a level so high that single precision would swallow the variation: {_few(names)}"
        yield Finding("note", what, "it is taken off in double precision")


def _names(variates: tuple[str, ...], chosen_C: np.ndarray) -> list[str]:
    return [variates[index] for index in np.flatnonzero(chosen_C)]


def _borders(time: pd.DatetimeIndex | None, ranges: dict[str, np.ndarray]) -> dict[str, Any]:
    """First and last row of each split, by time where there is one and from 1 elsewhere."""
    borders = {}
    for name, ranges_S2 in ranges.items():
        first, end = ranges_S2[0].tolist()
        if first < end:
            last = end - 1
            row = (first + 1, end) if time is None else (str(time[first]), str(time[last]))
            borders[name] = list(row)
    return borders
