"""What a caller did wrong, told apart from what is wrong in here."""

from __future__ import annotations


class InvalidInput(ValueError):
    """A mistake of whoever calls: one line that names the field or file, the value, what would do.

    A plain `ValueError` is a fault of this program, and is never presented as the caller's.
    """
