"""Files are whole or absent, and a digest stands for what it was taken of.

A finished directory is on the disk before it has its name; a full disk is said in one line; a file
of ours that cannot be read is named; no secret of ten common shapes is shown.
"""

import dataclasses
import errno
import fcntl
import getpass
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import ANY

import pydantic
import pytest
import torch

from foredraft import files, provenance
from foredraft.documents import read_json
from foredraft.errors import ConfigError
from foredraft.files import DiskFull, atomic_directory, atomic_write, is_complete
from foredraft.provenance import Origin, collect, digest
from foredraft.redaction import redacted


@dataclasses.dataclass
class Plain:
    rate: float
    inner: object


class Model(pydantic.BaseModel):
    rate: float
    inner: tuple[int, ...] = ()


@pytest.mark.parametrize("content", ["text, with ä", b"\x00bytes"])
def test_an_atomic_write_leaves_the_content_and_nothing_else(tmp_path, content):
    path = tmp_path / "new" / "file"
    atomic_write(path, "older and much longer than what replaces it")
    atomic_write(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_not_seen_before_it_is_complete(tmp_path):
    path = tmp_path / "draft"
    with atomic_directory(path) as part:
        (part / "model").write_text("weights")
        assert not path.exists()
        assert not is_complete(part)
    assert is_complete(path)
    assert (path / "model").read_text() == "weights"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_whose_filling_raises_vanishes(tmp_path):
    def fill() -> None:
        with atomic_directory(tmp_path / "draft") as part:
            (part / "model").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_directory_is_replaced(tmp_path):
    path = tmp_path / "draft"
    path.mkdir()
    (path / "model").write_text("half")
    assert not is_complete(path)
    with atomic_directory(path) as part:
        (part / "other").write_text("whole")
    assert is_complete(path)
    assert not (path / "model").exists()
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_of_two_finished_directories_stays(tmp_path):
    path = tmp_path / "draft"
    with atomic_directory(path) as late:
        (late / "model").write_text("late")
        with atomic_directory(path) as early:
            (early / "model").write_text("early")
    assert (path / "model").read_text() == "early"
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_writers_at_once_one_whole_directory_stays(tmp_path):
    path = tmp_path / "draft"
    path.mkdir()
    (path / "dead").touch()
    failures = []
    gate = threading.Barrier(8)

    def write(name: str) -> None:
        try:
            with atomic_directory(path) as part:
                for file in ("a", "b"):
                    (part / file).write_text(name)
                gate.wait()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert is_complete(path)
    assert (path / "a").read_text() == (path / "b").read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_directory_never_vanishes_from_under_its_readers(tmp_path):
    path = tmp_path / "draft"
    missing = []

    def write_then_read() -> None:
        with atomic_directory(path) as part:
            (part / "a").write_text("weights")
        missing.extend(path for _ in range(200) if not (path / "a").is_file())

    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        threads = [threading.Thread(target=write_then_read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert missing == []


def test_a_directory_is_readable_by_whomever_the_umask_allows(tmp_path):
    (tmp_path / "plain").mkdir()
    with atomic_directory(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_all_of_a_directory_is_on_the_disk_before_its_marker_and_its_name(tmp_path, monkeypatch):
    path, steps = tmp_path / "draft", []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(handle):
        synced = Path(os.readlink(f"/proc/self/fd/{handle}"))
        marked = any(tmp_path.glob("**/COMPLETE"))
        steps.append((synced.name.split("-")[0], "marked" if marked else "unmarked"))
        fsync(handle)

    def record_rename(self, target):
        if target == path:
            steps.append(("rename", "draft"))
        return rename(self, target)

    with atomic_directory(path) as part:
        (part / "inner").mkdir()
        (part / "inner" / "weights").write_text("w")
        (part / "config").write_text("c")
        monkeypatch.setattr(files.os, "fsync", record_fsync)
        monkeypatch.setattr(Path, "rename", record_rename)
    assert steps == [
        ("config", "unmarked"),
        ("inner", "unmarked"),
        ("weights", "unmarked"),
        ("COMPLETE", "marked"),
        (".draft", "marked"),
        ("rename", "draft"),
        (tmp_path.name.split("-")[0], "marked"),
    ]


def test_a_full_disk_is_said_in_one_line_with_path_and_bytes_left(tmp_path):
    def write_file() -> None:
        with files.atomic_file(tmp_path / "file"), open("/dev/full", "wb") as full:
            full.write(b"x" * 100_000)

    def make_directory() -> None:
        with atomic_directory(tmp_path / "draft"):
            # As safetensors says it, which is no OSError.
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    def save_tensors() -> None:
        with files.atomic_file(tmp_path / "tensors"), open("/dev/full", "wb") as full:
            torch.save({"x": torch.zeros(100_000)}, full)

    for work, name in ((write_file, "file"), (make_directory, "draft"), (save_tensors, "tensors")):
        with pytest.raises(DiskFull) as caught:
            work()
        said = str(caught.value)
        assert str(tmp_path / name) in said
        assert "bytes are left" in said
        assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_another_error_while_writing_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="Input/output") as caught, atomic_directory(tmp_path / "a"):
        raise OSError(errno.EIO, "Input/output error")
    assert not isinstance(caught.value, DiskFull)


def test_a_lock_is_taken_on_a_file_that_is_open_for_writing(tmp_path, monkeypatch):
    # Over NFS it is refused otherwise, and the refusal would be taken for a system without locks.
    flock, modes = fcntl.flock, []

    def record(handle, operation):
        modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        flock(handle, operation)

    monkeypatch.setattr(files.fcntl, "flock", record)
    with files.locked(tmp_path):
        pass
    assert modes == [os.O_RDWR]


def test_a_lock_is_held_by_one_at_a_time_and_leaves_no_file(tmp_path, most_inside):
    assert most_inside(lambda: files.locked(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"curve": [1', "is no whole JSON"),
        (b"\xff\xfe", "is no whole JSON"),
    ],
)
def test_a_json_file_that_cannot_be_read_is_named_with_what_to_do(tmp_path, content, said):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_json(path, remedy="train it again")
    assert str(caught.value).startswith(f"{path} {said}")
    assert str(caught.value).endswith(": train it again")


def test_a_directory_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), atomic_directory(tmp_path / "file" / "draft"):
        pass


def test_equal_values_have_one_digest_whatever_they_are_wrapped_in():
    plain = {"inner": [1, 2], "rate": 0.5}
    assert digest(plain) == digest({"rate": 0.5, "inner": (1, 2)})
    assert digest(plain) == digest(Plain(0.5, (1, 2))) == digest(Model(rate=0.5, inner=(1, 2)))
    assert digest([plain]) == digest([Model(rate=0.5, inner=(1, 2))])
    assert digest({"a": Path("b/c")}) == digest({"a": "b/c"})
    assert len(digest(plain)) == 16
    assert int(digest(plain), 16) >= 0


def test_different_values_have_different_digests():
    values = [{}, [], None, 0, "0", 0.5, {"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], [[1], 2]]
    assert len({digest(value) for value in values}) == len(values)


def test_a_digest_is_the_same_in_another_process():
    code = "from foredraft.provenance import digest; print(digest({'b': 0.1, 'a': [1, None]}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest({"a": [1, None], "b": 0.1})


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, [torch.zeros(1)]])
def test_what_has_no_lasting_form_has_no_digest(value):
    with pytest.raises(TypeError, match="no digest of"):
        digest(value)


def test_provenance_is_json_and_names_command_versions_and_threads():
    facts = collect(origin=Origin.of(["foredraft", "search"]), seed=3)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["command"] == ["foredraft", "search"]
    assert facts["seed"] == 3
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["num_threads"] == torch.get_num_threads()
    assert facts["time_utc"].endswith("+00:00")
    assert len(facts["cuda"]) == torch.cuda.device_count()


def test_provenance_refuses_a_name_that_it_collects_itself():
    with pytest.raises(ValueError, match="versions is collected already"):
        collect(versions={})


@pytest.mark.parametrize(
    "word",
    [
        "postgresql://team:hunter2@host/studies",
        "--storage=postgresql+psycopg://team:hunter2@host:5432/studies",
        "s3://KEY:hunter2@bucket/runs",
        "s3://bucket/runs?secret_key=hunter2&region=eu",
        "--token=hunter2",
    ],
)
def test_no_password_of_the_command_reaches_provenance(word, monkeypatch):
    monkeypatch.setenv("FOREDRAFT_TEST_PASSWORD", "hunter2")
    facts = collect(origin=Origin.of(["foredraft", "search", word]))
    assert "hunter2" not in json.dumps(facts)
    assert "***" in facts["command"][2]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://team:hun/ter2@host/optuna",
        "postgresql://team:hun@ter2@host:5432/optuna",
        "postgresql://team:hun:ter2@host/optuna",
        "postgresql+psycopg://team:hun%40ter2@host/optuna",
        "postgresql://team:hun#ter2@host/optuna",
        "postgresql://team:hun?ter2@host/optuna",
        "postgresql://host/optuna?user=team&password=hunter2&sslmode=require",
        "postgresql://me@corp.com:hunter2@host/optuna",
        "s3:/KEY:hunter2@bucket/a/path/of/an/address",
        "db_password: hunter2",
        "token: 'hun ter2'",
        "redis://:hunter2@host",
        "--token hunter2",
        "--api-key=hun&ter2",
        "AWS_SECRET_ACCESS_KEY=hun/ter2+x",
        "aws_access_key_id: AKIAHUNTER2HUNTER2XX",
        "s3://bucket/runs?id=AKIAHUNTER2HUNTER2XX",
        "Authorization: Bearer hunter2.abc-def",
        "curl -H 'authorization: Basic hunter2abc='",
        '{"password": "hunter2", "user": "team"}',
        "https://0123456789abcdefhunter2abcdef@sentry.example/1",
        "clone https://ghp_hunter2hunter2hunter2hunter2@github.com/team/repo",
    ],
)
def test_no_secret_is_left_in_a_text(text):
    told = redacted(text)
    assert "***" in told
    assert not any(part in told.lower() for part in ("hun", "ter2"))
    assert redacted(told) == told, "what was blotted out is blotted out again"


def test_what_is_no_secret_of_an_address_is_still_told():
    told = redacted("postgresql://host/optuna?password=hunter2&sslmode=require")
    assert told == "postgresql://host/optuna?password=***&sslmode=require"
    assert redacted("postgresql://team:s3/cret@host/optuna") == "postgresql://team:***@host/optuna"


@pytest.mark.parametrize(
    "line",
    [
        "/root/.ray/auth_token: Permission denied; correct the path or its permissions",
        "model.tokenizer: Extra inputs are not permitted",
        "runs/secret: Is a directory",
        "/mnt/a:/b:c@d/e.csv does not exist",
        "C:/series:x@z.csv does not exist",
        "postgresql://forecasting-team-2@host/optuna",
        "ssh://deployment-of-forecasts@host/data",
        "stages.0.data: me@corp.com:/data/x.csv",
    ],
)
def test_a_line_without_a_secret_is_told_as_it_is(line):
    assert redacted(line) == line


def test_a_secret_that_follows_its_option_is_blotted_out_of_a_command():
    command = ["foredraft", "search", "a.yaml", "--db-password", "hunter2", "--token", "--resume"]
    told = Origin.of(command).command
    assert told == [*command[:4], "***", *command[5:]]


def test_a_command_without_secrets_is_kept_as_it_is():
    command = ["foredraft", "train", "--set", "data.source=s3://bucket/a:b.csv", "user@host"]
    assert Origin.of(command).command == command


def test_provenance_needs_no_git_and_no_user_name(monkeypatch):
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(getpass, "getuser", nameless)
    facts = collect(origin=Origin.of([]))
    assert facts["git"] is None
    assert facts["user"].isdigit()


def test_git_state_is_that_of_a_tracked_file_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "code.py"
    file.write_text("x = 1\n")
    assert provenance.git_state(file) is None
    git("init")
    assert provenance.git_state(file) is None
    git("add", "code.py")
    git("commit", "-m", "one")
    clean = provenance.git_state(file)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    file.write_text("x = 2\n")
    changed = provenance.git_state(file)
    assert changed is not None
    assert changed == clean | {"dirty": True, "diff": changed["diff"]}
    file.write_text("x = 3\n")
    assert provenance.git_state(file) == changed | {"diff": ANY}
    assert provenance.git_state(file) != changed
    file.write_text("x = 2\n")
    assert provenance.git_state(file) == changed


def test_a_job_knows_who_submitted_it_and_of_which_commit(monkeypatch):
    facts = {"user": "me", "command": ["foredraft", "search"], "git": {"commit": "abc"}}
    monkeypatch.setenv(provenance.SUBMITTED, json.dumps(facts))
    monkeypatch.setattr(provenance, "git_state", lambda file: None)  # a job's copy has no history
    told = provenance.collect()
    assert told["submitted"] == facts
    assert told["git"] == {"commit": "abc"}
