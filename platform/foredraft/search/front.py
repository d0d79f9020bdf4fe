"""Pareto fronts as plain arithmetic: who is beaten, how much a front covers, where its knee is.

    keep = on_front([goals(outcome, objectives) for outcome in outcomes])
    volume = hypervolume(points, reference=(0.0, 0.0, 0.0))

A point is given by its goals, numbers of which each is better the higher it is; `goals` makes them
of what a trial came to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foredraft.search.trial import Outcome, Trial
from foredraft.settings.budgets import Budget
from foredraft.settings.study import OBJECTIVES

Goals = tuple[float, ...]


def goals(outcome: Outcome, objectives: Sequence[str]) -> Goals:
    """The objectives of a trial that was judged on windows, turned so that higher is better."""
    values = {name: outcome.objective(name) for name in objectives}
    return tuple(v if OBJECTIVES[name] == "max" else -v for name, v in values.items())


def beats(one: Goals, other: Goals) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def on_front(points: Sequence[Goals]) -> list[bool]:
    """Which points no other beats; of equal ones the first alone stands for all."""
    keep = [False] * len(points)
    front: list[Goals] = []
    # From the best in the first goal: who comes later beats none of those before.
    for index in sorted(range(len(points)), key=lambda index: points[index], reverse=True):
        point = points[index]
        if not any(other == point or beats(other, point) for other in front):
            front.append(point)
            keep[index] = True
    return keep


def hypervolume(points: Sequence[Goals], *, reference: Goals) -> float:
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


def knee(points: Sequence[Goals]) -> int | None:
    """The index of the front's point nearest to the best of everything; None without points.

    Each objective runs from 0, the worst on the front, to 1, the best; one in which all points
    agree does not count.
    """
    if not points:
        return None
    lows, highs = map(min, zip(*points, strict=True)), map(max, zip(*points, strict=True))
    spans = [(low, high) for low, high in zip(lows, highs, strict=True)]

    def distance(point: Goals) -> float:
        return sum(
            ((high - value) / (high - low)) ** 2
            for value, (low, high) in zip(point, spans, strict=True)
            if high > low
        )

    return min(range(len(points)), key=lambda index: distance(points[index]))


def hypervolume_of(budget: Budget) -> tuple[str, str, str]:
    """What the hypervolume of a study is made of, whatever it optimises."""
    return "acceptance_rate", "predicted_speedup", budget.first


def hypervolumes(trials: Iterable[Trial], *, budget: Budget) -> list[float]:
    """The hypervolume after each trial, from acceptance 0, speedup 0 and the budget's first bound.

    Only complete trials within the whole budget count, so that it never falls: in units of
    acceptance times speedup times what they leave of that bound.
    """
    objectives, worst = hypervolume_of(budget), -budget.bounds[budget.first]
    points: list[Goals] = []
    volumes = [0.0]
    for trial in trials:
        if trial.outcome and trial.is_within(budget):
            point = goals(trial.outcome, objectives)
            if not any(other == point or beats(other, point) for other in points):
                gained = _exclusive(point, points, reference=(0.0, 0.0, worst))
                points = [p for p in points if not beats(point, p)] + [point]
                volumes.append(volumes[-1] + gained)
                continue
        volumes.append(volumes[-1])
    return volumes[1:]


def _exclusive(point: Goals, points: Sequence[Goals], *, reference: Goals) -> float:
    """The volume that a point alone covers, beside those that do not beat it.

    What it shares with another is covered by the worse of both in every goal (While et al. 2012,
    the WFG algorithm): far fewer points are left of those than a whole front has.
    """
    shared = [tuple(map(min, point, other)) for other in points]
    worst = [one for one, keep in zip(shared, on_front(shared), strict=True) if keep]
    alone = hypervolume([point], reference=reference)
    return alone - hypervolume(worst, reference=reference)
