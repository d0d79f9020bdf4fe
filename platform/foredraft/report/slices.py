"""Each searched setting against speed, and acceptance against scale: as information and drawn."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from foredraft.report.axes import Axis, ticks_of
from foredraft.report.look import GREY, SCALES, dress
from foredraft.report.overlay import COLOURS, MARKS
from foredraft.search.record import Point

READING = (
    "Every dot is a complete trial, in each panel at its own value of one setting; the lighter, "
    "the more of its proposals were accepted. A cloud that rises or falls tells that the setting "
    "decides; one that lies flat tells that it does not matter here."
)
SCALE_READING = (
    "Each dot is a complete trial, the line joins the medians of a scale: what a larger draft adds "
    "to acceptance, for each way to train one. Trials differ in their rules too, which is why the "
    "dots of one scale spread."
)


class SlicesInfo(NamedTuple):
    """A panel for each searched setting that differs; `axes` as in the parallel view."""

    axes: tuple[Axis, ...]
    speedups: tuple[float, ...]
    acceptances: tuple[float, ...]
    numbers: tuple[int, ...]


def slices_info(points: Sequence[Point], axes: Sequence[Axis]) -> SlicesInfo:
    """What `slices_figure` shows of trials and the axes of their settings, in the same order."""
    metrics = [point.outcome.metrics for point in points]
    return SlicesInfo(
        axes=tuple(axis for axis in axes if axis.name.startswith("settings.")),
        speedups=tuple(one.predicted_speedup for one in metrics),
        acceptances=tuple(one.acceptance_rate for one in metrics),
        numbers=tuple(point.trial.number for point in points),
    )


def slices_figure(info: SlicesInfo) -> go.Figure:
    """Speedup over each setting, in panels of one height."""
    columns = 4
    rows = max(1, math.ceil(len(info.axes) / columns))
    height = 120 + 230 * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=95 / height if rows > 1 else 0,
    )
    for place, axis in enumerate(info.axes):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        _add_slice(figure, info, axis, cell)
    dress(figure, height, ())
    figure.update_yaxes(ticksuffix="×")
    for row in range(1, rows + 1):
        figure.update_yaxes(title="speedup", row=row, col=1)
    return figure.update_layout(
        showlegend=False,
        coloraxis={
            "colorscale": SCALES,
            "cmin": min(info.acceptances, default=0.0),
            "cmax": max(info.acceptances, default=1.0),
            "showscale": True,
            "colorbar": {
                "title": {"text": "accepted", "side": "top", "font": {"size": 12}},
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.0,
                "yanchor": "bottom",
                "len": 0.3,
                "thickness": 7,
                "outlinewidth": 0,
                "tickformat": ".0%",
            },
        },
    )


def _add_slice(figure: go.Figure, info: SlicesInfo, axis: Axis, cell: dict[str, int]) -> None:
    known = [
        (value, *rest)
        for value, *rest in zip(
            axis.values, info.speedups, info.acceptances, info.numbers, strict=True
        )
        if value is not None
    ]
    spread = random.Random(0)
    # What is no quantity stands side by side, each a little off its place so that all are seen.
    places = [v + spread.uniform(-0.25, 0.25) if axis.categories else v for v, *_ in known]
    figure.add_scatter(
        x=[float(f"{place:.4g}") for place in places],
        y=[float(f"{speed:.4g}") for _, speed, _, _ in known],
        mode="markers",
        marker={
            "size": 5,
            "opacity": 0.75,
            "color": [float(f"{accepted:.3g}") for _, _, accepted, _ in known],
            "coloraxis": "coloraxis",
        },
        customdata=[number for *_, number in known],
        hovertemplate="trial %{customdata}: %{y:.2f}×<extra></extra>",
        **cell,
    )
    options: dict[str, object] = {"title": axis.label, "title_standoff": 8, **cell}
    if axis.categories:
        options |= {
            "tickvals": list(range(len(axis.categories))),
            "ticktext": list(axis.categories),
            "range": [-0.6, len(axis.categories) - 0.4],
        }
    elif axis.log:
        low, high = (math.log10(f(v for v, *_ in known)) for f in (min, max))
        ticks = ticks_of(axis, low, high)
        options |= {
            "type": "log",
            "tickvals": [10**place for place, _ in ticks],
            "ticktext": [text for _, text in ticks],
        }
    figure.update_xaxes(**options)


class ScaleLine(NamedTuple):
    """The trials of one way to train: scale, acceptance and number of each."""

    stages: str
    scales: tuple[float, ...]
    acceptances: tuple[float, ...]
    numbers: tuple[int, ...]

    @property
    def medians(self) -> tuple[tuple[float, float], ...]:
        """The median acceptance at each scale."""
        pairs = list(zip(self.scales, self.acceptances, strict=True))
        return tuple(
            (scale, statistics.median(a for s, a in pairs if s == scale))
            for scale in sorted(set(self.scales))
        )


class ScaleInfo(NamedTuple):
    """Acceptance against scale, a line for each way to train."""

    lines: tuple[ScaleLine, ...]


def scale_info(points: Sequence[Point]) -> ScaleInfo:
    """What `scale_figure` shows; drafts without a scale are left out."""
    by_stages: dict[str, list[Point]] = {}
    for point in points:
        own = point.trial.settings
        if own.get("scale") is not None:
            by_stages.setdefault(str(own.get("stages") or "all drafts"), []).append(point)
    return ScaleInfo(
        tuple(
            ScaleLine(
                stages=stages,
                scales=tuple(float(p.trial.settings["scale"] or 0) for p in found),
                acceptances=tuple(p.outcome.metrics.acceptance_rate for p in found),
                numbers=tuple(p.trial.number for p in found),
            )
            for stages, found in sorted(by_stages.items())
        )
    )


def scale_figure(info: ScaleInfo) -> go.Figure:
    """Acceptance over draft scale, a colour for each way to train."""
    figure = go.Figure()
    for place, line in enumerate(info.lines):
        look = {"color": COLOURS[place % len(COLOURS)], "symbol": MARKS[place % len(MARKS)]}
        figure.add_scatter(
            x=line.scales,
            y=line.acceptances,
            mode="markers",
            name=line.stages,
            legendgroup=line.stages,
            showlegend=False,
            marker={**look, "size": 6, "opacity": 0.45},
            customdata=line.numbers,
            hovertemplate="trial %{customdata}: %{y:.1%}<extra></extra>",
        )
        figure.add_scatter(
            x=[scale for scale, _ in line.medians],
            y=[median for _, median in line.medians],
            mode="lines+markers",
            name=line.stages,
            legendgroup=line.stages,
            line={"color": look["color"], "width": 2},
            marker={**look, "size": 9},
            hovertemplate="median of %{x}: %{y:.1%}<extra></extra>",
        )
    figure.update_xaxes(title="draft scale, as a share of the target")
    figure.update_yaxes(title="acceptance rate", tickformat=".0%")
    dress(figure, 400, ())
    return figure.update_layout(legend_font_color=GREY)
