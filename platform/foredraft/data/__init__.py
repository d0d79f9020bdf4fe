"""Data sets by name or by path: parsed once, then memory-mapped, scaled and cut into windows."""

from foredraft.data.dataset import (
    DATASETS,
    VERSION,
    DataError,
    Dataset,
    MissingCells,
    Reading,
    Windows,
    catalogue,
    check,
    data_folder,
    describe,
    fetch,
    load,
)
from foredraft.data.reading import Missing, Reading

__all__ = [
    "DATASETS",
    "VERSION",
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
