"""What the rules have in common that may judge each variate on its own.

Shapes: B batch, K proposals, C variates, P patch length.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from speculation.rules.acceptance import Acceptance, Pair, Round
from speculation.rules.fields import Range


def _quorum_beside(scope: str, quorum: float | None) -> str | None:
    if (quorum is None) == (scope == "joint"):
        return None
    return f"is {quorum}: it goes with scope 'variate', and only there"


@dataclass(frozen=True, kw_only=True)
class ByVariate(Acceptance):
    """A rule that judges all variates together or each on its own, and emits either's patch."""

    pairs: ClassVar[tuple[Pair, ...]] = (Pair("scope", "quorum", _quorum_beside),)

    emit: Literal["target", "draft"] = "target"
    """what an accepted patch becomes: the target's own verified mean, or the draft's patch"""
    scope: Literal["joint", "variate"] = "joint"
    """whether all variates of a patch are judged together, or each on its own"""
    quorum: Annotated[float | None, Range(above=0, at_most=1)] = None
    """under scope `variate`: fraction of the variates that must accept"""

    @property
    def emits_draft(self) -> bool:
        """Whether an accepted patch stays as the draft proposed it; else it is the target's."""
        return self.emit == "draft"

    @property
    def judged_over(self) -> tuple[int, ...]:
        """The dimensions of a proposal [B, K, C, P] that are judged together."""
        return (2, 3) if self.scope == "joint" else (3,)

    @abstractmethod
    def accepts_each(self, of: Round) -> Tensor:
        """What is judged together: bool [B, K], under scope `variate` [B, K, C]."""

    def accepts(self, of: Round) -> Tensor:
        """Whether each proposal alone would be accepted, bool [B, K]."""
        alike = self.accepts_each(of)
        if self.scope == "joint":
            return alike
        # The small slack keeps a quorum of 1/3 of 3 variates at 1 in floating point.
        return alike.double().mean(2) >= (self.quorum or 1.0) - 1e-9

    def emits(self, of: Round, alike_BK: Tensor, kept_BK: Tensor) -> Tensor:
        """The target's means, or under emit `draft` what is kept of the proposals."""
        emitted = of.target.mean
        if self.emit == "target":
            return emitted
        proposals = of.proposal_BKCP.shape[1]
        emitted = emitted.clone()
        emitted[:, :proposals] = torch.where(
            kept_BK[..., None, None], of.proposal_BKCP, of.verified.mean
        )
        return emitted

    def patch_probability(self, mse_C: Tensor, *, steps: int) -> Tensor:
        """Probability that a whole patch is accepted, in closed form, without decoding."""
        if self.scope == "joint" or self.forced is not None:
            return super().patch_probability(mse_C, steps=steps)
        each_C = self.probability(mse_C, dimensions=steps)
        return at_least(each_C, math.ceil((self.quorum or 1.0) * each_C.shape[-1] - 1e-9))


def at_least(each_C: Tensor, needed: int) -> Tensor:
    """Probability that at least `needed` of the independent variates accept."""
    counts = [torch.ones_like(each_C[..., 0])]  # by how many have accepted so far
    for p in each_C.unbind(-1):
        stay = [c * (1 - p) for c in counts] + [torch.zeros_like(p)]
        rise = [torch.zeros_like(p)] + [c * p for c in counts]
        counts = [a + b for a, b in zip(stay, rise, strict=True)]
    return torch.stack(counts[needed:]).sum(0)
