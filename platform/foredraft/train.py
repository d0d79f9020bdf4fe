"""Training a Timer-XL, target or draft: one loop, whatever the stage and however many workers.

    trained = train(RECIPES["etth1"](), run=LocalRun(Path("runs/training/etth1")))

A stage is data and hyperparameters; stages chain, each from the best weights of the one before.
After every epoch a checkpoint holds model, optimiser, schedule and random states; the order of the
windows follows from seed, stage and epoch, so a resumed run equals an uninterrupted one. The same
loop runs in this process (`LocalRun`) and on every worker of Ray Train (`RayRun`).

Shapes: B batch, T time steps, C variates, N patches, P patch length, Q = patches_out * P.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from foredraft import data
from foredraft.config import ConfigError, Machine, Training
from timer_xl import Normalisation, TimerXL

State = dict[str, Any]
Row = dict[str, Any]
Log = Callable[[Row], None]
"""Called after every epoch with its row of the training curve."""


class Trained(NamedTuple):
    """A trained model and how it came about."""

    model: TimerXL
    """the best weights of the last stage, on the CPU, ready for inference"""
    curve: list[Row]
    """one row per stage and epoch"""


class Run(Protocol):
    """Where a training runs: its device, its place among the workers, its checkpoints."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: TimerXL) -> nn.Module:
        """The module to call while training."""

    def resume(self) -> State | None:
        """The newest complete checkpoint, or None at a fresh start."""

    def save(self, state: State, *, row: Row) -> None:
        """Keep a checkpoint, and tell whoever watches."""


class LocalRun:
    """One process, without Ray; its checkpoint is a file that is replaced as a whole."""

    rank, world_size = 0, 1

    def __init__(self, directory: Path, *, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.path = directory / "checkpoint.pt"
        directory.mkdir(parents=True, exist_ok=True)

    def wrap(self, model: TimerXL) -> nn.Module:
        """The model itself."""
        return model

    def resume(self) -> State | None:
        """The newest complete checkpoint, or None at a fresh start."""
        if not self.path.is_file():
            return None
        state: State = torch.load(self.path, map_location=self.device, weights_only=True)
        return state

    def save(self, state: State, *, row: Row) -> None:
        """Write the checkpoint beside the old one, then put it in its place."""
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)


class RayRun:
    """One worker of Ray Train, under DDP where there are several."""

    def __init__(self) -> None:
        from ray import train as ray_train

        self.train = ray_train
        context = ray_train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray_train.torch.get_device()

    def wrap(self, model: TimerXL) -> nn.Module:
        """The model under DistributedDataParallel where there are several workers."""
        wrapped: nn.Module = self.train.torch.prepare_model(model)
        return wrapped

    def resume(self) -> State | None:
        """The last checkpoint that Ray's controller committed."""
        checkpoint = self.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            path = Path(directory) / "checkpoint.pt"
            state: State = torch.load(path, map_location=self.device, weights_only=True)
        return state

    def save(self, state: State, *, row: Row) -> None:
        """Report the epoch; the first worker's checkpoint stands for all."""
        if self.rank:
            self.train.report(row)
            return
        with tempfile.TemporaryDirectory() as directory:
            torch.save(state, Path(directory) / "checkpoint.pt")
            self.train.report(row, checkpoint=self.train.Checkpoint.from_directory(directory))


def train(training: Training, *, run: Run, log: Log | None = None) -> Trained:
    """The model that a training's stages lead to, with its curve.

    Raises:
        DataError: a stage's data cannot be read, or is too short for the model.
    """
    torch.manual_seed(training.seed)
    model = TimerXL(training.model).to(run.device)
    state = run.resume()
    curve: list[Row] = list(state["curve"]) if state else []
    for index in range(len(training.stages)):
        if state and state["stage"] > index:
            continue
        learner = _Learner(training, index, model, run)
        if state and state["stage"] == index:
            learner.restore(state)
        else:
            # Each stage draws its own dropout, whatever came before it.
            torch.manual_seed(training.seed + 7919 * (index + 1))
        while not learner.done:
            row = learner.epoch()
            curve.append(row)
            run.save({**learner.state(), "curve": curve}, row=row)
            if log and run.rank == 0:
                log(row)
        model.load_state_dict(learner.best)
    return Trained(model.cpu().eval(), curve)


