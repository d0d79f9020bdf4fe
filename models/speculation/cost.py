"""How much faster speculation is, from what its passes cost and how often the draft is accepted.

    predicted_speedup(costs, pass_rates, lookahead=4, patches=8)

The expectation of Leviathan et al. (2211.17192), section 3.3, taken over the rounds of a forecast
instead of over an endless sequence: a horizon ends, so the last rounds are shorter, and a forecast
of one patch cannot be sped up at all. Costs are seconds, measured on the device in question; which
of them enter is what makes draft, verification, anchors and batches differ in price.

Shapes: K lookahead, M = K + 1, N patches of a horizon, Q sets of pass rates or batch sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HALVINGS = 50
"""Of an interval from 0 to 1, for the last bits of a rate."""


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
    opens_alone: bool = False
    """whether the first round proposes nothing: heads propose from what the target has read"""

    @property
    def lookahead(self) -> int:
        """The longest lookahead that was timed."""
        return len(self.draft_s[0]) - 1

    def at(self, batch_Q: Tensor) -> _Costs:
        """The costs at some batch sizes, linear between those that were timed and beyond them."""
        sizes = torch.tensor(self.batches, dtype=torch.float64)
        if len(sizes) == 1:
            low_Q = high_Q = torch.zeros(len(batch_Q), dtype=torch.int64)
            weight_Q = torch.zeros(len(batch_Q), dtype=torch.float64)
        else:
            high_Q = torch.searchsorted(sizes, batch_Q.double()).clamp(1, len(sizes) - 1)
            low_Q = high_Q - 1
            weight_Q = (batch_Q - sizes[low_Q]) / (sizes[high_Q] - sizes[low_Q])

        def mixed(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
            table = torch.tensor(values, dtype=torch.float64)
            low, high = table[low_Q], table[high_Q]
            weight = weight_Q if table.ndim == 1 else weight_Q[:, None]
            return low + weight * (high - low)

        return _Costs(
            step_Q=mixed(self.step_s),
            round_QM=mixed(self.verify_s) + mixed(self.draft_s),
            step_anchor_Q=mixed(self.step_anchor_s),
            round_anchor_Q=mixed(self.round_anchor_s),
        )


@dataclass(frozen=True)
class _Costs:
    """`PassCosts` at some batch sizes."""

    step_Q: Tensor
    round_QM: Tensor
    """by proposals, from none to K"""
    step_anchor_Q: Tensor
    round_anchor_Q: Tensor


def target_seconds(
    costs: PassCosts, *, patches: int, renorm_every: int = 0, batch: int = 1
) -> float:
    """Seconds that the target alone takes for a forecast of `patches` patches."""
    at = costs.at(torch.tensor([batch]))
    anchors = -(-patches // renorm_every) if renorm_every else 1
    return float(patches * at.step_Q + anchors * at.step_anchor_Q)


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
    rates_QK = torch.tensor([[*pass_rates]], dtype=torch.float64)
    seconds_Q = _seconds(
        costs,
        rates_QK,
        lookahead=lookahead,
        patches=patches,
        renorm_every=renorm_every,
        batch=batch,
    )
    return float(seconds_Q)


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
    horizon = {"patches": patches, "renorm_every": renorm_every, "batch": batch}
    return target_seconds(costs, **horizon) / speculation_seconds(
        costs, pass_rates, lookahead=lookahead, **horizon
    )


def predicted_speedups(
    costs: PassCosts,
    rates_QK: Tensor,
    *,
    lookahead: int,
    patches: int,
    renorm_every: int = 0,
    batch: int = 1,
) -> Tensor:
    """`predicted_speedup` of many pass rates at once, float64 [Q]."""
    horizon = {"patches": patches, "renorm_every": renorm_every, "batch": batch}
    alone = target_seconds(costs, **horizon)
    return alone / _seconds(costs, rates_QK, lookahead=lookahead, **horizon)


def _seconds(
    costs: PassCosts,
    rates_QK: Tensor,
    *,
    lookahead: int,
    patches: int,
    renorm_every: int,
    batch: int,
) -> Tensor:
    """`speculation_seconds` of many pass rates at once."""
    known = min(costs.lookahead, rates_QK.shape[1])
    if lookahead > known:
        raise ValueError(f"lookahead is {lookahead}: costs and pass rates are known up to {known}")
    limits = [_limit(n, patches, lookahead, renorm_every) for n in range(patches + 1)]
    if costs.opens_alone:
        limits[patches] = 0
    onward_QNN = _onward(rates_QK.double(), limits)
    left_QN = torch.zeros(len(rates_QK), patches + 1, dtype=torch.float64)
    left_QN[:, patches] = 1.0  # distribution of the patches that a sample has left
    seconds_Q = torch.zeros(len(rates_QK), dtype=torch.float64)
    while bool((left_QN[:, 0] < 1 - 1e-12).any()):
        seconds_Q += _round_seconds(costs, left_QN, limits, patches, renorm_every, batch)
        left_QN = torch.bmm(left_QN[:, None], onward_QNN)[:, 0]
    return seconds_Q


def _onward(rates_QK: Tensor, limits: Sequence[int]) -> Tensor:
    """How probably a round leads from each number of patches left to each other, [Q, N, N]."""
    ones_Q1 = torch.ones_like(rates_QK[:, :1])
    survival_QM = torch.cat((ones_Q1, rates_QK), 1).cumprod(1)
    onward_QNN = rates_QK.new_zeros(len(rates_QK), len(limits), len(limits))
    onward_QNN[:, 0, 0] = 1.0
    for n, limit in enumerate(limits[1:], start=1):
        for accepted in range(limit):
            exactly_Q = survival_QM[:, accepted] - survival_QM[:, accepted + 1]
            onward_QNN[:, n, n - accepted - 1] = exactly_Q
        onward_QNN[:, n, n - limit - 1] = survival_QM[:, limit]
    return onward_QNN


def best_speedups(
    costs: PassCosts,
    acceptances: Sequence[float],
    *,
    patches: int,
    renorm_every: int = 0,
    batch: int = 1,
) -> tuple[float, ...]:
    """The ceiling at each acceptance rate: predicted at the best lookahead.

    Every position is taken to pass alike, as often as it takes for that share of the proposals to
    be accepted: more often than that share, as what follows a rejected one is rejected with it.
    """
    share_Q = torch.tensor(acceptances, dtype=torch.float64)
    speedups_LQ = [
        predicted_speedups(
            costs,
            _even_rate(share_Q, lookahead)[:, None].expand(-1, costs.lookahead),
            lookahead=lookahead,
            patches=patches,
            renorm_every=renorm_every,
            batch=batch,
        )
        for lookahead in range(1, costs.lookahead + 1)
    ]
    return tuple(torch.stack(speedups_LQ).amax(0).tolist())


def _even_rate(share_Q: Tensor, lookahead: int) -> Tensor:
    """How often each proposal has to pass for that share of so many to be accepted, by bisection.

    Of K proposals of which each passes with p, p + p^2 + ... + p^K are accepted.
    """
    low_Q, high_Q = torch.zeros_like(share_Q), torch.ones_like(share_Q)
    power_K = torch.arange(1, lookahead + 1)
    for _ in range(HALVINGS):
        middle_Q = (low_Q + high_Q) / 2
        too_few_Q = (middle_Q[:, None] ** power_K).mean(1) < share_Q
        low_Q = torch.where(too_few_Q, middle_Q, low_Q)
        high_Q = torch.where(too_few_Q, high_Q, middle_Q)
    return high_Q


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
    left_QN: Tensor,
    limits: Sequence[int],
    patches: int,
    renorm_every: int,
    batch: int,
) -> Tensor:
    """Expected seconds of one round, given the distribution of what a sample has left.

    All samples propose as many patches as the one that may propose most, and where one of them is
    at an anchor all encode a window: both are questions about the extreme of `batch` samples.
    """
    done_Q = left_QN[:, 0]
    any_active_Q = (1.0 - done_Q**batch).clamp_min(1e-300)
    at = costs.at(batch * (1.0 - done_Q) / any_active_Q)
    limit_N = torch.tensor(limits[1:])
    seconds_Q, below_Q = torch.zeros_like(done_Q), done_Q
    for limit in range(int(limit_N.max()) + 1):
        within_Q = below_Q + left_QN[:, 1:][:, limit_N == limit].sum(1)
        seconds_Q = seconds_Q + (within_Q**batch - below_Q**batch) * at.round_QM[:, limit]
        below_Q = within_Q
    every = renorm_every or patches
    at_anchor_N = (patches - torch.arange(1, patches + 1)) % every == 0
    anchored_Q = left_QN[:, 1:][:, at_anchor_N].sum(1)
    return seconds_Q + (1.0 - (1.0 - anchored_Q) ** batch) * at.round_anchor_Q
