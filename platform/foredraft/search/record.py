"""What a study has reported, whether it has ended or not: its trials, front, choice, references.

    record = read(study, Path("runs/studies/demo"))
    record.choice, record.front, record.references

Optuna's storage holds a trial as soon as it is reported, and `trials.json` holds all of them once a
study has ended, with what was measured then. Nothing here writes, or needs Ray.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from foredraft.documents import read_json
from foredraft.search import choice
from foredraft.search import front as pareto
from foredraft.search.references import References, Target
from foredraft.search.trial import Cell, Outcome, Scalar, Trial, other_version
from foredraft.settings.budgets import Budget
from foredraft.settings.dimensions import FloatDimension
from foredraft.settings.study import Study

TRIAL = "trial"
"""The user attribute of Optuna's trial that holds all that was reported."""
OLD_ROW = "row"
"""The user attribute of version 0.1."""
DATABASE_FILE = "study.db"
TRIALS_FILE = "trials.json"
REFERENCES_FILE = "references.json"
CONNECT_S = 2
"""Seconds within which a database must answer."""
KNEE = "confirmed point of the front nearest to the best of every objective"


class Standing(NamedTuple):
    """How a trial that ended stands in its study."""

    trial: Trial
    feasible: bool
    """complete, and within the budget"""
    on_front: bool
    """of the trials within the budget, or of all where none is"""
    confirmed: bool | None
    """false where another point of the front is better in everything once both are measured;
    None where it was not measured, or that cannot be true"""
    hypervolume: float
    """of the study after this trial"""

    def flat(self) -> dict[str, Cell]:
        """The trial as one row of a table, with how it stands."""
        standing = {name: getattr(self, name) for name in Standing._fields if name != "trial"}
        return self.trial.flat() | standing


class Point(NamedTuple):
    """A trial that is complete, beside what it came to and how it stands."""

    outcome: Outcome
    standing: Standing

    @property
    def trial(self) -> Trial:
        """The trial itself."""
        return self.standing.trial


class Times(NamedTuple):
    """When a trial began and when it was reported, by the clock of the machine that wrote it."""

    began: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, stored: FrozenTrial) -> Times:
        """As Optuna keeps them."""
        return cls(stored.datetime_start, stored.datetime_complete)


@dataclass(frozen=True)
class Record:
    """A study's trials, and what follows from them as they are now."""

    study: Study
    trials: tuple[Trial, ...]
    """in order, those under way too"""
    target: Target | None = None
    """None before the target is trained"""
    times: Mapping[int, Times] = field(default_factory=dict)
    """by number, of the trials that the storage holds"""

    @functools.cached_property
    def standings(self) -> tuple[Standing, ...]:
        """How each trial that ended stands."""
        ended = [trial for trial in self.trials if trial.state != "running"]
        feasible = {t.number for t in ended if t.is_within(self.study.budget)}
        complete = {t.number: t.outcome for t in ended if t.outcome and t.state == "complete"}
        within = {n: outcome for n, outcome in complete.items() if n in feasible} or complete
        on_front = _best({n: self._predicted(outcome) for n, outcome in within.items()})
        timed = {n: within[n] for n in on_front if _is_believed(within[n])}
        confirmed = _best({n: self._measured(outcome) for n, outcome in timed.items()})
        volumes = pareto.hypervolumes(ended, budget=self.study.budget)
        return tuple(
            Standing(
                trial=trial,
                feasible=trial.number in feasible,
                on_front=trial.number in on_front,
                confirmed=trial.number in confirmed if trial.number in timed else None,
                hypervolume=volume,
            )
            for trial, volume in zip(ended, volumes, strict=True)
        )

    def under(self, budget: Budget) -> Record:
        """The same trials, as if the study had another budget."""
        return replace(self, study=self.study.model_copy(update={"budget": budget}))

    @property
    def complete(self) -> list[Point]:
        """The trials that were judged on all windows."""
        return [
            Point(one.trial.outcome, one)
            for one in self.standings
            if one.trial.outcome and one.trial.state == "complete"
        ]

    @property
    def front(self) -> list[Point]:
        """The points of the front, in the order of their trials."""
        return [point for point in self.complete if point.standing.on_front]

    @property
    def choice(self) -> Point | None:
        """The favourite, where it is established to be faster than the target alone; else None."""
        point = self.favourite
        return None if point is None or _why_not(point) else point

    @property
    def why_alone(self) -> str | None:
        """Why the study recommends the target alone; None where it does not, or cannot tell yet."""
        point = self.favourite
        if point is not None:
            return _why_not(point)
        if not self.complete:
            return None
        if any(one.standing.feasible for one in self.front):
            return "no measurement of a trial within the budget can be believed"
        kept = f"kept the budget ({self.study.budget.in_words})"
        return f"none of {len(self.complete)} complete trials {kept}"

    @property
    def favourite(self) -> Point | None:
        """The best point within the budget (`search.choice`), even if that gains nothing.

        What was measured outranks what was only predicted, and what is doubted is not
        chosen. It stays the same when it is timed once more.
        """
        within = [point for point in self.front if point.standing.feasible]
        timed = [point for point in within if point.outcome.measured]
        points = [point for point in timed if point.standing.confirmed] if timed else within
        metric = self.study.budget.first
        index = choice.favourite([_candidate(point.outcome, metric) for point in points])
        return None if index is None else points[index]

    @property
    def knee(self) -> Point | None:
        """The confirmed point of the front nearest to the best of everything."""
        points = [p for p in self.front if p.standing.feasible and p.standing.confirmed]
        index = pareto.knee([self._measured(point.outcome) for point in points])
        return None if index is None else points[index]

    @functools.cached_property
    def references(self) -> References | None:
        """What the trials are compared with; None before the target is trained."""
        return References.of(self.study, self.target, self.trials) if self.target else None

    def _predicted(self, outcome: Outcome) -> pareto.Goals:
        return pareto.goals(outcome, self.study.objectives)

    def _measured(self, outcome: Outcome) -> pareto.Goals:
        """The objectives, with the measured speedup for the predicted one."""
        metrics = outcome.metrics.model_copy(update={"predicted_speedup": outcome.speedup})
        return self._predicted(outcome.model_copy(update={"metrics": metrics}))


