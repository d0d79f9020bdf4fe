"""Forecasts of a few windows: the truth, the target's own, and what a pair makes of it, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from foredraft.report.look import ACCENT, GREY, dress
from foredraft.search.examples import Example

READING = (
    "Grey is what happened, blue the target's own forecast, orange the speculative one; where blue "
    "cannot be seen, the two are the same. The strip below says of each patch whether the draft's "
    "proposal was accepted (grey) or the target gave it (orange). Values are standardised by the "
    "training split."
)
BLUE = "#4c86d9"
STRIP = 0.09
"""Height of the strip of patches, as a share of a panel's."""


class Panel(NamedTuple):
    """One variate of one window."""

    title: str
    context: tuple[float, ...]
    """what was read last"""
    truth: tuple[float | None, ...]
    """None where nothing was observed"""
    target: tuple[float, ...]
    forecast: tuple[float, ...]
    accepted: tuple[bool, ...]
    """of each patch, whether the draft proposed it"""


class ForecastsInfo(NamedTuple):
    """What is drawn."""

    panels: tuple[Panel, ...]
    patch: int
    """steps of a patch"""


def forecasts_info(
    example: Example, *, windows: Iterable[int], variates: Iterable[int]
) -> ForecastsInfo:
    """A panel for each of the kept windows and variates asked for, by their places from 0."""
    chosen = [(w, c) for c in variates for w in windows]
    return ForecastsInfo(tuple(_panel(example, w, c) for w, c in chosen), example.patch)


def _panel(example: Example, window: int, variate: int) -> Panel:
    at = (window, slice(None), variate)
    number = f"window {example.windows[window] + 1} of {example.of}"
    return Panel(
        title=f"{example.variates[window][variate]}, {number}",
        context=_finite(example.context_WTC[at]),  # type: ignore[arg-type]
        truth=_finite(example.truth_WHC[at]),
        target=_finite(example.target_WHC[at]),  # type: ignore[arg-type]
        forecast=_finite(example.forecast_WHC[at]),  # type: ignore[arg-type]
        accepted=tuple(example.accepted_WN[window].tolist()),
    )


def _finite(values_T: npt.NDArray[np.float32]) -> tuple[float | None, ...]:
    return tuple(round(value, 3) if np.isfinite(value) else None for value in values_T.tolist())


def forecasts_figure(info: ForecastsInfo, *, columns: int = 1, height: int = 300) -> go.Figure:
    """The panels beside each other, each above the strip of its patches.

    Args:
        info: what is drawn.
        columns: panels beside each other.
        height: of a row of panels, in pixels.
    """
    rows = -(-len(info.panels) // columns)
    figure = make_subplots(
        rows=2 * rows,
        cols=columns,
        shared_xaxes="columns",
        row_heights=[1 - STRIP, STRIP] * rows,
        vertical_spacing=0.06 / rows,
        horizontal_spacing=0.08,
    )
    for place, panel in enumerate(info.panels):
        row, column = 2 * (place // columns) + 1, place % columns + 1
        _add_panel(figure, panel, info.patch, row=row, col=column, named=place == 0)
    figure.update_layout(barmode="stack", bargap=0)
    figure.update_xaxes(showticklabels=True, row=2 * rows)
    figure.update_xaxes(title="steps from the forecast's beginning", row=2 * rows, col=1)
    return dress(figure, 130 + height * rows, ())


def _add_panel(
    figure: go.Figure, panel: Panel, patch: int, *, row: int, col: int, named: bool
) -> None:
    ahead = list(range(1, len(panel.forecast) + 1))
    read = list(range(1 - len(panel.context), 1))
    lines: tuple[tuple[str, list[int], Sequence[float | None], str, float], ...] = (
        ("what happened", [*read, *ahead], (*panel.context, *panel.truth), GREY, 1.2),
        ("target alone", ahead, panel.target, BLUE, 2.4),
        ("speculation", ahead, panel.forecast, ACCENT, 1.4),
    )
    for name, x, y, colour, width in lines:
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            legendgroup=name,
            showlegend=named,
            line={"color": colour, "width": width},
            hovertemplate=f"{name}, step %{{x}}: %{{y:.2f}}<extra></extra>",
            row=row,
            col=col,
        )
    ends = [min((n + 1) * patch, len(ahead)) for n in range(len(panel.accepted))]
    for kind, name, colour in (
        (True, "patch proposed and accepted", GREY),
        (False, "patch of the target", ACCENT),
    ):
        shown = [n for n, accepted in enumerate(panel.accepted) if accepted == kind]
        begins = [n * patch for n in shown]
        widths = [ends[n] - n * patch for n in shown]
        figure.add_bar(
            x=[begin + 0.5 + width / 2 for begin, width in zip(begins, widths, strict=True)],
            y=[1] * len(shown),
            width=[0.9 * width for width in widths],
            name=name,
            legendgroup=name,
            showlegend=named,
            marker={"color": colour, "line": {"width": 0}},
            customdata=[n + 1 for n in shown],
            hovertemplate=f"{name}: %{{customdata}}<extra></extra>",
            row=row + 1,
            col=col,
        )
    figure.add_annotation(
        text=f"<b>{panel.title}</b>",
        **{"x": 0, "y": 1, "xref": "x domain", "yref": "y domain", "row": row, "col": col},
        **{"xanchor": "left", "yanchor": "bottom", "showarrow": False},
        font={"size": 13, "color": GREY},
    )
    figure.add_vline(x=0.5, line={"color": GREY, "width": 1, "dash": "dot"}, row=row, col=col)
    figure.update_yaxes(visible=False, range=[0, 1], fixedrange=True, row=row + 1, col=col)
    figure.update_yaxes(title="standardised value" if col == 1 else None, row=row, col=col)
