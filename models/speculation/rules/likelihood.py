"""What the rules that compare likelihoods have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speculation.rules.acceptance import Round


def log_ratio(of: Round) -> Tensor:
    """How much likelier the target finds each step of the proposals, [B, K, C, P]."""
    return of.verified.log_density(of.proposal_BKCP) - of.draft.log_density(of.proposal_BKCP)


def by_lot(ratio: Tensor, of: Round, *, bias: float = 1.0) -> Tensor:
    """What is accepted with the probability `bias` times the ratio, of which `ratio` is the log."""
    uniform = torch.rand(
        ratio.shape, generator=of.generator, dtype=ratio.dtype, device=ratio.device
    )
    return uniform.log() <= ratio + math.log(bias)
