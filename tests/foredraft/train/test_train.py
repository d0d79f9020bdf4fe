"""Claims about training: what it resumes, when it stops, how workers share it."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from foredraft import bank, train
from foredraft.errors import ConfigError
from foredraft.judge.examine import Examiner
from foredraft.settings.config import Machine, Stage, Training
from foredraft.train import losses
from speculation import checkpoint
from timer_xl import TimerXL, TimerXLConfig

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=12, context=48, d_model=16, n_heads=2, d_ff=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # As on a worker with one CPU: another number of threads sums in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    assert_same_weights(whole.model, resumed.model)
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


def test_a_batch_that_the_workers_cannot_share_is_refused_by_name(tmp_path: Path) -> None:
    run = train.LocalRun(tmp_path)
    run.world_size = 3
    with pytest.raises(ConfigError, match="batch of stage scratch is 32"):
        train.train(training(), run=run)


def test_two_workers_have_the_loss_curve_of_one_with_the_same_batches(
    tmp_path: Path, ray_cluster: None
) -> None:
    # Dropout differs between workers, the windows of every batch and their variates do not.
    wanted = training(stage(name="pretrain", dropout=0.0, variates=3), stage(dropout=0.0, epochs=1))
    machine = Machine(workers=2, use_gpu=False)
    told: list[train.Row] = []
    path = bank.obtain(wanted, kind="draft", storage=tmp_path, machine=machine, log=told.append)
    alone = train.train(wanted, run=train.LocalRun(tmp_path / "alone")).curve
    shared = bank.open_model(path).metrics["curve"]
    for name in ("train_loss", "validation_loss"):
        ours, theirs = ([row[name] for row in curve] for curve in (shared, alone))
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert [row["number"] for row in told] == [1, 2, 3]


def test_parts_of_a_batch_lead_where_the_whole_batch_leads(tmp_path: Path) -> None:
    whole, parts = (
        train.train(
            training(stage(dropout=0.0, accumulate=parts)),
            run=train.LocalRun(tmp_path / str(parts)),
        )
        for parts in (1, 4)
    )
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_that_was_cut_short_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = training(stage(epochs=4))
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train.train(wanted, run=DiesAfter(tmp_path / "cut", saves=3))
    newest = sorted((tmp_path / "cut").glob("checkpoint-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed = train.train(wanted, run=train.LocalRun(tmp_path / "cut"))
    assert "checkpoint-000003.pt is not whole" in capsys.readouterr().err
    assert_same_weights(whole.model, resumed.model)


def test_a_training_whose_process_is_killed_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    wanted = training(stage(epochs=40))
    (tmp_path / "training.json").write_text(wanted.model_dump_json())
    with subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path)]) as process:
        await_file(tmp_path / "cut", "checkpoint-*.pt")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reached = sorted((tmp_path / "cut").glob("checkpoint-*.pt"))[-1]
    assert reached.name < "checkpoint-000040.pt", "it had ended before it was killed"
    resumed = train.train(wanted, run=train.LocalRun(tmp_path / "cut"))
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    assert_same_weights(whole.model, resumed.model)


PROCESS = """
import sys
from pathlib import Path
from foredraft import train
from foredraft.settings.config import Training

