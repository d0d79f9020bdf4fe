"""The units in which a model reads a window, and what it says in them.

A family says how it normalises a window (`Architecture.normalisation`); RevIN is one way to.

Shapes: B batch, N patches, C variates, P patch length, Q = patches_out * P,
D width of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

REVIN_EPSILON = 1e-5


class Prediction(NamedTuple):
    """What a pass emits after each of its positions: normalised, float32 or the weights' finer."""

    mean: Tensor
    """[B, N, C, Q]"""
    log_variance: Tensor | None
    """[B, N, C, Q], or None for a model without a variance head"""
    hidden: Tensor | None = None
    """[B, N, C, D], what the mean was read from: the output of the model's last norm, for heads
    (`speculation.heads`) to read; None of a family that shows none"""

    def through(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """Each of its parts, changed alike."""
        mean, log_variance, hidden = (None if x is None else change(x) for x in self)
        assert mean is not None
        return Prediction(mean, log_variance, hidden)


class Normalisation(NamedTuple):
    """Mean and deviation of a window, one of each per sample and variate."""

    mean: Tensor
    """[B, 1, C, 1]"""
    deviation: Tensor
    """[B, 1, C, 1]"""

    @classmethod
    def of(cls, window_BNCP: Tensor, *, revin: bool = True) -> Normalisation:
        """A window's own statistics (RevIN); the deviation is the population's, kept above zero.

        For a model without RevIN they are 0 and 1, whatever the window.
        """
        if not revin:
            zeros = torch.zeros_like(window_BNCP[:, :1, :, :1])
            return cls(zeros, torch.ones_like(zeros))
        variance, mean = torch.var_mean(window_BNCP, dim=(1, 3), correction=0, keepdim=True)
        return cls(mean, torch.sqrt(variance + REVIN_EPSILON))

    def apply(self, x_BNCP: Tensor) -> Tensor:
        """`x` in these units."""
        return (x_BNCP - self.mean) / self.deviation

    def invert(self, x_BNCP: Tensor) -> Tensor:
        """`x` in the data's units again."""
        return torch.addcmul(self.mean, x_BNCP, self.deviation)
