"""Trials as text and tables: what a trial, a draft or a failure is in words and figures.

Pure functions from plain values to text; whoever puts them into a page escapes them
(`foredraft.report.page`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from foredraft.redaction import redacted
from foredraft.search.record import Point, Record
from foredraft.search.references import DraftAlone, References
from foredraft.search.trial import Interval, Scalar, Sizes, Trial
from foredraft.settings.drafts import FACTORS

SYMBOLS = {
    "depth": "depth",
    "width": "width",
    "rule": "",
    "sigma": "σ",
    "bias": "bias",
    "mse_tol": "tol",
    "lookahead": "K",
}


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; `numeric` columns are set to the right, row `best` stands out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    best: int | None = None
    note: str = ""


def number(value: object, *, digits: int = 3, unit: str = "") -> str:
    """A number with fixed digits after the point, an en dash for one that is missing."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}{unit}"


def percent(value: object) -> str:
    """A fraction as per cent, with one digit after the point."""
    known = isinstance(value, int | float)
    return number(value * 100 if known else None, digits=1, unit=" %")  # type: ignore[operator]


def quantity(value: object) -> str:
    """A count in thousands (k) or millions (M) to three figures, as parameter counts are told."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def plural(count: int, noun: str) -> str:
    """'1 trial', '2 trials'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def setting_text(value: object) -> str:
    """A setting as a person would write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measured_text(point: Point) -> str:
    """A measured speedup with its 95 % interval where it has one, or an en dash."""
    measured = point.outcome.told
    if measured is None:
        return "–"
    fell = ", fell off the front" if point.standing.confirmed is False else ""
    doubted = ", not believed" if measured.doubt else ""
    return f"{measured.in_words(unit='×')}{doubted}{fell}"


def counted_text(text: str, interval: Interval | None, *, factor: float, digits: int) -> str:
    """A figure with its bootstrap interval over windows, where it has one."""
    if interval is None:
        return text
    low, high = (number(factor * end, digits=digits) for end in (interval.low, interval.high))
    return f"{text} [{low}, {high}]"


def _acceptance_text(point: Point) -> str:
    metrics = point.outcome.metrics
    text = percent(metrics.acceptance_rate)
    return counted_text(text, metrics.acceptance_interval, factor=100.0, digits=1)


def _ratio_text(point: Point) -> str:
    metrics = point.outcome.metrics
    text = number(metrics.mse_ratio)
    return counted_text(text, metrics.mse_ratio_interval, factor=1.0, digits=3)


def interval_text(low: float | None, high: float | None, *, pairs: int | None) -> str:
    """The 95 % interval of a measured speedup; of pairs that are too few, how many they were."""
    if low is None or high is None:
        return f"{plural(pairs or 0, 'pair')}, too few for an interval"
    return f"95 % interval {number(low, digits=2)} to {number(high, digits=2)}"


def test_text(point: Point) -> str:
    """The error ratio on the test split, marked where it is not what the search saw."""
    test = point.outcome.test
    return number(test.mse_ratio) + (" (differs)" if test.differs else "") if test else "–"


def size_text(draft: DraftAlone, *, unit: str = "×") -> str:
    """By which factors a draft is smaller than its target: '0.50×, depth 0.25'; or '7 heads'."""
    if draft.hidden is not None:
        return f"{draft.patches_out} heads"
    parts = [number(draft.scale, digits=2, unit=unit)] if draft.scale is not None else []
    named = {"depth": draft.depth, "width": draft.width}
    parts += [f"{name} {number(own, digits=2)}" for name, own in named.items() if own is not None]
    return ", ".join(parts) or "unscaled"


def architecture_text(sizes: Sizes) -> str:
    """Layers, width, heads and feed-forward width, as far as the family has them.

    Of a draft that is no model, how many heads it has, and the width of the layer that they share.
    """
    if sizes.hidden is not None:
        return f"{sizes.patches_out} heads, {sizes.hidden} wide"
    if sizes.d_model is None:
        return "–"
    return f"{sizes.n_layers}×{sizes.d_model}, {sizes.n_heads} heads, ff {sizes.d_ff}"


# The order in which a reader asks: how well, how fast, how exact, at what cost.
CELLS: dict[str, Callable[[Point], str]] = {
    "accepted": _acceptance_text,
    "accept length": lambda p: number(p.outcome.metrics.accept_length, digits=2),
    "predicted": lambda p: number(p.outcome.metrics.predicted_speedup, digits=2, unit="×"),
    "measured": measured_text,
    "mse": lambda p: number(p.outcome.metrics.mse, digits=4),
    "mae": lambda p: number(p.outcome.metrics.mae, digits=4),
    "mse ratio": _ratio_text,
    "on test": test_text,
    "deviation": lambda p: number(p.outcome.metrics.deviation, digits=5),
    "deviation ratio": lambda p: number(p.outcome.deviation_ratio, digits=4),
    "parameters": lambda p: quantity(p.outcome.draft.parameters),
    "took": lambda p: number(p.trial.seconds, digits=1, unit=" s"),
    "draft": lambda p: architecture_text(p.outcome.draft.architecture),
}
"""What is shown of a complete trial, by the name of its row or column."""
FRONT_COLUMNS = (
    *("draft", "parameters", "accepted", "accept length", "predicted", "measured"),
    *("mse", "mse ratio", "on test", "deviation ratio"),
)


BRIEF = ("accepted", "predicted", "measured", "mse ratio", "deviation ratio")
"""What hovering a trial tells in the figures beside the front's, which tells all."""


