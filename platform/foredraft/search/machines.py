"""Where a study's work runs: joining Ray, what a task needs, how many trials there is room for."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import ray
from ray._private import ray_constants, services
from ray._private.state import state as cluster_state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foredraft import train
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine

ANSWER_S = 20.0
"""Seconds for which a cluster's head is asked whether it is there."""
NODE_S = 120.0
"""Seconds within which a node must have started a process of ours."""

# The head node: the one machine of a cluster that is never spot.
HEAD = {"node:__internal_head__": 0.001}


class Device(NamedTuple):
    """A kind of device that the cluster has."""

    name: str
    """such as cpu, gpu, or Ray's name of an accelerator"""
    needs: dict[str, float]
    """resources that only a node with such a device has"""


def connect() -> str | None:
    """Join the cluster that RAY_ADDRESS names or that runs here, or start Ray on this machine.

    A Ray of our own listens on loopback only, and so needs no token; a cluster's own settings
    are left as they are.

    Returns:
        The address of Ray's dashboard, or None where there is none.

    Raises:
        ConfigError: nobody answers at RAY_ADDRESS.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner comes even with verbose=0
        os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
        # Tune's own loggers cost 0.6 s a trial, and know nothing of stages or budgets.
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    address = None if ray.is_initialized() else _address()
    try:
        context = ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
        )
    except ConnectionError as error:
        address = os.environ.get("RAY_ADDRESS", "auto")
        first_line = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"RAY_ADDRESS is {address}: {first_line}") from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = True
    url: str | None = context.dashboard_url
    return url or None


def _address() -> str | None:
    """What Ray is to be told: `local` where no cluster is to be joined, else nothing."""
    if named := os.environ.get("RAY_ADDRESS"):
        _check_answers(named)
        return None
    # Of a cluster that was begun here Ray keeps a note, also when it has died since.
    noted: str | None = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    if noted and _answers(noted):
        return None
    # A Ray of our own listens on loopback alone.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray read that as it was imported. Asking a name server for this machine's own address, as it
    # would do else, fails on a machine without a network, in two lines of its log.
    ray_constants.ENABLE_RAY_CLUSTER = False
    return "local"


def _answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _check_answers(address: str) -> None:
    """Nothing, where something listens there: Ray itself asks for a quarter of an hour."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # `auto`, `local`, or none at all
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ConfigError(
                    f"RAY_ADDRESS is {address}: nobody answers there "
                    f"({error.strerror or error}); start that cluster, or unset RAY_ADDRESS to "
                    "use this machine alone"
                ) from error
            time.sleep(1)


def cluster_in_words(dashboard: str | None) -> str:
    """Which cluster this is: where, how large, and the address of its dashboard."""
    address, nodes, there = ray.get_runtime_context().gcs_address, _nodes(), _total()
    size = f"{len(nodes)} node{'s' * (len(nodes) > 1)}, {there['CPU']} CPUs, {there['GPU']} GPUs"
    where = f"Ray at {address}: {size}"
    if not dashboard:
        return where
    return f"{where}; dashboard {address_of(dashboard)}"


def address_of(dashboard: str) -> str:
    """The address of Ray's dashboard for a browser."""
    return dashboard if "://" in dashboard else f"http://{dashboard}"


def _total() -> dict[str, int]:
    return {name: int(sum(node.get(name, 0) for node in _nodes())) for name in ("CPU", "GPU")}


def check_shared(storage: Path) -> None:
    """Nothing, where every node of the cluster sees what is written to the storage.

    Raises:
        ConfigError: a node that does not, or on which this package cannot be imported.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    storage.mkdir(parents=True, exist_ok=True)
    witness = storage / f".seen-by-all-{uuid4().hex[:8]}"
    witness.touch()
    try:
        looks = {node["NodeName"]: _on_node(node["NodeID"], witness) for node in nodes}
        for name, look in looks.items():
            if not _answer(look, name):
                raise ConfigError(
                    f"storage {storage} is not shared: node {name} does not see what is written "
                    "to it here; give a directory that every node mounts"
                )
    finally:
        witness.unlink(missing_ok=True)


def _on_node(node_id: str, witness: Path) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": strategy, "max_retries": 0}
    return ray.remote(appears).options(**options).remote(witness)


def _answer(look: Any, name: str) -> bool:
    try:
        seen: bool = ray.get(look, timeout=NODE_S)
    except ray.exceptions.RayError as error:
        last_line = str(error).strip().rsplit("\n", 1)[-1]
        raise ConfigError(f"node {name} cannot work for this study: {last_line}") from error
    return seen


def appears(path: Path) -> bool:
    """Whether the file is there, or comes within a few seconds: file systems over a net cache."""
    for _ in range(20):
        if path.is_file():
            return True
        time.sleep(0.25)
    return False


def uses_gpu(machine: Machine) -> bool:
    """Whether the study's tasks need GPUs; the driver's own machine need not have one."""
    if machine.use_gpu is not None:
        return machine.use_gpu
    return bool(ray.cluster_resources().get("GPU"))


def settled(machine: Machine) -> Machine:
    """The machine with its device said, so that driver and tasks have one key for a model.

    A task tells: the driver's node may have none of the GPUs that the others have.
    """
    if machine.device:
        return machine
    device = ray.get(submit(_device, machine, machine=machine)) if uses_gpu(machine) else "cpu"
    return machine.model_copy(update={"device": device})


def _device(machine: Machine) -> str:
    return train.device_of(machine).type


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


def needs(
    machine: Machine, *, training: bool = False, alone: bool = False, device: Device | None = None
) -> dict[str, Any]:
    """What a task asks of Ray: its share of a node, or with `alone` all of one, or nothing.

    A training with several workers needs nothing itself, as Ray Train asks for each of them.

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
        "resources": dict(device.needs) if device else {},
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
    needed = needs(machine, training=training, alone=alone, device=device)
    return ray.remote(work).options(**OPTIONS, **needed).remote(*arguments)


# A task that lost its worker or its node is run again. It is not placed in the group of the trial
# that asks: that one holds nothing to share.
OPTIONS = {"max_retries": 3, "scheduling_strategy": "DEFAULT"}


def threads(machine: Machine) -> Machine:
    """The machine as this task may use it: as many threads as it was given CPUs."""
    given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return machine.model_copy(update={"cpus": machine.cpus or int(given) or None})


def last_line(error: Exception) -> str:
    """The last line of an error: Ray's begin with the traceback of the worker."""
    return str(error).strip().rsplit("\n", 1)[-1] or repr(error)
