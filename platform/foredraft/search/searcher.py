"""Optuna behind Ray Tune: it is asked for settings, and told truthfully what they came to.

Ray's own OptunaSearch ends the experiment over a missing objective and leaves a NaN's trial running
for ever. Here each report is written to Optuna's storage in one piece before the trial is
closed, so that a driver may die between any two lines: on resumption what was reported is closed,
and what was not is run again under its own number.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from foredraft.errors import ConfigError
from foredraft.redaction import redacted
from foredraft.search import front
from foredraft.search.nested import Asked, Nested, key_of
from foredraft.search.record import (
    DATABASE_FILE,
    TRIAL,
    address_of,
    close,
    settings_of,
    storage_of,
    trial_of,
)
from foredraft.search.samplers import draw, sampler_of
from foredraft.search.stopping import Residuals
from foredraft.search.trial import Trial
from foredraft.settings.study import OBJECTIVES, Study, StudyStopped

SAME_ERROR_LIMIT = 3
SHOWN = ("draft_key", "mse_ratio", "deviation", "deviation_ratio", "stopped", "error")
"""Columns of a trial that are repeated in attributes of its own, for Optuna's dashboard."""


def held_trials(study: Study, directory: Path) -> list[FrozenTrial]:
    """The trials that the study has in its storage, by whomever they were begun.

    Raises:
        ConfigError: its database cannot be reached or read: that there are none is not known then.
    """
    file = directory / DATABASE_FILE
    # Of a driver that was killed as it began, nothing may have been written yet.
    if not study.database and (not file.is_file() or not file.stat().st_size):
        return []
    remedy = "" if study.database else "; put back a whole one, or start anew with --replace"
    with _one_line(study.database or str(file), remedy=remedy):
        storage = _database(study.database) if study.database else storage_of(study, directory)
        try:
            return optuna.load_study(study_name=study.name, storage=storage).get_trials()
        except KeyError:
            return []
        finally:
            close(storage)


def open_record(study: Study, directory: Path) -> optuna.Study:
    """Optuna's record of the study, made where it does not exist.

    Raises:
        ConfigError: the database cannot be reached, or holds another study of that name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = address_of(study, directory)
    directions: Any = [
        "maximize" if OBJECTIVES[n] == "max" else "minimize" for n in study.objectives
    ]
    with _one_line(url):
        made = optuna.create_study(
            storage=_database(url),
            study_name=study.name,
            directions=directions,
            load_if_exists=True,
        )
    if [d.name.lower() for d in made.directions] != directions:
        raise ConfigError(
            f"study {study.name!r} in {redacted(url)} has other objectives: give it another name"
        )
    if not made.metric_names:
        made.set_metric_names(list(study.objectives))
    # The same seed suggests the same first points again: a resumed study takes another.
    made.sampler = sampler_of(study, seed=study.seed + len(made.get_trials(deepcopy=False)))
    return made


def _database(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage at that address, its tables made where there are none.

    A connection that broke meanwhile is opened anew.
    """
    return optuna.storages.RDBStorage(url, {"pool_pre_ping": True})


