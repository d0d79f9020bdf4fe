"""Which of the draft's patches the target keeps: the rules, and their closed forms.

    verdict = judge(rule, proposal, draft=draft, target=target, unit=unit, limit=limit)

A rule sees the draft's K proposals and the target's prediction after each prefix of them, and
answers how many of them to keep, and what to emit in their place. Tensors in, tensors out; nothing
waits for the device (but for `lossless` with unequal variances, see `_residual`).

Shapes: B batch, K proposals, M = K + 1 target predictions, C variates, P patch length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from speculation.distribution import Gaussian
from speculation.errors import InvalidInput

# A rejection that this many draws do not resolve had a probability far below one in a hundred.
RESIDUAL_DRAWS = 1_000

_CHOICES = {
    "propose": ("mean", "sample"),
    "emit": ("target", "draft"),
    "scope": ("joint", "variate"),
}


@dataclass(frozen=True)
class Acceptance:
    """One acceptance rule with its parameters; distances are in RevIN units.

    A parameter that has no effect under the rule stays None: setting it is an error.

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field

    rule: Literal["tolerance", "gaussian", "lossless"] = "tolerance"
    """`tolerance`: distance to the target's mean; `gaussian`: likelihood ratio with leniency;
    `lossless`: output distributed exactly as the target's own samples"""
    lookahead: int = 4
    """patches K that the draft proposes in a round, at most"""
    adapt: bool = False
    """whether each round's lookahead is chosen by cost and each sample's acceptance so far"""
    mse_tol: float | None = None
    """accepted where the mean squared distance to the target's mean is at most this"""
    sigma: float | None = None
    """deviation of draft and target around their means, where a model has no variance head"""
    bias: float | None = None
    """factor on the likelihood ratio; above 1 is lenient"""
    propose: Literal["mean", "sample"] = "mean"
    """whether the draft proposes its mean or a sample of its distribution"""
    emit: Literal["target", "draft"] = "target"
    """what an accepted patch becomes: the target's own verified mean, or the draft's patch"""
    scope: Literal["joint", "variate"] = "joint"
    """whether all variates of a patch are judged together, or each on its own"""
    quorum: float | None = None
    """under scope `variate`: fraction of the variates that must accept"""
    forced: float | None = None
    """accept each proposal with this probability, whatever the rule says: to measure decoding
    apart from any draft's quality"""

    def __post_init__(self) -> None:
        needed = {"tolerance": {"mse_tol"}, "gaussian": {"sigma", "bias"}, "lossless": {"sigma"}}
        allowed = {**needed, "gaussian": {"sigma", "bias", "mse_tol"}}
        if self.rule not in needed:
            raise InvalidInput(f"rule is {self.rule!r}: one of {', '.join(needed)} would do")
        for name in ("mse_tol", "sigma", "bias"):
            value = getattr(self, name)
            if value is None and name in needed[self.rule]:
                raise InvalidInput(f"{name} is missing: rule '{self.rule}' needs it")
            if value is not None and name not in allowed[self.rule]:
                raise InvalidInput(f"{name} is {value}: it has no effect under rule '{self.rule}'")
            if value is not None and (not math.isfinite(value) or value < 0):
                raise InvalidInput(f"{name} is {value}: it must be a finite number of at least 0")
        if self.sigma == 0 or self.bias == 0:
            raise InvalidInput("sigma and bias must be above 0")
        if self.forced is not None and not 0 <= self.forced <= 1:
            raise InvalidInput(f"forced is {self.forced}: it must be from 0 to 1")
        if self.lookahead < 1:
            raise InvalidInput(f"lookahead is {self.lookahead}: it must be at least 1")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)!r}: one of {', '.join(known)} would do"
                )
        self._check_modes()

    def _check_modes(self) -> None:
        if self.rule == "lossless" and self.propose != "sample":
            raise InvalidInput("propose is 'mean': rule 'lossless' samples; set it to 'sample'")
        if self.rule == "tolerance" and self.propose != "mean":
            raise InvalidInput("propose is 'sample': rule 'tolerance' compares means")
        if self.propose == "sample" and self.emit != "draft":
            raise InvalidInput(
                "emit is 'target': accepted samples are the draft's; set it to 'draft'"
            )
        if self.rule == "lossless" and self.scope != "joint":
            raise InvalidInput("scope is 'variate': it has no effect under rule 'lossless'")
        if (self.quorum is not None) != (self.scope == "variate"):
            raise InvalidInput(
                f"quorum is {self.quorum}: it goes with scope 'variate', and only there"
            )
        if self.quorum is not None and not 0 < self.quorum <= 1:
            raise InvalidInput(f"quorum is {self.quorum}: it must be above 0 and at most 1")


