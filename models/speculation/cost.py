"""How much faster speculation is, from what its passes cost and how often the draft is accepted.

    predicted_speedup(costs, pass_rates, lookahead=4, patches=8)

The expectation of Leviathan et al. (2211.17192), section 3.3, taken over the rounds of a forecast
instead of over an endless sequence: a horizon ends, so the last rounds are shorter, and a forecast
of one patch cannot be sped up at all. Costs are seconds, measured on the device in question; which
of them enter is what makes draft, verification, anchors and batches differ in price.

Shapes: K lookahead, N patches of a horizon, J batch sizes.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PassCosts:
    """Seconds of one pass at some batch sizes, on one device."""

    batches: tuple[int, ...]
    """batch sizes at which the passes were timed, ascending"""
    step_s: tuple[float, ...]
    """one step of the target alone, per batch size"""
    verify_s: tuple[tuple[float, ...], ...]
    """per batch size: a round's pass of the target over k = 0..K proposals, and all that is done
    with its result"""
    draft_s: tuple[tuple[float, ...], ...]
    """per batch size: proposing k = 0..K patches"""
    step_anchor_s: tuple[float, ...]
    """what a step costs more where the window is anchored (`cached`), per batch size"""
    round_anchor_s: tuple[float, ...]
    """what a round costs more where the window is anchored: both models encode it anew"""

    @property
    def lookahead(self) -> int:
        """The longest lookahead that was timed."""
        return len(self.draft_s[0]) - 1

    def at(self, batch: float) -> _Costs:
        """The costs at a batch size, linear between those that were timed and beyond them."""
        sizes = torch.tensor(self.batches, dtype=torch.float64)
        right = int(torch.searchsorted(sizes, batch).clamp(1, max(len(sizes) - 1, 1)))
        if len(sizes) == 1:
            low, high, weight = 0, 0, 0.0
        else:
            low, high = right - 1, right
            weight = (batch - self.batches[low]) / (self.batches[high] - self.batches[low])

        def mixed(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
            table = torch.tensor(values, dtype=torch.float64)
            return table[low] + weight * (table[high] - table[low])

        return _Costs(
            step=mixed(self.step_s),
            round=mixed(self.verify_s) + mixed(self.draft_s),
            step_anchor=mixed(self.step_anchor_s),
            round_anchor=mixed(self.round_anchor_s),
        )


@dataclass(frozen=True)
class _Costs:
    """`PassCosts` at one batch size."""

    step: Tensor
    round: Tensor
    """[K + 1]"""
    step_anchor: Tensor
    round_anchor: Tensor


def target_seconds(
    costs: PassCosts, *, patches: int, renorm_every: int = 0, batch: int = 1
) -> float:
    """Seconds that the target alone takes for a forecast of `patches` patches."""
    at = costs.at(batch)
    anchors = -(-patches // renorm_every) if renorm_every else 1
    return float(patches * at.step + anchors * at.step_anchor)


def speculation_seconds(
    costs: PassCosts,
    pass_rates: Sequence[float],
    *,
    lookahead: int,
    patches: int,
    renorm_every: int = 0,
    batch: int = 1,
) -> float:
    """Expected seconds of a speculative forecast of `patches` patches.

    For one sample this is the exact expectation over its rounds. The samples of a batch share
    their passes and advance independently: a round is priced by the sample that has most left, at
    the expected number of samples still in the batch.

    Args:
        costs: of this pair, policy and device.
        pass_rates: per position, how often a proposal is accepted when all before it were.
        lookahead: patches proposed in a round, at most.
        patches: of the horizon.
        renorm_every: patches between anchors; 0 for one anchor at the start.
        batch: samples decoded together.

    Raises:
        ValueError: lookahead is longer than what was timed, or than the pass rates tell.
    """
    if lookahead > min(costs.lookahead, len(pass_rates)):
        known = min(costs.lookahead, len(pass_rates))
        raise ValueError(f"lookahead is {lookahead}: costs and pass rates are known up to {known}")
    survival = list(itertools.accumulate(pass_rates, operator.mul, initial=1.0))
    limits = [_limit(n, patches, lookahead, renorm_every) for n in range(patches + 1)]
    left = [0.0] * patches + [1.0]  # distribution of the patches that a sample has left
    seconds = 0.0
    while left[0] < 1 - 1e-12:
        seconds += _round_seconds(costs, left, limits, patches, renorm_every, batch)
        after = [left[0]] + [0.0] * patches
        for n, limit in enumerate(limits[1:], start=1):
            for accepted in range(limit + 1):
                exactly = survival[accepted] - (survival[accepted + 1] if accepted < limit else 0.0)
                after[n - accepted - 1] += left[n] * exactly
        left = after
    return seconds


def predicted_speedup(
    costs: PassCosts,
    pass_rates: Sequence[float],
    *,
    lookahead: int,
    patches: int,
    renorm_every: int = 0,
    batch: int = 1,
) -> float:
    """Seconds of the target alone over expected seconds of speculation."""
    alone = target_seconds(costs, patches=patches, renorm_every=renorm_every, batch=batch)
    together = speculation_seconds(
        costs,
        pass_rates,
        lookahead=lookahead,
        patches=patches,
        renorm_every=renorm_every,
        batch=batch,
    )
    return alone / together


def best_speedup(
    costs: PassCosts, acceptance: float, *, patches: int, renorm_every: int = 0, batch: int = 1
) -> float:
    """The ceiling: predicted speedup at the best lookahead, every position accepted alike."""
    return max(
        predicted_speedup(
            costs,
            [acceptance] * costs.lookahead,
            lookahead=lookahead,
            patches=patches,
            renorm_every=renorm_every,
            batch=batch,
        )
        for lookahead in range(1, costs.lookahead + 1)
    )


def pass_rates(tested_K: Tensor, passed_K: Tensor) -> list[float]:
    """Per position, how often a proposal was accepted when all before it were.

    A position that was never reached takes the rate of the one before it (of the first: 0).
    """
    rates: list[float] = []
    for tested, passed in zip(tested_K.tolist(), passed_K.tolist(), strict=True):
        rates.append(passed / tested if tested else (rates[-1] if rates else 0.0))
    return rates


def _limit(left: int, patches: int, lookahead: int, renorm_every: int) -> int:
    """Patches that may be proposed with `left` to go: the target gives one more by itself."""
    room = left
    if renorm_every:
        room = min(room, renorm_every - (patches - left) % renorm_every)
    return max(0, min(lookahead, room - 1))


def _round_seconds(
    costs: PassCosts,
    left: Sequence[float],
    limits: Sequence[int],
    patches: int,
    renorm_every: int,
    batch: int,
) -> float:
    """Expected seconds of one round, given the distribution of what a sample has left.

    All samples propose as many patches as the one that may propose most, and where one of them is
    at an anchor all encode a window: both are questions about the extreme of `batch` samples.
    """
    active, any_active = 1.0 - left[0], 1.0 - left[0] ** batch
    at = costs.at(batch * active / any_active)
    seconds, below = 0.0, left[0]
    for limit in range(max(limits[1:]) + 1):
        within = below + sum(left[n] for n in range(1, patches + 1) if limits[n] == limit)
        seconds += (within**batch - below**batch) * float(at.round[limit])
        below = within
    every = renorm_every or patches
    anchored = sum(left[n] for n in range(1, patches + 1) if (patches - n) % every == 0)
    return seconds + (1.0 - (1.0 - anchored) ** batch) * float(at.round_anchor)
