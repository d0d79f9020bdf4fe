"""One stage of a training: its epochs, its schedule, and where in them it is.

    learner = Learner(training, 0, model, run, sets=sets)
    while not learner.done:
        row = learner.epoch()

Shapes: B batch, N patches, C variates, P patch length, M patches learnt from, Q = patches_out * P.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from foredraft import buckets
from foredraft.errors import ConfigError, Stopped
from foredraft.settings.config import TAUGHT, Training
from foredraft.train import losses, teacher
from foredraft.train.lessons import Draw, Lesson, Lessons, Teacher
from foredraft.train.needs import Datasets
from foredraft.train.runs import Row, Run, State
from foredraft.train.stopwatch import Stopwatch
from speculation import checkpoint
from speculation.network import Network
from speculation.normalisation import Prediction


class Diverged(Stopped):
    """A training whose loss is no number any more: one line that names stage, epoch and remedy."""


class Learner:
    """One stage: the model, its optimiser and schedule, and where in the stage they are."""

    def __init__(
        self, training: Training, index: int, model: Network, run: Run, *, sets: Datasets
    ) -> None:
        self.training, self.index, self.run = training, index, run
        self.stage = stage = training.stages[index]
        model.use_dropout(stage.dropout)
        self.model = model
        self.wrapped = run.wrap(model)
        if training.compile:
            self.wrapped.compile()
        taught = _teacher(training, run) if stage.name in TAUGHT else None
        seed = training.seed * 1009 + index
        self.lessons, self.exam = (
            Lessons(stage, training.model, sets, split=split, seed=seed, taught=taught)
            for split in ("train", "validation")
        )
        drawn = min(len(self.lessons), stage.windows_per_epoch or len(self.lessons))
        self.drawing = {"batch": stage.batch, "drawn": drawn}
        self.steps = self.lessons.steps(**self.drawing)
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
        train_loss, outside = self._learn()
        trained = time.perf_counter()
        judged = self._validate()
        self.epochs_done += 1
        self._refuse_no_number(train_loss, judged["validation_loss"])
        self.stale += 1
        if judged["validation_loss"] < self.best_loss:
            self.best_loss, self.stale = judged["validation_loss"], 0
            self.best = copy.deepcopy(self.model.state_dict())
        return {
            "stage": self.stage.name,
            "epoch": self.epochs_done,
            "epochs": self.stage.epochs,
            "train_loss": train_loss,
            **judged,
            "learning_rate": self.schedule.get_last_lr()[0],
            "seconds": time.perf_counter() - started,
            "samples_per_s": self.steps * self.stage.batch / (trained - started),
            "outside_share": outside,
        }

    def _refuse_no_number(self, *losses: float) -> None:
        """Nothing; raises where a loss says that the weights are lost."""
        for loss in losses:
            if not math.isfinite(loss):
                raise Diverged(
                    f"stages.{self.index} ({self.stage.name}): the loss is {loss} in epoch "
                    f"{self.epochs_done}: training has diverged; set lr ({self.stage.lr:g}) or "
                    f"clip_norm ({self.stage.clip_norm:g}) lower"
                )

    def _learn(self) -> tuple[float, float]:
        """Mean training loss of the epoch, and the share of it outside forward and backward."""
        self.wrapped.train()
        total, watch = torch.zeros((), device=self.run.device), Stopwatch(self.run.device)
        for draw in self.lessons.epoch(self.epochs_done, **self.drawing):
            watch.begin_step()
            total += self._pass(draw.parts(self.run.world_size)[self.run.rank], watch)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            watch.end_step()
        loss = self._over_workers(total, torch.tensor(float(self.steps)))
        return loss, watch.outside_share

    def _pass(self, draw: Draw, watch: Stopwatch) -> Tensor:
        """The loss of this worker's share of a step, whose gradient is then in the model."""
        total = torch.zeros((), device=self.run.device)
        parts = draw.parts(self.stage.accumulate)
        for number, part in enumerate(parts, start=1):
            lesson = self.lessons.lesson(part, device=self.run.device)
            with watch.passing(), self._shared_only(number == len(parts)):
                loss = self._loss(self._predict(self.wrapped, lesson), lesson) / len(parts)
                loss.backward()
            total += loss.detach()
        return total

    def _shared_only(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Workers share their gradients once a step: with its last part."""
        if last or not isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()

    def _predict(self, model: nn.Module, lesson: Lesson) -> Prediction:
        with self._arithmetic():
            prediction: Prediction = model(lesson.x_BNCP, last=lesson.y_BMCQ.shape[1])
        return prediction

    def _loss(self, prediction: Prediction, lesson: Lesson) -> Tensor:
        return losses.LOSSES[self.stage.loss](prediction, lesson)

    @torch.no_grad()
    def _validate(self) -> Row:
        """Loss over the validation windows, shared out to the workers; calibration with a variance.

        Every window counts alike, as it does in a step, however many cells it has. Sums are added
        over windows and workers before they are divided.
        """
        self.wrapped.eval()
        sums = torch.zeros(5, dtype=torch.float64, device=self.run.device)
        draws = list(self.exam.every_window(batch=self.stage.batch))
        for draw in draws[self.run.rank :: self.run.world_size]:
            lesson = self.exam.lesson(draw, device=self.run.device)
            prediction = self._predict(self.model, lesson)
            windows = len(draw.index_B) if lesson.told else 0
            sums[0] += windows
            sums[1] += self._loss(prediction, lesson).double() * windows
            told = lesson.observed_BMCQ
            sums[2] += lesson.y_BMCQ.numel() if told is None else told.sum()
            sums[3:] += losses.calibration(prediction, lesson)
        if self.run.world_size > 1:
            distributed.all_reduce(sums)
        if not sums[0]:
            raise ConfigError(
                f"stages.{self.index} ({self.stage.name}): all that its validation windows "
                "forecast was missing and filled: nothing can be judged; set validation_windows "
                "higher"
            )
        loss = float(sums[1] / sums[0])
        squared_z, within = (sums[3:] / sums[2]).tolist()
        row = {"validation_loss": loss}
        if self.training.model.variance:
            row |= {"squared_z": squared_z, "within_deviation": within}
        return row

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
            "random": self._of_every_worker(self._random()),
            "best": self.best,
            "best_loss": self.best_loss,
            "epochs_done": self.epochs_done,
            "stale": self.stale,
        }

    def _random(self) -> dict[str, Tensor]:
        """Where this worker's random numbers stand."""
        random = {"cpu": torch.get_rng_state()}
        if self.run.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.run.device)
        return random

    def _of_every_worker(self, value: dict[str, Tensor]) -> list[Any]:
        if self.run.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.run.world_size
        distributed.all_gather_object(values, value)
        return values

    def restore(self, state: State) -> None:
        """Go on where `state` left off."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        random = state["random"][self.run.rank % len(state["random"])]
        torch.set_rng_state(random["cpu"].cpu())
        if self.run.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"].cpu(), self.run.device)
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.epochs_done, self.stale = state["epochs_done"], state["stale"]


def _teacher(training: Training, run: Run) -> Teacher:
    assert training.target is not None, "a training with such a stage has a target"
    path = Path(training.target)
    target = checkpoint.load(buckets.fetch(path)).to(run.device)
    return Teacher(target, teacher.digest_of(path), str(path))
