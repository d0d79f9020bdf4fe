"""Hypervolumes of many points at once, exactly: of a front, and what each point would add to it.

    gain_N = gains(points_ND, front_KD, reference_D)

The coordinates of the front cut the space into boxes, each of which is covered by it or not. What a
point adds are the boxes below it that are not: a sum of products of lengths, one matrix product
for all points together.

Shapes: N points, K points of the front, D objectives, each better the higher it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_AT_ONCE = 512
DIGITS = 6
"""Decimals by which two points are told apart."""


def gains(points_ND: Tensor, front_KD: Tensor, reference_D: Tensor) -> Tensor:
    """What each point alone would add, float64 [N]; none for what is not above the reference."""
    points_ND = torch.maximum(points_ND.double(), reference_D)
    edges, covered = _boxes(front_KD, reference_D)
    added = (~covered).double().reshape(len(edges[0]), -1)
    total = []
    for part_ND in points_ND.split(ROWS_AT_ONCE):
        lengths = [_lengths(part_ND[:, d], edge) for d, edge in enumerate(edges)]
        volume_NX = lengths[0] @ added
        for length_NE in lengths[1:]:
            volume_NX = volume_NX.unflatten(1, (length_NE.shape[1], -1))
            volume_NX = (volume_NX * length_NE[..., None]).sum(1)
        total.append(volume_NX.reshape(-1))
    return torch.cat(total)


def volume(points_ND: Tensor, reference_D: Tensor) -> float:
    """The volume between the reference and the points, exactly; for some hundred points."""
    edges, covered = _boxes(points_ND, reference_D)
    inside = covered.double()
    for edge in reversed(edges):
        length = torch.cat((edge.diff(), edge.new_zeros(1)))
        inside = inside @ length
    return float(inside)


def _boxes(points_ND: Tensor, reference_D: Tensor) -> tuple[list[Tensor], Tensor]:
    """The edges of the boxes along each objective, and which boxes the points cover."""
    points_ND = points_ND[(points_ND > reference_D).all(1)].double()
    edges = [
        torch.cat((reference_D[d : d + 1], points_ND[:, d].unique()))
        for d in range(points_ND.shape[1])
    ]
    covered = torch.zeros([len(edge) for edge in edges], dtype=torch.bool)
    for point_D in points_ND:
        below = [int((edge < point_D[d]).sum()) for d, edge in enumerate(edges)]
        covered[tuple(slice(count) for count in below)] = True
    return edges, covered


def _lengths(value_N: Tensor, edge_E: Tensor) -> Tensor:
    """How much of each interval between the edges, and beyond the last, lies below each value."""
    upper_E = torch.cat((edge_E[1:], torch.full((1,), torch.inf, dtype=torch.float64)))
    return (torch.minimum(value_N[:, None], upper_E) - edge_E).clamp_min(0.0)


def front_of(points_ND: Tensor) -> Tensor:
    """The places of the points that no other beats; of (nearly) equal ones the first alone."""
    rounded_ND = points_ND.round(decimals=DIGITS)
    _, group_N = rounded_ND.unique(dim=0, return_inverse=True)
    place_N = torch.arange(len(group_N))
    first_N = torch.full_like(group_N, len(group_N)).scatter_reduce_(0, group_N, place_N, "amin")
    first_N = first_N[first_N < len(group_N)].sort().values
    return first_N[_not_beaten(points_ND[first_N])]


def _not_beaten(points_ND: Tensor) -> Tensor:
    keep = [torch.ones(0, dtype=torch.bool)]
    for part_ND in points_ND.split(ROWS_AT_ONCE):
        as_good = (points_ND[None] >= part_ND[:, None]).all(2)
        better = (points_ND[None] > part_ND[:, None]).any(2)
        keep.append(~(as_good & better).any(1))
    return torch.cat(keep)


def spread_along(points_ND: Tensor, most: int) -> Tensor:
    """The places of at most so many points, evenly along the first objective."""
    order_N = points_ND[:, 0].argsort()
    return order_N[torch.linspace(0, len(order_N) - 1, min(most, len(order_N))).round().long()]