def _template(labels: Sequence[str], *more: str) -> str:
    width = max(map(len, labels))
    lines = [
        # Plotly folds ordinary spaces; these stay.
        f"<br>{label.ljust(width)}  %{{customdata[{place}]}}".replace(" ", "\u00a0")
        for place, label in enumerate(labels, start=2)
    ]
    return "".join(
        ["<b>Trial %{customdata[0]}</b>%{customdata[1]}", *lines, *more, "<extra></extra>"]
    )


HOVER = _template(list(CELLS), f"<br>%{{customdata[{len(CELLS) + 2}]}}")
"""What hovering a trial tells, as a figure's template of its `hover_cells`: said once a trace."""
HOVER_BRIEFLY = _template(BRIEF)
"""The same of what `briefly` leaves of them."""


def briefly(cells: Sequence[str]) -> tuple[str, ...]:
    """The `hover_cells` of which `HOVER_BRIEFLY` tells."""
    number_, verdict, *others = cells
    told = dict(zip(CELLS, others, strict=False))
    return number_, verdict, *(told[label] for label in BRIEF)


def hover_cells(point: Point) -> tuple[str, ...]:
    """A trial for `HOVER`: its number, verdict, every cell, and all of its settings."""
    verdict = "" if point.standing.feasible else f" ({shortcoming(point)})"
    told = [f"{name} {setting_text(value)}" for name, value in settings_of(point.trial).items()]
    lines = [" · ".join(told[start : start + 3]) for start in range(0, len(told), 3)]
    cells = (escape(show(point)) for show in CELLS.values())
    settings = "<br>".join(map(escape, lines))
    return str(point.trial.number), verdict, *cells, settings


def shortcoming(point: Point) -> str:
    """Why a trial may not be chosen: it was stopped early, or is over the budget."""
    return "stopped early, by the closed form" if point.outcome.stopped else "over the budget"


def settings_of(trial: Trial) -> dict[str, Scalar]:
    """The settings that apply to a trial."""
    return {name: value for name, value in trial.settings.items() if value is not None}


