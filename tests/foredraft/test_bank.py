"""Claims about looking after the bank: what is needed is kept, what is not can go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foredraft import bank, claims, drafts
from foredraft.cli import main
from foredraft.config import ConfigError
from timer_xl import TimerXL, TimerXLConfig


def draft(storage: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    model = TimerXL(TimerXLConfig(patch=4, context=8, d_model=8, n_heads=1, d_ff=8, n_layers=1))
    return drafts.add(model, kind="draft", storage=storage, source=Path("elsewhere.pth"))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Two drafts, of which a study names the first."""
    needed, _ = draft(tmp_path, seed=0), draft(tmp_path, seed=1)
    study = tmp_path / "studies" / "joint"
    study.mkdir(parents=True)
    (study / "study.db").write_bytes(b"...user_attr " + needed.name.encode())
    return tmp_path


def test_what_no_study_names_is_unused_and_the_rest_is_not(storage: Path) -> None:
    users = {line.key: line.used_by for line in bank.listed(storage)}
    assert sorted(users.values()) == ["joint", "nobody"]
    (unused,) = bank.unused(storage)
    assert users[unused.name] == "nobody"


def test_prune_only_names_until_it_is_told_to_remove(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["drafts", "prune", "--storage", str(storage), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told["unused"]) == 1
    assert told["bytes"] > 0
    assert len(bank.listed(storage)) == 2
    main(["drafts", "prune", "--yes", "--storage", str(storage)])
    assert [line.used_by for line in bank.listed(storage)] == ["joint"]


def test_what_a_dead_training_left_is_unused_and_what_is_being_trained_is_not(
    storage: Path,
) -> None:
    for key in ("dead", "living"):
        (storage / "training" / key).mkdir(parents=True)
        (storage / "training" / key / "checkpoint.pt").touch()
    (storage / "drafts" / ".half-0123").mkdir()
    with claims.held(storage / "claims" / "living"):
        names = {path.name for path in bank.unused(storage)}
    assert {"dead", ".half-0123"} < names
    assert "living" not in names


def test_nothing_is_removed_while_a_study_is_at_work(storage: Path) -> None:
    with (
        claims.held(storage / "claims" / "study-joint"),
        pytest.raises(ConfigError, match="study-joint is at work"),
    ):
        bank.remove(bank.unused(storage), storage=storage)
    assert len(bank.listed(storage)) == 2


def test_a_draft_is_shown_by_the_beginning_of_its_key(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = bank.listed(storage)[0].key
    main(["drafts", "show", key[:6], "--storage", str(storage), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["key"] == key
    assert shown["provenance"]["imported"] == "elsewhere.pth"
