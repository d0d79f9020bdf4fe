"""The architecture of a Timer-XL, and what derives a draft from a target: `scaled`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from speculation.errors import InvalidInput
from speculation.normalisation import Normalisation
from speculation.policy import PolicyKind
from speculation.scaling import Stack

_CHOICES = {"activation": ("relu", "gelu"), "positions": ("time", "flattened")}


@dataclass(frozen=True)
class TimerXLConfig(Stack):
    """The architecture of one Timer-XL (Liu et al., ICLR 2025, arXiv 2410.04803).

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field
    family: ClassVar[str] = "timer_xl"
    policies: ClassVar[tuple[PolicyKind, ...]] = ("sliding", "cached")

    patch: int = 96
    """time steps per patch"""
    context: int = 672
    """time steps of look-back; a multiple of `patch`"""
    d_model: int = 512
    """width of a token"""
    n_heads: int = 8
    """attention heads; d_model / n_heads is a multiple of 4, as half of it is rotated in pairs"""
    d_ff: int = 2048
    """width of the feed-forward layer"""
    n_layers: int = 1
    """number of TimeAttention blocks"""
    dropout: float = 0.1
    """dropout while training, 0..1"""
    activation: Literal["relu", "gelu"] = "relu"
    """of the feed-forward layer"""
    patches_out: int = 1
    """patches that one pass emits after each position; more than one makes a one-pass draft"""
    variance: bool = False
    """whether a second head gives a log-variance beside the mean"""
    positions: Literal["time", "flattened"] = "time"
    """rotary position of a token: its patch in time, or its index in the variate-major sequence
    (as OpenLTM's code has it, which ties it to one window length)"""
    revin: bool = True
    """whether each window is normalised by its own mean and deviation; a model without it reads
    and answers in the units of the data as they are given"""

    def __post_init__(self) -> None:
        self.check_sizes(head_multiple=4)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)!r}: one of {', '.join(known)} would do"
                )

    @property
    def units(self) -> str:
        """Those of each window, or of the data as they are given."""
        return "revin" if self.revin else "data"

    def normalisation(self, window_BNCP: Tensor) -> Normalisation:
        """The units in which it reads what begins with that window."""
        return Normalisation.of(window_BNCP, revin=self.revin)

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, by arithmetic alone (no model is built)."""
        d, heads_out = self.d_model, self.patches_out * self.patch * (2 if self.variance else 1)
        attention = 4 * d * (d + 1) + 2 * self.n_heads
        feed_forward = 2 * d * self.d_ff + self.d_ff + d
        norms = 2 * 2 * d
        block = attention + feed_forward + norms
        return (self.patch + 1) * d + self.n_layers * block + 2 * d + (d + 1) * heads_out
