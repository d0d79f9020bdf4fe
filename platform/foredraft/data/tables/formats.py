"""From bytes to a frame of raw columns: CSV and its cousins, Parquet, Arrow, Feather.

What a text does not say of itself (separator, decimal sign, encoding, header, compression) is found
in its first lines and told in a `Found`; a `Reading` overrules it.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables.texts import Found, read_text

__all__ = ["FORMATS", "Found", "parts", "read"]

TEXTS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".psv")
COLUMNAR = (".parquet", ".pq", ".feather", ".arrow", ".ipc")
PACKED = (".gz", ".bz2", ".xz", ".zip")
FORMATS = (".csv", ".parquet", ".txt", ".tsv", ".feather", ".arrow")
"""those that are named to a person; each text may be packed by gzip, bzip2, xz or zip"""


def read(path: Path, *, reading: Reading | None = None) -> tuple[pd.DataFrame, Found]:
    """The raw columns of a file, or of a folder of parts, and what it was found to be.

    An index that pandas stored is the first column (each of its levels one), unless it merely
    numbers the rows and has no name.

    Raises:
        DataError: one line about what the file is instead, or where it breaks off.
    """
    reading = reading or Reading()
    try:
        if path.is_dir():
            return _whole(path), Found("parquet")
        with path.open("rb") as file:
            start = file.read(4)
        if not start:
            raise DataError(f"{path} is empty")
        suffix = _suffix(path, start=start)
        if suffix in COLUMNAR:
            return _columnar(path, start=start)
        return read_text(path, start=start, suffix=suffix, reading=reading)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in {error.encoding}; save it as UTF-8") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); get it anew") from error
    except OSError as error:
        if error.strerror is None:  # Arrow's own, or a packer's
            raise DataError(f"{path} is no readable {_kind(path)} file; write it anew") from error
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is no readable {_kind(path)} file; write it anew") from error


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def _suffix(path: Path, *, start: bytes) -> str:
    """The suffix below that of the packer; raises where name or bytes are of another kind."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        suffix = Path(path.stem).suffix.lower() or ".csv"
    for magic, (what, remedy) in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what}; {remedy}")
    if suffix not in TEXTS + COLUMNAR:
        raise DataError(
            f"{path}: suffix {path.suffix!r} is none of {', '.join(FORMATS)}; "
            "write the table as one of these"
        )
    return suffix


_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it and give what was in it"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "save the sheet as CSV"),
    b"\x89HDF": ("an HDF5 file", "write the table as Parquet or CSV"),
    b"CDF\x01": ("a netCDF file", "write the table as Parquet or CSV"),
    b"<htm": ("a page of HTML", "download the file itself"),
    b"<!DO": ("a page of HTML", "download the file itself"),
}


# Columnar files


def _columnar(path: Path, *, start: bytes) -> tuple[pd.DataFrame, Found]:
    if start == b"PAR1":
        return _plain(pyarrow.parquet.read_table(path, partitioning=None), path), Found("parquet")
    with pyarrow.memory_map(str(path)) as file:
        try:
            table = pyarrow.ipc.open_file(file).read_all()
        except pyarrow.ArrowInvalid:
            table = pyarrow.ipc.open_stream(file).read_all()
        return _plain(table, path), Found("arrow")


def is_table(path: Path) -> bool:
    """Whether a file is there, or a folder of Parquet files."""
    return path.is_file() or (path.is_dir() and bool(parts(path)))


def parts(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in the order of the numbers in their names."""
    found = [p for p in folder.rglob("*") if p.suffix in (".parquet", ".pq") and p.is_file()]
    return sorted(found, key=lambda p: _natural(str(p.relative_to(folder))))


def _whole(folder: Path) -> pd.DataFrame:
    """The table of a folder of Parquet files."""
    paths = parts(folder)
    if not paths:
        raise DataError(f"{folder} is a folder without Parquet files; give a file")
    if any("=" in part for p in paths for part in p.relative_to(folder).parts[:-1]):
        return _plain(pyarrow.parquet.read_table(folder), folder)
    tables = [pyarrow.parquet.read_table(part, partitioning=None) for part in paths]
    names = tables[0].column_names
    for part, table in zip(paths, tables, strict=True):
        if table.column_names != names:
            raise DataError(
                f"{part} has other columns than {paths[0].name}; give the parts of one table"
            )
    return _plain(pyarrow.concat_tables(tables, promote_options="permissive"), folder)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(d), "") if d else (-1, text) for d, text in re.findall(r"(\d+)|(\D+)", name)]


def _plain(table: Any, path: Path) -> pd.DataFrame:
    """The frame of an Arrow table with its rows numbered and its index as first columns."""
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise DataError(f"{path}: two columns are named {name!r}; rename one")
    frame = table.to_pandas()
    index = frame.index
    if isinstance(index, pd.RangeIndex) and index.name is None:
        return frame.reset_index(drop=True)
    for name in index.names:
        if name is not None and name in frame.columns:
            raise DataError(f"{path}: index and a column are both named {name!r}; rename one")
    return frame.reset_index()
