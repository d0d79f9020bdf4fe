"""The draft bank: each distinct model, draft or target, is trained once, whoever asks.

    path = obtain(training, kind="draft", storage=Path("runs"), machine=Machine())

A model's key is a digest of everything that it depends on: architecture, stages, what their data
hold, the teaching target, seed, number of workers, kind of device, and the versions that the code
states of itself. Its directory appears as a whole, marker last; one without the marker is ignored,
one whose files were damaged is set aside, and both are trained again. A training whose first stages
are a model of the bank goes on from that one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch

from foredraft import buckets, data, files, provenance, train
from foredraft.bank import claims
from foredraft.bank.model_files import ANOTHER, METRICS, Model, flaw_of, is_whole, open_model
from foredraft.errors import ConfigError
from foredraft.settings.config import TAUGHT, Machine, Stage, Training
from foredraft.train import teacher
from speculation import checkpoint as weights
from speculation import families
from speculation.forecaster import Architecture
from speculation.heads import HeadsConfig
from speculation.network import Network

__all__ = [
    "Kind",
    "Model",
    "add",
    "check_pair",
    "directory_of",
    "facts_of",
    "find",
    "is_whole",
    "key_of",
    "models",
    "obtain",
    "open_model",
]

Kind = Literal["target", "draft"]


def key_of(training: Training, *, machine: Machine) -> str:
    """The key of what this training makes on such a machine: equal keys, equal weights.

    Raises:
        DataError: a stage's data cannot be read.
    """
    return provenance.digest(facts_of(training, machine=machine))


def facts_of(training: Training, *, machine: Machine) -> dict[str, Any]:
    """All that the weights depend on, JSON-able; nothing of where data and target lie.

    Of settings only those that differ from their defaults: a field that a later version adds
    retrains nobody. A default that changes is a change of what is trained (`VERSION`).

    Raises:
        DataError: a stage's data cannot be read.
    """
    family = families.family_of(training.model.family)
    versions = {family.name: family.version, "data": data.VERSION, "train": train.VERSION}
    target = None
    if training.target and any(stage.name in TAUGHT for stage in training.stages):
        path = buckets.fetch_lately(Path(training.target))
        target, versions["teacher"] = teacher.digest_of(path), teacher.VERSION
        if isinstance(training.model, HeadsConfig):
            # What they read is what its family makes of its weights.
            theirs = families.family_of(_family_in(path))
            versions[theirs.name] = theirs.version
    return {
        "training": training.model_dump(
            mode="json", exclude={"model", "target", "stages"}, exclude_defaults=True
        ),
        "model": _architecture_facts(training.model),
        "stages": [
            _stage_facts(stage, sets)
            for stage, sets in zip(training.stages, train.datasets(training), strict=True)
        ],
        "target": target,
        # Every worker draws its own dropout, and each kind of device has its own random numbers.
        "workers": max(1, machine.workers),
        "device": train.kind_of_device(machine),
        "versions": versions,
    }


def _family_in(path: Path) -> str:
    """The family of a model's directory, of which no more is read."""
    content = json.loads((path / weights.CONFIG).read_text())
    return str(content.get("family", families.DEFAULT))


def _architecture_facts(model: Architecture) -> dict[str, Any]:
    """An architecture by its family and the fields that are not as they are by default."""
    defaults = {field.name: field.default for field in dataclasses.fields(type(model))}  # type: ignore[arg-type]
    fields = families.fields_of(model).items()
    return {"family": model.family, **{n: v for n, v in fields if v != defaults[n]}}


def _stage_facts(stage: Stage, sets: train.Datasets) -> dict[str, Any]:
    """A stage, with its data sets by what they hold."""
    return {
        **stage.model_dump(mode="json", exclude={"data", "judge"}, exclude_defaults=True),
        "data": [dataset.digest for dataset in sets.values()],
        # Filled cells count neither as truth nor in the scale; they did before this was said here.
        **({"filled": "untold"} if any(dataset.filled for dataset in sets.values()) else {}),
        # A file of a benchmark's name and size has the published split, any other has not.
        "splits": [dataset.splits for dataset in sets.values()],
        "weights": list(stage.sources.values()),
        "judges": [list(stage.sources).index(name) for name in stage.judges],
    }


def directory_of(training: Training, *, kind: Kind, storage: Path, machine: Machine) -> Path:
    """Where the model of this training is, or will be."""
    return storage / f"{kind}s" / key_of(training, machine=machine)


