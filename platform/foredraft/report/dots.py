"""Trials and drafts as marks in a figure: plain information, nothing drawn.

Every complete trial is a dot. A study that still runs is shown as far as it has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from foredraft.report.tables import hover_cells, size_text
from foredraft.search.record import Point, Record
from foredraft.search.references import References

NEAREST = 1e-5
"""The least ratio that a logarithmic axis shows: a deviation of 0 has no logarithm."""


class Dot(NamedTuple):
    """One complete trial; speeds are factors over the target alone, rates are 0..1."""

    number: int
    scale: float | None
    acceptance: float
    predicted: float
    mse_ratio: float
    measured: float | None
    """None where it was not, or where that cannot be true"""
    low: float | None
    high: float | None
    feasible: bool
    on_front: bool
    hover: tuple[str, ...]
    """what hovering it tells (`tables.HOVER`), its number first"""
    pairs: int | None = None
    """timed; fewer than six have no interval, so that `low` and `high` are None"""
    deviation_ratio: float | None = None
    confirmed: bool = True
    """false where another point of the front is better in everything once both are measured"""


class DraftMark(NamedTuple):
    """A draft forecasting by itself, without the target; `labelled` where its size is written."""

    key: str
    scale: float | None
    size: str
    """its scale, depth and width in words"""
    speedup: float
    mse: float
    mse_ratio: float
    """over the target's under the study's reference policy"""
    labelled: bool
    policy: str = ""
    """the context policy, where the study compares several"""
    deviation_ratio: float | None = None
    """None of a study of before it was counted"""


class FrontInfo(NamedTuple):
    """Acceptance against speedup: the trials, their front, and what to compare them with."""

    dots: tuple[Dot, ...]
    front: tuple[tuple[float, float], ...]
    drafts: tuple[DraftMark, ...]
    ceiling: tuple[tuple[float, float], ...]
    stopped: tuple[Dot, ...] = ()
    """trials that were left undecoded, where the closed form puts them"""


class RatioInfo(NamedTuple):
    """What a budget may bound against speedup; marks of which it is not known are left out."""

    metric: str
    """mse_ratio or deviation_ratio, as the marks have it"""
    dots: tuple[Dot, ...]
    drafts: tuple[DraftMark, ...]
    bound: float | None
    """the largest that the study allows; None where it does not say"""
    log: bool

    def places(self, marks: Sequence[Dot | DraftMark]) -> list[float]:
        """Where marks stand; what is nearer than `NEAREST` stands there on a logarithmic axis."""
        values = [float(getattr(mark, self.metric)) for mark in marks]
        return [max(NEAREST, value) for value in values] if self.log else values


def dots_of(record: Record) -> tuple[Dot, ...]:
    """Every complete trial, in order."""
    return tuple(_dot(point) for point in record.complete)


def _dot(point: Point) -> Dot:
    outcome, standing = point.outcome, point.standing
    metrics = outcome.metrics
    measured = outcome.told if outcome.told and not outcome.told.doubt else None
    scale = point.trial.settings.get("scale")
    return Dot(
        number=point.trial.number,
        scale=float(scale) if scale is not None else None,
        acceptance=metrics.acceptance_rate,
        predicted=metrics.predicted_speedup,
        mse_ratio=metrics.mse_ratio or 0.0,
        deviation_ratio=outcome.deviation_ratio,
        measured=measured.speedup if measured else None,
        low=measured.speedup_low if measured else None,
        high=measured.speedup_high if measured else None,
        pairs=measured.pairs if measured else None,
        feasible=standing.feasible,
        on_front=standing.on_front,
        hover=hover_cells(point),
        confirmed=standing.confirmed is not False,
    )


def draft_marks(references: References | None) -> tuple[DraftMark, ...]:
    """Each draft alone, smallest first; only the fastest and the slowest are labelled."""
    if references is None:
        return ()
    drafts = sorted(references.drafts, key=lambda draft: (draft.scale or 0.0, draft.parameters))
    speeds = [draft.speedup_alone for draft in drafts]
    several = len(references.target.policies) > 1
    return tuple(
        DraftMark(
            key=draft.key,
            scale=draft.scale,
            size=size_text(draft),
            speedup=draft.speedup_alone,
            mse=draft.mse,
            mse_ratio=draft.mse_ratio,
            labelled=draft.speedup_alone in (max(speeds), min(speeds)),
            policy=draft.policy if several else "",
            deviation_ratio=draft.deviation_ratio,
        )
        for draft in drafts
    )


def front_info(record: Record) -> FrontInfo:
    """What `front_figure` shows; the front is that of the trials within the budget, if any is."""
    dots, references = dots_of(record), record.references
    ceiling = references.ceiling if references else ()
    return FrontInfo(
        dots=dots,
        front=staircase((dot.acceptance, dot.predicted) for dot in dots if dot.on_front),
        drafts=draft_marks(references),
        ceiling=tuple((point.acceptance, point.speedup) for point in ceiling),
        stopped=tuple(
            _dot(Point(one.trial.outcome, one))
            for one in record.standings
            if one.trial.outcome and one.trial.state == "pruned"
        ),
    )


def staircase(pairs: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The pairs that no other beats in both coordinates, by rising first coordinate.

    The front has three objectives; a trial may be on it for its accuracy alone, and a line through
    all of its points would run to and fro.
    """
    kept: list[tuple[float, float]] = []
    for pair in sorted(set(pairs), reverse=True):
        if not kept or pair[1] > kept[-1][1]:
            kept.append(pair)
    return tuple(reversed(kept))


def ratio_info(record: Record, metric: str) -> RatioInfo:
    """What `ratio_figure` shows; `log` where the ratios differ by a factor of more than 4."""
    dots = tuple(dot for dot in dots_of(record) if getattr(dot, metric) is not None)
    drafts = draft_marks(record.references)
    return RatioInfo(
        metric=metric,
        dots=dots,
        drafts=tuple(draft for draft in drafts if getattr(draft, metric) is not None),
        bound=record.study.budget.bounds.get(metric),
        log=is_wide([max(NEAREST, getattr(dot, metric)) for dot in dots]),
    )


def is_wide(values: Sequence[float | None]) -> bool:
    """Whether positive values differ by a factor of more than 4."""
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) / min(known) > 4
