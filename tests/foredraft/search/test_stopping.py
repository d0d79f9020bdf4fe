"""Claims about which trials stop early: only those that the closed form knows to be hopeless.

What it does not tell is unbeatable; how wrong it may be is learned from the trials decoded so far;
and of many random searches it never stops a trial that would have been on the front.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from foredraft.judge.evaluate import PairRow
from foredraft.search.judging import metrics_of
from foredraft.search.stopping import TRIED, Residuals, Slack, prediction_of, why_stop
from foredraft.search.trial import Metrics, Trial
from foredraft.settings.study import Study

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
SLACK = Slack(acceptance_rate=0.1, speedup=0.1, mse_ratio=0.1, deviation_ratio=0.1)


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
    }
    return Study.model_validate(tree | changes)


def expected(
    acceptance: float, speedup: float, ratio: float = math.nan, deviation: float = math.nan
) -> Metrics:
    """What the closed form tells; of a rule that it knows no error of, nan."""
    row = PairRow(acceptance, 1.0, [], [], ratio, ratio, ratio, deviation)
    return metrics_of(row, predicted_speedup=speedup, windows=0)


def stops(
    metrics: Metrics,
    what: Study,
    best: list[tuple[float, ...]],
    slack: Slack | None = SLACK,
) -> str | None:
    return why_stop(metrics, what, best, slack=slack, reference_mse=0.5)


@pytest.mark.parametrize(
    ("acceptance", "speedup", "ratio", "stopped"),
    [
        (0.6, 1.5, math.nan, None),  # its error is not known: it may be the least of all
        (0.6, 1.5, 1.12, "budget"),
        (0.6, 1.5, 1.05, "front"),  # a reference of mse 0.5: at best 0.475
        (0.6, 1.5, 0.99, None),  # at best 0.445: more accurate than all of the front
        (0.75, 1.5, 1.05, None),  # may accept 0.85
        (0.6, 1.9, 1.05, None),  # may be 2.09 times as fast
    ],
)
def test_a_trial_stops_only_where_it_would_fail_even_if_the_closed_form_were_that_wrong(
    acceptance: float, speedup: float, ratio: float, stopped: str | None
) -> None:
    assert stops(expected(acceptance, speedup, ratio), study(), [(0.8, 2.0, -0.45)]) == stopped


def test_an_objective_that_the_closed_form_does_not_tell_is_unbeatable() -> None:
    what = study(objectives=["acceptance_rate", "predicted_speedup", "deviation"])
    assert stops(expected(0.1, 0.5, 1.0), what, [(0.8, 2.0, -0.01)]) is None
    assert stops(expected(0.1, 0.5, 1.0, 0.5), what, [(0.8, 2.0, -0.01)]) == "front"
    assert stops(expected(0.1, 0.5, 1.0, 0.05), what, [(0.8, 2.0, -0.01)]) is None
    what = study(objectives=["acceptance_rate", "predicted_speedup"])
    assert stops(expected(0.1, 0.5, 1.0), what, [(0.8, 2.0)]) == "front"


def test_nothing_stops_before_the_closed_form_was_put_to_the_test() -> None:
    hopeless = expected(0.0, 0.1, 3.0)
    assert stops(hopeless, study(), [(0.8, 2.0, -0.45)], slack=None) is None
    assert stops(hopeless, study(stop_early=False), [(0.8, 2.0, -0.45)]) is None
    assert stops(hopeless, study(), [(0.8, 2.0, -0.45)]) == "budget"


def test_without_a_front_nothing_but_the_budget_stops_a_trial() -> None:
    assert stops(expected(0.0, 0.1, 1.05), study(), []) is None
    assert stops(expected(0.0, 0.1, 1.2), study(), []) == "budget"


@pytest.mark.parametrize(
    ("budget", "ratio", "deviation", "stopped"),
    [
        ({"deviation_ratio": 0.01}, 1.5, 0.05, None),  # 0.1 of the target's mse, less 0.1
        ({"deviation_ratio": 0.01}, 1.5, 0.06, "budget"),
        ({"mse_ratio": 1.01}, 1.0, 0.06, None),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.0, 0.06, "budget"),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.2, 0.05, "budget"),
    ],
)
def test_either_bound_of_the_budget_stops_a_trial_with_its_own_slack(
    budget: dict[str, float], ratio: float, deviation: float, stopped: str | None
) -> None:
    metrics = expected(0.5, 1.5, ratio, deviation)
    assert stops(metrics, study(budget=budget), []) == stopped


def decoded(make_trial: Callable[..., Trial], off: float) -> Trial:
    """A trial of which decoding was off the closed form by so much in everything."""
    prediction = {"acceptance_rate": 0.8 - off, "speedup": 1.75 / (1 + off), "mse_ratio": 1 - off}
    return make_trial(prediction=prediction | {"deviation_ratio": 0.025 + off})


def test_the_slack_is_twice_the_worst_that_the_decoded_trials_have_shown(
    make_trial: Callable[..., Trial],
) -> None:
    few = [decoded(make_trial, 0.01 * (n + 1)) for n in range(TRIED - 1)]
    assert Residuals.of(few).slack is None
    assert Residuals.of([*few, *[decoded(make_trial, 0.0)] * TRIED]).slack is None
    stopped = make_trial(stopped="front", prediction={"acceptance_rate": 0.1, "speedup": 9.0})
    slack = Residuals.of([*few, decoded(make_trial, 0.2), stopped]).slack
    assert slack == pytest.approx(Slack(0.4, 0.4, 0.4, 0.4))


def test_a_prediction_tells_what_most_of_those_before_it_stayed_within(
    make_trial: Callable[..., Trial],
) -> None:
    told = expected(0.5, 1.2, 1.0, 0.01)
    first = prediction_of(told, Residuals.of([]).trust, reference_mse=0.5)
    assert first.acceptance_error is None
    trials = [decoded(make_trial, 0.01)] * 19 + [decoded(make_trial, 0.5)]
    later = prediction_of(told, Residuals.of(trials).trust, reference_mse=0.5)
    assert later.deviation_ratio == pytest.approx(0.02)
    assert later.acceptance_error == pytest.approx(0.01)
    assert later.speedup_error == pytest.approx(0.01)
    assert later.mse_ratio_error == pytest.approx(0.01)
    assert later.deviation_ratio_error == pytest.approx(0.01)


def test_a_pair_that_counted_no_number_does_not_forecast_and_the_closed_form_may() -> None:
    row = PairRow(0.5, 1.0, [], [], math.nan, math.nan, math.nan, math.nan)
    with pytest.raises(ValueError, match="mse is nan: the pair does not forecast"):
        metrics_of(row, predicted_speedup=1.0, windows=8)
    assert metrics_of(row, predicted_speedup=1.0, windows=0).mse is None


def test_what_a_trial_is_told_of_those_before_it_does_not_grow_with_them(
    make_trial: Callable[..., Trial],
) -> None:
    sizes = {
        len(pickle.dumps(Residuals.of([decoded(make_trial, 0.01)] * count).trust))
        for count in (20, 2000)
    }
    assert len(sizes) == 1
