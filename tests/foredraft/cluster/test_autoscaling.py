"""Claims about a cluster that begins with no worker: a study has the right ones started.

Ray's own provider of fake nodes starts real raylets on this machine, whose GPUs are a number and
nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD_ID = "f" * 51 + "00000"
HEAD = "ray.head.default"  # as that provider calls it
LISTS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
    *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1, "lr": 0.003}
# Tells the CPUs and GPUs of each node that is alive, whenever these change, until it is ended.
WATCH = """
import json, time, ray
ray.init(log_to_driver=False)
told = None
while True:
    there = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    now = sorted([int(r.get("CPU", 0)), int(r.get("GPU", 0))] for r in there)
    if now != told:
        told = now
        print(json.dumps(now), flush=True)
    time.sleep(0.25)
"""
STUDY = {
    "name": "tiny",
    "target": {
        "model": {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32},
        "stages": [STAGE],
        "dtype": "fp32",
    },
    "draft": {"stages": [STAGE], "dtype": "fp32"},
    "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
    "dimensions": {"mse_tol": {"type": "float", "low": 0.1, "high": 1.0}},
    "sampler": "random",
    "trials": 1,
}


class Running(NamedTuple):
    """A cluster of one head, and what its drivers need to know."""

    address: str
    environment: dict[str, str]


def configuration(port: int) -> dict[str, Any]:
    """What `ray up` would leave on the head: no CPU of its own, two types of workers."""
    return {
        "cluster_name": "fake",
        "max_workers": 3,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "auth": {"ssh_user": "nobody"},
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu_worker": {"resources": {"CPU": 8}, "node_config": {}, "max_workers": 1},
            "gpu_worker": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "max_workers": 2},
        },
        "file_mounts": {},
        **{name: [] for name in LISTS},
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    written = folder / "cluster.yaml"
    written.write_text(yaml.safe_dump(configuration(port)))
    environment = os.environ | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_TMPDIR": f"/tmp/fd-{port}",  # Ray's sockets need a short path
        "RAY_enable_autoscaler_v2": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = ["--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*command, *options, f"--port={port}", f"--autoscaling-config={written}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    driver = {k: v for k, v in environment.items() if not k.endswith(("TESTING", "INSTANCE_ID"))}
    try:
        yield Running(f"127.0.0.1:{port}", driver | {"RAY_ADDRESS": f"127.0.0.1:{port}"})
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(timeout=30)
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


@contextlib.contextmanager
def watching(cluster: Running) -> Iterator[Iterator[list[list[int]]]]:
    """The CPUs and GPUs of each node, head first, as they were and as they change."""
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.kill()
        process.wait()


def foredraft(cluster: Running, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foredraft", *words],
        env=cluster.environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_plan_is_priced_on_the_node_that_the_study_would_start_which_goes_away_again(
    cluster: Running, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    with watching(cluster) as seen:
        assert next(seen) == [[0, 0]]
        done = foredraft(cluster, "search", "tiny.yaml", "--dry-run", "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "training: 1 GPU, 2 CPUs on gpu_worker; judging: the same" in done.stderr
        assert "PyTorch finds none: all is computed on CPUs" in done.stderr
        plan = json.loads(done.stdout.splitlines()[-1])
        assert plan["drafts"][0]["training_s"] > 0
        assert f"on 2 threads of {platform.node()}" in plan["training_note"]
        assert next(seen) == [[0, 0], [2, 1]], "one GPU, and not the CPU worker"
        assert next(seen) == [[0, 0]]


def test_a_study_runs_on_the_nodes_that_it_has_started_which_go_away_again(
    cluster: Running, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY | {"trials": 2, "confirm_pairs": 2}))
    with watching(cluster) as seen:
        assert next(seen) == [[0, 0]]
        done = foredraft(cluster, "search", "tiny.yaml", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        study = tmp_path / "runs" / "studies" / "tiny"
        assert len(json.loads((study / "trials.json").read_text())) == 2
        assert (study / "report.html").is_file()
        started = next(seen)
        while started[-1] == [2, 1]:
            assert [8, 0] not in started, "a CPU worker, which nobody asked for"
            started = next(seen)
        assert started == [[0, 0]]


def test_what_no_node_type_has_is_refused_at_once(cluster: Running, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY | {"machine": {"cpus": 4}}))
    done = foredraft(cluster, "search", "tiny.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "foredraft: machine.cpus is 4: no node with a GPU has that many; give 2 or less"
    )
