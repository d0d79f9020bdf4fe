"""Data sets by name or by path: parsed once, then memory-mapped, scaled and cut into windows.

    ettm = load("ETTm1")                              a public data set, from $FOREDRAFT_DATA
    ours = load("load.csv", missing="interpolate")    CSV or Parquet, one column per variate
    made = load("synthetic-load:rows=2000,seed=3")    needs no file
    windows = made.windows("train", context=672, horizon=96)
    x_BLC = windows.batch(torch.randint(len(windows), (32,)))

    foredraft data list
    foredraft data fetch ETTh1
    foredraft data check load.csv

Shapes: B batch, T rows (time steps) of a data set, L time steps of a window, C variates, V variates
drawn, W windows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foredraft.data import store
from foredraft.data.generators import GENERATORS
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import (
    DATASETS,
    Published,
    catalogue,
    data_folder,
    describe,
    fetch,
    locate,
    verified,
)
from foredraft.data.tables import (
    DataError,
    MissingCells,
    Table,
    first_missing,
    interpolated,
    read,
    refuse_disorder,
    refuse_missing,
)
from foredraft.data.windows import Windows
from foredraft.files import is_complete

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Missing",
    "MissingCells",
    "Reading",
    "Windows",
    "catalogue",
    "check",
    "data_folder",
    "describe",
    "fetch",
    "load",
]

VERSION = 2
"""Of all that is made of a file: its parsed form, splits, scaler and windows. Raise it when one of
them comes out differently: the cache is then made again, and so is every model."""
AS_FOUND = Reading()
DEFAULT_SPLITS = (0.7, 0.2)  # train and test; validation is the rest between them, as in OpenLTM


@dataclass(frozen=True, eq=False)
class Dataset:
    """One multivariate series, its splits and the scale of its training split.

    To send one to another process, send its source and load it there: the cache makes that cheap.
    """

    name: str
    """registry name or file stem"""
    values_TC: np.ndarray
    """float32, memory-mapped read-only, in the file's own units"""
    variates: tuple[str, ...]
    time: pd.DatetimeIndex | None
    digest: str
    """SHA-256 of the source file, or of a generator's name, parameters and version"""
    splits: dict[str, tuple[int, int]]
    """train, validation and test as half-open ranges of rows"""
    mean_C: np.ndarray
    """float64, of the training split"""
    deviation_C: np.ndarray
    """float64, population deviation of the training split; 1 where a variate is constant there"""
    filled: int
    """missing cells filled by interpolation"""
    folder: Path = field(repr=False)
    """where the parsed form is cached"""

    @property
    def step(self) -> str | None:
        """The commonest time between two rows, such as 'h' or '15min'; None without times."""
        step: str | None = _rhythm(self.time)["frequency"]
        return step

    def standardised(self) -> Tensor:
        """float32 [T, C], (values - mean) / deviation; computed once, then memory-mapped."""
        path = self.folder / f"standardised-{store.range_name(self.splits['train'])}.npy"
        if not path.is_file():
            store.standardise(
                self.values_TC, mean_C=self.mean_C, deviation_C=self.deviation_C, path=path
            )
        return store.mapped(path)

    def windows(self, split: str, *, context: int, horizon: int, stride: int = 1) -> Windows:
        """Every `stride`-th window whose forecast lies in the split, none left out.

        As in Informer and OpenLTM: a training window lies wholly in its split; the context of a
        validation or test window may reach back into the rows before it.

        Raises:
            DataError: the split is too short for one window, or a number makes no sense.
        """
        if split not in self.splits:
            raise DataError(f"split {split!r} is none of {', '.join(self.splits)}")
        for name, value in (("context", context), ("horizon", horizon), ("stride", stride)):
            if value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        first, end = self.splits[split]
        # A context before row 0 does not exist: only a context longer than the training split.
        start = max(0, first if split == "train" else first - context)
        last = end - context - horizon
        if last < start:
            raise DataError(
                f"{self.name}: {split} has {end - first} rows (from row {first}), too few for one "
                f"window of context {context} + horizon {horizon}; shorten one of them"
            )
        starts_W = torch.arange(start, last + 1, stride)
        return Windows(self.standardised(), starts_W, context + horizon)


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
            `synthetic-load:rows=2000,seed=3`; or a path to .csv, .parquet or headerless .txt.
        missing: what to do about missing cells: refuse, or interpolate linearly in time.
        reading: how the table is to be read, where that is not found in the file.
        splits: fractions of train and test in time order, validation between them. By default
            the published split of the benchmark (a path with its file's name and number of rows
            counts too), else 70/10/20.

    Raises:
        DataError: one line that names the file, the value and the remedy.
    """
    if missing not in get_args(Missing):
        raise DataError(f"missing is {missing!r}; use one of {', '.join(get_args(Missing))}")
    name, _, settings = source.partition(":")
    if name in GENERATORS:
        return _generated(name, settings=settings, splits=splits)
    path, entry = locate(source)
    content = verified(path, entry=entry)
    kind = path.suffix[1:].lower()
    folder = store.folder_of(content, kind, missing=missing, reading=reading, version=VERSION)
    if not is_complete(folder):
        store.keep(_parse(path, missing=missing, reading=reading), folder=folder)
    table = store.kept(folder)
    name = source if entry else path.stem
    entry = _matching(table, entry=entry, path=path)
    ranges = _split(len(table.values_TC), fractions=splits, entry=entry, label=str(path))
    return _dataset(table, name=name, digest=content, splits=ranges, folder=folder)


def check(source: str | Path) -> dict[str, Any]:
    """What a file (or a named data set's file) holds, as a JSON-able report.

    Missing cells are counted here, not refused; `gaps` counts steps longer than the usual one.

    Raises:
        DataError: what would stop `load` even with `missing="interpolate"`.
    """
    path, entry = locate(str(source))
    content = verified(path, entry=entry)
    table = read(path)
    entry = _matching(table, entry=entry, path=path)
    filled = interpolated(table, path=path)
    constant_C = filled.values_TC.min(axis=0) == filled.values_TC.max(axis=0)
    place = first_missing(table)
    ranges = _split(len(table.values_TC), fractions=None, entry=entry, label=str(path))
    return {
        "file": str(path),
        "digest": content,
        "rows": len(table.values_TC),
        "variates": len(table.variates),
        **_rhythm(table.time),
        "missing": filled.filled,
        "first_missing": {"column": place[0], "row": place[1]} if place else None,
        "constant": [table.variates[i] for i in np.flatnonzero(constant_C)],
        "splits": {split: end - start for split, (start, end) in ranges.items()},
    }


def _matching(table: Table, *, entry: Published | None, path: Path) -> Published | None:
    """What is published about the table; raises if it was asked for by name and differs.

    Also raises where time does not advance. A path to a benchmark's own file counts as published,
    so that its split, and with it every figure, does not hang on how the file was named.
    """
    by_name = entry is not None
    entry = entry or next((e for e in DATASETS.values() if e.file == path.name), None)
    if entry and table.values_TC.shape != (entry.rows, entry.variates):
        if by_name:
            rows, variates = table.values_TC.shape
            raise DataError(
                f"{path} has {rows} rows of {variates} variates, published are {entry.rows} of "
                f"{entry.variates}; replace it, or give its path to use it as it is"
            )
        entry = None
    if table.time is not None and not (entry and entry.disordered):
        refuse_disorder(table.time, path=path)
    return entry


def _split(
    rows: int, *, fractions: tuple[float, float] | None, entry: Published | None, label: str
) -> dict[str, tuple[int, int]]:
    if fractions is None and entry and entry.split_rows:
        train, validation, test = entry.split_rows
    else:
        for_train, for_test = fractions or DEFAULT_SPLITS
        if not (for_train > 0 and for_test >= 0 and for_train + for_test <= 1 + 1e-9):
            raise DataError(
                f"splits are {for_train} for train and {for_test} for test; they must be fractions "
                "of at most 1 in sum, train above 0"
            )
        train, test = int(for_train * rows), int(for_test * rows)
        validation = rows - train - test
    if train == 0:
        raise DataError(f"{label} has {rows} rows, which leaves none to train on; add rows")
    return {
        "train": (0, train),
        "validation": (train, train + validation),
        "test": (train + validation, train + validation + test),
    }


def _parse(path: Path, *, missing: Missing, reading: Reading) -> Table:
    table = read(path)
    if missing == "interpolate":
        return interpolated(table, path=path)
    refuse_missing(table, path=path)
    return table


def _generated(name: str, *, settings: str, splits: tuple[float, float] | None) -> Dataset:
    generator = GENERATORS[name]
    parameters = generator.parameters | _parameters(name, settings=settings)
    identity = json.dumps([name, generator.version, parameters], sort_keys=True)
    content = hashlib.sha256(identity.encode()).hexdigest()
    folder = store.parsed(f"{content[:16]}-{name}-{VERSION}")
    if not is_complete(folder):
        made = generator.make(**parameters)
        store.keep(Table(made.values_TC, made.variates, made.time), folder=folder)
    table = store.kept(folder)
    ranges = _split(len(table.values_TC), fractions=splits, entry=None, label=name)
    return _dataset(table, name=name, digest=content, splits=ranges, folder=folder)


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
    table: Table, *, name: str, digest: str, splits: dict[str, tuple[int, int]], folder: Path
) -> Dataset:
    mean_C, deviation_C = store.moments(table.values_TC, rows=splits["train"], folder=folder)
    return Dataset(
        name=name,
        values_TC=table.values_TC,
        variates=table.variates,
        time=table.time,
        digest=digest,
        splits=splits,
        mean_C=mean_C,
        deviation_C=deviation_C,
        filled=table.filled,
        folder=folder,
    )


def _rhythm(time: pd.DatetimeIndex | None) -> dict[str, Any]:
    """First and last time, the commonest step, and how many steps are longer than it."""
    if time is None or len(time) < 2:
        return {"start": None, "end": None, "frequency": None, "gaps": None}
    steps, counts = np.unique(np.diff(time.to_numpy()), return_counts=True)
    usual = pd.Timedelta(steps[counts.argmax()])
    return {
        "start": str(time[0]),
        "end": str(time[-1]),
        "frequency": pd.tseries.frequencies.to_offset(usual).freqstr,
        "gaps": int(counts[steps > steps[counts.argmax()]].sum()),
    }
