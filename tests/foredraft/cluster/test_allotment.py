"""Claims about what a study's tasks are given: it fits nodes that the cluster has or can have.

pytest tests/foredraft/cluster/test_allotment.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foredraft.cluster.allotment import allot, worker_share
from foredraft.cluster.node_types import NodeType, described, merged, present
from foredraft.cluster.tasks import Share
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine

ROOT = Path(__file__).parents[3]
HEAD = NodeType("a node of 8 CPUs", cpus=8, gpus=0, accelerator=None, most=1)
ONE = NodeType("one", cpus=4, gpus=1, accelerator="A10G", most=8)
FOUR = NodeType("four", cpus=48, gpus=4, accelerator="A10G", most=2)
OTHER = NodeType("other", cpus=16, gpus=1, accelerator="L4", most=1)


def node(**resources: float) -> dict[str, Any]:
    return {"Alive": True, "Resources": {"memory": 1.0, **resources}}


def test_a_gpu_that_may_be_started_counts_as_one_that_is_there() -> None:
    given = allot(Machine(), [HEAD, ONE])
    assert given.uses_gpu
    assert given.training == given.judging == Share(cpus=4, gpus=1)
    assert [one.name for one in given.types] == ["one"]
    assert given.at_once == 8


def test_a_task_fits_every_type_that_it_may_run_on() -> None:
    given = allot(Machine(), [HEAD, ONE, FOUR])
    assert given.judging == Share(cpus=4, gpus=1)
    assert given.at_once == 8 + 2 * 4
    assert allot(Machine(), [FOUR]).judging == Share(cpus=12, gpus=1)


def test_cpus_that_only_one_type_has_leave_the_others_out() -> None:
    given = allot(Machine(cpus=12), [HEAD, ONE, FOUR])
    assert [one.name for one in given.types] == ["four"]
    assert given.at_once == 2 * 4


@pytest.mark.parametrize(
    ("machine", "types", "told"),
    [
        (Machine(), [], "no node of this cluster offers a CPU"),
        (Machine(use_gpu=True), [HEAD], "machine.use_gpu is true: .*a node of 8 CPUs"),
        (Machine(cpus=9), [HEAD], "machine.cpus is 9: .* give 8 or less"),
        (Machine(cpus=9), [HEAD, ONE], "machine.cpus is 9: no node with a GPU .* give 4 or less"),
        (Machine(workers=9), [HEAD, ONE], "machine.workers is 9: .* room for 8 with a GPU each"),
        (Machine(workers=9), [HEAD], "machine.workers is 9: .* room for 8 of 1 CPU"),
    ],
)
def test_what_no_node_can_have_is_refused_before_anything_is_asked_for(
    machine: Machine, types: list[NodeType], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        allot(machine, types)


def test_a_study_that_wants_no_gpu_gets_none_where_there_are_some() -> None:
    given = allot(Machine(use_gpu=False), [HEAD, ONE])
    assert not given.uses_gpu
    assert given.judging == Share(cpus=4)


def test_a_training_with_workers_holds_nothing_itself_and_each_worker_has_a_gpu() -> None:
    given = allot(Machine(workers=4), [HEAD, ONE, FOUR])
    assert given.training == Share(0)
    assert worker_share(given) == Share(1, gpus=1)
    assert "training: 4 workers of 1 GPU, 1 CPU on one or four" in given.in_words


def test_calibration_is_on_one_named_device_and_the_front_is_timed_on_each() -> None:
    given = allot(Machine(), [OTHER, ONE])
    device, share = given.calibration
    assert device == "A10G", "of which there may be most"
    assert share.needs["resources"] == {"accelerator_type:A10G": 0.001}
    assert list(given.timing) == ["A10G", "L4"]


def test_what_is_timed_on_cpus_has_a_whole_node() -> None:
    given = allot(Machine(concurrency=4), [HEAD])
    assert given.judging == Share(2)
    assert given.timing == {"cpu": Share(8)}
    assert given.at_once == 4


def test_trials_at_once_are_those_that_find_room() -> None:
    assert allot(Machine(concurrency=99, cpus=2), [HEAD]).at_once == 4
    assert allot(Machine(concurrency=3), [ONE]).at_once == 3
    assert allot(Machine(), [HEAD._replace(most=3)]).at_once == 3, "one a node"


def test_the_decision_is_told_in_one_line() -> None:
    assert allot(Machine(), [HEAD, ONE]).in_words == (
        "training: 1 GPU, 4 CPUs on one; judging: the same; timing: 1 GPU, 4 CPUs, alone, on A10G; "
        "at most 8 trials at once"
    )


# What there can be


def test_nodes_that_are_alike_are_one_type_and_those_without_cpus_are_none() -> None:
    there = present([node(CPU=2), node(CPU=2), node(CPU=0), node(CPU=4, GPU=1)])
    assert [(one.name, one.most) for one in there] == [
        ("a node of 2 CPUs", 2),
        ("a node of 4 CPUs and 1 GPU", 1),
    ]


def test_a_node_that_is_there_tells_the_model_that_its_type_does_not() -> None:
    silent = ONE._replace(accelerator=None)
    there = present([node(CPU=8), node(CPU=4, GPU=1, **{"accelerator_type:A10G": 1})])
    assert merged([silent], there) == [ONE, HEAD]
    assert merged([ONE], there) == [ONE, HEAD]


def test_a_bound_on_all_workers_is_spent_on_those_with_most_gpus() -> None:
    types = {
        "head": {"resources": {"CPU": 8}},
        "one": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 8},
        "four": {"resources": {"CPU": 48, "GPU": 4}, "max_workers": 2},
        "off": {"resources": {"CPU": 96, "GPU": 8}, "max_workers": 0},
    }
    found = described({"head_node_type": "head", "max_workers": 8, "available_node_types": types})
    assert [(one.name, one.most) for one in found] == [("four", 2), ("one", 6)]
