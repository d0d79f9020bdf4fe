"""What a step of a forecast reads, and in which units: the context policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from speculation.errors import InvalidInput


@dataclass(frozen=True)
class ContextPolicy:
    """What a step reads, and in which units."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field

    kind: Literal["sliding", "cached"] = "sliding"
    """`sliding`: each step re-normalises and re-encodes the last context window (Timer-XL's
    protocol). `cached`: statistics are fixed and keys and values kept from an anchor on"""
    renorm_every: int = 0
    """`cached` only: patches after which the window is anchored anew; 0 for never"""

    def __post_init__(self) -> None:
        if self.kind not in ("sliding", "cached"):
            raise InvalidInput(f"context policy is {self.kind!r}: 'sliding' or 'cached' would do")
        if self.kind == "sliding" and self.renorm_every:
            raise InvalidInput(
                f"renorm_every is {self.renorm_every}: 'sliding' renormalises at every patch; set 0"
            )
        if self.renorm_every < 0 or self.renorm_every == 1:
            raise InvalidInput(
                f"renorm_every is {self.renorm_every}: 0 (never) or at least 2; to renormalise at "
                "every patch use 'sliding'"
            )
