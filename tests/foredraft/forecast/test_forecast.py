"""Claims about forecasting by a recipe: in which units it reads, and what it refuses beforehand.

- A variate that the recipe knows is standardised as it was when the recipe was found.
- A rule that adapts decodes as many samples at once as its plan has costs for.
- An edited or moved recipe, and an `--out` that is the data or cannot be written, are one line with
  exit code 2, said before anything is forecast.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import forecast
from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.forecast import forecaster
from speculation import Lossless, Tolerance, checkpoint, rollout
from timer_xl import Engine

PATCH, CONTEXT = 8, 32  # of the models in the storage
MEAN, DEVIATION = 100.0, 20.0
COSTS = {
    "batches": [1],
    "step_s": [1.0],
    "verify_s": [[1.0, 1.0, 1.0]],
    "draft_s": [[0.0, 0.1, 0.2]],
    "step_anchor_s": [0.0],
    "round_anchor_s": [0.0],
}
ADAPTS = Lossless(sigma=0.3, lookahead=2, adapt=True)


def recipe(storage: Path, **changes: Any) -> Path:
    choice = {
        "target": {"path": "../../targets/one"},
        "draft": {"path": "../../drafts/one"},
        "acceptance": asdict(Tolerance(mse_tol=0.0, lookahead=2)),
        "evaluation": {"data": "known.csv", "horizon": 24},
        "plan": None,
        "reads": {
            "patch": PATCH,
            "context": CONTEXT,
            "step": "h",
            "variates": ["load"],
            "mean": [MEAN],
            "deviation": [DEVIATION],
        },
    }
    path = storage / "studies" / "mine" / "best.json"
    path.write_text(json.dumps(choice | changes))
    return path


def series(*, spread: float = 1.0, rows: int = 60) -> str:
    noise = np.random.default_rng(0).normal(size=rows)
    values = MEAN + spread * DEVIATION * noise
    time = pd.date_range("2024-01-01", periods=rows, freq="h")
    pd.DataFrame({"date": time, "load": values}).to_csv("mine.csv", index=False)
    return "mine.csv"


def test_a_calm_context_is_read_in_the_units_of_the_recipe(storage: Path) -> None:
    source = series(spread=0.04)
    forecast.write_forecast(recipe(storage), source, out=Path("out.csv"))
    context = pd.read_csv(source)["load"].to_numpy()[-CONTEXT:]
    target = Engine(checkpoint.load(storage / "targets" / "one"))

    def alone(mean: float, deviation: float) -> np.ndarray:
        scaled_BTC = torch.tensor((context - mean) / deviation).float()[None, :, None]
        values: np.ndarray = rollout(target, scaled_BTC, horizon=24)[0, :, 0].double().numpy()
        return values * deviation + mean

    written = pd.read_csv("out.csv")["mean"].to_numpy()
    unit = context.std()
    assert np.abs(written - alone(MEAN, DEVIATION)).max() < 1e-3 * unit
    assert np.abs(written - alone(context.mean(), unit)).max() > 1e-3 * unit


def test_samples_of_a_rule_that_adapts_are_drawn_at_the_batch_of_its_plan(storage: Path) -> None:
    plan = {"costs": COSTS, "pass_rates": [0.9, 0.9]}
    path = recipe(storage, acceptance=asdict(ADAPTS), plan=plan)
    told: list[int] = []
    forecast.write_forecast(
        path, series(), out=Path("out.csv"), samples=3, progress=lambda done, _: told.append(done)
    )
    assert told == [1, 2, 3]


@pytest.mark.parametrize("draws", [False, True])
def test_variates_are_forecast_as_many_together_as_the_recipe_was_found_with(
    storage: Path, draws: bool
) -> None:
    time = pd.date_range("2024-01-01", periods=60, freq="h")
    noise = np.random.default_rng(0).normal(size=(60, 5)).cumsum(0)
    table = pd.DataFrame({"date": time, **dict(zip("abcde", noise.T, strict=True))})
    found = {}
    for name, columns in (("all", "abcde"), ("ab", "ab"), ("cd", "cd"), ("ea", "ea")):
        table[["date", *columns]].to_csv(f"{name}.csv", index=False)
        path = recipe(
            storage,
            acceptance=asdict(Lossless(sigma=1e-9, lookahead=2) if draws else Tolerance(mse_tol=0)),
            evaluation={"data": "known.csv", "horizon": 24, "variates": 2},
        )
        told = forecast.write_forecast(path, f"{name}.csv", out=Path("out.csv"), samples=3)
        assert told["variates"] == len(columns)
        found[name] = pd.read_csv("out.csv").pivot(index="time", columns="variate", values="mean")
    assert list(found["all"].columns) == list("abcde")
    for name, columns in (("ab", "ab"), ("cd", "cd"), ("ea", "e")):
        np.testing.assert_allclose(
            found["all"][list(columns)], found[name][list(columns)], atol=1e-4
        )


def refused(path: Path, capsys: pytest.CaptureFixture[str], *more: str, out: str = "o.csv") -> str:
    words = ["forecast", "--recipe", str(path), "--data", series(), "--out", out, *more]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("foredraft: ")


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda choice: choice.pop(name)


def setting(*path: str, to: Any) -> Callable[[dict[str, Any]], object]:
    def change(choice: dict[str, Any]) -> None:
        *parents, last = path
        for part in parents:
            choice = choice[part]
        choice[last] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("reads"), "reads is missing"),
        (without("target"), "target is missing"),
        (setting("reads", to={"context": 32}), "reads.patch is missing"),
        (setting("draft", to=3), "draft is 3"),
        (setting("evaluation", "horizon", to="soon"), "evaluation.horizon is 'soon'"),
        (setting("evaluation", "horizont", to=3), "evaluation.horizont is not known"),
        (setting("acceptance", "mse_toll", to=3), "acceptance.mse_toll is not known"),
        (setting("acceptance", "lookahead", to=0), "lookahead is 0"),
        (setting("reads", "mean", to=[1.0, 2.0]), "mean has 2 numbers for 1 variates"),
        (setting("plan", to={"costs": COSTS, "pass_rates": [0.9]}), "plan goes with a rule"),
    ],
)
def test_an_edited_recipe_is_refused_with_its_field(
    storage: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    path = recipe(storage)
    choice = json.loads(path.read_text())
    change(choice)
    path.write_text(json.dumps(choice))
    line = refused(path, capsys)
    assert said in line
    assert "best.json" in line


@pytest.mark.parametrize(
    "costs", [COSTS | {"verify_s": [[1.0]]}, COSTS | {"step_s": [1.0, 2.0]}, {"batches": [1]}]
)
def test_a_plan_of_another_shape_is_refused(
    storage: Path, capsys: pytest.CaptureFixture[str], costs: dict[str, Any]
) -> None:
    plan = {"costs": costs, "pass_rates": [0.9, 0.9]}
    assert "plan" in refused(recipe(storage, acceptance=asdict(ADAPTS), plan=plan), capsys)


def test_a_moved_recipe_says_where_its_models_would_have_been(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "best.json"
    moved.write_text(recipe(storage).read_text())
    line = refused(moved, capsys)
    assert "its target is not at" in line
    assert "use it there, or move the whole storage" in line


def test_a_file_that_is_no_recipe_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.json").write_text("{")
    assert "is not JSON" in refused(tmp_path / "text.json", capsys)
    (tmp_path / "list.json").write_text("[]")
    assert "is no mapping" in refused(tmp_path / "list.json", capsys)
    assert "is no file" in refused(tmp_path / "gone.json", capsys)
    assert "does not exist" in refused(tmp_path, capsys)  # a study's directory would do


def test_what_cannot_be_written_is_refused_before_the_forecast(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(forecaster, "_forecasts", lambda *_: pytest.fail("forecast was computed"))
    path = recipe(storage)
    (tmp_path / "folder.csv").mkdir()
    assert "the data itself" in refused(path, capsys, out="mine.csv")
    assert "which is a directory" in refused(path, capsys, out="folder.csv")
    assert "cannot be written" in refused(path, capsys, out=f"{path}/forecast.csv")
    assert "must end in .csv or .parquet" in refused(path, capsys, out="forecast.txt")


def test_no_forecast_has_no_step(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--horizon is 0" in refused(recipe(storage), capsys, "--horizon", "0")
    assert "--samples is 1" in refused(recipe(storage), capsys, "--samples", "1")
    with pytest.raises(ConfigError, match="horizon is 0"):
        forecast.write_forecast(recipe(storage), series(), out=Path("o.csv"), horizon=0)
