"""What a person sees while a study runs: one line of progress, and TensorBoard's runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from foredraft.search import front
from foredraft.search.record import ROW, state_of
from foredraft.settings.config import Training

SCALARS = (
    "acceptance_rate",
    "accept_length",
    "predicted_speedup",
    "mse",
    "mse_ratio",
    "deviation",
    "seconds",
)


class Bar(tune.Callback):
    """One line of progress on standard error, with an estimate of the time left."""

    def __init__(self, trials: int, *, rows: list[dict[str, Any]], budget: float) -> None:
        self.trials, self.rows, self.budget = trials, rows, budget
        # Trials that another study reported are none of these.
        self.taken = sum(row.get("from_study") is not None for row in rows)

    def setup(self, *args: Any, **info: Any) -> None:
        """Show the bar; made here, as Tune pickles its callbacks and a bar cannot be."""
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=self.trials, completed=self._own)
        self.progress.start()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "trials": self.trials,
            "rows": self.rows,
            "budget": self.budget,
            "taken": self.taken,
        }

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Move the bar, and say what the trial gave and how much the study has covered."""
        row = json.loads(result[ROW])
        self.rows.append({**row, "state": state_of(row)})
        covered = front.quality(self.rows, budget=self.budget)[-1]
        said = f"{in_words(row)}; hypervolume {covered:.4f}"
        self.progress.update(self.task, completed=self._own, description=said)
        if not self.console.is_terminal:
            self.console.print(f"trial {self._own}/{self.trials}: {said}", soft_wrap=True)

    @property
    def _own(self) -> int:
        return len(self.rows) - self.taken

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Leave the bar as it ended."""
        self.progress.stop()


class Board(tune.Callback):
    """TensorBoard's run of each trial, with its settings as hyperparameters."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Write the trial's settings and numbers."""
        number, row = trial.config["number"], json.loads(result[ROW])
        numbers = {name: row[name] for name in SCALARS if name in row}
        settings = {k: v if v is not None else "none" for k, v in trial.config["settings"].items()}
        with SummaryWriter(str(self.directory / f"trial-{number:04d}")) as writer:
            # Not add_hparams: that opens a second run inside the first.
            for summary in hparams(settings, dict.fromkeys(numbers, None)):
                writer.file_writer.add_summary(summary)
            for name, value in numbers.items():
                writer.add_scalar(name, value, 0)


def epoch_in_words(row: Mapping[str, Any], training: Training) -> str:
    """An epoch of the target's training as one line, with what its stage may still take."""
    stage = next(stage for stage in training.stages if stage.name == row["stage"])
    left = max(0, stage.epochs - int(row["epoch"])) * row["seconds"]
    said = f"target, {row['stage']} {row['epoch']}/{stage.epochs}"
    ending = f", at most {left:.0f} s left of it" if left else ""
    return f"{said}: validation {row['validation_loss']:.4f}, {row['seconds']:.1f} s{ending}"


def in_words(row: Mapping[str, Any]) -> str:
    """A trial's row as one line."""
    if row.get("error"):
        return f"failed: {row['error']}"
    ratio = f", mse ratio {row['mse_ratio']:.4f}" if "mse_ratio" in row else ""
    where = f" on {row['windows']} windows" if row["windows"] else " in closed form"
    why = {"budget": "over the budget", "front": "behind the front", None: ""}[row["stopped"]]
    end = f"; stopped{where}: {why}" if why else ""
    return (
        f"acceptance {row['acceptance_rate']:.0%}, predicted "
        f"{row['predicted_speedup']:.2f}x{ratio}{end}"
    )