def epochs_file(storage: Path, key: str) -> Path:
    """Where the epochs of a training under way are told, one JSON object a line."""
    return storage / "training" / f"{key}.epochs.jsonl"


def obtain(
    training: Training,
    *,
    kind: Kind,
    storage: Path,
    machine: Machine,
    log: train.Log | None = None,
    examine: train.Examine | None = None,
    origin: provenance.Origin | None = None,
) -> Path:
    """The directory of the trained model: found, or trained now.

    An interrupted training goes on from its last checkpoint; a damaged model is set aside.

    Args:
        training: what to train.
        kind: what the model is used as.
        storage: where the bank is.
        machine: what the training may use.
        log: told of every epoch.
        examine: what a draft is worth to its target after every epoch.
        origin: the command that asks for it, where that is another process's.

    Raises:
        DataError: a stage's data cannot be read.
        ConfigError: the machine has not what is asked for.
        DiskFull: there is no room for the model.
    """
    directory = directory_of(training, kind=kind, storage=storage, machine=machine)
    if is_whole(directory):
        buckets.keep(directory)  # a process that was killed may have left it here alone
        return directory
    with claims.held(storage / "claims" / directory.name):
        buckets.fetch(directory)  # another machine may have made it while this one waited
        if not is_whole(directory):
            _set_aside(directory)
            buckets.fetch(directory)
        if not is_whole(directory):  # nor fetched anew, where it is a bucket's
            _set_aside(directory)
            if buckets.address_of(directory):
                buckets.remove(directory)
            _make(
                directory,
                training,
                kind=kind,
                storage=storage,
                machine=machine,
                log=log,
                examine=examine,
                origin=origin,
            )
    return directory


def _make(
    directory: Path,
    training: Training,
    *,
    kind: Kind,
    storage: Path,
    machine: Machine,
    log: train.Log | None,
    examine: train.Examine | None,
    origin: provenance.Origin | None,
) -> None:
    """Train the model, whose claim is ours, into its directory."""
    work = storage / "training" / directory.name
    begun = _begun(training, kind=kind, storage=storage, machine=machine)
    board = train.tensorboard(storage / "tensorboard" / f"{kind}-{directory.name}", training)

    def both(row: train.Row) -> None:
        board(row)
        if log:
            log(row)

    if machine.workers:
        trained = train.on_workers(
            training,
            machine=machine,
            name=work.name,
            storage=work.parent,
            log=both,
            examine=examine,
            begun=begun,
        )
    else:
        train.use_threads(machine.cpus)
        run = train.LocalRun(work, device=train.device_of(machine))
        trained = train.train(training, run=run, log=both, examine=examine, begun=begun)
    with files.atomic_directory(directory) as draft:
        _write(draft, trained, training, kind=kind, machine=machine, origin=origin)
    buckets.keep(directory)
    buckets.keep(storage / "tensorboard" / f"{kind}-{directory.name}")
    buckets.remove(work)
    buckets.remove(work.with_suffix(".jsonl"))


def _begun(
    training: Training, *, kind: Kind, storage: Path, machine: Machine
) -> train.Begun | None:
    """The longest beginning of a training whose result the bank has."""
    for count in range(len(training.stages) - 1, 0, -1):
        first = training.model_copy(update={"stages": training.stages[:count]})
        directory = directory_of(first, kind=kind, storage=storage, machine=machine)
        if is_whole(directory):
            return train.Begun(count, directory, open_model(directory).metrics["curve"])
    return None


def _set_aside(directory: Path) -> None:
    """Take a damaged model out of the bank, and say so; what is left of it is pruned."""
    if not files.is_complete(directory):
        return
    flaw = flaw_of(directory)
    aside = directory.with_name(f".{directory.name}-damaged-{uuid4().hex[:12]}")
    # The marker first: a model that is set aside is none.
    (directory / files.COMPLETE).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(aside)
    print(f"{flaw}; it is set aside as {aside.name} and made anew", file=sys.stderr)


