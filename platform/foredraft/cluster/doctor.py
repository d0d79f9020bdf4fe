"""Whether a study would run, in one screen of findings, each with its remedy.

    findings = examined(study=None, storage=Path("runs"), root=Path.cwd())
    all(finding.fine for finding in findings)

What nodes say (`examination`) is gathered from all that are there; what it means is decided here,
without a cluster.
"""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import optuna
import ray

from foredraft import bank, buckets, data
from foredraft.cluster import allotment, joining, node_types, nodes, token, upload
from foredraft.cluster.examination import PACKAGES, Node, examine
from foredraft.cluster.tasks import last_line
from foredraft.errors import ConfigError
from foredraft.redaction import redacted
from foredraft.settings.config import Machine
from foredraft.settings.recipes import RECIPES
from foredraft.settings.study import Study

SAME = ("python", "ray", "torch", "foredraft")
"""Whose versions must be the same on all nodes."""
LEAST_FREE_B = 2**30
"""Bytes of room that a study wants on its storage."""
LEAST_TEMP = 0.05
"""Of the disk on which Ray works: with less it starts no task."""
SKEW_S = 30.0
"""Seconds by which clocks may differ; beyond, times in logs and records mislead."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    fine: bool
    says: str
    remedy: str = ""
    """what would do, where it is not fine"""


def examined(*, study: Study | None, storage: Path, root: Path) -> list[Finding]:
    """What was found: of the cluster that would be joined, or of this machine.

    Args:
        study: that is to run, or None for any.
        storage: where it would keep everything.
        root: the directory from which a job would be submitted.
    """
    found = [*_of_upload(root, storage=storage), *of_token(token.FILE.expanduser())]
    if study:
        found += [*of_data(study), *of_target(study, storage), *of_database(study)]
    try:
        found.append(Finding("cluster", True, joining.cluster_in_words(joining.connect())))
    except ConfigError as error:
        return [*found, Finding("cluster", False, str(error), "start it, or unset RAY_ADDRESS")]
    found.append(_of_resources(study.machine if study else Machine()))
    return [*found, *_of_nodes(storage)]


def _of_nodes(storage: Path) -> Iterator[Finding]:
    """What all nodes say, beside each other."""
    witness = None
    gpus = {name: int(node["Resources"].get("GPU", 0)) for name, node in nodes.present().items()}
    try:
        storage.mkdir(parents=True, exist_ok=True)
        if len(gpus) > 1:
            name = f"doctor-{uuid4().hex[:8]}"
            (storage / name).touch()
            witness = name
            buckets.keep(storage / witness)
    except buckets.OutOfReach as error:
        yield Finding("storage", False, str(error), _ROLE)
    except OSError as error:
        yield Finding("storage", False, f"{storage} cannot be used ({error.strerror})", _SHARE)
    began, told = time.time(), {}
    try:
        for name, asked in nodes.on_each(examine, storage, witness).items():
            try:
                told[name] = ray.get(asked, timeout=nodes.NODE_S)
            except ray.exceptions.RayError as error:
                yield Finding(f"node {name}", False, last_line(error), _INSTALL)
    finally:
        if witness:
            with contextlib.suppress(buckets.OutOfReach, OSError):  # it was told above
                buckets.remove(storage / witness)
    yield from of_nodes(told, gpus=gpus, storage=storage, began=began, ended=time.time())


_ROLE = "give this machine a role, or credentials in the environment, that may write there"
_SHARE = "give a directory that every node mounts and may write to"
_INSTALL = "install foredraft there with the same constraints.txt"


def of_nodes(
    told: Mapping[str, Node],
    *,
    gpus: Mapping[str, int],
    storage: Path,
    began: float,
    ended: float,
) -> Iterator[Finding]:
    """What follows from what the nodes say.

    Args:
        told: by node, what it says.
        gpus: by node, how many Ray counts.
        storage: what was looked at.
        began: this clock's seconds before the nodes were asked.
        ended: and after they answered.
    """
    for package in SAME:
        versions = {name: node.versions.get(package, "none") for name, node in told.items()}
        fine = len(set(versions.values())) <= 1
        says = ", ".join(sorted(set(versions.values()))) if fine else _listed(versions)
        yield Finding(f"{package} version", fine, says, "use one constraints.txt on all nodes")
    yield _each(
        "packages",
        told,
        lambda node: ", ".join(p for p in PACKAGES if p not in node.versions) or None,
        fine="all there",
        remedy=_INSTALL,
    )
    lacking = {n: f"Ray {gpus.get(n, 0)}, PyTorch {node.gpus}" for n, node in told.items()}
    wrong = {n: says for n, says in lacking.items() if gpus.get(n, 0) > told[n].gpus}
    yield Finding(
        "GPUs",
        not wrong,
        _listed(wrong) if wrong else f"{sum(gpus.values())}, all seen by PyTorch",
        "install NVIDIA's driver and a CUDA build of torch there",
    )
    place = buckets.address_of(storage) or str(storage)
    yield _each("storage", told, lambda node: node.storage, fine=place, remedy=_SHARE)
    yield _each(
        "storage room",
        told,
        lambda node: None if node.storage_free >= LEAST_FREE_B else _gigabytes(node.storage_free),
        fine=f"{_gigabytes(min((node.storage_free for node in told.values()), default=0))} left",
        remedy=f"make room for {_gigabytes(LEAST_FREE_B)} at least: foredraft drafts prune",
    )
    yield _each(
        "storage locks",
        told,
        lambda node: None if node.locks else "none",
        fine="work",
        remedy="mount it with locks (NFS 4, without nolock)",
    )
    yield _each(
        "Ray's disk",
        told,
        lambda node: None if node.temp_free >= LEAST_TEMP else f"{node.temp_free:.0%} free",
        fine=f"{min((node.temp_free for node in told.values()), default=1):.0%} free at least",
        remedy="empty the folder of temporary files, or start Ray with --temp-dir",
    )
    yield _each(
        "clocks",
        told,
        lambda node: _skew(node.clock, began=began, ended=ended),
        fine=f"within {SKEW_S:.0f} s",
        remedy="run a time service (chrony) there",
    )
    yield _each(
        "open ports",
        told,
        _open,
        fine="none without a token",
        remedy="start Ray with RAY_AUTH_MODE=token, and let no stranger reach it (SECURITY.md)",
    )


def _each(
    what: str,
    told: Mapping[str, Node],
    wrong: Callable[[Node], str | None],
    *,
    fine: str,
    remedy: str,
) -> Finding:
    """One finding of all nodes: those of which something is wrong, by name."""
    faults = {name: fault for name, node in told.items() if (fault := wrong(node))}
    return Finding(what, not faults, _listed(faults) if faults else fine, remedy)


def _listed(values: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in sorted(values.items()))


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _skew(clock: float, *, began: float, ended: float) -> str | None:
    off = max(began - clock, clock - ended, 0.0)
    return f"{off:.0f} s off" if off > SKEW_S else None


def _open(node: Node) -> str | None:
    if node.has_token or not node.exposed:
        return None
    return "ports " + ", ".join(map(str, node.exposed[:5])) + ", without a token"


def of_token(path: Path) -> Iterator[Finding]:
    """Whether the file of the token is for its owner's eyes alone."""
    if path.is_file():
        private = not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        says = f"{path}, readable by {'you alone' if private else 'others too'}"
        yield Finding("token", private, says, f"chmod 600 {path}")


