"""Work on each node that is there, to learn whether all of them can work for a study."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foredraft import buckets
from foredraft.cluster.tasks import last_line
from foredraft.errors import ConfigError

NODE_S = 120.0
"""Seconds within which a node must have started a process of ours."""


def present() -> dict[str, dict[str, Any]]:
    """What Ray tells of each node that is there, by its name and the start of its ID.

    A name alone may be that of several: all of one machine share it.
    """
    return {
        f"{node['NodeName']} ({node['NodeID'][:8]})": node for node in ray.nodes() if node["Alive"]
    }


def on_each(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """By the name of each node that is there: the future of `work(*arguments)` on it."""
    return {
        name: ray.remote(work)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            max_retries=0,
        )
        .remote(*arguments)
        for name, node in present().items()
    }


def check_shared(storage: Path) -> None:
    """Nothing, where every node that is there sees what is written to the storage.

    A node that leaves while it is asked has nothing to say.

    Raises:
        ConfigError: a node that does not, or on which this package cannot be imported.
    """
    if len(present()) == 1:
        return
    storage.mkdir(parents=True, exist_ok=True)
    witness = storage / f"seen-by-all-{uuid4().hex[:8]}"
    witness.touch()
    buckets.keep(witness)
    try:
        for name, look in on_each(appears, witness).items():
            try:
                seen = ray.get(look, timeout=NODE_S)
            except ray.exceptions.RayError as error:
                if name not in present():
                    continue
                raise ConfigError(
                    f"node {name} cannot work for this study: {last_line(error)}"
                ) from error
            if not seen:
                raise ConfigError(
                    f"storage {storage} is not shared: node {name} does not see what is written "
                    "to it here; give a directory that every node mounts"
                )
    finally:
        buckets.remove(witness)


def appears(path: Path) -> bool:
    """Whether the file is there, or comes within a few seconds: file systems over a net cache."""
    for _ in range(20):
        if buckets.fetch(path).is_file():
            return True
        time.sleep(0.25)
    return False
