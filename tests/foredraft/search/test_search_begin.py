"""Claims about how a study begins: what is found before its first trial, and what counts as begun.

Nothing here starts Ray: what cannot be is told before.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from ray._private import ray_constants, services

from foredraft import files
from foredraft.cli.studies import Search
from foredraft.cluster import joining
from foredraft.data import DataError, load
from foredraft.errors import ConfigError
from foredraft.search import disk, driver, progress, record
from foredraft.search.record import Record
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study, StudyStopped

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}

Begin = Callable[..., Path]


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
    }
    return validated(Study, tree | changes, source="tiny")


@pytest.fixture
def begin(make_trial: Callable[..., Trial]) -> Begin:
    """The directory of a study that was interrupted after trials of these error ratios."""

    def interrupted(what: Study, storage: Path, *ratios: float) -> Path:
        directory = storage / "studies" / what.name
        driver._open_directory(what, directory, anew=True, dashboard=None)
        searcher = OptunaSearcher(what, open_record(what, directory))
        for number, ratio in enumerate(ratios):
            searcher.suggest(str(number))
            text = make_trial(number, mse_ratio=ratio).model_dump_json()
            searcher.on_trial_complete(str(number), {record.TRIAL: text})
        return directory

    return interrupted


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens, so that a study ends before Ray begins."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(joining, "ANSWER_S", 0.5)
    return address


def test_an_address_where_nobody_answers_is_told_in_one_line(
    tmp_path: Path, no_cluster: str
) -> None:
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS is {no_cluster}: nobody") as refusal:
        driver.run(study(), storage=tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_cluster_of_another_python_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, no_cluster: str
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Python: 3.11.9\n")

    monkeypatch.setattr(joining, "_check_answers", lambda _: None)
    monkeypatch.setattr(joining.ray, "init", refuses)
    with pytest.raises(ConfigError) as refusal:
        joining.connect()
    assert "\n" not in str(refusal.value)
    assert "started with: Python: 3.11.9; use one constraints.txt" in str(refusal.value)


def test_the_note_of_a_cluster_that_died_is_passed_over(
    no_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: no_cluster)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    for name in ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "put back after the test")
    assert joining._address() == "local"
    with socket.create_server(("127.0.0.1", int(no_cluster.rpartition(":")[2]))):
        assert joining._address() is None


@pytest.mark.parametrize("place", ["evaluation", "draft", "target"])
def test_data_that_is_not_there_is_told_before_anything_is_begun(
    tmp_path: Path, place: str
) -> None:
    gone = {**STAGE, "data": "gone.csv"}
    changes = {
        "evaluation": {"data": "gone.csv", "horizon": 60},
        "draft": {"stages": [gone]},
        "target": {"model": MODEL, "stages": [gone]},
    }
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        driver.run(study(**{place: changes[place]}), storage=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"data": STAGE["data"], "horizon": 720}, "validation"),
        ({"data": "holes.csv", "horizon": 60, "missing": "skip"}, "test"),
    ],
    ids=["too short a split", "no whole window in the split that the end is judged on"],
)
def test_that_there_is_nothing_to_judge_by_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = load(STAGE["data"])
    table = pd.DataFrame(made.values_TC, columns=made.variates)
    table.iloc[970::20] = None
    table.insert(0, "date", made.time)
    table.to_csv("holes.csv", index=False)
    with pytest.raises(DataError, match=said):
        driver.run(study(evaluation=evaluation), storage=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_target_whose_data_are_too_short_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    short = {**STAGE, "data": "synthetic-etth:rows=60"}
    with pytest.raises(DataError, match="train"):
        driver.run(study(target={"model": MODEL, "stages": [short]}), storage=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_study_whose_database_cannot_be_read_is_left_as_it_is_unless_it_is_replaced(
    tmp_path: Path, no_cluster: str, begin: Begin, resume: bool
) -> None:
    file = begin(study(), tmp_path, 1.0) / record.DATABASE_FILE
    file.write_bytes(b"SQLite format 3\0" + b"damaged" * 999)
    damaged = file.read_bytes()
    with pytest.raises(ConfigError, match=r"study\.db: .*not a database|malformed"):
        driver.run(study(), storage=tmp_path, resume=resume)
    assert file.read_bytes() == damaged
    with pytest.raises(ConfigError, match="nobody answers"):  # it would begin
        driver.run(study(), storage=tmp_path, replace=True)


def test_a_study_that_is_replaced_leaves_nothing_to_tensorboard(
    tmp_path: Path, begin: Begin
) -> None:
    directory = begin(study(), tmp_path, 1.0)
    (tmp_path / "tensorboard" / "tiny" / "trial-0000").mkdir(parents=True)
    driver._open_directory(study(), directory, anew=False, dashboard=None)
    assert (tmp_path / "tensorboard" / "tiny").exists()
    driver._open_directory(study(), directory, anew=True, dashboard=None)
    assert not (tmp_path / "tensorboard" / "tiny").exists()


def test_a_study_without_a_trial_is_no_study_and_one_with_a_trial_is(
    tmp_path: Path, no_cluster: str, begin: Begin
) -> None:
    directory = begin(study(), tmp_path)
    (directory / "study.yaml").write_text("")
    with pytest.raises(ConfigError, match="nobody answers"):  # it would begin
        driver.run(study(), storage=tmp_path)
    begin(study(), tmp_path, 1.0)
    with pytest.raises(ConfigError, match="'tiny' exists"):
        driver.run(study(), storage=tmp_path)


def test_the_trials_of_another_version_are_refused_unless_they_are_replaced(
    tmp_path: Path, no_cluster: str, begin: Begin
) -> None:
    directory = begin(study(), tmp_path)
    open_record(study(), directory).ask().set_user_attr("row", "{}")
    with pytest.raises(ConfigError, match=r"'tiny' was searched by another version .* --replace"):
        driver.run(study(), storage=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="nobody answers"):  # it would begin
        driver.run(study(), storage=tmp_path, replace=True)


def test_a_study_whose_database_was_emptied_can_be_replaced(tmp_path: Path, begin: Begin) -> None:
    what = study(database=f"sqlite:///{tmp_path / 'shared.db'}")
    directory = begin(what, tmp_path, 1.0)
    optuna.delete_study(study_name="tiny", storage=what.database)
    driver._open_directory(what, directory, anew=True, dashboard=None)
    assert record.stored(what, directory) == []


def test_a_study_most_of_whose_trials_failed_ends_as_one_that_failed(
    make_trial: Callable[..., Trial],
) -> None:
    from rich.console import Console

    console = Console(record=True, quiet=True)
    good, bad = make_trial(), make_trial(error="my.csv is gone")
    taken = make_trial(source="first")
    driver._say_failures(Record(study(), (good, bad)), console)
    for trials, count in (((bad, bad, good, taken), "2 of 3"), ((bad, bad), "all 2")):
        with pytest.raises(StudyStopped, match=f"{count} trials failed, .*: my.csv is gone"):
            driver._say_failures(Record(study(), trials), console)


def test_an_epoch_of_the_target_is_told_with_what_its_stage_may_still_take() -> None:
    row = {
        **{"stage": "scratch", "epoch": 2, "epochs": 5},
        **{"validation_loss": 0.5, "seconds": 10.0},
    }
    said = progress.epoch_in_words(row, "target")
    assert "scratch 2/5: validation 0.5000" in said
    assert "at most 30 s left" in said
    assert "left" not in progress.epoch_in_words({**row, "epoch": 5}, "target")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "whatever the language"), "the disk is full: "),
        (RuntimeError("sqlite3.OperationalError: database or disk is full"), "the disk is full: "),
        (
            files.DiskFull("x: No space left on device (7 bytes are left in /cache): go"),
            "full: 7 b",
        ),
        (OSError(errno.EDQUOT, "whatever the language"), "the quota is used up"),
        (OSError(errno.EROFS, "of another disk: this one takes a file"), None),
        (RuntimeError("attempt to write a readonly database"), "Permission denied"),
        (OSError(errno.ENOENT, "no such file"), None),
        (ValueError("anything else"), None),
    ],
)
def test_a_disk_that_takes_no_more_is_known_however_deep_it_was_noticed(
    tmp_path: Path, error: Exception, what: str | None
) -> None:
    directory = tmp_path / "studies" / "tiny"
    directory.mkdir(parents=True)
    (directory / "study.yaml").touch()
    outer = RuntimeError("the trial runner failed")
    outer.__cause__ = KeyError("between")
    outer.__cause__.__context__ = error
    fault = disk.fault(directory, outer)
    assert what in fault.what if fault and what else fault is what is None
    # Of a study that has not begun, whose disk cannot be asked, the word is taken.
    early = disk.fault(directory, OSError(errno.EROFS, "whatever the language"), begun=False)
    assert early
    assert early.what.endswith("is read-only")
    (directory / "study.yaml").unlink()
    gone = disk.fault(directory, outer)
    assert gone
    assert gone.what == f"{tmp_path} is gone: {directory / 'study.yaml'} is not there any more"


def test_a_full_disk_ends_a_study_in_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(driver, "_run", full)
    with pytest.raises(StudyStopped, match=r"bytes are left there; .*make room, then") as stopped:
        driver.run(study(), storage=tmp_path)
    assert str(tmp_path) in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_the_environment_may_name_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREDRAFT_STORAGE", "/mnt/team")
    assert Search(study=Path("tiny.yaml")).storage == Path("/mnt/team")
    monkeypatch.delenv("FOREDRAFT_STORAGE")
    assert Search(study=Path("tiny.yaml")).storage == Path("runs")


def test_a_storage_in_rays_cache_of_packages_is_warned_of(
    tmp_path: Path, no_cluster: str, capfd: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1" / "runs"
    with pytest.raises(ConfigError, match="nobody answers"):
        driver.run(study(), storage=storage)
    assert "FOREDRAFT_STORAGE" in capfd.readouterr().err


def test_a_study_of_before_a_field_was_there_goes_on(tmp_path: Path, begin: Begin) -> None:
    what = study()
    kept = begin(what, tmp_path, 0.9) / "study.yaml"
    tree = yaml.safe_load(kept.read_text())
    for name in ("season", "reading", "missing"):
        del tree["evaluation"][name]
        for stage in (*tree["draft"]["stages"], *tree["target"]["stages"]):
            stage.pop(name, None)
    kept.write_text(yaml.safe_dump(tree))
    driver._check_directory(what, kept.parent, replace=False, resume=True)
    with pytest.raises(ConfigError, match="evaluation of study 'tiny' has changed"):
        driver._check_directory(
            study(evaluation={"data": STAGE["data"], "horizon": 60, "season": 7}),
            kept.parent,
            replace=False,
            resume=True,
        )