def add(model: Network, *, kind: Kind, storage: Path, source: Path) -> Path:
    """The directory of a model that was trained elsewhere, keyed by its weights."""
    key = provenance.digest({"config": model.config, "weights": _digest_of(model)})
    directory = storage / f"{kind}s" / key
    if is_whole(directory):
        return directory
    _set_aside(directory)
    if buckets.address_of(directory):
        buckets.remove(directory)
    with files.atomic_directory(directory) as draft:
        weights.save(model, draft)
        metrics: dict[str, Any] = {
            "kind": kind,
            "parameters": model.config.num_parameters,
            "curve": [],
        }
        _write_json(draft / METRICS, metrics)
        _write_json(draft / "provenance.json", provenance.collect(imported=str(source)))
    buckets.keep(directory)
    return directory


def find(reference: str, *, kind: Kind, storage: Path) -> Path:
    """The directory, absolute, that a user means by a path, a key or the beginning of a key.

    Raises:
        ConfigError: nothing, or more than one model, is meant; or the directory holds none that is
            whole.
    """
    path = _meant(reference, kind=kind, storage=storage).resolve()
    if flaw := flaw_of(path):
        raise ConfigError(f"{kind} {reference!r}: {flaw}: {ANOTHER}")
    return path


def _meant(reference: str, *, kind: Kind, storage: Path) -> Path:
    bank, given = storage / f"{kind}s", Path(reference).expanduser()
    if reference and files.is_complete(given):
        return given
    kept = [bank / name for name in buckets.names(bank) if reference and name.startswith(reference)]
    matches = [path for path in kept if is_whole(path)]
    if len(matches) == 1:
        return matches[0]
    if reference and not matches:
        for directory in (given, bank / given):
            if directory.is_dir():
                return directory
    what = f"means {len(matches)} {kind}s" if matches else f"is no trained {kind}"
    keys = ", ".join(path.name for path in models(kind, storage=storage)) or "none yet"
    raise ConfigError(f"{kind} {reference!r} {what} in {storage}; there are: {keys}")


def models(kind: Kind, *, storage: Path) -> list[Path]:
    """The whole models of one kind in a storage."""
    bank = storage / f"{kind}s"
    return [bank / name for name in buckets.names(bank) if is_whole(bank / name)]


def _write(
    directory: Path,
    trained: train.Trained,
    training: Training,
    *,
    kind: Kind,
    machine: Machine,
    origin: provenance.Origin | None,
) -> None:
    weights.save(trained.model, directory)
    metrics = {
        "kind": kind,
        "parameters": trained.model.config.num_parameters,
        **_of_target(training),
        **_summary(trained.curve),
        "curve": trained.curve,
    }
    _write_json(directory / METRICS, metrics)
    _write_json(directory / "training.json", training.model_dump(mode="json"))
    facts = facts_of(training, machine=machine)
    made = provenance.collect(origin=origin, seed=training.seed, made_of=facts)
    _write_json(directory / "provenance.json", made)


def _of_target(training: Training) -> dict[str, str]:
    """Whose heads a training makes."""
    if not isinstance(training.model, HeadsConfig):
        return {}
    assert training.target is not None, "heads are trained with their target"
    return {"target": teacher.digest_of(Path(training.target))}


def check_pair(target: Path, draft: Path) -> None:
    """Nothing, where a draft can stand beside that target: heads are one target's alone.

    Raises:
        ConfigError: they are another's; one line names both and the remedy.
    """
    model = open_model(draft)
    if not isinstance(model.config, HeadsConfig):
        return
    if model.metrics.get("target") != teacher.digest_of(target):
        raise ConfigError(
            f"draft {draft.name} is heads of another target than {target.name}, whose hidden "
            "states they cannot read: give the target that they were trained for, or train heads "
            "of this one"
        )


def _summary(curve: list[train.Row]) -> dict[str, Any]:
    """A training in a few numbers: its cost over all stages, and its best epoch of the last one."""
    # By its first epoch, as two stages may have one name.
    last = max(index for index, row in enumerate(curve) if row["epoch"] == 1)
    rows = curve[last:]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    judged = ("validation_loss", "squared_z", "within_deviation", *train.EXAMINED)
    seconds = sum(row["seconds"] for row in curve)
    return {
        "seconds": seconds,
        "epochs": len(curve),
        "best_epoch": best["epoch"],
        **{name: best[name] for name in judged if name in best},
        "samples_per_s": statistics.median(row["samples_per_s"] for row in rows),
        "outside_share": statistics.median(row["outside_share"] for row in rows),
    }


def _write_json(path: Path, content: Any) -> None:
    files.atomic_write(path, json.dumps(content, indent=2) + "\n")


def _digest_of(model: Network) -> str:
    """SHA-256 of all weights: names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
