"""Trials as dots, drawn: acceptance against speedup, and error against speedup."""

from __future__ import annotations

import math
from collections.abc import Sequence

from plotly import graph_objects as go

from foredraft.report.dots import NEAREST, Dot, DraftMark, FrontInfo, RatioInfo
from foredraft.report.look import ACCENT, FRONT_HEIGHT, GREY, dress, paint
from foredraft.report.tables import HOVER, HOVER_BRIEFLY, briefly, number


def front_figure(info: FrontInfo) -> go.Figure:
    """Acceptance against speedup, with the front, the drafts alone and the model's ceiling."""
    left = left_end(info.dots)
    # Drafts alone have no acceptance rate; they stand in a lane of their own at the right.
    span = 1.0 - left
    lane, right = 1 + 0.08 * span, 1 + 0.14 * span
    figure = go.Figure()
    ceiling = [pair for pair in info.ceiling if pair[0] >= left]
    if ceiling:
        _add_line(figure, ceiling, "theoretical ceiling (cost model)", color=GREY, dash="dot")
    _add_line(figure, [(left, 1.0), (right, 1.0)], "target alone (1×)", color=GREY)
    if info.front:
        front = [(left, info.front[0][1]), *info.front]
        _add_line(figure, front, "front (predicted)", color=ACCENT, width=2, shape="vh")
    _add_stopped(figure, [dot for dot in info.stopped if dot.acceptance >= left])
    _add_trials(figure, info.dots, [dot.acceptance for dot in info.dots])
    _add_drafts(figure, info.drafts, [lane] * len(info.drafts))
    if any(draft.speedup for draft in info.drafts):
        figure.add_vrect(1 + 0.02 * span, right, fillcolor=GREY, opacity=0.08, line_width=0)
    dress_front(figure, left=left, right=right)
    # The ceiling may lie far above everything reached; it must not press that flat.
    reached = [dot.predicted for dot in info.dots]
    reached += [draft.speedup for draft in info.drafts if draft.speedup]
    top = 1.6 * max(reached, default=1.0)
    if any(speedup > top for _, speedup in ceiling):
        figure.update_yaxes(range=[None, top], autorange="min")
    return dress(figure, FRONT_HEIGHT, _scales(info.dots, info.drafts))


def left_end(dots: Sequence[Dot]) -> float:
    """Where the axis of acceptance begins, so that every dot has room."""
    lowest = min((dot.acceptance for dot in dots), default=0.0)
    return max(0.0, math.floor((lowest - 0.02) * 10) / 10)


def dress_front(figure: go.Figure, *, left: float, right: float) -> None:
    """The axes of acceptance and of speedup, from `left_end` to `right`."""
    span = 1.0 - left
    first, step = round(left * 10), 2 if span > 0.6 else 1
    figure.update_xaxes(
        title="acceptance rate",
        tickformat=".0%",
        tickvals=[tick / 10 for tick in range(first + (10 - first) % step, 11, step)],
        range=[left - 0.02 * span, right],
    )
    _name_axes(figure)


AXES = {
    "mse_ratio": "error over the target's (mse ratio)",
    "deviation_ratio": "deviation from the target's own forecast, over its error (deviation ratio)",
}
"""Titles of the axes of what a budget may bound."""
OF_THE_TARGET = {"mse_ratio": 1.0, "deviation_ratio": 0.0}
"""Where the target itself stands on them."""


def ratio_figure(info: RatioInfo) -> go.Figure:
    """What a budget may bound against speedup, with the bound and the drafts alone."""
    figure = go.Figure()
    _add_trials(figure, info.dots, info.places(info.dots), brief=True)
    _add_drafts(figure, info.drafts, info.places(info.drafts))
    own = OF_THE_TARGET[info.metric]
    figure.add_scatter(
        x=[max(NEAREST, own) if info.log else own],
        y=[1.0],
        mode="markers",
        name="target alone",
        marker={"symbol": "cross", "size": 10, "color": GREY},
        hovertemplate="target alone<extra></extra>",
    )
    if info.bound is not None:
        figure.add_vline(
            x=info.bound,
            line={"color": ACCENT, "width": 1.5, "dash": "dash"},
            name=f"budget ({info.bound:g})",
            showlegend=True,
        )
    figure.update_xaxes(title=AXES[info.metric])
    if info.log:
        figure.update_xaxes(
            type="log",
            tickvals=[d * 10.0**k for k in range(-5, 5) for d in (1, 2, 5)],
            exponentformat="none",  # not 500μ, which is no ratio
        )
    _name_axes(figure)
    return dress(figure, 500, _scales(info.dots, info.drafts))


def _name_axes(figure: go.Figure) -> None:
    # plotly clears the tick labels for a title only where they meet it; 28 pixels always do.
    figure.update_xaxes(title_standoff=28)
    # Over the axis and level, where it is read first and takes no width from a phone.
    figure.update_yaxes(ticksuffix="×")
    figure.add_annotation(
        text="speedup over the target alone",
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        xshift=-36,
        yshift=12,
    )


def _add_line(
    figure: go.Figure, pairs: Sequence[tuple[float, float]], name: str, **line: object
) -> None:
    figure.add_scatter(
        x=[x for x, _ in pairs],
        y=[y for _, y in pairs],
        mode="lines",
        name=name,
        line={"width": 1.5, **line},
        hoverinfo="skip",
    )


