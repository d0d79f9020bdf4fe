"""Claims about Optuna behind Tune; on a real PostgreSQL too, where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from foredraft.errors import ConfigError
from foredraft.search import driver, stops
from foredraft.search.record import TRIAL, own, trial_of, trials_of
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.search.trial import Trial
from foredraft.settings.budgets import Budget
from foredraft.settings.config import validated
from foredraft.settings.study import Study, StudyStopped

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
    url = request.getfixturevalue("postgres").url
    yield url
    optuna.delete_study(study_name="tiny", storage=url)


MakeTrial = Callable[..., Trial]


def report(searcher: OptunaSearcher, trial_id: str, trial: Trial) -> None:
    searcher.on_trial_complete(trial_id, {TRIAL: trial.model_dump_json()})


def ended(what: Study, record: optuna.Study) -> list[Trial]:
    return own(trials_of(record.get_trials(), study=what))


def test_what_was_reported_is_there_once_and_what_was_not_goes_on_under_its_own_number(
    tmp_path: Path, database: str | None, make_trial: MakeTrial
) -> None:
    what = study(database, first=[{"sigma": 10.0, "lookahead": 2}])
    dying = OptunaSearcher(what, open_record(what, tmp_path))
    asked = [dying.suggest(str(number)) for number in range(3)]
    assert asked[0]["settings"] == {"sigma": 10.0, "lookahead": 2}
    report(dying, "0", make_trial(0))
    # The driver dies after trial 1 was kept, and before it was closed.
    dying.asked["1"].set_user_attr(TRIAL, make_trial(1, mse=0.3).model_dump_json())

    record = open_record(what, tmp_path)
    heir = OptunaSearcher(what, record)
    assert [(t.number, t.state) for t in ended(what, record)] == [(0, "complete"), (1, "complete")]
    closed = record.get_trials(states=(TrialState.COMPLETE,))
    assert [trial.values[2] for trial in closed] == [0.4, 0.3]
    again = heir.suggest("anew")
    assert (again["number"], again["settings"]) == (2, asked[2]["settings"])
    assert heir.suggest("next")["number"] == 3


def test_a_trial_that_the_disk_refused_is_no_failed_one_and_goes_on_under_its_own_number(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    what, told = study(), list[Trial]()
    searcher = OptunaSearcher(
        what, open_record(what, tmp_path), is_excused=lambda error: "No space left" in error
    )
    searcher.told.append(told.append)
    asked = [searcher.suggest(str(number)) for number in range(3)]
    report(searcher, "0", make_trial(0))
    report(searcher, "1", make_trial(1, error="weights: No space left on device"))
    report(searcher, "2", make_trial(2, error="whatever came after it"))
    assert [trial.number for trial in told] == [0]
    with pytest.raises(StudyStopped, match="No space left on device"):
        searcher.suggest("more")
    record = open_record(what, tmp_path)
    heir = OptunaSearcher(what, record)
    assert [trial.state for trial in ended(what, record)] == ["complete"]
    again = [heir.suggest(f"again {number}") for number in (1, 2)]
    assert [one["settings"] for one in again] == [one["settings"] for one in asked[1:]]
    assert [one["number"] for one in again] == [1, 2]


def test_what_cannot_be_kept_is_not_told_and_ends_the_study(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("database or disk is full")

    what, told = study(), list[Trial]()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    searcher.told.append(told.append)
    searcher.suggest("0")
    monkeypatch.setattr(searcher.asked["0"], "set_user_attr", full)
    report(searcher, "0", make_trial(0))  # Tune would show what is raised here by its traceback
    assert told == []
    with pytest.raises(OSError, match="disk is full"):
        searcher.suggest("1")


def test_a_database_that_goes_away_ends_a_study_in_one_line_and_loses_nothing(
    tmp_path: Path, postgres: Any, make_trial: MakeTrial
) -> None:
    what = study(postgres.url, name="left")
    directory = tmp_path / "studies" / "left"
    driver._open_directory(what, directory, anew=True, dashboard=None)
    searcher = OptunaSearcher(what, open_record(what, directory))
    asked = [searcher.suggest(str(number)) for number in range(2)]
    report(searcher, "0", make_trial(0))
    postgres.stop()
    try:
        report(searcher, "1", make_trial(1))
        with pytest.raises(StudyStopped) as stopped, stops.in_one_line(what, directory, begun=True):
            searcher.suggest("2")
    finally:
        postgres.start()
    (line,) = str(stopped.value).splitlines()
    assert line.startswith("study 'left' stopped: database postgresql+psycopg://team:***@127.0.0.1")
    assert line.endswith("bring it back, then --resume goes on with it")
    record = open_record(what, directory)
    again = OptunaSearcher(what, record).suggest("1")
    assert [trial.number for trial in ended(what, record)] == [0]
    assert (again["number"], again["settings"]) == (1, asked[1]["settings"])


def test_optuna_is_told_the_truth_of_what_was_stopped_and_what_failed(
    tmp_path: Path, database: str | None, make_trial: MakeTrial
) -> None:
    what = study(database)
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for trial_id in "abcd":
        searcher.suggest(trial_id)
    report(searcher, "a", make_trial(0, mse_ratio=1.5))
    report(searcher, "b", make_trial(1, mse_ratio=1.4, stopped="budget"))
    report(searcher, "c", make_trial(2, stopped="front", mse=None, mse_ratio=None, windows=0))
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
    assert "sigma" in trial_of(dead, study=what).settings


def test_each_bound_of_the_budget_is_a_constraint_and_the_deviation_ratio_an_objective(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    budget = {"mse_ratio": 1.01, "deviation_ratio": 0.02}
    objectives = ["predicted_speedup", "deviation_ratio"]
    what = study(None).model_copy(
        update={"budget": Budget(**budget), "objectives": tuple(objectives)}
    )
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    searcher.suggest("a")
    report(searcher, "a", make_trial(0, deviation=0.012))
    (stored,) = searcher.record.get_trials()
    assert stored.constraints == pytest.approx({"mse_ratio": -0.01, "deviation_ratio": 0.01})
    assert stored.values == pytest.approx([1.75, 0.03])
    assert stored.user_attrs["deviation_ratio"] == pytest.approx(0.03)


def test_a_trial_is_told_the_front_that_it_has_to_reach(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    trials = [make_trial(0), make_trial(1, mse=0.5), make_trial(2, mse=0.1, mse_ratio=2.0)]
    for trial in trials:
        searcher.suggest(str(trial.number))
        report(searcher, str(trial.number), trial)
    assert searcher.suggest("d")["front"] == [(0.8, 1.75, -0.4)]


def test_three_failures_in_a_row_of_one_kind_end_the_search_and_others_do_not(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    errors = ["process 17 died", "no space left", "process 18 died", "process 19 died"]
    for number, error in enumerate([*errors, "process 20 died"]):
        assert searcher.suggest(str(number)) != Searcher.FINISHED
        report(searcher, str(number), make_trial(number, error=error))
    assert searcher.suggest("more") == Searcher.FINISHED
    assert searcher.stuck == "process 20 died"


def test_an_error_is_the_same_one_whatever_trial_and_directory_it_names(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    what = study()
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for number, trial_id in enumerate(["2612bfe9_1", "a9c41d07_2", "b00e6bd3_3"]):
        searcher.suggest(str(number))
        where = f"/tmp/session/Coordinator_{trial_id}_front=,rule={'ab'[number % 2]}"
        error = f"my.csv does not exist (looked from {where})"
        report(searcher, str(number), make_trial(number, error=error))
    assert searcher.stuck
    searcher.errors.append("your.csv does not exist (looked from /tmp)")
    assert not searcher.stuck


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "gp", "random"])
def test_every_sampler_goes_on_past_its_start(
    tmp_path: Path, make_trial: MakeTrial, sampler: str
) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy", reason="sampler gp needs scipy")
    what = study(sampler=sampler, startup_trials=4)
    searcher = OptunaSearcher(what, open_record(what, tmp_path))
    for number in range(6):
        asked = searcher.suggest(str(number))
        assert 0.1 <= asked["settings"]["sigma"] <= 10.0
        trial = make_trial(number, mse=0.1 * number, mse_ratio=0.9 + 0.05 * number)
        report(searcher, str(number), trial)
    assert len(ended(what, searcher.record)) == 6


def test_a_study_of_that_name_with_other_objectives_is_refused(tmp_path: Path) -> None:
    open_record(study(), tmp_path)
    with pytest.raises(ConfigError, match="has other objectives"):
        open_record(study(objectives=["mse", "predicted_speedup"]), tmp_path)


def test_a_password_in_a_databases_address_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_record(study("postgresql://team:hunter2@localhost:1/none"), tmp_path)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
