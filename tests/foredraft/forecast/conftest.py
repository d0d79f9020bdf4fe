"""A pair of random models in a storage of their own, for every claim about forecasts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foredraft import files
from speculation import checkpoint
from timer_xl import TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a target and a draft of random weights, and the directory of a study."""
    storage = tmp_path_factory.mktemp("storage")
    for index, kind in enumerate(("targets", "drafts")):
        torch.manual_seed(index)
        with files.atomic_directory(storage / kind / "one") as directory:
            checkpoint.save(TimerXL(CONFIG), directory)
    (storage / "studies" / "mine").mkdir(parents=True)
    return storage
