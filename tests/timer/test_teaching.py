"""Claims about what a step reads, said in one place, and about those who build on it.

Stepping by `last_reading` is the rollout of every policy; a draft is taught by it, a study refuses
a policy that its target does not know before it trains anything, and a pair of Timers is trained,
taught under `deployed`, judged and benchmarked by the platform as any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foredraft import bank, train
from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.judge import bench
from foredraft.settings.config import Machine, Training, validated
from foredraft.settings.study import Study
from foredraft.train.lessons import Lessons, Teacher
from speculation import ContextPolicy, families, rollout
from speculation.reading import last_reading
from timer import Timer, TimerConfig
from timer_xl import TimerXLConfig

TINY = TimerConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
DATA = "synthetic-etth:rows=1200"
ALONE = Machine(cpus=1, use_gpu=False)
STAGE = {"name": "scratch", "data": DATA, "epochs": 1, "windows_per_epoch": 64, "lr": 0.003}
TAUGHT = {**STAGE, "name": "distill", "rollouts": 3, "windows": 32, "policy": {"kind": "deployed"}}
POLICIES = {
    "deployed": ContextPolicy("deployed"),
    "growing": ContextPolicy("growing"),
    "sliding": ContextPolicy("sliding"),
    "cached": ContextPolicy("cached"),
    "cached, anchored": ContextPolicy("cached", 3),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(config: TimerConfig = TINY) -> Timer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Timer(config).eval().double()


@torch.no_grad()
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_stepping_by_the_last_reading_is_the_rollout(
    make_series: Callable[..., Tensor], policy: ContextPolicy
) -> None:
    model, context_BTC = made(), make_series(2).double()
    history_BNCP = context_BTC.unflatten(1, (-1, TINY.patch)).mT
    for _ in range(8):
        read = last_reading(history_BNCP, TINY, policy)
        newest = read.units.invert(model(read.x_BNCP, last=1).mean)
        history_BNCP = torch.cat((history_BNCP, newest), 1)
    stepped_BTC = history_BNCP[:, TINY.context_patches :].transpose(2, 3).flatten(1, 2)
    rolled_BTC = rollout(model, context_BTC, horizon=64, policy=policy)
    torch.testing.assert_close(stepped_BTC, rolled_BTC, atol=1e-9, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["deployed", "growing"])
def test_a_draft_that_is_the_target_has_nothing_to_learn_from_its_rollout(kind: str) -> None:
    """But for what float16 keeps of the answers."""
    model = made().float()
    training = validated(
        Training,
        {"model": TINY, "stages": [{**TAUGHT, "policy": {"kind": kind}}], "target": "t"},
        source="a test",
    )
    (sets,) = train.datasets(training)
    lessons = Lessons(
        training.stages[0],
        TINY,
        sets,
        split="train",
        seed=0,
        taught=Teacher(model, f"{kind}", "t"),
    )
    seen = set()
    for draw in lessons.every_window(batch=8):
        seen.add(draw.ahead)
        lesson = lessons.lesson(draw, device=torch.device("cpu"))
        said = model(lesson.x_BNCP, last=lesson.y_BMCQ.shape[1]).mean
        assert ((said - lesson.y_BMCQ) * lesson.unit_B1C1).abs().max() < 0.02
    assert {1, 2} <= seen


STUDY = {
    "name": "deployment",
    "target": "somewhere",
    "draft": {"stages": [STAGE], "dtype": "fp32"},
    "evaluation": {"data": DATA, "horizon": 64, "policy": {"kind": "deployed"}},
    "reference": {"kind": "deployed"},
    "acceptance": {"rule": "tolerance", "mse_tol": 0.1},
    "dimensions": {"scale": {"type": "float", "low": 0.5, "high": 1.0}},
}
OTHER = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)


def test_a_study_knows_the_policies_of_its_targets_family() -> None:
    study = validated(Study, STUDY, source="a test")
    study.check_target(TINY)
    refused = "the family timer_xl does not read so; one of sliding, cached would do"
    with pytest.raises(ConfigError, match=f"reference: context policy is 'deployed': {refused}"):
        study.check_target(OTHER)
    plain = {**STUDY, "reference": {"kind": "sliding"}}
    with pytest.raises(ConfigError, match=r"evaluation\.policy: context policy is 'deployed'"):
        validated(Study, plain, source="a test").check_target(OTHER)
    kinds = {"type": "categorical", "choices": ["sliding", "cached", "growing"]}
    searched = {
        **plain,
        "evaluation": {"data": DATA, "horizon": 64},
        "dimensions": {**STUDY["dimensions"], "context_policy": kinds},
    }
    validated(Study, searched, source="a test").check_target(TINY)
    with pytest.raises(ConfigError, match=r"dimensions\.context_policy: .* is 'growing'"):
        validated(Study, searched, source="a test").check_target(OTHER)


def test_a_stage_that_teaches_under_a_policy_of_another_family_is_refused() -> None:
    content = {"model": OTHER, "stages": [TAUGHT], "target": "t"}
    with pytest.raises(ConfigError, match="context policy is 'deployed': the family timer_xl"):
        validated(Training, content, source="a test")


@pytest.mark.timeout(400)
def test_a_pair_of_timers_is_trained_taught_and_judged_as_its_target_is_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"model": TINY, "stages": [STAGE], "dtype": "fp32"}
    training = validated(Training, content, source="a test")
    target = bank.obtain(training, kind="target", storage=tmp_path, machine=ALONE)
    draft_config = TINY.scaled(0.5, patches_out=2)
    content |= {"model": draft_config, "stages": [STAGE, TAUGHT], "target": str(target)}
    training = validated(Training, content, source="a test")
    draft = bank.obtain(training, kind="draft", storage=tmp_path, machine=ALONE)
    pair = ["--target", str(target), "--draft", str(draft), "--data", DATA, "--json"]
    where = ["--storage", str(tmp_path)]
    main(["evaluate", *pair, *where, "--horizon", "40", "--windows", "8", "--pairs", "2"])
    own = json.loads(capsys.readouterr().out.splitlines()[-1])
    flags = ["--horizon", "40", "--windows", "8", "--pairs", "2", "--context-policy"]
    main(["evaluate", *pair, *where, *flags, "deployed"])
    named = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert own["mse"] == named["mse"], "without a word, the target's own policy"
    main(["evaluate", *pair, *where, *flags, "cached"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mse"] != own["mse"]


def test_the_preset_of_full_size_is_univariate_and_benchmarked_as_it_is_deployed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.PRESETS["timer-base"] == TimerConfig()
    monkeypatch.setitem(bench.PRESETS, "timer-base", TINY)
    plan = bench.BenchPlan(batches=(2,))
    assert bench.random_subject("timer-base", plan).contexts_WTC.shape == (2, TINY.context, 1)
    flags = "--preset timer-base --random-weights --batch 1 --horizon 64 --scale 0.5 --pairs 1"
    main(["bench", *flags.split(), "--force-acceptance", "0.9", "--json"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert row["context_policy"] == "deployed"
    assert row["speedup"] > 0
    with pytest.raises(SystemExit) as ended:
        main(["bench", *flags.split(), "--force-acceptance", "0.9", "--reference"])
    assert ended.value.code == 2
    assert "reference is true" in capsys.readouterr().err


@pytest.mark.parametrize("int8", [False, True])
def test_packed_weights_forecast_as_the_models_own(
    make_series: Callable[..., Tensor], int8: bool
) -> None:
    model = families.build(TINY).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for variates in (1, 3):  # one token a step, and several
        context_BTC = make_series(1, variates=variates)
        plain, packed = (
            rollout(way, context_BTC, horizon=64, policy=ContextPolicy("deployed"))
            for way in (model, model.engine(int8=int8))
        )
        assert (plain - packed).abs().max() < (0.5 if int8 else 1e-5)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
