"""Claims about tasks: what one raised of its own is raised where it was asked for."""

from __future__ import annotations

import pytest
import ray

from foredraft.cluster import tasks
from foredraft.errors import ConfigError


@ray.remote
def refuses() -> None:
    raise ConfigError("lr is 7: it must be at most 1")


@ray.remote
def asks_another() -> None:
    ray.get(refuses.remote())


@ray.remote
def breaks() -> None:
    raise ZeroDivisionError


def test_a_mistake_that_is_found_in_a_task_is_one_line_however_many_tasks_it_came_through(
    ray_cluster: None,
) -> None:
    for work in (refuses, asks_another):
        with pytest.raises(ConfigError) as refusal:
            tasks.result(work.remote())
        assert str(refusal.value) == "lr is 7: it must be at most 1"
    with pytest.raises(ray.exceptions.RayTaskError, match="ZeroDivisionError"):
        tasks.result(breaks.remote())