def read(study: Study, directory: Path) -> Record:
    """All that the study has reported until now, without a change to anything.

    Raises:
        ConfigError: a file of the directory cannot be read, or another version wrote the trials.
    """
    held = stored(study, directory)
    return together(
        study,
        trials_of(held, study=study),
        trials_in(directory),
        target=target_in(directory),
        times={one.number: Times.of(one) for one in held},
    )


def together(
    study: Study,
    held: Iterable[Trial],
    written: Iterable[Trial],
    *,
    target: Target | None,
    times: Mapping[int, Times],
) -> Record:
    """The record of what the storage holds and of what was written when the study last ended."""
    trials = {trial.number: trial for trial in held}
    # What was measured then is in the file alone; what had not ended then may have since.
    trials |= {t.number: t for t in written if t.state != "running" or t.number not in trials}
    return Record(study, tuple(trials[n] for n in sorted(trials)), target, times)


def address_of(study: Study, directory: Path) -> str:
    """The SQLAlchemy URL of the study's storage."""
    return study.database or _sqlite(str(directory / DATABASE_FILE))


def stored(study: Study, directory: Path) -> list[FrozenTrial]:
    """All trials in the study's storage, which is not made where it does not exist: then none.

    None too where a database is out of reach, as a report need not be written where the study ran.
    """
    if not (study.database or (directory / DATABASE_FILE).is_file()):
        return []
    try:
        storage = storage_of(study, directory)
        try:
            return optuna.load_study(study_name=study.name, storage=storage).get_trials()
        finally:
            close(storage)
    except Exception:  # the storage's own kinds of error differ from database to database
        return []


def storage_of(study: Study, directory: Path) -> optuna.storages.RDBStorage:
    """Optuna's storage of the study, to be read; nothing is made where there is none.

    It raises its database's own kinds of error where that is out of reach.
    """
    url = address_of(study, directory)
    if study.database:
        waits = {"connect_timeout": CONNECT_S} if url.startswith("postgresql") else {}
        engine = {"pool_pre_ping": True, "connect_args": waits}
        return optuna.storages.RDBStorage(url, engine, skip_table_creation=True)
    # Not mode=ro: the journal of a killed writer is rolled back by the next who opens it.
    file = quote(str(directory / DATABASE_FILE))
    url = _sqlite(f"file:{file}", mode="rw", uri="true")
    return optuna.storages.RDBStorage(url, skip_table_creation=True)


def _sqlite(file: str, **query: str) -> str:
    """The URL of a file, whatever signs are in its path."""
    return sqlalchemy.URL.create("sqlite", database=file, query=query).render_as_string()


def close(storage: optuna.storages.RDBStorage) -> None:
    """Nothing; afterwards no connection of the storage is open."""
    storage.remove_session()
    storage.engine.dispose()


