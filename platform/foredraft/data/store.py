"""The parsed form of a data set, kept in the user's cache and memory-mapped ever after.

    folder = folder_of(digest, "csv", missing="refuse", reading=Reading(), version=2)
    if not is_complete(folder):
        keep(table, folder=folder)
    table = kept(folder)

Shapes: T rows (time steps), C variates.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import cache_folder
from foredraft.data.tables import DataError, Table
from foredraft.files import atomic_directory, atomic_file, atomic_write

LAYOUT = 3
"""Of the files of a folder. Raise it when they are laid out or filled otherwise; models, whose keys
hold `foredraft.data.VERSION`, do not depend on it."""
CHUNK_CELLS = 2**22  # 16 MiB of float32 at a time where a whole data set is passed over


def folder_of(digest: str, kind: str, *, missing: Missing, reading: Reading, version: int) -> Path:
    """Where the parsed form of a file is kept: another one for each way of reading it."""
    said = reading.model_dump_json(exclude_defaults=True)
    how = "" if said == "{}" else "-" + hashlib.sha256(said.encode()).hexdigest()[:8]
    return parsed(f"{digest[:16]}-{kind}-{missing}{how}-{version}")


def parsed(key: str) -> Path:
    """The folder of that key among those of this layout."""
    return cache_folder() / "parsed" / f"{key}.{LAYOUT}"


def keep(table: Table, *, folder: Path) -> None:
    """Nothing; writes the parsed table to the cache, whole or not at all."""
    with writing(folder), atomic_directory(folder) as part:
        np.save(part / "values.npy", table.values_TC.astype(np.float32, order="C", copy=False))
        if table.time is not None:
            np.save(part / "time.npy", table.time.to_numpy())
        meta = {"variates": table.variates, "filled": table.filled}
        atomic_write(part / "meta.json", json.dumps(meta))


def kept(folder: Path) -> Table:
    """The table that `keep` wrote, its values memory-mapped read-only."""
    meta = json.loads((folder / "meta.json").read_text())
    stamps = folder / "time.npy"
    time = pd.DatetimeIndex(np.load(stamps)) if stamps.is_file() else None
    values_TC = np.load(folder / "values.npy", mmap_mode="r")
    return Table(values_TC, tuple(meta["variates"]), time, meta["filled"])


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A block that writes to the cache: what stops it is told with the remedy."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the cache {folder} cannot be written ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a folder with room that can"
        ) from error


def moments(
    values_TC: np.ndarray, *, rows: tuple[int, int], folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of those rows, kept beside the values once computed."""
    path = folder / f"moments-{range_name(rows)}.npy"
    if not path.is_file():
        chunks = list(chunks_of(values_TC, *rows))
        count = rows[1] - rows[0]
        mean_C = sum(values_TC[c].sum(axis=0, dtype=np.float64) for c in chunks) / count
        square_C = sum(((values_TC[c] - mean_C) ** 2).sum(axis=0) for c in chunks) / count
        low_C = np.min([values_TC[c].min(axis=0) for c in chunks], axis=0)
        high_C = np.max([values_TC[c].max(axis=0) for c in chunks], axis=0)
        # Not by deviation == 0: the mean of equal numbers may differ from them in the last bit.
        deviation_C = np.where(low_C == high_C, 1.0, np.sqrt(square_C))
        buffer = io.BytesIO()
        np.save(buffer, np.stack([mean_C, deviation_C]))
        with writing(folder):
            atomic_write(path, buffer.getvalue())
    mean_C, deviation_C = np.load(path)
    return mean_C, deviation_C


def standardise(
    values_TC: np.ndarray, *, mean_C: np.ndarray, deviation_C: np.ndarray, path: Path
) -> None:
    """Nothing; writes (values - mean) / deviation as float32."""
    header = {"descr": "<f4", "fortran_order": False, "shape": values_TC.shape}
    # Not through a writable map: on a full disk that ends in a bus error.
    with writing(path.parent), atomic_file(path) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for rows in chunks_of(values_TC, 0, len(values_TC)):
            scaled_TC = (values_TC[rows] - mean_C) / deviation_C
            file.write(scaled_TC.astype("<f4").tobytes())


def mapped(path: Path) -> Tensor:
    """The array of a .npy file as a tensor that is mapped, and not to be written to."""
    values = np.load(path, mmap_mode="r")
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns. A private, writable map would be quieter,
        # but Linux refuses one that is larger than memory.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)


def chunks_of(values_TC: np.ndarray, first: int, end: int) -> Iterator[slice]:
    """The rows from `first` to `end` in slices of about `CHUNK_CELLS`."""
    step = max(1, CHUNK_CELLS // values_TC.shape[1])
    for start in range(first, end, step):
        yield slice(start, min(start + step, end))


def range_name(rows: tuple[int, int]) -> str:
    """A range of rows as part of a file's name."""
    return f"{rows[0]}-{rows[1]}"