class Verdict(NamedTuple):
    """What a round keeps."""

    accepted_B: Tensor
    """int64, proposals kept: the longest accepted prefix"""
    emitted_BMCP: Tensor
    """of which the first accepted + 1 patches are the round's"""


def judge(
    rule: Acceptance,
    proposal_BKCP: Tensor,
    *,
    draft: Gaussian,
    target: Gaussian,
    unit_BMC1: Tensor,
    limit_B: Tensor,
    same_deviation: bool = False,
    generator: torch.Generator | None = None,
) -> Verdict:
    """How many proposals of each sample are kept, and the patches to emit.

    Args:
        rule: the acceptance rule.
        proposal_BKCP: what the draft proposed.
        draft: the distribution that it proposed from, [B, K, C, P].
        target: the target's after each prefix, [B, K + 1, C, P].
        unit_BMC1: length of one RevIN unit at each target position.
        limit_B: proposals that may be kept, per sample (horizon, anchor, own lookahead).
        same_deviation: the two distributions are known to differ in their means alone.
        generator: source of randomness of the rules that draw.
    """
    proposals = proposal_BKCP.shape[1]
    verified = target.part(slice(proposals))
    ratio_BKC = _log_ratio(rule, proposal_BKCP, draft, verified, same_deviation=same_deviation)
    alike_BK = _alike(rule, proposal_BKCP, verified, unit_BMC1, ratio_BKC, generator)
    tested_BK = torch.arange(proposals, device=limit_B.device) < limit_B[:, None]
    kept_BK = (alike_BK & tested_BK).cumprod(dim=1).bool()
    if rule.propose == "mean":
        emitted = target.mean
        if rule.emit == "draft":
            emitted = emitted.clone()
            emitted[:, :proposals] = torch.where(
                kept_BK[..., None, None], proposal_BKCP, target.mean[:, :proposals]
            )
        return Verdict(kept_BK.sum(1), emitted)
    # The coupling's output follows the target whether or not the position counts as proposed, so
    # for `lossless` it serves beyond a sample's own limit too.
    kept_or_alike = alike_BK if rule.rule == "lossless" else kept_BK
    if rule.rule == "gaussian":
        # Drawn anew from the target, as in the original study: biased toward the draft, which
        # `lossless` is not.
        replacement = verified.sample(generator)
    elif same_deviation:
        replacement = _reflection(proposal_BKCP, draft, verified)
    else:
        replacement = _residual(draft, verified, alike_BK, generator)
    emitted = torch.cat(
        (
            torch.where(kept_or_alike[..., None, None], proposal_BKCP, replacement),
            target.part(slice(proposals, None)).sample(generator),
        ),
        dim=1,
    )
    return Verdict(kept_BK.sum(1), emitted)


