"""Files and folders that are either whole or not there.

with atomic_directory(folder) as draft:
    save(model, draft / "model.safetensors")
    atomic_write(draft / "notes.txt", "made in one piece")
assert is_complete(folder)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

COMPLETE = "COMPLETE"
LOCK = ".lock"


class DiskFull(OSError):
    """There is no room for a file: which one, and how many bytes are left."""


def cache_folder() -> Path:
    """The user's cache for foredraft, under $XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foredraft"


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A new file to fill; it becomes `path` when the block ends, and vanishes if that raises.

    Raises:
        DiskFull: there is no room for it.
    """
    path = Path(path)
    part = _sibling(path)
    try:
        with _room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Nothing; afterwards `path` holds all of `content`, and at no time held a part of it.

    Raises:
        DiskFull: there is no room for it.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A new folder to fill; it becomes `path` when the block ends, and vanishes if that raises.

    The marker is written last, when all else is on the disk, but before the rename: `path` is then
    never seen without it, not even by a process that would take an unmarked folder for a dead one
    and replace it. An unmarked `path` is replaced. A marked one wins: it is another process's equal
    result.

    Raises:
        DiskFull: there is no room for it.
    """
    path = Path(path)
    part = _sibling(path)
    try:
        with _room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()  # not tempfile's: that is private to its user, and teams share a storage
            yield part
            for inside in sorted(part.rglob("*")):
                _sync(inside)
            (part / COMPLETE).touch()
            _sync(part / COMPLETE)
            _sync(part)
            _move_into_place(part, path=path)
            _sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_complete(path: str | Path) -> bool:
    """Whether `path` is a directory that was finished."""
    return (Path(path) / COMPLETE).is_file()


def _sibling(path: Path) -> Path:
    return path.parent / f".{path.name}-{uuid4().hex[:12]}"


def _move_into_place(part: Path, *, path: Path) -> None:
    """Rename `part` to `path`, replacing an unmarked one; where a marked one is, do nothing.

    A rename cannot replace a folder that holds anything, so an unmarked one is moved aside first.
    Writers do this one at a time, each after another look: a folder that a neighbour has just
    finished is never moved from under its readers.
    """
    with locked(path.parent):
        if is_complete(path):
            return
        aside = _sibling(path)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
        try:
            part.rename(path)
        except OSError:  # without locks a neighbour may have come first
            if not is_complete(path):
                raise
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder's own lock, which dies with its holder and leaves no file behind."""
    handle = _lock(folder / LOCK)
    try:
        yield
    finally:
        # While it is ours: who waits for it finds that the name is gone, and makes another.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path) -> int:
    """A descriptor of the lock's file, which is ours alone.

    Over NFS a lock needs a file that is open for writing: the folder itself would not do.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Some network file systems have no locks: there the renames alone have to do.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk and not only on its way there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems do not know it of folders.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Say in one line that the disk is full where that is what went wrong."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or not _tells_of_no_room(error):
            raise
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        left = shutil.disk_usage(there).free
        raise DiskFull(
            f"{path}: No space left on device ({left:,} bytes are left in {there}): make room and "
            "start the command again"
        ) from error


def _tells_of_no_room(error: BaseException | None) -> bool:
    """Also where a library hides it: torch.save behind another error, safetensors in its text."""
    if error is None:
        return False
    coded = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    told = os.strerror(errno.ENOSPC) in str(error)
    return coded or told or _tells_of_no_room(error.__context__)
