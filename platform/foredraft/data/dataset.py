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

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foredraft.data.errors import DataError, MissingCells
from foredraft.data.generators import GENERATORS
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import (
    DATASETS,
    Published,
    cache_folder,
    catalogue,
    data_folder,
    describe,
    fetch,
    locate,
    verified,
)
from foredraft.data.steps import Step, gaps, infer, instants
from foredraft.data.tables import (
    Table,
    first_missing,
    interpolated,
    read,
    refuse_disorder,
    refuse_missing,
)
from foredraft.files import atomic_directory, atomic_file, atomic_write, is_complete

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "MissingCells",
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
DEFAULT = Reading()
DEFAULT_SPLITS = (0.7, 0.2)  # train and test; validation is the rest between them, as in OpenLTM
CHUNK_CELLS = 2**22  # 16 MiB of float32 at a time where a whole data set is passed over


@dataclass(frozen=True)
class Windows:
    """Windows of context and forecast over one split; they share the data set's values."""

    values_TC: Tensor
    """standardised; memory-mapped"""
    starts_W: Tensor
    """int64, first row of each window"""
    length: int
    """context + horizon"""

    def __len__(self) -> int:
        return len(self.starts_W)

    def batch(self, index_B: Tensor, *, variates: Tensor | None = None) -> Tensor:
        """Windows [B, L, C] in the order of the index.

        With `variates`, int64 [B, V], each window keeps only the variates drawn for it: [B, L, V].
        """
        steps_L = torch.arange(self.length, device=self.starts_W.device)
        rows_BL = self.starts_W[index_B][:, None] + steps_L
        if variates is None:
            # Not values_TC[rows_BL]: 12 ms instead of 0.06 ms on a CPU for 32 windows of 768 x 24.
            return self.values_TC.index_select(0, rows_BL.flatten()).unflatten(0, rows_BL.shape)
        return self.values_TC[rows_BL[:, :, None], variates[:, None, :]]


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
    filled_TC: np.ndarray | None = field(default=None, repr=False)
    """bool, the cells that were missing; None where none was"""

    @property
    def step(self) -> Step | None:
        """Between two rows; None without times, or where they keep none."""
        return None if self.time is None else infer(self.time)

    def rows(self, first: int, end: int) -> np.ndarray:
        """float64 [n, C], in the data's own units."""
        return self.values_TC[first:end].astype(np.float64)

    def standardised(self) -> Tensor:
        """float32 [T, C], (values - mean) / deviation; computed once, then memory-mapped."""
        path = self.folder / f"standardised-{_range_name(self.splits['train'])}.npy"
        if not path.is_file():
            with _writing(self.folder):
                self._standardise(path)
        values_TC = np.load(path, mmap_mode="r")
        with warnings.catch_warnings():
            # torch has no read-only tensors and warns. A private, writable map would be quieter,
            # but Linux refuses one that is larger than memory.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(values_TC)

    def _standardise(self, path: Path) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": self.values_TC.shape}
        # Not through a writable map: on a full disk that ends in a bus error.
        with atomic_file(path) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for rows in _chunks(self.values_TC, 0, len(self.values_TC)):
                scaled_TC = (self.values_TC[rows] - self.mean_C) / self.deviation_C
                file.write(scaled_TC.astype("<f4").tobytes())

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
    reading: Reading = DEFAULT,
    splits: tuple[float, float] | None = None,
) -> Dataset:
    """The data set of that name, or in that file; parsed at the first call, mapped ever after.

    Args:
        source: a name in `DATASETS`; a generator as `synthetic-load` or
            `synthetic-load:rows=2000,seed=3`; or a path to .csv, .parquet or headerless .txt.
        missing: what to do about missing cells: refuse, or interpolate linearly in time.
        reading: how the file is to be read, where it does not tell it itself.
        splits: fractions of train and test in time order, validation between them. By default
            the published split of the benchmark (a path with its file's name and number of rows
            counts too), else 70/10/20.

    Raises:
        DataError: one line that names the file, the value and the remedy.
    """
    if missing not in ("refuse", "interpolate"):
        raise DataError(f"missing is {missing!r}; use refuse or interpolate")
    name, _, settings = source.partition(":")
    if name in GENERATORS:
        return _generated(name, settings=settings, splits=splits)
    path, entry = locate(source)
    content = verified(path, entry=entry)
    key = f"{content[:16]}-{path.suffix[1:].lower()}-{missing}-{VERSION}"
    if reading != DEFAULT:
        key += f"-{hashlib.sha256(reading.model_dump_json().encode()).hexdigest()[:16]}"
    folder = cache_folder() / "parsed" / key
    if not is_complete(folder):
        _keep(_parse(path, missing=missing, reading=reading), folder=folder)
    table = _kept(folder)
    name = source if entry else path.stem
    entry = _matching(table, entry=entry, path=path)
    ranges = _split(len(table.values_TC), fractions=splits, entry=entry, label=str(path))
    return _dataset(table, name=name, digest=content, splits=ranges, folder=folder)