class _Learner:
    """One stage: the model, its optimiser and schedule, and where in the stage they are."""

    def __init__(self, training: Training, index: int, model: TimerXL, run: Run) -> None:
        self.training, self.index, self.run = training, index, run
        self.stage = training.stages[index]
        self.model, self.wrapped = model, run.wrap(model)
        config, stage = training.model, self.stage
        dataset = data.load(stage.data)
        lengths = {"context": config.context, "horizon": config.patches_out * config.patch}
        self.windows = dataset.windows("train", **lengths)
        self.validation = dataset.windows("validation", **lengths)
        drawn = min(len(self.windows), stage.windows_per_epoch or len(self.windows))
        if stage.batch % run.world_size:
            raise ConfigError(
                f"batch of stage {stage.name} is {stage.batch}: it must be a multiple of the "
                f"{run.world_size} workers"
            )
        self.steps = max(1, drawn // stage.batch)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=stage.lr, weight_decay=stage.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)
        self.epochs_done = self.stale = 0
        self.best_loss, self.best = math.inf, copy.deepcopy(model.state_dict())

    @property
    def done(self) -> bool:
        """Whether every epoch is over, or the last ones brought nothing."""
        return self.epochs_done >= self.stage.epochs or self.stale >= self.stage.patience

    def epoch(self) -> Row:
        """One pass over the drawn windows, and the row that it adds to the curve."""
        started = time.perf_counter()
        train_loss = self._learn()
        trained = time.perf_counter()
        validation_loss = self._validate()
        self.epochs_done += 1
        self.stale += 1
        if validation_loss < self.best_loss:
            self.best_loss, self.stale = validation_loss, 0
            self.best = copy.deepcopy(self.model.state_dict())
        return {
            "stage": self.stage.name,
            "epoch": self.epochs_done,
            "epochs": self.stage.epochs,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "learning_rate": self.schedule.get_last_lr()[0],
            "seconds": time.perf_counter() - started,
            "samples_per_s": self.steps * self.stage.batch / (trained - started),
        }

    def _learn(self) -> float:
        """Mean training loss of the epoch."""
        self.wrapped.train()
        total = torch.zeros((), device=self.run.device)
        order = self._order()
        for step in range(self.steps):
            x_BNCP, y_BNCQ, normalisation = self._sample(self.windows, order[step], draw=True)
            with self._arithmetic():
                predicted = self.wrapped(x_BNCP).mean
            loss = (normalisation.invert(predicted) - y_BNCQ).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
        return self._over_workers(total, torch.tensor(float(self.steps)))

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean squared error over evenly spaced validation windows, shared out to the workers."""
        self.wrapped.eval()
        count = min(len(self.validation), self.stage.validation_windows)
        index_W = torch.linspace(0, len(self.validation) - 1, count).long()
        squared = torch.zeros((), device=self.run.device)
        cells = torch.zeros((), device=self.run.device)
        for index_B in index_W[self.run.rank :: self.run.world_size].split(self.stage.batch):
            x_BNCP, y_BNCQ, normalisation = self._sample(self.validation, index_B, draw=False)
            with self._arithmetic():
                predicted = self.model(x_BNCP).mean
            squared += (normalisation.invert(predicted) - y_BNCQ).square().sum()
            cells += y_BNCQ.numel()
        return self._over_workers(squared, cells)

    def _order(self) -> Tensor:
        """Windows of every step of this epoch for this worker, int64 [steps, batch / workers].

        All workers shuffle alike and take neighbouring shares of each batch: no window twice.
        """
        generator = torch.Generator().manual_seed(
            (self.training.seed * 1009 + self.index) * 1_000_003 + self.epochs_done
        )
        order = torch.randperm(len(self.windows), generator=generator)
        batches = order[: self.steps * self.stage.batch].view(self.steps, -1)
        return batches.chunk(self.run.world_size, dim=1)[self.run.rank]

    def _sample(
        self, windows: data.Windows, index_B: Tensor, *, draw: bool
    ) -> tuple[Tensor, Tensor, Normalisation]:
        """Patches in RevIN units, what follows each of them in the data's, and the units."""
        config, wanted = self.training.model, self.stage.variates
        variates = None
        if wanted and wanted < windows.values_TC.shape[1]:
            shape = (len(index_B), windows.values_TC.shape[1])
            # A validation window keeps the same variates at every epoch.
            chance = torch.rand(shape) if draw else _chance(index_B, shape)
            variates = chance.argsort(dim=1)[:, :wanted]
        window_BTC = windows.batch(index_B, variates=variates).to(self.run.device)
        size, ahead = config.patch, config.patches_out * config.patch
        x_BNCP = window_BTC[:, : config.context].unflatten(1, (-1, size)).transpose(2, 3)
        y_BNCQ = window_BTC[:, size:].unfold(1, ahead, size)
        normalisation = Normalisation.of(x_BNCP)
        return normalisation.apply(x_BNCP), y_BNCQ, normalisation

    def _arithmetic(self) -> torch.autocast:
        enabled = self.training.dtype == "bf16"
        return torch.autocast(self.run.device.type, torch.bfloat16, enabled=enabled)

    def _over_workers(self, total: Tensor, count: Tensor) -> float:
        """The mean of a sum over all workers: counts are added before they are divided."""
        both = torch.stack((total.double(), count.to(total.device).double()))
        if self.run.world_size > 1:
            distributed.all_reduce(both)
        return float(both[0] / both[1])

    def _factor(self, step: int) -> float:
        """Warm-up, then a cosine to zero, as a factor on the learning rate."""
        total = self.steps * self.stage.epochs
        warmup = self.stage.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))

    def state(self) -> State:
        """Everything that the next epoch depends on."""
        return {
            "stage": self.index,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "best": self.best,
            "best_loss": self.best_loss,
            "epochs_done": self.epochs_done,
            "stale": self.stale,
        }

    def restore(self, state: State) -> None:
        """Go on where `state` left off."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"].cpu())
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.epochs_done, self.stale = state["epochs_done"], state["stale"]


def _chance(index_B: Tensor, shape: tuple[int, int]) -> Tensor:
    """Numbers [B, C] that depend on the windows alone."""
    rows = [torch.rand(shape[1], generator=torch.Generator().manual_seed(int(i))) for i in index_B]
    return torch.stack(rows)


def tensorboard(directory: Path, *, resumed_epochs: int = 0) -> Log:
    """A log that writes every row's numbers as scalars."""
    writer = SummaryWriter(str(directory), purge_step=resumed_epochs or None)
    epochs = resumed_epochs

    def log(row: Row) -> None:
        nonlocal epochs
        epochs += 1
        for name in ("train_loss", "validation_loss", "learning_rate", "samples_per_s"):
            writer.add_scalar(f"{row['stage']}/{name}", row[name], epochs)
        writer.flush()

    return log


