"""Data sets by name or by path: parsed once, then memory-mapped, scaled and cut into windows."""

from foredraft.data.dataset import Dataset
from foredraft.data.errors import DataError, MissingCells
from foredraft.data.loading import VERSION, load
from foredraft.data.oddities import notes
from foredraft.data.quality import check
from foredraft.data.reading import Missing, Reading
from foredraft.data.registry import DATASETS, catalogue, data_folder, describe, fetch
from foredraft.data.windows import Windows

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
    "notes",
]
