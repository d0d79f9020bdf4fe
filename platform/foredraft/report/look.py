"""The one look of all figures: colours, letters, the axis of draft scales."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from plotly import graph_objects as go
from plotly.colors import sample_colorscale

ACCENT = "#e8590c"
GREY = "#868e96"
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
UNSCALED = "#c2255c"
"""Of what has no scale: heads, or layers and width apart."""
# Viridis without its ends: they vanish on a dark and on a white page.
SCALES = sample_colorscale("Viridis", np.linspace(0.12, 0.88, 7).tolist())


FRONT_HEIGHT = 580
"""Of the figures that a study is seen by, in pixels."""


def dress(figure: go.Figure, height: int, scales: Sequence[float]) -> go.Figure:
    """The one look of all figures; it is legible on a light and on a dark page."""
    low, high = _scale_range(scales)
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "color": "#5c6670",
        },
        margin={"l": 44, "r": 12, "t": 80 if scales else 32, "b": 72},
        # A finger that scrolls the page must not zoom; the mode bar still offers it.
        dragmode=False,
        hoverlabel={
            "bgcolor": "#fff",
            "bordercolor": "#cfd4d9",
            "align": "left",
            "font": {"family": MONOSPACE, "size": 11, "color": "#16191d"},
        },
        modebar={
            "bgcolor": "rgba(0,0,0,0)",
            "color": "#adb5bd",
            "activecolor": ACCENT,
            "remove": ["select2d", "lasso2d", "autoScale2d"],
        },
        # At the figure's foot, however many rows it takes: plotly keeps that much free under the
        # axis title. Placed by the plot's own height it covered the axis on a narrow page.
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "bottom", "yref": "container"},
        coloraxis={
            "colorscale": SCALES,
            "cmin": low,
            "cmax": high,
            "showscale": len(scales) > 1,
            "colorbar": _colorbar(scales),
        },
    )
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="outside", automargin=True)
    figure.update_xaxes(tickcolor="#cfd4d9", linecolor="#cfd4d9")
    figure.update_yaxes(gridcolor="#eceef0", zeroline=False, automargin=True, title_standoff=12)
    return figure


def paint(scales: Sequence[float | None]) -> dict[str, object]:
    """The part of a marker that colours each mark by its draft's scale, in all traces alike."""
    mixed = [UNSCALED if scale is None else scale for scale in scales]
    return {"color": mixed, "coloraxis": "coloraxis"}


def colours_of(scales: Iterable[float | None]) -> dict[float | None, str]:
    """A colour for each scale that is known."""
    known = sorted({scale for scale in scales if scale is not None})
    low, high = _scale_range(known)
    places = [(scale - low) / (high - low) for scale in known]
    return dict(zip(known, sample_colorscale(SCALES, places) if known else [], strict=True))


def _scale_range(scales: Sequence[float]) -> tuple[float, float]:
    # The usual search range is always covered, so that a colour means the same in every study.
    return min((0.5, *scales)), max((0.9, *scales))


def _colorbar(scales: Sequence[float]) -> dict[str, object]:
    return {
        "title": {"text": "draft scale", "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "len": 0.3,
        "thickness": 7,
        "outlinewidth": 0,
        **({"tickvals": scales} if len(scales) <= 6 else {"nticks": 4}),
    }
