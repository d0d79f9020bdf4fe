"""The architecture of a Timer, and what derives a draft from a target: `scaled`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speculation.errors import InvalidInput
from speculation.normalisation import Normalisation
from speculation.policy import PolicyKind
from speculation.scaling import Sizes, scaled_sizes

# THUML's code divides by a deviation of zero where a window is constant. Below this, in units of
# standardised data, a deviation is taken for this: what follows a constant is then that constant.
DEVIATION_FLOOR = 1e-6


@dataclass(frozen=True)
class TimerConfig:
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
        for name in ("context", "d_model", "n_heads", "d_ff", "n_layers", "patches_out"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.patch < 2:
            raise InvalidInput(f"patch is {self.patch}: it must be at least 2")
        if self.context % self.patch:
            nearest = max(1, round(self.context / self.patch)) * self.patch
            raise InvalidInput(
                f"patch is {self.patch}, which does not divide context {self.context}: "
                f"a context of {nearest} would do"
            )
        if self.d_model % self.n_heads or self.head_width % 2:
            raise InvalidInput(
                f"d_model is {self.d_model} with n_heads {self.n_heads}: "
                f"d_model must be a multiple of {2 * self.n_heads} (heads of an even width)"
            )
        if not self.rope_theta > 0:
            raise InvalidInput(f"rope_theta is {self.rope_theta}: it must be above 0")
        if not 0 <= self.dropout < 1:
            raise InvalidInput(f"dropout is {self.dropout}: it must be at least 0 and below 1")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def context_patches(self) -> int:
        """Patches in one context window."""
        return self.context // self.patch

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

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> TimerConfig:
        """The effective draft architecture at `scale` of this target.

        d_model, n_heads, d_ff and n_layers are scaled together, or layers by `depth` and the
        other three by `width`.

        Args:
            scale: requested factor, in (0, 1], of what no other factor is given for.
            patches_out: patches that the draft emits in one pass.
            variance: whether a log-variance is asked for, which a Timer does not have.
            depth: requested factor of n_layers alone, in (0, 1].
            width: requested factor of d_model, n_heads and d_ff alone, in (0, 1].

        Raises:
            InvalidInput: a factor is out of its range, leaves no layer, or nothing within 15 % of
                the requested width can be built; or a variance is asked for.
        """
        if variance:
            raise InvalidInput("variance is true: a Timer has no such head; leave it out")
        sizes = scaled_sizes(
            Sizes(self.d_model, self.n_heads, self.d_ff, self.n_layers),
            scale,
            depth=depth,
            width=width,
        )
        return dataclasses.replace(self, **sizes._asdict(), patches_out=patches_out)
