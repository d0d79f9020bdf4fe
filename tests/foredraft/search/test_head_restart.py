"""Claims about a study whose cluster loses its head: its record is in a real PostgreSQL.

The cluster is two nodes of real processes on loopback, as `ray start` begins them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from foredraft.search.record import close


class TwoNodes:
    """A head and a worker, whose processes are all in a group of their own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = Path(f"/tmp/fd-{self.port}")  # Ray's sockets need a short path
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # another test's own Ray is on loopback alone
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder),
        }
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """As one that was never there: Ray keeps its sockets and notes by the folder."""
        self.folder.mkdir()
        self.nodes = [self._node("--head", f"--port={self.port}", "--include-dashboard=false")]
        self.nodes.append(self._node(f"--address=127.0.0.1:{self.port}"))

    def behead(self) -> None:
        """Without a word to anybody, as a machine that loses its power."""
        os.killpg(self.nodes[0].pid, signal.SIGKILL)
        self.nodes[0].wait()

    def end(self) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            # Its workers are in groups of their own.
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (path / "environ").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
        for node in self.nodes:
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _node(self, *words: str) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words)
        said = self.folder / "said"
        for _ in range(3):  # Ray gives itself half a minute, which a busy machine may not have
            with said.open("wb") as lines:
                node = subprocess.Popen(
                    [*command, "--num-cpus=2", "--node-ip-address=127.0.0.1"],
                    env=self.environment,
                    stdout=lines,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            while node.poll() is None:
                if "Ray runtime started" in said.read_text():
                    return node
                time.sleep(0.1)
        raise AssertionError(said.read_text())


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    nodes.start()
    yield nodes
    nodes.end()


@pytest.mark.timeout(480)
def test_a_study_whose_head_is_gone_ends_in_one_line_and_goes_on_with_a_new_one(
    two_nodes: TwoNodes,
    postgres: Any,
    tmp_path: Path,
    tiny_tree: Callable[..., dict[str, Any]],
) -> None:
    tree = tiny_tree(name="beheaded", trials=5, database=postgres.url)
    (tmp_path / "beheaded.yaml").write_text(yaml.safe_dump(tree))
    told, storage = tmp_path / "told", tmp_path / "runs"
    held = optuna.storages.RDBStorage(postgres.url)

    def start(*words: str) -> subprocess.Popen[bytes]:
        search = ("search", str(tmp_path / "beheaded.yaml"), "--storage", str(storage))
        with told.open("wb") as lines:
            return subprocess.Popen(
                [sys.executable, "-m", "foredraft", *search, *words],
                env=two_nodes.environment | {"RAY_ADDRESS": f"127.0.0.1:{two_nodes.port}"},
                stdout=lines,
                stderr=subprocess.STDOUT,
            )

    driver = start()
    until = time.monotonic() + 240
    while len(closed(held)) < 2:
        assert driver.poll() is None, told.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    two_nodes.behead()
    before = closed(held)
    assert driver.wait(timeout=120) == 1
    last = told.read_text().splitlines()[-1]
    assert last.startswith("foredraft: study 'beheaded' stopped: the head of the cluster at ")
    assert last.endswith(
        " does not answer any more; what was reported is kept: start the cluster again, then "
        "--resume goes on with it"
    )
    assert not any(word in told.read_text() for word in ("Traceback", "GCS", "rpc_client"))
    assert {number: closed(held)[number] for number in before} == before

    two_nodes.end()
    two_nodes.start()
    assert start("--resume").wait(timeout=200) == 0, told.read_text()
    assert {number: closed(held)[number] for number in before} == before
    trials = pd.read_parquet(storage / "studies" / "beheaded" / "trials.parquet")
    assert list(trials["number"]) == list(range(5))
    assert set(trials["state"]) <= {"complete", "pruned"}
    close(held)


def closed(held: optuna.storages.RDBStorage) -> dict[int, Any]:
    """State and text of each trial that has ended, by number."""
    try:
        trials = optuna.load_study(study_name="beheaded", storage=held).get_trials()
    except KeyError:
        return {}
    ended = [one for one in trials if one.state.is_finished()]
    return {one.number: (one.state, one.user_attrs.get("trial")) for one in ended}
