"""The one decision about resources of a study: what each kind of work is given, and where.

    allotment = allot(Machine(), [NodeType("gpu_worker", 4, 1, "A10G", 8)])
    allotment.in_words      # training: 1 GPU, 4 CPUs on gpu_worker; ...

It is made once, before the work starts, from what the cluster can have, so that no task ever asks
for what no node will offer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import ray

from foredraft import train
from foredraft.cluster import node_types, tasks
from foredraft.cluster.node_types import ACCELERATOR, NodeType, counted
from foredraft.cluster.tasks import Share, last_line
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine

PATIENCE_S = 30.0
"""How long a first task may wait for its node before that is said."""


class Allotment(NamedTuple):
    """What a study's tasks are given."""

    machine: Machine
    """as it was asked for; once settled, with the device on which tasks compute"""
    types: tuple[NodeType, ...]
    """on which they run"""
    training: Share
    """nothing where a training has workers, as Ray Train asks for each of them"""
    judging: Share
    timing: dict[str, Share]
    """by device: what runs there alone, so that a clock tells the truth. On the first one pairs are
    calibrated in the search; the front is timed on each"""
    at_once: int
    """trials under way"""

    @property
    def uses_gpu(self) -> bool:
        """Whether each task has a GPU of its own."""
        return bool(self.judging.gpus)

    @property
    def calibration(self) -> tuple[str, Share]:
        """The device on which the search times passes, and what that is given."""
        return next(iter(self.timing.items()))

    @property
    def in_words(self) -> str:
        """One line: what is trained, judged and timed with what, and where."""
        where = " or ".join(one.name for one in self.types)
        training, judging = _in_words(self.training), _in_words(self.judging)
        if workers := self.machine.workers:
            training = f"{counted(workers, 'worker')} of {_in_words(worker_share(self))}"
        device, alone = self.calibration
        others = [name for name in self.timing if name != device]
        same = "the same" if judging == training else judging
        return (
            f"training: {training} on {where}; judging: {same}; timing: {_in_words(alone)}, alone"
            + (f", on {device}" if self.uses_gpu else "")
            + (f" (the front also on {', '.join(others)})" if others else "")
            + f"; at most {counted(self.at_once, 'trial')} at once"
        )


def worker_share(allotment: Allotment) -> Share:
    """What Ray Train asks for each worker of a training."""
    return Share(allotment.machine.cpus or 1, gpus=allotment.judging.gpus)


def _in_words(share: Share) -> str:
    gpus = f"{counted(share.gpus, 'GPU')}, " if share.gpus else ""
    return f"{gpus}{counted(share.cpus, 'CPU')}"