def check(source: str | Path, *, reading: Reading = DEFAULT) -> dict[str, Any]:
    """What a file (or a named data set's file) holds, as a JSON-able report.

    Missing cells are counted here, not refused; `gaps` counts steps longer than the usual one.

    Raises:
        DataError: what would stop `load` even with `missing="interpolate"`.
    """
    path, entry = locate(str(source))
    content = verified(path, entry=entry)
    table = read(path, reading=reading)
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
    table = read(path, reading=reading)
    if missing == "interpolate":
        return interpolated(table, path=path)
    refuse_missing(table, path=path)
    return table


def _generated(name: str, *, settings: str, splits: tuple[float, float] | None) -> Dataset:
    generator = GENERATORS[name]
    parameters = generator.parameters | _parameters(name, settings=settings)
    identity = json.dumps([name, generator.version, parameters], sort_keys=True)
    content = hashlib.sha256(identity.encode()).hexdigest()
    folder = cache_folder() / "parsed" / f"{content[:16]}-{name}-{VERSION}"
    if not is_complete(folder):
        made = generator.make(**parameters)
        _keep(Table(made.values_TC, made.variates, made.time), folder=folder)
    table = _kept(folder)
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


def _keep(table: Table, *, folder: Path) -> None:
    """Nothing; writes the parsed table to the cache, whole or not at all."""
    with _writing(folder), atomic_directory(folder) as part:
        np.save(part / "values.npy", table.values_TC.astype(np.float32, order="C"))
        if table.time is not None:
            np.save(part / "time.npy", instants(table.time))
        zone = None if table.time is None or table.time.tz is None else str(table.time.tz)
        meta = {"variates": table.variates, "filled": table.filled, "zone": zone}
        atomic_write(part / "meta.json", json.dumps(meta))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the cache {folder} cannot be written ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a folder with room that can"
        ) from error


def _kept(folder: Path) -> Table:
    meta = json.loads((folder / "meta.json").read_text())
    stamps = folder / "time.npy"
    time = pd.DatetimeIndex(np.load(stamps)) if stamps.is_file() else None
    if time is not None and (zone := meta.get("zone")):
        time = time.tz_localize("UTC").tz_convert(zone)
    values_TC = np.load(folder / "values.npy", mmap_mode="r")
    return Table(values_TC, tuple(meta["variates"]), time, filled=meta["filled"])


def _dataset(
    table: Table, *, name: str, digest: str, splits: dict[str, tuple[int, int]], folder: Path
) -> Dataset:
    mean_C, deviation_C = _moments(table.values_TC, rows=splits["train"], folder=folder)
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


def _moments(
    values_TC: np.ndarray, *, rows: tuple[int, int], folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of those rows, kept beside the values once computed."""
    path = folder / f"moments-{_range_name(rows)}.npy"
    if not path.is_file():
        chunks = list(_chunks(values_TC, *rows))
        count = rows[1] - rows[0]
        mean_C = sum(values_TC[c].sum(axis=0, dtype=np.float64) for c in chunks) / count
        square_C = sum(((values_TC[c] - mean_C) ** 2).sum(axis=0) for c in chunks) / count
        low_C = np.min([values_TC[c].min(axis=0) for c in chunks], axis=0)
        high_C = np.max([values_TC[c].max(axis=0) for c in chunks], axis=0)
        # Not by deviation == 0: the mean of equal numbers may differ from them in the last bit.
        deviation_C = np.where(low_C == high_C, 1.0, np.sqrt(square_C))
        buffer = io.BytesIO()
        np.save(buffer, np.stack([mean_C, deviation_C]))
        with _writing(folder):
            atomic_write(path, buffer.getvalue())
    mean_C, deviation_C = np.load(path)
    return mean_C, deviation_C


def _chunks(values_TC: np.ndarray, first: int, end: int) -> Iterator[slice]:
    step = max(1, CHUNK_CELLS // values_TC.shape[1])
    for start in range(first, end, step):
        yield slice(start, min(start + step, end))


def _range_name(rows: tuple[int, int]) -> str:
    return f"{rows[0]}-{rows[1]}"


def _rhythm(time: pd.DatetimeIndex | None) -> dict[str, Any]:
    """First and last time, the step, and how often rows are absent."""
    if time is None or len(time) < 2:
        return {"start": None, "end": None, "frequency": None, "gaps": None}
    step = infer(time)
    return {
        "start": str(time[0]),
        "end": str(time[-1]),
        "frequency": step and step.name,
        "gaps": None if step is None else len(gaps(time, step)),
    }
