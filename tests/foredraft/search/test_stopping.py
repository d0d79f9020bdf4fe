"""Claims about which trials stop early."""

from __future__ import annotations

import math
from typing import Any

import pytest

from foredraft.judge.evaluate import PairRow
from foredraft.search.judging import metrics_of, why_stop
from foredraft.search.trial import Metrics
from foredraft.settings.study import Study

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
        "slack": 0.1,
    }
    return Study.model_validate(tree | changes)


def judged(acceptance: float, speedup: float, ratio: float = math.nan) -> Metrics:
    """What a stage tells: the closed form knows no error."""
    row = PairRow(acceptance, 1.0, [], [], ratio, ratio, ratio, ratio)
    windows = 0 if math.isnan(ratio) else 16
    return metrics_of(row, predicted_speedup=speedup, windows=windows)


@pytest.mark.parametrize(
    ("acceptance", "speedup", "ratio", "stopped"),
    [
        (0.6, 1.5, math.nan, None),  # the closed form tells no error: it may be the least of all
        (0.75, 1.5, math.nan, None),  # within the slack of the front's acceptance
        (0.6, 1.9, math.nan, None),  # within the slack of its speedup
        (0.6, 1.5, 1.3, "budget"),
        (0.6, 1.5, 1.05, "front"),  # a target of mse 0.5: at best 0.4725
        (0.6, 1.5, 0.95, None),
    ],
)
def test_a_trial_stops_only_where_it_would_fail_even_if_the_stage_were_wrong_by_the_slack(
    acceptance: float, speedup: float, ratio: float, stopped: str | None
) -> None:
    best = [(0.8, 2.0, -0.45)]
    trial = judged(acceptance, speedup, ratio)
    assert why_stop(trial, study(), best, target_mse=0.5) == stopped


def test_a_stage_that_tells_every_objective_stops_for_the_front_by_itself() -> None:
    what = study(objectives=["acceptance_rate", "predicted_speedup"])
    assert why_stop(judged(0.6, 1.5), what, [(0.8, 2.0)], target_mse=0.5) == "front"
    assert why_stop(judged(0.75, 1.5), what, [(0.8, 2.0)], target_mse=0.5) is None


def test_without_a_front_nothing_but_the_budget_stops_a_trial() -> None:
    assert why_stop(judged(0.0, 0.1), study(), [], target_mse=0.5) is None
    assert why_stop(judged(0.0, 0.1, 1.2), study(), [], target_mse=0.5) == "budget"


def test_a_pair_that_counted_no_number_does_not_forecast_and_the_closed_form_may() -> None:
    row = PairRow(0.5, 1.0, [], [], math.nan, math.nan, math.nan, math.nan)
    with pytest.raises(ValueError, match="mse is nan: the pair does not forecast"):
        metrics_of(row, predicted_speedup=1.0, windows=8)
    assert metrics_of(row, predicted_speedup=1.0, windows=0).mse is None
