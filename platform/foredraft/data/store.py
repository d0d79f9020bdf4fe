"""The parsed form of a data set, kept in the user's cache and memory-mapped ever after.

    folder = folder_of(digest, "csv", missing="refuse", reading=Reading(), version=2)
    if not is_complete(folder):
        keep(table, folder=folder)
    table = kept(folder)

Shapes: T rows (time steps), C variates, S series of a panel, one below the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foredraft.data.errors import DataError
from foredraft.data.reading import Missing, Reading
from foredraft.data.tables.long import Series
from foredraft.data.tables.table import Table
from foredraft.data.time.steps import Step, instants
from foredraft.files import atomic_directory, atomic_write, cache_folder

LAYOUT = 3
"""Of the files of a folder. Raise it when they are laid out or filled otherwise; models, whose keys
hold `foredraft.data.VERSION`, do not depend on it."""


def folder_of(digest: str, kind: str, *, missing: Missing, reading: Reading, version: int) -> Path:
    """Where the parsed form of a file is kept: another one for each way of reading it."""
    return parsed(f"{digest[:16]}-{kind}-{missing}{way(reading)}-{version}")


def parsed(key: str) -> Path:
    """The folder of that key among those of this layout."""
    return cache_folder() / "parsed" / f"{key}.{LAYOUT}"


def way(reading: Reading) -> str:
    """What tells this way of reading from others; empty where nothing was said."""
    said = reading.model_dump_json(exclude_defaults=True)
    return "" if said == "{}" else "-" + hashlib.sha256(said.encode()).hexdigest()[:8]


def keep(table: Table, *, folder: Path) -> None:
    """Nothing; writes the settled table to the cache, whole or not at all."""
    time, bounds = table.time, [(one.first, one.end) for one in table.series]
    arrays = {
        "values": table.values_TC.astype(np.float32, order="C", copy=False),
        "time": None if time is None else instants(time),
        "level": table.level_C if table.level_C is not None and table.level_C.any() else None,
        "filled": table.filled_TC,
        "hole": _hole_T(table),
        "bounds": np.array(bounds) if bounds else None,
    }
    meta = {
        "variates": table.variates,
        "step": None if table.step is None else table.step.name,
        "zone": None if time is None or time.tz is None else str(time.tz),
        "filled": table.filled,
        "absent": table.absent,
    }
    with writing(folder), atomic_directory(folder) as part:
        for name, array in arrays.items():
            if array is not None:
                np.save(part / f"{name}.npy", array)
        atomic_write(part / "meta.json", json.dumps(meta))


def _hole_T(table: Table) -> np.ndarray | None:
    """Rows of which a cell is missing still; None where there are none."""
    if table.filled_TC is not None:
        return None
    hole_T = np.isnan(table.values_TC).any(axis=1)
    return hole_T if hole_T.any() else None


def kept(folder: Path) -> Table:
    """The table that `keep` wrote, its values memory-mapped read-only."""
    meta = json.loads((folder / "meta.json").read_text())
    level_C, bounds, stamps = (array(folder, name) for name in ("level", "bounds", "time"))
    time = None if stamps is None else pd.DatetimeIndex(stamps)
    if time is not None and meta["zone"] is not None:
        time = time.tz_localize("UTC").tz_convert(meta["zone"])
    names = tuple(meta["variates"])
    values_TC = array(folder, "values")
    assert values_TC is not None
    return Table(
        values_TC=values_TC,
        variates=names,
        time=time,
        step=None if meta["step"] is None else Step(meta["step"]),
        level_C=None if level_C is None else np.array(level_C),
        filled=meta["filled"],
        filled_TC=array(folder, "filled"),
        absent=meta["absent"],
        series=() if bounds is None else tuple(map(Series, names, *bounds.T.tolist())),
    )


def array(folder: Path, name: str) -> np.ndarray | None:
    """An array of the folder, memory-mapped read-only; None where it holds none of that name."""
    path = folder / f"{name}.npy"
    return np.load(path, mmap_mode="r") if path.is_file() else None


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


def mapped(values: np.ndarray) -> Tensor:
    """A memory-mapped array as a tensor that is not to be written to."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns. A private, writable map would be quieter,
        # but Linux refuses one that is larger than memory.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
