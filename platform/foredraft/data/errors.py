"""What is wrong with data, in one line that names file, place, value and remedy."""

from __future__ import annotations

from speculation import InvalidInput


class DataError(InvalidInput):
    """A mistake in the data or in how it was asked for: one line with file, value and remedy."""


class MissingCells(DataError):
    """Cells are missing; whoever asked may know a better place than the flag to say what to do."""

    def __init__(self, what: str, remedy: str = "fill them with --missing interpolate") -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
