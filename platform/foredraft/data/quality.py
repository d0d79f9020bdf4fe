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

from foredraft.data import formats, holes
from foredraft.data.dataset import Dataset
from foredraft.data.loading import AS_FOUND, goes_by_rows, matching
from foredraft.data.long import Series, bounds_of
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import locate, verified
from foredraft.data.splits import split
from foredraft.data.steps import Step, gaps
from foredraft.data.tables import Table, of_frame
from foredraft.data.values import option

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
    cells, place = int(np.isnan(table.values_TC).sum()), holes.first_missing(table)
    time, series = table.time, table.series
    step = holes.step_of(table, reading=reading, label=str(path), by_rows=by_rows)
    if time is not None and step is not None and not by_rows:
        absent = list(_absent(time, step, bounds_of(series, rows)))
    table = holes.settled(
        table, missing="interpolate", reading=reading, label=str(path), by_rows=by_rows
    )
    ranges = split(table, fractions=None, entry=published, label=str(path))
    odd = list(_oddities(table.values_TC, _stretches(table), step=step, filled=table.filled_TC))
    level = [] if table.level_C is None else _names(table.variates, table.level_C != 0)
    findings = [*_holes(cells, place, absent, missing=missing), *_levels(level), *odd]
    return {
        "file": str(path),
        "format": found.told(),
        "digest": content,
        "rows": rows,
        "variates": len(table.variates),
        "series": len(series),
        "start": None if time is None else str(time[0]),
        "end": None if time is None else str(time[-1]),
        "step": step and step.name,
        "zone": None if time is None or time.tz is None else str(time.tz),
        "absent": sum(gap["rows"] for gap in absent),
        "gaps": None if time is None else len(absent),
        "longest_gap": max(absent, key=lambda gap: gap["rows"], default=None),
        "missing": cells,
        "first_missing": place._asdict() if place else None,
        "constant": [one.name for one in _constants(table)],
        "season": step.season if step else None,
        "seasonal_naive": _naive_error(table, ranges["train"], step),
        "splits": {name: int(np.diff(r).sum()) for name, r in ranges.items()},
        "borders": _borders(table.time, ranges) if not series else None,
        "usable": not any(finding.level == "refused" for finding in findings),
        "findings": [finding._asdict() for finding in findings],
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
    parts = _parts(dataset.variates, dataset.series, len(dataset.values_TC))
    filled = None if dataset.filled_TC is None else dataset.filled_TC
    found = list(_oddities(dataset.values_TC, parts, step=dataset.step, filled=filled))
    if dataset.filled:
        share = dataset.filled / dataset.values_TC.size
        what = f"{dataset.filled} cells ({share:.2%}) were missing and are filled"
        found.insert(0, Finding("note", what))
    return found


class Stretch(NamedTuple):
    """The values of one variate, or of one series."""

    name: str
    column: int
    first: int
    end: int


def _parts(variates: tuple[str, ...], series: tuple[Series, ...], rows: int) -> list[Stretch]:
    if series:
        return [Stretch(one.name, 0, one.first, one.end) for one in series]
    return [Stretch(name, column, 0, rows) for column, name in enumerate(variates)]


def _stretches(table: Table) -> list[Stretch]:
    return _parts(table.variates, table.series, len(table.values_TC))


def _constants(table: Table) -> Iterator[Stretch]:
    for one in _stretches(table):
        values_T = table.values_TC[one.first : one.end, one.column]
        if values_T.min() == values_T.max():
            yield one


def _oddities(
    values_TC: np.ndarray,
    stretches: list[Stretch],
    *,
    step: Step | None,
    filled: np.ndarray | None,
) -> Iterator[Finding]:
    """What looks odd in each stretch, one finding a kind."""
    every = max(1, values_TC.size // LOOKED_AT)
    season = step.season if step else 1
    constant: list[str] = []
    codes: list[tuple[str, float, int]] = []
    outliers: list[tuple[int, str]] = []
    stuck: list[tuple[int, str]] = []
    for one in stretches:
        values_T = np.asarray(values_TC[one.first : one.end : every, one.column], dtype=np.float64)
        if filled is not None:
            values_T = values_T[~filled[one.first : one.end : every, one.column]]
        values_T = values_T[~np.isnan(values_T)]
        if not len(values_T):
            continue
        if values_T.min() == values_T.max():
            constant.append(one.name)
            continue
        if (code := _code(values_T)) is not None:
            codes.append((one.name, code[0], code[1] * every))
            values_T = values_T[values_T != code[0]]
        if count := _outlying(values_T):
            outliers.append((count * every, one.name))
        longest = _longest_run(values_T) * every
        if longest > max(STUCK_SEASONS * season, 24):
            stuck.append((longest, one.name))
    if constant:
        yield Finding("note", f"constant: {_few(constant)}", "they say nothing (--ignore NAME)")
    if codes:
        shown = _few([f"{name} {value:g} ({count} times)" for name, value, count in codes])
        remedy = f"if it stands for a missing value: {option('na', f'{codes[0][1]:g}')}"
        yield Finding("note", f"one value again and again, far from all others: {shown}", remedy)
    if outliers:
        yield _counted("values far beyond all others", outliers)
    if stuck:
        yield _counted("rows without any change", stuck)


def _counted(what: str, found: list[tuple[int, str]]) -> Finding:
    found = sorted(found, reverse=True)
    return Finding("note", f"{what}: {_few([f'{name} {count}' for count, name in found])}")


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


def _longest_run(values_T: np.ndarray) -> int:
    """Rows in which nothing changes, where it is no resting value such as a night's zero."""
    changed = np.flatnonzero(np.diff(values_T))
    edges = np.concatenate(([-1], changed, [len(values_T) - 1]))
    lengths = np.diff(edges)
    return int(lengths.max()) if len(lengths) else 0


def _absent(time: pd.DatetimeIndex, step: Step, bounds: np.ndarray) -> Iterator[dict[str, Any]]:
    for first, end in bounds.tolist():
        for gap in gaps(time[first:end], step):
            yield {"rows": gap.absent, "after": str(time[first + gap.row - 1])}


def _holes(
    cells: int, place: holes.Place | None, absent: list[dict[str, Any]], *, missing: Missing
) -> Iterator[Finding]:
    level = "refused" if missing == "refuse" else "note"
    remedy = "--missing interpolate fills, --missing skip leaves out the windows that touch one"
    if absent:
        longest = max(absent, key=lambda gap: int(gap["rows"]))
        rows = sum(int(gap["rows"]) for gap in absent)
        what = f"{rows} rows are absent in {len(absent)} gaps, the longest of {longest['rows']} "
        yield Finding(level, f"{what}after {longest['after']}", remedy)
    if place is not None:
        what = f"{cells} cells are missing, the first in {place.column}, row {place.row}"
        yield Finding(level, what, remedy)
    if not absent and place is None:
        yield Finding("ok", "no row is absent, no cell is missing")


def _levels(names: list[str]) -> Iterator[Finding]:
    if names:
        what = f"a level so high that single precision would swallow the variation: {_few(names)}"
        yield Finding("note", what, "it is taken off in double precision")


def _names(variates: tuple[str, ...], chosen_C: np.ndarray) -> list[str]:
    return [variates[index] for index in np.flatnonzero(chosen_C)]


def _naive_error(table: Table, ranges_S2: np.ndarray, step: Step | None) -> float | None:
    """Mean absolute seasonal-naive error over training, in deviations; the median variate's.

    What MASE divides by (Hyndman and Koehler, International Journal of Forecasting 22, 2006).
    """
    season = step.season if step else 1
    errors = []
    for index, one in enumerate(_stretches(table)):
        first, end = ranges_S2[index if table.series else 0].tolist()
        values_T = table.values_TC[first:end, one.column].astype(np.float64)
        if len(values_T) > season and values_T.std() > 0:
            errors.append(np.abs(values_T[season:] - values_T[:-season]).mean() / values_T.std())
    return float(np.median(errors)) if errors else None


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
