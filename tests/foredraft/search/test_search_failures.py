"""Claims about what a study survives, on a real cluster of two nodes: one driver, many deaths.

Its disk too, which is one of the test's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster

from foredraft.cli import main
from foredraft.cluster import joining, nodes
from foredraft.errors import ConfigError
from foredraft.search import driver, front
from foredraft.settings.config import validated
from foredraft.settings.study import Study

# Each costs some seconds; FOREDRAFT_KILLS=5 is what benchmarks/ reports.
KILLS = int(os.environ.get("FOREDRAFT_KILLS", "2"))
PROGRESS = r"(Ray at|training:|training target|target|trial \d+/\d+:|draft [\d.]+x,)"
"""How a line of it begins."""
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1, "lr": 0.003}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


def tree(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
        "draft": {"stages": [{**STAGE, "windows_per_epoch": 64}], "dtype": "fp32"},
        "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {
            "scale": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
            "sigma": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
            "lookahead": {"type": "int", "low": 1, "high": 3},
        },
        "trials": 6,
        "sampler": "random",
        "stop_early": False,
        "confirm_pairs": 1,
        "budget": 100.0,
        "machine": {"concurrency": 4, "cpus": 1},
    } | changes


def study(**changes: Any) -> Study:
    return validated(Study, tree(**changes), source="tiny")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with two CPUs and one GPU, which is one by name only."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False},
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    joining.connect()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    return tmp_path_factory.mktemp("storage")


def trials_of(storage: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(storage / "studies" / name / "trials.parquet")


def test_more_trials_than_devices_end_on_one_gpu_and_train_each_draft_once(storage: Path) -> None:
    # The nodes have one GPU in name, so tasks claim it; without CUDA they compute on the CPU.
    driver.run(study(trials=8), storage=storage)
    trials = trials_of(storage, "tiny")
    assert len(trials) == 8
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert len(list((storage / "drafts").iterdir())) == trials["draft_key"].nunique() == 2
    boards = list((storage / "tensorboard").glob("draft-*/events*"))
    assert len(boards) == 2  # one training each, whoever asked


def test_more_trials_than_cpus_end_too(storage: Path) -> None:
    machine = {"concurrency": 4, "cpus": 2, "use_gpu": False}
    driver.run(study(name="cpus", trials=4, machine=machine), storage=storage)
    assert len(trials_of(storage, "cpus")) == 4


def test_a_storage_that_a_node_does_not_see_is_found_before_the_first_trial(
    cluster: Cluster, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    nodes.check_shared(storage)
    assert not list(storage.glob("*seen*"))
    # As on a disk of its own: what the driver writes is never seen by a node.
    monkeypatch.setattr(Path, "touch", lambda self: None)
    with pytest.raises(ConfigError, match=r"is not shared: node .* does not see") as refusal:
        nodes.check_shared(storage)
    assert "\n" not in str(refusal.value)
    cluster.remove_node(node)


def test_the_front_is_timed_on_every_kind_of_device(cluster: Cluster, storage: Path) -> None:
    kinds = ("A10G", "L4")
    nodes = [
        cluster.add_node(num_cpus=1, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
        for kind in kinds
    ]
    cluster.wait_for_nodes()
    driver.run(study(name="kinds", trials=3), storage=storage)
    for node in nodes:
        cluster.remove_node(node)
    points = json.loads((storage / "studies" / "kinds" / "front.json").read_text())
    assert points
    for point in points:
        assert set(point["measured"]) == set(kinds)
        assert all(timed["speedup"] > 0 for timed in point["measured"].values())


@pytest.mark.timeout(400)
def test_a_node_that_leaves_takes_no_trial_with_it(cluster: Cluster, storage: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    machine = {"concurrency": 4, "cpus": 1, "use_gpu": False}
    what = study(name="leaving", trials=6, draft=slow_drafts(), machine=machine)
    driver = start_driver(storage, what)
    wait_for(lambda: cpus_free(node.node_id) < 2, driver)
    cluster.remove_node(node, allow_graceful=False)
    assert driver.wait(timeout=300) == 0
    assert len(trials_of(storage, "leaving")) == 6
    assert set(trials_of(storage, "leaving")["state"]) <= {"complete", "pruned"}


def cpus_free(node_id: str) -> float:
    free: dict[str, float] = available_resources_per_node()[node_id]
    return free.get("CPU", 0.0)


def test_a_node_that_leaves_while_it_is_asked_is_not_waited_for(
    cluster: Cluster, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    there = nodes.present()
    assert len(there) == 2  # two nodes of one machine, whose names are the same
    cluster.remove_node(node, allow_graceful=False)
    until = time.monotonic() + 60
    while len(nodes.present()) == 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    now, asked = nodes.present, iter([there, there])
    monkeypatch.setattr(nodes, "present", lambda: next(asked, None) or now())
    nodes.check_shared(storage)


def slow_drafts() -> dict[str, Any]:
    """Drafts whose training takes long enough to be killed in."""
    stage = {**STAGE, "epochs": 12, "patience": 12, "windows_per_epoch": 512}
    return {"stages": [stage], "dtype": "fp32", "seed": 1}


def test_a_training_whose_worker_is_killed_goes_on_elsewhere(storage: Path) -> None:
    driver = start_driver(
        storage, study(name="worker", trials=3, draft={**slow_drafts(), "seed": 2})
    )
    before = {path.name for path in (storage / "drafts").glob("*")}
    wait_for(lambda: any(trained_now(storage)), driver)
    wait_for(lambda: any((storage / "training").glob("*/*")), driver)  # its first checkpoint
    os.kill(json.loads(trained_now(storage)[0].read_text())["pid"], signal.SIGKILL)
    assert driver.wait(timeout=150) == 0
    trials = trials_of(storage, "worker")
    assert len(trials) == 3
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert set(trials["draft_key"]) & before == set()


def trained_now(storage: Path) -> list[Path]:
    """The claims of the models that are being trained."""
    names = (storage / "claims").glob("*")
    return [path for path in names if not path.name.startswith(("study-", "."))]


def start_driver(
    storage: Path, what: Study, *words: str, told: Path | None = None
) -> subprocess.Popen[bytes]:
    """The study's command under way, whose lines go to the file `told` where there is one."""
    path = (told.parent if told else storage) / f"{what.name}.yaml"
    path.write_text(yaml.safe_dump(what.model_dump(mode="json")))
    command = [sys.executable, "-m", "foredraft", "search", str(path), "--storage", str(storage)]
    if told is None:
        return subprocess.Popen([*command, *words])
    with told.open("wb") as lines:
        return subprocess.Popen([*command, *words], stdout=lines, stderr=subprocess.STDOUT)


