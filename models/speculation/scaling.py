"""What families of transformers share: their sizes, and those of a draft at a fraction of them.

    @dataclass(frozen=True)
    class TimerConfig(Stack): ...

sizes = scaled_sizes(Sizes(d_model=512, n_heads=8, d_ff=2048, n_layers=4), 0.5)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self

from speculation.errors import InvalidInput
from speculation.forecaster import check_factors

# A scaled width may miss the requested one by at most this fraction; beyond it the draft would
# not be the size that was asked for, and two very different scales would be one network.
WIDTH_SLACK = 0.15


class Sizes(NamedTuple):
    """What of a transformer is scaled."""

    d_model: int
    """width of a token"""
    n_heads: int
    """attention heads"""
    d_ff: int
    """width of the feed-forward layer"""
    n_layers: int


class Stack:
    """A stack of transformer blocks: what the architectures have in common whose fields these are.

    Meant as the base of a frozen dataclass.
    """

    family: ClassVar[str]
    patch: int
    context: int
    d_model: int
    n_heads: int
    d_ff: int
    n_layers: int
    dropout: float
    patches_out: int

    def check_sizes(self, *, head_multiple: int, least_patch: int = 1) -> None:
        """Nothing, where such a stack can be built.

        Args:
            head_multiple: what the width of a head is a multiple of.
            least_patch: time steps of the shortest patch.

        Raises:
            InvalidInput: names the field, its value and what would do.
        """
        least = {"patch": least_patch}
        for name in ("patch", "context", "d_model", "n_heads", "d_ff", "n_layers", "patches_out"):
            if getattr(self, name) < least.get(name, 1):
                raise InvalidInput(
                    f"{name} is {getattr(self, name)}: it must be at least {least.get(name, 1)}"
                )
        if self.context % self.patch:
            nearest = max(1, round(self.context / self.patch)) * self.patch
            raise InvalidInput(
                f"patch is {self.patch}, which does not divide context {self.context}: "
                f"a context of {nearest} would do"
            )
        if self.d_model % (head_multiple * self.n_heads):
            raise InvalidInput(
                f"d_model is {self.d_model} with n_heads {self.n_heads}: d_model must be a "
                f"multiple of {head_multiple * self.n_heads} (heads of a multiple of "
                f"{head_multiple})"
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

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> Self:
        """The effective draft architecture at `scale` of this target.

        d_model, n_heads, d_ff and n_layers are scaled together, or layers by `depth` and the
        other three by `width`.

        Args:
            scale: requested factor, in (0, 1], of what no other factor is given for.
            patches_out: patches that the draft emits in one pass.
            variance: whether the draft has a log-variance head, where its family has one.
            depth: requested factor of n_layers alone, in (0, 1].
            width: requested factor of d_model, n_heads and d_ff alone, in (0, 1].

        Raises:
            InvalidInput: a factor is out of its range, leaves no layer, or nothing within 15 % of
                the requested width can be built; or a variance is asked for that is not there.
        """
        own = Sizes(self.d_model, self.n_heads, self.d_ff, self.n_layers)
        changes: dict[str, Any] = scaled_sizes(own, scale, depth=depth, width=width)._asdict()
        if "variance" in {field.name for field in dataclasses.fields(self)}:  # type: ignore[arg-type]
            changes["variance"] = variance
        elif variance:
            raise InvalidInput(f"variance is true: a {self.family} has no such head; leave it out")
        return dataclasses.replace(self, **changes, patches_out=patches_out)  # type: ignore[type-var]


def scaled_sizes(
    target: Sizes, scale: float, *, depth: float | None = None, width: float | None = None
) -> Sizes:
    """A target's sizes, all at `scale`, or layers at `depth` and the other three at `width`.

    Raises:
        InvalidInput: a factor is outside (0, 1], leaves no layer, or nothing within 15 % of the
            requested width can be built.
    """
    check_factors(scale=scale, depth=depth, width=width)
    named, factor = ("scale", scale) if width is None else ("width", width)
    n_heads, head_width = _heads_at(target, factor, named=named)
    d_ff = target.d_ff if factor == 1 else max(8, _nearest(target.d_ff * factor, multiple=8))
    n_layers = _layers_at(target.n_layers, scale, depth=depth)
    return Sizes(n_heads * head_width, n_heads, d_ff, n_layers)


def _heads_at(target: Sizes, factor: float, *, named: str) -> tuple[int, int]:
    """How many heads, and how wide each is, at a factor of this width; at 1 those of the target.

    Among the head counts near the requested one, the pair (heads, head width) is taken whose
    width comes closest to the request; head widths are multiples of 4, and of 8 where that
    costs less than 1 %.
    """
    if factor == 1:
        return target.n_heads, target.d_model // target.n_heads
    width, heads = target.d_model * factor, target.n_heads * factor
    candidates = [
        (count, multiple * 4)
        for count in range(max(1, math.floor(heads) - 1), math.ceil(heads) + 2)
        for multiple in range(1, target.d_model // 4 + 1)
    ]

    def distance(candidate: tuple[int, int]) -> float:
        count, head_width = candidate
        off_width = abs(count * head_width - width) / width
        off_heads = abs(count - heads) / heads
        return off_width + 0.1 * off_heads + (0.01 if head_width % 8 else 0.0)

    count, head_width = min(candidates, key=distance)
    d_model = count * head_width
    if abs(d_model - width) > WIDTH_SLACK * width:
        enough = _rounded_up(d_model / target.d_model)
        raise InvalidInput(
            f"{named} is {factor}: it asks for d_model {width:.1f}, and the nearest that can "
            f"be built is {d_model}; a {named} of {enough} would do"
        )
    return count, head_width


def _layers_at(n_layers: int, scale: float, *, depth: float | None) -> int:
    """The nearest number of layers: at any scale one is left, a depth has to ask for it."""
    layers = _nearest(n_layers * (scale if depth is None else depth), multiple=1)
    if depth is not None and layers < 1:
        enough = _rounded_up(0.5 / n_layers)
        raise InvalidInput(
            f"depth is {depth}: of n_layers {n_layers} it leaves less than half a layer, "
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
