"""What the rules that compare likelihoods have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speculation.rules.acceptance import Round

NO_DISTANCE = 1e-6
"""Deviations between two means that are taken for the same."""


def log_ratio(of: Round) -> Tensor:
    """How much likelier the target finds each step of the proposals, [B, K, C, P]."""
    return of.verified.log_density(of.proposal_BKCP) - of.draft.log_density(of.proposal_BKCP)


def by_lot(ratio: Tensor, of: Round, *, bias: float = 1.0) -> Tensor:
    """What is accepted with the probability `bias` times the ratio, of which `ratio` is the log."""
    uniform = torch.rand(
        ratio.shape, generator=of.generator, dtype=ratio.dtype, device=ratio.device
    )
    return uniform.log() <= ratio + math.log(bias)


def sample_probability(
    mse: Tensor,
    *,
    dimensions: int,
    sigma: float,
    bias: float = 1.0,
    mse_tol: float | None = None,
) -> Tensor:
    """How probably a sample of the draft is accepted, both variances being equal.

    With D the distance between the means in deviations and z the noise along it, the log-ratio is
    -D (z + D / 2) and the squared distance to the target's mean is (D + z)^2 plus a chi-square of
    the other dimensions; the two events are independent given z, which is integrated. Without a
    tolerance those are two tails of the normal distribution, with bias 1 alike: 2 Phi(-D / 2).
    """
    if mse_tol is None:
        apart = ((mse.double() * dimensions).sqrt() / sigma).clamp_min(NO_DISTANCE)
        shift, half = math.log(bias) / apart, apart / 2
        tails = [torch.special.ndtr(x) for x in (shift - half, -shift - half)]
        return (tails[0] + bias * tails[1]).clamp_max(1.0).to(mse.dtype)
    z = torch.linspace(-8, 8, 801, dtype=torch.float64, device=mse.device)
    weight = torch.exp(-0.5 * z.square())
    weight = weight / weight.sum()
    distance = (mse.double() * dimensions).sqrt()[..., None] / sigma
    by_ratio = torch.exp(math.log(bias) - distance * (z + distance / 2)).clamp_max(1.0)
    left = dimensions * mse_tol / sigma**2 - (distance + z).square()
    if others := dimensions - 1:
        half_freedom = torch.full_like(left, others / 2)
        by_tolerance = torch.special.gammainc(half_freedom, left.clamp_min(0) / 2)
    else:
        by_tolerance = (left >= 0).to(left.dtype)
    accepted = 1 - (1 - by_ratio) * (1 - by_tolerance)
    return (accepted * weight).sum(-1).to(mse.dtype)
