"""Claims about training: what it resumes, when it stops, how workers share it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foredraft import drafts, train
from foredraft.config import ConfigError, Machine, Stage, Training
from timer_xl import TimerXLConfig

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=12, context=48, d_model=16, n_heads=2, d_ff=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stage(**changes: object) -> Stage:
    settings = {"name": "scratch", "data": DATA, "epochs": 2, "windows_per_epoch": 64, "lr": 1e-3}
    return Stage.model_validate(settings | changes)


def training(*stages: Stage, **changes: object) -> Training:
    return Training(model=MODEL, stages=stages or (stage(),), dtype="fp32", **changes)  # type: ignore[arg-type]


class DiesAfter(train.LocalRun):
    """A run whose process ends right after so many checkpoints."""

    def __init__(self, directory: Path, *, saves: int) -> None:
        super().__init__(directory)
        self.left = saves

    def save(self, state: train.State, *, row: train.Row) -> None:
        super().save(state, row=row)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, saves: int
) -> None:
    wanted = training(stage(name="pretrain"), stage(name="finetune", variates=3))
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train.train(wanted, run=DiesAfter(tmp_path / "cut", saves=saves))
    resumed = train.train(wanted, run=train.LocalRun(tmp_path / "cut"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert [row["train_loss"] for row in whole.curve] == [
        row["train_loss"] for row in resumed.curve
    ]


def test_training_brings_the_validation_loss_down(tmp_path: Path) -> None:
    wanted = training(stage(epochs=4, windows_per_epoch=256, lr=3e-3))
    curve = train.train(wanted, run=train.LocalRun(tmp_path)).curve
    assert curve[-1]["validation_loss"] < 0.9 * curve[0]["validation_loss"]


def test_a_stage_that_learns_nothing_ends_after_its_patience(tmp_path: Path) -> None:
    wanted = training(stage(epochs=9, lr=1e-30, patience=2))
    curve = train.train(wanted, run=train.LocalRun(tmp_path)).curve
    assert len(curve) == 3


def test_workers_share_each_batch_without_overlap(tmp_path: Path) -> None:
    def order(rank: int, world_size: int) -> torch.Tensor:
        run = train.LocalRun(tmp_path)
        run.rank, run.world_size = rank, world_size
        learner = train._Learner(training(), 0, train.TimerXL(MODEL), run)
        return learner._order()

    alone, first, second = order(0, 1), order(0, 2), order(1, 2)
    assert torch.equal(torch.cat((first, second), dim=1), alone)
    assert len(alone.unique()) == alone.numel()


def test_a_batch_that_the_workers_cannot_share_is_refused_by_name(tmp_path: Path) -> None:
    run = train.LocalRun(tmp_path)
    run.world_size = 3
    with pytest.raises(ConfigError, match="batch of stage scratch is 32"):
        train.train(training(), run=run)


def test_two_workers_train_one_model_on_ray(tmp_path: Path, ray_cluster: None) -> None:
    machine = Machine(workers=2, use_gpu=False)
    path = drafts.obtain(training(), kind="draft", storage=tmp_path, machine=machine)
    model = drafts.open_model(path)
    assert len(model.metrics["curve"]) == 2
    alone = train.train(training(), run=train.LocalRun(tmp_path / "alone")).curve
    # Dropout differs between workers, the windows of every batch do not.
    assert model.metrics["curve"][0]["train_loss"] == pytest.approx(alone[0]["train_loss"], rel=0.1)


def test_equal_trainings_have_one_key_and_others_another(tmp_path: Path) -> None:
    key = drafts.key_of(training())
    assert key == drafts.key_of(training())
    assert key != drafts.key_of(training(seed=1))
    assert key != drafts.key_of(training(stage(epochs=3)))


def test_a_directory_that_was_never_finished_is_trained_again(tmp_path: Path) -> None:
    half = drafts.directory_of(training(), kind="draft", storage=tmp_path)
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"cut short")
    path = drafts.obtain(training(), kind="draft", storage=tmp_path, machine=Machine(cpus=1))
    assert path == half
    assert drafts.open_model(path).metrics["parameters"] == MODEL.num_parameters


def test_a_model_is_found_by_the_beginning_of_its_key(tmp_path: Path) -> None:
    path = drafts.obtain(training(), kind="target", storage=tmp_path, machine=Machine(cpus=1))
    assert drafts.find(path.name[:5], kind="target", storage=tmp_path) == path
    with pytest.raises(ConfigError, match="is no trained target"):
        drafts.find("zzz", kind="target", storage=tmp_path)
