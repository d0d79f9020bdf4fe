"""Pareto fronts as plain arithmetic: who is beaten, how much a front covers, where its knee is.

    keep = on_front([goals(row, objectives) for row in rows])
    covered = hypervolume(points, reference=(0.0, 0.0, 0.0))

A point is a tuple of numbers, each better the higher it is; `goals` turns a row into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foredraft.settings.study import OBJECTIVES

Point = tuple[float, ...]


def goals(row: Mapping[str, Any], objectives: Sequence[str]) -> Point:
    """A row's objectives, each turned so that higher is better."""
    return tuple(row[n] if OBJECTIVES[n] == "max" else -row[n] for n in objectives)


def beats(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def on_front(points: Sequence[Point]) -> list[bool]:
    """Which points no other beats; of equal ones the first alone stands for all."""
    seen: set[Point] = set()
    keep = []
    for point in points:
        keep.append(point not in seen and not any(beats(other, point) for other in points))
        seen.add(point)
    return keep


def hypervolume(points: Sequence[Point], *, reference: Point) -> float:
    """The volume between `reference` and the points, each better than it in every objective.

    Exact, by slices along the last objective (While et al. 2006, the HSO algorithm); meant for the
    hundreds of points of a study.
    """
    inside = {p for p in points if all(a > r for a, r in zip(p, reference, strict=True))}
    if not inside:
        return 0.0
    if len(reference) == 1:
        return max(p[0] for p in inside) - reference[0]
    volume = 0.0
    levels = sorted({p[-1] for p in inside}, reverse=True)
    for level, below in zip(levels, [*levels[1:], reference[-1]], strict=True):
        slice_ = [p[:-1] for p in inside if p[-1] >= level]
        volume += hypervolume(slice_, reference=reference[:-1]) * (level - below)
    return volume


def knee(points: Sequence[Point]) -> int | None:
    """The index of the front's point nearest to the best of everything; None without points.

    Each objective runs from 0, the worst on the front, to 1, the best; one in which all points
    agree does not count.
    """
    if not points:
        return None
    lows, highs = map(min, zip(*points, strict=True)), map(max, zip(*points, strict=True))
    spans = [(low, high) for low, high in zip(lows, highs, strict=True)]

    def distance(point: Point) -> float:
        return sum(
            ((high - value) / (high - low)) ** 2
            for value, (low, high) in zip(point, spans, strict=True)
            if high > low
        )

    return min(range(len(points)), key=lambda index: distance(points[index]))


QUALITY = ("acceptance_rate", "predicted_speedup", "mse_ratio")
"""What the hypervolume of a study is made of, whatever it optimises."""


def quality(rows: Sequence[Mapping[str, Any]], *, budget: float) -> list[float]:
    """The hypervolume after each trial, from acceptance 0, speedup 0 and the accuracy budget.

    Only finished trials within the budget count, so that it never falls: in units of acceptance
    times speedup times the part of the target's error that was saved, the budget's included.
    """
    points: list[Point] = []
    covered = [0.0]
    for row in rows:
        if row.get("state") == "complete":
            point = goals(row, QUALITY)
            if not any(other == point or beats(other, point) for other in points):
                points = [p for p in points if not beats(point, p)] + [point]
                covered.append(hypervolume(points, reference=(0.0, 0.0, -budget)))
                continue
        covered.append(covered[-1])
    return covered[1:]
