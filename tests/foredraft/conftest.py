"""A real Ray for the tests of a module; each ends its own, as another may start a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quick_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of a few repeats: how fast anything is, no test asks."""
    from foredraft.judge import timing

    monkeypatch.setattr(timing, "CALIBRATION_S", 0.05)
    monkeypatch.setattr(timing, "WARM_UP_S", 0.02)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    from foredraft.cluster import joining

    joining.connect()
    yield
    ray.shutdown()
