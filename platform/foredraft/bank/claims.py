"""Claims on a storage: of all who want one piece of work done, on any node, one does it at a time.

    with held(storage / "claims" / key):
        if not is_complete(directory):
            train()

A claim is a file that its holder touches every few seconds, as not every shared file system has
locks. One whose holder is known to be dead, or which has not been touched for a lease, is taken
over: a process's number alone tells of no life, as another process may have it by now. Where two
take over at the same moment, or one that stood still for a lease goes on, both do the work: that
costs time and is never wrong, as results appear as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from foredraft.errors import ConfigError

BEAT_S = 2.0
LEASE_S = 60.0
POLL_S = 0.25
PATIENCE_S = 5.0
"""How long one waits before it is said for whom."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def held(
    path: Path, *, wait: bool = True, say: Callable[[str], None] = _to_stderr
) -> Iterator[None]:
    """The claim `path`, for as long as the block runs.

    Args:
        path: the claim's file; its directory is made.
        wait: whether to wait for another holder, or refuse.
        say: told once for whom one waits, where that takes longer than a few seconds.

    Raises:
        ConfigError: another process holds the claim, and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token, began, told = uuid4().hex, time.monotonic(), False
    while not _taken(path, token):
        holder = _holder(path)
        if holder is None or _is_dead(path, holder):
            _set_aside(path, holder)
            continue
        if not wait:
            raise ConfigError(
                f"{path.name} is at work in process {holder['pid']} on {holder['host']}: "
                "wait for it, or end it"
            )
        if not told and time.monotonic() - began >= PATIENCE_S:
            told = True
            say(f"waiting for {path.name}, at work in process {holder['pid']} on {holder['host']}")
        time.sleep(POLL_S)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, token, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        # On a disk that takes no more it stays, as that of a process that is dead.
        if (_holder(path) or {}).get("token") == token:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _taken(path: Path, token: str) -> bool:
    """Whether the claim was free and is ours now."""
    mine = path.with_name(f".{path.name}-{token}")
    mine.write_text(json.dumps({"pid": os.getpid(), "host": _host(), "token": token}))
    try:
        os.link(mine, path)  # unlike a rename it never replaces, and the file is never half written
    except FileExistsError:
        return False
    finally:
        mine.unlink(missing_ok=True)
    return True


def _holder(path: Path) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return holder


def _is_dead(path: Path, holder: dict[str, Any]) -> bool:
    if holder["host"] == _host() and not _runs(holder["pid"]):
        return True
    # Ages are told by the storage's own clock: those of two nodes may differ.
    now = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        now.touch()
        return now.stat().st_mtime - path.stat().st_mtime > LEASE_S
    except FileNotFoundError:
        return False
    finally:
        now.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # One that was killed and not yet waited for by its parent still has a number.
    with contextlib.suppress(OSError):
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    return True


def _set_aside(path: Path, holder: dict[str, Any] | None) -> None:
    """Remove a dead claim, if it is still that one."""
    if _holder(path) == holder:
        path.unlink(missing_ok=True)


def _beat(path: Path, token: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        # One that lost its lease must not keep the claim of its successor alive.
        if (_holder(path) or {}).get("token") == token:
            with contextlib.suppress(OSError):
                os.utime(path)


def _host() -> str:
    """This machine and this start of it: process numbers mean nothing on another."""
    with contextlib.suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}"
    return platform.node()
