"""Claims on a storage: of all who want one piece of work done, on any node, one does it at a time.

    with held(storage / "claims" / key):
        if not is_complete(directory):
            train()

A claim is a small note, a file or a bucket's object, that its holder touches every few seconds, as
not every shared file system has locks. One whose holder is known to be dead, or which has not been
touched for a lease, is taken over: a process's number alone tells of no life, as another process
may have it by now. Where two take over at the same moment, or one that stood still for a lease goes
on, both do the work: that costs time and is never wrong, as results appear as a whole.
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

from foredraft import buckets
from foredraft.bank.notes import Note, note_at
from foredraft.errors import ConfigError

LEASE_S = 60.0
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
    note = note_at(path)
    content = json.dumps({"pid": os.getpid(), "host": _host(), "token": uuid4().hex})
    began, told = time.monotonic(), False
    while not note.create(content):
        found = note.read()
        if found == content:
            break  # it was taken, and the answer got lost
        if found is None:
            continue  # it was given back a moment ago
        holder = _holder(found)
        if holder is None or _is_dead(note, holder):
            if note.replace(found, content):
                break
            continue
        if not wait:
            raise ConfigError(
                f"{path.name} is at work in process {holder['pid']} on {holder['host']}: "
                "wait for it, or end it"
            )
        if not told and time.monotonic() - began >= PATIENCE_S:
            told = True
            say(f"waiting for {path.name}, at work in process {holder['pid']} on {holder['host']}")
        time.sleep(note.poll_s)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(note, content, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join(timeout=note.beat_s)
        # Out of reach, or on a disk that takes no more, it stays, as that of a dead process does.
        with contextlib.suppress(OSError, buckets.OutOfReach):
            note.remove(content)


def _holder(content: str) -> dict[str, Any] | None:
    """Whose claim it is; None of one that cannot be read."""
    try:
        holder: dict[str, Any] = json.loads(content)
    except json.JSONDecodeError:
        return None
    return holder


def _is_dead(note: Note, holder: dict[str, Any]) -> bool:
    if holder["host"] == _host() and not _runs(holder["pid"]):
        return True
    return note.age_s() > LEASE_S


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


def _beat(note: Note, content: str, ended: threading.Event) -> None:
    # One that lost its lease must not keep the claim of its successor alive.
    while not ended.wait(note.beat_s):
        note.touch(content)


def _host() -> str:
    """This machine, this start of it and this container: process numbers mean nothing elsewhere."""
    with contextlib.suppress(OSError):
        start = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{platform.node()}/{start}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return platform.node()
