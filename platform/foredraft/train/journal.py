"""The rows of a training on workers, as they come: written by the first worker, followed here.

with following(path, log):
    trainer.fit()                # the worker's log is Journal(path)
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from foredraft import buckets

POLL_S = 0.5

Row = dict[str, Any]


class Journal:
    """A log that adds each row to a file, one line each."""

    def __init__(self, path: Path) -> None:
        self.path = buckets.fetch(path)  # another machine may have begun it

    def __call__(self, row: Row) -> None:
        """Add the row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        buckets.keep(self.path)


@contextlib.contextmanager
def following(path: Path, log: Callable[[Row], None] | None) -> Iterator[None]:
    """While the block runs, `log` is told of every row that joins the journal."""
    with reading_on(Reader(path, log).read, where=path):
        yield


@contextlib.contextmanager
def reading_on(read: Callable[[], None], *, where: Path) -> Iterator[None]:
    """While the block runs, `read` is called again and again, and once more when it has ended.

    Less often where what is read comes from a bucket, which is asked each time. What cannot be
    read, as of a disk that has gone, is told by who needs it.
    """
    ended = threading.Event()
    every_s = buckets.FOLLOW_S if buckets.address_of(where) else POLL_S

    def look() -> None:
        with contextlib.suppress(OSError, buckets.OutOfReach):
            read()

    def follow() -> None:
        while not ended.wait(every_s):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=every_s)
        look()


class Reader:
    """Tells of the lines that are whole and new; an epoch that is trained again is not told.

    What there was before it began to read is not told either, but where it is `new`.
    """

    def __init__(self, path: Path, log: Callable[[Row], None] | None, *, new: bool = False) -> None:
        self.path, self.log = path, log
        # What an earlier driver was told is not told again.
        self.place = path.stat().st_size if path.is_file() and not new else 0
        self.told = 0

    def read(self) -> None:
        """Tell of what has come since."""
        if self.log is None or not buckets.fetch(self.path).is_file():
            return
        if self.path.stat().st_size < self.place:
            self.place = 0  # another one, of a training that was begun anew
        with self.path.open("rb") as file:
            file.seek(self.place)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self.place += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the end of a line of another file, which this one took the place of
            if row["number"] > self.told:
                self.told = row["number"]
                self.log(row)
