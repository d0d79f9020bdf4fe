"""What a person sees while a study runs: one line of progress, and TensorBoard's runs."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping
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

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.search import front
from foredraft.search.curves import labels_of
from foredraft.search.record import own
from foredraft.search.trial import Trial
from foredraft.settings.budgets import Budget, name_in_words
from foredraft.train.board import write_settings
from foredraft.train.journal import Reader, Row

SAY_S = 10.0
"""Seconds for which a draft is not told of again, but for the end of a stage."""
SCALARS = (
    "acceptance_rate",
    "accept_length",
    "predicted_speedup",
    "mse",
    "mse_ratio",
    "deviation",
    "deviation_ratio",
    "seconds",
)


class Bar(tune.Callback):
    """One line of progress on standard error, with an estimate of the time left."""

    def __init__(self, total: int, *, ended: list[Trial], budget: Budget) -> None:
        self.total, self.ended, self.budget = total, ended, budget

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
        self.task = self.progress.add_task("", total=self.total, completed=self._own)
        self.progress.start()

    def __getstate__(self) -> dict[str, Any]:
        return {"total": self.total, "ended": self.ended, "budget": self.budget}

    def tell(self, reported: Trial) -> None:
        """Move the bar, and say what the trial gave and how much the study has covered.

        Not when Tune has its result: one that could not be kept is not to be told.
        """
        self.ended.append(reported)
        volume = front.hypervolumes(self.ended, budget=self.budget)[-1]
        line = f"{in_words(reported)}; hypervolume {volume:.4f}"
        self.progress.update(self.task, completed=self._own, description=line)
        if not self.console.is_terminal:
            self.console.print(f"trial {self._own}/{self.total}: {line}", soft_wrap=True)

    @property
    def _own(self) -> int:
        return len(own(self.ended))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Leave the bar as it ended."""
        self.progress.stop()


class Board:
    """TensorBoard's run of each trial, with its settings as hyperparameters.

    Args:
        directory: of the runs.
        names: of the settings that are searched.
    """

    def __init__(self, directory: Path, *, names: Collection[str]) -> None:
        self.directory, self.names = directory, names

    def tell(self, reported: Trial) -> None:
        """Write the trial's settings and numbers."""
        row, drawn = reported.flat(), reported.settings
        numbers = {name: row[name] for name in SCALARS if row.get(name) is not None}
        settings = {n: "none" if v is None else v for n, v in drawn.items() if n in self.names}
        path = self.directory / f"trial-{reported.number:04d}"
        with _for_the_eye(), SummaryWriter(str(path)) as writer:
            write_settings(writer, settings, metrics=numbers)
            for name, value in numbers.items():
                writer.add_scalar(name, value, 0)


@contextlib.contextmanager
def _for_the_eye() -> Iterator[None]:
    """What a disk refuses of a picture is left out: who needs the disk tells of it, in one line.

    The writer's own thread would print the traceback too, maybe a moment later.
    """
    before = threading.excepthook

    def quiet(told: threading.ExceptHookArgs) -> None:
        if not issubclass(told.exc_type, OSError):
            before(told)

    threading.excepthook = quiet
    try:
        yield
    except OSError:
        return
    threading.excepthook = before


def say(line: str) -> None:
    """A line on standard error, above the bar where there is one."""
    Console(stderr=True).print(line, soft_wrap=True, markup=False, highlight=False)


class Drafts:
    """Says a line of each draft's epochs: of the last of a stage, and else not too often."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.storage = directory, directory.parents[1]
        self.readers: dict[str, Reader] = {}
        self.said_at: dict[str, float] = {}
        self.done: set[str] = set()
        self._follow(new=False)

    def read(self) -> None:
        """Say what has come since."""
        self._follow(new=True)
        for key, reader in self.readers.items():
            if key in self.done:
                continue
            reader.read()
            path = self.storage / "drafts" / key
            if bank.is_whole(path):
                self.done.add(key)
                # Its journal goes as it ends, maybe before the last line was read.
                last = bank.open_model(path).metrics["curve"][-1:]
                if reader.log and last and 0 < reader.told < last[0]["number"]:
                    reader.log(last[0])

    def _follow(self, *, new: bool) -> None:
        """Follow every draft that is asked for by now."""
        asked = housekeeping.noted(self.directory)
        for (key, known), label in zip(asked.items(), labels_of(list(asked.values())), strict=True):
            if key not in self.readers:
                tell = functools.partial(self._tell, key, label if known else f"draft {key}")
                path = bank.epochs_file(self.storage, key)
                self.readers[key] = Reader(path, tell, new=new)

    def _tell(self, key: str, label: str, row: Row) -> None:
        waited = time.monotonic() - self.said_at.get(key, -math.inf)
        if row["epoch"] == row["epochs"] or waited > SAY_S:
            self.said_at[key] = time.monotonic()
            say(epoch_in_words(row, label))


def epoch_in_words(row: Mapping[str, Any], name: str) -> str:
    """An epoch of a model's training as one line, with what its stage may still take."""
    left = max(0, row["epochs"] - int(row["epoch"])) * row["seconds"]
    progress = f"{name}, {row['stage']} {row['epoch']}/{row['epochs']}"
    ending = f", at most {left:.0f} s left of it" if left else ""
    return f"{progress}: validation {row['validation_loss']:.4f}, {row['seconds']:.1f} s{ending}"


def in_words(trial: Trial) -> str:
    """A trial that ended, as one line."""
    if not trial.outcome:
        return f"failed: {trial.error}"
    metrics, stopped = trial.outcome.metrics, trial.outcome.stopped
    ratios = "".join(
        f", {name_in_words(name)} {ratio:.4f}"
        for name, ratio in trial.outcome.ratios.items()
        if ratio is not None
    )
    why = {"budget": "over the budget", "front": "behind the front"}
    end = f"; stopped in closed form: {why[stopped]}" if stopped else ""
    return (
        f"acceptance {metrics.acceptance_rate:.0%}, predicted "
        f"{metrics.predicted_speedup:.2f}x{ratios}{end}"
    )
