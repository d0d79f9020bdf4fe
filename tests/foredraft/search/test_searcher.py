"""Claims about Optuna behind Tune; on PostgreSQL too where FOREDRAFT_POSTGRES names one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from foredraft.errors import ConfigError
from foredraft.search.record import ROW, reported
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.settings.config import validated
from foredraft.settings.study import Study

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
DATABASES = ["sqlite", "postgresql"]


def study(database: str | None = None, **changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {
            "sigma": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
            "lookahead": {"type": "int", "low": 1, "high": 4},
        },
        "startup_trials": 2,
        "database": database,
    }
    return validated(Study, tree | changes, source="tiny")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
        return
    url = os.environ.get("FOREDRAFT_POSTGRES")
    if not url:
        pytest.skip("FOREDRAFT_POSTGRES names no PostgreSQL")
    yield url
    optuna.delete_study(study_name="tiny", storage=url)


def row(**changes: Any) -> dict[str, Any]:
    good = {"acceptance_rate": 0.8, "predicted_speedup": 1.5, "mse": 0.4, "mse_ratio": 1.0}
    return {**good, "stopped": None, **changes}


def tell(searcher: OptunaSearcher, trial_id: str, told: dict[str, Any]) -> None:
    searcher.on_trial_complete(trial_id, {ROW: json.dumps(told)})


def test_what_was_reported_is_there_once_and_what_was_not_goes_on_under_its_own_number(
    tmp_path: Path, database: str | None
) -> None:
    what = study(database, first=[{"sigma": 10.0, "lookahead": 2}])
    dying = OptunaSearcher(what, open_record(what, tmp_path))
    asked = [dying.suggest(str(number)) for number in range(3)]
    assert asked[0]["settings"] == {"sigma": 10.0, "lookahead": 2}
    tell(dying, "0", row())
    # The driver dies after the row of trial 1 was kept, and before Optuna was told.
    dying.asked["1"].set_user_attr(ROW, json.dumps(row(mse=0.3)))

    record = open_record(what, tmp_path)
    heir = OptunaSearcher(what, record)
    assert [(t.number, t.state.name) for t in reported(record.get_trials())] == [
        (0, "COMPLETE"),
        (1, "COMPLETE"),
    ]
    again = heir.suggest("anew")
    assert (again["number"], again["settings"]) == (2, asked[2]["settings"])
    assert heir.suggest("next")["number"] == 3


def test_optuna_is_told_the_truth_of_what_was_stopped_and_what_failed(
    tmp_path: Path, database: str | None
) -> None:
    what = study(database)
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for trial_id in "abcd":
        searcher.suggest(trial_id)
    tell(searcher, "a", row(mse_ratio=1.5))
    tell(searcher, "b", row(mse_ratio=1.4, stopped="budget"))
    tell(searcher, "c", {"acceptance_rate": 0.1, "predicted_speedup": 0.5, "stopped": "front"})
    searcher.on_trial_complete("d", None, error=True)
    over, pruned, hopeless, dead = searcher.record.get_trials()
    assert over.state == TrialState.COMPLETE
    assert over.constraints["mse_ratio"] == pytest.approx(0.49)
    assert not searcher.record.best_trials
    assert pruned.state == hopeless.state == TrialState.PRUNED
    assert pruned.constraints["mse_ratio"] == pytest.approx(0.39)
    assert not hopeless.constraints
    assert dead.state == TrialState.FAIL
    assert "died" in dead.user_attrs["error"]


def test_a_trial_is_told_the_front_that_it_has_to_reach(tmp_path: Path) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for trial_id, told in {"a": row(), "b": row(mse=0.5), "c": row(mse=0.1, mse_ratio=2.0)}.items():
        searcher.suggest(trial_id)
        tell(searcher, trial_id, told)
    assert searcher.suggest("d")["front"] == [(0.8, 1.5, -0.4)]


def test_three_failures_in_a_row_of_one_kind_end_the_search_and_others_do_not(
    tmp_path: Path,
) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    errors = ["process 17 died", "no space left", "process 18 died", "process 19 died"]
    for number, error in enumerate([*errors, "process 20 died"]):
        assert searcher.suggest(str(number)) != Searcher.FINISHED
        tell(searcher, str(number), {"error": error})
    assert searcher.suggest("more") == Searcher.FINISHED
    assert searcher.stuck == "process 20 died"


def test_an_error_is_the_same_one_whatever_trial_and_directory_it_names(tmp_path: Path) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for number, trial_id in enumerate(["2612bfe9_1", "a9c41d07_2", "b00e6bd3_3"]):
        searcher.suggest(str(number))
        where = f"/tmp/session/Coordinator_{trial_id}_front=,rule={'ab'[number % 2]}"
        tell(searcher, str(number), {"error": f"my.csv does not exist (looked from {where})"})
    assert searcher.stuck
    other = {"error": "your.csv does not exist (looked from /tmp)"}
    searcher.suggest("more")
    searcher.errors.append(other["error"])
    assert not searcher.stuck


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "gp", "random"])
def test_every_sampler_goes_on_past_its_start(tmp_path: Path, sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy", reason="sampler gp needs scipy")
    what = study(sampler=sampler, startup_trials=4)
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for number in range(6):
        asked = searcher.suggest(str(number))
        assert 0.1 <= asked["settings"]["sigma"] <= 10.0
        tell(searcher, str(number), row(mse=0.1 * number, mse_ratio=0.9 + 0.05 * number))
    assert len(reported(searcher.record.get_trials())) == 6


def test_a_study_of_that_name_with_other_objectives_is_refused(tmp_path: Path) -> None:
    open_record(study(), tmp_path)
    with pytest.raises(ConfigError, match="has other objectives"):
        open_record(study(objectives=["mse", "predicted_speedup"]), tmp_path)


def test_a_password_in_a_databases_address_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_record(study("postgresql://team:hunter2@localhost:1/none"), tmp_path)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
