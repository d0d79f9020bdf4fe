"""Checkpoints of OpenLTM and STRIDE; how our own lie on disk is general: `speculation.checkpoint`.

model = import_openltm(Path("checkpoint.pth"), context=672)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from speculation.checkpoint import with_weights
from speculation.errors import InvalidInput
from timer_xl.config import TimerXLConfig
from timer_xl.model import TimerXL


def import_openltm(
    path: Path,
    *,
    context: int = 672,
    activation: Literal["relu", "gelu"] = "relu",
    revin: bool = True,
    flash_attention: bool = False,
    dropout: float = 0.1,
) -> TimerXL:
    """The model of an OpenLTM or STRIDE Timer-XL `checkpoint.pth`.

    Widths, layers and heads are read from the tensors' shapes. What those do not tell is given. The
    token positions of that code run over the flattened, variate-major sequence. A model trained
    with its `--covariate`, whose last variate alone sees the others, is not a Timer-XL as it stands
    here, and its tensors do not tell it from one.

    Args:
        path: the checkpoint.
        context: look-back in time steps.
        activation: of the feed-forward layers; OpenLTM's default is relu.
        revin: whether it was trained with `--use_norm`.
        flash_attention: whether it was trained with `--flash_attention`, under which that code adds
            the variate bias to scores that are divided by sqrt(E) already.
        dropout: of a training that goes on from it.

    Raises:
        InvalidInput: the file is no such checkpoint; the first tensor that is missing, left over or
            of another shape is named.
    """
    theirs = _read(path)
    config = dataclasses.replace(
        _config_of(theirs, path, context=context, activation=activation, dropout=dropout),
        revin=revin,
    )
    # Ours is divided by sqrt(E) with the scores.
    bias_scale = config.head_width**0.5 if flash_attention else 1.0
    ours: dict[str, Tensor] = {}
    for name in ("embedding.weight", "embedding.bias"):
        ours[name] = _take(theirs, name, path)
    for suffix in ("weight", "bias"):
        ours[f"norm.{suffix}"] = _take(theirs, f"blocks.norm.{suffix}", path)
        head = "head_mean" if config.variance else "head"
        ours[f"head.{suffix}"] = _take(theirs, f"{head}.{suffix}", path)
        if config.variance:
            name = f"log_variance_head.{suffix}"
            ours[name] = _take(theirs, f"head_logvar.{suffix}", path)
        for layer in range(config.n_layers):
            ours |= _block(theirs, path, layer=layer, suffix=suffix)
    for layer in range(config.n_layers):
        bias = f"blocks.attn_layers.{layer}.attention.inner_attention.attn_bias.emb.weight"
        ours[f"blocks.{layer}.attention.bias_2H"] = bias_scale * _take(theirs, bias, path)
    if theirs:
        raise InvalidInput(f"{path} holds {min(theirs)}, which a Timer-XL does not have")
    model = TimerXL(config)
    with_weights(model, ours, source=path)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without the wrappers that training put round them."""
    if not path.is_file():
        raise InvalidInput(f"{path} does not exist")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidInput(f"{path} is not a PyTorch checkpoint: {error}") from error
    if isinstance(loaded, dict):
        loaded = loaded.get("state_dict", loaded)
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise InvalidInput(f"{path} holds no state dict of tensors")
    return {name.removeprefix("module."): tensor.float() for name, tensor in loaded.items()}


def _config_of(
    state: dict[str, Tensor],
    path: Path,
    *,
    context: int,
    activation: Literal["relu", "gelu"],
    dropout: float,
) -> TimerXLConfig:
    """The architecture that the tensors' shapes tell."""
    variance = "head_mean.weight" in state
    prefix = "blocks.attn_layers"
    needed = (
        "embedding.weight",
        "head_mean.weight" if variance else "head.weight",
        f"{prefix}.0.conv1.weight",
        f"{prefix}.0.attention.inner_attention.attn_bias.emb.weight",
    )
    for name in needed:
        if name not in state:
            raise InvalidInput(f"{path} lacks {name}: it is not a Timer-XL checkpoint")
    embedding, head, conv, bias = (state[name] for name in needed)
    layers = {name.split(".")[2] for name in state if name.startswith(prefix)}
    return TimerXLConfig(
        patch=embedding.shape[1],
        context=context,
        d_model=embedding.shape[0],
        n_heads=bias.shape[1],
        d_ff=conv.shape[0],
        n_layers=len(layers),
        dropout=dropout,
        activation=activation,
        patches_out=head.shape[0] // embedding.shape[1],
        variance=variance,
        positions="flattened",
    )


def _block(theirs: dict[str, Tensor], path: Path, *, layer: int, suffix: str) -> dict[str, Tensor]:
    """The weights, or the biases, of one block under our names."""
    old, new = f"blocks.attn_layers.{layer}", f"blocks.{layer}"
    parts = ("query", "key", "value")
    qkv = [_take(theirs, f"{old}.attention.{part}_projection.{suffix}", path) for part in parts]
    renamed = {
        f"{new}.attention.out": f"{old}.attention.out_projection",
        f"{new}.norm_attention": f"{old}.norm1",
        f"{new}.norm_feed_forward": f"{old}.norm2",
        f"{new}.widen": f"{old}.conv1",
        f"{new}.narrow": f"{old}.conv2",
    }
    taken = {
        f"{our}.{suffix}": _take(theirs, f"{their}.{suffix}", path)
        for our, their in renamed.items()
    }
    # Their feed-forward layers are convolutions of width one: matrices with a third axis.
    taken = {
        name: tensor.flatten(1) if tensor.ndim == 3 else tensor for name, tensor in taken.items()
    }
    return {f"{new}.attention.qkv.{suffix}": torch.cat(qkv)} | taken


def _take(state: dict[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in state:
        raise InvalidInput(f"{path} lacks {name}: it is not a Timer-XL checkpoint")
    return state.pop(name)
