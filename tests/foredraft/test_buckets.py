"""Claims about a storage that is a bucket, of a server that answers as S3 does.

Two machines are two caches here: each has a working copy of its own, and sees of the other's what
was kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foredraft import bank, buckets, files
from foredraft.bank import claims, notes
from foredraft.bank.housekeeping import remove, unused
from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine, Training, validated

Elsewhere = Callable[[], Path]
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 2, "lr": 0.003}
MODEL = {"patch": 12, "context": 48, "d_model": 16, "n_heads": 2, "d_ff": 16, "n_layers": 1}
TRAINING = {"model": MODEL, "stages": [{**STAGE, "windows_per_epoch": 64}], "dtype": "fp32"}


@pytest.fixture
def here(bucket: Any) -> Path:
    """This machine's working copy."""
    return buckets.working_copy(bucket.address)


@pytest.fixture
def elsewhere(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Afterwards everything happens on another machine, whose working copy this gives."""

    def move() -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        return buckets.working_copy(bucket.address)

    return move


def write(path: Path, text: str) -> Path:
    files.atomic_write(path, text)
    return path


def test_a_path_tells_its_bucket_and_any_other_path_none(here: Path, bucket: Any) -> None:
    assert buckets.address_of(here / "drafts" / "1f") == f"{bucket.address}/drafts/1f"
    assert buckets.address_of(here) == bucket.address
    assert buckets.address_of(Path("runs/drafts").absolute()) is None
    assert buckets.located(Path(bucket.address)) == here
    assert buckets.located(Path(f"{bucket.address}/studies/a/best.json")) == (
        here / "studies" / "a" / "best.json"
    )
    assert buckets.located(Path("runs")) == Path("runs")


@pytest.mark.parametrize("address", ["s3://", "s3://team/a b", "s3://team/a+b"])
def test_an_address_without_a_bucket_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match="give s3://BUCKET/PREFIX") as refusal:
        buckets.working_copy(address)
    assert "\n" not in str(refusal.value)


def test_what_is_kept_here_is_fetched_elsewhere(here: Path, elsewhere: Elsewhere) -> None:
    write(here / "drafts" / "1f" / "config.json", "{}")
    write(here / "drafts" / "1f" / "deep" / "er.txt", "text")
    buckets.keep(here / "drafts" / "1f")
    there = elsewhere()
    assert buckets.names(there / "drafts") == ["1f"]
    buckets.fetch(there / "drafts" / "1f")
    assert (there / "drafts" / "1f" / "deep" / "er.txt").read_text() == "text"
    assert not (there / "drafts" / "2a").exists()


def test_nothing_is_done_in_a_folder_that_all_nodes_see(tmp_path: Path) -> None:
    file = write(tmp_path / "runs" / "drafts" / "1f" / "config.json", "{}")
    buckets.keep(file)
    assert buckets.fetch(file).read_text() == "{}"
    assert buckets.names(tmp_path / "runs" / "drafts") == ["1f"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["drafts"]
    buckets.remove(file.parent)
    assert not file.parent.exists()


def test_the_marker_goes_last_and_locks_and_halves_stay_here(here: Path, bucket: Any) -> None:
    with files.atomic_directory(here / "drafts" / "1f") as part:
        (part / "a").write_text("a")
        (part / "z").write_text("z")
    write(here / "drafts" / ".lock", "")
    order = [path.name for path in buckets._visible(here / "drafts")]
    assert order == ["a", "z", files.COMPLETE]
    buckets.keep(here / "drafts")
    assert sorted(bucket.objects()) == [f"runs/drafts/1f/{n}" for n in (files.COMPLETE, "a", "z")]


def test_a_change_of_this_machine_stays_until_somebody_else_kept_one(
    here: Path, elsewhere: Elsewhere
) -> None:
    buckets.keep(write(here / "study.db", "one"))
    write(here / "study.db", "two, of here")
    assert buckets.fetch(here / "study.db").read_text() == "two, of here"
    there = elsewhere()
    assert buckets.fetch(there / "study.db").read_text() == "one"
    buckets.keep(write(there / "study.db", "three, of there"))
    # Clocks are not asked: one may be wrong.
    os.utime(here / "study.db", (time.time() + 1e6,) * 2)
    assert buckets.fetch(here / "study.db").read_text() == "three, of there"


def test_what_is_gone_from_the_bucket_goes_here_and_what_was_never_there_stays(
    here: Path, elsewhere: Elsewhere
) -> None:
    for name in ("study.yaml", "trials.json"):
        write(here / "studies" / "a" / name, "old")
    buckets.keep(here / "studies")
    write(here / "studies" / "a" / "of-here.txt", "")
    there = elsewhere()
    buckets.fetch(there / "studies")
    buckets.remove(there / "studies" / "a")
    buckets.keep(write(there / "studies" / "a" / "study.yaml", "new").parent)
    buckets.fetch(here / "studies")
    found = {path.name: path.read_text() for path in (here / "studies" / "a").iterdir()}
    assert found == {"study.yaml": "new", "of-here.txt": ""}


def test_of_two_who_keep_one_file_the_first_counts_and_the_other_is_told_where_it_matters(
    here: Path, elsewhere: Elsewhere, bucket: Any
) -> None:
    buckets.keep(write(here / "study.db", "one"))
    there = elsewhere()
    buckets.keep(write(buckets.fetch(there / "study.db"), "of there"))
    write(here / "study.db", "of here")
    with pytest.raises(buckets.OutOfReach, match=r"another process has kept study.db since"):
        buckets.keep(here / "study.db", alone=True)
    assert bucket.objects()["runs/study.db"] == b"of there"
    buckets.keep(here / "study.db")
    assert (here / "study.db").read_text() == "of there"


def test_a_database_is_not_fetched_beside_what_a_killed_process_left_of_another(
    here: Path, bucket: Any
) -> None:
    buckets.keep(write(here / "study.db", "one"))
    write(here / "study.db-journal", "half of a change")
    bucket.put("runs/study.db", b"two")
    assert buckets.fetch(here / "study.db").read_text() == "two"
    assert not (here / "study.db-journal").exists()


def test_what_has_not_changed_is_sent_once(here: Path, bucket: Any) -> None:
    file = write(here / "a.txt", "a")
    buckets.keep(file)
    bucket.put("runs/a.txt", b"of somebody else")
    buckets.keep(here)
    assert bucket.objects()["runs/a.txt"] == b"of somebody else"


def test_a_file_that_another_process_is_at_work_on_is_not_fetched_over(
    here: Path, bucket: Any
) -> None:
    keeping = "from pathlib import Path; import sys; from foredraft import buckets\n"
    keeping += "buckets.keep(Path(sys.argv[1])); print('kept', flush=True); sys.stdin.read()"
    file = write(here / "study.db", "one")
    process = subprocess.Popen(
        [sys.executable, "-c", keeping, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "kept\n"
    bucket.put("runs/study.db", b"on its way")
    write(file, "two, which is kept next")
    assert buckets.fetch(file).read_text() == "two, which is kept next"
    process.communicate("")
    assert buckets.fetch(file).read_text() == "on its way"


def test_a_model_is_trained_once_and_used_on_every_machine(
    here: Path, elsewhere: Elsewhere, bucket: Any
) -> None:
    training = validated(Training, TRAINING, source="tiny")
    rows: list[Any] = []
    first = bank.obtain(training, kind="draft", storage=here, machine=Machine(), log=rows.append)
    assert len(rows) == 2
    there = elsewhere()
    second = bank.obtain(training, kind="draft", storage=there, machine=Machine(), log=rows.append)
    assert len(rows) == 2
    assert second == there / "drafts" / first.name
    assert bank.models("draft", storage=there) == [second]
    assert bank.find(first.name[:6], kind="draft", storage=there) == second.resolve()
    for file in first.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()
    # Nothing is left of the training itself, nor of the claim.
    kept = {name.split("/")[1] for name in bucket.objects()}
    assert kept == {"drafts", "tensorboard"}


def test_a_model_that_a_killed_process_left_here_alone_is_kept_at_the_next_use(
    here: Path, elsewhere: Elsewhere, bucket: Any
) -> None:
    training = validated(Training, TRAINING, source="tiny")
    first = bank.obtain(training, kind="draft", storage=here, machine=Machine())
    for name in bucket.objects():
        bucket.delete(name)
    shutil.rmtree(here / ".versions")
    bank.obtain(training, kind="draft", storage=here, machine=Machine())
    assert bank.is_whole(elsewhere() / "drafts" / first.name)


def test_an_interrupted_training_goes_on_on_another_machine(
    here: Path, elsewhere: Elsewhere
) -> None:
    training = validated(Training, TRAINING, source="tiny")

    def stop(row: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bank.obtain(training, kind="draft", storage=here, machine=Machine(), log=stop)
    rows: list[Any] = []
    there = elsewhere()
    path = bank.obtain(training, kind="draft", storage=there, machine=Machine(), log=rows.append)
    assert [row["number"] for row in rows] == [2]
    whole = bank.obtain(training, kind="draft", storage=there.parent / "own", machine=Machine())
    weights = [bank.open_model(p).path / "model.safetensors" for p in (path, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_copy_that_was_damaged_is_fetched_anew_and_a_damaged_object_trained_again(
    here: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = validated(Training, TRAINING, source="tiny")
    rows: list[Any] = []

    def obtain() -> Path:
        return bank.obtain(training, kind="draft", storage=here, machine=Machine(), log=rows.append)

    monkeypatch.setattr(buckets, "LATELY_S", 0.0)
    weights = obtain() / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert (obtain() / weights.name).read_bytes() == whole
    assert len(rows) == 2
    bucket.put(f"runs/drafts/{weights.parent.name}/model.safetensors", whole[:100])
    weights.unlink()
    assert (obtain() / weights.name).read_bytes() == whole
    assert len(rows) == 4
    assert bucket.objects()[f"runs/drafts/{weights.parent.name}/model.safetensors"] == whole


def test_what_no_study_needs_is_removed_from_the_bucket(
    here: Path, elsewhere: Elsewhere, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = validated(Training, TRAINING, source="tiny")
    key = bank.obtain(training, kind="draft", storage=here, machine=Machine()).name
    there = elsewhere()
    assert [path.name for path in unused(there)] == [key]
    remove(unused(there), storage=there)
    assert not [name for name in bucket.objects() if "/drafts/" in name]
    assert unused(there) == []
    # The first machine has it still, and does not take it for one that all have.
    monkeypatch.setattr(buckets, "LATELY_S", 0.0)
    assert not bank.is_whole(here / "drafts" / key)


def test_what_others_left_in_a_folder_goes_with_it(here: Path, bucket: Any) -> None:
    # Ray Train's checkpoints come with such objects.
    for name in ("k/", "k/.validate", "k/checkpoint/", "k/checkpoint/checkpoint.pt"):
        bucket.put(f"runs/training/{name}", b"")
    buckets.remove(here / "training" / "k")
    assert set(bucket.objects()) <= {"runs/training/"}
    assert buckets.names(here / "training") == []


def test_one_of_many_on_all_machines_is_inside_a_claim(
    here: Path, monkeypatch: pytest.MonkeyPatch, bucket: Any, most_inside: Callable[..., int]
) -> None:
    monkeypatch.setattr(notes.ObjectNote, "poll_s", 0.02)
    assert most_inside(lambda: claims.held(here / "claims" / "draft"), rounds=3) == 1
    assert bucket.objects() == {}


def test_a_claim_of_another_machine_holds_until_its_lease_is_over(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = here / "claims" / "draft"
    note = notes.note_at(claim)
    content = json.dumps({"pid": 1, "host": "another/0", "token": "theirs"})
    assert note.create(content)
    assert not note.create(content)
    with pytest.raises(ConfigError, match="process 1 on another"), claims.held(claim, wait=False):
        pass
    monkeypatch.setattr(claims, "LEASE_S", 5.0)
    time.sleep(5.1)
    note.touch(content)
    with pytest.raises(ConfigError, match="process 1 on another"), claims.held(claim, wait=False):
        pass
    time.sleep(6.1)  # S3 tells whole seconds
    note.touch("not theirs any more")
    with claims.held(claim, wait=False):
        assert json.loads(note.read() or "")["pid"] == os.getpid()
    assert note.read() is None


def test_a_claim_whose_answer_was_lost_is_ours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = notes.ObjectNote.create

    def lost(note: notes.ObjectNote, content: str) -> bool:
        create(note, content)  # the client tries again, and meets its own
        return create(note, content)

    monkeypatch.setattr(notes.ObjectNote, "create", lost)
    with claims.held(here / "claims" / "draft", wait=False):
        pass
    assert buckets.names(here / "claims") == []


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", ""])
def test_an_endpoint_that_is_none_is_refused_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    buckets._store.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL is .*: give http://HOST"):
        buckets.fetch(here / "drafts")


@pytest.mark.parametrize("verb", [["drafts", "list"], ["search", "smoke"], ["report", "joint"]])
def test_a_bucket_that_is_not_there_is_said_in_one_line_before_anything_begins(
    bucket: Any, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--storage", "s3://nobodys-bucket/runs"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "storage s3://nobodys-bucket/runs is out of reach" in lines[0]


def test_data_in_a_bucket_are_found_by_name(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from foredraft.data.registry import DATASETS, locate

    monkeypatch.setenv("FOREDRAFT_DATA", f"s3://{bucket.name}/data")
    bucket.put(f"data/{DATASETS['ETTh1'].file}", b"date,OT\n")
    path, _ = locate("ETTh1")
    assert path.read_bytes() == b"date,OT\n"