def wait_for(condition: Any, driver: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 180  # a busy machine takes long to start Ray's workers
    while not condition():
        assert driver.poll() is None, "the driver ended before it could be disturbed"
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.timeout(480)
def test_a_driver_killed_again_and_again_loses_no_reported_trial_and_repeats_none(
    storage: Path,
) -> None:
    what, seen = study(name="killed", trials=4 * (KILLS + 1)), dict[int, Any]()
    database = storage / "studies" / "killed" / "study.db"
    chance = random.Random(0)
    for kill in range(KILLS):
        driver = start_driver(storage, what, *(("--resume",) if kill else ()))
        wait_for(lambda: len(ended(database)) >= 3 * (kill + 1), driver)  # noqa: B023
        time.sleep(chance.random() * 0.5)
        driver.kill()
        driver.wait()
        now = ended(database)
        assert {number: now[number] for number in seen} == seen
        seen = now
    assert start_driver(storage, what, "--resume").wait(timeout=150) == 0
    trials = trials_of(storage, "killed")
    assert list(trials["number"]) == list(range(what.trials))
    assert {number: ended(database)[number] for number in seen} == seen
    within = trials[(trials["state"] == "complete") & trials["feasible"]]
    gains = within[["acceptance_rate", "predicted_speedup"]].assign(mse=-within["mse"])
    keep = front.on_front(list(gains.itertuples(index=False, name=None)))
    assert within["on_front"].tolist() == keep


def ended(database: Path) -> dict[int, tuple[str, str]]:
    """State and text of each trial that was closed, by number; read beside a living driver."""
    return {n: (state, text) for n, (state, text) in kept(database).items() if state != "RUNNING"}


def kept(database: Path) -> dict[int, tuple[str, str]]:
    """State and text of each trial that was reported, those not closed yet too."""
    query = """
        SELECT number, state, value_json FROM trials JOIN trial_user_attributes USING (trial_id)
        WHERE key = 'trial'
    """
    if not database.is_file():
        return {}
    # Not read-only: a killed writer's journal is rolled back by the next who opens the file.
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        made = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'trial_user_attributes'"
        )
        rows = connection.execute(query).fetchall() if made.fetchone() else []
    return {number: (state, row) for number, state, row in rows}


