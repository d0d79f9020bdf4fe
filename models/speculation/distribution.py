"""What a model expects to follow: an outlook, and the normal distribution that it stands for.

Shapes: B batch, M prefixes, C variates, P patch length, D width of a hidden state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Normal(NamedTuple):
    """Independent normal distributions, one per time step."""

    mean: Tensor
    """[B, positions, C, P]"""
    deviation: Tensor
    """standard deviation, shaped as `mean`"""

    def part(self, positions: slice) -> Normal:
        """The distributions of some of the positions."""
        return Normal(self.mean[:, positions], self.deviation[:, positions])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, shaped as `mean`."""
        noise = torch.randn(
            self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )
        return self.mean + self.deviation * noise

    def log_density(self, x: Tensor) -> Tensor:
        """Log density per time step, up to the constant that all normals share."""
        return -0.5 * ((x - self.mean) / self.deviation).square() - self.deviation.log()


class Outlook(NamedTuple):
    """What a model expects after some prefixes of a history, in the data's units."""

    mean: Tensor
    """[B, M, C, P], or for a one-pass draft [B, patches_out, C, P] after its one prefix"""
    log_variance: Tensor | None
    """as `mean`, in the model's units"""
    unit: Tensor
    """[B, 1 or M, C, 1], the length of one of the target's units; 1 for a model without RevIN"""
    hidden: Tensor | None = None
    """[B, M, C, D], the model's last hidden state after each prefix, from which it read the mean;
    None of a family that shows none"""
    read_unit: Tensor | None = None
    """as `unit`, the length of the units in which that state was read, where distances are told in
    others; heads answer in it"""

    def normal(self, sigma: float = 1.0) -> Normal:
        """The distribution: the model's variance where it has one, `sigma` units elsewhere."""
        if self.log_variance is None:
            deviation = self.unit * sigma
        else:
            deviation = self.unit * torch.exp(0.5 * self.log_variance)
        return Normal(self.mean, deviation.expand_as(self.mean))
