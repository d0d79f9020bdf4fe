"""Claims about what a study recommends in best.json, on trials whose figures are given.

- Where a gain is established, the pair, with the figure that was timed once more.
- Where none is, the target alone, and why: in best.json, in the terminal and in the report; by such
  a recipe the target forecasts alone, under the study's reference policy, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import bank, data, files
from foredraft.cli import main
from foredraft.cli.studies import Search
from foredraft.report.summary import summary_info
from foredraft.search import results
from foredraft.search.record import Record
from foredraft.search.references import Target
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study
from speculation import checkpoint, rollout
from timer_xl import Engine, TimerXL, TimerXLConfig

MakeTrial = Callable[..., Trial]
CONFIG = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
DATA = "synthetic-etth:rows=1200"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """The directory of a study in which trials came to what is given, each with the same draft."""
    storage = tmp_path / "runs"
    paths = []
    for seed, kind in enumerate(("target", "draft")):
        torch.manual_seed(seed)
        paths.append(bank.add(TimerXL(CONFIG), kind=kind, storage=storage, source=tmp_path))  # type: ignore[arg-type]
    target, draft = paths
    tree = {
        "name": "tiny",
        "target": str(target),
        "draft": {"stages": [{"name": "scratch", "data": DATA, "epochs": 1}]},
        "evaluation": {"data": DATA, "horizon": 48, "policy": {"kind": "cached"}},
        "acceptance": {"rule": "tolerance", "lookahead": 2},
        "dimensions": {"mse_tol": {"type": "float", "low": 0.1, "high": 1.0}},
        "budget": 1.01,
    }
    alone = Target(key=target.name, parameters=1000, patch=8, mse=0.4, mae=0.5)

    def build(make_trial: MakeTrial, *trials: dict[str, Any]) -> Path:
        directory = storage / "studies" / "tiny"
        directory.mkdir(parents=True, exist_ok=True)
        made = [
            make_trial(number, draft={"key": draft.name}, settings={"scale": 0.5}, **trial)
            for number, trial in enumerate(trials)
        ]
        record = Record(validated(Study, tree, source="tiny"), tuple(made), alone)
        results.write(record, directory, target=bank.open_model(target))
        told = summary_info(record).reading[0]
        (directory / "first.txt").write_text(told)
        return directory

    return build


def best_of(directory: Path) -> dict[str, Any]:
    best: dict[str, Any] = json.loads((directory / "best.json").read_text())
    return best


def test_a_gain_that_holds_is_recommended_by_the_figure_that_was_timed_afresh(
    write: Callable[..., Path], make_trial: MakeTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    interval = {"mse_ratio_interval": (0.991, 1.008)}
    directory = write(make_trial, {"speedup": 1.9, "fresh": 1.6, "speedup_low": 1.55, **interval})
    best = best_of(directory)
    assert best["choice"] == "draft and target"
    assert best["metrics"]["speedup"] == 1.6
    assert best["measured"]["cpu"]["speedup"] == 1.9
    assert best["fresh"]["cpu"]["speedup"] == 1.6
    assert best["metrics"]["mse_ratio_interval"] == {"low": 0.991, "high": 1.008}
    assert "at 1.60× the target's speed, by trial 0" in (directory / "first.txt").read_text()
    Search(study=Path("tiny.yaml")).show({"study": "here", "best": best})
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["chosen"] == "trial 0"
    assert told["speedup"].startswith("1.60x [1.55, ")
    assert told["mse_ratio"] == "1.0000 [0.9910, 1.0080]"
    assert told["deviation_ratio"] == "0.0250"
    assert told["budget"] == "mse ratio at most 1.01"
    assert "(mse ratio at most 1.01)" in told["rule"]
    (point,) = json.loads((directory / "front.json").read_text())
    assert point["chosen"]


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([{"speedup": 1.9, "fresh": 0.9, "speedup_low": 0.8}], "measured at 0.90x [0.80, 1.93]"),
        ([{"speedup": 1.9, "fresh": 1.2, "speedup_low": 0.98}], "measured at 1.20x [0.98, 1.93]"),
        ([{"speedup": 0.99, "pairs": 3}], "measured at 0.99x (3 pairs)"),
        ([{"predicted_speedup": 0.86}], "predicted at 0.86x"),
        (
            [{"mse_ratio": 1.5}, {"mse_ratio": 1.2}],
            "none of 2 complete trials kept the budget",
        ),
        ([{"speedup": 12.5, "doubt": "its pairs disagree"}], "no measurement"),
    ],
)
def test_where_no_gain_is_established_the_target_alone_is_recommended_with_the_reason(
    write: Callable[..., Path],
    make_trial: MakeTrial,
    capsys: pytest.CaptureFixture[str],
    trials: list[dict[str, Any]],
    why: str,
) -> None:
    directory = write(make_trial, *trials)
    best = best_of(directory)
    assert best["choice"] == "target alone"
    assert why in best["why"]
    first = (directory / "first.txt").read_text()
    assert first.endswith(f"own forecasts should run the target alone: {best['why']}.")
    Search(study=Path("tiny.yaml")).show({"study": "here", "best": best})
    shown = capsys.readouterr().out
    assert "target alone" in shown
    assert best["why"] in shown
    assert not any(p["chosen"] for p in json.loads((directory / "front.json").read_text()))


def test_a_recipe_of_the_target_alone_forecasts_by_it_and_says_so(
    write: Callable[..., Path],
    make_trial: MakeTrial,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = write(make_trial, {"speedup": 0.76})
    best = best_of(directory)
    known = data.load(DATA)
    values = np.asarray(known.values_TC[-60:, 0], dtype=np.float64)
    time = pd.date_range("2024-01-01", periods=60, freq="h")
    name = known.variates[0]
    pd.DataFrame({"date": time, name: values}).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out.csv"
    words = ["--recipe", str(directory / "best.json"), "--data", str(tmp_path / "new.csv")]
    main(["forecast", *words, "--out", str(out), "--json"])
    shown = capsys.readouterr()
    assert best["why"] in shown.err
    told = json.loads(shown.out.splitlines()[-1])
    assert told["alone"] == best["why"]
    assert (told["acceptance_rate"], told["target_passes"], told["samples"]) == (0.0, 6, 1)

    target = Engine(checkpoint.load((directory / best["target"]["path"]).resolve()))
    mean, deviation = best["reads"]["mean"][0], best["reads"]["deviation"][0]
    context_BTC = torch.tensor((values[-32:] - mean) / deviation).float()[None, :, None]
    alone = rollout(target, context_BTC, horizon=48)[0, :, 0].double().numpy()
    np.testing.assert_allclose(pd.read_csv(out)["mean"], alone * deviation + mean, rtol=1e-3)
    assert best["evaluation"]["policy"]["kind"] == "sliding"


def test_a_recipe_of_the_target_alone_still_needs_its_target(
    write: Callable[..., Path], make_trial: MakeTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write(make_trial, {"speedup": 0.76})
    best = best_of(directory)
    files.atomic_write(directory / "best.json", json.dumps({**best, "target": {}}))
    with pytest.raises(SystemExit) as ended:
        words = ["--recipe", str(directory / "best.json"), "--data", DATA, "--out", "out.csv"]
        main(["forecast", *words])
    assert ended.value.code == 2
    assert "target.path is missing" in capsys.readouterr().err
