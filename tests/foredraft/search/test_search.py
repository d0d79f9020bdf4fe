"""Claims about studies: what they train, what they leave behind, what they refuse."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foredraft import bank, data, files, report
from foredraft.bank import housekeeping
from foredraft.cluster import joining
from foredraft.data import DataError
from foredraft.errors import ConfigError
from foredraft.forecast.forecaster import write_forecast
from foredraft.report import close_up
from foredraft.search import curves, driver, plan
from foredraft.settings.config import validated
from foredraft.settings.study import Study
from speculation import checkpoint
from timer_xl import TimerXL, TimerXLConfig

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1, "lr": 0.003}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


def study(**changes: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
        "draft": {"stages": [{**STAGE, "windows_per_epoch": 64}], "dtype": "fp32"},
        "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {
            "scale": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
            "sigma": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
            "lookahead": {"type": "int", "low": 1, "high": 3},
        },
        "trials": 4,
        "sampler": "random",
        "confirm_pairs": 2,
        "budget": 100.0,
        "machine": {"concurrency": 2, "use_gpu": False},
    } | changes


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A storage in which the tiny study has run, on a real Ray and a real SQLite study."""
    storage = tmp_path_factory.mktemp("storage")
    driver.run(validated(Study, study(), source="tiny"), storage=storage)
    return storage


def test_the_best_of_the_front_is_timed_once_more_and_no_other(storage: Path) -> None:
    front = json.loads((storage / "studies" / "tiny" / "front.json").read_text())
    assert all(set(point["measured"]) == {"cpu"} for point in front)
    believed = [point for point in front if not point["measured"]["cpu"]["doubt"]]
    assert sum(bool(point["fresh"]) for point in front) == bool(believed)


def test_every_trial_has_its_row_and_every_figure_its_column(storage: Path) -> None:
    trials = pd.read_parquet(storage / "studies" / "tiny" / "trials.parquet")
    assert list(trials["number"]) == [0, 1, 2, 3]
    assert set(trials["state"]) == {"complete"}
    assert (
        trials[["acceptance_rate", "predicted_speedup", "mse_ratio", "deviation"]]
        .notna()
        .all(axis=None)
    )
    assert trials.loc[trials["on_front"], "speedup"].gt(0).all()


def test_a_ray_of_our_own_listens_on_this_machine_alone(storage: Path) -> None:
    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    assert "1 node" in joining.cluster_in_words(joining.connect())


def test_every_draft_is_told_beside_the_target_under_its_own_policy(storage: Path) -> None:
    path = storage / "studies" / "tiny" / "references.json"
    references = json.loads(path.read_text())
    assert set(references["target"]["policies"]) == {"sliding"}
    told = references["target"]["policies"]["sliding"]
    assert told["mse"] == pytest.approx(references["target"]["mse"])
    assert {draft["policy"] for draft in references["drafts"]} == {"sliding"}


def test_a_choice_is_told_beside_its_target_and_seasonal_naive(storage: Path) -> None:
    folder = storage / "studies" / "tiny"
    best = json.loads((folder / "best.json").read_text())
    target = json.loads((folder / "references.json").read_text())["target"]
    assert best["references"]["seasonal_naive"] == target["naive"]
    assert best["references"]["target"] == {"mse": target["mse"], "mae": target["mae"]}
    assert target["naive"]["season"] == 24
    assert target["naive"]["mase"] > 0


def test_nothing_of_tunes_own_is_left_of_a_study_that_ended(storage: Path) -> None:
    assert list((storage / "tune").iterdir()) == []


def test_each_distinct_draft_is_trained_once(storage: Path) -> None:
    trials = pd.read_parquet(storage / "studies" / "tiny" / "trials.parquet")
    trained = {path.name for path in (storage / "drafts").iterdir()}
    assert trained == set(trials["draft_key"])
    assert all(files.is_complete(storage / "drafts" / key) for key in trained)


