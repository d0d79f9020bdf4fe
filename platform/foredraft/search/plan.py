"""What a study would do, without doing it: `foredraft search STUDY --dry-run`.

The cost of training is told from a few real steps of each distinct draft on the device that the
study would use: this machine's, or one of the cluster that it would join. The plan takes seconds
there, and writes nothing to the storage.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from foredraft import bank, data, files, provenance, redaction, train
from foredraft.cluster import allotment, joining, tasks
from foredraft.search.driver import target_of
from foredraft.search.trial import Sizes
from foredraft.settings.config import TAUGHT, Machine, Stage, Training
from foredraft.settings.study import Study
from speculation import checkpoint, families
from speculation.forecaster import Architecture

TIMED_STEPS = 3


def of(
    study: Study, *, storage: Path, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The resolved study, its distinct drafts, and the seconds that training them takes.

    Args:
        study: that would be searched.
        storage: where its models are, or would be.
        say: told where the study would run, where there is a cluster.

    Raises:
        ConfigError: the study cannot be run.
        DataError: its data cannot be read.
    """
    if not joining.would_join():
        return here(study, storage, "this machine")
    say(joining.cluster_in_words(joining.connect()))
    given = allotment.of_cluster(study.machine, say=say)
    told = study.located(Path.cwd()).model_copy(update={"machine": given.machine})
    work = tasks.submit(_on_node, told, storage.resolve(), share=given.judging)
    planned: dict[str, Any] = tasks.result(work)
    return planned


def _on_node(study: Study, storage: Path) -> dict[str, Any]:
    threaded = study.model_copy(update={"machine": tasks.threads(study.machine)})
    return here(threaded, storage, platform.node())


def here(study: Study, storage: Path, host: str) -> dict[str, Any]:
    """The plan, with its seconds from this process; `host` is what this machine is called."""
    threads = train.use_threads(study.machine.cpus)
    device = train.device_of(study.machine)
    where = f"{threads} threads of {host}"
    if device.type == "cuda":
        where = f"a {torch.cuda.get_device_name()} of {host}"
    target = target_of(study, storage)
    if isinstance(target, Training):
        architecture = target.model
        path = bank.directory_of(target, kind="target", storage=storage, machine=study.machine)
        first = [_line(target, kind="target", storage=storage, machine=study.machine)]
    else:
        architecture, path, first = bank.open_model(target).config, target, []
    study.check_target(architecture)
    trainings = study.drafts_of(architecture, path=path)
    with tempfile.TemporaryDirectory() as directory:
        stand_in = Path(directory)
        if not files.is_complete(path):
            torch.manual_seed(0)  # its answers, of no use but cached, are the same every time
            checkpoint.save(families.build(architecture), stand_in)
        planned = [
            _line(
                training,
                kind="draft",
                storage=storage,
                machine=study.machine,
                stand_in=stand_in,
            )
            for training in trainings
        ]
    taught = any(_is_taught(training) for training in trainings)
    return {
        "study": {
            **study.model_dump(mode="json", exclude={"target", "draft"}),
            # A password in it is not anybody's to read.
            "database": study.database and redaction.redacted(study.database),
        },
        "target": first[0] if first else {"path": str(target)},
        "drafts": planned,
        "distinct_architectures": len({one.model for one in trainings}),
        "distinct_drafts": len(planned),
        "training_s": sum(p["training_s"] for p in (*first, *planned)),
        "training_note": (
            f"at most, on {where}: timed over "
            f"{TIMED_STEPS} steps each; early stopping may save some of it"
            + ("; the target's answers, once for all drafts, come on top" if taught else "")
        ),
    }


def _is_taught(training: Training) -> bool:
    return any(stage.name in TAUGHT for stage in training.stages)


def _line(
    training: Training,
    *,
    kind: bank.Kind,
    storage: Path,
    machine: Machine,
    stand_in: Path | None = None,
) -> dict[str, Any]:
    """One line of the plan: a model, whether it is in the bank, and what training it costs.

    A draft that is distilled has no key before its target is there; its training is timed with a
    stand-in of random weights.
    """
    waits = _is_taught(training) and not files.is_complete(Path(str(training.target)))
    timed = training.model_copy(update={"target": str(stand_in)}) if waits else training
    path = (
        None if waits else bank.directory_of(training, kind=kind, storage=storage, machine=machine)
    )
    known = path is not None and bank.is_whole(path)
    return {
        "key": path.name if path else None,
        **Sizes.of(training.model).model_dump(),
        "parameters": training.model.num_parameters,
        "stages": "+".join(stage.name for stage in training.stages),
        "trained": known,
        "training_s": 0.0 if known else _seconds(timed, machine),
    }


def _seconds(training: Training, machine: Machine) -> float:
    """Seconds of all epochs: those of a few steps of each stage, times their number."""
    total = 0.0
    for stage in training.stages:
        alone = training.model_copy(update={"stages": (stage,)})
        # Drafts of several plans share their first stages, and who would teach costs nothing.
        key = provenance.digest(alone.model_copy(update={"target": None}))
        if key not in _TIMED:
            _TIMED[key] = _stage_seconds(alone, stage, machine)
        total += _TIMED[key]
    return total


_TIMED: dict[str, float] = {}


def _stage_seconds(training: Training, stage: Stage, machine: Machine) -> float:
    short = stage.model_copy(
        update={
            "epochs": 2,
            "windows_per_epoch": TIMED_STEPS * stage.batch,
            "windows": TIMED_STEPS * stage.batch,
            "validation_windows": 1,
        }
    )
    with tempfile.TemporaryDirectory() as directory:
        run = train.LocalRun(Path(directory), device=train.device_of(machine))
        alone = training.model_copy(update={"stages": (short,)})
        # The first epoch warms up; only the second tells.
        rate = train.train(alone, run=run).curve[-1]["samples_per_s"]
    return stage.epochs * _windows(training.model, stage) / rate


def _windows(model: Architecture, stage: Stage) -> int:
    """Training windows of an epoch."""
    lengths = {"context": model.context, "horizon": model.patches_out * model.patch}
    sets = [data.load(name, missing=stage.missing, reading=stage.reading) for name in stage.sources]
    sizes = [len(dataset.windows("train", **lengths)) for dataset in sets]
    there = sum(min(size, stage.windows or size) for size in sizes)
    return min(there, stage.windows_per_epoch or there)
