"""THUML's checkpoints, such as `timer-base-84m`; our own lie on disk as any family's do.

model = import_thuml(Path("timer-base-84m"), context=2880)

What is read is `config.json` and `model.safetensors`; the Python files beside them are not run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speculation.checkpoint import CONFIG, WEIGHTS, with_weights
from speculation.errors import InvalidInput
from timer.config import TimerConfig
from timer.model import Timer

# Their fields by ours.
_FIELDS = {
    "patch": "input_token_len",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
}
# What their code can do otherwise and a Timer here cannot, or what it does whatever is said.
_FIXED = {
    "model_type": ("timer", "it is another model"),
    "hidden_act": ("silu", "a Timer here has no other activation"),
    "rope_theta": (10_000, "THUML's code turns by 10000 whatever is said there"),
}
_PARTS = ("weight", "bias")


def import_thuml(path: Path, *, context: int = TimerConfig.context) -> Timer:
    """The model of a directory with THUML's files, or of the safetensors file in one.

    Args:
        path: directory or safetensors file; `config.json` lies beside that. Whatever else the
            directory holds is left alone.
        context: look-back in time steps, a multiple of the patch; the files do not tell it.

    Raises:
        InvalidInput: a file is missing or no such file; a field of `config.json` cannot be what it
            is; or a tensor is missing, left over or of another shape. The first one is named.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    config = _config_of(weights.with_name(CONFIG), context=context)
    theirs = _read(weights)
    _check(theirs, _shapes(config), weights)
    model = Timer(config)
    with_weights(model, _renamed(theirs, config), source=weights)
    return model


def _config_of(file: Path, *, context: int) -> TimerConfig:
    """The architecture that a config.json tells."""
    if not file.is_file():
        raise InvalidInput(
            f"{file} does not exist: a Timer's checkpoint is {WEIGHTS} with {CONFIG} beside it"
        )
    try:
        told = json.loads(file.read_text())
    except ValueError as error:
        raise InvalidInput(f"{file} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise InvalidInput(f"{file} is no configuration: it holds no mapping")
    for name, (value, why) in _FIXED.items():
        if told.get(name, value) != value:
            raise InvalidInput(f"{file}: {name} is {told[name]!r}: {why}; {value!r} would do")
    sizes = {ours: _count(told, name, file) for ours, name in _FIELDS.items()}
    heads = told.get("output_token_lens")
    if heads != [sizes["patch"]]:
        raise InvalidInput(
            f"{file}: output_token_lens is {heads!r}: a target has one head that emits one patch, "
            f"so that {[sizes['patch']]} would do"
        )
    try:
        return TimerConfig(context=context, **sizes)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from error


def _count(told: dict[str, Any], name: str, file: Path) -> int:
    """A field of the configuration that counts something."""
    value = told.get(name)
    if type(value) is not int or value < 1:
        what = f"is {value!r}" if name in told else "is missing"
        raise InvalidInput(f"{file}: {name} {what}: it must be a whole number of at least 1")
    return value


def _read(weights: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in float32."""
    if not weights.is_file():
        raise InvalidInput(f"{weights} does not exist")
    try:
        return {name: tensor.float() for name, tensor in load_file(weights).items()}
    except SafetensorError as error:
        raise InvalidInput(f"{weights} holds no safetensors: {error}") from error


def _shapes(config: TimerConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor under THUML's name, and its shape."""
    width, wide = (config.d_model,), (config.d_ff,)
    shapes = {
        "model.embed_layer.emb.weight": (*width, config.patch),
        "lm_heads.0.weight": (config.patch, *width),
        **{f"model.norm.{part}": width for part in _PARTS},
    }
    for layer in range(config.n_layers):
        name = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj"):
            shapes[f"{name}.self_attn.{projection}.weight"] = width + width
            shapes[f"{name}.self_attn.{projection}.bias"] = width
        shapes[f"{name}.self_attn.o_proj.weight"] = width + width
        shapes[f"{name}.ffn_layer.gate_proj.weight"] = wide + width
        shapes[f"{name}.ffn_layer.up_proj.weight"] = wide + width
        shapes[f"{name}.ffn_layer.down_proj.weight"] = width + wide
        shapes |= {f"{name}.{norm}.{part}": width for norm in ("norm1", "norm2") for part in _PARTS}
    return shapes


def _check(theirs: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], source: Path) -> None:
    """Nothing, where there are these tensors and no others, of these shapes."""
    for name, shape in shapes.items():
        if name not in theirs:
            raise InvalidInput(f"{source} lacks {name}, which {CONFIG} tells of")
        if theirs[name].shape != shape:
            raise InvalidInput(
                f"{source}: {name} has shape {tuple(theirs[name].shape)}, {CONFIG} says {shape}"
            )
    if extra := sorted(theirs.keys() - shapes.keys()):
        raise InvalidInput(f"{source} holds {extra[0]}, which a Timer of {CONFIG} does not have")


def _renamed(theirs: dict[str, Tensor], config: TimerConfig) -> dict[str, Tensor]:
    """The tensors under our names; what one product computes here is one tensor."""
    ours = {
        "embedding.weight": theirs["model.embed_layer.emb.weight"],
        "head.weight": theirs["lm_heads.0.weight"],
        **{f"norm.{part}": theirs[f"model.norm.{part}"] for part in _PARTS},
    }
    for layer in range(config.n_layers):
        old, new = f"model.layers.{layer}", f"blocks.{layer}"
        attention, feed_forward = f"{old}.self_attn", f"{old}.ffn_layer"
        for part in _PARTS:
            ours[f"{new}.attention.query.{part}"] = theirs[f"{attention}.q_proj.{part}"]
            ours[f"{new}.attention.key_value.{part}"] = torch.cat(
                [theirs[f"{attention}.{projection}.{part}"] for projection in ("k_proj", "v_proj")]
            )
            ours[f"{new}.norm_attention.{part}"] = theirs[f"{old}.norm1.{part}"]
            ours[f"{new}.norm_feed_forward.{part}"] = theirs[f"{old}.norm2.{part}"]
        ours[f"{new}.attention.out.weight"] = theirs[f"{attention}.o_proj.weight"]
        ours[f"{new}.gate_and_up.weight"] = torch.cat(
            [theirs[f"{feed_forward}.{part}.weight"] for part in ("gate_proj", "up_proj")]
        )
        ours[f"{new}.down.weight"] = theirs[f"{feed_forward}.down_proj.weight"]
    return ours
