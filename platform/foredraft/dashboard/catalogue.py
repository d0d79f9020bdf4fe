"""Which studies a dashboard may show: those of a storage, and those given by name or directory.

An address names them by their labels alone, so that no link opens any other file.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from foredraft.errors import ConfigError
from foredraft.report.study_files import StudyFiles, files_of
from foredraft.search.record import Record
from foredraft.search.watch import SETTINGS_FILE, Count, Watch
from foredraft.settings.budgets import Budget
from foredraft.settings.study import Study

KEPT = 24
"""Records under other budgets that are kept, each with its front."""


class Look(NamedTuple):
    """What a study is seen to hold now, or was when it could last be read."""

    label: str
    mark: str
    """changes with what there is to read"""
    record: Record | None
    """None where it could not be read yet"""
    trouble: str = ""
    """why it cannot be read now, as one sentence"""


class Shelf:
    """One study: its watch, and what was last read of it."""

    def __init__(self, label: str, directory: Path) -> None:
        self.label, self.directory = label, directory
        self._watch = Watch(directory)
        self._lock = threading.Lock()
        self._look = Look(label, "", None)
        self._read_at: datetime | None = None
        self._under: OrderedDict[tuple[str, Budget], Record] = OrderedDict()

    @property
    def mark(self) -> str:
        """Changes with what there is to read; asking costs next to nothing."""
        return self._watch.mark

    def count(self) -> Count:
        """How far the study has come, without reading a trial.

        Raises:
            ConfigError: it cannot be read.
        """
        return self._watch.count()

    def study(self) -> Study:
        """What it searches.

        Raises:
            ConfigError: it cannot be read.
        """
        return self._watch.study()

    def look(self) -> Look:
        """What there is now; of a study that has become unreadable, what was read before."""
        with self._lock:
            mark = self._watch.mark
            if mark == self._look.mark:
                return self._look
            try:
                self._look = Look(self.label, mark, self._watch.record())
                self._read_at = datetime.now(UTC)
            except ConfigError as error:
                self._look = Look(self.label, mark, self._look.record, self._sentence(error))
            return self._look

    def under(self, look: Look, budget: Budget) -> Record | None:
        """The record as if its study had another budget."""
        if look.record is None or look.record.study.budget == budget:
            return look.record
        key = (look.mark, budget.model_copy())
        with self._lock:
            if key not in self._under:
                self._under[key] = look.record.under(budget)
                while len(self._under) > KEPT:
                    self._under.popitem(last=False)
            return self._under[key]

    def files(self, record: Record) -> StudyFiles:
        """What its directory holds beside the record."""
        return files_of(self.directory, record)

    def _sentence(self, error: ConfigError) -> str:
        if self._look.record is None or self._read_at is None:
            return f"{error}."
        return (
            f"{error}. Shown is what there was at {self._read_at:%H:%M:%S} UTC; it is asked again "
            "every 2 s."
        )


class Catalogue:
    """The studies by their labels."""

    def __init__(self, storage: Path, given: Iterable[Path] = ()) -> None:
        self.storage = storage
        self._given = tuple(dict.fromkeys(path.resolve() for path in given))
        self._lock = threading.Lock()
        self._shelves: dict[str, Shelf] = {}

    @property
    def given(self) -> tuple[str, ...]:
        """The labels of those that were asked for."""
        return tuple(label for label, path in self._directories().items() if path in self._given)

    def shelves(self) -> tuple[Shelf, ...]:
        """All there are now, by their labels."""
        found = self._directories()
        with self._lock:
            for label, directory in found.items():
                known = self._shelves.get(label)
                if known is None or known.directory != directory:
                    self._shelves[label] = Shelf(label, directory)
            return tuple(self._shelves[label] for label in sorted(self._shelves))

    def shelf(self, label: str) -> Shelf | None:
        """The study of that label; None where there is none."""
        if label not in self._shelves:
            self.shelves()
        return self._shelves.get(label)

    def _directories(self) -> dict[str, Path]:
        """Directories by label; two studies of one name are told apart by their storage."""
        found = [path.parent.resolve() for path in self.storage.glob(f"studies/*/{SETTINGS_FILE}")]
        paths = sorted(dict.fromkeys([*self._given, *found]))
        counts = Counter(path.name for path in paths)
        return {
            path.name if counts[path.name] == 1 else f"{path.name} ({path.parents[1]})": path
            for path in paths
        }


@functools.cache
def age_in_words(seconds: int) -> str:
    """'12 s', '5 min', '3 h', '2 days'."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"
