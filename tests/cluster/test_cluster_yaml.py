"""The two cluster files against Ray's own schema and the traps of its defaults; no network.

pytest tests/cluster/test_cluster_yaml.py
"""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from foredraft.cluster.allotment import allot
from foredraft.cluster.node_types import described, merged
from foredraft.settings.config import Machine

ROOT = Path(__file__).parents[2]
GPU_FAMILY = re.compile(r"(g\d|p\d)")  # AWS's names of instances with NVIDIA's GPUs
START_LISTS = ("head_start_ray_commands", "worker_start_ray_commands")
SETUP_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
)


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as `ray up` sees it, Ray's defaults filled in; raises where Ray would."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def start_commands(config: dict[str, Any]) -> list[str]:
    return [line for name in START_LISTS for line in config[name] if "ray start" in line]


def setup_commands(config: dict[str, Any]) -> list[str]:
    return [line for name in SETUP_LISTS for line in config[name]]


def exposed_dashboards(config: dict[str, Any]) -> list[str]:
    hosts = re.findall(r"--dashboard-host[= ](\S+)", "\n".join(start_commands(config)))
    return [host for host in hosts if host not in ("127.0.0.1", "localhost")]


def development_wheels(config: dict[str, Any]) -> list[str]:
    return [c for c in setup_commands(config) if re.search(r"ray-wheels|\.dev\d|nightly", c)]


def unauthenticated_starts(config: dict[str, Any]) -> list[str]:
    return [c for c in start_commands(config) if not re.search(r"RAY_AUTH_MODE=token\b.*ray st", c)]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def config(written: dict[str, Any]) -> dict[str, Any]:
    return checked(written)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """What Ray fills in for an AWS cluster of which only the name is known."""
    return checked({"cluster_name": "defaults", "provider": {"type": "aws"}})


def node_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [node["node_config"] for node in config["available_node_types"].values()]


def test_rays_schema_accepts_the_file(config: dict[str, Any]) -> None:
    assert config["head_node_type"] in config["available_node_types"]
    assert len(start_commands(config)) == 2


