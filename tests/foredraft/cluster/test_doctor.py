"""Claims about `foredraft doctor`: each planted fault is found, and told with a remedy."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foredraft.cli.command import main
from foredraft.cluster import doctor, examination, upload
from foredraft.cluster.examination import Node, examine
from foredraft.settings.config import validated
from foredraft.settings.study import Study

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
VERSIONS = dict.fromkeys(examination.PACKAGES, "1.0") | {"python": "3.11.7"}
WELL = Node(
    name="one",
    versions=VERSIONS,
    gpus=1,
    clock=100.0,
    storage=None,
    locks=True,
    storage_free=2**40,
    temp_free=0.5,
    exposed=[6379],
    has_token=True,
)


def faults(**changes: Any) -> dict[str, doctor.Finding]:
    """What is found where one of two nodes is not as it should be."""
    told = {"one": WELL, "two": WELL._replace(**changes)}
    found = doctor.of_nodes(
        told, gpus=dict.fromkeys(told, 1), storage=Path("/mnt"), began=99.0, ended=101.0
    )
    return {finding.what: finding for finding in found if not finding.fine}


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": {"patch": 12, "context": 48}, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "dimensions": {"mse_tol": {"type": "float", "low": 0.1, "high": 1.0}},
    }
    return validated(Study, tree | changes, source="tiny")


def test_nodes_that_are_as_they_should_be_have_no_fault() -> None:
    assert faults() == {}


@pytest.mark.parametrize(
    ("what", "changes", "says"),
    [
        ("python version", {"versions": VERSIONS | {"python": "3.12.1"}}, "two: 3.12.1"),
        ("ray version", {"versions": VERSIONS | {"ray": "2.61.0"}}, "one: 1.0; two: 2.61.0"),
        ("torch version", {"versions": VERSIONS | {"torch": "2.0"}}, "two: 2.0"),
        ("foredraft version", {"versions": VERSIONS | {"foredraft": "0.0"}}, "two: 0.0"),
        (
            "packages",
            {"versions": {k: v for k, v in VERSIONS.items() if k != "optuna"}},
            "two: optuna",
        ),
        ("GPUs", {"gpus": 0}, "two: Ray 1, PyTorch 0"),
        ("storage", {"storage": "does not show what another node wrote"}, "two: does not show"),
        ("storage", {"storage": "cannot be used (Read-only file system)"}, "two: cannot be used"),
        ("storage locks", {"locks": False}, "two: none"),
        ("storage room", {"storage_free": 2**28}, "two: 0.2 GiB"),
        ("Ray's disk", {"temp_free": 0.01}, "two: 1% free"),
        ("clocks", {"clock": 200.0}, "two: 99 s off"),
        ("clocks", {"clock": 10.0}, "two: 89 s off"),
        ("open ports", {"has_token": False}, "two: ports 6379, without a token"),
    ],
)
def test_a_planted_fault_is_found_with_its_node_and_a_remedy(
    what: str, changes: dict[str, Any], says: str
) -> None:
    found = faults(**changes)
    assert list(found) == [what]
    assert says in found[what].says
    assert found[what].remedy


def test_a_token_that_others_may_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "auth_token"
    path.write_text("secret")
    path.chmod(0o644)
    (found,) = doctor.of_token(path)
    assert not found.fine
    assert "others too" in found.says
    assert "secret" not in str(found)
    path.chmod(0o600)
    assert next(doctor.of_token(path)).fine


def test_data_that_only_a_stage_reads_and_a_target_that_is_not_there_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREDRAFT_DATA", str(tmp_path))
    wanted = study(target="0fb0", draft={"stages": [{**STAGE, "data": "eia930"}]})
    missing, there = doctor.of_data(wanted)
    assert not missing.fine
    assert missing.says.startswith("eia930: ")
    assert there == doctor.Finding("data", True, STAGE["data"])
    (target,) = doctor.of_target(wanted, tmp_path)
    assert not target.fine
    assert "0fb0" in target.says
    assert not list(doctor.of_target(study(), tmp_path))


def test_a_database_that_does_not_answer_is_a_fault_and_its_password_is_not_told() -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (found,) = doctor.of_database(study(database=f"postgresql://me:hun/ter2@127.0.0.1:{port}/x"))
    assert not found.fine
    assert "ter2" not in str(found)
    assert f"me:***@127.0.0.1:{port}/x" in found.says


def test_a_node_tells_what_is_wrong_with_its_storage(tmp_path: Path) -> None:
    (tmp_path / "seen").touch()
    assert examine(tmp_path, "seen").storage is None
    assert "cannot be used" in str(examine(tmp_path / "none", None).storage)
    assert list(tmp_path.iterdir()) == [tmp_path / "seen"]


def test_a_port_of_ray_that_strangers_reach_is_found_and_one_on_loopback_is_not() -> None:
    program = (
        "import socket, sys, time\n"
        "s = socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1], flush=True)\n"
        "time.sleep(60)"
    )
    ports = {}
    running = []
    try:
        for host in ("0.0.0.0", "127.0.0.1"):
            command = [sys.executable, "-c", program, host, "raylet"]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert running[-1].stdout
            ports[host] = int(running[-1].stdout.readline())
        found = examination.exposed_ports()
        assert ports["0.0.0.0"] in found
        assert ports["127.0.0.1"] not in found
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_the_doctor_finds_this_machine_well_and_a_full_upload_not(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "LEAST_FREE_B", 1)
    monkeypatch.setattr(doctor, "LEAST_TEMP", 0.0)
    main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["fine"], [one for one in told["findings"] if not one["fine"]]
    open_ports = next(one for one in told["findings"] if one["what"] == "open ports")
    assert open_ports["says"] == "none without a token", "a Ray of our own is on loopback alone"

    monkeypatch.setattr(upload, "MOST_B", 1)
    (tmp_path / "mine.yaml").write_text("two")
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 2
    lines = capsys.readouterr().out.splitlines()
    (fault,) = [number for number, line in enumerate(lines) if line.startswith("FAULT")]
    assert "upload: the working directory" in lines[fault]
    assert lines[fault + 1].startswith("      -> ")
