"""Small notes that only one of all who try creates: files, or objects of a bucket.

note = note_at(storage / "claims" / key)
if note.create("mine"):
    ...
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from foredraft import buckets


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

    def replace(self, found: str, content: str) -> bool:
        """Whether it still said `found`, so that it is ours now and says `content`."""

    def age_s(self) -> float:
        """Seconds since its last sign of life, by the storage's own clock; 0 of none.

        The clocks of two nodes may differ.
        """

    def touch(self, content: str) -> None:
        """Nothing; gives a sign of life, where it still says `content`.

        One that is lost is made good by the next: a lease is many of them.
        """

    def remove(self, content: str) -> None:
        """Nothing; it is gone, where it still said `content`."""


def note_at(path: Path) -> Note:
    """The note of that path, wherever its storage is."""
    return ObjectNote(path) if buckets.address_of(path) else FileNote(path)


class FileNote:
    """A note on a shared file system, of which not every one has locks."""

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
        except FileNotFoundError:
            return None

    def replace(self, found: str, content: str) -> bool:
        """Whether it still said `found`, so that it is ours now and says `content`."""
        self.remove(found)
        return self.create(content)

    def age_s(self) -> float:
        """Seconds since its last sign of life; 0 of none."""
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
        with contextlib.suppress(OSError):
            if self.read() == content:
                os.utime(self.path)

    def remove(self, content: str) -> None:
        """Nothing; it is gone, where it still said `content`."""
        if self.read() == content:
            self.path.unlink(missing_ok=True)

    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.name}-{uuid4().hex}")


class ObjectNote:
    """A note in a bucket, written under conditions; each request takes a while, and is paid."""

    beat_s, poll_s = 15.0, 2.0

    def __init__(self, path: Path) -> None:
        self._client, self._name, self._reaching = buckets.client_of(path)

    def create(self, content: str) -> bool:
        """Whether there was none, so that this one is ours."""
        return self._put(content, mode="create")

    def read(self) -> str | None:
        """What it says; None where there is none."""
        found = self._found()
        return found and found[0]

    def replace(self, found: str, content: str) -> bool:
        """Whether it still said `found`, so that it is ours now and says `content`."""
        now = self._found()
        return bool(now and now[0] == found) and self._put(content, mode={"e_tag": now[1]})  # type: ignore[index]

    def age_s(self) -> float:
        """Seconds since its last sign of life, whole ones; 0 of none."""
        import obstore

        folder, _, name = self._name.rpartition("/")
        probe = f"{folder}/.{name}-{uuid4().hex[:8]}"
        with self._reaching():
            obstore.put(self._client, probe, b"")
            try:
                now = obstore.head(self._client, probe)["last_modified"]
                own = obstore.head(self._client, self._name)["last_modified"]
            except FileNotFoundError:
                return 0.0
            finally:
                obstore.delete(self._client, probe)
        return float((now - own).total_seconds())

    def touch(self, content: str) -> None:
        """Nothing; gives a sign of life, where it still says `content`."""
        with contextlib.suppress(buckets.OutOfReach, OSError):
            self.replace(content, content)

    def remove(self, content: str) -> None:
        """Nothing; it is gone, where it still said `content`."""
        import obstore

        if self.read() == content:
            with self._reaching(), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._client, self._name)

    def _found(self) -> tuple[str, str] | None:
        """What it says, and which version that is."""
        import obstore

        with self._reaching():
            try:
                found = obstore.get(self._client, self._name)
                return bytes(found.bytes()).decode(), str(found.meta["e_tag"])
            except FileNotFoundError:
                return None

    def _put(self, content: str, *, mode: object) -> bool:
        """Whether the condition held."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._reaching():
            try:
                obstore.put(self._client, self._name, content.encode(), mode=mode)  # type: ignore[arg-type]
            except (AlreadyExistsError, PreconditionError):
                return False
        return True