def _add_stopped(figure: go.Figure, dots: Sequence[Dot]) -> None:
    if not dots:
        return
    figure.add_scatter(
        x=[dot.acceptance for dot in dots],
        y=[dot.predicted for dot in dots],
        mode="markers",
        name="stopped early (closed form)",
        marker={"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": GREY}},
        opacity=0.6,
        **_hovering(dots, brief=False),
    )


def _add_trials(
    figure: go.Figure, dots: Sequence[Dot], places: Sequence[float], *, brief: bool = False
) -> None:
    for feasible, name, symbol in (
        (False, "over the budget", "circle-open"),
        (True, "within the budget", "circle"),
    ):
        chosen = [(p, x) for p, x in zip(dots, places, strict=True) if p.feasible is feasible]
        if not chosen:
            continue
        figure.add_scatter(
            x=[x for _, x in chosen],
            y=[dot.predicted for dot, _ in chosen],
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 9 if feasible else 8,
                "opacity": 0.95 if feasible else 0.6,
                "line": {"width": 0.75 if feasible else 1.25, "color": "rgba(255,255,255,0.7)"},
                **paint([dot.scale for dot, _ in chosen]),
            },
            **_keyed(figure, name, {"symbol": symbol, "size": 9}),
            **_hovering([dot for dot, _ in chosen], brief=brief),
        )
    timed = [(p, x) for p, x in zip(dots, places, strict=True) if p.measured]
    _add_measured(figure, timed, brief=brief)


def _hovering(dots: Sequence[Dot], *, brief: bool) -> dict[str, object]:
    """The part of a trace that tells of each of its trials."""
    if brief:
        told = [briefly(dot.hover) for dot in dots]
        return {"customdata": told, "hovertemplate": HOVER_BRIEFLY}
    return {"customdata": [dot.hover for dot in dots], "hovertemplate": HOVER}


def _add_measured(figure: go.Figure, chosen: Sequence[tuple[Dot, float]], *, brief: bool) -> None:
    if not chosen:
        return
    links = [(x, y) for dot, x in chosen for y in (dot.predicted, dot.measured, None)]
    figure.add_scatter(
        x=[x for x, _ in links],
        y=[y for _, y in links],
        mode="lines",
        line={"color": ACCENT, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    speeds = [dot.measured or 0.0 for dot, _ in chosen]
    diamond = {"symbol": "diamond", "size": 9, "line": {"width": 1.5, "color": ACCENT}}
    figure.add_scatter(
        x=[x for _, x in chosen],
        y=speeds,
        mode="markers",
        marker={
            **diamond,
            **paint([dot.scale for dot, _ in chosen]),
            "symbol": ["diamond" if p.confirmed else "diamond-open" for p, _ in chosen],
        },
        **_keyed(figure, "measured (95 % interval)", diamond),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [(p.high or s) - s for (p, _), s in zip(chosen, speeds, strict=True)],
            "arrayminus": [s - (p.low or s) for (p, _), s in zip(chosen, speeds, strict=True)],
            "color": ACCENT,
            "thickness": 1.5,
            "width": 4,
        },
        **_hovering([dot for dot, _ in chosen], brief=brief),
    )


def _add_drafts(figure: go.Figure, drafts: Sequence[DraftMark], places: Sequence[float]) -> None:
    known = [(d, x) for d, x in zip(drafts, places, strict=True) if d.speedup and x is not None]
    if not known:
        return
    bar = {"symbol": "line-ew-open", "size": 15, "line": {"width": 3}}
    figure.add_scatter(
        x=[x for _, x in known],
        y=[draft.speedup for draft, _ in known],
        mode="markers+text",
        marker={**bar, **paint([draft.scale for draft, _ in known])},
        **_keyed(figure, "draft alone", bar),
        text=[draft.size if draft.labelled else "" for draft, _ in known],
        textposition=_beyond([draft.speedup or 0.0 for draft, _ in known]),
        textfont={"size": 11, "color": GREY},
        customdata=[
            f"<b>{', '.join(filter(None, (f'{d.size} draft alone', d.policy)))}</b>"
            f"<br>speed {number(d.speedup, unit='×')}"
            f"<br>mse {number(d.mse, digits=4)}<br>mse ratio {number(d.mse_ratio)}"
            f"<br>deviation ratio {number(d.deviation_ratio, digits=4)}"
            for d, _ in known
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _keyed(figure: go.Figure, name: str, marker: dict[str, object]) -> dict[str, object]:
    """What ties a trace to its legend entry, added here in grey: a scale's colour is no key."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=name,
        legendgroup=name,
        marker={**marker, "color": GREY},
    )
    return {"legendgroup": name, "showlegend": False, "name": name}


def _beyond(speeds: Sequence[float]) -> list[str]:
    # Labels stand away from the others, above the fastest and below the slowest.
    return ["bottom center" if speed == min(speeds) else "top center" for speed in speeds]


def _scales(dots: Sequence[Dot], drafts: Sequence[DraftMark]) -> tuple[float, ...]:
    known = {dot.scale for dot in dots} | {draft.scale for draft in drafts}
    return tuple(sorted(scale for scale in known if scale is not None))
