"""Claims about claims: one holder at a time, and a dead one holds nothing.

A process's number is no proof of life: on its own host too, a claim that nobody touches is free
after its lease. Who waits longer than a moment is told once for whom.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foredraft.bank import claims, notes
from foredraft.errors import ConfigError

HOLD = """
import sys, time
from pathlib import Path
from foredraft.bank import claims
with claims.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    return tmp_path / "claims" / "draft"


def holder_of(claim: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(claim)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_the_claim_of_a_killed_process_is_free_at_once(claim: Path) -> None:
    process = holder_of(claim)
    with pytest.raises(ConfigError, match=f"process {process.pid}"), claims.held(claim, wait=False):
        pass
    process.send_signal(signal.SIGKILL)
    # Not waited for: a killed process whose parent has not noticed is dead all the same.
    time.sleep(0.2)
    with claims.held(claim, wait=False):
        pass
    process.communicate()


def test_only_one_of_many_is_inside_at_a_time(
    claim: Path, monkeypatch: pytest.MonkeyPatch, most_inside: Callable[..., int]
) -> None:
    monkeypatch.setattr(notes.FileNote, "poll_s", 0.002)
    assert most_inside(lambda: claims.held(claim)) == 1
    assert not list(claim.parent.iterdir())


def test_the_claim_of_another_node_lasts_as_long_as_it_is_touched(claim: Path) -> None:
    claim.parent.mkdir()
    claim.write_text(json.dumps({"pid": 1, "host": "another", "token": "x"}))
    with pytest.raises(ConfigError, match="another"), claims.held(claim, wait=False):
        pass
    past = time.time() - 2 * claims.LEASE_S
    os.utime(claim, (past, past))
    with claims.held(claim, wait=False):
        pass


@pytest.mark.root
def test_a_process_number_of_another_container_says_nothing_here(claim: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    write = (
        "import json, sys; from foredraft.bank import claims; "
        "print(json.dumps({'pid': 10**6, 'host': claims._host(), 'token': 'x'}))"
    )
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", write]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no namespaces: {made.stderr}")
    claim.parent.mkdir()
    claim.write_text(made.stdout)
    with pytest.raises(ConfigError, match="at work"), claims.held(claim, wait=False):
        pass


def test_work_that_raises_frees_its_claim(claim: Path) -> None:
    with pytest.raises(RuntimeError), claims.held(claim):
        raise RuntimeError
    assert not claim.exists()


def test_the_claim_of_a_number_that_another_process_has_by_now_ends_with_its_lease(
    claim: Path,
) -> None:
    claim.parent.mkdir()
    claim.write_text(json.dumps({"pid": os.getppid(), "host": claims._host(), "token": "old"}))
    with pytest.raises(ConfigError, match="at work"), claims.held(claim, wait=False):
        pass
    past = time.time() - 2 * claims.LEASE_S
    os.utime(claim, (past, past))
    with claims.held(claim, wait=False):
        pass


def test_one_that_lost_its_lease_does_not_keep_its_successors_claim_alive(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes.FileNote, "beat_s", 0.02)
    with claims.held(claim):
        past = time.time() - 2 * claims.LEASE_S
        other = claim.with_name("other")
        other.write_text(json.dumps({"pid": 1, "host": "another", "token": "successor"}))
        os.utime(other, (past, past))
        other.replace(claim)
        time.sleep(0.3)
        assert claim.stat().st_mtime == pytest.approx(past, abs=1)
    assert claim.exists(), "what is another's is not removed at the end"


def test_a_claim_that_is_worked_under_is_kept_alive(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes.FileNote, "beat_s", 0.02)
    with claims.held(claim):
        (path,) = claim.parent.glob("draft*")
        os.utime(path, (1, 1))
        time.sleep(0.5)
        assert path.stat().st_mtime > 1
    assert not list(claim.parent.glob("draft*"))


def test_who_waits_is_told_once_for_whom(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PATIENCE_S", 0.3)
    told: list[str] = []
    with claims.held(claim):
        waiting = threading.Thread(target=lambda: _hold(claim, told))
        waiting.start()
        time.sleep(1.2)
    waiting.join()
    (line,) = told
    assert line.startswith(f"waiting for draft, at work in process {os.getpid()} on ")


def test_who_does_not_wait_is_told_nothing(claim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claims.held(claim):
        pass
    assert capsys.readouterr().err == ""


def _hold(claim: Path, told: list[str]) -> None:
    with claims.held(claim, say=told.append):
        pass
