"""Rule `lossless`: what is emitted is distributed exactly as the target's own samples.

With equal variances by reflection (Bou-Rabee, Eberle and Zimmer 2020; De Bortoli et al. 2025,
arXiv 2501.05370, algorithm 2), else by draws of the residual (Leviathan et al., arXiv 2211.17192,
appendix A.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from speculation.distribution import Normal, Outlook
from speculation.rules.acceptance import Acceptance, Needs, Round, followed_by_the_targets
from speculation.rules.fields import Range
from speculation.rules.likelihood import by_lot, log_ratio
from speculation.rules.samples import sample_probability

# A rejection that this many draws do not resolve had a probability far below one in a hundred.
RESIDUAL_DRAWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Lossless(Acceptance):
    """The draft's sample is accepted by its likelihood ratio, and else a coupled one is drawn."""

    always: ClassVar[Mapping[str, str]] = {"propose": "sample", "emit": "draft", "scope": "joint"}

    rule: Literal["lossless"] = "lossless"
    sigma: Annotated[float, Range(above=0)]
    """deviation of draft and target around their means, in the target's units, above 0; of a model
    with a variance head it is the head's own"""

    @property
    def needs(self) -> Needs:
        """Draws of either distribution."""
        return "samples"

    @property
    def emits_draft(self) -> bool:
        """An accepted sample is the draft's."""
        return True

    def normal(self, outlook: Outlook) -> Normal:
        """With the model's own deviation where it has one."""
        return outlook.normal(self.sigma)

    def accepts(self, of: Round) -> Tensor:
        """By lot, as the likelihood ratio says."""
        return by_lot(log_ratio(of).sum((2, 3)), of)

    def emits(self, of: Round, alike_BK: Tensor, kept_BK: Tensor) -> Tensor:
        """The coupling's output, which follows the target whether or not a place was tested.

        So it serves beyond a sample's own limit too.
        """
        replacement = _reflection(of) if of.same_deviation else _residual(of, alike_BK)
        return followed_by_the_targets(of, replacement, alike_BK)

    def chance(self, mse: Tensor, *, dimensions: int) -> Tensor:
        """Twice the normal tail at half the distance, as in `rules.samples`."""
        return sample_probability(mse, dimensions=dimensions, sigma=self.sigma)


def _reflection(of: Round) -> Tensor:
    """The draft's noise mirrored at the hyperplane that bisects the two means, round the target's.

    With equal variances the pair is maximally coupled and the result is the target's own
    distribution.
    """
    draft, target = of.draft, of.verified
    noise = (of.proposal_BKCP - draft.mean) / draft.deviation
    apart = (draft.mean - target.mean) / draft.deviation
    squared = apart.square().sum((2, 3), keepdim=True).clamp_min(1e-30)
    along = (noise * apart).sum((2, 3), keepdim=True) / squared
    return target.mean + target.deviation * (noise - 2 * along * apart)


def _residual(of: Round, alike_BK: Tensor) -> Tensor:
    """Draws of the residual max(0, p - q), by drawing from the target until one is kept.

    Exact for any two distributions. The number of draws is geometric with the rejection's own
    probability, so the loop has to ask whether everyone has one: the only wait for the device.
    Distributions that differ by rounding alone would have it wait for ever: after so many draws
    the target's own is taken, which those rejections are too rare to bias.
    """
    draft, target, generator = of.draft, of.verified, of.generator
    drawn = target.sample(generator)
    pending_BK = ~alike_BK
    for _ in range(RESIDUAL_DRAWS):
        if not bool(pending_BK.any()):
            break
        candidate = target.sample(generator)
        ratio = (draft.log_density(candidate) - target.log_density(candidate)).sum((2, 3))
        uniform = torch.rand(ratio.shape, generator=generator, device=ratio.device)
        keep = pending_BK & (uniform >= ratio.exp())
        drawn = torch.where(keep[..., None, None], candidate, drawn)
        pending_BK = pending_BK & ~keep
    return drawn
