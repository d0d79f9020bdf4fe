"""Claims about budgets: what they bound, who keeps them, and how they are read and told.

- A plain number bounds mse_ratio, and a budget that bounds nothing is refused.
- It is kept where every bounded metric is known and at most its bound; others do not matter.
- Nothing within a bound on the deviation alone is more inaccurate than the budget says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foredraft.errors import ConfigError
from foredraft.settings.budgets import Budget
from foredraft.settings.config import validated


def test_a_plain_number_bounds_mse_ratio_and_is_kept_as_a_bound_by_name() -> None:
    assert Budget.model_validate(1.01) == Budget(mse_ratio=1.01)
    assert Budget.model_validate(Budget(mse_ratio=1.01).model_dump()) == Budget(mse_ratio=1.01)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "bounds nothing"),
        (0, "mse_ratio"),
        ({"deviation_ratio": -0.1}, "deviation_ratio"),
        ({"deviation": 0.1}, "deviation_ratio"),
        (True, "budget"),
        ("1.01", "budget"),
    ],
)
def test_what_bounds_nothing_is_refused_with_its_name(given: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        validated(Budget, given, source="budget")


@pytest.mark.parametrize(
    ("bounds", "mse_ratio", "deviation_ratio", "is_kept"),
    [
        ({"mse_ratio": 1.01}, 1.01, 9.0, True),
        ({"mse_ratio": 1.01}, 1.0101, 0.0, False),
        ({"deviation_ratio": 0.01}, 9.0, 0.01, True),
        ({"deviation_ratio": 0.01}, 1.0, 0.0101, False),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.0, 0.0, True),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.02, 0.0, False),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.0, 0.02, False),
        ({"mse_ratio": 1.01, "deviation_ratio": 0.01}, 1.0, None, False),
        ({"mse_ratio": 1.01}, 1.0, None, True),
    ],
)
def test_a_budget_is_kept_by_what_is_known_to_be_within_every_bound(
    bounds: dict[str, float],
    mse_ratio: float | None,
    deviation_ratio: float | None,
    is_kept: bool,
) -> None:
    ratios = {"mse_ratio": mse_ratio, "deviation_ratio": deviation_ratio}
    assert Budget(**bounds).is_kept(ratios) is is_kept


def test_room_is_told_of_the_bounded_metrics_that_are_known() -> None:
    budget = Budget(mse_ratio=1.01, deviation_ratio=0.01)
    room = budget.room({"mse_ratio": 1.03, "deviation_ratio": None})
    assert room == {"mse_ratio": pytest.approx(-0.02)}


def test_no_forecast_within_a_bound_on_the_deviation_is_more_inaccurate_than_the_budget_says() -> (
    None
):
    budget = Budget(deviation_ratio=0.04)
    generator = torch.Generator().manual_seed(0)
    target, away = torch.randn(2, 500, 6, generator=generator, dtype=torch.float64)
    # The last ones go straight on, away from what happened: there the limit is reached.
    away[-1], target[-1] = target[-1], target[-1]
    away = away * (0.04 * target.square().mean(1) / away.square().mean(1)).sqrt()[:, None]
    ratio = (target + away).square().mean(1) / target.square().mean(1)
    assert ratio.max() <= budget.largest_mse_ratio + 1e-12
    assert ratio[-1] == pytest.approx(budget.largest_mse_ratio)


def test_a_budget_names_its_bounds_by_metric() -> None:
    both = Budget(mse_ratio=1.01, deviation_ratio=0.01)
    assert both.in_words == "mse ratio at most 1.01 and deviation ratio at most 0.01"
    assert Budget(deviation_ratio=0.02).in_words == "deviation ratio at most 0.02"
