"""Claims about a target that was bought: a public Timer, imported, searched, forecast with."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import save_file

from foredraft.cli import main

ROOT = Path(__file__).parents[3]
THEIRS = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "timer" / "generate.py")))
CASE = THEIRS.CASES["a batch"]
DATA = "synthetic-etth:rows=1200"
DEPLOYED = {"kind": "deployed"}


def stage(name: str, **fields: Any) -> dict[str, Any]:
    small = {"epochs": 1, "windows_per_epoch": 64, "variates": 1, "validation_windows": 16}
    return {"name": name, "data": DATA, "lr": 0.002, **small, **fields}


def study(target: str) -> dict[str, Any]:
    """Both kinds of draft for a Timer as its own code runs it by default."""
    return {
        "name": "bought",
        "target": target,
        "draft": {
            "dtype": "fp32",
            "patches_out": 4,
            "stages": [stage("pretrain"), stage("distill", windows=64, policy=DEPLOYED)],
            "heads": {"count": 4, "stages": [stage("heads", windows=64, policy=DEPLOYED)]},
        },
        "evaluation": {"data": DATA, "horizon": 64, "windows": 8, "policy": DEPLOYED},
        "reference": DEPLOYED,
        "acceptance": {"rule": "gaussian", "mse_tol": 50.0, "bias": 100.0},
        "dimensions": {
            "kind": {"type": "categorical", "choices": ["model", "heads"]},
            "sigma": {"type": "float", "low": 0.02, "high": 10.0, "log": True},
            "lookahead": {"type": "int", "low": 1, "high": 4},
        },
        "first": [{"kind": kind, "sigma": 1.0, "lookahead": 4} for kind in ("model", "heads")],
        "objectives": ["acceptance_rate", "predicted_speedup", "deviation_ratio"],
        "budget": {"deviation_ratio": 10.0},
        "trials": 3,
        "confirm_pairs": 1,
        "machine": {"cpus": 1, "use_gpu": False},
    }


def result_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    main([*words, "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_an_imported_timer_is_searched_with_both_kinds_of_draft_and_forecasts_a_users_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None
) -> None:
    bought, storage = tmp_path / "timer-tiny", ("--storage", str(tmp_path / "runs"))
    bought.mkdir()
    save_file(THEIRS.random_state(CASE), bought / "model.safetensors")
    told = {name: value for name, value in CASE.config.items() if value is not None}
    (bought / "config.json").write_text(json.dumps(told))
    flags = ("--family", "timer", "--context", "96", *storage)
    target = result_of(capsys, "import", str(bought), *flags)["key"]

    (tmp_path / "bought.yaml").write_text(yaml.safe_dump(study(target)))
    result_of(capsys, "search", str(tmp_path / "bought.yaml"), *storage)
    directory = tmp_path / "runs" / "studies" / "bought"
    trials = json.loads((directory / "trials.json").read_text())
    assert {trial["settings"]["kind"] for trial in trials} == {"model", "heads"}
    assert all(trial["error"] is None for trial in trials)
    assert (directory / "report.html").is_file()
    (owner,) = (path.name for path in (tmp_path / "runs" / "targets").glob("[!.]*"))
    assert owner == target

    times = pd.date_range("2026-01-01", periods=200, freq="h")
    table = {"date": times, "a": np.sin(np.arange(200) / 4), "b": np.cos(np.arange(200) / 5)}
    pd.DataFrame(table).to_csv(tmp_path / "own.csv", index=False)
    words = ("--data", str(tmp_path / "own.csv"), "--out", str(tmp_path / "forecast.csv"))
    result_of(capsys, "forecast", "--recipe", str(directory / "best.json"), *words)
    forecast = pd.read_csv(tmp_path / "forecast.csv")
    assert forecast["variate"].value_counts().to_dict() == {"a": 64, "b": 64}
    assert np.isfinite(forecast["mean"]).all()
