"""A study in a few numbers and sentences."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from foredraft.redaction import redacted
from foredraft.report.dots import Dot, DraftMark, dots_of, draft_marks
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
        reading=tuple(
            _best_sentences(dots, best, why_alone=study.why_alone)
            + _doubt_sentences(study)
            + (_naive_sentences(references.target) if references else [])
            + _failure_sentences(ended)
            + (_policy_sentences(references) if references else [])
            + _alone_sentences(draft_marks(references), best, study.study.budget)
        ),
    )


def _best_sentences(dots: Sequence[Dot], best: Dot | None, *, why_alone: str | None) -> list[str]:
    if why_alone:
        return [f"The target alone is recommended: {why_alone}."]
    if best is None:
        return ["No trial has been completed yet."]
    error = f"{number(best.mse_ratio)} times its error"
    tail = f"at {error}, with {percent(best.acceptance)} of the drafted patches accepted."
    if best.measured is None:
        speed = f"is predicted to forecast {best.predicted:.2f}× as fast as the target alone"
        return [f"Trial {best.number} {speed}, {tail}", "No speedup has been measured yet."]
    sentences = [
        f"Trial {best.number} forecasts {best.measured:.2f}× as fast as the target alone, {tail}"
    ]
    off = [abs(p.predicted / p.measured - 1) for p in dots if p.measured]
    sentences.append(
        f"Over {plural(len(off), 'measured trial')} the prediction was off by "
        f"{percent(statistics.median(off))} in the median."
    )
    return sentences


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


def _alone_sentences(drafts: Sequence[DraftMark], best: Dot | None, budget: Budget) -> list[str]:
    speed = max(1.0, (best.measured or best.predicted) if best else 1.0)
    kept = [d for d in drafts if d.mse_ratio <= max(budget.largest_mse_ratio, 1.0)]
    rival = max(kept, key=lambda d: (_is_as_good(d), d.speedup), default=None)
    if rival is None or rival.speedup <= 1:
        return []
    under = f", under {rival.policy}," if rival.policy else ""
    name = f"The {rival.size} draft alone{under}"
    fact = (
        f"({number(rival.mse_ratio)} times its error, {number(rival.speedup, digits=2)}× its speed)"
    )
    if _is_as_good(rival) and rival.speedup >= speed:
        return [
            f"{name} is as accurate as the target {fact}: speculation is pointless on this data "
            "set, as the draft alone would do."
        ]
    if _is_as_good(rival):
        return [f"{name} is as accurate as the target {fact} and could take its place."]
    if rival.speedup > speed:
        return [f"{name} keeps the budget too {fact}, and is faster still."]
    return []


def _is_as_good(draft: DraftMark) -> bool:
    return draft.mse_ratio <= 1
