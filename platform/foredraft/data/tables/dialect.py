"""How a text lays out a table: separator, decimal sign, header, and what stands above it.

Found in the first lines, without a file: `sniff` takes lines and returns a `Dialect`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from foredraft.data.cells import is_number, is_time, joined
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading

Decimal = Literal[".", ","]

WHITE_SPACE = r"\s+"
SEPARATORS = (",", ";", "\t", "|")
"""in the order in which they are preferred where a text reads alike by several"""
CELLS = 20_000
"""that are looked at for a decimal sign"""
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", WHITE_SPACE: "white space"}
_GIVEN = {"tab": "\t", "\\t": "\t", "space": WHITE_SPACE, " ": WHITE_SPACE}

_MISSING = ("", "na", "nan", "n/a", "null", "none", "?", "-", "--", ".")
_COMMA_FOR_SURE = re.compile(  # not one group of three digits: no thousand is written so
    r"[+-]?(\d{1,3}(\.\d{3})+,\d+|\d*,(\d{1,2}|\d{4,})|0+,\d+|\d{4,},\d+|\d{1,3}(\.\d{3}){2,})"
)
_POINT_FOR_SURE = re.compile(
    r"[+-]?(\d{1,3}(,\d{3})+\.\d+|\d*\.(\d{1,2}|\d{4,})|0+\.\d+|\d{4,}\.\d+|\d{1,3}(,\d{3}){2,}"
    r"|\d*\.?\d+[eE][+-]?\d+)"
)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")


class Dialect(NamedTuple):
    """How the lines of a text are cut into the cells of a table."""

    sep: str
    """a character, or the pattern of white space"""
    skip: int
    """lines above the first row of data"""
    preamble: int
    """of these, lines above the header"""
    names: tuple[str, ...]
    """of the columns; 0, 1, ... where there is no header"""
    header: bool
    decimal: Decimal | None
    """None: nothing in the first lines tells"""


def sniff(lines: Sequence[str], *, reading: Reading, suffix: str, label: str) -> Dialect:
    """The dialect of a text, by its first lines and what the reading says.

    Raises:
        DataError: names that are data, or that stand twice.
    """
    sep = _separator(lines, reading=reading)
    table = _Rows(lines, sep=sep)
    names, first, header = _names(table, suffix=suffix, label=label)
    preamble = table.start if header else first
    body = table.rows[first:]
    few = body[: max(10, CELLS // len(names))]
    decimal = reading.decimal or decimal_of(cell.strip() for row in few for cell in row)
    return Dialect(
        sep=sep,
        skip=table.ends[first - 1] if first else 0,
        preamble=table.ends[preamble - 1] if preamble else 0,
        names=names,
        header=header,
        decimal=decimal,
    )


def decimal_of(cells: Iterable[str]) -> Decimal | None:
    """The decimal sign that at least one cell shows for sure, and none contradicts."""
    comma = point = False
    for cell in map(joined, cells):
        comma = comma or _COMMA_FOR_SURE.fullmatch(cell) is not None
        point = point or _POINT_FOR_SURE.fullmatch(cell) is not None
        if comma and point:
            return None
    return "," if comma else "." if point else None


def reads_both_ways(cell: str) -> bool:
    """Whether a cell is a thousand by one decimal sign and a small number by the other."""
    return _EITHER.fullmatch(cell.strip()) is not None


class _Rows:
    """The lines cut by one separator."""

    def __init__(self, lines: Sequence[str], *, sep: str) -> None:
        self.rows: list[list[str]] = []
        self.ends: list[int] = []
        """lines up to and with each row; a quoted cell may hold line breaks"""
        self._cut(lines, sep=sep)
        widths = [len(row) for row in self.rows]
        counted = Counter(widths)
        self.width = max(counted, key=lambda width: (counted[width], width), default=0)
        comments = self._comments(blank=sep == WHITE_SPACE)
        start = next((i for i in range(comments, len(widths)) if widths[i] == self.width), 0)
        # Rows that are short are data all the same: only prose is passed over.
        prose = all(_is_prose(row) for row in self.rows[:start])
        self.start = start if prose else 0
        self.regular = widths.count(self.width) / max(1, len(widths) - self.start)

    def _cut(self, lines: Sequence[str], *, sep: str) -> None:
        if sep == WHITE_SPACE:
            cut = ((number, line.split()) for number, line in enumerate(lines, start=1))
        else:
            reader = csv.reader(lines, delimiter=sep, skipinitialspace=True)
            cut = ((reader.line_num, row) for row in reader)
        try:
            for end, row in cut:
                if any(cell.strip() for cell in row) or len(row) > 1:
                    self.rows.append(row)
                    self.ends.append(end)
        except csv.Error:  # a quotation mark that is never closed: the parser will name it
            return

    def _comments(self, *, blank: bool) -> int:
        """Rows of comment at the beginning; the one right above the data may be the header."""
        marked = [row[0].lstrip().startswith("#") for row in self.rows]
        count = marked.index(False) if False in marked else 0
        below = self.rows[count] if count else []
        return count - 1 if count and _is_row(below) and not blank else count

    @property
    def clean(self) -> float:
        """Share of cells below the header that read as a number, a time or missing."""
        cells = [cell for row in self.rows[self.start + 1 :] for cell in row]
        return sum(map(_is_data, cells)) / max(1, len(cells))


def _is_prose(row: list[str]) -> bool:
    """Whether a line above the table is a comment or words, and no row of it."""
    return row[0].lstrip().startswith(("#", "%", "//")) or not _is_row(row)


def _is_data(cell: str) -> bool:
    return cell.strip().lower() in _MISSING or is_number(cell) or is_time(cell)


def _is_row(row: Sequence[str]) -> bool:
    """Whether a row is one of numbers, perhaps after a time."""
    rest = row[1:] if is_time(row[0]) else row
    return all(map(_is_data, row)) and any(map(is_number, rest or row))


def _separator(lines: Sequence[str], *, reading: Reading) -> str:
    if reading.sep is not None:
        return _GIVEN.get(reading.sep, reading.sep)
    cuts = {sep: _Rows(lines, sep=sep) for sep in SEPARATORS}
    good = [sep for sep, cut in cuts.items() if cut.width > 1 and cut.regular > 0.9]
    if len(good) == 1:
        return good[0]
    if good:
        return max(good, key=lambda sep: (cuts[sep].clean, cuts[sep].start == 0))
    if any(cut.width > 1 for cut in cuts.values()):  # ragged: the parser names the line
        return max(cuts, key=lambda sep: (cuts[sep].width > 1, cuts[sep].clean))
    blank = _Rows(lines, sep=WHITE_SPACE)
    return WHITE_SPACE if blank.width > 1 and blank.regular > 0.9 and blank.clean > 0.5 else ","


def _names(table: _Rows, *, suffix: str, label: str) -> tuple[tuple[str, ...], int, bool]:
    """Names of the columns, the first row of data, and whether there is a header."""
    if not table.rows:
        raise DataError(f"{label} is empty")
    first = table.rows[table.start]
    numbered = tuple(str(index) for index in range(len(first)))
    above = table.rows[table.start - 1] if table.start else []
    if _is_row(first) and len(above) > 1 and not above[0].lstrip().startswith("#"):
        return _header_of_fewer(table, above=above, width=len(first), label=label)
    if _is_row(first) and (is_time(first[0]) and len(first) > 1):
        return numbered, table.start, False
    counts = all(cell.strip() == str(index) for index, cell in enumerate(first))
    if suffix == ".txt" and all(_is_data(cell) for cell in first):
        return numbered, table.start, False
    if is_time(first[0]) or (all(map(_is_data, first)) and not counts and any(first)):
        raise DataError(
            f"{label}: its header {_excerpt(first)} is a row of data; put a line with a name for "
            "each column above it, or save it as .txt, where numbers need no header"
        )
    return _distinct(first, label=label), table.start + 1, True


def _header_of_fewer(
    table: _Rows, *, above: list[str], width: int, label: str
) -> tuple[tuple[str, ...], int, bool]:
    """A header that is shorter than its rows: well where they end in separators, else refused."""
    surplus = [cell for row in table.rows[table.start :] for cell in row[len(above) :]]
    if len(above) > width or any(cell.strip() for cell in surplus):
        raise DataError(f"{label}: rows have more fields than the header; name every column")
    table.start -= 1
    names = [*above, *[""] * (width - len(above))]
    return _distinct(names, label=label), table.start + 1, True


def _distinct(names: Sequence[str], *, label: str) -> tuple[str, ...]:
    """The names; raises where one stands twice. A column without a name is numbered, as pandas."""
    place: dict[str, int] = {}
    for index, name in enumerate(names):
        if name.strip() and name in place:
            raise DataError(
                f"{label}: two columns are named {name!r} (columns {place[name] + 1} and "
                f"{index + 1}); give each a name of its own"
            )
        place[name] = index
    return tuple(name if name.strip() else f"Unnamed: {i}" for i, name in enumerate(names))


def _excerpt(row: Sequence[str]) -> str:
    return repr(",".join(row[:4]) + (",..." if len(row) > 4 else ""))
