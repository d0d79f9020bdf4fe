"""Claims about a watched record: it is read where it changed, kept while it is away, never written.

It needs no Ray.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.errors import ConfigError
from foredraft.search import record
from foredraft.search.trial import Trial
from foredraft.search.watch import Watch
from foredraft.train.journal import Journal

MakeTrial = Callable[..., Trial]
WriteStudy = Callable[..., Path]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def watched(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> Iterator[tuple[Watch, Path]]:
    directory = write_study(storage, "tiny", make_trial(0), make_trial(1, error="no room"))
    watch = Watch(directory)
    yield watch, directory
    watch.close()


def numbers(watch: Watch) -> list[int]:
    return [trial.number for trial in watch.record().trials]


def test_its_mark_changes_with_every_trial_that_is_reported_and_never_else(
    watched: tuple[Watch, Path], storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    watch, _ = watched
    before = watch.mark
    assert numbers(watch) == [0, 1]
    assert watch.mark == before
    write_study(storage, "tiny", make_trial(2))
    assert watch.mark != before
    assert numbers(watch) == [0, 1, 2]


def test_its_mark_changes_with_every_epoch_of_a_draft_that_it_asked_for(
    watched: tuple[Watch, Path], storage: Path
) -> None:
    watch, directory = watched
    marks = [watch.mark]
    housekeeping.note("d-7", study=directory, settings={"scale": 0.7})
    marks.append(watch.mark)
    for number in (1, 2):
        Journal(bank.epochs_file(storage, "d-7"))({"number": number})
        marks.append(watch.mark)
    assert len(set(marks[1:])) == 3
    Journal(bank.epochs_file(storage, "another"))({"number": 1})
    assert watch.mark == marks[-1]


def test_a_trial_that_has_ended_is_parsed_once(
    watched: tuple[Watch, Path],
    storage: Path,
    make_trial: MakeTrial,
    write_study: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, _ = watched
    watch.record()
    parsed = []
    once = record.trial_of
    monkeypatch.setattr(
        record, "trial_of", lambda one, **more: parsed.append(one.number) or once(one, **more)
    )
    write_study(storage, "tiny", make_trial(2))
    watch.record()
    assert parsed == [2]


def test_it_tells_how_far_a_study_is_without_reading_a_trial(
    watched: tuple[Watch, Path],
    storage: Path,
    make_trial: MakeTrial,
    write_study: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, _ = watched
    write_study(storage, "tiny", make_trial(2, running=True))
    monkeypatch.delattr(record, "trial_of")
    count = watch.count()
    assert (count.begun, count.ended) == (3, 2)
    assert count.last is not None


def test_a_storage_that_vanishes_is_said_and_one_that_comes_back_is_read(
    watched: tuple[Watch, Path],
) -> None:
    watch, directory = watched
    before, there = numbers(watch), watch.mark
    away = directory.with_name("away")
    directory.rename(away)
    assert watch.mark != there
    with pytest.raises(ConfigError, match="holds no study any more"):
        watch.record()
    away.rename(directory)
    assert watch.mark == there
    assert numbers(watch) == before
    (directory / record.DATABASE_FILE).rename(directory / "aside")
    with pytest.raises(ConfigError, match="has vanished"):
        watch.record()


def test_a_study_that_was_begun_anew_is_not_taken_for_the_old_one(
    watched: tuple[Watch, Path], storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    watch, directory = watched
    assert numbers(watch) == [0, 1]
    shutil.rmtree(directory)
    write_study(storage, "tiny", make_trial(0, acceptance_rate=0.3))
    (only,) = watch.record().trials
    assert only.outcome
    assert only.outcome.metrics.acceptance_rate == 0.3


def test_a_study_that_was_begun_anew_in_a_database_is_not_taken_for_the_old_one(
    tmp_path: Path, storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    directory = write_study(storage, "shared", make_trial(0), make_trial(1), database=shared)
    watch = Watch(directory)
    assert numbers(watch) == [0, 1]
    optuna.delete_study(study_name="shared", storage=shared)
    write_study(storage, "shared", make_trial(0, acceptance_rate=0.3), database=shared)
    (directory / "provenance.json").write_text("{}")
    (only,) = watch.record().trials
    assert only.outcome
    assert only.outcome.metrics.acceptance_rate == 0.3
    watch.close()


def test_a_damaged_storage_is_one_line(watched: tuple[Watch, Path]) -> None:
    watch, directory = watched
    watch.close()
    (directory / record.DATABASE_FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"study\.db cannot be read: [^\n]*$"):
        watch.record()


def test_watching_changes_nothing_on_the_disk(watched: tuple[Watch, Path]) -> None:
    watch, directory = watched

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    before = content()
    watch.mark, watch.record(), watch.count()
    watch.close()
    assert content() == before


def test_a_figure_that_is_no_number_is_named(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    told = make_trial(3)
    text = told.model_dump_json().replace('"mse_ratio":1.0', '"mse_ratio":NaN')
    broken: Any = told.model_copy()
    object.__setattr__(broken, "model_dump_json", lambda: text)
    watch = Watch(write_study(storage, "tiny", broken))
    with pytest.raises(ConfigError, match=r"outcome\.metrics\.mse_ratio of trial 3 is no number"):
        watch.record()


def test_the_dashboard_needs_no_ray() -> None:
    pytest.importorskip("dash")
    check = "import foredraft.dashboard, sys; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