def front_table(record: Record) -> Table:
    """The front by rising acceptance; settings that all of its trials share go into the note."""
    points = sorted(record.front, key=lambda point: point.outcome.metrics.acceptance_rate)
    settings = [settings_of(point.trial) for point in points]
    names = sorted({name for own in settings for name in own} - {"scale"}, key=_setting_place)
    varied = [name for name in names if len({own.get(name) for own in settings}) > 1]
    shared = ", ".join(
        f"{name} {setting_text(settings[0][name])}" for name in names if name not in varied
    )
    texts = ("trial", "settings", "draft", "measured")
    scaled = ("scale",) if any("scale" in own for own in settings) else ()
    columns = ("trial", *scaled, "settings", *FRONT_COLUMNS)
    choice = record.choice
    return Table(
        columns=columns,
        rows=tuple(_front_row(point, varied, scaled=bool(scaled)) for point in points),
        numeric=frozenset(columns) - frozenset(texts),
        best=points.index(choice) if choice else None,
        note=f"The same for all of them: {shared}." if shared else "",
    )


def _front_row(point: Point, varied: Sequence[str], *, scaled: bool) -> tuple[str, ...]:
    own = settings_of(point.trial)
    settings = " · ".join(
        f"{SYMBOLS.get(name, name)} {setting_text(own[name])}".strip()
        for name in varied
        if name in own
    )
    cells = (CELLS[name](point) for name in FRONT_COLUMNS)
    scale = (number(own.get("scale"), digits=2),) if scaled else ()
    return (str(point.trial.number), *scale, settings, *cells)


def _setting_place(name: str) -> tuple[int, str]:
    known = list(SYMBOLS)
    return known.index(name) if name in known else len(known), name


def drafts_table(references: References) -> Table:
    """The target, seasonal naive and every trained draft, each forecasting alone."""
    target = references.target
    several = len(target.policies) > 1
    errors = target.policies if several else {"": target}
    rows = [
        (
            f"target, {policy}" if several else "target",
            quantity(target.parameters),
            architecture_text(target),
            *(number(own.mse, digits=4), number(own.mae, digits=4)),
            number(own.mse / target.mse),
            number(0.0 if own.mse == target.mse else None, digits=4),
            number(1.0, digits=2, unit="×"),
            target.key[:12],
        )
        for policy, own in errors.items()
    ]
    if naive := target.naive:
        ratio = naive.mse / target.mse
        rows.append(
            (
                f"seasonal naive, season {naive.season}",
                *("–", "–"),
                *(number(naive.mse, digits=4), number(naive.mae, digits=4), number(ratio)),
                *("–", "–", ""),
            )
        )
    rows += [
        (
            f"draft {size_text(draft, unit='')}" + (f", {draft.policy}" if several else ""),
            quantity(draft.parameters),
            architecture_text(draft),
            *(number(draft.mse, digits=4), number(draft.mae, digits=4), number(draft.mse_ratio)),
            number(draft.deviation_ratio, digits=4),
            number(draft.speedup_alone, digits=2, unit="×"),
            draft.key[:12],
        )
        for draft in sorted(
            references.drafts, key=lambda draft: (-(draft.scale or 0.0), -draft.parameters)
        )
    ]
    columns = (
        *("model", "parameters", "layers × width"),
        *("mse", "mae", "mse ratio", "deviation ratio", "speed alone"),
    )
    numeric = frozenset(columns) - {"model", "layers × width"}
    return Table((*columns, "key"), tuple(rows), numeric)


def failures_table(trials: Iterable[Trial]) -> Table:
    """The trials that failed, with what sized their drafts, and the error of each."""
    failed = {trial.number: (trial.settings, trial.error) for trial in trials if trial.error}
    factors = [n for n in FACTORS if any(own.get(n) is not None for own, _ in failed.values())]
    rows = [
        (str(place), *(number(own.get(n), digits=2) for n in factors), redacted(error))
        for place, (own, error) in failed.items()
    ]
    return Table(("trial", *factors, "error"), tuple(rows), frozenset({"trial", *factors}))
