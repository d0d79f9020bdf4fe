"""How much each of many points would add to the hypervolume of a front, exactly and all at once.

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


def gains(points_ND: Tensor, front_KD: Tensor, reference_D: Tensor) -> Tensor:
    """What each point alone would add, float64 [N]; none for what is not above the reference."""
    dimensions = points_ND.shape[1]
    points_ND = torch.maximum(points_ND.double(), reference_D)
    front_KD = front_KD[(front_KD > reference_D).all(1)].double()
    edges = [
        torch.cat((reference_D[d : d + 1], front_KD[:, d].unique())) for d in range(dimensions)
    ]
    covered = torch.zeros([len(edge) for edge in edges], dtype=torch.bool)
    for point_D in front_KD:
        below = [int((edge < point_D[d]).sum()) for d, edge in enumerate(edges)]
        covered[tuple(slice(count) for count in below)] = True
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


def _lengths(value_N: Tensor, edge_E: Tensor) -> Tensor:
    """How much of each interval between the edges, and beyond the last, lies below each value."""
    upper_E = torch.cat((edge_E[1:], torch.full((1,), torch.inf, dtype=torch.float64)))
    return (torch.minimum(value_N[:, None], upper_E) - edge_E).clamp_min(0.0)


def not_beaten(points_ND: Tensor) -> Tensor:
    """Which points no other beats, bool [N]; equal ones all stand."""
    keep = []
    for part_ND in points_ND.split(ROWS_AT_ONCE):
        as_good = (points_ND[None] >= part_ND[:, None]).all(2)
        better = (points_ND[None] > part_ND[:, None]).any(2)
        keep.append(~(as_good & better).any(1))
    return torch.cat(keep)
