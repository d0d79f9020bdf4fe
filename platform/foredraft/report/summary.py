"""A study in a few numbers and sentences."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from foredraft.redaction import redacted
from foredraft.report import readers
from foredraft.report.dots import Dot, dots_of
from foredraft.report.study_files import read_study_files
from foredraft.report.tables import number, percent, plural
from foredraft.search import record
from foredraft.search.record import Record
from foredraft.search.references import References, TargetAlone
from foredraft.search.trial import Trial
from foredraft.settings.budgets import Budget


class Summary(NamedTuple):
    """The study in a few numbers and sentences; `best` is None where no trial is recommended."""

    best: Dot | None
    alone: bool
    """whether the target alone is recommended"""
    accept_length: float | None
    budget: Budget
    states: dict[str, int]
    feasible: int
    num_drafts: int
    reading: tuple[str, ...]
    """a sentence for each of the three readers (`report.readers`)"""
    notes: tuple[str, ...]
    """what else a reader should know"""


def reading_of(study_dir: Path) -> tuple[str, ...]:
    """What the study in a directory tells each of its three readers."""
    return readers.sentences(read_study_files(study_dir).record)


def summary_info(study: Record) -> Summary:
    """The study in a few numbers and sentences."""
    dots, references, choice = dots_of(study), study.references, study.choice
    chosen = [dot for dot in dots if choice and dot.number == choice.trial.number]
    best = chosen[0] if chosen else None
    ended = [standing.trial for standing in study.standings]
    keys = {trial.outcome.draft.key for trial in ended if trial.outcome}
    return Summary(
        best=best,
        alone=study.why_alone is not None,
        accept_length=choice.outcome.metrics.accept_length if choice else None,
        budget=study.study.budget,
        states=dict(Counter(trial.state for trial in ended)),
        feasible=len([dot for dot in dots if dot.feasible]),
        num_drafts=len(keys),
        reading=readers.sentences(study),
        notes=tuple(
            (_naive_sentences(references.target) if references else [])
            + _prediction_sentences(dots, best)
            + _doubt_sentences(study)
            + _failure_sentences(ended)
            + (_policy_sentences(references) if references else [])
        ),
    )


def _prediction_sentences(dots: Sequence[Dot], best: Dot | None) -> list[str]:
    """How far the predictions were off, as far as anything was timed."""
    off = [abs(dot.predicted / dot.measured - 1) for dot in dots if dot.measured]
    if not off:
        return ["No speedup has been measured yet."] if best else []
    return [
        f"Over {plural(len(off), 'measured trial')} the prediction was off by "
        f"{percent(statistics.median(off))} in the median."
    ]


def _doubt_sentences(study: Record) -> list[str]:
    """What was measured and cannot be true, each with the reason."""
    return [
        f"Trial {point.trial.number} cannot be chosen, as what was measured of it is not "
        f"believed: {told.doubt}."
        for point in study.front
        if (told := point.outcome.measured) and told.doubt
    ]


def _naive_sentences(target: TargetAlone) -> list[str]:
    """Whether the target is worth its seconds at all."""
    naive = target.naive
    if naive is None or target.mse < naive.mse:
        return []
    return [
        f"The target alone (mse {number(target.mse)}) is no better than seasonal naive "
        f"({number(naive.mse)}, season {naive.season}), which costs nothing: train a better target "
        "before a faster one."
    ]


def _failure_sentences(ended: Sequence[Trial]) -> list[str]:
    count, error = record.failures(ended)
    if 2 * count <= len(ended):
        return []
    last_line = redacted(str(error).strip().rsplit("\n", 1)[-1])
    return [f"Most trials failed ({count} of {len(ended)}), most often with: {last_line}"]


def _policy_sentences(references: References) -> list[str]:
    """What reading under another context policy costs the target by itself."""
    target = references.target
    costs = [
        f"{policy} {percent(errors.mse / target.mse - 1)}"
        for policy, errors in target.policies.items()
        if policy != target.policy
    ]
    if not costs:
        return []
    return [
        f"Every error is held against the target's own, read under {target.policy}; another "
        f"context policy by itself adds to that: {', '.join(costs)}."
    ]
