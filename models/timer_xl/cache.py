"""What a Timer-XL keeps its keys and values in, where its positions let it keep them."""

from __future__ import annotations

import torch

from speculation.caching import KeyValueCache
from speculation.errors import InvalidInput
from timer_xl.config import TimerXLConfig


def new_cache(
    config: TimerXLConfig,
    *,
    batch: int,
    patches: int,
    variates: int,
    dtype: torch.dtype,
    device: torch.device,
) -> KeyValueCache:
    """An empty cache for a model of that architecture, with room for `patches` patches.

    Raises:
        InvalidInput: the architecture's positions do not let keys be kept.
    """
    if config.positions == "flattened" and variates > 1:
        raise InvalidInput(
            "positions is 'flattened': a token's position depends on the window's length, so "
            "its keys cannot be kept; use the context policy 'sliding'"
        )
    return KeyValueCache(
        num_layers=config.n_layers,
        batch=batch,
        heads=config.n_heads,
        tokens=patches * variates,
        head_width=config.head_width,
        dtype=dtype,
        device=device,
    )
