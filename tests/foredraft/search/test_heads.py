"""Claims about a study in which models and heads compete: each is trained, judged and told.

Sizes are drawn for models alone; a recipe with heads forecasts, and not beside another target.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from foredraft import bank, report
from foredraft.errors import ConfigError
from foredraft.forecast.forecaster import read_recipe, write_forecast
from foredraft.search import driver
from foredraft.settings.config import Machine, Training, validated
from foredraft.settings.study import Study

DATA = "synthetic-etth:rows=1200"
STAGE = {"name": "scratch", "data": DATA, "epochs": 1, "lr": 0.003, "windows_per_epoch": 64}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
HEADS = {
    "stages": [{"name": "heads", "data": DATA, "epochs": 2, "windows": 64}],
    "count": 3,
    "hidden": 16,
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    storage = tmp_path_factory.mktemp("storage")
    study = {
        "name": "kinds",
        "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
        "draft": {"stages": [STAGE], "heads": HEADS, "dtype": "fp32"},
        "evaluation": {"data": DATA, "horizon": 60, "windows": 8},
        "acceptance": {"rule": "tolerance", "mse_tol": 10.0},
        "dimensions": {
            "kind": {"type": "categorical", "choices": ["model", "heads"]},
            "scale": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
            "lookahead": {"type": "int", "low": 1, "high": 3},
        },
        "first": [
            {"kind": "heads", "lookahead": 3},
            {"kind": "model", "scale": 0.5, "lookahead": 2},
        ],
        "sampler": "tpe",
        "trials": 3,
        "startup_trials": 2,
        "confirm_pairs": 2,
        "budget": 100.0,
        "machine": {"concurrency": 2, "use_gpu": False},
    }
    driver.run(validated(Study, study, source="kinds"), storage=storage)
    return storage


def test_both_kinds_are_trained_and_judged_and_only_models_have_a_scale(storage: Path) -> None:
    trials = pd.read_parquet(storage / "studies" / "kinds" / "trials.parquet")
    assert set(trials["state"]) == {"complete"}
    kinds = dict(zip(trials["number"], trials["settings.kind"], strict=True))
    assert (kinds[0], kinds[1]) == ("heads", "model")
    assert trials.loc[trials["settings.kind"] == "heads", "settings.scale"].isna().all()
    assert trials.loc[trials["settings.kind"] == "model", "settings.scale"].notna().all()
    assert trials["predicted_speedup"].gt(0).all()


def test_heads_alone_have_a_row_of_their_own(storage: Path) -> None:
    told = json.loads((storage / "studies" / "kinds" / "references.json").read_text())
    heads = [draft for draft in told["drafts"] if draft["hidden"]]
    assert [(one["hidden"], one["patches_out"], one["scale"]) for one in heads] == [(16, 3, None)]
    assert heads[0]["mse"] > 0
    assert heads[0]["speedup_alone"] > 0


def test_the_page_tells_heads_from_models(storage: Path) -> None:
    page = report.write_report(storage / "studies" / "kinds").read_text()
    assert "3 heads, 16 wide" in page


def test_a_recipe_with_heads_forecasts_and_not_beside_another_target(
    storage: Path, tmp_path: Path
) -> None:
    trials = json.loads((storage / "studies" / "kinds" / "trials.json").read_text())
    key = next(t["outcome"]["draft"]["key"] for t in trials if t["settings"]["kind"] == "heads")
    study = storage / "studies" / "kinds"
    target = next((storage / "targets").iterdir())
    found = json.loads((study / "best.json").read_text())
    recipe = {
        "choice": "draft and target",
        **{name: found[name] for name in ("evaluation", "reads")},
        "acceptance": {"rule": "tolerance", "mse_tol": 0.5, "lookahead": 3},
        "plan": None,
        "target": {"path": f"../../targets/{target.name}"},
        "draft": {"path": f"../../drafts/{key}"},
    }
    (study / "mine.json").write_text(json.dumps(recipe))
    told = write_forecast(study / "mine.json", DATA, out=tmp_path / "forecast.csv")
    assert told["target_passes"] <= 5
    other = bank.obtain(
        Training.model_validate({"model": MODEL, "stages": [STAGE], "dtype": "fp32", "seed": 1}),
        kind="target",
        storage=storage,
        machine=Machine(cpus=1, use_gpu=False),
    )
    recipe["target"] = {"path": f"../../targets/{other.name}"}
    (study / "mine.json").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match=f"draft {key} is heads of another target"):
        read_recipe(study / "mine.json")
    shutil.rmtree(other)
