"""Several studies in one figure: their trials and fronts, a colour and a mark for each study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plotly import graph_objects as go

from foredraft.report.dots import Dot, FrontInfo
from foredraft.report.look import FRONT_HEIGHT, GREY, dress
from foredraft.report.scatter import dress_front, left_end
from foredraft.report.tables import HOVER

# Okabe and Ito's colours that stand out on white and on black; then the marks tell them apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
MARKS = ("circle", "square", "diamond", "triangle-up", "star", "cross")


def overlay_figure(fronts: Mapping[str, FrontInfo]) -> go.Figure:
    """The fronts of several studies by their names; hollow is over the study's budget.

    The ceilings, and the drafts alone, are left to each study's own figure.
    """
    figure = go.Figure()
    left = left_end([dot for info in fronts.values() for dot in info.dots])
    figure.add_scatter(
        x=[left, 1.0],
        y=[1.0, 1.0],
        mode="lines",
        name="target alone (1×)",
        line={"width": 1.5, "color": GREY},
        hoverinfo="skip",
    )
    for place, (name, info) in enumerate(fronts.items()):
        look = {"color": COLOURS[place % len(COLOURS)], "symbol": MARKS[place % len(MARKS)]}
        _add_study(figure, name, info, left=left, **look)
    dress_front(figure, left=left, right=1.02)
    return dress(figure, FRONT_HEIGHT, ())


def _add_study(
    figure: go.Figure, name: str, info: FrontInfo, *, left: float, color: str, symbol: str
) -> None:
    if info.front:
        steps = [(left, info.front[0][1]), *info.front]
        figure.add_scatter(
            x=[x for x, _ in steps],
            y=[y for _, y in steps],
            mode="lines",
            name=name,
            legendgroup=name,
            showlegend=False,
            line={"width": 2, "color": color, "shape": "vh"},
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[dot.acceptance for dot in info.dots],
        y=[_speed(dot) for dot in info.dots],
        mode="markers",
        name=name,
        legendgroup=name,
        meta=name,
        marker={
            "size": 8,
            "color": color,
            "symbol": _symbols(info.dots, symbol),
            "opacity": [0.95 if dot.on_front else 0.45 for dot in info.dots],
        },
        customdata=[dot.hover for dot in info.dots],
        hovertemplate=HOVER.replace("<extra></extra>", "<extra>%{meta}</extra>"),
    )


def _speed(dot: Dot) -> float:
    return dot.predicted if dot.measured is None else dot.measured


def _symbols(dots: Sequence[Dot], symbol: str) -> list[str]:
    return [symbol if dot.feasible else f"{symbol}-open" for dot in dots]
