"""What attention knows of its tokens' places in time: rotary positions; `masks` has the rest.

Shapes: L tokens, H heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from timer_xl.config import TimerXLConfig


def precision_of(dtype: torch.dtype) -> torch.dtype:
    """In what a model with such weights computes positions, scores and predictions."""
    return torch.promote_types(dtype, torch.float32)


def token_places(patches: int, variates: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Patch and variate of every token of a window, int64 [L]; tokens are patch-major."""
    patch_L = torch.arange(patches, device=device).repeat_interleave(variates)
    return patch_L, torch.arange(variates, device=device).repeat(patches)


def rotary_table(
    config: TimerXLConfig,
    patch_L: Tensor,
    variate_L: Tensor,
    *,
    window: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """By how much tokens' pairs are turned, complex [..., L, E/4] (RoFormer, arXiv 2104.09864).

    Args:
        config: says what a position is.
        patch_L: patch of each token, from the window's anchor; may have axes before L.
        variate_L: variate of each token.
        window: patches of the window.
        dtype: of the angles.
    """
    position_L = variate_L * window + patch_L if config.positions == "flattened" else patch_L
    rotated = config.head_width // 2
    exponent = torch.arange(0, rotated, 2, device=patch_L.device, dtype=dtype)
    angle_LE = position_L[..., None] * 10_000.0 ** (-exponent / rotated)
    return torch.polar(torch.ones_like(angle_LE), angle_LE)


def rotate_(x_THE: Tensor, turn: Tensor) -> None:
    """Turn half of each head in place, in neighbouring pairs."""
    half = x_THE[..., : x_THE.shape[-1] // 2]
    pairs = _wide(half)
    torch.view_as_complex(pairs.unflatten(-1, (-1, 2))).mul_(turn)
    if pairs is not half:
        half.copy_(pairs)


def rotated(x_THE: Tensor, turn: Tensor) -> Tensor:
    """What `rotate_` makes of its argument, which stays as it is and may need a gradient."""
    half, rest = x_THE.chunk(2, dim=-1)
    pairs = torch.view_as_complex(_wide(half).unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * turn).flatten(-2)
    return torch.cat((turned.to(x_THE.dtype), rest), dim=-1)


def _wide(x: Tensor) -> Tensor:
    """`x` in a type of which there are complex numbers."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
