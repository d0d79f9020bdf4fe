"""Where a training runs: in this process, or as one of several workers of Ray Train.

A run knows its device and its place among the workers, and keeps the checkpoints. It keeps the two
newest: one that was cut short is passed over, and the training goes on from the one before.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from foredraft import buckets
from foredraft.errors import ConfigError
from foredraft.files import atomic_file
from foredraft.settings.config import Machine
from speculation.network import Network

State = dict[str, Any]
Row = dict[str, Any]

FILE = "checkpoint.pt"
KEPT = 2
# What torch.load raises over a file that ends too early, or holds something else.
CUT_SHORT = (RuntimeError, EOFError, OSError, pickle.UnpicklingError)


class Run(Protocol):
    """Where a training runs: its device, its place among the workers, its checkpoints."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: Network) -> nn.Module:
        """The module to call while training."""

    def resume(self) -> State | None:
        """The newest complete checkpoint, or None at a fresh start."""

    def save(self, state: State, *, row: Row) -> None:
        """Keep a checkpoint, and tell whoever watches."""


class LocalRun:
    """One process, without Ray; each of its checkpoints is a file that appears as a whole."""

    rank, world_size = 0, 1

    def __init__(self, directory: Path, *, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def wrap(self, model: Network) -> nn.Module:
        """The model itself."""
        return model

    def resume(self) -> State | None:
        """The newest complete checkpoint, or None at a fresh start."""
        buckets.fetch(self.directory)
        return _newest_complete(reversed(self._checkpoints()), device=self.device)

    def save(self, state: State, *, row: Row) -> None:
        """Write the checkpoint as a whole, drop the oldest.

        Another process may be training the same, after a lease that was lost: it may save beside
        us, and remove the folder when it ends.
        """
        path = self.directory / f"checkpoint-{len(state['curve']):06d}.pt"
        try:
            self._write(path, state)
        except FileNotFoundError:
            self._write(path, state)
        buckets.keep(path)
        for old in self._checkpoints()[:-KEPT]:
            buckets.remove(old)

    def _write(self, path: Path, state: State) -> None:
        with atomic_file(path) as file:
            torch.save(state, file)

    def _checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.directory.glob("checkpoint-*.pt"))


class RayRun:
    """One worker of Ray Train, under DDP where there are several."""

    def __init__(self) -> None:
        import ray.train.torch

        self.train = ray.train
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()

    def wrap(self, model: Network) -> nn.Module:
        """The model under DistributedDataParallel where there are several workers."""
        wrapped: nn.Module = self.train.torch.prepare_model(model)
        return wrapped

    def resume(self) -> State | None:
        """The newest complete checkpoint that Ray's controller committed."""
        newest = self.train.get_checkpoint()
        if newest is None:
            return None
        reported = [report.checkpoint for report in self.train.get_all_reported_checkpoints()]
        older = [checkpoint for checkpoint in reversed(reported) if checkpoint.path != newest.path]
        with tempfile.TemporaryDirectory() as directory:
            files = (
                Path(checkpoint.to_directory(str(Path(directory) / str(index)))) / FILE
                for index, checkpoint in enumerate([newest, *older])
            )
            return _newest_complete(files, device=self.device)

    def save(self, state: State, *, row: Row) -> None:
        """Report the epoch; the first worker's checkpoint stands for all."""
        if self.rank:
            self.train.report(row)
            return
        with tempfile.TemporaryDirectory() as directory:
            torch.save(state, Path(directory) / FILE)
            self.train.report(row, checkpoint=self.train.Checkpoint.from_directory(directory))


def _newest_complete(paths: Iterable[Path], *, device: torch.device) -> State | None:
    """The first checkpoint that can be read, newest first; those before it were cut short."""
    for path in paths:
        try:
            state: State = torch.load(path, map_location=device, weights_only=True)
        except CUT_SHORT as error:
            print(
                f"checkpoint {path.name} is not whole and is passed over: {error}", file=sys.stderr
            )
        else:
            return state
    return None


def kind_of_device(machine: Machine) -> str:
    """`cuda` or `cpu`: as a study settled it, else as asked for, else whether a GPU is here."""
    if machine.device is not None:
        return machine.device
    there = torch.cuda.is_available() if machine.use_gpu is None else machine.use_gpu
    return "cuda" if there else "cpu"


def device_of(machine: Machine) -> torch.device:
    """The device of a run in this process.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    device = torch.device(kind_of_device(machine))
    if device.type == "cuda" and not torch.cuda.is_available():
        field, instead = "use_gpu is true", "false"
        if machine.device:
            field, instead = "device is cuda", "cpu"
        raise ConfigError(f"machine.{field}: no CUDA device was found; set it to {instead}")
    return device


def use_threads(count: int | None) -> int:
    """Threads of this process from now on: `count`, or one per core that it may use."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
    return torch.get_num_threads()
