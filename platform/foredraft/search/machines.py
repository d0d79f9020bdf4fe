"""Where a study's work runs: joining Ray, what a task claims, how many trials there is room for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray._private.state import state as cluster_state

from foredraft.config import ConfigError, Machine

# The head node: the one machine of a cluster that is never spot.
HEAD = {"node:__internal_head__": 0.001}


class Device(NamedTuple):
    """A kind of device that the cluster has."""

    name: str
    """such as cpu, gpu, or Ray's name of an accelerator"""
    claims: dict[str, float]
    """resources that only a node with such a device has"""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine alone.

    A Ray of our own listens on loopback only, and so needs no token; a cluster's own settings
    are left as they are.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner comes even with verbose=0
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    # Tune's own loggers cost 0.6 s a trial, and know nothing of stages or budgets.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray.init(log_to_driver=False, logging_level=logging.ERROR)


def dashboard() -> str | None:
    """The address of Ray's dashboard, where there is one."""
    address: str | None = ray._private.worker.get_dashboard_url()
    return f"http://{address}" if address else None


def uses_gpu(machine: Machine) -> bool:
    """Whether the study's tasks claim GPUs; the driver's own machine need not have one."""
    if machine.use_gpu is not None:
        return machine.use_gpu
    return bool(ray.cluster_resources().get("GPU"))


def settled(machine: Machine) -> Machine:
    """The machine with `use_gpu` said, so that driver and tasks have one key for a model."""
    return machine.model_copy(update={"use_gpu": uses_gpu(machine)})


def devices(machine: Machine) -> list[Device]:
    """The kinds of device on which the study may run, as far as they are there now."""
    if not uses_gpu(machine):
        return [Device("cpu", {})]
    prefix = "accelerator_type:"
    kinds = sorted(
        {name for n in _nodes() if n.get("GPU") for name in n if name.startswith(prefix)}
    )
    return [Device(kind.removeprefix(prefix), {kind: 0.001}) for kind in kinds] or [
        Device("gpu", {})
    ]


def concurrency(machine: Machine) -> int:
    """Trials under way at once: as many as asked for, but no more than find a device.

    A cluster that grows by itself counts at its full size; it grows only under load.
    """
    room = _room(machine)
    return room if machine.concurrency is None else min(machine.concurrency, room)


def _room(machine: Machine) -> int:
    grown = cluster_state.get_max_resources_from_cluster_config() or {}
    if uses_gpu(machine):
        return int(max(ray.cluster_resources().get("GPU", 0), grown.get("GPU", 0), 1))
    if machine.concurrency is None:
        return max(1, len([node for node in _nodes() if node.get("CPU")]))
    share = _share(machine)
    present = sum(int(node.get("CPU", 0)) // share for node in _nodes())
    return max(present, int(grown.get("CPU", 0)) // share, 1)


def claims(
    machine: Machine, *, training: bool = False, alone: bool = False, device: Device | None = None
) -> dict[str, Any]:
    """What a task claims: its share of a node, or with `alone` all of one, or nothing.

    A training with several workers claims nothing, as Ray Train claims for each of them.

    Raises:
        ConfigError: no node has that much.
    """
    if training and machine.workers:
        return {"num_cpus": 0}
    # A GPU is nobody else's anyway, and a whole node would keep its other GPUs waiting.
    whole = alone and not uses_gpu(machine)
    return {
        "num_cpus": _smallest_node() if whole else _share(machine),
        "num_gpus": 1 if uses_gpu(machine) else 0,
        "resources": dict(device.claims) if device else {},
    }


def _share(machine: Machine) -> int:
    node = _smallest_node()
    nodes = len([one for one in _nodes() if one.get("CPU")])
    per_node = -(-(machine.concurrency or 1) // nodes)
    if uses_gpu(machine):
        per_node = max([int(n["GPU"]) for n in _nodes() if n.get("GPU")] or [1])
    share = machine.cpus or max(1, node // per_node)
    if share > node:
        raise ConfigError(f"machine.cpus is {share}: the smallest node has {node}")
    return share


def _smallest_node() -> int:
    return int(min(node["CPU"] for node in _nodes() if node.get("CPU")))


def _nodes() -> list[dict[str, float]]:
    """The resources of each node that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def submit(
    work: Callable[..., Any],
    *arguments: Any,
    machine: Machine,
    training: bool = False,
    alone: bool = False,
    device: Device | None = None,
) -> Any:
    """The future of `work(*arguments)` as a task with what it needs."""
    needs = claims(machine, training=training, alone=alone, device=device)
    return ray.remote(work).options(**OPTIONS, **needs).remote(*arguments)


# A task that lost its worker or its node is run again. It is not placed in the group of the trial
# that asks: that one holds nothing to share.
OPTIONS = {"max_retries": 3, "scheduling_strategy": "DEFAULT"}


def threads(machine: Machine) -> Machine:
    """The machine as this task may use it: as many threads as it claimed CPUs."""
    claimed = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return machine.model_copy(update={"cpus": machine.cpus or int(claimed) or None})
