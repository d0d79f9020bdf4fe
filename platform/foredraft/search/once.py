"""Keyed work that many ask for and one does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import ray

from foredraft.cluster.tasks import HEAD, OPTIONS, Share


class Once:
    """Does each keyed piece of work once, whoever asks; meant as a Ray actor that holds no CPU.

    Those who ask for work that is under way wait for it. Work that fails tells the one who asked
    first, and is done again for the next: a failure is never kept. An actor that died starts anew
    and remembers nothing; what matters beyond it is on the storage.
    """

    def __init__(self) -> None:
        self.locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.results: dict[str, Any] = {}

    async def get(
        self,
        key: str,
        work: Callable[..., Any],
        arguments: Sequence[Any],
        share: Share,
    ) -> Any:
        """What `work(*arguments)` gives as a Ray task with its share of a node, or gave before."""
        async with self.locks[key]:
            if key not in self.results:
                task = ray.remote(work).options(**OPTIONS, **share.needs)
                self.results[key] = await task.remote(*arguments)
        return self.results[key]


def start() -> Any:
    """A handle of a new `Once`, on the head node."""
    options = {"num_cpus": 0, "resources": HEAD, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Once).options(**options, max_concurrency=1000).remote()
