"""Claims about which trials stop early, and which of the front's points is chosen."""

from __future__ import annotations

import math
from typing import Any

import pytest

from foredraft.judge.evaluate import PairRow
from foredraft.search import record
from foredraft.search.judging import Judged, why_stop
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


def judged(acceptance: float, speedup: float, ratio: float = math.nan) -> Judged:
    row = PairRow(acceptance, 1.0, [], [], ratio, ratio, ratio, ratio)
    return Judged(row, speedup, 16, None, None, 0.0)


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


def row(number: int, predicted: float, **changes: Any) -> dict[str, Any]:
    return {
        "number": number,
        "state": "complete",
        "feasible": True,
        "acceptance_rate": 0.5,
        "predicted_speedup": predicted,
        "mse": 0.4,
        **changes,
    }


def test_the_front_is_that_of_the_trials_within_the_budget() -> None:
    rows = [
        row(0, 2.0),
        row(1, 9.0, feasible=False),
        row(2, 1.0),
        row(3, 1.0, mse=0.3),
        {"number": 4, "state": "pruned", "feasible": False},
    ]
    record.mark_front(rows, study())
    assert [one["number"] for one in rows if one["on_front"]] == [0, 3]


def test_the_choice_is_the_fastest_that_was_measured_and_of_equals_the_most_accurate() -> None:
    rows = [
        row(0, 3.0, speedup=1.5, mse=0.4),
        row(1, 2.0, speedup=1.9, mse=0.5),
        row(2, 2.0, speedup=1.9, mse=0.3),
        row(3, 2.0, speedup=9.9, feasible=False),
    ]
    for one in rows:
        one |= {"on_front": True, "confirmed": True}
    best = record.chosen(rows)
    assert best
    assert best["number"] == 2


def test_a_point_that_fell_off_the_front_is_never_its_knee() -> None:
    middle = {"acceptance_rate": 0.9, "mse": 0.31}
    rows = [
        row(0, 1.0, speedup=1.0, on_front=True, confirmed=True, acceptance_rate=1.0),
        row(1, 2.0, speedup=2.0, on_front=True, confirmed=True, mse=0.5),
        row(2, 1.9, speedup=1.9, on_front=True, confirmed=True, **middle),
    ]
    knee = record.knee(rows, study())
    assert knee is rows[2]
    rows[2]["confirmed"] = False
    assert record.knee(rows, study()) is not rows[2]