root = Path(sys.argv[1])
train.use_threads(1)
wanted = Training.model_validate_json((root / "training.json").read_text())
train.train(wanted, run=train.LocalRun(root / "cut"))
"""


def test_a_worker_of_ray_that_is_killed_is_replaced_and_ends_as_an_uninterrupted_one(
    tmp_path: Path, ray_cluster: None
) -> None:
    wanted = training(stage(epochs=4))
    killer = KillsItself(tmp_path / "killed", epoch=2)
    trained = train.on_workers(
        wanted,
        machine=Machine(workers=1, use_gpu=False),
        name="killed",
        storage=tmp_path,
        examine=killer,
    )
    assert (tmp_path / "killed").exists()
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    assert_same_weights(whole.model, trained.model)


def test_a_training_that_diverges_on_a_worker_of_ray_says_so_as_it_would_here(
    tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(train.Diverged, match=r"stages\.0 \(scratch\): the loss is"):
        train.on_workers(
            training(stage(lr=1e30)),
            machine=Machine(workers=1, use_gpu=False),
            name="wild",
            storage=tmp_path,
        )


def test_a_driver_of_ray_that_is_killed_is_followed_by_one_that_goes_on(
    tmp_path: Path, ray_cluster: None
) -> None:
    import ray

    wanted = training(stage(epochs=12))
    (tmp_path / "training.json").write_text(wanted.model_dump_json())
    address = ray.get_runtime_context().gcs_address
    driver = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(driver, env={**os.environ, "RAY_ADDRESS": address}) as process:
        # Ray's own record of the checkpoints that it would go on from.
        await_file(tmp_path / "orphan", "checkpoint_manager_snapshot.json")
        process.send_signal(signal.SIGKILL)
    counting = CountsEpochs(tmp_path / "epochs")
    trained = train.on_workers(
        wanted,
        machine=Machine(workers=1, use_gpu=False),
        name="orphan",
        storage=tmp_path,
        examine=counting,
    )
    assert 0 < len(counting.path.read_text()) < 12
    whole = train.train(wanted, run=train.LocalRun(tmp_path / "whole"))
    assert_same_weights(whole.model, trained.model)


DRIVER = """
import sys
from pathlib import Path
from foredraft import train
from foredraft.cluster import joining
from foredraft.settings.config import Machine, Training

root = Path(sys.argv[1])
wanted = Training.model_validate_json((root / "training.json").read_text())
joining.connect()
machine = Machine(workers=1, use_gpu=False)
train.on_workers(wanted, machine=machine, name="orphan", storage=root)
"""


class CountsEpochs:
    """An examination that leaves a mark for every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, draft: TimerXL) -> train.Row:
        with self.path.open("a") as file:
            file.write(".")
        return {}


class KillsItself:
    """An examination in which the worker dies, once."""

    def __init__(self, mark: Path, *, epoch: int) -> None:
        self.mark, self.left = mark, epoch

    def __call__(self, draft: TimerXL) -> train.Row:
        self.left -= 1
        if not self.left and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


def assert_same_weights(one: TimerXL, other: TimerXL) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def await_file(directory: Path, pattern: str) -> None:
    for _ in range(600):
        if any(directory.glob(pattern)):
            return
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} in {directory}")


def test_a_stage_goes_on_from_the_bank_as_if_it_had_trained_the_ones_before(
    tmp_path: Path,
) -> None:
    whole = training(stage(name="pretrain"), stage(name="finetune"))
    first = whole.model_copy(update={"stages": whole.stages[:1]})
    apart, together = tmp_path / "apart", tmp_path / "together"
    bank.obtain(first, kind="draft", storage=apart, machine=Machine(cpus=1))
    ways = [
        bank.obtain(whole, kind="draft", storage=storage, machine=Machine(cpus=1))
        for storage in (apart, together)
    ]
    assert_same_weights(*(checkpoint.load(path) for path in ways))
    begun, scratch = (bank.open_model(path).metrics for path in ways)
    assert begun["validation_loss"] == scratch["validation_loss"]
    assert begun["epochs"] == scratch["epochs"] == 4


def a_target(tmp_path: Path) -> Path:
    larger = Training(
        model=TimerXLConfig(patch=12, context=48, d_model=32, n_heads=2, d_ff=64),
        stages=(stage(windows_per_epoch=640, lr=3e-3),),
        dtype="fp32",
    )
    return bank.obtain(larger, kind="target", storage=tmp_path, machine=Machine(cpus=1))


def test_distillation_brings_a_draft_nearer_to_its_target_than_the_same_data_does(
    tmp_path: Path,
) -> None:
    target = a_target(tmp_path)

    def accepted(name: str) -> float:
        learning = {"windows_per_epoch": None, "epochs": 12, "lr": 3e-3, "patience": 12}
        wanted = training(stage(name=name, **learning), target=str(target))
        trained = train.train(
            wanted, run=train.LocalRun(tmp_path / name), examine=Examiner.of(wanted)
        )
        return float(trained.curve[-1]["acceptance_rate"])

    assert accepted("distill") > accepted("scratch") + 0.1


