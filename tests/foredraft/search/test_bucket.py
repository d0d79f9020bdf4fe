"""Claims about a study whose storage is a bucket: nothing else is shared by its machines.

The node that trains and judges sees nothing of the driver's disk: over the caches of both drivers
lies a file system of its own. What they know of each other went through the bucket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from foredraft import buckets
from foredraft.cli import main
from foredraft.cluster import joining

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a node with disks of its own"),
]
DATA = "synthetic-etth:rows=1200"


@pytest.fixture
def far_node(bucket: Any, tmp_path: Path) -> Iterator[None]:
    """A cluster whose head has no CPU, and whose one worker has other caches than its driver."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    hidden = [tmp_path / "cache", tmp_path / "another"]
    for folder in hidden:
        folder.mkdir(exist_ok=True)
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in hidden)
    ray_command = shutil.which("ray", path=Path(sys.executable).parent)
    start = f"{ray_command} start --address {cluster.address} --num-cpus 2 --block"
    with (tmp_path / "node.log").open("w") as log:
        worker = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {start}"],
            # Another test's own Ray is on loopback alone.
            env=os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        joining.connect()
        for _ in range(240):
            if ray.cluster_resources().get("CPU"):
                break
            time.sleep(0.25)
        yield
    finally:
        ray.shutdown()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
        worker.wait()
        cluster.shutdown()
        del os.environ["RAY_ADDRESS"]


def test_a_study_ends_and_goes_on_on_machines_that_share_a_bucket_alone(
    bucket: Any,
    far_node: None,
    tiny_tree: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "far.yaml"
    path.write_text(yaml.safe_dump(tiny_tree(name="far", stop_early=False)))
    main(["search", str(path), "--storage", bucket.address, "--json"])
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["study"] == f"{bucket.address}/studies/far"
    names = set(bucket.objects())
    draft = buckets.names(buckets.working_copy(bucket.address) / "drafts")
    for name in (
        *("study.yaml", "study.db", "trials.parquet", "front.json", "report.html"),
        *(f"drafts/{draft[0]}", "provenance.json"),
    ):
        assert f"runs/studies/far/{name}" in names, name
    assert f"runs/drafts/{draft[0]}/COMPLETE" in names
    assert [name for name in names if name.startswith("runs/calibrations/")]
    assert not [name for name in names if name.startswith(("runs/claims/", "runs/training/"))]
    # What the far node forecast is in the report of this one.
    assert "runs/studies/far/examples" in " ".join(names)

    # Another machine goes on with it.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    main(["search", str(path), "--storage", bucket.address, "--trials", "4", "--resume"])
    there = buckets.working_copy(bucket.address)
    trials = pd.read_parquet(there / "studies" / "far" / "trials.parquet")
    assert sorted(trials["number"]) == [0, 1, 2, 3]
    assert set(trials["state"]) == {"complete"}
    assert trials["draft_key"].unique().tolist() == draft

    # And a third, that has never seen any of it, forecasts by its choice.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    capsys.readouterr()
    out = tmp_path / "forecast.csv"
    recipe = f"{bucket.address}/studies/far/best.json"
    main(["forecast", "--recipe", recipe, "--data", DATA, "--out", str(out), "--json"])
    assert len(pd.read_csv(out)["time"].unique()) == 60
