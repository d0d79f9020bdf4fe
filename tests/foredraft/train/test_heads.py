"""Claims about the training of heads: the target is heard once, and stays as it is.

They learn by how much the patches of its rollouts differ from the one beside its state; a training
brings them nearer to the target, goes on where it was cut off, and is one target's alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from foredraft import bank, data, train
from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.judge.examine import Examiner
from foredraft.settings.config import Machine, Stage, Training
from foredraft.train.lessons import Draw, Lesson, Lessons, Teacher
from speculation import ContextPolicy, checkpoint
from speculation.decode import recite
from speculation.heads import Heads, HeadsConfig
from timer_xl import TimerXL, TimerXLConfig

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=12, context=48, d_model=16, n_heads=2, d_ff=32, dropout=0.0)
HEADS = HeadsConfig.of(MODEL, patches_out=3, hidden=16)
POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "renormed": ContextPolicy("cached", renorm_every=2),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def target_in(storage: Path, *, seed: int = 0) -> Path:
    """A target that knows a little of the data."""
    stage = Stage(name="scratch", data=DATA, epochs=1, windows_per_epoch=640, lr=3e-3)
    training = Training(model=MODEL, stages=(stage,), dtype="fp32", seed=seed)
    return bank.obtain(training, kind="target", storage=storage, machine=Machine(cpus=1))


def training(target: Path, **stage: object) -> Training:
    settings = {"name": "heads", "data": DATA, "epochs": 2, "windows": 64, "rollouts": 4} | stage
    stages = (Stage.model_validate(settings),)
    return Training(model=HEADS, stages=stages, target=str(target), dtype="fp32")


def lessons(target: TimerXL, policy: ContextPolicy) -> Lessons:
    stage = Stage(name="heads", data=DATA, windows=20, rollouts=4, policy=policy)
    taught = Teacher(target, "a target", "mine")
    return Lessons(stage, HEADS, {DATA: data.load(DATA)}, split="train", seed=3, taught=taught)


def lesson_of(made: Lessons, index_B: torch.Tensor) -> Lesson:
    return made.lesson(Draw(0, index_B, None), device=torch.device("cpu"))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_heads_learn_what_they_would_have_to_propose(policy: ContextPolicy) -> None:
    torch.manual_seed(0)
    target, index_B = TimerXL(MODEL).eval(), torch.tensor([3, 11, 17])
    made = lessons(target, policy)
    lesson = lesson_of(made, index_B)
    window_BTC = made.sources[0].windows.batch(index_B)
    told = recite(target, window_BTC[:, :48], patches=7, policy=policy)
    assert torch.allclose(lesson.x_BNCP, told.hidden_BNCD[:, :4], atol=3e-3)
    heads = Heads(HEADS)
    for position in range(4):
        # What is learnt, said by heads that have learnt it.
        said = told.patches_BNCP[:, position : position + 1] + told.unit_BNC1[
            :, position if told.unit_BNC1.shape[1] > 1 else 0
        ][:, None] * lesson.y_BMCQ[:, position].unflatten(-1, (3, 12)).transpose(1, 2)
        assert torch.allclose(said, told.patches_BNCP[:, position + 1 : position + 4], atol=5e-3)
    assert heads(lesson.x_BNCP).mean.shape == lesson.y_BMCQ.shape


def test_a_target_is_heard_once(capsys: pytest.CaptureFixture[str]) -> None:
    target = TimerXL(MODEL).eval()
    first = lesson_of(lessons(target, ContextPolicy()), torch.arange(5))
    assert "asking the target about 20 windows" in capsys.readouterr().err
    again = lesson_of(lessons(target, ContextPolicy()), torch.arange(5))
    assert "asking" not in capsys.readouterr().err
    assert torch.equal(first.x_BNCP, again.x_BNCP)
    assert torch.equal(first.y_BMCQ, again.y_BMCQ)


class DiesAfter(train.LocalRun):
    """A run whose process ends right after its first checkpoint."""

    def save(self, state: train.State, *, row: train.Row) -> None:
        super().save(state, row=row)
        raise KeyboardInterrupt


def test_training_brings_heads_nearer_to_their_target_which_stays_as_it_is(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    before = (target / checkpoint.WEIGHTS).read_bytes()
    wanted = training(target, epochs=8, windows=512, lr=3e-3, patience=8)
    trained = train.train(wanted, run=train.LocalRun(tmp_path / "a"), examine=Examiner.of(wanted))
    first, last = trained.curve[0], trained.curve[-1]
    assert last["validation_loss"] < 0.7 * first["validation_loss"]
    assert last["acceptance_rate"] >= first["acceptance_rate"]
    assert last["predicted_speedup"] > 0
    assert (target / checkpoint.WEIGHTS).read_bytes() == before


def test_a_training_of_heads_that_was_cut_off_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    wanted = training(target_in(tmp_path), epochs=3)
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train.train(wanted, run=DiesAfter(tmp_path / "cut"))
    resumed = train.train(wanted, run=train.LocalRun(tmp_path / "cut"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_heads_are_one_targets_alone(tmp_path: Path) -> None:
    ours, other = target_in(tmp_path), target_in(tmp_path, seed=1)
    keys = {bank.key_of(training(path), machine=Machine(cpus=1)) for path in (ours, other)}
    assert len(keys) == 2
    heads = bank.obtain(training(ours), kind="draft", storage=tmp_path, machine=Machine(cpus=1))
    assert json.loads((heads / "config.json").read_text())["family"] == "heads"
    bank.check_pair(ours, heads)
    with pytest.raises(ConfigError, match=f"{heads.name} is heads of another target than"):
        bank.check_pair(other, heads)


def test_commands_train_heads_judge_them_and_refuse_another_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = target_in(tmp_path), target_in(tmp_path, seed=1)

    def run(*words: str) -> tuple[object, str, str]:
        code: object = 0
        try:
            main([*words, "--storage", str(tmp_path)])
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    draft = ("train", "draft", "--target", ours.name, "--kind", "heads", "--data", DATA)
    small = ("--set", "stages.0.windows=64", "stages.0.epochs=1", "dtype=fp32", "--json")
    code, out, err = run(*draft, "--patches-out", "3", "--hidden", "16", *small)
    assert code == 0, err
    key = json.loads(out.splitlines()[-1])["key"]
    judged = ("--draft", key, "--data", DATA, "--horizon", "96", "--windows", "8", "--pairs", "3")
    rule = ("--json", "--acceptance", "rule=tolerance", "mse_tol=0.5")
    code, out, err = run("evaluate", "--target", ours.name, *judged, *rule, "lookahead=3")
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert len(told["pass_rates"]) == 3
    assert told["draft"]["mse"] > 0
    code, _, err = run("evaluate", "--target", ours.name, *judged, *rule, "lookahead=4")
    assert (code, "there are 3 heads" in err) == (2, True)
    code, _, err = run("evaluate", "--target", other.name, *judged)
    assert (code, "heads of another target" in err) == (2, True)
    code, _, err = run(*draft, "--scale", "0.7", *small)
    assert (code, "--scale is 0.7: it has no effect where --kind is heads" in err) == (2, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {"stages": [{"name": "distill", "data": DATA}]}, "heads have stages of that"),
        (lambda t: {"model": {"patch": 12, "context": 48}}, "heads have stages of that name"),
        (lambda t: {"target": None}, "needs a target"),
        (lambda t: {"stages": [{"name": "heads", "data": DATA, "rolled": 0.5}]}, "rolled has no"),
    ],
)
def test_a_training_of_heads_that_makes_no_sense_is_refused(
    change: Callable[[Training], dict[str, object]], said: str
) -> None:
    sound = training(Path("somewhere"))
    with pytest.raises(ValueError, match=said):
        Training.model_validate(sound.model_dump(mode="json") | change(sound))
