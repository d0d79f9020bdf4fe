"""Data sets by name or by path: parsed once, then memory-mapped, scaled and cut into windows.

    ettm = load("ETTm1")                              a public data set, from $FOREDRAFT_DATA
    ours = load("load.csv", missing="interpolate")    CSV or Parquet, one column per variate
    many = load("m4.csv")                             or long: a row per series and time
    made = load("synthetic-load:rows=2000,seed=3")    needs no file
    windows = made.windows("train", context=672, horizon=96)
    x_BLC = windows.batch(torch.randint(len(windows), (32,)))

    foredraft data list
    foredraft data fetch ETTh1
    foredraft data check load.csv

Shapes: B batch, T rows (time steps) of a data set, L time steps of a window, C variates, S series
of a panel (1 where variates stand side by side).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from foredraft.data import holes, scale, store
from foredraft.data.dataset import Dataset
from foredraft.data.errors import DataError
from foredraft.data.generators import GENERATORS, Generated
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import DATASETS, Published, locate, verified
from foredraft.data.splits import split, with_a_scale
from foredraft.data.tables.columns import without_ignored
from foredraft.data.tables.table import Table, read
from foredraft.data.time.steps import infer
from foredraft.files import is_complete

VERSION = 2
"""Of all that is made of a file: its parsed form, splits, scaler and windows. Raise it when one of
them comes out differently: the cache is then made again, and so is every model."""
AS_FOUND = Reading()


def load(
    source: str,
    *,
    missing: Missing = "refuse",
    reading: Reading = AS_FOUND,
    splits: tuple[float, float] | None = None,
) -> Dataset:
    """The data set of that name, or in that file; parsed at the first call, mapped ever after.

    Args:
        source: a name in `DATASETS`; a generator as `synthetic-load` or
            `synthetic-load:rows=2000,seed=3`; or a path to a table: CSV and its cousins, Parquet,
            Arrow, with a column per variate or in long format.
        missing: what to do about missing cells and absent rows: refuse, skip (no window touches
            one), interpolate linearly in time, or fill from the neighbouring seasons.
        reading: how the table is to be read, where that is not found in the file; of a generator
            only its variates are chosen by it: what says how a file is written, as a stage may have
            it for a file beside, has nothing to say of what is none.
        splits: fractions of train and test in time order, validation between them. By default
            the published split of the benchmark (a path with its file's name and number of rows
            counts too), else 70/10/20; of a panel, of each series.

    Raises:
        DataError: one line that names the file, the value and the remedy.
    """
    if missing not in get_args(Missing):
        raise DataError(f"missing is {missing!r}; use one of {', '.join(get_args(Missing))}")
    name, _, settings = source.partition(":")
    if name in GENERATORS:
        return _generated(name, settings=settings, reading=reading, splits=splits)
    path, entry = locate(source)
    content = verified(path, entry=entry)
    kind = path.suffix[1:].lower() + ("-rows" if goes_by_rows(path, entry) else "")
    folder = store.folder_of(content, kind, missing=missing, reading=reading, version=VERSION)
    if not is_complete(folder):
        table = _parse(path, missing=missing, reading=reading, entry=entry)
        store.keep(table, folder=folder)
        del table
    table = store.kept(folder)
    published = matching(table, entry=entry, path=path, reading=reading)
    way = f"-{missing}" if table.filled or missing == "skip" else ""
    return _dataset(
        table,
        name=source if entry else path.stem,
        digest=content,
        identity=f"{content}{way}{store.way(reading)}",
        ranges=split(table, fractions=splits, entry=published, label=str(path)),
        folder=folder,
    )


def goes_by_rows(path: Path, entry: Published | None) -> bool:
    """Whether a published file of that name has times that are not to be trusted."""
    named = entry or next((e for e in DATASETS.values() if e.file == path.name), None)
    return named is not None and named.disordered


def _parse(path: Path, *, missing: Missing, reading: Reading, entry: Published | None) -> Table:
    table = read(path, reading=reading)
    found = matching(table, entry=entry, path=path, reading=reading)
    by_rows = found is not None and found.disordered
    return holes.settled(table, missing=missing, reading=reading, label=str(path), by_rows=by_rows)


def matching(
    table: Table, *, entry: Published | None, path: Path, reading: Reading
) -> Published | None:
    """What is published about the table; raises if it was asked for by name and differs.

    A path to a benchmark's own file counts as published, so that its split, and with it every
    figure, does not hang on how the file was named; and so do some of its columns.
    """
    by_name = entry is not None
    entry = entry or next((e for e in DATASETS.values() if e.file == path.name), None)
    rows, variates = table.values_TC.shape
    chosen = reading.columns is not None or bool(reading.ignore)
    if entry and not (rows == entry.rows and (chosen or variates == entry.variates)):
        if by_name:
            raise DataError(
                f"{path} has {rows} rows of {variates} variates, published are {entry.rows} of "
                f"{entry.variates}; replace it, or give its path to use it as it is"
            )
        entry = None
    return entry


def _generated(
    name: str, *, settings: str, reading: Reading, splits: tuple[float, float] | None
) -> Dataset:
    generator = GENERATORS[name]
    parameters = generator.parameters | _parameters(name, settings=settings)
    identity = json.dumps([name, generator.version, parameters], sort_keys=True)
    content = hashlib.sha256(identity.encode()).hexdigest()
    chosen = Reading(columns=reading.columns, ignore=reading.ignore)
    way = store.way(chosen)
    folder = store.parsed(f"{content[:16]}-{name}-{VERSION}{way}")
    if not is_complete(folder):
        table = _chosen(generator.make(**parameters), reading=chosen, label=name)
        store.keep(table, folder=folder)
    table = store.kept(folder)
    return _dataset(
        table,
        name=name,
        digest=content,
        identity=f"{content}{way}",
        ranges=split(table, fractions=splits, label=name),
        folder=folder,
    )


def _chosen(made: Generated, *, reading: Reading, label: str) -> Table:
    """The variates of what was generated that are asked for, in that order."""
    frame = pd.DataFrame(made.values_TC, columns=made.variates)
    left = without_ignored(frame, reading=reading, label=label)
    left = left if reading.columns is None else left[list(reading.columns)]
    if left.columns.empty:
        raise DataError(f"{label}: no variate is left; give some (--columns) or ignore fewer")
    return Table(left.to_numpy(), tuple(left.columns), made.time, infer(made.time))


def _parameters(name: str, *, settings: str) -> dict[str, int]:
    """`rows=2000,seed=3` as numbers, each a parameter of that generator."""
    known = GENERATORS[name].parameters
    found = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in known:
            raise DataError(f"{name} has no parameter {key!r}; it has {', '.join(known)}")
        least = 0 if key == "seed" else 1
        if not value.isdecimal() or int(value) < least:
            raise DataError(f"{name}: {key} is {value!r}; it must be a whole number from {least}")
        found[key] = int(value)
    return found


def _dataset(
    table: Table,
    *,
    name: str,
    digest: str,
    identity: str,
    ranges: dict[str, np.ndarray],
    folder: Path,
) -> Dataset:
    mean_C, deviation_C = scale.moments(
        table.values_TC, ranges_S2=ranges["train"], filled_TC=table.filled_TC, folder=folder
    )
    ranges, mean_C, deviation_C = with_a_scale(table, ranges, mean_C, deviation_C, name=name)
    level_C = np.zeros(len(table.variates)) if table.level_C is None else table.level_C
    return Dataset(
        name=name,
        values_TC=table.values_TC,
        variates=table.variates,
        time=table.time,
        step=table.step,
        digest=digest,
        identity=identity,
        ranges=ranges,
        mean_C=mean_C + level_C,
        deviation_C=deviation_C,
        level_C=level_C,
        filled=table.filled,
        filled_TC=table.filled_TC,
        absent=table.absent,
        hole_T=store.array(folder, "hole"),
        series=table.series,
        folder=folder,
    )
