"""Claims about the first paragraph of a report: what each of a study's three readers is told.

- Who needs the target's own forecasts is told how near the choice comes, at which speed and under
  which bound; where there is no choice, to run the target alone and why; and of a draft alone that
  comes as near, whether it is faster or slower.
- Who needs only accuracy is sent to a draft alone where one is accurate enough and faster than the
  choice, to the choice where it keeps that accuracy, and to the target where nothing does.
- Who should not speculate is told what a whole round costs and emits, by the cost model's figures,
  and nothing of it is contradicted by what was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from foredraft.report import readers
from foredraft.search.record import Record
from foredraft.search.references import Target
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study
from speculation import Tolerance
from speculation.cost import PassCosts

MakeTrial = Callable[..., Trial]
TARGET = Target(key="t", parameters=9, patch=96, mse=0.4, mae=0.5)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
BOTH = {"mse_ratio": 1.01, "deviation_ratio": 0.03}
# Two proposals cost 0.5 steps to draft and 1.25 to verify.
COSTS = PassCosts((1,), (2.0,), ((2.0, 2.2, 2.5),), ((0.0, 0.5, 1.0),), (0.0,), (0.0,))


def record_of(*trials: Trial, budget: Any = BOTH, horizon: int = 336) -> Record:
    tree = {
        "name": "joint",
        "target": "etth1",
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": horizon},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
        "budget": budget,
    }
    return Record(validated(Study, tree, source="joint"), trials, TARGET)


@pytest.fixture
def make(make_trial: MakeTrial) -> MakeTrial:
    """A trial with a draft that errs by .5 alone, deviates by .2, and is three times as fast."""

    def build(number: int = 0, *, mse: float = 0.5, apart: float = 0.2, **changes: Any) -> Trial:
        draft = {"errors": {"mse": mse, "mae": 0.5}, "deviation": apart}
        draft["speedup"] = changes.pop("alone", 3.0)
        settings = {"scale": 0.5}
        return make_trial(number, settings=settings, draft=draft, pass_rates=(0.9,), **changes)

    return build


def told(record: Record) -> tuple[str, ...]:
    return readers.sentences(record)


def test_before_any_trial_is_complete_nothing_else_is_told(make: MakeTrial) -> None:
    for record in (record_of(), record_of(make(stopped="budget")), record_of(make(running=True))):
        assert told(record) == ("No trial has been completed yet.",)


def test_who_needs_the_target_is_told_how_near_at_which_speed_and_under_which_bound(
    make: MakeTrial,
) -> None:
    measured = make(3, speedup=1.6)
    assert told(record_of(measured))[0] == (
        "Who needs the target's own forecasts comes within a deviation ratio of 0.0250 of them "
        "(the budget is 0.03) at 1.60× the target's speed, by trial 3."
    )
    assert "(the budget does not bound it)" in told(record_of(measured, budget=1.01))[0]
    assert "at a predicted 1.75×" in told(record_of(make(3)))[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"deviation": 0.02}, "kept the budget (mse ratio at most 1.01 and deviation ratio at"),
        ({"mse_ratio": 1.02}, "kept the budget (mse ratio at most 1.01 and deviation ratio at"),
        ({"speedup": 0.9}, "no gain is established"),
    ],
)
def test_without_a_choice_the_target_alone_is_told_with_the_reason(
    make: MakeTrial, changes: dict[str, Any], why: str
) -> None:
    target, accuracy, nobody = told(record_of(make(**changes)))
    assert "should run the target alone" in target
    assert why in target
    assert "should run the target alone" in accuracy
    assert nobody.startswith("Nobody should speculate within this budget on this device")


@pytest.mark.parametrize(
    ("apart", "alone", "verdict"),
    [
        (0.008, 3.0, "does so too (0.0200), and at 3.00×"),
        (0.008, 1.2, "does so too (0.0200), but at 1.20×"),
        (0.008, 0.9, None),  # slower than the target
        (0.013, 3.0, None),  # farther than the budget
    ],
)
def test_a_draft_alone_within_the_deviation_is_told_with_its_speed(
    make: MakeTrial, apart: float, alone: float, verdict: str | None
) -> None:
    sentence = told(record_of(make(apart=apart, alone=alone, speedup=1.6)))[0]
    assert ("draft alone" in sentence) is (verdict is not None)
    assert verdict is None or verdict in sentence


def test_where_nothing_is_chosen_a_draft_alone_may_still_be_near_enough(make: MakeTrial) -> None:
    (sentence, *_) = told(record_of(make(apart=0.008, speedup=0.9)))
    assert "of them at 3.00× the target's speed by the 0.50× draft alone" in sentence
    assert "of speculation, the best of the front, trial 0, is measured at 0.90x" in sentence


def test_a_draft_whose_deviation_was_never_counted_is_not_told_to_be_near(make: MakeTrial) -> None:
    old = make(apart=None, speedup=1.6)
    assert "draft alone" not in told(record_of(old))[0]


@pytest.mark.parametrize(
    ("mse", "alone", "budget", "verdict"),
    [
        (0.4, 3.0, BOTH, "needs no target: the 0.50× draft alone gives 1.000 times its error"),
        (0.404, 3.0, BOTH, "needs no target"),
        (0.404, 3.0, {"deviation_ratio": 0.03}, "takes the same trial"),  # as the target, or better
        (0.404, 1.2, BOTH, "the 0.50× draft alone would do too (1.010), but only at 1.20×"),
        (0.404, 0.9, BOTH, "no draft alone is faster than it within an mse ratio of 1.01"),
        (0.5, 3.0, BOTH, "takes the same trial, at 1.000 times the target's error: no draft alone"),
    ],
)
def test_who_needs_accuracy_is_sent_to_the_fastest_that_is_accurate_enough(
    make: MakeTrial, mse: float, alone: float, budget: Any, verdict: str
) -> None:
    record = record_of(make(mse=mse, alone=alone, speedup=1.6), budget=budget)
    assert verdict in told(record)[1]


def test_a_choice_that_is_less_accurate_than_the_target_is_not_sold_as_accurate(
    make: MakeTrial,
) -> None:
    record = record_of(make(mse_ratio=1.05, speedup=1.6), budget={"deviation_ratio": 0.03})
    assert "at 1.050 times the target's error, or the target alone" in told(record)[1]


def test_speculation_is_needless_only_where_a_draft_alone_does_for_either_reader(
    make: MakeTrial,
) -> None:
    accurate, both = make(mse=0.4, speedup=1.6), make(mse=0.4, apart=0.008, speedup=1.6)
    assert "Nobody has to speculate on this data set" in told(record_of(both))[2]
    assert "Nobody has to" not in told(record_of(accurate))[2]


def test_a_round_is_told_by_its_costs_in_steps_and_by_what_it_is_expected_to_emit(
    make: MakeTrial,
) -> None:
    trial = priced(make(speedup=1.6), COSTS, rates=(0.9, 0.5))
    assert told(record_of(trial))[2] == (
        "Nobody should speculate whose rounds emit less than they cost: in trial 0 a round of 2 "
        "proposals costs 1.75 steps of the target (0.50 to draft + 1.25 to verify) and is expected "
        "to emit 2.35 patches; it pays above 1.75."
    )


def priced(trial: Trial, costs: PassCosts, *, rates: tuple[float, ...]) -> Trial:
    assert trial.outcome
    metrics = trial.outcome.metrics.model_copy(update={"pass_rates": rates})
    update = {"costs": costs, "metrics": metrics, "rule": Tolerance(mse_tol=1.0, lookahead=7)}
    return trial.model_copy(update={"outcome": trial.outcome.model_copy(update=update)})


def test_a_round_proposes_no_more_than_a_horizon_has_room_for(make: MakeTrial) -> None:
    trial = priced(make(speedup=1.6), COSTS, rates=(0.9, 0.5))
    assert "a round of 1 proposal costs 1.35 steps" in told(record_of(trial, horizon=192))[2]


@pytest.mark.parametrize(
    ("changes", "rates", "verdict"),
    [
        ({"speedup": 0.9}, (0.3, 0.1), "it would pay above 1.75"),
        ({"speedup": 0.9}, (0.9, 0.9), "it should pay above 1.75, but no gain is established"),
        ({"deviation": 0.1}, (0.9, 0.9), "it should pay above 1.75, but that is over the budget"),
    ],
)
def test_the_inequality_says_why_what_it_favours_is_not_chosen(
    make: MakeTrial, changes: dict[str, Any], rates: tuple[float, ...], verdict: str
) -> None:
    trial = priced(make(**changes), COSTS, rates=rates)
    assert told(record_of(trial))[2].endswith(f"{verdict}.")


def test_the_first_paragraph_is_three_sentences(make: MakeTrial) -> None:
    sentences = told(record_of(make(speedup=1.6)))
    assert len(sentences) == 3
    assert all(len(re.findall(r"\.(\s|$)", sentence)) == 1 for sentence in sentences)