def allot(machine: Machine, types: Sequence[NodeType]) -> Allotment:
    """The decision, from what nodes there can be.

    Raises:
        ConfigError: no node has what is asked for, nor can any have.
    """
    uses_gpu = _uses_gpu(machine, types)
    usable = _usable(machine, types, uses_gpu=uses_gpu)
    if uses_gpu:
        most = min(one.cpus // one.gpus for one in usable)
        share = Share(machine.cpus or max(1, most), gpus=1)
        room = sum(min(one.gpus, one.cpus // share.cpus) * one.most for one in usable)
    else:
        nodes, smallest = sum(one.most for one in usable), min(one.cpus for one in usable)
        per_node = -(-(machine.concurrency or 1) // nodes)
        share = Share(machine.cpus or max(1, smallest // per_node))
        room = sum(one.cpus // share.cpus * one.most for one in usable)
        if machine.concurrency is None:
            room = nodes
    _check_workers(machine, usable, uses_gpu=uses_gpu)
    return Allotment(
        machine=machine,
        types=tuple(usable),
        training=Share(0) if machine.workers else share,
        judging=share,
        timing=_timing(usable, share),
        at_once=max(1, min(machine.concurrency or room, room)),
    )


def _uses_gpu(machine: Machine, types: Sequence[NodeType]) -> bool:
    """Whether tasks have GPUs: as asked for, else where any node has one or can have."""
    if machine.use_gpu is not None:
        return machine.use_gpu
    if machine.device is not None:
        return machine.device == "cuda"
    return any(one.gpus for one in types)


def _usable(machine: Machine, types: Sequence[NodeType], *, uses_gpu: bool) -> list[NodeType]:
    """The types of which a node has room for a task."""
    able = [one for one in types if one.gpus or not uses_gpu]
    if not types:
        raise ConfigError(
            "no node of this cluster offers a CPU, and it has no node type that would: start a "
            "worker, or give its configuration a node type for workers"
        )
    if not able:
        raise ConfigError(
            f"machine.use_gpu is true: no node of this cluster has or can have a GPU "
            f"({', '.join(one.name for one in types)}); "
            "set it to false, or give the cluster a node type with GPUs"
        )
    large = [one for one in able if one.cpus >= (machine.cpus or 1)]
    if not large:
        most = max(one.cpus for one in able)
        raise ConfigError(
            f"machine.cpus is {machine.cpus}: no node {'with a GPU ' * uses_gpu}has that many; "
            f"give {most} or less"
        )
    return large


def _check_workers(machine: Machine, usable: Sequence[NodeType], *, uses_gpu: bool) -> None:
    """Nothing, where all workers of one training find room at once."""
    needed = machine.cpus or 1
    room = sum(
        min(one.gpus if uses_gpu else one.cpus, one.cpus // needed) * one.most for one in usable
    )
    if machine.workers > room:
        what = "with a GPU each" if uses_gpu else f"of {counted(needed, 'CPU')}"
        raise ConfigError(
            f"machine.workers is {machine.workers}: the cluster has room for {room} {what}, even "
            "at its full size; ask for fewer"
        )


def _timing(usable: Sequence[NodeType], share: Share) -> dict[str, Share]:
    """What is timed where: on each model of GPU, or on all of one node of the largest type.

    A GPU is nobody else's anyway, and a whole node would keep its other GPUs waiting.
    """
    if not share.gpus:
        return {"cpu": Share(max(one.cpus for one in usable))}
    counts: dict[str, int] = {}
    for one in usable:
        if one.accelerator:
            counts[one.accelerator] = counts.get(one.accelerator, 0) + one.gpus * one.most
    models = sorted(counts, key=lambda model: -counts[model])
    return {model: share._replace(pins=(ACCELERATOR + model,)) for model in models} or {
        "gpu": share
    }


def of_cluster(machine: Machine, *, say: Callable[[str], None]) -> Allotment:
    """The decision for the cluster that was joined, said, and its device settled.

    A task tells what the GPUs are to PyTorch, as the driver's node may have none: so that driver
    and tasks have one key for a model. Its node may have to be started first.

    Args:
        machine: what the study asks for.
        say: told of the decision, and of a long wait.

    Raises:
        ConfigError: no node has what is asked for, nor can any have.
    """
    allotment = allot(machine, node_types.of_cluster())
    say(allotment.in_words)
    if machine.device:
        return allotment
    device = _device_of_tasks(allotment, say=say) if allotment.uses_gpu else "cpu"
    if allotment.uses_gpu and device == "cpu":
        say("Ray counts a GPU there, but PyTorch finds none: all is computed on CPUs")
    return allotment._replace(machine=machine.model_copy(update={"device": device}))


def _device_of_tasks(allotment: Allotment, *, say: Callable[[str], None]) -> str:
    asked = tasks.submit(_device, allotment.machine, share=allotment.judging)
    if not ray.wait([asked], timeout=PATIENCE_S)[0]:
        where = " or ".join(one.name for one in allotment.types)
        say(
            f"waiting for a node with {_in_words(allotment.judging)} ({where}): none is free yet; "
            "to start one takes minutes, and `ray status` on the head tells what that waits for"
        )
    try:
        device: str = ray.get(asked)
    except ray.exceptions.RayError as error:
        raise ConfigError(f"a node cannot work for this study: {last_line(error)}") from error
    return device


def _device(machine: Machine) -> str:
    return train.device_of(machine).type
