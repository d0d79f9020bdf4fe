"""Which point of a front a study recommends: plain arithmetic on what was measured.

    index = favourite([Candidate(speedup=1.5, low=1.4, high=1.6, mse_ratio=1.002)])

The fastest of several measured points is the luckiest of them too: its interval holds the truth
less often than it says. So points whose intervals overlap are taken as equally fast, accuracy
decides among them, and the chosen one is timed once more (`foredraft.search.confirm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WORDS = (
    "most accurate of the measured points within the accuracy budget whose speed cannot be told "
    "from the fastest's"
)
"""The rule, as a report and best.json name it."""


class Candidate(NamedTuple):
    """A point that may be chosen."""

    speedup: float
    low: float | None
    """None, as the other end, where it has no interval: it then overlaps by its speedup alone"""
    high: float | None
    mse_ratio: float


def favourite(candidates: Sequence[Candidate]) -> int | None:
    """The index of the most accurate among those whose intervals overlap the fastest's.

    Of equally accurate ones the faster; None without candidates.
    """
    if not candidates:
        return None
    fastest = max(candidates, key=lambda one: one.speedup)
    least = fastest.speedup if fastest.low is None else fastest.low
    near = [
        index
        for index, one in enumerate(candidates)
        if (one.speedup if one.high is None else one.high) >= least
    ]
    return min(near, key=lambda index: (candidates[index].mse_ratio, -candidates[index].speedup))
