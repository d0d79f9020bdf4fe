"""Where a result comes from, and files that are either whole or not there.

with atomic_directory(folder) as draft:
    save(model, draft / "model.safetensors")
    atomic_write(draft / "provenance.json", json.dumps(collect(seed=0)))
facts = read_json(folder / "provenance.json", remedy="make the draft again")
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import torch

from foredraft.config import ConfigError
from foredraft.redaction import redacted as redacted  # part of what this room offers
from foredraft.redaction import redacted_words

COMPLETE = "COMPLETE"
LOCK = ".lock"
PACKAGES = (
    "foredraft",
    "torch",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "pyarrow",
    "plotly",
    "pydantic",
    "safetensors",
    "tensorboard",
)
GIT_TIMEOUT_S = 5


class DiskFull(OSError):
    """There is no room for a file: which one, and how many bytes are left."""


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


def read_json(path: Path, *, remedy: str) -> Any:
    """What a JSON file of ours holds.

    Raises:
        ConfigError: it is missing, empty or not whole; one line names it and ends in `remedy`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: {remedy}") from error
    try:
        return json.loads(content)
    except ValueError as error:
        what = f"is no whole JSON ({error})" if content.strip() else "is empty"
        raise ConfigError(f"{path} {what}: {remedy}") from error


def collect(*, command: list[str] | None = None, **extra: Any) -> dict[str, Any]:
    """Who, when, what, where and with which versions, as a JSON-able dict; `extra` is added to it.

    Reads no environment variables beyond the user's name; passwords in the command are blotted
    out. `command` is this process's own by default.
    """
    facts: dict[str, Any] = {
        "user": _user(),
        "host": platform.node(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redacted_words(sys.argv if command is None else command),
        "git": git_state(Path(__file__)),
        "python": platform.python_version(),
        "versions": _versions(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    if clash := sorted(facts.keys() & extra.keys()):
        raise ValueError(f"provenance: {', '.join(clash)} is collected already; use another name")
    return facts | extra


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit of the checkout that tracks `file`, and whether it is dirty; None where there is none.

    The file itself must be tracked: an installed copy may lie in the environment of some other
    project, whose commit says nothing about this code.
    """
    if _git("ls-files", "--error-unmatch", "--", file.name, folder=file.parent) is None:
        return None
    commit = _git("rev-parse", "HEAD", folder=file.parent)
    changes = _git("status", "--porcelain", folder=file.parent)
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def digest(value: object) -> str:
    """16 hex digits that equal values share: the SHA-256 of their canonical JSON.

    Reads JSON-able values, pydantic models, dataclasses, paths and numpy scalars, at any depth.

    Raises:
        TypeError: for anything else; a digest of an object's address would never repeat.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not asdict: nested values must come back here one by one.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"no digest of {type(value).__name__} {value!r}: pass plain, JSON-able values")


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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return str(os.getuid())


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*words: str, folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
