"""Which keys a token sees, and how it weighs them: a future over patches, a bias over variates.

A mask over tokens is those two and nothing else. Spelled out it grows with the square of the
variates, so it is spelled out for a pass, and kept only where it is small beside keys and values.

Shapes: B batch, N patches of queries, S patches of keys, C variates, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from speculation.caching import later_patches

# What is kept may be this many times as large as the keys and values of one sample,
CACHES_WORTH = 2
# or this large, which nobody misses.
ALWAYS_KEPT = 2**20


def variate_bias(bias_2H: Tensor, variates: int) -> Tensor:
    """[H, C, C]: `bias_2H[1]` within a variate, `bias_2H[0]` between two."""
    same_CC = torch.eye(variates, dtype=torch.bool, device=bias_2H.device)
    return torch.where(same_CC, bias_2H[1, :, None, None], bias_2H[0, :, None, None])


def spelled_out(bias_2H: Tensor, unseen_BNS: Tensor, variates: int) -> Tensor:
    """The additive mask over tokens [1 or B, H, N * C, S * C]: the bias, and -inf on the unseen."""
    bias_HCC = variate_bias(bias_2H, variates)
    mask = bias_HCC[:, None, :, None].masked_fill(
        unseen_BNS[:, None, :, None, :, None], float("-inf")
    )
    return mask.flatten(4, 5).flatten(2, 3)


class SquareMasks:
    """The causal masks of a model's blocks, where they are small enough to keep.

    A pass whose samples stand alike sees a corner of one square: its queries are the square's last
    rows, its keys the square's last columns, wherever in the window it stands.
    """

    def __init__(self, biases_2H: Sequence[Tensor], *, head_width: int) -> None:
        self.biases_2H, self.head_width = list(biases_2H), head_width
        self.patches = self.variates = 0
        self.masks_1HLL: list[Tensor] = []

    def grow(self, patches: int, variates: int) -> bool:
        """Whether the squares were made anew, to hold so many patches of so many variates."""
        if variates == self.variates and patches <= self.patches:
            return False
        if not self._fit(patches, variates):
            return False
        unseen_1NN = later_patches(0, patches, patches, device=self.biases_2H[0].device)
        self.masks_1HLL = [spelled_out(bias, unseen_1NN, variates) for bias in self.biases_2H]
        self.patches, self.variates = patches, variates
        return True

    def corners(self, queries: int, keys: int, variates: int) -> list[Tensor] | None:
        """Each block's mask [1, H, L, S] of a pass, a view; None where it is not kept."""
        if variates != self.variates or keys > self.patches:
            return None
        return [mask[:, :, -queries * variates :, -keys * variates :] for mask in self.masks_1HLL]

    def _fit(self, patches: int, variates: int) -> bool:
        """Whether squares that large are worth keeping."""
        heads, tokens = self.biases_2H[0].shape[1], patches * variates
        of_a_key = len(self.biases_2H) * heads * tokens * self.biases_2H[0].element_size()
        cache = 2 * self.head_width * of_a_key
        return tokens * of_a_key <= max(ALWAYS_KEPT, CACHES_WORTH * cache)


class Kept:
    """Tensors made once, as long as all of them together stay below a number of bytes."""

    def __init__(self) -> None:
        self.tensors: dict[Hashable, Tensor] = {}
        self.num_bytes = 0

    def get(self, key: Hashable, make: Callable[[], Tensor], *, at_most: int) -> Tensor:
        """The tensor of a key: kept, or made now, and kept if that leaves at most so many bytes."""
        if key in self.tensors:
            return self.tensors[key]
        made = make()
        if self.num_bytes + made.nbytes <= max(ALWAYS_KEPT, at_most):
            self.tensors[key] = made
            self.num_bytes += made.nbytes
        return made
