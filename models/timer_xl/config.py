"""The architecture of a Timer-XL, and what derives a draft from a target: `scaled`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from speculation.errors import InvalidInput
from speculation.forecaster import check_factors
from speculation.normalisation import Normalisation

# A scaled width may miss the requested one by at most this fraction; beyond it the draft would
# not be the size that was asked for, and two very different scales would be one network.
WIDTH_SLACK = 0.15


_CHOICES = {"activation": ("relu", "gelu"), "positions": ("time", "flattened")}


@dataclass(frozen=True)
class TimerXLConfig:
    """The architecture of one Timer-XL (Liu et al., ICLR 2025, arXiv 2410.04803).

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field
    family: ClassVar[str] = "timer_xl"

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
        for name in ("patch", "context", "d_model", "n_heads", "d_ff", "n_layers", "patches_out"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.context % self.patch:
            nearest = max(1, round(self.context / self.patch)) * self.patch
            raise InvalidInput(
                f"patch is {self.patch}, which does not divide context {self.context}: "
                f"a context of {nearest} would do"
            )
        if self.d_model % self.n_heads or self.head_width % 4:
            raise InvalidInput(
                f"d_model is {self.d_model} with n_heads {self.n_heads}: "
                f"d_model must be a multiple of {4 * self.n_heads} (heads of a multiple of 4)"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)!r}: one of {', '.join(known)} would do"
                )
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

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> TimerXLConfig:
        """The effective draft architecture at `scale` of this target.

        d_model, n_heads, d_ff and n_layers are scaled together, or layers by `depth` and the
        other three by `width`.

        Args:
            scale: requested factor, in (0, 1], of what no other factor is given for.
            patches_out: patches that the draft emits in one pass.
            variance: whether the draft has a log-variance head.
            depth: requested factor of n_layers alone, in (0, 1].
            width: requested factor of d_model, n_heads and d_ff alone, in (0, 1].

        Raises:
            InvalidInput: a factor is out of its range, leaves no layer, or nothing within 15 % of
                the requested width can be built.
        """
        check_factors(scale=scale, depth=depth, width=width)
        named, factor = ("scale", scale) if width is None else ("width", width)
        n_heads, head_width = self._heads_at(factor, named=named)
        return dataclasses.replace(
            self,
            d_model=n_heads * head_width,
            n_heads=n_heads,
            d_ff=self.d_ff if factor == 1 else max(8, _nearest(self.d_ff * factor, multiple=8)),
            n_layers=self._layers_at(scale, depth=depth),
            patches_out=patches_out,
            variance=variance,
        )

    def _heads_at(self, factor: float, *, named: str) -> tuple[int, int]:
        """How many heads, and how wide each is, at a factor of this width.

        Among the head counts near the requested one, the pair (heads, head width) is taken whose
        width comes closest to the request; head widths are multiples of 4, and of 8 where that
        costs less than 1 %.
        """
        width, heads = self.d_model * factor, self.n_heads * factor
        candidates = [
            (count, multiple * 4)
            for count in range(max(1, math.floor(heads) - 1), math.ceil(heads) + 2)
            for multiple in range(1, self.d_model // 4 + 1)
        ]

        def distance(candidate: tuple[int, int]) -> float:
            count, head_width = candidate
            off_width = abs(count * head_width - width) / width
            off_heads = abs(count - heads) / heads
            return off_width + 0.1 * off_heads + (0.01 if head_width % 8 else 0.0)

        count, head_width = min(candidates, key=distance)
        d_model = count * head_width
        if abs(d_model - width) > WIDTH_SLACK * width:
            enough = _rounded_up(d_model / self.d_model)
            raise InvalidInput(
                f"{named} is {factor}: it asks for d_model {width:.1f}, and the nearest that can "
                f"be built is {d_model}; a {named} of {enough} would do"
            )
        return count, head_width

    def _layers_at(self, scale: float, *, depth: float | None) -> int:
        """The nearest number of layers: at any scale one is left, a depth has to ask for it."""
        layers = _nearest(self.n_layers * (scale if depth is None else depth), multiple=1)
        if depth is not None and layers < 1:
            enough = _rounded_up(0.5 / self.n_layers)
            raise InvalidInput(
                f"depth is {depth}: of n_layers {self.n_layers} it leaves less than half a layer, "
                f"and a draft has at least one; a depth of at least {enough} would do"
            )
        return max(1, layers)


def _rounded_up(factor: float) -> float:
    """`factor` with two significant digits, never below it."""
    digits = 1 - math.floor(math.log10(factor))
    return round(math.ceil(factor * 10**digits - 1e-9) / 10**digits, digits)


def _nearest(value: float, *, multiple: int) -> int:
    """The multiple nearest to `value`; halves go up (Python's own rounding sends 2.5 to 2)."""
    return math.floor(value / multiple + 0.5) * multiple
