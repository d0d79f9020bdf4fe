"""Which settings pay: a line for each trial through all of them, as information and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from plotly import graph_objects as go

from foredraft.report.dots import is_wide
from foredraft.report.look import ACCENT, GREY, dress
from foredraft.report.tables import setting_text
from foredraft.search.record import Point
from foredraft.search.trial import Scalar
from foredraft.settings.budgets import Budget, name_in_words

SPEEDS = [[0.0, "#d5dade"], [0.5, "#f4b183"], [1.0, ACCENT]]
# The settings in the order in which a reader asks for them, by their names in a figure; whatever
# else a study searches comes after them under its own name.
SETTING_LABELS = {
    "scale": "draft scale",
    "depth": "draft depth",
    "width": "draft width",
    "stages": "stages",
    "rule": "rule",
    "lookahead": "lookahead",
    "patches_out": "patches out",
    "sigma": "σ",
    "bias": "bias",
    "mse_tol": "mse tolerance",
    "context_policy": "context policy",
    "renorm_every": "renorm every",
    "scope": "scope",
    "quorum": "quorum",
    "adapt": "adapt",
}
LOGARITHMIC = {"sigma", "bias", "mse_tol"}


class Axis(NamedTuple):
    """One axis of the parallel view; `categories` names the values of one that is no quantity."""

    name: str
    label: str
    values: tuple[float | None, ...]
    log: bool = False
    unit: str = ""
    categories: tuple[str, ...] = ()


class SettingsInfo(NamedTuple):
    """Settings beside what they led to; `speedups` colours the line of each trial."""

    points: tuple[Point, ...]
    """the trials, the fastest last, as the values of the axes are"""
    axes: tuple[Axis, ...]
    speedups: tuple[float, ...]


def settings_info(points: Sequence[Point]) -> SettingsInfo:
    """What `settings_figure` shows; what is the same for all trials is left out."""
    # The fastest are drawn last, over the others.
    ordered = sorted(points, key=lambda point: point.outcome.metrics.predicted_speedup)
    settings = [point.trial.settings for point in ordered]
    metrics = [point.outcome.metrics for point in ordered]
    names = {name for own in settings for name in own}
    ratios = [point.outcome.ratios for point in ordered]
    candidates = (
        *(
            _setting_axis(name, [own.get(name) for own in settings])
            for name in [*SETTING_LABELS, *sorted(names - set(SETTING_LABELS))]
        ),
        _axis("acceptance_rate", "accepted", [one.acceptance_rate for one in metrics]),
        _axis("predicted_speedup", "speedup", [m.predicted_speedup for m in metrics], unit="×"),
        *(_ratio_axis(name, [own[name] for own in ratios]) for name in Budget.model_fields),
    )
    axes = tuple(axis for axis in candidates if len(set(axis.values)) > 1)
    return SettingsInfo(tuple(ordered), axes, tuple(one.predicted_speedup for one in metrics))


def _ratio_axis(name: str, values: Sequence[float | None]) -> Axis:
    return _axis(name, name_in_words(name), values, log=is_wide(values))


def _setting_axis(name: str, values: Sequence[Scalar]) -> Axis:
    label = SETTING_LABELS.get(name, name.replace("_", " "))
    return _axis(f"settings.{name}", label, values, log=name in LOGARITHMIC)


def _axis(
    name: str, label: str, values: Sequence[Scalar], *, log: bool = False, unit: str = ""
) -> Axis:
    if any(isinstance(value, bool | str) for value in values):
        texts = [None if value is None else setting_text(value) for value in values]
        names = tuple(sorted({text for text in texts if text is not None}))
        places = tuple(None if text is None else names.index(text) for text in texts)
        return Axis(name, label, places, categories=names)
    numbers = [float(value) if value is not None else None for value in values]
    # A logarithm has no place for zero, which searches do use for "no tolerance".
    kept = tuple(None if log and v is not None and v <= 0 else v for v in numbers)
    return Axis(name, label, kept, log, unit)


def settings_figure(info: SettingsInfo) -> go.Figure:
    """One line for each trial through its settings and what they led to."""
    figure = go.Figure()
    figure.add_parcoords(
        dimensions=[_dimension(axis) for axis in info.axes],
        line={"color": info.speedups, "colorscale": SPEEDS},
        labelfont={"size": 13, "color": GREY},
        tickfont={"size": 11, "color": GREY},
        # The ends of an axis are told in its own unit by its ticks, not as logarithms.
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
    )
    dress(figure, 460, ())
    return figure.update_layout(margin={"l": 72, "r": 48, "t": 80, "b": 24})


def _dimension(axis: Axis) -> dict[str, object]:
    known = [math.log10(v) if axis.log else v for v in axis.values if v is not None]
    low, high = min(known), max(known)
    missing = low - 0.15 * ((high - low) or 1.0)
    drawn = iter(known)
    ticks = ticks_of(axis, low, high)
    if len(known) < len(axis.values):
        ticks = [(missing, "not used"), *ticks]
    return {
        "label": axis.label,
        "values": [missing if value is None else next(drawn) for value in axis.values],
        "range": [min(missing, low) if len(known) < len(axis.values) else low, high],
        "tickvals": [place for place, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }


def ticks_of(axis: Axis, low: float, high: float) -> list[tuple[float, str]]:
    """Place and text of each tick from `low` to `high`, which are logarithms of a log axis."""
    if axis.categories:
        return [(float(place), name) for place, name in enumerate(axis.categories)]
    distinct = sorted({value for value in axis.values if value is not None})
    if len(distinct) <= 8:
        return [(math.log10(v) if axis.log else v, f"{v:.4g}{axis.unit}") for v in distinct]
    if axis.log and high - low > 1:
        decades = range(math.ceil(low), math.floor(high) + 1)
        return [(float(power), f"{10.0**power:g}{axis.unit}") for power in decades]
    low, high = (10**low, 10**high) if axis.log else (low, high)
    # The smallest of 1, 2, 5 times a power of ten that makes at most six steps.
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    values = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(math.log10(v) if axis.log else v, f"{v:.6g}{axis.unit}") for v in values]
