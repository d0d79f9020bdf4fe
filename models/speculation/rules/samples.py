"""How probably a sample of the draft is accepted, in closed form, both variances being equal.

    sample_probability(mse, dimensions=672, sigma=0.5, bias=0.7, mse_tol=0.4)

With D the distance between the means in deviations, z the noise along it and b the bias, the
log-ratio is log b - D (z + D / 2), and the squared distance to the target's mean is (D + z)^2 plus
the square of u, the length of the noise in the other dimensions, which follows a chi distribution.
By the ratio alone two tails of a normal distribution accept, with b = 1 alike: 2 Phi(-D / 2). A
tolerance accepts of the rest what lies within r = sqrt(most - u^2) along the line: for each u two
differences of such tails, and over u there remains one integral. Of one rule it is a function of D
alone, so it is taken at some hundred distances and interpolated between them.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import ndtr

NO_DISTANCE = 1e-6
"""Deviations between two means that are taken for the same."""
REACH = 7.0
"""Deviations beyond which noise is passed over: one in 10^11."""
PANELS = 64
"""Into which the integral over the lengths of the noise is divided."""
DISTANCES = 320
"""Distances at which a rule's curve is known, where the ratio decides and where the tolerance."""
CURVES = 1024
"""Rules whose curves are remembered: each is asked for again at every step of a course."""


def sample_probability(
    mse: Tensor,
    *,
    dimensions: int,
    sigma: float,
    bias: float = 1.0,
    mse_tol: float | None = None,
) -> Tensor:
    """Probability that a sample is accepted by its likelihood ratio, or within a tolerance.

    Args:
        mse: mean squared distance of the draft's mean to the target's, any shape.
        dimensions: over which that is a mean.
        sigma: deviation of either distribution.
        bias: factor on the ratio.
        mse_tol: largest mean squared distance of a sample to the target's mean; None for none.
    """
    distance = (mse.double() * dimensions).sqrt() / sigma
    if mse_tol is None:
        return _by_ratio(distance, bias).to(mse.dtype)
    most = dimensions * mse_tol / sigma**2
    return _curve(dimensions, bias, most).at(distance).to(mse.dtype)


def _by_ratio(distance: Tensor, bias: float) -> Tensor:
    """Probability of an acceptance by the ratio, at distances in deviations."""
    apart = distance.clamp_min(NO_DISTANCE)
    shift, half = math.log(bias) / apart, apart / 2
    return (ndtr(shift - half) + bias * ndtr(-shift - half)).clamp_max(1.0)


def _by_either(distance_N: Tensor, dimensions: int, bias: float, most: float) -> Tensor:
    """The same by the ratio or within a squared distance of `most`, in squared deviations."""
    along_U, weight_U = _room_along(dimensions, most)
    apart_N1 = distance_N.clamp_min(NO_DISTANCE)[:, None]
    refused_from_N1 = math.log(bias) / apart_N1 - apart_N1 / 2  # by the ratio, for each z
    low_NU = torch.maximum(refused_from_N1, -apart_N1 - along_U)
    high_NU = torch.maximum(along_U - apart_N1, low_NU)
    refused_NU = ndtr(high_NU) - ndtr(low_NU)
    # Upper tails: a large bias multiplies what is left of the rounding.
    refused_NU -= bias * (ndtr(-low_NU - apart_N1) - ndtr(-high_NU - apart_N1))
    return (_by_ratio(distance_N, bias) + refused_NU @ weight_U).clamp_max(1.0)