@contextlib.contextmanager
def _one_line(url: str, *, remedy: str = "") -> Iterator[None]:
    """Say in one line what is wrong with a database."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"database {redacted(url)}: its driver is not installed; "
            "for postgresql:// pip install 'psycopg[binary]'"
        ) from error
    except Exception as error:  # each database has its own kinds
        # Optuna's own says of any that data may be too long.
        own = error.__cause__ if isinstance(error, StorageInternalError) else error
        first_line = str(own or error).strip().split("\n", 1)[0]
        raise ConfigError(f"database {redacted(url)}: {redacted(first_line)}{remedy}") from error


class OptunaSearcher(Searcher):
    """Asks Optuna for settings and tells it what they came to.

    Args:
        study: what is searched.
        record: Optuna's.
        nested: who chooses, where it is not Optuna.
        is_excused: whether an error is none of the trial's, such as that of a full disk: then the
            trial stays open, to be run again when the study goes on.
    """

    def __init__(
        self,
        study: Study,
        record: optuna.Study,
        *,
        nested: Nested | None = None,
        is_excused: Callable[[str], object] = lambda error: False,
    ) -> None:
        super().__init__()
        self.study, self.record, self.nested = study, record, nested
        self.is_excused = is_excused
        self.told: list[Callable[[Trial], None]] = []
        """called with each trial once it is kept"""
        self.broken: Exception | None = None
        """why nothing is kept any more"""
        self.asked: dict[str, optuna.Trial] = {}
        self.errors: list[str] = []
        self.decoded: dict[int, Trial] = {}
        """the trials that were decoded, each read once, as nothing of them changes any more"""
        self.quiet = False
        """whether nothing was reported since the nested search had nothing to decode"""
        self.interrupted = self._close_reported()
        for settings in study.first:
            record.enqueue_trial(settings, skip_if_exists=True)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing but the study's name.

        Tune keeps its searcher in the storage, from which nothing here is ever restored: the
        database's address, password and all, is not to lie there.
        """
        return {"study": self.study.name}

    @property
    def stuck(self) -> str | None:
        """The error that the last trials all ended with, or None."""
        last = self.errors[-SAME_ERROR_LIMIT:]
        same = len(last) == SAME_ERROR_LIMIT and len({_kind(error) for error in last}) == 1
        return last[-1] if same and last[-1] else None

    @property
    def exhausted(self) -> bool:
        """Whether nothing else is worth a trial."""
        return self.nested is not None and self.nested.exhausted

    def suggest(self, trial_id: str) -> Any:
        """The settings of the next trial, and the front that it has to reach.

        None while nothing is worth a trial before a draft is ready: Tune asks again.
        """
        if self.broken:
            raise self.broken
        if self.stuck:
            return Searcher.FINISHED
        if not self.interrupted and self._is_waiting:
            return None
        ended = self._ended()
        trial = self._interrupted() or self._next()
        if trial is None:
            return Searcher.FINISHED if self.exhausted else None
        self.asked[trial_id] = trial
        settings = draw(trial, self.study.dimensions)
        return {
            "settings": settings,
            "number": trial.number,
            "front": self._front(ended),
            "trust": Residuals.of(ended).trust,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep what was reported, then close the trial, then tell of it."""
        asked, self.quiet = self.asked.pop(trial_id), False
        if self.broken:
            return
        text = (result or {}).get(TRIAL) or self._died(asked).model_dump_json()
        reported = Trial.read(json.loads(text), study=self.study.name)
        if reported.error and self.is_excused(reported.error):
            self.broken = StudyStopped(f"study {self.study.name!r} stopped: {reported.error}")
            return
        # Tune would tell of an error here by its traceback, and then of the trial once more.
        try:
            asked.set_user_attr(TRIAL, text)
            self.errors.append(reported.error or "")
            self._close(asked, reported)
            for tell in self.told:
                tell(reported)
        except Exception as error:
            self.broken = error

    def _died(self, asked: optuna.Trial) -> Trial:
        return Trial(
            number=asked.number,
            settings=settings_of(self.study, asked.params),
            error="the trial's process died",
        )

    def _close(self, asked: optuna.Trial, reported: Trial) -> None:
        """Tell Optuna the values; or that they are too bad to go on, or that there are none."""
        row, outcome = reported.flat(), reported.outcome
        for name in SHOWN:
            if row.get(name) is not None:
                asked.set_user_attr(name, row[name])
        known = asked.constraints  # of a trial that a dead driver was about to close
        for name, left in self.study.budget.room(outcome.ratios if outcome else {}).items():
            if name not in known:
                asked.set_constraint(name, -left)
        if not outcome:
            self.record.tell(asked, state=TrialState.FAIL)
        elif outcome.stopped:
            self.record.tell(asked, state=TrialState.PRUNED)
        else:
            values = [outcome.objective(name) for name in self.study.objectives]
            self.record.tell(asked, values)

    def _close_reported(self) -> list[int]:
        """Trials that a dead driver left without a report; those that have one are closed."""
        left = []
        for kept in self.record.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = trial_of(kept, study=self.study)
            if trial.state == "running":
                left.append(kept._trial_id)
            else:
                self._close(optuna.Trial(self.record, kept._trial_id), trial)
        return left

    @property
    def _is_waiting(self) -> bool:
        """Whether a nested search has nothing to say since it was last asked.

        Beside what it waits for passes may be timed: it must not think about it meanwhile.
        """
        return self.nested is not None and self.quiet and self.nested.is_waiting

    def _next(self) -> optuna.Trial | None:
        """A new trial: one that somebody wished for, else as the nested search or Optuna says."""
        wished = self.record.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.nested and not wished:
            kept = self.record.get_trials(deepcopy=False)
            begun = [(one, trial_of(one, study=self.study)) for one in kept]
            left = self.study.trials - len([trial for _, trial in begun if not trial.source])
            asked = [Asked(key_of(one.params), trial) for one, trial in begun]
            settings = self.nested.next(asked, left=left)
            self.quiet = settings is None
            if settings is None:
                return None
            if settings:
                self.record.enqueue_trial(settings)
        return self.record.ask()

    def _interrupted(self) -> optuna.Trial | None:
        return optuna.Trial(self.record, self.interrupted.pop(0)) if self.interrupted else None

    def _ended(self) -> list[Trial]:
        """The trials that were decoded, as they are now."""
        complete = self.record.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for one in complete:
            if one.number not in self.decoded:
                self.decoded[one.number] = trial_of(one, study=self.study)
        return [self.decoded[one.number] for one in complete]

    def _front(self, decoded: list[Trial]) -> list[front.Goals]:
        """The goals of the front, as it is now."""
        points = [
            front.goals(trial.outcome, self.study.objectives)
            for trial in decoded
            if trial.outcome and trial.is_within(self.study.budget)
        ]
        return [p for p, keep in zip(points, front.on_front(points), strict=True) if keep]

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage holds all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the storage holds all."""


def _kind(error: str) -> str:
    """An error without what differs from trial to trial: paths and numbers, hexadecimal too."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", re.sub(r"\S*/\S*", "/", error))