def _of_upload(root: Path, *, storage: Path) -> Iterator[Finding]:
    try:
        sent = upload.of(root, storage=storage)
        yield Finding("upload", True, f"{sent.bytes / 1e6:.1f} MB of {root}")
    except ConfigError as error:
        yield Finding("upload", False, str(error), "name what no job needs in .rayignore")


def of_data(study: Study) -> Iterator[Finding]:
    """Whether all can be read that the evaluation and the stages of target and drafts name."""
    there = []
    for source, missing, reading in dict.fromkeys(study.sources):
        try:
            data.load(source, missing=missing, reading=reading)
            there.append(source)
        except data.DataError as error:
            yield Finding(
                "data", False, str(error), "foredraft data list tells where it comes from"
            )
    if there:
        yield Finding("data", True, ", ".join(dict.fromkeys(there)))


def of_target(study: Study, storage: Path) -> Iterator[Finding]:
    """Whether the target is there, where the study names one that was trained before."""
    if isinstance(study.target, str) and study.target not in RECIPES:
        try:
            path = bank.find(study.target, kind="target", storage=storage)
            yield Finding("target", True, str(path))
        except ConfigError as error:
            remedy = "train or import it into this storage, or name a recipe"
            yield Finding("target", False, str(error), remedy)


def of_database(study: Study) -> Iterator[Finding]:
    """Whether the study's database answers, where it has one."""
    if not study.database:
        return
    told = redacted(study.database)
    try:
        optuna.storages.RDBStorage(study.database)
        yield Finding("database", True, told)
    except Exception as error:
        first_line = redacted(str(error).strip().split("\n", 1)[0])
        remedy = "start it, correct the address, or put its password into ~/.pgpass"
        yield Finding("database", False, f"{told}: {first_line}", remedy)


def _of_resources(machine: Machine) -> Finding:
    try:
        given = allotment.allot(machine, node_types.of_cluster())
        return Finding("resources", True, given.in_words)
    except ConfigError as error:
        return Finding("resources", False, str(error), "correct `machine` of the study")
