"""The architecture of a Timer, and what derives a draft from a target: `scaled`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speculation.errors import InvalidInput
from speculation.normalisation import Normalisation
from speculation.policy import PolicyKind
from speculation.scaling import Stack

# THUML's code divides by a deviation of zero where a window is constant. Below this, in units of
# standardised data, a deviation is taken for this: what follows a constant is then that constant.
DEVIATION_FLOOR = 1e-6


@dataclass(frozen=True)
class TimerConfig(Stack):
    """The architecture of one Timer (Liu et al., ICML 2024, arXiv 2402.02368).

    By default that of THUML's public checkpoint `timer-base-84m`, with the look-back of its
    pretraining. It is univariate: variates are forecast one by one.

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field
    family: ClassVar[str] = "timer"
    units: ClassVar[str] = "unbiased deviation"
    variance: ClassVar[bool] = False
    policies: ClassVar[tuple[PolicyKind, ...]] = ("deployed", "growing", "sliding", "cached")

    patch: int = 96
    """time steps per patch, at least 2, as each has a deviation of its own"""
    context: int = 2880
    """time steps of look-back; a multiple of `patch`"""
    d_model: int = 1024
    """width of a token"""
    n_heads: int = 8
    """attention heads; d_model / n_heads is a multiple of 2, as its halves are rotated"""
    d_ff: int = 2048
    """width of the feed-forward layer"""
    n_layers: int = 8
    """number of blocks"""
    rope_theta: float = 10_000.0
    """base of the rotary positions' wavelengths, above 0"""
    dropout: float = 0.0
    """dropout while training, 0..1"""
    patches_out: int = 1
    """patches that one pass emits after each position; more than one makes a one-pass draft"""

    def __post_init__(self) -> None:
        self.check_sizes(head_multiple=2, least_patch=2)
        if not self.rope_theta > 0:
            raise InvalidInput(f"rope_theta is {self.rope_theta}: it must be above 0")

    def normalisation(self, window_BNCP: Tensor) -> Normalisation:
        """A window's own mean and unbiased deviation, as THUML's code has them: no epsilon.

        A deviation below `DEVIATION_FLOOR` is taken for that.
        """
        variance, mean = torch.var_mean(window_BNCP, dim=(1, 3), correction=1, keepdim=True)
        return Normalisation(mean, torch.sqrt(variance).clamp_min(DEVIATION_FLOOR))

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, by arithmetic alone (no model is built)."""
        d = self.d_model
        attention = 4 * d * d + 3 * d
        feed_forward = 3 * d * self.d_ff
        norms = 2 * 2 * d
        block = attention + feed_forward + norms
        return self.patch * d + self.n_layers * block + 2 * d + d * self.patches_out * self.patch
