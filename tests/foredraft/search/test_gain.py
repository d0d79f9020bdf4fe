"""Claims about volumes of many points at once: exact, as those that are summed slice by slice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foredraft.search import front
from foredraft.search.gain import front_of, gains, spread_along, volume


def points(count: int, objectives: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, objectives, generator=generator, dtype=torch.float64)


def sliced(points_ND: Tensor, reference_D: Tensor) -> float:
    goals = [tuple(row) for row in points_ND.tolist()]
    return front.hypervolume(goals, reference=tuple(reference_D.tolist()))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_volume_and_gains_are_those_that_are_summed_slice_by_slice(objectives: int) -> None:
    reference_D = torch.full((objectives,), 0.2, dtype=torch.float64)
    there_KD, new_ND = points(12, objectives, seed=1), points(40, objectives, seed=2)
    before = sliced(there_KD, reference_D)
    assert volume(there_KD, reference_D) == pytest.approx(before, abs=1e-12)
    gain_N = gains(new_ND, there_KD, reference_D)
    for point_D, gain in zip(new_ND, gain_N.tolist(), strict=True):
        after = sliced(torch.cat((there_KD, point_D[None])), reference_D)
        assert gain == pytest.approx(after - before, abs=1e-12)
    assert (gain_N == 0).any()
    assert objectives == 1 or (gain_N > 0).any()


def test_of_no_front_a_point_adds_all_that_is_below_it() -> None:
    reference_D = torch.zeros(3, dtype=torch.float64)
    new_ND = torch.tensor([[0.5, 0.5, 2.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
    assert gains(new_ND, torch.empty(0, 3).double(), reference_D).tolist() == [0.5, 0.0]
    assert volume(torch.empty(0, 3).double(), reference_D) == 0.0


def test_a_front_has_what_nothing_beats_and_of_equal_points_the_first() -> None:
    many_ND = points(700, 2, seed=3)
    twice_ND = torch.cat((many_ND, many_ND))
    kept = front_of(twice_ND).tolist()
    goals = [tuple(row) for row in twice_ND.tolist()]
    expected = [n for n, keep in enumerate(front.on_front(goals)) if keep]
    assert kept == expected
    assert max(kept) < len(many_ND)


def test_some_of_many_are_spread_along_the_first_objective_with_both_its_ends() -> None:
    many_ND = points(100, 2, seed=4)
    some = many_ND[spread_along(many_ND, 5)]
    assert len(some) == 5
    assert some[:, 0].min() == many_ND[:, 0].min()
    assert some[:, 0].max() == many_ND[:, 0].max()
    assert len(spread_along(many_ND[:3], 5)) == 3
