"""Training a model, target or draft: one loop, whatever the stage and however many workers.

    trained = train(RECIPES["etth1"](), run=LocalRun(Path("runs/training/etth1")))

A stage is lessons (`foredraft.train.lessons`), a loss and hyperparameters; stages chain, each from
the best weights of the one before. After every epoch a checkpoint holds model, optimiser, schedule
and random states; the lessons follow from seed, stage and epoch, so a resumed run equals an
uninterrupted one. The same loop runs in this process and on every worker of Ray Train
(`foredraft.train.runs`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foredraft import buckets
from foredraft.errors import Stopped
from foredraft.settings.config import Machine, Training
from foredraft.train.journal import Journal, following
from foredraft.train.learner import Diverged, Learner
from foredraft.train.needs import Datasets, checked, datasets
from foredraft.train.runs import (
    FILE,
    LocalRun,
    RayRun,
    Row,
    Run,
    State,
    device_of,
    kind_of_device,
    use_threads,
)
from speculation import InvalidInput, checkpoint, families
from speculation.network import Network

__all__ = [
    "Begun",
    "Datasets",
    "Diverged",
    "Examine",
    "LocalRun",
    "Log",
    "RayRun",
    "Row",
    "Run",
    "State",
    "Trained",
    "checked",
    "datasets",
    "device_of",
    "kind_of_device",
    "on_workers",
    "train",
    "use_threads",
]

VERSION = 1
"""Of what a training makes of its lessons. Raise it when the same training would give other
weights: loop, lessons, losses, optimiser, schedule. Every model is then trained anew."""

Log = Callable[[Row], None]
"""Called after every epoch with its row of the training curve."""
Examine = Callable[[Network], Row]
"""Called after every epoch with the draft; gives what it is worth to its target by now."""

SLOW_BF16 = (
    "dtype is bf16, which this processor does not multiply: fp32 may be several times faster "
    "(dtype=fp32 makes another model)"
)


class Trained(NamedTuple):
    """A trained model and how it came about."""

    model: Network
    """the best weights of the last stage, on the CPU, ready for inference"""
    curve: list[Row]
    """one row per stage and epoch"""


class Begun(NamedTuple):
    """A training whose first stages are over."""

    stages: int
    """how many"""
    weights: Path
    """directory of the model that they led to"""
    curve: list[Row]


def train(
    training: Training,
    *,
    run: Run,
    log: Log | None = None,
    examine: Examine | None = None,
    begun: Begun | None = None,
) -> Trained:
    """The model that a training's stages lead to, with its curve.

    Args:
        training: what to train.
        run: where.
        log: told of every epoch.
        examine: what the draft is worth to its target; its figures join the epoch's row.
        begun: the stages that are over, where some are.

    Raises:
        DataError: a stage's data cannot be read, or is too short for the model.
        ConfigError: the workers cannot share a batch, data of different steps are mixed, or the
            target's answers have no room.
        Diverged: a loss is no number any more.
    """
    sets = checked(training, workers=run.world_size)
    if run.rank == 0 and training.dtype == "bf16" and not multiplies_bf16(run.device):
        print(SLOW_BF16, file=sys.stderr)
    torch.manual_seed(training.seed)
    model = families.build(training.model).to(run.device)
    curve: list[Row] = []
    if begun:
        model.load_state_dict(checkpoint.load(buckets.fetch(begun.weights)).state_dict())
        curve = list(begun.curve)
    state = run.resume()
    if begun and state and state["stage"] < begun.stages:
        state = None  # of a stage whose end, and with it its whole curve, is there by now
    if state:
        curve = list(state["curve"])
    for index in range(begun.stages if begun else 0, len(training.stages)):
        if state and state["stage"] > index:
            continue
        learner = Learner(training, index, model, run, sets=sets[index])
        if state and state["stage"] == index:
            learner.restore(state)
        else:
            # Each stage and worker draws its own dropout, whatever came before it.
            torch.manual_seed(training.seed + 7919 * (index + 1) + 104_729 * run.rank)
        while not learner.done:
            row = {"number": len(curve) + 1, **learner.epoch()}
            if examine and run.rank == 0:
                row |= examine(model.eval())
            curve.append(row)
            run.save({**learner.state(), "curve": curve}, row=row)
            if log and run.rank == 0:
                log(row)
        model.load_state_dict(learner.best)
    return Trained(model.cpu().eval(), curve)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; one without them converts each number."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def on_workers(
    training: Training,
    *,
    machine: Machine,
    name: str,
    storage: Path,
    log: Log | None = None,
    examine: Examine | None = None,
    begun: Begun | None = None,
) -> Trained:
    """What `train` gives, trained by `machine.workers` workers of Ray Train under DDP.

    A worker that dies is replaced and training goes on from the last checkpoint; a driver that
    dies finds it under the same name.

    Raises:
        DataError, ConfigError, Diverged: as `train`.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    checked(training, workers=machine.workers)
    journal = storage.resolve() / f"{name}.jsonl"
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "training": training.model_dump(mode="json"),
            "journal": journal,
            "examine": examine,
            "begun": begun,
        },
        scaling_config=ScalingConfig(
            num_workers=machine.workers,
            use_gpu=kind_of_device(machine) == "cuda",
            resources_per_worker={"CPU": machine.cpus} if machine.cpus else None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=buckets.address_of(storage) or str(storage.resolve()),
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with following(journal, log):
            result = trainer.fit()
    except WorkerGroupError as error:
        # What is wrong with the training itself is said as if it had run here.
        failures = error.worker_failures.values()
        raise next((e for e in failures if isinstance(e, Stopped | InvalidInput)), error) from error
    assert result.checkpoint is not None, "a training has at least one epoch, and each reports one"
    with result.checkpoint.as_directory() as directory:
        state = torch.load(Path(directory) / FILE, map_location="cpu", weights_only=True)
    model = families.build(training.model)
    model.load_state_dict(state["best"])
    return Trained(model.eval(), state["curve"])


def _worker(config: dict[str, Any]) -> None:
    train(
        Training.model_validate(config["training"]),
        run=RayRun(),
        log=Journal(config["journal"]),
        examine=config["examine"],
        begun=config["begun"],
    )
