"""How many patches a round proposes: what a pair's passes cost against what its samples accept.

    plan = Plan(costs, pass_rates)
    speculation = speculate(target, draft, context, horizon=720, acceptance=rule, plan=plan)

A plan knows prices and chances from before. While it decodes, each sample's own record counts
beside them, and every round is given the lookahead at which the batch gains most patches per
second. None is among the choices: a round without proposals is a step of the target alone.

Shapes: B batch, A samples kept, K longest lookahead.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from speculation.cost import PassCosts, predicted_speedup

# Below this predicted speedup the target goes alone: a gain that small is within the prediction's
# own error, and a loss is not wanted at any price (at 1.03 one of 20 cells measured came to 0.88x).
WORTHWHILE = 1.05
# Proposals for which the pass rates of a plan count, against those that a sample has shown.
WEIGHT = 8.0


@dataclass(frozen=True)
class Plan:
    """What is known of a pair, a rule and a device before decoding."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field

    costs: PassCosts
    """seconds of the passes, on this device under this policy"""
    pass_rates: tuple[float, ...]
    """per position, how often a proposal was accepted when all before it were, on other data"""

    @property
    def longest(self) -> int:
        """The longest lookahead that both are known for."""
        return min(self.costs.lookahead, len(self.pass_rates))

    def best(self, *, patches: int, renorm_every: int = 0, batch: int = 1) -> tuple[int, float]:
        """The lookahead of the highest predicted speedup, and that; 0 and 1.0 where none pays."""
        return _best(self, patches, renorm_every, batch)


@functools.lru_cache(maxsize=1024)
def _best(plan: Plan, patches: int, renorm_every: int, batch: int) -> tuple[int, float]:
    speedups = [
        predicted_speedup(
            plan.costs,
            plan.pass_rates,
            lookahead=lookahead,
            patches=patches,
            renorm_every=renorm_every,
            batch=batch,
        )
        for lookahead in range(1, plan.longest + 1)
    ]
    best = max(speedups, default=0.0)
    return (speedups.index(best) + 1, best) if best >= WORTHWHILE else (0, 1.0)


class Lookahead:
    """The lookahead of each round of one decoding, from a plan and each sample's own record."""

    def __init__(self, plan: Plan, *, room_B: Tensor, longest: int) -> None:
        """Begin with empty records.

        Args:
            plan: what is known from before.
            room_B: patches that each sample may emit in its first round.
            longest: the rule's lookahead; 0 to propose nothing.
        """
        self.plan, self.longest, self.room_B = plan, min(longest, plan.longest), room_B
        self.rates_K = torch.tensor(plan.pass_rates[: self.longest], dtype=torch.float64)
        self.tested_B, self.accepted_B = torch.zeros(2, len(room_B), dtype=torch.float64)

    def choose(self, room_B: Tensor) -> int:
        """Patches to propose, given those that each sample may still emit before it must stop.

        Sums over the batch what each lookahead is expected to emit, and divides by its seconds.
        """
        if not self.longest:
            return 0
        weighed_BK = WEIGHT * self.rates_K + self.accepted_B[:, None]
        survival_BK = (weighed_BK / (WEIGHT + self.tested_B)[:, None]).cumprod(1)
        position_K = torch.arange(1, self.longest + 1)
        gained_BK = (survival_BK * (position_K < room_B[:, None])).cumsum(1)
        costs = self.plan.costs.at(torch.tensor([len(room_B)]))
        rates = (len(room_B) + gained_BK.sum(0)) / costs.round_QM[0, 1 : self.longest + 1]
        best = int(rates.argmax())
        return best + 1 if float(rates[best] * costs.step_Q) > len(room_B) else 0

    def observe(self, limit_B: Tensor, accepted_B: Tensor) -> None:
        """Add a round to the samples' records: what was judged before and at its rejection."""
        self.tested_B += torch.minimum(accepted_B + 1, limit_B)
        self.accepted_B += accepted_B

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        self.tested_B, self.accepted_B = self.tested_B[index_A], self.accepted_B[index_A]
