"""What a step of a forecast reads, and in which units: the context policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from speculation.errors import InvalidInput

PolicyKind = Literal["sliding", "cached", "deployed", "growing"]
"""Of which a family reads under some (`Architecture.policies`)."""


@dataclass(frozen=True)
class ContextPolicy:
    """What a step reads, and in which units."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field

    kind: PolicyKind = "sliding"
    """`sliding`: each step re-normalises and re-encodes the last context window (Timer-XL's
    protocol). `cached`: statistics are fixed and keys and values kept from an anchor on.
    `deployed`: keys and values are kept, the context is normalised once, and each patch after it by
    itself (Timer's `generate` with its cache). `growing`: each step re-normalises and re-encodes
    the context and all that came after it (that `generate` without its cache)"""
    renorm_every: int = 0
    """`cached` only: patches after which the window is anchored anew; 0 for never"""

    def __post_init__(self) -> None:
        if self.kind not in get_args(PolicyKind):
            raise InvalidInput(
                f"context policy is {self.kind!r}: one of {', '.join(get_args(PolicyKind))} "
                "would do"
            )
        if self.kind != "cached" and self.renorm_every:
            why = {
                "sliding": "'sliding' renormalises at every patch",
                "growing": "'growing' renormalises at every patch",
                "deployed": "'deployed' normalises each patch by itself",
            }
            raise InvalidInput(f"renorm_every is {self.renorm_every}: {why[self.kind]}; set 0")
        if self.renorm_every < 0 or self.renorm_every == 1:
            raise InvalidInput(
                f"renorm_every is {self.renorm_every}: 0 (never) or at least 2; to renormalise at "
                "every patch use 'sliding'"
            )

    @property
    def keeps(self) -> bool:
        """Whether what was read stays as it was read, in its units, until an anchor is due."""
        return self.kind in ("cached", "deployed")
