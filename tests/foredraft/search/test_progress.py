"""Claims about what a terminal is told of drafts while they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.search import progress
from foredraft.train.journal import Journal


def row(number: int, **changes: Any) -> dict[str, Any]:
    epoch = {"number": number, "stage": "distill", "epoch": number, "epochs": 4}
    return {**epoch, "validation_loss": 0.5, "seconds": 2.0, **changes}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def test_a_draft_is_told_by_its_first_epoch_and_by_the_end_of_each_stage(
    tmp_path: Path, said: list[str]
) -> None:
    directory = tmp_path / "studies" / "mine"
    drafts = progress.Drafts(directory)
    housekeeping.note("d-7", study=directory, settings={"scale": 0.7})
    told = Journal(bank.epochs_file(tmp_path, "d-7"))
    for number in (1, 2, 3, 4):
        told(row(number))
        drafts.read()
    assert said == [
        "draft 0.70x, distill 1/4: validation 0.5000, 2.0 s, at most 6 s left of it",
        "draft 0.70x, distill 4/4: validation 0.5000, 2.0 s",
    ]


def test_a_draft_that_takes_long_is_told_of_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SAY_S", -1.0)
    directory = tmp_path / "studies" / "mine"
    drafts = progress.Drafts(directory)
    housekeeping.note("d-7", study=directory, settings={})
    told = Journal(bank.epochs_file(tmp_path, "d-7"))
    told(row(1))
    told(row(2))
    drafts.read()
    assert [line.partition(":")[0] for line in said] == [
        "draft d-7, distill 1/4",
        "draft d-7, distill 2/4",
    ]


def test_what_was_told_before_a_study_went_on_is_not_told_again(
    tmp_path: Path, said: list[str]
) -> None:
    directory = tmp_path / "studies" / "mine"
    housekeeping.note("d-7", study=directory, settings={"scale": 0.7})
    told = Journal(bank.epochs_file(tmp_path, "d-7"))
    told(row(1))
    drafts = progress.Drafts(directory)
    drafts.read()
    told(row(2))
    drafts.read()
    assert [line.partition(":")[0] for line in said] == ["draft 0.70x, distill 2/4"]


def test_the_last_epoch_is_told_though_its_journal_has_gone(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "studies" / "mine"
    drafts = progress.Drafts(directory)
    housekeeping.note("d-7", study=directory, settings={"scale": 0.7})
    path = bank.epochs_file(tmp_path, "d-7")
    Journal(path)(row(3))
    drafts.read()
    path.unlink()
    model = type("Model", (), {"metrics": {"curve": [row(3), row(4)]}})
    monkeypatch.setattr(bank, "is_whole", lambda path: path == tmp_path / "drafts" / "d-7")
    monkeypatch.setattr(bank, "open_model", lambda path: model)
    drafts.read()
    drafts.read()
    assert [line.partition(":")[0] for line in said] == [
        "draft 0.70x, distill 3/4",
        "draft 0.70x, distill 4/4",
    ]