def test_no_point_of_the_front_is_beaten_in_every_objective(storage: Path) -> None:
    front = json.loads((storage / "studies" / "tiny" / "front.json").read_text())
    assert front

    def goals(point: dict[str, dict[str, float]]) -> tuple[float, float, float]:
        metrics = point["metrics"]
        return metrics["acceptance_rate"], metrics["predicted_speedup"], -metrics["mse"]

    for one in front:
        for other in front:
            assert not all(a < b for a, b in zip(goals(one), goals(other), strict=True))


def test_a_few_windows_of_every_trial_are_kept_to_be_looked_at(storage: Path) -> None:
    folder = storage / "studies" / "tiny"
    found = report.study_files.read_study_files(folder)
    for point in found.record.complete:
        example = close_up.example_of(point, found.record, folder)
        assert example
        assert example.windows == (0, 2, 4, 7)
        assert example.of == 8
        patches = len(example.forecast_WHC[0]) / example.patch
        assert example.accepted_WN.shape == (4, patches)
        # The metrics are of eight windows, of which four are kept.
        apart = np.square(example.forecast_WHC - example.target_WHC).mean()
        assert 0 <= apart <= 2.01 * point.outcome.metrics.deviation + 1e-5
        error = np.square(example.target_WHC - example.truth_WHC).mean()
        assert error < 2.01 * point.outcome.reference.mse


def test_a_draft_is_noted_by_what_it_was_asked_for(storage: Path) -> None:
    folder = storage / "studies" / "tiny"
    points = report.study_files.read_study_files(folder).record.complete
    noted = housekeeping.noted(folder)
    asked = {point.outcome.draft.key: point.trial.settings["scale"] for point in points}
    assert {key: own["scale"] for key, own in noted.items()} == asked


def test_a_study_that_runs_shows_the_curves_that_it_will_leave(storage: Path) -> None:
    folder = storage / "studies" / "tiny"
    found = report.study_files.read_study_files(folder)
    left = pd.read_parquet(folder / curves.FILE)
    now = curves.now(found.record, folder)
    columns = ["label", "kind", "stage", "epoch", "train_loss", "validation_loss"]
    in_order = [frame.sort_values(["label", "number"])[columns] for frame in (left, now)]
    pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in in_order))


def test_the_choice_forecasts_a_new_series(storage: Path, tmp_path: Path) -> None:
    time = pd.date_range("2024-01-01", periods=60, freq="h")
    series = pd.DataFrame({"date": time, "a": range(60), "b": [5.0, 7.0] * 30})
    series.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "forecast.csv"
    best = storage / "studies" / "tiny" / "best.json"
    write_forecast(best, str(tmp_path / "new.csv"), out=out, horizon=30)
    forecast = pd.read_csv(out, parse_dates=["time"])
    assert list(forecast.columns) == ["time", "variate", "mean"]
    assert len(forecast) == 60
    assert forecast["time"].min() == time[-1] + pd.Timedelta("1h")
    assert forecast["mean"].notna().all()


def recipe(storage: Path, name: str, **changes: object) -> Path:
    """A pair of the tiny study with changes, whether or not it gains anything."""
    folder = storage / "studies" / "tiny"
    point = json.loads((folder / "front.json").read_text())[0]
    pair = {
        "choice": "draft and target",
        "draft": {"path": f"../../drafts/{point['draft']['draft_key']}"},
        "acceptance": point["acceptance"],
        "plan": None,
    }
    best = json.loads((folder / "best.json").read_text())
    (folder / name).write_text(json.dumps(best | pair | changes))
    return folder / name


def series(path: Path, *, freq: str = "h", factor: float = 1.0, name: str = "HUFL") -> str:
    """A file whose first variate goes by the name of one that the recipe knows."""
    known = data.load(str(STAGE["data"]))
    values = known.values_TC[-60:, known.variates.index(name)] * factor
    time = pd.date_range("2024-01-01", periods=60, freq=freq)
    pd.DataFrame({"date": time, name: values, "b": [5.0, 7.0] * 30}).to_csv(path, index=False)
    return str(path)


