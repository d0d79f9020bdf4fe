"""A real Ray for the tests of a module; each ends its own, as another may start a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    from foredraft import search

    search.connect()
    yield
    ray.shutdown()
