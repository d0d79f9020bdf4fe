"""Claims about the journal of a training on workers: what its follower is told, and when."""

from __future__ import annotations

import time
from pathlib import Path

from foredraft.train.journal import Journal, following

Rows = list[dict[str, int]]


def test_a_follower_is_told_of_every_row_while_the_work_runs(tmp_path: Path) -> None:
    path, told = tmp_path / "rows.jsonl", Rows()
    with following(path, told.append):
        Journal(path)({"number": 1})
        for _ in range(100):
            if told:
                break
            time.sleep(0.1)
        assert [row["number"] for row in told] == [1]
        Journal(path)({"number": 2})
    assert [row["number"] for row in told] == [1, 2]


def test_an_epoch_that_is_trained_again_is_told_once(tmp_path: Path) -> None:
    path, told = tmp_path / "rows.jsonl", Rows()
    with following(path, told.append):
        for number in (1, 2, 2, 3):
            Journal(path)({"number": number})
    assert [row["number"] for row in told] == [1, 2, 3]


def test_what_an_earlier_driver_was_told_is_not_told_again(tmp_path: Path) -> None:
    path, told = tmp_path / "rows.jsonl", Rows()
    Journal(path)({"number": 1})
    with following(path, told.append):
        Journal(path)({"number": 2})
    assert [row["number"] for row in told] == [2]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path, told = tmp_path / "rows.jsonl", Rows()
    with following(path, told.append):
        path.write_text('{"number": 1}\n{"num')
    assert [row["number"] for row in told] == [1]
