"""Where a result comes from, and files that are either whole or not there.

with atomic_directory(folder) as draft:
    save(model, draft / "model.safetensors")
    atomic_write(draft / "provenance.json", json.dumps(collect(seed=0)))
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import torch

COMPLETE = "COMPLETE"
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

# The password of `scheme://user:password@host`; the value of `--token=value`, `secret_key=value`.
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
_NAMED_SECRET = re.compile(r"(?i)((?:password|passwd|secret|token|api_?key|access_key)\w*=)[^&\s]+")


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Nothing; afterwards `path` holds all of `content`, and at no time held a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _sibling(path)
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A new folder to fill; it becomes `path` when the block ends, and vanishes if that raises.

    The marker is written last, but before the rename: `path` is then never seen without it, not
    even by a process that would take an unmarked folder for a dead one and replace it.
    An unmarked `path` is replaced. A marked one wins: it is another process's equal result.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _sibling(path)
    part.mkdir()  # not tempfile's: that is private to its user, and teams share a storage
    try:
        yield part
        (part / COMPLETE).touch()
        _move_into_place(part, path=path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_complete(path: str | Path) -> bool:
    """Whether `path` is a directory that was finished."""
    return (Path(path) / COMPLETE).is_file()


def collect(*, command: list[str] | None = None, **extra: Any) -> dict[str, Any]:
    """Who, when, what, where and with which versions, as a JSON-able dict; `extra` is added to it.

    Reads no environment variables beyond the user's name; passwords in the command are blotted
    out. `command` is this process's own by default.
    """
    facts: dict[str, Any] = {
        "user": _user(),
        "host": platform.node(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [redacted(word) for word in (sys.argv if command is None else command)],
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


def redacted(text: str) -> str:
    """`text` with passwords in addresses and values of secrets and tokens replaced by ***."""
    return _NAMED_SECRET.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


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


def code_version(*modules: ModuleType) -> str:
    """16 hex digits that change with the source text of any of `modules`; a package counts whole.

    Comments count too: to train once more than needed is cheaper than to trust a stale result.
    """
    return digest({module.__name__: _source_of(module) for module in modules})


def _source_of(module: ModuleType) -> dict[str, str]:
    if module.__file__ is None:
        raise ValueError(f"{module.__name__} has no source file to take the version of")
    file = Path(module.__file__)
    if not hasattr(module, "__path__"):
        return {file.name: file.read_text(encoding="utf-8")}
    files = sorted(file.parent.rglob("*.py"))
    return {str(f.relative_to(file.parent)): f.read_text(encoding="utf-8") for f in files}


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
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks: there the renames alone have to do.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
