"""A study's record while it grows: looked at again and again, read only where something changed.

    watch = Watch(Path("runs/studies/demo"))
    watch.mark                  # a word that changes whenever there is something else to read
    watch.record()

What is read is kept: a trial that has ended is parsed once. Nothing here writes, or needs Ray.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

from foredraft import bank, buckets
from foredraft.bank import housekeeping
from foredraft.documents import read_mapping
from foredraft.errors import ConfigError
from foredraft.redaction import redacted
from foredraft.search import record
from foredraft.search.record import Record, Times
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study

SETTINGS_FILE = "study.yaml"
Place = tuple[int, ...] | None
"""What tells one state of a file from another; None where there is no file."""

_UNDER_WAY = ("RUNNING", "WAITING")
# What the database knows of a study without reading a trial.
_STATES = sqlalchemy.text(
    "select state, count(*), max(datetime_complete) from trials "
    "where study_id = :study group by state order by state"
)


class Count(NamedTuple):
    """How far a study has come, without a trial read."""

    begun: int
    ended: int
    last: datetime | None
    """when the last was reported, by the clock of its driver's machine; None where nothing tells"""


class Watch:
    """The record of the study in one directory, for several readers at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[Place, Any]] = {}
        self._open: tuple[Any, optuna.Study] | None = None
        self._ended: dict[int, Trial] = {}
        self._had_storage = False

    @property
    def mark(self) -> str:
        """A word that changes whenever there is something else to read, or no way to it."""
        with self._lock:
            files = (SETTINGS_FILE, record.TRIALS_FILE, record.REFERENCES_FILE)
            places: list[Any] = [_place(self.directory / name) for name in files]
            places += self._trainings()
            try:
                places.append(self._state_of_storage(self.study()))
            except ConfigError as error:
                places.append(str(error))
            return hashlib.sha256(repr(places).encode()).hexdigest()[:16]

    def study(self) -> Study:
        """The study as it is searched.

        Raises:
            ConfigError: its directory is gone, or holds none.
        """

        def read() -> Study:
            path = self.directory / SETTINGS_FILE
            return validated(Study, read_mapping(path, what="a study"), source=str(path))

        with self._lock:
            if _place(self.directory / SETTINGS_FILE) is None:
                raise ConfigError(f"{self.directory} holds no study any more, or is out of reach")
            return self._once(SETTINGS_FILE, read)

    def record(self) -> Record:
        """All that the study has reported until now.

        Raises:
            ConfigError: its directory or its database is out of reach, a file cannot be read, or
                another version wrote the trials.
        """
        with self._lock:
            study, directory = self.study(), self.directory
            held = self._held(study)
            return record.together(
                study,
                [self._trial(one, study) for one in held],
                self._once(record.TRIALS_FILE, lambda: record.trials_in(directory)),
                target=self._once(record.REFERENCES_FILE, lambda: record.target_in(directory)),
                times={
                    one.number: Times(one.datetime_start, one.datetime_complete) for one in held
                },
            )

    def count(self) -> Count:
        """How many trials have begun and ended.

        Raises:
            ConfigError: as `record`.
        """
        with self._lock:
            study = self.study()
            rows = self._rows(study) if self._is_there(study) else []
            if not rows:
                written = self._once(record.TRIALS_FILE, lambda: record.trials_in(self.directory))
                return Count(len(written), len(written), None)
            ended = [(count, last) for state, count, last in rows if state not in _UNDER_WAY]
            told = [datetime.fromisoformat(str(last)) for _, last in ended if last]
            begun = sum(count for state, count, _ in rows if state != "WAITING")
            return Count(begun, sum(count for count, _ in ended), max(told, default=None))

    def close(self) -> None:
        """Nothing; afterwards no file or connection is open."""
        with self._lock:
            if self._open:
                record.close(self._open[1]._storage._backend)  # type: ignore[attr-defined]
            self._open, self._ended = None, {}

    def _trainings(self) -> list[Place]:
        """What tells how far the trainings are that the study has asked for."""
        storage = self.directory.parents[1]
        keys = sorted(path.name for path in (self.directory / housekeeping.ASKED).glob("*"))
        return [_place(buckets.fetch_lately(bank.epochs_file(storage, key))) for key in keys]

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        """What was read of a file, read anew where the file has changed."""
        place = _place(self.directory / name)
        if name not in self._kept or self._kept[name][0] != place:
            self._kept[name] = (place, read())
        return self._kept[name][1]

    def _trial(self, stored: FrozenTrial, study: Study) -> Trial:
        known = self._ended.get(stored.number)
        if known is None:
            known = record.trial_of(stored, study=study)
            if stored.state.is_finished():
                self._ended[stored.number] = known
        return known

    def _held(self, study: Study) -> list[FrozenTrial]:
        """The trials of the storage, of which Optuna reads those that it has not read."""
        if not self._is_there(study):
            return []
        try:
            return self._optuna(study).get_trials(deepcopy=False)
        except KeyError:  # the file is there a moment before the study is in it
            return []
        except Exception as error:
            raise self._unreachable(study, error) from error

    def _state_of_storage(self, study: Study) -> Any:
        if not self._is_there(study):
            return None
        if not study.database:
            path = self.directory / record.DATABASE_FILE
            return [_place(path), _place(path.with_name(f"{path.name}-wal"))]
        return self._rows(study)

    def _rows(self, study: Study) -> list[Any]:
        """Number of trials, and when the last was reported, by Optuna's name of their state."""
        try:
            held = self._optuna(study)
            engine = held._storage._backend.engine  # type: ignore[attr-defined]
            with engine.connect() as connection:
                return list(connection.execute(_STATES, {"study": held._study_id}).all())
        except KeyError:
            return []
        except Exception as error:
            raise self._unreachable(study, error) from error

    def _is_there(self, study: Study) -> bool:
        """Whether there is a storage to read: before the first trial an SQLite file need not be.

        Raises:
            ConfigError: there was one, and nothing tells what it held.
        """
        if study.database or (self.directory / record.DATABASE_FILE).is_file():
            self._had_storage = True
            return True
        self.close()
        if self._had_storage and not (self.directory / record.TRIALS_FILE).is_file():
            raise ConfigError(f"{self.directory / record.DATABASE_FILE} has vanished")
        return False

    def _optuna(self, study: Study) -> optuna.Study:
        """Optuna's study, kept open as long as it is the same one in the same place."""
        place = study.database or os.stat(self.directory / record.DATABASE_FILE).st_ino
        # Whoever begins it writes this anew: in a database it may be another study then.
        begun = _place(self.directory / "provenance.json")
        if self._open is None or self._open[0] != (place, study.name, begun):
            self.close()
            storage = record.storage_of(study, self.directory)
            try:
                held = optuna.load_study(study_name=study.name, storage=storage)
            except Exception:
                record.close(storage)
                raise
            self._open = ((place, study.name, begun), held)
        return self._open[1]

    def _unreachable(self, study: Study, error: Exception) -> ConfigError:
        self.close()
        first_line = str(error).strip().split("\n", 1)[0] or type(error).__name__
        url = record.address_of(study, self.directory)
        return ConfigError(f"storage {redacted(url)} cannot be read: {redacted(first_line)}")


def _place(path: Path) -> Place:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
