"""Where a result comes from: who made it, when, with what, from which code.

facts = collect(seed=0)
key = digest({"scale": 0.7})
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch

from foredraft import __version__
from foredraft.redaction import redacted_words

PACKAGES = (
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
SUBMITTED = "FOREDRAFT_SUBMITTED"
"""The variable in which a job finds who submitted it, by which command, of which code."""


class Origin(NamedTuple):
    """The command that a result comes from, and its code."""

    command: list[str]
    """passwords are blotted out"""
    git: dict[str, Any] | None
    """as `git_state` tells it"""

    @classmethod
    def of(cls, command: list[str] | None = None) -> Origin:
        """This process's own, or that of another command of the same code.

        A job's copy of the code has no history: who submitted it told its commit.
        """
        words = redacted_words(sys.argv if command is None else command)
        return cls(words, git_state(Path(__file__)) or _submitted().get("git"))


def collect(*, origin: Origin | None = None, **extra: Any) -> dict[str, Any]:
    """Who, when, what, where and with which versions, as a JSON-able dict; `extra` is added to it.

    Reads no environment variables beyond the user's name, and what a submitted job was told of who
    submitted it. A process that works for another, as Ray's do, says for which command.
    """
    submitted = _submitted()
    facts: dict[str, Any] = {
        "user": _user(),
        "host": platform.node(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **(origin or Origin.of())._asdict(),
        "python": platform.python_version(),
        "versions": _versions(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    if submitted:
        facts["submitted"] = submitted
    if clash := sorted(facts.keys() & extra.keys()):
        raise ValueError(f"provenance: {', '.join(clash)} is collected already; use another name")
    return facts | extra


def _submitted() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(os.environ.get(SUBMITTED, "{}"))
    return facts


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit of the checkout that tracks `file`, and what has changed since; None where none does.

    Two checkouts of one commit whose `diff` is the same run the same code, but for new files.

    The file itself must be tracked: an installed copy may lie in the environment of some other
    project, whose commit says nothing about this code.
    """
    if _git("ls-files", "--error-unmatch", "--", file.name, folder=file.parent) is None:
        return None
    commit = _git("rev-parse", "HEAD", folder=file.parent)
    changes = _git("status", "--porcelain", folder=file.parent)
    if commit is None or changes is None:
        return None
    if not changes:
        return {"commit": commit, "dirty": False}
    plain = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    diff = _git(*plain, folder=file.parent)
    return {"commit": commit, "dirty": True, "diff": None if diff is None else digest(diff)}


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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return str(os.getuid())


def _versions() -> dict[str, str]:
    # Its own is that of the code which runs: a job's is not the one that is installed there.
    found = {"foredraft": __version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def cpu_model() -> str:
    """This machine's processor, as it names itself."""
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
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
