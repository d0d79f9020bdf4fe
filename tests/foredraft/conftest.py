"""One real Ray for all tests of the platform."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    from foredraft import search

    search.connect()
    yield
    ray.shutdown()
