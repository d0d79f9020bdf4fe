"""Windows of context and forecast over a split: where they start, and batches of them.

    windows = dataset.windows("train", context=672, horizon=96)
    x_BLC = windows.batch(torch.randint(len(windows), (32,)))

Shapes: B batch, T rows (time steps) of a data set, L time steps of a window, C variates, V variates
drawn, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Windows of context and forecast over one split; they share the data set's values."""

    values_TC: Tensor
    """standardised; memory-mapped"""
    starts_W: Tensor
    """int64, first row of each window"""
    length: int
    """context + horizon"""

    def __len__(self) -> int:
        return len(self.starts_W)

    def batch(self, index_B: Tensor, *, variates: Tensor | None = None) -> Tensor:
        """Windows [B, L, C] in the order of the index.

        With `variates`, int64 [B, V], each window keeps only the variates drawn for it: [B, L, V].
        """
        return self._rows(self.values_TC, index_B, variates=variates)

    def _rows(self, values_TC: Tensor, index_B: Tensor, *, variates: Tensor | None) -> Tensor:
        steps_L = torch.arange(self.length, device=self.starts_W.device)
        rows_BL = self.starts_W[index_B][:, None] + steps_L
        if variates is None:
            # Not values_TC[rows_BL]: 12 ms instead of 0.06 ms on a CPU for 32 windows of 768 x 24.
            return values_TC.index_select(0, rows_BL.flatten()).unflatten(0, rows_BL.shape)
        return values_TC[rows_BL[:, :, None], variates[:, None, :]]
