"""Claims about studies: what they train, what they leave behind, what they refuse."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from foredraft import drafts, provenance, report, search
from foredraft.config import ConfigError, validated
from foredraft.forecast import write_forecast
from foredraft.study import Study
from timer_xl import TimerXLConfig

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
        "startup_trials": 2,
        "confirm_pairs": 2,
        "budget": 100.0,
        "machine": {"concurrency": 2, "use_gpu": False},
    } | changes


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A storage in which the tiny study has run, on a real Ray and a real SQLite study."""
    storage = tmp_path_factory.mktemp("storage")
    search.run(validated(Study, study(), source="tiny"), storage=storage)
    return storage


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


def test_each_distinct_draft_is_trained_once(storage: Path) -> None:
    trials = pd.read_parquet(storage / "studies" / "tiny" / "trials.parquet")
    trained = {path.name for path in (storage / "drafts").iterdir()}
    assert trained == set(trials["draft_key"])
    assert all(provenance.is_complete(storage / "drafts" / key) for key in trained)


def test_no_point_of_the_front_is_beaten_in_every_objective(storage: Path) -> None:
    front = json.loads((storage / "studies" / "tiny" / "front.json").read_text())
    assert front

    def goals(point: dict[str, dict[str, float]]) -> tuple[float, float, float]:
        metrics = point["metrics"]
        return metrics["acceptance_rate"], metrics["predicted_speedup"], -metrics["mse"]

    for one in front:
        for other in front:
            assert not all(a < b for a, b in zip(goals(one), goals(other), strict=True))


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


def test_the_report_of_a_study_that_ran_can_be_written(storage: Path) -> None:
    page = report.write_report(storage / "studies" / "tiny").read_text()
    assert "tiny" in page
    assert "plotly" in page


def test_a_study_that_exists_is_refused_and_left_as_it_is(storage: Path) -> None:
    directory = storage / "studies" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    with pytest.raises(ConfigError, match="'tiny' exists"):
        search.run(validated(Study, study(), source="tiny"), storage=storage)
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_a_trial_that_fails_is_recorded_with_its_error_and_the_study_goes_on(
    storage: Path,
) -> None:
    # The smaller draft is in the bank, but its weights cannot be read.
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
    with provenance.atomic_directory(
        drafts.directory_of(smallest, kind="draft", storage=storage)
    ) as spoilt:
        (spoilt / "config.json").write_text(json.dumps(asdict(smallest.model)))
        (spoilt / "metrics.json").write_text('{"curve": []}')
        (spoilt / "model.safetensors").write_bytes(b"no weights")
    directory = search.run(broken, storage=storage)
    trials = pd.read_parquet(directory / "trials.parquet").set_index("settings.scale")
    assert trials.loc[0.5, "state"] == "failed"
    assert "safetensors" in trials.loc[0.5, "error"]
    assert trials.loc[0.75, "state"] == "complete"
