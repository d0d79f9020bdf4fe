"""Claims about the predicted speedup: theory where there is one, simulation elsewhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from speculation.cost import (
    PassCosts,
    best_speedups,
    pass_rates,
    predicted_speedup,
    speculation_seconds,
    target_seconds,
)

RATES_OF_70_PERCENT = (0.7, 0.784523, 0.831967, 0.862311, 0.88338)
"""How often each of 1 to 5 proposals has to pass for 70 % of them to be accepted."""


def ideal(lookahead: int, *, draft: float, anchor: float = 0.0) -> PassCosts:
    """Verifying costs a step whatever the lookahead, each proposal a fixed share of one."""
    return PassCosts(
        batches=(1,),
        step_s=(1.0,),
        verify_s=((1.0,) * (lookahead + 1),),
        draft_s=(tuple(draft * k for k in range(lookahead + 1)),),
        step_anchor_s=(anchor,),
        round_anchor_s=(anchor,),
    )


def realistic(lookahead: int) -> PassCosts:
    """Costs that grow with proposals and with the batch, anchors that are not free."""
    batches = (1, 4, 16)
    return PassCosts(
        batches=batches,
        step_s=tuple(1.0 + 0.05 * b for b in batches),
        verify_s=tuple(
            tuple(1.1 + 0.05 * b * (1 + 0.4 * k) for k in range(lookahead + 1)) for b in batches
        ),
        draft_s=tuple(tuple((0.3 + 0.01 * b) * k for k in range(lookahead + 1)) for b in batches),
        step_anchor_s=tuple(0.5 + 0.02 * b for b in batches),
        round_anchor_s=tuple(0.8 + 0.03 * b for b in batches),
    )


def simulated_seconds(
    costs: PassCosts,
    rates: Sequence[float],
    *,
    lookahead: int,
    patches: int,
    renorm_every: int,
    batch: int,
    forecasts: int,
) -> float:
    """Mean seconds of forecasts whose rounds are thrown, priced as the passes were timed."""
    generator = np.random.default_rng(3)
    round_s = np.array(costs.verify_s) + np.array(costs.draft_s)
    left = np.full((forecasts, batch), patches)
    seconds = np.zeros(forecasts)
    while left.any():
        active = left > 0
        done = patches - left
        room = left.copy()
        anchored = done == 0
        if renorm_every:
            room = np.minimum(room, renorm_every - done % renorm_every)
            anchored = done % renorm_every == 0
        limit = np.where(active, np.minimum(lookahead, room - 1), 0)
        sizes, longest = active.sum(1), limit.max(1)
        anchors = (anchored & active).any(1)
        for size in np.unique(sizes[sizes > 0]):
            for k in range(lookahead + 1):
                here = (sizes == size) & (longest == k)
                seconds[here] += np.interp(size, costs.batches, round_s[:, k])
            here = (sizes == size) & anchors
            seconds[here] += np.interp(size, costs.batches, costs.round_anchor_s)
        accepted, alive = np.zeros_like(left), active.copy()
        for position in range(lookahead):
            alive &= (generator.random(left.shape) < rates[position]) & (position < limit)
            accepted += alive
        left = np.where(active, left - accepted - 1, 0)
    return float(seconds.mean())


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("lookahead", "draft"), [(1, 0.5), (3, 0.2), (6, 0.05)])
def test_a_long_horizon_has_leviathans_speedup(
    acceptance: float, lookahead: int, draft: float
) -> None:
    """Equation of theorem 3.8 of 2211.17192, from what the last third of a horizon adds."""
    costs, rates = ideal(lookahead, draft=draft), [acceptance] * lookahead
    short, long = (
        speculation_seconds(costs, rates, lookahead=lookahead, patches=patches)
        for patches in (40, 60)
    )
    emitted = (1 - acceptance ** (lookahead + 1)) / (1 - acceptance)
    theory = emitted / (lookahead * draft + 1)
    assert 20 / (long - short) == pytest.approx(theory, rel=0.01)


def test_the_speedup_of_a_whole_long_horizon_tends_to_leviathans() -> None:
    acceptance, lookahead, draft = 0.8, 2, 0.1
    theory = (1 - acceptance**3) / (1 - acceptance) / (lookahead * draft + 1)
    costs, rates = ideal(lookahead, draft=draft), [acceptance] * lookahead
    predicted = predicted_speedup(costs, rates, lookahead=lookahead, patches=150)
    assert predicted == pytest.approx(theory, rel=0.01)


@pytest.mark.parametrize("batch", [1, 4, 10])
@pytest.mark.parametrize("renorm_every", [0, 3])
def test_a_horizon_of_one_patch_cannot_be_sped_up(batch: int, renorm_every: int) -> None:
    for costs in (ideal(4, draft=0.0), realistic(4)):
        settings: dict[str, Any] = {"patches": 1, "renorm_every": renorm_every, "batch": batch}
        assert predicted_speedup(costs, [1.0] * 4, lookahead=4, **settings) <= 1.0
        assert best_speedups(costs, [1.0], **settings)[0] <= 1.0


def test_a_draft_that_is_never_accepted_costs_its_passes_for_nothing() -> None:
    lookahead, draft, patches = 3, 0.2, 8
    seconds = speculation_seconds(
        ideal(lookahead, draft=draft), [0.0] * lookahead, lookahead=lookahead, patches=patches
    )
    limits = [min(lookahead, left - 1) for left in range(patches, 0, -1)]
    assert seconds == pytest.approx(patches + draft * sum(limits))


def test_a_draft_that_is_always_accepted_takes_the_fewest_rounds() -> None:
    for patches, rounds in ((8, 2), (9, 3), (4, 1), (1, 1)):
        costs = ideal(3, draft=0.0)
        seconds = speculation_seconds(costs, [1.0] * 3, lookahead=3, patches=patches)
        assert seconds == pytest.approx(rounds)


# A batch with anchors is left out: samples that accept a little fall out of step, and then some
# sample or other is at its anchor in every round.
@pytest.mark.parametrize(("batch", "renorm_every"), [(1, 0), (1, 3), (8, 0)])
def test_more_acceptance_is_never_slower(batch: int, renorm_every: int) -> None:
    speedups = [
        predicted_speedup(
            realistic(3),
            [acceptance] * 3,
            lookahead=3,
            patches=8,
            renorm_every=renorm_every,
            batch=batch,
        )
        for acceptance in np.linspace(0, 1, 21)
    ]
    assert np.all(np.diff(speedups) > 0)


@pytest.mark.parametrize("seconds_of", ["predicted", "simulated"])
def test_a_little_acceptance_slows_a_batch_that_is_anchored_anew(seconds_of: str) -> None:
    """Samples that drift apart are anchored in different rounds, and all wait for each."""
    settings: dict[str, Any] = {"lookahead": 3, "patches": 8, "renorm_every": 3, "batch": 8}
    seconds = [
        speculation_seconds(realistic(3), [rate] * 3, **settings)
        if seconds_of == "predicted"
        else simulated_seconds(realistic(3), [rate] * 3, forecasts=500, **settings)
        for rate in (0.0, 0.1)
    ]
    assert seconds[0] < seconds[1]


@pytest.mark.parametrize("renorm_every", [0, 3, 5])
@pytest.mark.parametrize("rates", [[0.9, 0.8, 0.5], [0.2, 0.6, 0.9]], ids=str)
def test_the_expectation_for_one_sample_is_that_of_simulated_rounds(
    rates: list[float], renorm_every: int
) -> None:
    settings: dict[str, Any] = {
        "lookahead": 3,
        "patches": 11,
        "renorm_every": renorm_every,
        "batch": 1,
    }
    predicted = speculation_seconds(realistic(3), rates, **settings)
    simulated = simulated_seconds(realistic(3), rates, forecasts=20_000, **settings)
    assert predicted == pytest.approx(simulated, rel=0.01)


@pytest.mark.parametrize("batch", [2, 8, 16])
@pytest.mark.parametrize("renorm_every", [0, 3])
@pytest.mark.parametrize("rates", [[0.9, 0.8, 0.5], [0.5, 0.5, 0.5]], ids=str)
def test_the_expectation_for_a_batch_is_near_that_of_simulated_rounds(
    rates: list[float], renorm_every: int, batch: int
) -> None:
    settings: dict[str, Any] = {
        "lookahead": 3,
        "patches": 8,
        "renorm_every": renorm_every,
        "batch": batch,
    }
    predicted = speculation_seconds(realistic(3), rates, **settings)
    simulated = simulated_seconds(realistic(3), rates, forecasts=2_000, **settings)
    assert predicted == pytest.approx(simulated, rel=0.05)


@pytest.mark.parametrize(("renorm_every", "anchors"), [(0, 1), (3, 3), (8, 1), (4, 2)])
def test_the_target_alone_pays_each_of_its_anchors(renorm_every: int, anchors: int) -> None:
    costs = ideal(3, draft=0.2, anchor=10.0)
    seconds = target_seconds(costs, patches=8, renorm_every=renorm_every)
    assert seconds == pytest.approx(8 + 10 * anchors)


def test_costs_between_timed_batches_lie_on_the_line() -> None:
    costs = realistic(2)
    assert target_seconds(costs, patches=1, batch=10) == pytest.approx(1.5 + 0.7)
    assert target_seconds(costs, patches=1, batch=4) == pytest.approx(1.2 + 0.58)


def test_no_lookahead_is_above_the_ceiling_at_what_it_accepts_and_one_is_on_it() -> None:
    costs = realistic(5)
    for rate in (0.2, 0.7, 0.95):
        for lookahead in range(1, 6):
            share = sum(rate**k for k in range(1, lookahead + 1)) / lookahead
            reached = predicted_speedup(costs, [rate] * 5, lookahead=lookahead, patches=8)
            assert reached <= best_speedups(costs, [share], patches=8)[0] + 1e-9
    assert best_speedups(costs, [0.7], patches=8)[0] == pytest.approx(
        max(
            predicted_speedup(costs, [rate] * 5, lookahead=lookahead, patches=8)
            # Of K proposals 70 % are accepted where each passes with these.
            for lookahead, rate in enumerate(RATES_OF_70_PERCENT, start=1)
        ),
        rel=1e-4,
    )


@pytest.mark.parametrize(("timed", "told"), [(3, 5), (5, 3)])
def test_a_lookahead_beyond_what_is_known_is_refused(timed: int, told: int) -> None:
    with pytest.raises(ValueError, match=r"lookahead is 4.* up to 3"):
        speculation_seconds(ideal(timed, draft=0.1), [0.5] * told, lookahead=4, patches=8)


def test_pass_rates_are_ratios_of_counts_and_carry_on_where_none_was_counted() -> None:
    tested, passed = torch.tensor([10, 8, 0, 0]), torch.tensor([8, 2, 0, 0])
    assert pass_rates(tested, passed) == pytest.approx([0.8, 0.25, 0.25, 0.25])
    assert pass_rates(torch.tensor([0, 0]), torch.tensor([0, 0])) == [0.0, 0.0]
