"""Claims about the curves of a study that runs: what is being trained is among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.report import curves as drawn
from foredraft.report.study_files import read_study_files
from foredraft.search import curves
from foredraft.train.journal import Journal


def row(number: int, *, loss: float = 0.5) -> dict[str, Any]:
    return {
        "number": number,
        "stage": "scratch",
        "epoch": number,
        "train_loss": loss,
        "validation_loss": loss + 0.1,
    }


@pytest.fixture
def directory(tmp_path: Path, write_study: Callable[..., Path]) -> Path:
    return write_study(tmp_path / "runs", "tiny")


def test_a_draft_that_is_being_trained_is_drawn_as_far_as_it_is(directory: Path) -> None:
    storage = directory.parents[1]
    assert len(read_study_files(directory).curves) == 0
    for key, scale in (("d-5", 0.5), ("d-7", 0.7)):
        housekeeping.note(key, study=directory, settings={"scale": scale})
    told = Journal(bank.epochs_file(storage, "d-7"))
    told(row(1, loss=0.9))
    told(row(2, loss=0.8))
    (panel,) = drawn.curves_info(read_study_files(directory).curves).panels
    (curve,) = panel.curves  # the other is asked for, and has not begun
    assert (curve.label, curve.scale) == ("draft 0.70x, under way", 0.7)
    assert curve.training == (0.9, 0.8)


def test_a_training_that_went_back_is_told_as_it_went_on(tmp_path: Path) -> None:
    told = Journal(tmp_path / "epochs.jsonl")
    for number, loss in ((1, 0.9), (2, 0.8), (3, 0.7), (2, 0.6)):
        told(row(number, loss=loss))
    with told.path.open("a") as file:
        file.write('{"number": 3, "tr')
    assert [(one["number"], one["train_loss"]) for one in curves.told(told.path)] == [
        (1, 0.9),
        (2, 0.6),
    ]


def test_a_draft_that_an_earlier_version_noted_has_its_key_for_a_name(directory: Path) -> None:
    note = directory / housekeeping.ASKED / "d-5"
    note.parent.mkdir()
    note.touch()
    Journal(bank.epochs_file(directory.parents[1], "d-5"))(row(1))
    (label,) = read_study_files(directory).curves["label"]
    assert label == "draft d-5"
