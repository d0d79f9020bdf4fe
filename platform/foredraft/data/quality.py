"""What a person should know of a data set before a model learns from it.

    report = check("load.csv")                 what the file is, its holes, what looks odd in it

Shapes: T rows, C variates, S series of a panel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foredraft.data import holes
from foredraft.data.errors import DataError
from foredraft.data.loading import AS_FOUND, goes_by_rows, matching
from foredraft.data.oddities import Finding, few, is_constant, odd_values
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import locate, verified
from foredraft.data.seasonal import median_naive_error, stretches
from foredraft.data.splits import split, with_a_scale
from foredraft.data.tables import formats
from foredraft.data.tables.long import bounds_of
from foredraft.data.tables.table import Table, of_frame
from foredraft.data.time.steps import Step, gaps

DONE = {"skip": "no window touches one", "interpolate": "they are filled linearly in time"} | {
    "seasonal": "they are filled from the seasons beside"
}


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
    published = matching(table, entry=entry, path=path, reading=reading)
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
        *odd_values(table),
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
        "constant": [one.name for one in stretches(table) if is_constant(table, one)],
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
        where = "1 gap" if len(absent) == 1 else f"{len(absent)} gaps, the longest"
        what = f"{_are(rows, 'row')} absent in {where} of {longest['rows']} "
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
        what = f"a level so high that single precision would swallow the variation: {few(names)}"
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
