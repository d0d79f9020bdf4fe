"""Which point of a front a study recommends, or the target alone: plain arithmetic.

    index = favourite([Candidate(speedup=1.5, low=1.4, high=1.6, ratio=1.002)])

The fastest of several measured points is the luckiest of them too: its interval holds the truth
less often than it says. So points whose intervals overlap are taken as equally fast, the metric
that the budget bounds first decides among them, and the chosen one is timed once more
(`foredraft.search.confirm`). Where that does not establish a gain the study recommends the target
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from foredraft.settings.budgets import Budget, name_in_words


def rule_in_words(budget: Budget) -> str:
    """The rule by which a study with that budget chooses, as a report and best.json name it."""
    return (
        f"least {name_in_words(budget.first)} of the measured points within the budget "
        f"({budget.in_words}) whose speed cannot be told from the fastest's"
    )


TARGET_ALONE = "target alone"
"""What best.json says of a study in which nothing is faster."""
TOGETHER = "draft and target"


class Candidate(NamedTuple):
    """A point that may be chosen."""

    speedup: float
    low: float | None
    """None, as the other end, where it has no interval: it then overlaps by its speedup alone"""
    high: float | None
    ratio: float
    """the metric that the budget bounds first: mse_ratio, or deviation_ratio where that is all"""

    @property
    def least(self) -> float:
        """The low end."""
        return self.speedup if self.low is None else self.low

    @property
    def most(self) -> float:
        """The high end."""
        return self.speedup if self.high is None else self.high


def favourite(candidates: Sequence[Candidate]) -> int | None:
    """The index of that of least ratio among those whose intervals overlap the fastest's.

    Of equal ratios the faster; None without candidates. Where some are established to be faster
    than the target alone, one that is not is no rival, however low its ratio.
    """
    if not candidates:
        return None
    faster = [index for index, one in enumerate(candidates) if is_faster(one.speedup, one.low)]
    rivals = faster or range(len(candidates))
    fastest = max((candidates[index] for index in rivals), key=lambda one: one.speedup)
    near = [index for index in rivals if candidates[index].most >= fastest.least]
    return min(near, key=lambda index: (candidates[index].ratio, -candidates[index].speedup))


def is_faster(speedup: float, low: float | None) -> bool:
    """Whether a gain is established: the low end of the interval is above 1.

    The median alone would not do: of a draft that gains nothing it is above 1 half of the time,
    while speculation costs accuracy and a second model whatever it gains. Where there are too few
    pairs for an interval, or nothing was measured yet, the speedup is all there is.
    """
    return (speedup if low is None else low) > 1.0