def _room_along(dimensions: int, most: float) -> tuple[Tensor, Tensor]:
    """What the other dimensions leave of a tolerance along the line, and how probably each.

    By Gauss's two points in each panel of the angle whose cosine is u / sqrt(most), in which r is
    smooth up to the ends.
    """
    radius, others = math.sqrt(most), dimensions - 1
    if not others:
        return torch.tensor([radius]).double(), torch.ones(1).double()
    shortest, longest = _lengths(others)
    if radius <= shortest:
        return torch.zeros(1).double(), torch.zeros(1).double()
    first, last = math.acos(min(1.0, longest / radius)), math.acos(shortest / radius)
    width = (last - first) / PANELS
    middle_P1 = first + width * (torch.arange(PANELS).double()[:, None] + 0.5)
    angle_U = (middle_P1 + width / math.sqrt(12) * torch.tensor([-1.0, 1.0])).flatten()
    length_U, along_U = radius * angle_U.cos(), radius * angle_U.sin()
    log_density_U = (
        (others - 1) * length_U.log()
        - length_U.square() / 2
        - (others / 2 - 1) * math.log(2)
        - math.lgamma(others / 2)
    )
    return along_U, log_density_U.exp() * along_U * width / 2


def _lengths(others: int) -> tuple[float, float]:
    """Between which lengths noise in so many dimensions lies, but for the negligible."""
    middle = math.sqrt(others)
    return max(0.0, middle - REACH), middle + REACH


class _Curve(NamedTuple):
    """A function known at some places, monotone and smooth between them.

    Cubics with the slopes of Fritsch and Butland (SIAM J. Sci. Stat. Comput. 5, 1984), which
    nowhere rise above the values beside them; constant beyond the ends.
    """

    place_N: Tensor
    value_N: Tensor
    slope_N: Tensor

    @classmethod
    def through(cls, place_N: Tensor, value_N: Tensor) -> _Curve:
        """The curve through these values, at places that ascend."""
        width, secant = place_N.diff(), value_N.diff() / place_N.diff()
        before, after, total = secant[:-1], secant[1:], 3 * (width[:-1] + width[1:])
        weights = (2 * width[1:] + width[:-1]) / total, (width[1:] + 2 * width[:-1]) / total
        mean = before * after / (weights[1] * before + weights[0] * after)
        inner = torch.where(before * after > 0, mean, torch.zeros_like(mean))
        slope_N = torch.cat((secant[:1], inner, secant[-1:]))
        return cls(place_N, value_N, slope_N)

    def at(self, place: Tensor) -> Tensor:
        """The values at places of any shape, on their device."""
        place_N, value_N, slope_N = (part.to(place.device) for part in self)
        place = place.clamp(float(place_N[0]), float(place_N[-1]))
        right = torch.searchsorted(place_N, place).clamp_min(1)
        left = right - 1
        width = place_N[right] - place_N[left]
        share = (place - place_N[left]) / width
        rest = 1 - share
        return rest.square() * (
            (1 + 2 * share) * value_N[left] + share * width * slope_N[left]
        ) + share.square() * ((1 + 2 * rest) * value_N[right] - rest * width * slope_N[right])


@functools.lru_cache(maxsize=CURVES)
def _curve(dimensions: int, bias: float, most: float) -> _Curve:
    """How probably a rule accepts, by the distance between the means in deviations."""
    place_N = _places(dimensions, bias, most)
    return _Curve.through(place_N, _by_either(place_N, dimensions, bias, most))


def _places(dimensions: int, bias: float, most: float) -> Tensor:
    """Distances at which a rule's curve is taken: dense where it bends."""
    steps = torch.linspace(0, 1, DISTANCES).double()
    # A bias close to 1 makes a bend close to 0.
    ratio_decides = (REACH + math.sqrt(REACH**2 + 2 * max(0.0, math.log(bias)))) * steps.square()
    shortest, longest = _lengths(dimensions - 1) if dimensions > 1 else (0.0, 0.0)
    nearest = max(0.0, math.sqrt(max(0.0, most - longest**2)) - REACH)
    farthest = math.sqrt(max(0.0, most - shortest**2)) + REACH
    tolerance_decides = nearest + (farthest - nearest) * steps
    return torch.cat((ratio_decides, tolerance_decides)).unique()
