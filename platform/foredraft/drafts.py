"""The draft bank: each distinct model, draft or target, is trained once, whoever asks.

    path = obtain(training, kind="draft", storage=Path("runs"), machine=Machine())

A model's key is a digest of everything that it depends on: architecture, stages, the content of
their data, the weights of a teaching target, seed, and the code that trains it. Its directory
appears as a whole, marker last; one without the marker is ignored and trained again. A training
whose first stages are a model of the bank goes on from that one.
"""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timer_xl.config
import timer_xl.model
from foredraft import claims, provenance, train
from foredraft.config import ConfigError, Machine, Training
from timer_xl import TimerXL, TimerXLConfig
from timer_xl import checkpoint as weights

Kind = Literal["target", "draft"]

# What a model's weights depend on beside its training.
_CODE = (train, timer_xl.model, timer_xl.config)


class Model(NamedTuple):
    """A model in the bank."""

    key: str
    path: Path
    config: TimerXLConfig
    metrics: dict[str, Any]
    """parameters, seconds of training, last validation loss, curve"""


def key_of(training: Training) -> str:
    """The key of what this training makes: equal keys, equal weights."""
    taught = training.target and any(stage.name == "distill" for stage in training.stages)
    target = Path(training.target) / weights.WEIGHTS if taught and training.target else None
    facts = {
        "training": training.model_dump(mode="json", exclude={"target"}),
        "data": [[d.digest for d in sets.values()] for sets in train.datasets(training)],
        "target": provenance.file_digest(target) if target else None,
        "code": provenance.code_version(*_CODE),
    }
    return provenance.digest(facts)


def directory_of(training: Training, *, kind: Kind, storage: Path) -> Path:
    """Where the model of this training is, or will be."""
    return storage / f"{kind}s" / key_of(training)


def obtain(
    training: Training,
    *,
    kind: Kind,
    storage: Path,
    machine: Machine,
    log: train.Log | None = None,
    examine: train.Examine | None = None,
) -> Path:
    """The directory of the trained model: found, or trained now.

    An interrupted training goes on from its last checkpoint.

    Args:
        training: what to train.
        kind: what the model is used as.
        storage: where the bank is.
        machine: what the training may use.
        log: told of every epoch.
        examine: what a draft is worth to its target after every epoch.

    Raises:
        DataError: a stage's data cannot be read.
        ConfigError: the machine has not what is asked for.
    """
    directory = directory_of(training, kind=kind, storage=storage)
    if provenance.is_complete(directory):
        return directory
    with claims.held(storage / "claims" / directory.name):
        if not provenance.is_complete(directory):
            _make(
                directory,
                training,
                kind=kind,
                storage=storage,
                machine=machine,
                log=log,
                examine=examine,
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
) -> None:
    """Train the model, whose claim is ours, into its directory."""
    work = storage / "training" / directory.name
    begun = _begun(training, kind=kind, storage=storage)
    board = train.tensorboard(storage / "tensorboard" / f"{kind}-{directory.name}")

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
    with provenance.atomic_directory(directory) as draft:
        _write(draft, trained, training, kind=kind)
    shutil.rmtree(work, ignore_errors=True)
    work.with_suffix(".jsonl").unlink(missing_ok=True)


def _begun(training: Training, *, kind: Kind, storage: Path) -> train.Begun | None:
    """The longest beginning of a training whose result the bank has."""
    for count in range(len(training.stages) - 1, 0, -1):
        first = training.model_copy(update={"stages": training.stages[:count]})
        directory = directory_of(first, kind=kind, storage=storage)
        if provenance.is_complete(directory):
            return train.Begun(count, directory, open_model(directory).metrics["curve"])
    return None


def add(model: TimerXL, *, kind: Kind, storage: Path, source: Path) -> Path:
    """The directory of a model that was trained elsewhere, keyed by its weights."""
    key = provenance.digest({"config": model.config, "weights": _digest_of(model)})
    directory = storage / f"{kind}s" / key
    if provenance.is_complete(directory):
        return directory
    with provenance.atomic_directory(directory) as draft:
        weights.save(model, draft)
        metrics: dict[str, Any] = {
            "kind": kind,
            "parameters": model.config.num_parameters,
            "curve": [],
        }
        _write_json(draft / "metrics.json", metrics)
        _write_json(draft / "provenance.json", provenance.collect(imported=str(source)))
    return directory


def open_model(path: Path) -> Model:
    """The model of a directory of the bank, without its weights.

    Raises:
        ConfigError: the directory is missing or was never finished.
    """
    if not provenance.is_complete(path):
        raise ConfigError(f"{path} holds no finished model: train it, or give another directory")
    config = TimerXLConfig(**json.loads((path / weights.CONFIG).read_text()))
    metrics = json.loads((path / "metrics.json").read_text())
    return Model(path.name, path, config, metrics)


def find(reference: str, *, kind: Kind, storage: Path) -> Path:
    """The directory that a user means by a path, a key or the beginning of a key.

    Raises:
        ConfigError: nothing, or more than one model, is meant.
    """
    for path in (Path(reference), storage / f"{kind}s" / reference):
        if provenance.is_complete(path):
            return path
    matches = [
        path
        for path in sorted((storage / f"{kind}s").glob(f"{reference}*"))
        if provenance.is_complete(path)
    ]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(path.name for path in models(kind, storage=storage)) or "none yet"
    what = f"means {len(matches)} {kind}s" if matches else f"is no trained {kind}"
    raise ConfigError(f"{kind} {reference!r} {what} in {storage}; there are: {known}")


def models(kind: Kind, *, storage: Path) -> list[Path]:
    """The finished models of one kind in a storage."""
    return [p for p in sorted((storage / f"{kind}s").glob("*")) if provenance.is_complete(p)]


def _write(directory: Path, trained: train.Trained, training: Training, *, kind: Kind) -> None:
    weights.save(trained.model, directory)
    metrics = {
        "kind": kind,
        "parameters": trained.model.config.num_parameters,
        **_summary(trained.curve, last=training.stages[-1].name),
        "curve": trained.curve,
    }
    _write_json(directory / "metrics.json", metrics)
    _write_json(directory / "training.json", training.model_dump(mode="json"))
    _write_json(directory / "provenance.json", provenance.collect(seed=training.seed))


def _summary(curve: list[train.Row], *, last: str) -> dict[str, Any]:
    """A training in a few numbers: its cost over all stages, and its best epoch of the last one."""
    rows = [row for row in curve if row["stage"] == last]
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
    provenance.atomic_write(path, json.dumps(content, indent=2) + "\n")


def _digest_of(model: TimerXL) -> list[float]:
    """Sums that tell one set of weights from another."""
    return [float(tensor.double().sum()) for tensor in model.state_dict().values()]
