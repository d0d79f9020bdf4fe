"""Long format: a row per series and time, the series named in a column.

    layout = layout_of(frame, reading=reading)        # None: the table is wide
    rows = unstacked(frame, layout, reading=reading, decimal=None, label="m4.csv")

Series that begin and end together become the variates of one table; others stay a panel, one below
the other, so that nothing grows beyond the rows that there are. Shapes: N rows of the file, S
series, K columns of values, T rows, C variates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.cells import is_number
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables import columns, values
from foredraft.data.time.stamps import stamps
from foredraft.data.time.steps import instants

IDS = {"unique_id", "item_id", "series_id", "ts_id", "series", "series_name", "tsid", "uid"}
"""Names of columns that name the series, whatever stands in them."""
KEYS = {
    "id", "store", "item", "shop", "product", "sku", "station", "sensor", "meter", "client",
    "customer", "location", "site", "region", "zone", "state", "country", "symbol", "ticker",
    "group", "family", "dept", "department", "category", "household", "building", "plant", "name",
    "level_0", "level_1", "level_2",
}  # fmt: skip
"""Names that do so where each time stands once for every series."""
TIMES = ("ds", "timestamp", "date", "datetime", "time", "month", "week", "quarter", "year", "day")
APART = "/"
"""Between the names that several columns give to one series."""
SPARSE = 2
"""Cells of a table side by side for each row of the file, beyond which series are a panel."""
STRETCH = 10
"""Counts for each row of the file, beyond which a count is taken for a mistake."""


class Series(NamedTuple):
    """One series of a panel, and its rows."""

    name: str
    first: int
    end: int


def bounds_of(series: tuple[Series, ...], rows: int) -> np.ndarray:
    """First row and end of each series, int64 [S, 2]; without any, of all rows."""
    return np.array([(one.first, one.end) for one in series] or [(0, rows)], dtype=np.int64)


class Layout(NamedTuple):
    """Which columns of a long table are what."""

    ids: tuple[str, ...]
    time: str
    values: tuple[str, ...]


class Rows(NamedTuple):
    """What a long table holds."""

    values_TC: np.ndarray
    """float64; C is 1 in a panel"""
    names: tuple[str, ...]
    """of the variates, or of the series of a panel"""
    time: pd.DatetimeIndex | None
    series: tuple[Series, ...]
    """empty where they share their times"""


def layout_of(frame: pd.DataFrame, *, reading: Reading) -> Layout | None:
    """What the columns of a long table are; None where the table is wide.

    A table is long where a column names series, and a time stands at most once for each of them.
    """
    frame = frame.drop(columns=[name for name in reading.ignore if name in frame.columns])
    names = [str(name) for name in frame.columns]
    frame = frame.set_axis(names, axis=1)
    if len(set(names)) < len(names) or len(names) < 3 or reading.time == columns.NO_TIME:
        return None
    ids = [name for name in names if name.strip().lower() in IDS]
    keys = ids or [name for name in names if _names_series(frame[name])]
    time = _time_of(frame, keys, reading=reading)
    if time is None or not keys or time in keys:
        return None
    if not ids:
        if not frame[time].duplicated().any():
            return None
        keys = _needed(frame, keys, time)
        if not keys:
            return None
    rest = tuple(name for name in names if name not in (*keys, time))
    return Layout(tuple(keys), time, rest) if rest else None


def _names_series(column: pd.Series) -> bool:
    """Whether a column may name series: text that is no time and no number, or a usual name."""
    name = str(column.name).strip().lower()
    if name in KEYS or name.endswith(("_id", "_nbr", "_name", "_code")):
        return not columns.is_dated(column) and not types.is_float_dtype(column)
    if types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column):
        return False
    if columns.is_dated(column):
        return False
    first = str(next(iter(column.dropna()), "1")).strip()
    return not is_number(first) and columns.CLOCK.fullmatch(first) is None


def _time_of(frame: pd.DataFrame, keys: list[str], *, reading: Reading) -> str | None:
    if reading.time is not None:
        return reading.time if reading.time in frame.columns else None
    others = [name for name in frame.columns if name not in keys]
    lower = {name.strip().lower(): name for name in reversed(others)}
    for name in others:
        if columns.is_dated(frame[name]):
            return name
    return next((lower[name] for name in TIMES if name in lower), None)


def _needed(frame: pd.DataFrame, keys: list[str], time: str) -> list[str]:
    """The fewest of the keys, from the left, by which no time stands twice; none if it still does.

    A text that says the same of a series in every row (its unit, its kind) names nothing more.
    """
    for count in range(1, len(keys) + 1):
        if not frame.duplicated([*keys[:count], time]).any():
            return keys[:count]
    # Twice for a series is a mistake in it; a text beside a wide table's times is no series at all.
    few = frame.groupby(keys, sort=False, observed=True, dropna=False).ngroups * 2 <= len(frame)
    twice = frame.duplicated([*keys, time]).mean()
    return keys if few and twice < 0.5 and frame[time].duplicated().mean() > twice else []


def unstacked(
    frame: pd.DataFrame, layout: Layout, *, reading: Reading, decimal: str | None, label: str
) -> Rows:
    """The series of a long table, each in the order of its times.

    With several columns of values every one of them is a series, named `series/column`. Of times
    that merely count, those that are absent become rows of NaN here.

    Raises:
        DataError: a row without a series or a time; a time that stands twice for a series; a name
            of `Reading.columns` that is none of the series and none of the columns.
    """
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    code_N, names = _series_of(frame, layout, label=label)
    layout, wanted = _chosen(layout, names, reading=reading, label=label)
    at_N, time_N = _times_of(frame[layout.time], reading=reading, label=label)
    order_N = np.lexsort((at_N, code_N))
    code_N, at_N = code_N[order_N], at_N[order_N]
    _refuse_twice(code_N, at_N, order_N, names=names, layout=layout, label=label)
    if wanted is not None:
        place_S = np.full(len(names), -1)
        place_S[wanted] = np.arange(len(wanted))
        kept_N = np.flatnonzero(place_S[code_N] >= 0)
        kept_N = kept_N[np.argsort(place_S[code_N[kept_N]], kind="stable")]
        code_N, at_N, order_N = place_S[code_N[kept_N]], at_N[kept_N], order_N[kept_N]
        names = tuple(names[index] for index in wanted)
    values_NK = np.empty((len(order_N), len(layout.values)))
    for column, name in enumerate(layout.values):
        values_NK[:, column] = values.numbers(
            frame[name], decimal=decimal, reading=reading, label=f"{label}: column {name!r}"
        )[order_N]
    time = None if time_N is None else time_N[order_N]
    several = len(layout.values) > 1
    all_names = [
        f"{name}{APART}{column}" if several else name for column in layout.values for name in names
    ]
    if (shared := _shared_rows(code_N, at_N, counted=time is None)) is not None:
        row_N, rows = shared
        return _side_by_side(values_NK, code_N, row_N, rows=rows, names=all_names, time=time)
    return _panel(values_NK, code_N, at_N, names=all_names, time=time, label=label)


def _series_of(
    frame: pd.DataFrame, layout: Layout, *, label: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Of each row the number of its series, int64 [N], and the series' names as they first come."""
    for name in layout.ids:
        if (bad := np.flatnonzero(frame[name].isna())).size:
            raise DataError(
                f"{label}: column {name!r}, row {bad[0] + 1} names no series; write its name, or "
                "remove the row"
            )
    code_N, found = pd.factorize(frame[layout.ids[0]])
    names = [str(name) for name in found]
    for name in layout.ids[1:]:
        more_N, others = pd.factorize(frame[name])
        code_N, both = pd.factorize(np.asarray(code_N * len(others) + more_N))
        names = [
            f"{names[pair // len(others)]}{APART}{others[pair % len(others)]}"
            for pair in both.tolist()
        ]
    return code_N.astype(np.int64), tuple(names)