def test_a_rule_that_samples_forecasts_quantiles_in_order(storage: Path, tmp_path: Path) -> None:
    rule = {"rule": "lossless", "sigma": 0.3, "propose": "sample", "emit": "draft", "lookahead": 2}
    told: list[int] = []
    write_forecast(
        recipe(storage, "sampled.json", acceptance=rule),
        series(tmp_path / "new.csv"),
        out=tmp_path / "forecast.parquet",
        samples=40,
        progress=lambda done, total: told.append(done),
    )
    forecast = pd.read_parquet(tmp_path / "forecast.parquet")
    assert list(forecast.columns) == ["time", "variate", "mean", "q10", "q50", "q90"]
    assert len(forecast) == 2 * 60
    assert (forecast["q10"] < forecast["q50"]).all()
    assert (forecast["q50"] < forecast["q90"]).all()
    assert told[-1] == 40


def test_a_recipe_refuses_data_of_another_step_or_unit_and_models_of_another_patch(
    storage: Path, tmp_path: Path
) -> None:
    best, out = storage / "studies" / "tiny" / "best.json", tmp_path / "forecast.csv"
    write_forecast(best, series(tmp_path / "same.csv"), out=out)
    with pytest.raises(DataError, match=r"15min.*12 rows of h"):
        write_forecast(best, series(tmp_path / "step.csv", freq="15min"), out=out)
    with pytest.raises(DataError, match=r"HUFL has mean .* the recipe's scaler has"):
        write_forecast(best, series(tmp_path / "unit.csv", factor=1000.0), out=out)
    reads = json.loads(best.read_text())["reads"] | {"patch": 24}
    with pytest.raises(ConfigError, match=r"patch of the target is 12, .* found with 24"):
        write_forecast(
            recipe(storage, "patch.json", reads=reads), series(tmp_path / "same.csv"), out=out
        )


