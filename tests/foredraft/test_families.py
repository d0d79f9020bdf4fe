"""Claims about families of models: one more is one more folder, and nothing else.

A toy family (`tests/families/seasonal`: a seasonal-naive forecaster with a linear head) is trained,
taught, kept, judged, timed and searched by the seam alone. It is found by its name, which every
file that describes an architecture states; Timer-XL's descriptions and keys are what they were
before there were families.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

from foredraft import bank, data, train
from foredraft.cluster import joining
from foredraft.errors import ConfigError
from foredraft.judge import bench, evaluate, timing
from foredraft.judge.examine import Examiner, default_rule
from foredraft.search import driver, plan
from foredraft.settings.config import Evaluation, Machine, Training, validated
from foredraft.settings.study import Study
from speculation import ContextPolicy, InvalidInput, checkpoint, families, rollout, speculate
from speculation.heads import HeadsConfig
from timer_xl import TimerXLConfig

FAMILIES = Path(__file__).parents[1] / "families"
DATA = "synthetic-etth:rows=1200"
STAGE = {"name": "scratch", "data": DATA, "epochs": 1, "windows_per_epoch": 128, "lr": 0.01}
MODEL = {"family": "seasonal", "patch": 8, "context": 32, "width": 16}
ALONE = Machine(cpus=1, use_gpu=False)


@pytest.fixture(autouse=True)
def _seasonal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toy family can be imported, and is not yet."""
    monkeypatch.syspath_prepend(FAMILIES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def target_training() -> Training:
    content = {"model": MODEL, "stages": [STAGE], "dtype": "fp32"}
    return validated(Training, content, source="a test")


def draft_training(target: Path, *, patches_out: int = 1) -> Training:
    config = bank.open_model(target).config.scaled(0.5, patches_out=patches_out)
    stages = [STAGE, {**STAGE, "name": "distill", "rollouts": 2, "windows": 64}]
    content = {"model": config, "stages": stages, "target": str(target), "dtype": "fp32"}
    return validated(Training, content, source="a test")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return bank.obtain(target_training(), kind="target", storage=tmp_path, machine=ALONE)


def test_a_target_and_a_taught_draft_of_another_family_are_trained_kept_and_examined(
    target: Path, tmp_path: Path
) -> None:
    training = draft_training(target, patches_out=2)
    path = bank.obtain(
        training, kind="draft", storage=tmp_path, machine=ALONE, examine=Examiner.of(training)
    )
    assert bank.open_model(path).config == training.model
    assert bank.open_model(path).metrics["accept_length"] >= 1
    assert checkpoint.load(path).config == training.model
    assert json.loads((path / checkpoint.CONFIG).read_text())["family"] == "seasonal"
    told = json.loads((path / "training.json").read_text())
    assert Training.model_validate(told) == training


@pytest.mark.parametrize("policy", [ContextPolicy(), ContextPolicy("cached", 3)])
def test_a_pair_of_another_family_is_judged_timed_and_predicted(
    target: Path, policy: ContextPolicy
) -> None:
    model = checkpoint.load(target)
    evaluation = Evaluation(data=DATA, horizon=40, windows=8, policy=policy)
    device = torch.device("cpu")
    judging = evaluate.ready(model, evaluation, device)
    drafting = evaluate.ready(families.build(model.config.scaled(0.5)), evaluation, device)
    windows = evaluate.draw_windows(evaluation, model.config)
    alone_WHC = evaluate.forecast_alone(judging, windows, evaluation=evaluation)
    rule = default_rule(drafting.config)
    row = evaluate.judge_pair(
        judging, drafting, rule, windows, evaluation=evaluation, alone_WHC=alone_WHC
    )
    assert math.isfinite(row.mse_ratio)
    costs = timing.calibrate(judging, drafting, windows, lookahead=2, evaluation=evaluation)
    assert costs.step_anchor_s == (0.0,), "what keeps nothing pays nothing for an anchor"
    itself = evaluate.judge_pair(
        judging, judging, rule, windows, evaluation=evaluation, alone_WHC=alone_WHC
    )
    assert itself.acceptance_rate == 1
    assert itself.deviation < 1e-10


def test_what_a_family_forecasts_alone_is_its_last_patch_and_its_head_again_and_again() -> None:
    model = families.build(families.architecture_of(MODEL)).eval()
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    context_BTC = torch.randn(2, 32, 3, generator=torch.Generator().manual_seed(0))
    for policy in (ContextPolicy(), ContextPolicy("cached"), ContextPolicy("cached", 2)):
        forecast_BTC = rollout(model, context_BTC, horizon=20, policy=policy)
        wanted = context_BTC[:, -8:].repeat(1, 3, 1)[:, :20]
        torch.testing.assert_close(forecast_BTC, wanted, atol=1e-5, rtol=0)


def test_models_of_two_families_speculate_together_and_are_known_to_differ_in_units(
    target: Path,
) -> None:
    judging = checkpoint.load(target)
    drafting = families.build(
        TimerXLConfig(patch=8, context=32, d_model=8, n_heads=1, d_ff=8, n_layers=1)
    ).eval()
    context_BTC = torch.randn(4, 32, 3, generator=torch.Generator().manual_seed(0))
    for policy in (ContextPolicy(), ContextPolicy("cached")):
        told = speculate(
            judging,
            drafting,
            context_BTC,
            horizon=40,
            acceptance=default_rule(drafting.config),
            policy=policy,
        )
        assert told.accepted < told.proposed
        if policy.kind == "sliding":
            alone_BTC = rollout(judging, context_BTC, horizon=40)
            torch.testing.assert_close(told.forecast_BTC, alone_BTC, atol=1.0, rtol=0)


def test_a_family_that_shows_no_hidden_state_has_no_heads(target: Path) -> None:
    with pytest.raises(InvalidInput, match="the family seasonal shows none; draft with a model"):
        HeadsConfig.of(bank.open_model(target).config)


def test_a_benchmark_takes_a_pair_of_any_family(target: Path) -> None:
    model = checkpoint.load(target)
    draft = families.build(model.config.scaled(0.5))
    context_BTC = torch.randn(1, 32, 3)
    grid = bench.BenchPlan(batches=(1,), horizons=(40,), lookaheads=(2,), pairs=2)
    rows = bench.bench(
        grid,
        bench.Subject(lambda _: (model, draft), context_BTC),
        device=torch.device("cpu"),
        scales=(None,),
    )
    assert rows[0]["speedup"] > 0
    with pytest.raises(InvalidInput, match="int8 is true: the family seasonal"):
        draft.engine(int8=True)


def test_the_key_of_a_model_holds_its_family_and_that_familys_version() -> None:
    facts = bank.facts_of(target_training(), machine=ALONE)
    assert facts["model"]["family"] == "seasonal"
    assert facts["versions"] == {"seasonal": 1, "data": data.VERSION, "train": train.VERSION}


def test_timer_xl_is_told_in_a_key_as_before_there_were_families() -> None:
    training = Training(model=TimerXLConfig(), stages=target_training().stages)
    told = training.model_dump(mode="json")["model"]
    assert "family" not in told
    assert Training.model_validate(training.model_dump(mode="json")) == training
    named = {**told, "family": "timer_xl"}
    assert Training.model_validate({**training.model_dump(), "model": named}) == training


def test_a_model_on_disk_that_names_no_family_is_a_timer_xl(tmp_path: Path) -> None:
    config = TimerXLConfig(patch=4, context=8, d_model=8, n_heads=1, d_ff=8, n_layers=1)
    checkpoint.save(families.build(config), tmp_path)
    content = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    assert content.pop("family") == "timer_xl"
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(content))
    assert checkpoint.load(tmp_path).config == config


