"""Why a study's disk takes no more: full, read-only or gone, however deep that was noticed.

    if fault := disk.fault(directory, error):
        print(fault.what, fault.remedy)     # /mnt/runs is read-only / make it writable

Ray, SQLite and TensorBoard wrap such an error in words of their own, and not always in those of its
cause: of a disk that was unmounted SQLite says that its database is read-only. So the disk is asked
too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from foredraft import buckets

# What is left of such an error once another library has wrapped it in words of its own.
TOLD = {
    errno.ENOSPC: ("No space left on device", "database or disk is full"),
    errno.EDQUOT: ("Disk quota exceeded",),
    errno.EROFS: ("Read-only file system",),
}
# SQLite's, of a disk that is read-only, of one that was unmounted, and of one without permission.
READ_ONLY_DATABASE = "attempt to write a readonly database"
# As `files.DiskFull` tells it: it may be another disk than the storage's, such as the cache's.
_ELSEWHERE = re.compile(r"\(([\d,]+ bytes) are left in ([^()]+)\)")
REFUSALS = {
    *TOLD,
    *(errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOENT, errno.ENOTDIR),
}
"""With which a disk refuses a file; too many open files, or no memory, are no fault of a disk."""
PROBE_B = 4096
"""Bytes written to learn whether a disk takes any."""


class Fault(NamedTuple):
    """What is wrong with a disk."""

    what: str
    """names the path and the cause"""
    remedy: str


def fault(directory: Path, error: BaseException | str, *, begun: bool = True) -> Fault | None:
    """What is wrong with the disk that an error was met on, or None where it is something else.

    Args:
        directory: of the study.
        error: what was met, or the text of it.
        begun: whether the directory was there, with a study in it, and could be written.
    """
    storage, texts = directory.parents[1], [str(one) for one in chain(error)]
    said = [found.group() for text in texts if (found := buckets.OUT_OF_REACH.search(text))]
    if begun and said:
        return Fault(said[0], "see to that")
    # Before the rest, as the folder below a mount may be full or read-only itself.
    if begun and (why := _missing(directory / "study.yaml")):
        return Fault(f"{storage} is gone: {why}", "bring its disk back")
    told, refused = _told(error), _refusal(directory) if begun else None
    if told == errno.EROFS and begun and refused is None:
        return None  # some other disk's: this one takes what is written
    number = told or (refused if refused in REFUSALS else None)
    if number is None and any(READ_ONLY_DATABASE in text for text in texts):
        number = errno.EACCES
    if number is None:
        return None
    if number == errno.EROFS:
        return Fault(f"{storage} is read-only", "make it writable")
    if number not in TOLD:
        return Fault(f"{storage} cannot be written: {os.strerror(number)}", "mend its disk")
    named = [found.groups() for text in texts if (found := _ELSEWHERE.search(text))]
    there = next(path for path in (storage, *storage.parents) if path.exists())
    left, place = named[0] if named else (f"{shutil.disk_usage(there).free:,} bytes", str(storage))
    if Path(place).is_relative_to(storage):
        place = str(storage)
    why = "the quota is used up" if number == errno.EDQUOT else "the disk is full"
    return Fault(f"{place} cannot be written, {why}: {left} are left there", "make room")


def _told(error: BaseException | str) -> int | None:
    """The number of the error, or of one that it came from, where it is a disk's."""
    for one in chain(error):
        if isinstance(one, OSError) and one.errno in TOLD:
            return one.errno
        for number, words in TOLD.items():
            if any(said in str(one) for said in words):
                return number
    return None


def _missing(path: Path) -> str | None:
    """Why a file is not there any more, or None where it is."""
    try:
        path.stat()
    except FileNotFoundError:
        return f"{path} is not there any more"
    except OSError as error:  # a network's own: stale handles, endpoints that are not connected
        return f"{path}: {error.strerror}"
    return None


def _refusal(directory: Path) -> int | None:
    """The number of the error with which a file is refused there, or None where it is taken."""
    probe = directory / f".probe-{uuid4().hex[:12]}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_B))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None


def chain(error: BaseException | str | None) -> Iterator[BaseException | str]:
    """The error, what it came from, and so on."""
    while error is not None:
        yield error
        error = None if isinstance(error, str) else error.__cause__ or error.__context__
