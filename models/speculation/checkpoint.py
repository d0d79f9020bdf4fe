"""Models on disk: safetensors beside a config.json that names the family.

save(model, directory)
model = load(directory)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from speculation import families
from speculation.errors import InvalidInput
from speculation.network import Network

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save(model: Network, directory: Path) -> None:
    """Write weights and architecture into an existing directory."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, directory / WEIGHTS)
    content = {"family": model.config.family, **families.fields_of(model.config)}
    (directory / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def load(directory: Path) -> Network:
    """The model of a directory, ready for inference.

    Raises:
        InvalidInput: the directory holds no model, or one whose weights have another shape.
    """
    for name in (WEIGHTS, CONFIG):
        if not (directory / name).is_file():
            raise InvalidInput(f"{directory} holds no {name}: it is not a trained model")
    try:
        content = json.loads((directory / CONFIG).read_text())
        if not isinstance(content, dict):
            raise InvalidInput("it is no mapping")
        config = families.architecture_of(content)
    except ValueError as error:
        source = directory / CONFIG
        raise InvalidInput(f"{source} is not a model's configuration: {error}") from error
    try:
        state = load_file(directory / WEIGHTS)
    except SafetensorError as error:
        raise InvalidInput(f"{directory / WEIGHTS} holds no weights: {error}") from error
    return with_weights(families.build(config), state, source=directory / WEIGHTS)


def with_weights(model: Network, state: Mapping[str, Tensor], *, source: Path) -> Network:
    """The model with the weights of `state`, ready for inference.

    Raises:
        InvalidInput: a weight is missing, left over or of another shape; it is named.
    """
    for name, ours in model.state_dict().items():
        if name not in state:
            raise InvalidInput(f"{source} lacks {name}")
        if state[name].shape != ours.shape:
            raise InvalidInput(
                f"{source}: {name} has shape {tuple(state[name].shape)}, "
                f"the configuration says {tuple(ours.shape)}"
            )
    if extra := sorted(state.keys() - model.state_dict().keys()):
        raise InvalidInput(f"{source} holds {extra[0]}, which the configuration does not have")
    model.load_state_dict(state)
    return model.eval()
