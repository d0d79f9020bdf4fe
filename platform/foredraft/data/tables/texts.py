"""A text, packed or not, as the raw columns of its table, and what it was found to be."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables import dialect
from foredraft.data.tables.dialect import Dialect

LINES = 100
"""that are looked at to find the dialect"""


@dataclass(frozen=True)
class Found:
    """What a file turned out to be."""

    kind: str
    """text, parquet or arrow"""
    compression: str | None = None
    encoding: str | None = None
    sep: str | None = None
    decimal: str | None = None
    """None: no value showed one"""
    header: bool = True
    preamble: int = 0
    """lines above the header"""

    def told(self) -> str:
        """For a person: `semicolon, decimal comma, cp1252, gzip, 3 lines above the header`."""
        if self.kind != "text":
            return self.kind
        parts = [dialect.NAMES.get(self.sep or "", repr(self.sep))]
        parts += [f"decimal {'comma' if self.decimal == ',' else 'point'}"] * bool(self.decimal)
        parts += [self.encoding or "", self.compression or ""]
        parts += [f"{self.preamble} lines above the table"] * bool(self.preamble)
        parts += ["no header: columns are 0, 1, ..."] * (not self.header)
        return ", ".join(filter(None, parts))


def read_text(
    path: Path, *, start: bytes, suffix: str, reading: Reading
) -> tuple[pd.DataFrame, Found]:
    """The raw columns of a text whose first bytes are `start`, and what it was found to be."""
    compression = next((n for magic, n in _PACKERS.items() if start.startswith(magic)), None)
    encoding = _encoding(path, compression=compression)
    with _opened(path, compression) as file:
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
        lines = list(itertools.islice(text, LINES))
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty")
    found = dialect.sniff(lines, reading=reading, suffix=suffix, label=str(path))
    parse = _Parser(path, compression=compression, encoding=encoding, found=found, reading=reading)
    frame, decimal = parse.frame()
    return frame, Found(
        kind="text",
        compression=compression,
        encoding=encoding,
        sep=found.sep,
        decimal=decimal,
        header=found.header,
        preamble=found.preamble,
    )


_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zX": "xz", b"PK\x03\x04": "zip"}


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    if compression == "zip":
        return _member(path)
    openers: dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    opened: IO[bytes] = openers.get(compression or "", open)(path, "rb")
    return opened


def _member(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
    if "[Content_Types].xml" in names:
        raise DataError(f"{path} is a spreadsheet; save the sheet as CSV")
    if len(names) != 1:
        raise DataError(f"{path} is a zip archive of {len(names)} files; unpack it and give one")
    return archive.open(names[0])


def _encoding(path: Path, *, compression: str | None) -> str:
    """By its mark, else UTF-8 if all of it is, else what Windows writes in Western Europe."""
    with _opened(path, compression) as file:
        start = file.read(4096)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16"
        if start[1::2].count(0) > len(start) // 4:
            return "utf-16-le"
        if start[::2].count(0) > len(start) // 4:
            return "utf-16-be"
        mark = "utf-8-sig" if start.startswith(b"\xef\xbb\xbf") else "utf-8"
        tail = start
        while tail.isascii() and (tail := file.read(2**22)):
            pass
        if tail.isascii():
            return mark
    return _beyond_ascii(path, compression=compression, mark=mark)


def _beyond_ascii(path: Path, *, compression: str | None, mark: str) -> str:
    for encoding in (mark, "cp1252"):
        with _opened(path, compression) as file:
            text = io.TextIOWrapper(file, encoding=encoding, newline="")
            try:
                while text.read(2**20):
                    pass
                return encoding
            except UnicodeDecodeError:
                continue
    return "latin-1"


class _Parser:
    """pandas' parser on one file; asked again where the first lines did not tell the decimal."""

    def __init__(
        self,
        path: Path,
        *,
        compression: str | None,
        encoding: str,
        found: Dialect,
        reading: Reading,
    ) -> None:
        self.path, self.compression, self.encoding = path, compression, encoding
        self.found, self.reading = found, reading

    def frame(self) -> tuple[pd.DataFrame, str | None]:
        """The raw columns, and the decimal sign by which numbers were read."""
        decimal = self.found.decimal
        frame = self._parsed(decimal=decimal)
        if decimal is None and self.found.sep != ",":
            undecided = [n for n in frame.columns if not pd.api.types.is_integer_dtype(frame[n])]
            cells = self._parsed(decimal=None, text=True) if undecided else frame
            decimal = dialect.decimal_of(
                cell for name in undecided for cell in cells[name].dropna().str.strip()
            )
            if decimal is None:
                self._refuse_both_ways(cells[undecided])
            if decimal == ",":
                frame = self._parsed(decimal=decimal)
        return self._without_blank_ends(frame), decimal

    def _refuse_both_ways(self, cells: pd.DataFrame) -> None:
        for name in cells:
            for row, cell in enumerate(cells[name].dropna()):
                if dialect.reads_both_ways(cell):
                    sign = "," if "," in cell else "."
                    small, large = cell.strip().replace(",", "."), re.sub("[.,]", "", cell.strip())
                    other = "." if sign == "," else ","
                    raise DataError(
                        f"{self.path}: column {name!r}, row {row + 1}: {cell!r} reads as {small} "
                        f"(--decimal {sign}) and as {large} (--decimal {other}); say which"
                    )

    def _parsed(self, *, decimal: str | None, text: bool = False) -> pd.DataFrame:
        sep = self.found.sep
        options: dict[str, Any] = {"dtype": str} if text else {}
        if decimal == "," and sep != ",":
            options["decimal"] = ","
        try:
            with warnings.catch_warnings(), _opened(self.path, self.compression) as file:
                # Without index_col=False a field too many would silently make the first column
                # an index.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                warnings.simplefilter("ignore", pd.errors.DtypeWarning)
                return pd.read_csv(
                    file,
                    sep=sep,
                    header=None,
                    names=list(self.found.names),
                    skiprows=self.found.skip,
                    index_col=False,
                    skipinitialspace=True,
                    encoding=self.encoding,
                    na_values=list(self.reading.na),
                    **options,
                )
        except pd.errors.EmptyDataError:
            return pd.DataFrame(columns=list(self.found.names))
        except pd.errors.ParserWarning as error:
            raise DataError(
                f"{self.path}: rows have more fields than the header; name every column"
            ) from error
        except pd.errors.ParserError as error:
            raise DataError(f"{self.path}: {_parser_trouble(error)}") from error

    def _without_blank_ends(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame without the columns that separators at the ends of the lines make."""
        while len(frame.columns) > 1 and len(frame):
            last = frame.columns[-1]
            if not str(last).startswith("Unnamed: ") or frame[last].notna().any():
                break
            frame = frame.iloc[:, :-1]
        return frame


def _parser_trouble(error: pd.errors.ParserError) -> str:
    """What the parser stumbled over; its own rows count the header, and from 0 or 1."""
    text = str(error)
    if fields := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        expected, line, seen = fields.groups()
        return (
            f"line {line} has {seen} fields, those before it {expected}; write one per column, or "
            "say what separates them (--sep)"
        )
    if quote := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"the quotation mark in row {quote.group(1)} is never closed; close or remove it"
    return "its rows are no table; say what separates the fields (--sep) or write it anew"
