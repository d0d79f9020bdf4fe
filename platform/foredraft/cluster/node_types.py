"""What nodes a cluster has or can have: the autoscaler's node types first, nodes present second.

    of_cluster()        # [NodeType("gpu_worker", cpus=4, gpus=1, accelerator="A10G", most=8)]

A cluster that grows by itself begins with its head alone: who asks only what is there would run
everything on it, and no worker would ever be asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
import yaml

from foredraft.cluster.tasks import HEAD, OPTIONS, last_line
from foredraft.errors import ConfigError

ACCELERATOR = "accelerator_type:"
"""What Ray's resources of a kind of accelerator are named after."""
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its namespace."""
ASKED_S = 300.0
"""Seconds within which the head tells what its autoscaler was given."""


class NodeType(NamedTuple):
    """Nodes of one kind, as many of them as there may be."""

    name: str
    cpus: int
    """that Ray may hand out, of one node"""
    gpus: int
    """of one node"""
    accelerator: str | None
    """the model of its GPUs as Ray names it, such as A10G; None where nobody told"""
    most: int
    """nodes of it there may be at once"""


def of_cluster() -> list[NodeType]:
    """Every type of node on which a task can run, now or once the autoscaler has started it.

    Raises:
        ConfigError: what the autoscaler was given cannot be read.
    """
    there = present(ray.nodes())
    options = OPTIONS | {"num_cpus": 0, "resources": HEAD}
    address = ray.get_runtime_context().gcs_address
    try:
        asked = ray.remote(autoscaled).options(**options).remote(address)
        config = ray.get(asked, timeout=ASKED_S)
    except ray.exceptions.RayError as error:
        raise ConfigError(
            f"what the cluster's autoscaler may start cannot be read: {last_line(error)}"
        ) from error
    return merged(described(config), there) if config else there


def autoscaled(gcs_address: str) -> dict[str, Any] | None:
    """What the autoscaler of this head was given, or None where the cluster has none.

    The cluster itself does not tell: `ray up` leaves a file on the head, which the autoscaler's
    process has in its command line; on Kubernetes it is the RayCluster that the head belongs to.
    """
    for words in _command_lines():
        told = dict(word.removeprefix("--").partition("=")[::2] for word in words)
        is_monitor = any(word.endswith("/monitor.py") for word in words)
        if is_monitor and told.get("gcs-address") == gcs_address:
            path = told.get("autoscaling-config")
            return _read(Path(path).expanduser()) if path else None
    # There the autoscaler, if there is one, runs in a container of its own.
    if "KUBERNETES_SERVICE_HOST" in os.environ and (name := os.environ.get("RAY_CLUSTER_NAME")):
        from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

        produced: dict[str, Any] = AutoscalingConfigProducer(name, NAMESPACE.read_text().strip())()
        return produced
    return None


def _read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def _command_lines() -> Iterable[list[str]]:
    """The words of every process's command line that this user may read."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes().decode(errors="replace").split("\0")


def described(config: Mapping[str, Any]) -> list[NodeType]:
    """The types of worker of an autoscaler's configuration, by GPUs and CPUs, most first.

    A bound on all workers together is spent on the types in this order: so many devices there may
    be at best.
    """
    head, left = config.get("head_node_type"), int(config.get("max_workers", 2))
    types = []
    for name, node in config["available_node_types"].items():
        most = int(node.get("max_workers", left))
        if name != head and most > 0:
            types.append(_type(name, node.get("resources") or {}, most=most))
    found = []
    for one in sorted(types, key=lambda one: (one.gpus, one.cpus), reverse=True):
        found.append(one._replace(most=min(one.most, left)))
        left -= found[-1].most
    return [one for one in found if one.cpus and one.most]


def present(nodes: Iterable[Mapping[str, Any]]) -> list[NodeType]:
    """The nodes that are there, of those that offer CPUs; such as are alike are one type.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    alike: dict[NodeType, int] = {}
    for node in nodes:
        one = _type("", node["Resources"], most=0)
        if node["Alive"] and one.cpus:
            alike[one] = alike.get(one, 0) + 1
    return [one._replace(name=_in_words(one), most=count) for one, count in alike.items()]


def merged(types: list[NodeType], there: list[NodeType]) -> list[NodeType]:
    """The autoscaler's types, and the nodes that none of them describes, such as the head.

    A node that is there tells what its type may not: the model of its GPUs.
    """
    found = list(types)
    for node in there:
        same = [one for one in found if _is_like(one, node)]
        for one in same:
            found[found.index(one)] = one._replace(accelerator=node.accelerator)
        if not same:
            found.append(node)
    return found


def _is_like(one: NodeType, node: NodeType) -> bool:
    known = {one.accelerator, node.accelerator} - {None}
    return (one.cpus, one.gpus) == (node.cpus, node.gpus) and len(known) <= 1


def _type(name: str, resources: Mapping[str, Any], *, most: int) -> NodeType:
    models = sorted(key for key in resources if key.startswith(ACCELERATOR))
    return NodeType(
        name,
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        accelerator=models[0].removeprefix(ACCELERATOR) if models else None,
        most=most,
    )


def _in_words(one: NodeType) -> str:
    gpus = f" and {counted(one.gpus, 'GPU')}" if one.gpus else ""
    return f"a node of {counted(one.cpus, 'CPU')}{gpus}"


def counted(count: int, what: str) -> str:
    """Such as `1 GPU`, `4 CPUs`."""
    return f"{count} {what}{'s' * (count != 1)}"
