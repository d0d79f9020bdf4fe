"""kuberay.yaml and its image, against Kubernetes' own schemas, Ray's reading and KubeRay's fields.

KubeRay's schema is not to be had from a package, so its fields are listed here, by the reference of
its version 1.6.2 (docs.ray.io: KubeRay CRD API reference). Pods are checked in full.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

from foredraft.cluster.allotment import allot
from foredraft.cluster.node_types import described
from foredraft.settings.config import Machine

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.33"
RULE = {"policy", "condition"}
CONDITION = {"jobStatus", "jobDeploymentStatus", "ttlSeconds"}
JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy"),
    *("metadata", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode"),
    *("submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}
CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend"),
    "workerGroupSpecs",
}
AUTOSCALER = {
    *("env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources"),
    *("securityContext", "upscalingMode", "version", "volumeMounts"),
}
HEAD = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
GROUP = {
    *("groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts"),
    *("rayStartParams", "replicas", "scaleStrategy", "suspend", "template"),
}
AUTH = {"enableK8sTokenAuth", "mode", "secretName"}


def unknown(job: dict[str, Any]) -> set[str]:
    """Fields that KubeRay does not have."""
    spec = job["spec"]
    cluster, rules = spec["rayClusterSpec"], spec["deletionStrategy"]["deletionRules"]
    found = spec.keys() - JOB | cluster.keys() - CLUSTER | cluster["authOptions"].keys() - AUTH
    found |= cluster["autoscalerOptions"].keys() - AUTOSCALER
    found |= cluster["headGroupSpec"].keys() - HEAD
    for group in cluster["workerGroupSpecs"]:
        found |= group.keys() - GROUP
    for rule in rules:
        found |= rule.keys() - RULE | rule["condition"].keys() - CONDITION
    return found


def check_pods(job: dict[str, Any]) -> None:
    for template in templates(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def templates(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for template in templates(job) for one in template["spec"]["containers"]]


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "kuberay.yaml").read_text()))


@pytest.fixture(scope="module")
def claim(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]


@pytest.fixture(scope="module")
def job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[1]


def test_kubernetes_accepts_the_claim_and_every_pod(
    claim: dict[str, Any], job: dict[str, Any]
) -> None:
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    check_pods(job)


def test_a_field_that_no_pod_has_is_refused(job: dict[str, Any]) -> None:
    wrong = copy.deepcopy(job)
    containers(wrong)[0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        check_pods(wrong)


def test_kuberay_knows_every_field(job: dict[str, Any]) -> None:
    assert unknown(job) == set()
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 1
    assert unknown(wrong) == {"maxReplica"}, "the check no longer sees a slip"


def test_rays_autoscaler_reads_a_head_that_offers_nothing_and_gpus_from_none(
    job: dict[str, Any],
) -> None:
    cluster = {
        "metadata": {"name": "one", "namespace": "two"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    (gpu,) = described(config)
    assert config["available_node_types"][gpu.name]["min_workers"] == 0
    given = allot(Machine(), [gpu])
    assert given.in_words.startswith("training: 1 GPU, 4 CPUs on gpu-worker;")
    assert given.at_once == 8


def test_nobody_comes_in_without_the_token(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {
        "mode": "token",
        "secretName": "foredraft-token",
    }
    assert job["spec"]["submissionMode"] == "SidecarMode"
    assert "submitterConfig" not in job["spec"], "KubeRay refuses it beside SidecarMode"


def test_what_ended_is_deleted_and_what_failed_keeps_its_head_for_its_logs(
    job: dict[str, Any],
) -> None:
    rules = job["spec"]["deletionStrategy"]["deletionRules"]
    told = {(r["condition"]["jobStatus"], r["policy"]): r["condition"]["ttlSeconds"] for r in rules}
    assert told["SUCCEEDED", "DeleteCluster"] < told["FAILED", "DeleteCluster"]
    assert told["FAILED", "DeleteWorkers"] == 0
    assert "shutdownAfterJobFinishes" not in job["spec"], "the rules would be refused beside it"


def test_every_pod_keeps_its_results_in_the_claim_and_has_no_rights_to_spare(
    claim: dict[str, Any], job: dict[str, Any]
) -> None:
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for template in templates(job):
        (volume,) = template["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for one in containers(job):
        mount = one["volumeMounts"][0]["mountPath"]
        environment = {variable["name"]: variable["value"] for variable in one["env"]}
        assert environment["FOREDRAFT_STORAGE"] == mount
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}


# The image


def test_image_and_job_have_the_ray_of_the_constraints(job: dict[str, Any]) -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pinned}-py311-gpu\n" in dockerfile
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert len({one["image"] for one in containers(job)}) == 1


def test_what_the_image_copies_is_in_the_repository_and_it_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [w for line in lines if line.startswith("COPY") for w in line.split()[2:-1]]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [line for line in lines if line.startswith("USER")][-1] == "USER ray"
