"""Claims about fronts: who is beaten, how much is covered, where the knee is."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from foredraft.search import front
from foredraft.search.trial import Trial
from foredraft.settings.budgets import Budget


def random_points(count: int, objectives: int, *, seed: int) -> list[front.Goals]:
    drawn = torch.rand(count, objectives, generator=torch.Generator().manual_seed(seed))
    return [tuple(row) for row in drawn.tolist()]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_hypervolume_is_the_share_of_random_points_that_the_front_beats(
    objectives: int,
) -> None:
    points = random_points(8, objectives, seed=objectives)
    probes = random_points(20_000, objectives, seed=99)
    beaten = sum(any(front.beats(p, probe) for p in points) for probe in probes) / len(probes)
    exact = front.hypervolume(points, reference=(0.0,) * objectives)
    assert exact == pytest.approx(beaten, abs=0.02)


def test_a_beaten_point_adds_no_hypervolume_and_a_better_one_does() -> None:
    reference = (0.0, 0.0)
    alone = front.hypervolume([(0.5, 0.5)], reference=reference)
    assert front.hypervolume([(0.5, 0.5), (0.4, 0.5)], reference=reference) == alone
    assert front.hypervolume([(0.5, 0.5), (0.1, 0.6)], reference=reference) > alone


def test_a_point_no_better_than_the_reference_covers_nothing() -> None:
    assert front.hypervolume([(1.0, 0.0), (-1.0, 2.0)], reference=(0.0, 0.0)) == 0


def test_what_is_kept_beats_what_is_not_and_nothing_kept_beats_another() -> None:
    points = random_points(60, 3, seed=7)
    keep = front.on_front(points)
    kept = [p for p, k in zip(points, keep, strict=True) if k]
    left = [p for p, k in zip(points, keep, strict=True) if not k]
    assert not any(front.beats(a, b) for a, b in itertools.permutations(kept, 2))
    assert all(any(front.beats(a, b) for a in kept) for b in left)


def test_of_equal_points_the_first_alone_is_on_the_front() -> None:
    assert front.on_front([(1.0, 2.0), (1.0, 2.0), (2.0, 1.0)]) == [True, False, True]


def test_the_knee_is_the_point_that_gives_up_little_of_everything() -> None:
    assert front.knee([(0.0, 1.0), (0.9, 0.9), (1.0, 0.0)]) == 1
    assert front.knee([]) is None


def test_an_objective_in_which_all_agree_does_not_move_the_knee() -> None:
    assert front.knee([(0.0, 5.0, 1.0), (0.9, 5.0, 0.9), (1.0, 5.0, 0.0)]) == 1


def test_trials_over_the_budget_or_stopped_early_add_nothing_to_a_studys_hypervolume(
    make_trial: Callable[..., Trial],
) -> None:
    same = {"acceptance_rate": 0.5, "predicted_speedup": 2.0}
    trials = [
        make_trial(0, mse_ratio=1.5, **same),
        make_trial(1, mse_ratio=0.9, stopped="front", **same),
        make_trial(2, mse_ratio=0.9, **same),
        make_trial(3, mse_ratio=0.95, **same),
        make_trial(4, error="gone"),
    ]
    volumes = front.hypervolumes(trials, budget=Budget(mse_ratio=1.0))
    assert volumes == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.1])


def test_the_hypervolume_counts_from_the_budgets_first_bound_what_keeps_all_of_them(
    make_trial: Callable[..., Trial],
) -> None:
    same = {"acceptance_rate": 0.5, "predicted_speedup": 2.0}
    near = make_trial(0, mse_ratio=0.9, deviation=0.002, **same)  # .005 of the target's mse
    far = make_trial(1, mse_ratio=0.8, deviation=0.008, **same)
    nearness = front.hypervolumes([far, near], budget=Budget(deviation_ratio=0.01))
    assert nearness == pytest.approx([0.0, 0.005])
    both = front.hypervolumes([far, near], budget=Budget(mse_ratio=1.0, deviation_ratio=0.01))
    assert both == pytest.approx([0.0, 0.1])