def test_three_trials_in_a_row_with_one_error_end_the_study(
    storage: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The directory in which every draft would be put is a file.
    elsewhere = storage / "elsewhere"
    (elsewhere).mkdir()
    (elsewhere / "drafts").write_text("")
    driver = start_driver(elsewhere, study(name="hopeless", trials=20))
    assert driver.wait(timeout=150) == 1
    assert "three trials in a row failed" in capfd.readouterr().err


class Disk:
    """A disk of the test's own at `path`, which can fail there in the ways of a real one."""

    def __init__(self, folder: Path) -> None:
        self.image, self.path, self.behind = folder / "image", folder / "disk", folder / "behind"
        for place in (self.path, self.behind):
            place.mkdir()
        with self.image.open("wb") as image:
            image.truncate(48 * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", str(self.image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.behind))
        self.bring_back()

    def unmount(self) -> None:
        for place in (self.path, self.behind):
            subprocess.run(["umount", "--lazy", str(place)], stderr=subprocess.DEVNULL)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.path / "else").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        (self.path / "else").unlink()

    def fail(self) -> None:
        """What the kernel does when a disk has an error: nobody writes any more, who had opened
        a file before neither; a mere `remount,ro` would be refused while a file is open."""
        _run("mount", "-o", "remount,abort", str(self.behind))

    def mend(self) -> None:
        _run("umount", str(self.path))
        # Ray's workers have files open a moment longer than their driver lives.
        until = time.monotonic() + 60
        while subprocess.run(["umount", str(self.behind)], stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < until
            time.sleep(0.2)
        subprocess.run(["fsck.ext4", "-fy", str(self.image)], capture_output=True)
        self.mount()

    def take_away(self) -> None:
        _run("umount", "--lazy", str(self.path))

    def bring_back(self) -> None:
        _run("mount", "--bind", str(self.behind), str(self.path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    try:
        disk = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {getattr(error, 'stderr', None) or error}")
    yield disk
    disk.unmount()


@pytest.mark.timeout(580)
def test_a_disk_that_is_full_read_only_or_gone_ends_a_study_in_one_line_and_it_goes_on(
    cluster: Cluster, own_disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {name: tree()["dimensions"][name] for name in ("sigma", "lookahead")}
    machine = {"concurrency": 1, "cpus": 1, "use_gpu": False}
    what = study(name="disk", trials=8, dimensions=rules, machine=machine)
    storage = own_disk.path / "runs"
    database, seen = storage / "studies" / "disk" / "study.db", dict[int, Any]()
    told = tmp_path / "told"
    for fault, mend, why, remedy in (
        (own_disk.fill, own_disk.empty, r"the disk is full: [\d,]+ bytes are left", "make room"),
        (own_disk.fail, own_disk.mend, "is read-only", "make it writable"),
        (own_disk.take_away, own_disk.bring_back, "is gone", "bring its disk back"),
    ):
        driver = start_driver(storage, what, *(("--resume",) if seen else ()), told=told)
        wait_for(lambda: len(ended(database)) >= len(seen) + 2, driver)  # noqa: B023
        seen = {number: text for number, (_, text) in ended(database).items()}
        fault()
        assert driver.wait(timeout=120) == 1
        *progress, last = told.read_text().splitlines()
        assert last.startswith(f"foredraft: study 'disk' stopped: {storage} ")
        assert re.search(why, last)
        assert last.endswith(f"what was reported is kept: {remedy}, then --resume goes on with it")
        assert [line for line in progress if not re.match(PROGRESS, line)] == []
        if fault == own_disk.fill:  # any other verb that writes
            with pytest.raises(SystemExit) as stopped:
                main(["report", "disk", "--storage", str(storage)])
            assert stopped.value.code == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert "report.html: No space left on device" in line
        mend()
        now = {number: text for number, (_, text) in kept(database).items()}
        assert {number: now[number] for number in seen} == seen
        # What was told is kept. Its last change of state may be lost, as with any loss of power.
        assert len(now) >= int(re.findall(r"trial (\d+)/8: ", "\n".join(progress))[-1])
        seen = now
    assert start_driver(storage, what, "--resume", told=told).wait(timeout=150) == 0
    assert list(trials_of(storage, "disk")["number"]) == list(range(8))
    assert {number: ended(database)[number][1] for number in seen} == seen