def _alike(
    rule: Acceptance,
    proposal: Tensor,
    target: Gaussian,
    unit_BMC1: Tensor,
    log_ratio: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Whether each proposal alone would be accepted, bool [B, K]."""
    if rule.forced is not None:
        shape, device = proposal.shape[:2], proposal.device
        return torch.rand(shape, generator=generator, device=device) < rule.forced
    alike = torch.zeros((), dtype=torch.bool, device=proposal.device)
    if rule.mse_tol is not None:
        unit_BKC1 = unit_BMC1[:, : proposal.shape[1]]
        distance = ((proposal - target.mean) / unit_BKC1).square().mean(_judged_over(rule))
        alike = distance <= rule.mse_tol
    if log_ratio is not None:
        uniform = torch.rand(
            log_ratio.shape, generator=generator, dtype=log_ratio.dtype, device=log_ratio.device
        )
        alike = alike | (uniform.log() <= log_ratio + math.log(rule.bias or 1.0))
    if rule.scope == "joint":
        return alike
    # The small slack keeps a quorum of 1/3 of 3 variates at 1 in floating point.
    return alike.double().mean(2) >= (rule.quorum or 1.0) - 1e-9


def _log_ratio(
    rule: Acceptance, proposal: Tensor, draft: Gaussian, target: Gaussian, *, same_deviation: bool
) -> Tensor | None:
    """How much likelier the target finds each proposal, [B, K] or with scope `variate` [B, K, C].

    A sum over the hundreds of steps of a patch is never near zero, so a proposed mean is judged by
    the average step; a proposed sample by the true ratio. None where the rule does not ask.
    """
    if rule.forced is not None or rule.rule == "tolerance":
        return None
    over = _judged_over(rule)
    if rule.propose == "mean" and same_deviation:
        # The draft's own mean is where its density is highest: all else cancels.
        return -0.5 * ((proposal - target.mean) / target.deviation).square().mean(over)
    ratio = target.log_density(proposal) - draft.log_density(proposal)
    return ratio.mean(over) if rule.propose == "mean" else ratio.sum(over)


def _judged_over(rule: Acceptance) -> tuple[int, ...]:
    """The dimensions of a proposal [B, K, C, P] that are judged together."""
    return (2, 3) if rule.scope == "joint" else (3,)


def _reflection(proposal: Tensor, draft: Gaussian, target: Gaussian) -> Tensor:
    """The draft's noise mirrored at the hyperplane that bisects the two means, round the target's.

    With equal variances the pair is maximally coupled and the result is the target's own
    distribution (Bou-Rabee, Eberle and Zimmer 2020; De Bortoli et al. 2025, arXiv 2501.05370).
    """
    noise = (proposal - draft.mean) / draft.deviation
    apart = (draft.mean - target.mean) / draft.deviation
    squared = apart.square().sum((2, 3), keepdim=True).clamp_min(1e-30)
    along = (noise * apart).sum((2, 3), keepdim=True) / squared
    return target.mean + target.deviation * (noise - 2 * along * apart)


def _residual(
    draft: Gaussian, target: Gaussian, alike_BK: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draws of the residual max(0, p - q), by drawing from the target until one is kept.

    Exact for any two distributions. The number of draws is geometric with the rejection's own
    probability, so the loop has to ask whether everyone has one: the only wait for the device.
    Distributions that differ by rounding alone would have it wait for ever: after so many draws
    the target's own is taken, which those rejections are too rare to bias.
    """
    drawn = target.sample(generator)
    pending_BK = ~alike_BK
    for _ in range(RESIDUAL_DRAWS):
        if not bool(pending_BK.any()):
            break
        candidate = target.sample(generator)
        log_ratio = (draft.log_density(candidate) - target.log_density(candidate)).sum((2, 3))
        uniform = torch.rand(log_ratio.shape, generator=generator, device=log_ratio.device)
        keep = pending_BK & (uniform >= log_ratio.exp())
        drawn = torch.where(keep[..., None, None], candidate, drawn)
        pending_BK = pending_BK & ~keep
    return drawn


def acceptance_probability(rule: Acceptance, mse: Tensor, *, dimensions: int) -> Tensor:
    """Probability that one proposal is accepted, in closed form, without decoding.

    For scope `joint` and equal variances. For a sample of the draft, with D the distance between
    the means in deviations and z the noise along it, the log-ratio is -D (z + D / 2) and the
    squared distance to the target's mean is (D + z)^2 plus a chi-square of the other dimensions;
    the two events are independent given z, which is integrated. With bias 1 and no tolerance this
    is 2 Phi(-D / 2).

    Args:
        rule: the acceptance rule.
        mse: mean squared distance of the draft's mean to the target's, RevIN units, any shape.
        dimensions: time steps times variates of one proposal.
    """
    if rule.forced is not None:
        return torch.full_like(mse, rule.forced)
    within = torch.zeros_like(mse) if rule.mse_tol is None else (mse <= rule.mse_tol).to(mse.dtype)
    if rule.rule == "tolerance":
        return within
    sigma, log_bias = rule.sigma or 1.0, math.log(rule.bias or 1.0)
    if rule.propose == "mean":
        return torch.maximum(within, torch.exp(log_bias - mse / (2 * sigma**2)).clamp_max(1.0))
    z = torch.linspace(-8, 8, 801, dtype=torch.float64, device=mse.device)
    weight = torch.exp(-0.5 * z.square())
    weight = weight / weight.sum()
    distance = (mse.double() * dimensions).sqrt()[..., None] / sigma
    by_ratio = torch.exp(log_bias - distance * (z + distance / 2)).clamp_max(1.0)
    by_tolerance = torch.zeros_like(by_ratio)
    if rule.mse_tol is not None:
        left = dimensions * rule.mse_tol / sigma**2 - (distance + z).square()
        if others := dimensions - 1:
            half_freedom = torch.full_like(left, others / 2)
            by_tolerance = torch.special.gammainc(half_freedom, left.clamp_min(0) / 2)
        else:
            by_tolerance = (left >= 0).to(left.dtype)
    accepted = 1 - (1 - by_ratio) * (1 - by_tolerance)
    return (accepted * weight).sum(-1).to(mse.dtype)
