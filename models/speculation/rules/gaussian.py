"""Rule `gaussian`: a proposal is kept as often as the target finds it likely, with leniency.

Leviathan et al., arXiv 2211.17192, algorithm 1, on densities; a sample that is rejected is drawn
anew from the target as in the study that this project grew from, which biases the output toward
the draft (rule `lossless` does not).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from speculation.distribution import Normal, Outlook
from speculation.rules.acceptance import Needs, Pair, Round, followed_by_the_targets
from speculation.rules.by_variate import ByVariate
from speculation.rules.fields import Range
from speculation.rules.likelihood import by_lot, log_ratio
from speculation.rules.samples import sample_probability
from speculation.rules.tolerance import distance


def _emit_beside(propose: str, emit: str) -> str | None:
    if propose == "mean" or emit == "draft":
        return None
    return "is 'target': accepted samples are the draft's; set it to 'draft'"


@dataclass(frozen=True, kw_only=True)
class Gaussian(ByVariate):
    """The draft's mean or sample is accepted by its likelihood ratio, or within a distance."""

    pairs: ClassVar[tuple[Pair, ...]] = (*ByVariate.pairs, Pair("propose", "emit", _emit_beside))

    rule: Literal["gaussian"] = "gaussian"
    sigma: Annotated[float, Range(above=0)]
    """deviation of draft and target around their means, in the target's units, above 0; of a model
    with a variance head it is the head's own"""
    bias: Annotated[float, Range(above=0)]
    """factor on the likelihood ratio, above 0; above 1 is lenient"""
    mse_tol: Annotated[float | None, Range(at_least=0)] = None
    """accepted too where the mean squared distance to the target's mean is at most this, in
    the target's squared units, at least 0; null for nowhere"""
    propose: Literal["mean", "sample"] = "mean"
    """whether the draft proposes its mean or a sample of its distribution"""

    @property
    def needs(self) -> Needs:
        """Deviations, and where a sample is proposed draws."""
        return "samples" if self.propose == "sample" else "deviations"

    def normal(self, outlook: Outlook) -> Normal:
        """With the model's own deviation where it has one."""
        return outlook.normal(self.sigma)

    def accepts_each(self, of: Round) -> Tensor:
        """By lot, as the likelihood ratio and the bias say, or within the tolerance."""
        ratio = self._log_ratio(of)
        if self.mse_tol is None:
            return by_lot(ratio, of, bias=self.bias)
        within = distance(of, self.judged_over) <= self.mse_tol
        return within | by_lot(ratio, of, bias=self.bias)

    def _log_ratio(self, of: Round) -> Tensor:
        """How much likelier the target finds each proposal.

        A sum over the hundreds of steps of a patch is never near zero, so a proposed mean is
        judged by the average step; a proposed sample by the true ratio.
        """
        if self.propose == "sample":
            return log_ratio(of).sum(self.judged_over)
        if of.same_deviation:
            # The draft's own mean is where its density is highest: all else cancels.
            apart = (of.proposal_BKCP - of.verified.mean) / of.verified.deviation
            return -0.5 * apart.square().mean(self.judged_over)
        return log_ratio(of).mean(self.judged_over)

    def emits(self, of: Round, alike_BK: Tensor, kept_BK: Tensor) -> Tensor:
        """Means as of every rule on means; of samples what is kept, and draws of the target."""
        if self.propose == "mean":
            return super().emits(of, alike_BK, kept_BK)
        return followed_by_the_targets(of, of.verified.sample(of.generator), kept_BK)

    def chance(self, mse: Tensor, *, dimensions: int) -> Tensor:
        """Of a mean as of its average step; of a sample as in `rules.samples`."""
        if self.propose == "sample":
            return sample_probability(
                mse,
                dimensions=dimensions,
                sigma=self.sigma,
                bias=self.bias,
                mse_tol=self.mse_tol,
            )
        by_ratio = torch.exp(math.log(self.bias) - mse / (2 * self.sigma**2)).clamp_max(1.0)
        if self.mse_tol is None:
            return by_ratio
        return torch.maximum((mse <= self.mse_tol).to(mse.dtype), by_ratio)