def trials_of(stored: Iterable[FrozenTrial], *, study: Study) -> list[Trial]:
    """Optuna's trials as ours, those under way too; what is still to be tried is none.

    Raises:
        ConfigError: another version of foredraft reported them.
    """
    return [trial_of(one, study=study) for one in stored if one.state != TrialState.WAITING]


def trial_of(stored: FrozenTrial, *, study: Study) -> Trial:
    """One of Optuna's trials as ours; its number is Optuna's, as one taken over has another."""
    text = stored.user_attrs.get(TRIAL)
    if text:
        trial = Trial.read(json.loads(text), study=study.name)
        return trial.model_copy(update={"number": stored.number})
    if OLD_ROW in stored.user_attrs:
        raise other_version(study.name)
    return Trial(
        number=stored.number,
        settings=settings_of(study, stored.params),
        error="no error was kept" if stored.state.is_finished() else None,
    )


def settings_of(study: Study, drawn: dict[str, Any]) -> dict[str, Scalar]:
    """A trial's settings in full: what was drawn, and what the study fixes.

    `scale` is None where depth and width are both given, so that nothing follows it, and of heads.
    """
    policy, plan = study.policy(drawn), study.draft
    drawn = {n: FloatDimension.rounded(v) if isinstance(v, float) else v for n, v in drawn.items()}
    factors = plan.factors(drawn)
    return {
        **{n: v for n, v in factors.items() if n == "scale" or n in drawn or v is not None},
        **({"kind": plan.kind} if plan.heads else {}),
        "patches_out": plan.patches_of(drawn),
        **study.acceptance,
        **{n: v for n, v in drawn.items() if n not in factors},
        "context_policy": policy.kind,
        "renorm_every": policy.renorm_every,
    }


def own(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that ended and that no other study reported."""
    return [trial for trial in trials if trial.state != "running" and not trial.source]


def failures(trials: Sequence[Trial]) -> tuple[int, str | None]:
    """How many of the trials failed, and the commonest error, or None where none did."""
    errors = [trial.error for trial in trials if trial.error]
    return len(errors), Counter(errors).most_common(1)[0][0] if errors else None


def _best(goals: dict[int, pareto.Goals]) -> list[int]:
    """The numbers of the trials that no other beats."""
    keep = pareto.on_front(list(goals.values()))
    return [number for number, kept in zip(goals, keep, strict=True) if kept]


def _is_believed(outcome: Outcome) -> bool:
    return outcome.measured is not None and not outcome.measured.doubt


def _why_not(point: Point) -> str | None:
    """Why a favourite is not worth its draft, in words; None where it is."""
    told, best = point.outcome.told, f"the best of the front, trial {point.trial.number},"
    if told is None:
        speedup = point.outcome.speedup
        slow = not choice.is_faster(speedup, None)
        return f"{best} is predicted at {speedup:.2f}x the target's speed" if slow else None
    if told.doubt:
        return f"{best} was timed once more, which is not believed: {told.doubt}"
    if choice.is_faster(told.speedup, told.speedup_low):
        return None
    return f"{best} is measured at {told.in_words()} the target's speed: no gain is established"


def _candidate(outcome: Outcome, metric: str) -> choice.Candidate:
    measured, ratio = outcome.measured, outcome.ratios[metric]
    return choice.Candidate(
        speedup=outcome.speedup,
        low=measured.speedup_low if measured else None,
        high=measured.speedup_high if measured else None,
        ratio=math.inf if ratio is None else ratio,
    )


def trials_in(directory: Path) -> list[Trial]:
    """The trials of a study that has ended, as its directory holds them."""
    content = _content(directory / TRIALS_FILE, default=[])
    # Version 0.1 wrote the flat table alone.
    if not (directory / TRIALS_FILE).is_file() and (directory / "trials.parquet").is_file():
        raise other_version(directory.resolve().name)
    return [Trial.read(one, study=directory.resolve().name) for one in content]


def target_in(directory: Path) -> Target | None:
    """The target alone, as a study's directory holds it; None before it is trained."""
    content = _content(directory / REFERENCES_FILE, default={}).get("target")
    if not content:
        return None
    known = {name: content[name] for name in Target.model_fields if name in content}
    try:
        return Target.model_validate(known)
    except ValueError as error:
        raise other_version(directory.resolve().name) from error


def _content(path: Path, *, default: Any) -> Any:
    remedy = f"search --resume of study {path.parent.name!r} writes it anew"
    return read_json(path, remedy=remedy) if path.is_file() else default
