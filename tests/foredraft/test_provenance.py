"""Files are whole or absent, and a digest stands for what it was taken of."""

import dataclasses
import getpass
import json
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pydantic
import pytest
import torch

from foredraft import provenance
from foredraft.provenance import (
    atomic_directory,
    atomic_write,
    code_version,
    collect,
    digest,
    is_complete,
)


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

    monkeypatch.setattr(provenance.os, "fsync", full)
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


def test_the_code_version_follows_the_source_and_not_the_order_of_modules(tmp_path):
    def module(name: str) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__file__ = str(tmp_path / f"{name}.py")
        return made

    (tmp_path / "one.py").write_text("x = 1\n")
    (tmp_path / "two.py").write_text("x = 2\n")
    before = code_version(module("one"), module("two"))
    assert before == code_version(module("two"), module("one"))
    assert before != code_version(module("one"))
    (tmp_path / "two.py").write_text("x = 3\n")
    assert before != code_version(module("one"), module("two"))


def test_the_code_version_of_a_package_counts_its_modules(tmp_path):
    package = types.ModuleType("package")
    package.__file__ = str(tmp_path / "__init__.py")
    package.__path__ = [str(tmp_path)]
    (tmp_path / "__init__.py").touch()
    (tmp_path / "inner.py").write_text("x = 1\n")
    before = code_version(package)
    (tmp_path / "inner.py").write_text("x = 2\n")
    assert before != code_version(package)


def test_provenance_is_json_and_names_command_versions_and_threads():
    facts = collect(command=["foredraft", "search"], seed=3)
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
    facts = collect(command=["foredraft", "search", word])
    assert "hunter2" not in json.dumps(facts)
    assert "***" in facts["command"][2]


def test_a_command_without_secrets_is_kept_as_it_is():
    command = ["foredraft", "train", "--set", "data.source=s3://bucket/a:b.csv", "user@host"]
    assert collect(command=command)["command"] == command


def test_provenance_needs_no_git_and_no_user_name(monkeypatch):
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(getpass, "getuser", nameless)
    facts = collect(command=[])
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
    assert provenance.git_state(file) == clean | {"dirty": True}