def on_workers(
    training: Training, *, machine: Machine, name: str, storage: Path, log: Log | None = None
) -> Trained:
    """What `train` gives, trained by `machine.workers` workers of Ray Train under DDP.

    A worker that dies is replaced and training goes on from the last checkpoint; a driver that
    dies finds it under the same name.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _worker,
        train_loop_config={"training": training.model_dump(mode="json")},
        scaling_config=ScalingConfig(num_workers=machine.workers, use_gpu=uses_gpu(machine)),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None, "a training has at least one epoch, and each reports one"
    with result.checkpoint.as_directory() as directory:
        state = torch.load(Path(directory) / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = TimerXL(training.model)
    model.load_state_dict(state["best"])
    if log:
        for row in state["curve"]:
            log(row)
    return Trained(model.eval(), state["curve"])


def _worker(config: dict[str, Any]) -> None:
    train(Training.model_validate(config["training"]), run=RayRun())


def uses_gpu(machine: Machine) -> bool:
    """Whether trainings and evaluations run on GPUs."""
    return torch.cuda.is_available() if machine.use_gpu is None else machine.use_gpu


def device_of(machine: Machine) -> torch.device:
    """The device of a run in this process.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if not uses_gpu(machine):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("machine.use_gpu is true: no CUDA device was found; set it to false")
    return torch.device("cuda")


def use_threads(count: int | None) -> int:
    """Threads of this process from now on: `count`, or one per core that it may use."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
    return torch.get_num_threads()
