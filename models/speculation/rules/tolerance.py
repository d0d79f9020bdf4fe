"""Rule `tolerance`: a proposal is kept where it is near enough to the target's mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from speculation.rules.acceptance import Needs, Round
from speculation.rules.by_variate import ByVariate
from speculation.rules.fields import Range


@dataclass(frozen=True, kw_only=True)
class Tolerance(ByVariate):
    """The draft's mean is accepted within a distance of the target's mean."""

    always: ClassVar[Mapping[str, str]] = {"propose": "mean"}

    rule: Literal["tolerance"] = "tolerance"
    mse_tol: Annotated[float, Range(at_least=0)]
    """largest mean squared distance to the target's mean, in its squared units, at least 0"""

    @property
    def needs(self) -> Needs:
        """Means alone."""
        return "means"

    def accepts_each(self, of: Round) -> Tensor:
        """Where the mean squared distance is within the tolerance."""
        return distance(of, self.judged_over) <= self.mse_tol

    def chance(self, mse: Tensor, *, dimensions: int) -> Tensor:
        """One or nothing: the rule draws no lots."""
        return (mse <= self.mse_tol).to(mse.dtype)


def distance(of: Round, over: tuple[int, ...]) -> Tensor:
    """Mean squared distance of the proposals to the target's means, in the target's units."""
    apart = (of.proposal_BKCP - of.verified.mean) / of.unit_BKC1
    return apart.square().mean(over)