def test_a_key_that_ray_does_not_know_is_refused(written: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_hours"):
        checked({**written, "idle_timeout_hours": 1})


def test_a_key_that_ray_does_not_know_is_refused_inside_a_node_type(
    written: dict[str, Any],
) -> None:
    wrong = copy.deepcopy(written)
    wrong["available_node_types"]["gpu_worker"]["InstanceType"] = "g5.xlarge"
    with pytest.raises(jsonschema.ValidationError, match="InstanceType"):
        checked(wrong)


def test_no_task_runs_on_the_head(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert not GPU_FAMILY.match(head["node_config"]["InstanceType"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}


def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    types = config["available_node_types"]
    return {name: node for name, node in types.items() if name != config["head_node_type"]}


def test_every_worker_has_gpus_and_all_of_them_may_leave(config: dict[str, Any]) -> None:
    for node in workers(config).values():
        assert GPU_FAMILY.match(node["node_config"]["InstanceType"])
        assert node["min_workers"] == 0
        assert node["max_workers"] <= config["max_workers"]
        assert node["resources"]["GPU"] in (1, 4)


def test_workers_are_spot_unless_the_user_says_otherwise(config: dict[str, Any]) -> None:
    for name, node in workers(config).items():
        market = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        assert market == ("spot" if node["max_workers"] else None), name
    assert (
        workers(config)["gpu_worker_on_demand"]["resources"]
        == (workers(config)["gpu_worker"]["resources"])
    )


def test_every_node_is_tagged_and_its_disk_encrypted(config: dict[str, Any]) -> None:
    for node in node_configs(config):
        assert node["TagSpecifications"][0]["Tags"]
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


def test_a_study_that_begins_with_the_head_alone_is_given_gpus(config: dict[str, Any]) -> None:
    given = allot(Machine(), merged(described(config), []))
    assert given.judging.needs["num_gpus"] == 1
    assert given.judging.cpus == 4
    assert given.at_once == 2 * 4 + 6
    assert given.in_words.startswith("training: 1 GPU, 4 CPUs on four_gpu_worker or gpu_worker;")


def test_what_is_no_ones_yet_is_marked_for_the_user_to_change() -> None:
    made_up = re.compile(r"sg-0123|fs-0123|Name: foredraft-|^  region: |192\.0\.2\.|ssh_user: fore")
    for name in ("cluster.yaml", "cluster.local.yaml"):
        lines = (ROOT / name).read_text().splitlines()
        assert [line for line in lines if made_up.search(line) and "CHANGE" not in line] == []


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.local.yaml"])
def test_jobs_know_where_storage_and_data_are(name: str) -> None:
    for command in start_commands(checked(yaml.safe_load((ROOT / name).read_text()))):
        assert re.search(r"FOREDRAFT_STORAGE=/\S+ FOREDRAFT_DATA=/\S+;.*ray start", command)


def test_logins_have_the_mode_that_the_token_needs(config: dict[str, Any]) -> None:
    assert any(".bashrc" in c and "RAY_AUTH_MODE=token" in c for c in config["setup_commands"])


@pytest.fixture(scope="module")
def local() -> dict[str, Any]:
    return checked(yaml.safe_load((ROOT / "cluster.local.yaml").read_text()))


def test_the_local_file_is_as_careful_as_that_for_aws(
    local: dict[str, Any], config: dict[str, Any]
) -> None:
    assert unauthenticated_starts(local) == exposed_dashboards(local) == []
    assert development_wheels(local) == []
    assert local["file_mounts"] == config["file_mounts"]
    assert "--constraint ~/foredraft/constraints.txt" in "\n".join(local["setup_commands"])


def test_the_local_file_needs_no_cloud_and_starts_its_workers(local: dict[str, Any]) -> None:
    assert not [c for c in setup_commands(local) if "cloud-init" in c or "boto3" in c]
    assert "RAY_enable_autoscaler_v2=0" in local["head_start_ray_commands"][1]
    assert local["max_workers"] == len(local["provider"]["worker_ips"])
    assert described(local) == [], "its nodes are told by what is there"


def test_no_node_exposes_the_dashboard_to_the_world(
    config: dict[str, Any], defaults: dict[str, Any]
) -> None:
    assert exposed_dashboards(defaults) == ["0.0.0.0"], "the check no longer sees Ray's default"
    assert exposed_dashboards(config) == []


def test_every_start_command_asks_for_a_token(
    config: dict[str, Any], defaults: dict[str, Any]
) -> None:
    assert len(unauthenticated_starts(defaults)) == 2, "the check no longer sees Ray's default"
    assert unauthenticated_starts(config) == []
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_no_development_wheel_is_installed(
    config: dict[str, Any], defaults: dict[str, Any]
) -> None:
    assert development_wheels(defaults), "the check no longer sees Ray's default"
    assert development_wheels(config) == []


def test_nodes_install_the_pinned_release_of_ray(config: dict[str, Any]) -> None:
    installs = [c for c in config["setup_commands"] if "--editable ~/foredraft" in c]
    assert len(installs) == 1
    assert "--constraint ~/foredraft/constraints.txt" in installs[0]
    assert re.search(r"^ray==\d+\.\d+\.\d+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_head_keeps_the_library_that_starts_workers(config: dict[str, Any]) -> None:
    assert any("boto3" in command for command in config["head_setup_commands"])


def test_a_job_runs_the_code_it_was_submitted_with(config: dict[str, Any]) -> None:
    for command in start_commands(config):
        assert re.search(r"PYTHONPATH=platform:models\b.*ray start", command)


def test_the_launchers_single_thread_does_not_reach_ray(config: dict[str, Any]) -> None:
    for command in start_commands(config):
        assert re.search(r"unset OMP_NUM_THREADS;.*ray start", command)


def test_no_node_falls_back_on_rays_old_image_open_group_or_missing_profile(
    config: dict[str, Any],
) -> None:
    for node in node_configs(config):
        assert "22.04" in node["ImageId"]
        assert node["SecurityGroupIds"]
        assert node["IamInstanceProfile"]


def test_every_mounted_path_exists_in_the_repository(config: dict[str, Any]) -> None:
    own = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in own if not (ROOT / path).exists()] == []
    # The build reads these; an editable install without one of them fails on the node.
    assert {"pyproject.toml", "README.md", "LICENSE", "platform", "models"} <= set(own)
