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
from typing import Any, Protocol
from uuid import uuid4

from foredraft import buckets
from foredraft.errors import ConfigError

LEASE_S = 60.0
PATIENCE_S = 5.0
"""How long one waits before it is said for whom."""


class Note(Protocol):
    """A small text that only one of all who try creates."""

    beat_s: float
    """between two signs of life"""
    poll_s: float
    """between two looks of one who waits"""

    def create(self, content: str) -> bool:
        """Whether there was none, so that this one is ours."""

    def read(self) -> str | None:
        """What it says; None where there is none."""

    def age_s(self) -> float:
        """Seconds since its last sign of life, by the storage's own clock."""

    def touch(self, content: str) -> None:
        """Nothing; gives a sign of life, where it still says `content`."""

    def remove(self) -> None:
        """Nothing; it is gone."""


class FileNote:
    """A note on a shared file system."""

    beat_s, poll_s = 2.0, 0.25

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def create(self, content: str) -> bool:
        """Whether there was none, so that this one is ours."""
        mine = self._beside()
        mine.write_text(content)
        try:
            os.link(mine, self.path)  # unlike a rename it never replaces, and is never half written
        except FileExistsError:
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def read(self) -> str | None:
        """What it says; None where there is none."""
        try:
            return self.path.read_text()
        except OSError:
            return None

    def age_s(self) -> float:
        """Seconds since its last sign of life, by the storage's own clock; 0 of none.

        The clocks of two nodes may differ.
        """
        now = self._beside()
        try:
            now.touch()
            return now.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            now.unlink(missing_ok=True)

    def touch(self, content: str) -> None:
        """Nothing; gives a sign of life, where it still says `content`."""
        if self.read() == content:
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def remove(self) -> None:
        """Nothing; it is gone."""
        self.path.unlink(missing_ok=True)

    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.name}-{uuid4().hex}")


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
    note: Note = buckets.Note(path) if buckets.address_of(path) else FileNote(path)
    content = json.dumps({"pid": os.getpid(), "host": _host(), "token": uuid4().hex})
    began, told = time.monotonic(), False
    while not note.create(content):
        found = note.read()
        if found is None:
            continue  # it was given back a moment ago
        holder = _holder(found)
        if holder is None or _is_dead(note, holder):
            _set_aside(note, found)
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
        beat.join()
        # Out of reach, or on a disk that takes no more, it stays, as that of a dead process does.
        with contextlib.suppress(OSError, buckets.OutOfReach):
            _set_aside(note, content)


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


def _set_aside(note: Note, content: str) -> None:
    """Remove a claim, if it is still that one: ours that is over, or a dead one."""
    if note.read() == content:
        note.remove()


def _beat(note: Note, content: str, ended: threading.Event) -> None:
    # One that lost its lease must not keep the claim of its successor alive.
    while not ended.wait(note.beat_s):
        note.touch(content)


def _host() -> str:
    """This machine and this start of it: process numbers mean nothing on another."""
    with contextlib.suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}"
    return platform.node()