def test_optunas_dashboard_opens_the_studys_storage(storage: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    app = dashboard.wsgi(f"sqlite:///{storage / 'studies' / 'tiny' / 'study.db'}")
    answered = []
    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/api/studies",
        "wsgi.input": io.BytesIO(),
        "SERVER_NAME": "here",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    body = b"".join(app(request, lambda status, headers, error=None: answered.append(status)))
    assert answered == ["200 OK"]
    (told,) = json.loads(body)["study_summaries"]
    assert told["study_name"] == "tiny"
    assert told["directions"] == ["maximize", "maximize", "minimize"]


def test_every_trial_has_a_run_in_tensorboard_with_its_settings(storage: Path) -> None:
    runs = sorted((storage / "tensorboard" / "tiny").iterdir())
    assert [run.name for run in runs] == [f"trial-{number:04d}" for number in range(4)]
    events = EventAccumulator(str(runs[0])).Reload()
    assert "predicted_speedup" in events.Tags()["scalars"]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_dry_run_counts_what_is_trained_already_and_trains_nothing(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(storage.rglob("*"))
    planned = plan.of(validated(Study, study(), source="tiny"), storage=storage)
    assert planned["distinct_drafts"] == 2
    assert planned["training_s"] == 0
    other = study(draft={"stages": [{**STAGE, "windows_per_epoch": 96}], "dtype": "fp32"})
    assert plan.of(validated(Study, other, source="other"), storage=storage)["training_s"] > 0
    assert set(storage.rglob("*")) == before


def test_a_dry_run_tells_what_distillation_costs_before_there_is_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stages = [{**STAGE, "windows_per_epoch": 64}]
    alone = study(draft={"stages": stages, "dtype": "fp32"})
    distill = {"name": "distill", "data": STAGE["data"], "epochs": 50}
    taught = study(draft={"stages": [*stages, distill], "dtype": "fp32"})
    costs = [
        plan.of(validated(Study, tree, source="tiny"), storage=tmp_path / "runs")
        for tree in (alone, taught)
    ]
    assert costs[1]["training_s"] > costs[0]["training_s"] > 0
    assert {draft["key"] for draft in costs[1]["drafts"]} == {None}
    assert not (tmp_path / "runs").exists()


def test_a_resumed_study_adds_the_trials_that_are_asked_for_and_repeats_none(
    storage: Path,
) -> None:
    directory = storage / "studies" / "tiny"
    before = pd.read_parquet(directory / "trials.parquet").set_index("number")
    driver.run(validated(Study, study(trials=5), source="tiny"), storage=storage, resume=True)
    after = pd.read_parquet(directory / "trials.parquet").set_index("number")
    assert list(after.index) == [0, 1, 2, 3, 4]
    pd.testing.assert_series_equal(before["mse"], after["mse"].iloc[:4])
    with pytest.raises(ConfigError, match="budget of study 'tiny' has changed"):
        changed = validated(Study, study(budget=2.0), source="tiny")
        driver.run(changed, storage=storage, resume=True)


def test_a_second_study_starts_from_the_trials_of_the_first(storage: Path) -> None:
    second = study(name="second", warm_start="tiny", trials=1, sampler="gp")
    directory = driver.run(validated(Study, second, source="second"), storage=storage)
    trials = pd.read_parquet(directory / "trials.parquet")
    assert list(trials["from_study"].fillna("")) == ["tiny"] * 5 + [""]


@pytest.mark.timeout(600)  # of each draft some 10,000 rules are looked at
def test_a_nested_study_decodes_only_what_is_expected_to_add_to_its_front(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nested = study(name="nested", sampler="nested", trials=6, machine={"use_gpu": False})
    directory = driver.run(validated(Study, nested, source="nested"), storage=storage)
    assert "rules in closed form" in capsys.readouterr().err
    trials = pd.read_parquet(directory / "trials.parquet")
    assert 1 <= len(trials) <= 6
    assert set(trials["state"]) == {"complete"}
    volumes = trials["hypervolume"].tolist()
    chance = pd.read_parquet(storage / "studies" / "tiny" / "trials.parquet")["hypervolume"]
    assert volumes[-1] >= chance.max() * 0.99
    stored = optuna.load_study(study_name="nested", storage=f"sqlite:///{directory / 'study.db'}")
    keys = {trial.user_attrs["draft_key"] for trial in stored.trials}
    assert keys == set(trials["draft_key"])


def test_the_report_of_a_study_that_ran_can_be_written(storage: Path) -> None:
    page = report.write_report(storage / "studies" / "tiny").read_text()
    assert "tiny" in page
    assert "plotly" in page


def test_a_study_that_exists_is_refused_and_left_as_it_is(storage: Path) -> None:
    directory = storage / "studies" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    with pytest.raises(ConfigError, match="'tiny' exists"):
        driver.run(validated(Study, study(), source="tiny"), storage=storage)
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_a_trial_that_fails_is_recorded_with_its_error_and_the_study_goes_on(
    storage: Path,
) -> None:
    # The smaller draft is in the bank, but its weights are no numbers.
    acceptance = {"rule": "tolerance", "mse_tol": 0.5}
    dimensions = {
        "scale": {"type": "categorical", "choices": [0.5, 0.75]},
        "lookahead": {"type": "int", "low": 1, "high": 3},
    }
    first = [{"scale": 0.5, "lookahead": 1}, {"scale": 0.75, "lookahead": 1}]
    broken = validated(
        Study,
        study(
            name="broken",
            dimensions=dimensions,
            acceptance=acceptance,
            first=first,
            trials=2,
            draft={"stages": [{**STAGE, "windows_per_epoch": 64}], "dtype": "fp32", "seed": 5},
        ),
        source="broken",
    )
    smallest = broken.drafts_of(TimerXLConfig(**MODEL), path=storage)[0]
    with files.atomic_directory(
        bank.directory_of(smallest, kind="draft", storage=storage, machine=broken.machine)
    ) as spoilt:
        model = TimerXL(smallest.model)
        model.load_state_dict({k: v * math.nan for k, v in model.state_dict().items()})
        checkpoint.save(model, spoilt)
        (spoilt / "metrics.json").write_text('{"curve": []}')
    directory = driver.run(broken, storage=storage)
    trials = pd.read_parquet(directory / "trials.parquet").set_index("settings.scale")
    assert trials.loc[0.5, "state"] == "failed"
    assert "does not forecast" in trials.loc[0.5, "error"]
    assert trials.loc[0.75, "state"] == "complete"
