"""A disk that is full or cannot be written, however deep in Ray or a database it was noticed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# What is left of such an error once another library has wrapped it in words of its own.
WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "database or disk is full",
    "attempt to write a readonly database",
)


def is_full(error: BaseException) -> bool:
    """Whether the error, or one that it came from, is that of a disk that takes no more."""
    return any(
        (isinstance(one, OSError) and one.errno in NUMBERS)
        or any(words in str(one) for words in WORDS)
        for one in _chain(error)
    )


def in_words(storage: Path) -> str:
    """The disk of a storage, and what is left on it."""
    there = next(path for path in (storage, *storage.parents) if path.exists())
    return f"{storage} cannot be written, {shutil.disk_usage(there).free:,} bytes are left there"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
