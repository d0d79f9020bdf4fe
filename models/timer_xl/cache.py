"""Keys and values of patches already read, with a place of its own for every sample of a batch.

Patches are counted from the window's anchor. A query never sees a key of a later patch, so what
lies beyond a sample's place is dead: truncating is moving the place back, and the next pass
writes over it.

Shapes: B batch, H heads, S cached tokens (patch-major: token = patch * C + variate), E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


class KeyValueCache:
    """Preallocated keys and values of every layer of one model."""

    def __init__(
        self,
        *,
        num_layers: int,
        batch: int,
        heads: int,
        tokens: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, 2, batch, heads, tokens, head_width)
        self.store_L2BHSE = torch.empty(shape, dtype=dtype, device=device)
        self.tokens_made = 0  # of every sample: written, or zero

    def write(self, layer: int, new_2BHSE: Tensor, *, start: int | Tensor, stop: int) -> Tensor:
        """Keys and values [2, B, H, stop, E] after writing the new ones at token `start`.

        Args:
            layer: index of the block.
            new_2BHSE: keys and values of the new tokens.
            start: first token to write; one number for all, or an int64 tensor [B].
            stop: tokens to return, at least as many as any sample holds after the write.
        """
        stored_2BHSE = self.store_L2BHSE[layer]
        num_new = new_2BHSE.shape[3]
        if isinstance(start, int):
            stored_2BHSE[:, :, :, start : start + num_new] = new_2BHSE
        else:
            # What a sample does not write is masked, but enters as 0 * value, and 0 * NaN is NaN.
            self.store_L2BHSE[..., self.tokens_made : stop, :] = 0
            token_BS = start[:, None] + torch.arange(num_new, device=start.device)
            token_2BHSE = token_BS[None, :, None, :, None].expand_as(new_2BHSE)
            stored_2BHSE.scatter_(3, token_2BHSE, new_2BHSE)
        self.tokens_made = max(self.tokens_made, stop)
        return stored_2BHSE[:, :, :, :stop]

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch, in that order."""
        self.store_L2BHSE = self.store_L2BHSE.index_select(2, index_A)