def test_a_draft_with_a_variance_says_how_far_it_is_off(tmp_path: Path) -> None:
    taught = stage(name="distill", loss="nll", windows_per_epoch=None, epochs=12, lr=3e-3)
    wanted = Training(
        model=dataclasses.replace(MODEL, variance=True),
        stages=(taught,),
        target=str(a_target(tmp_path)),
        dtype="fp32",
    )
    last = train.train(wanted, run=train.LocalRun(tmp_path / "draft")).curve[-1]
    # Errors in deviations: 1 and .683 where a Gaussian says exactly how far it is off.
    assert 0.5 < last["squared_z"] < 2
    assert 0.55 < last["within_deviation"] < 0.85


def test_a_variance_cannot_collapse_onto_what_is_fitted_by_heart() -> None:
    log_variance = torch.full((8,), -20.0, requires_grad=True)
    losses.gaussian_nll(torch.zeros(8), log_variance, torch.zeros(8)).backward()
    assert torch.equal(log_variance.grad, torch.zeros(8))


def test_a_mean_is_learnt_where_its_variance_is_still_large() -> None:
    def slope(log_variance: float) -> float:
        mean = torch.zeros(1, requires_grad=True)
        losses.gaussian_nll(mean, torch.tensor([log_variance]), torch.ones(1)).backward()
        assert mean.grad is not None
        return abs(float(mean.grad))

    # A plain likelihood would divide the slope by 100 here.
    assert slope(math.log(100.0)) == pytest.approx(slope(0.0) / 10)


def test_a_summary_tells_speed_and_the_share_of_time_outside_the_passes(tmp_path: Path) -> None:
    path = bank.obtain(training(), kind="draft", storage=tmp_path, machine=Machine(cpus=1))
    metrics = bank.open_model(path).metrics
    assert metrics["samples_per_s"] > 0
    assert 0 < metrics["outside_share"] < 1
    assert metrics["best_epoch"] in (1, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollouts": 3}, "rollouts has no effect in stage scratch"),
        ({"judge": "ETTh1"}, "judge is 'ETTh1'"),
        ({"data": {}}, "data is empty"),
        ({"data": {DATA: -1}}, "the weight -1.0: it must be above 0"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stage(**changes)


def test_a_distillation_without_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a target: it learns from"):
        training(stage(name="distill"))


def test_a_likelihood_without_a_variance_head_is_refused() -> None:
    with pytest.raises(ValueError, match="has no variance head; loss mse would do"):
        training(stage(loss="nll"))


def test_fine_tuning_is_slow_and_patient_unless_told_otherwise() -> None:
    usual = Stage(name="finetune", data=DATA)
    assert (usual.lr, usual.patience) == (5e-5, 5)
    assert stage(name="finetune", patience=2).patience == 2


def test_equal_trainings_have_one_key_and_others_another(tmp_path: Path) -> None:
    key = bank.key_of(training(), machine=Machine())
    assert key == bank.key_of(training(), machine=Machine())
    assert key != bank.key_of(training(seed=1), machine=Machine())
    assert key != bank.key_of(training(stage(epochs=3)), machine=Machine())


def test_a_directory_that_was_never_finished_is_trained_again(tmp_path: Path) -> None:
    half = bank.directory_of(training(), kind="draft", storage=tmp_path, machine=Machine())
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"cut short")
    path = bank.obtain(training(), kind="draft", storage=tmp_path, machine=Machine(cpus=1))
    assert path == half
    assert bank.open_model(path).metrics["parameters"] == MODEL.num_parameters


def test_a_model_is_found_by_the_beginning_of_its_key(tmp_path: Path) -> None:
    path = bank.obtain(training(), kind="target", storage=tmp_path, machine=Machine(cpus=1))
    assert bank.find(path.name[:5], kind="target", storage=tmp_path) == path
    with pytest.raises(ConfigError, match="is no trained target"):
        bank.find("zzz", kind="target", storage=tmp_path)