def _chosen(
    layout: Layout, names: tuple[str, ...], *, reading: Reading, label: str
) -> tuple[Layout, np.ndarray | None]:
    """The layout of what is wanted, and the numbers of the series that are; None for all."""
    wanted = reading.columns
    if wanted is None:
        return layout, None
    if set(wanted) <= set(layout.values):
        return layout._replace(values=tuple(wanted)), None
    number = {name: index for index, name in enumerate(names)}
    for name in wanted:
        if name not in number:
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise DataError(
                f"{label}: --columns names {name!r}, which is no series of column "
                f"{APART.join(layout.ids)!r}; it has {some}"
            )
    return layout, np.array([number[name] for name in wanted])


def _times_of(
    column: pd.Series, *, reading: Reading, label: str
) -> tuple[np.ndarray, pd.DatetimeIndex | None]:
    """By what rows are ordered, int64 [N], and the times; None where the column merely counts."""
    place = f"{label}: column {str(column.name)!r}"
    if (bad := np.flatnonzero(column.isna())).size:
        raise DataError(f"{place}, row {bad[0] + 1} has no time; write it, or remove the row")
    sort = types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column)
    # Most series have the same times: each is read once.
    code_N, found = pd.factorize(column, sort=sort)
    once = pd.Series(found, name=column.name)
    time = stamps(once, reading=reading, label=place)
    if time is not None:
        return instants(time).astype(np.int64)[code_N], time[code_N]
    count = pd.to_numeric(once, errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(count).any() or (count % 1).any():
        raise DataError(
            f"{place} is neither a time nor a count (such as {once.iloc[0]!r}); name the time "
            "with --time"
        )
    return count.astype(np.int64)[code_N], None


def _refuse_twice(
    code_N: np.ndarray,
    at_N: np.ndarray,
    order_N: np.ndarray,
    *,
    names: tuple[str, ...],
    layout: Layout,
    label: str,
) -> None:
    twice = np.flatnonzero((np.diff(code_N) == 0) & (np.diff(at_N) == 0))
    if twice.size:
        one, other = sorted(int(row) + 1 for row in order_N[twice[0] : twice[0] + 2])
        raise DataError(
            f"{label}: rows {one} and {other} are both series {names[code_N[twice[0]]]!r} at the "
            f"same time (columns {', '.join(layout.ids)} and {layout.time}); keep one of them"
        )


def _bounds(code_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and end of each series, where rows are in their order."""
    first_S = np.flatnonzero(np.diff(code_N, prepend=-1))
    return first_S, np.append(first_S[1:], len(code_N))


def _shared_rows(
    code_N: np.ndarray, at_N: np.ndarray, *, counted: bool
) -> tuple[np.ndarray, int] | None:
    """Row of each cell in a table side by side, and its rows; None where extents differ."""
    first_S, end_S = _bounds(code_N)
    if counted:
        row_N, rows = at_N - at_N.min(), int(np.ptp(at_N)) + 1
    else:
        grid, row_N = np.unique(at_N, return_inverse=True)
        rows = len(grid)
    whole_S = (row_N[first_S] == 0) & (row_N[end_S - 1] == rows - 1)
    # Where most cells would be holes they are no one table.
    together = bool(whole_S.all()) and rows * len(first_S) <= SPARSE * len(at_N)
    return (row_N, rows) if together else None


def _side_by_side(
    values_NK: np.ndarray,
    code_N: np.ndarray,
    row_N: np.ndarray,
    *,
    rows: int,
    names: list[str],
    time: pd.DatetimeIndex | None,
) -> Rows:
    """All series of the first column of values come first."""
    each = int(code_N[-1]) + 1
    values_TC = np.full((rows, len(names)), np.nan)
    for column, values_N in enumerate(values_NK.T):
        values_TC[row_N, code_N + column * each] = values_N
    if time is not None:
        place_T = np.zeros(rows, dtype=np.int64)
        place_T[row_N] = np.arange(len(row_N))
        time = time[place_T]
    return Rows(values_TC, tuple(names), time, ())


def _panel(
    values_NK: np.ndarray,
    code_N: np.ndarray,
    at_N: np.ndarray,
    *,
    names: list[str],
    time: pd.DatetimeIndex | None,
    label: str,
) -> Rows:
    """One series below the other, those of the first column of values first."""
    first_S, end_S = _bounds(code_N)
    if time is None:
        values_NK, first_S, end_S = _counted(values_NK, at_N, first_S, end_S, names, label=label)
    rows, count = values_NK.shape
    firsts, ends = (
        (np.arange(count)[:, None] * rows + edge_S).ravel().tolist() for edge_S in (first_S, end_S)
    )
    series = tuple(map(Series, names, firsts, ends))
    if time is not None and count > 1:
        time = time[np.tile(np.arange(rows), count)]
    return Rows(values_NK.T.reshape(-1, 1), tuple(names), time, series)


def _counted(
    values_NK: np.ndarray,
    at_N: np.ndarray,
    first_S: np.ndarray,
    end_S: np.ndarray,
    names: list[str],
    *,
    label: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and bounds of the series, with a row of NaN for every count that is absent."""
    long_S = at_N[end_S - 1] - at_N[first_S] + 1
    if long_S.sum() > STRETCH * len(at_N) + 1000:
        worst = int(np.argmax(long_S - (end_S - first_S)))
        raise DataError(
            f"{label}: series {names[worst]!r} counts {long_S[worst]:,} steps in "
            f"{end_S[worst] - first_S[worst]} rows; correct its times, or write them as dates"
        )
    begin_S = np.cumsum(long_S) - long_S
    row_N = at_N + np.repeat(begin_S - at_N[first_S], end_S - first_S)
    full_TK = np.full((int(long_S.sum()), values_NK.shape[1]), np.nan)
    full_TK[row_N] = values_NK
    return full_TK, begin_S, begin_S + long_S
