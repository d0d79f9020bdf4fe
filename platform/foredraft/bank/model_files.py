"""A model's directory: what is in it, and whether it can be used.

    model = open_model(Path("runs/drafts/6812d1c0a9b3e4f5"))
    flaw_of(path)           # "... model.safetensors is damaged, ...", or None

A look reads everything but the weights themselves, of which it reads the header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from foredraft import buckets, documents, files
from foredraft.errors import ConfigError
from speculation import checkpoint as weights
from speculation import families
from speculation.forecaster import Architecture

METRICS = "metrics.json"
ANOTHER = "train or import it again, or give another directory"
"""What to do about a model that cannot be used."""


class Model(NamedTuple):
    """A model in the bank."""

    key: str
    path: Path
    config: Architecture
    metrics: dict[str, Any]
    """parameters, seconds of training, last validation loss, curve"""


def open_model(path: Path) -> Model:
    """The model of a directory of the bank, without its weights.

    Raises:
        ConfigError: the directory is missing, was never finished, or a file of it is damaged; one
            line names the file and what to do.
    """
    if flaw := flaw_of(path):
        raise ConfigError(f"{flaw}: {ANOTHER}")
    return Model(path.name, path, _config_of(path), _metrics_of(path))


def is_whole(path: Path) -> bool:
    """Whether there is a finished model, none of whose files is damaged as far as a look tells."""
    return flaw_of(path) is None


def flaw_of(path: Path) -> str | None:
    """What is wrong with a model's directory, or None; reads all but the weights themselves.

    One of a bucket is fetched first, or goes from here as it went from there.
    """
    # One that is missing may be made by now: it is asked for each time.
    (buckets.fetch_lately if files.is_complete(path) else buckets.fetch)(path)
    if not path.is_dir():
        return f"{path} is no directory of a model"
    for name in (weights.CONFIG, weights.WEIGHTS, METRICS):
        if not (path / name).is_file():
            return f"{path} holds no finished model, {name} is missing"
    if not files.is_complete(path):
        return f"{path} holds no finished model, {files.COMPLETE} is missing"
    try:
        _metrics_of(path)
        return _flaw_of_weights(path / weights.WEIGHTS, _config_of(path))
    except ConfigError as error:
        return str(error).removesuffix(f": {ANOTHER}")


def _config_of(path: Path) -> Architecture:
    file = path / weights.CONFIG
    content = documents.read_json(file, remedy=ANOTHER)
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is no model's configuration (no mapping): {ANOTHER}")
    try:
        return families.architecture_of(content)
    except ValueError as error:
        raise ConfigError(f"{file} is no model's configuration ({error}): {ANOTHER}") from error


def _metrics_of(path: Path) -> dict[str, Any]:
    file = path / METRICS
    metrics = documents.read_json(file, remedy=ANOTHER)
    if not isinstance(metrics, dict) or "curve" not in metrics:
        raise ConfigError(f"{file} holds no metrics of a model: {ANOTHER}")
    return metrics


def _flaw_of_weights(file: Path, config: Architecture) -> str | None:
    """Whether header and length tell of as many float32 as the architecture has, all of them there.

    A safetensors file is the length of its header (8 bytes), the header, and the tensors.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = content.read(min(length, size))
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
    except (ValueError, AttributeError, LookupError, TypeError):
        return f"{file} is damaged, its header cannot be read"
    told, wanted = max(ends, default=0), 4 * config.num_parameters
    if told != wanted:
        return f"{file} holds {told:,} bytes of weights where {weights.CONFIG} says {wanted:,}"
    if size != 8 + length + told:
        return f"{file} is damaged, it has {size:,} bytes of {8 + length + told:,}"
    return None
