"""What the text of a cell looks like: a number by either decimal sign, or a time."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[+-]?((\d{1,3}([.,]\d{3})+|\d+)([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_APART = re.compile("(?<=\\d)[ \u00a0\u202f\u2009'\u2019](?=\\d{3})")
_TIME = re.compile(
    r"\d{1,4}([-/.])\d{1,2}(\1\d{1,4})?(?![\d.,])([ T].*)?|\d{4}[- ]?(Q[1-4]|W\d{2}).*", re.I
)


def is_time(cell: str) -> bool:
    """Whether a cell looks like a date, a month or a quarter."""
    return _TIME.fullmatch(cell.strip()) is not None and not is_number(cell)


def is_number(cell: str) -> bool:
    """Whether a cell looks like a number, by either decimal sign."""
    return _NUMBER.fullmatch(joined(cell.strip())) is not None


def joined(cell: str) -> str:
    """The cell with a minus of ASCII, and without what stands between its groups of digits."""
    return _APART.sub("", cell).replace("\u2212", "-")
