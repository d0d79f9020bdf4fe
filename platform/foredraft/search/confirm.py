"""What the search believes, put to the test: timed alone, in pairs, and judged on unseen data."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from foredraft.cluster.allotment import Allotment
from foredraft.cluster.tasks import Share, result, submit
from foredraft.judge import evaluate, timing
from foredraft.search import judging
from foredraft.search.doubts import ExpectedTiming, trusted
from foredraft.search.record import Point, Record
from foredraft.search.references import evaluation_of
from foredraft.search.trial import Measured, OnTest, Outcome
from foredraft.settings.config import Evaluation
from foredraft.settings.rules import Rule
from foredraft.settings.study import Study
from speculation import Plan

TEST_TOLERANCE = 0.01
"""By how much mse_ratio may differ between the search's split and the test split, unflagged."""


class Pair(NamedTuple):
    """What is to be confirmed."""

    draft: Path
    rule: Rule
    plan: Plan | None
    """of a rule that adapts"""
    target: Path


class Place(NamedTuple):
    """Where the models are, and what timing and judging them is given."""

    storage: Path
    target: Path
    allotment: Allotment


def confirm(record: Record, *, place: Place, console: Console) -> Record:
    """The record with every point of its front measured: on each kind of device, and on test data.

    A point that was measured already is measured anew, beside the others. The one that is chosen
    is timed once more: of several it was the fastest by luck too, and this owes nothing to that.
    """
    trials = {trial.number: trial for trial in record.trials}
    for point in record.front:
        measured = _measured(point, record, place)
        trials[point.trial.number] = point.trial.model_copy(update={"outcome": measured})
        console.print(_in_words(point.trial.number, measured), soft_wrap=True)
    confirmed = Record(record.study, tuple(trials.values()), record.target)
    for point in confirmed.front:
        if point.standing.confirmed is False:
            number = point.trial.number
            console.print(f"trial {number} fell off the front when it was measured")
    return _chosen_afresh(confirmed, place, console=console)


def _chosen_afresh(record: Record, place: Place, *, console: Console) -> Record:
    """The record with its choice timed once more, where it has one."""
    point = record.favourite
    if point is None:
        return record
    fresh = _timings(point, record, place)
    outcome = point.outcome.model_copy(update={"fresh": fresh})
    again = _with_doubt(next(iter(fresh.values())))
    sentence = f"trial {point.trial.number} is the best of them; timed once more: {again}"
    console.print(sentence, soft_wrap=True)
    return replace(
        record,
        trials=tuple(
            trial.model_copy(update={"outcome": outcome})
            if trial.number == point.trial.number
            else trial
            for trial in record.trials
        ),
    )


def _measured(point: Point, record: Record, place: Place) -> Outcome:
    """What the point came to, with its timing and its accuracy on the test split."""
    study = record.study
    timings = _timings(point, record, place)
    pair = _pair(point.outcome, place)
    evaluation, share = evaluation_of(point.trial, study), place.allotment.judging
    test = _on_test(study, evaluation, pair, point.outcome, share=share)
    return point.outcome.model_copy(update={"timing": timings, "fresh": {}, "test": test})


def _pair(outcome: Outcome, place: Place) -> Pair:
    draft = place.storage / "drafts" / outcome.draft.key
    return Pair(draft, outcome.rule, outcome.plan, place.target)


def _timings(point: Point, record: Record, place: Place) -> dict[str, Measured]:
    """The point timed on each kind of device."""
    study, evaluation = record.study, evaluation_of(point.trial, record.study)
    pair, given = _pair(point.outcome, place), place.allotment
    expected = (
        ExpectedTiming.of(point.outcome, evaluation=evaluation, patch=record.target.patch)
        if record.target
        else None
    )
    calibrated, _ = given.calibration
    return {
        device: trusted(
            functools.partial(_time, study, evaluation, pair, share),
            expected=expected if device == calibrated else None,
        )
        for device, share in given.timing.items()
    }


def _time(study: Study, evaluation: Evaluation, pair: Pair, share: Share) -> timing.Pairs:
    work = submit(judging.time_pairs, study, evaluation, *pair, share=share)
    timed: timing.Pairs = result(work)
    return timed


def unseen_by(study: Study, evaluation: Evaluation) -> Evaluation | None:
    """The evaluation on the test split, or None where that is what the study searches on."""
    if evaluation.split == "test":
        return None
    windows = study.confirm_windows or evaluation.windows
    return evaluation.model_copy(update={"split": "test", "windows": windows})


def _on_test(
    study: Study, evaluation: Evaluation, pair: Pair, outcome: Outcome, *, share: Share
) -> OnTest | None:
    """The pair on the test split, and whether it is not what the search saw, if it did not."""
    unseen = unseen_by(study, evaluation)
    if unseen is None:
        return None
    judged: evaluate.PairRow = result(submit(judging.judge_on, study, unseen, *pair, share=share))
    return OnTest(
        acceptance_rate=judged.acceptance_rate,
        mse=judged.mse,
        mse_ratio=judged.mse_ratio,
        deviation_ratio=judged.deviation * judged.mse_ratio / judged.mse,
        differs=abs(judged.mse_ratio - (outcome.metrics.mse_ratio or 0.0)) > TEST_TOLERANCE,
    )


def _with_doubt(measured: Measured) -> str:
    """A measured speedup, and why it is not believed where it is not."""
    doubt = f" (not believed: {measured.doubt})" if measured.doubt else ""
    return f"{measured.in_words(unit='×')}{doubt}"


def _in_words(number: int, outcome: Outcome) -> str:
    measured, metrics, test = outcome.measured, outcome.metrics, outcome.test
    assert measured
    sentence = (
        f"trial {number}: predicted {metrics.predicted_speedup:.2f}×, measured "
        f"{_with_doubt(measured)}"
    )
    if test:
        flag = ", which differs" if test.differs else ""
        ratios = f"{metrics.mse_ratio:.4f}, on test {test.mse_ratio:.4f}"
        apart = f"{outcome.deviation_ratio:.4f}, on test {test.deviation_ratio:.4f}"
        sentence += f"; mse ratio {ratios}{flag}; deviation ratio {apart}"
    return sentence