@pytest.mark.parametrize("name", ["seasonnal", "no_family_at_all", "../x", 7, None])
def test_a_family_that_is_not_there_is_refused_in_one_line(name: object) -> None:
    content = {"model": {**MODEL, "family": name}, "stages": [STAGE]}
    with pytest.raises(ConfigError, match=r"model family is .*: there is no such family") as told:
        validated(Training, content, source="mine.yaml")
    assert "\n" not in str(told.value)


def test_a_package_that_is_no_family_is_not_run_to_find_that_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "innocent").mkdir()
    (tmp_path / "innocent" / "__init__.py").write_text("raise SystemExit('was run')")
    with pytest.raises(InvalidInput, match="there is no such family"):
        families.family_of("innocent")
    assert "innocent" not in sys.modules


def test_a_field_of_another_family_is_refused_by_its_name() -> None:
    content = {"model": {**MODEL, "d_model": 8}, "stages": [STAGE]}
    with pytest.raises(ConfigError, match=r"mine.yaml: model.d_model is not known"):
        validated(Training, content, source="mine.yaml")


STUDY = {
    "name": "seasons",
    "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
    "draft": {"stages": [STAGE], "dtype": "fp32"},
    "evaluation": {"data": DATA, "horizon": 40, "windows": 8},
    "acceptance": {"rule": "tolerance"},
    "dimensions": {
        "width": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
        "mse_tol": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
        "lookahead": {"type": "int", "low": 1, "high": 3},
    },
    "trials": 2,
    "startup_trials": 2,
    "confirm_pairs": 2,
    "budget": 100.0,
    "machine": {"concurrency": 1, "use_gpu": False},
}


def test_a_depth_is_refused_where_a_family_has_no_layers() -> None:
    study = validated(Study, STUDY | {"draft": {"stages": [STAGE], "depth": 0.5}}, source="seasons")
    with pytest.raises(ConfigError, match=r"^draft\.depth is 0\.5: .* no layers; leave it out$"):
        study.check_target(study.target.model)  # type: ignore[union-attr]


@pytest.fixture
def _workers_know_the_families(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FAMILIES), os.getenv("PYTHONPATH", ""))))
    joining.connect()
    yield
    ray.shutdown()


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_workers_know_the_families")
def test_a_study_of_another_family_is_planned_run_and_written(tmp_path: Path) -> None:
    study = validated(Study, STUDY, source="seasons")
    planned = plan.of(study, storage=tmp_path)
    assert planned["distinct_drafts"] == 2
    directory = driver.run(study, storage=tmp_path)
    trials = pd.read_parquet(directory / "trials.parquet")
    assert set(trials["state"]) <= {"complete", "pruned"}
    best = json.loads((directory / "best.json").read_text())
    assert best["choice"] in ("draft and target", "target alone")
    for key in set(trials["draft_key"]):
        assert checkpoint.load(tmp_path / "drafts" / key).config.family == "seasonal"
