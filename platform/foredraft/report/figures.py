"""The Plotly figures of a report: each draws one piece of its information, and nothing else."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from plotly import graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from foredraft.report.information import (
    AccuracyInfo,
    Axis,
    Curve,
    CurvesInfo,
    DraftAlone,
    FrontInfo,
    Point,
    SettingsInfo,
    scale_text,
)
from foredraft.report.page import ACCENT, GREY
from foredraft.report.tables import number

MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
# Viridis without its ends: they vanish on a dark and on a white page.
SCALES = sample_colorscale("Viridis", np.linspace(0.12, 0.88, 7).tolist())
SPEEDS = [[0.0, "#d5dade"], [0.5, "#f4b183"], [1.0, ACCENT]]


def front_figure(info: FrontInfo) -> go.Figure:
    """Acceptance against speedup, with the front, the drafts alone and the model's ceiling."""
    lowest = min((point.acceptance for point in info.points), default=0.0)
    left = max(0.0, math.floor((lowest - 0.02) * 10) / 10)
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
    _add_trials(figure, info.points, [point.acceptance for point in info.points])
    _add_drafts(figure, info.drafts, [lane] * len(info.drafts))
    if any(draft.speedup for draft in info.drafts):
        figure.add_vrect(1 + 0.02 * span, right, fillcolor=GREY, opacity=0.08, line_width=0)
    first, step = round(left * 10), 2 if span > 0.6 else 1
    figure.update_xaxes(
        title="acceptance rate",
        tickformat=".0%",
        tickvals=[tick / 10 for tick in range(first + (10 - first) % step, 11, step)],
        range=[left - 0.02 * span, right],
    )
    # The ceiling may lie far above everything reached; it must not press that flat.
    reached = [point.predicted for point in info.points]
    reached += [draft.speedup for draft in info.drafts if draft.speedup]
    top = 1.6 * max(reached, default=1.0)
    if any(speedup > top for _, speedup in ceiling):
        figure.update_yaxes(range=[None, top], autorange="min")
    _name_axes(figure)
    return dress(figure, 580, _scales(info.points, info.drafts))


def accuracy_figure(info: AccuracyInfo) -> go.Figure:
    """Error against speedup, with the accuracy budget and the drafts alone."""
    figure = go.Figure()
    _add_trials(figure, info.points, [point.mse_ratio for point in info.points])
    _add_drafts(figure, info.drafts, [draft.mse_ratio for draft in info.drafts])
    figure.add_scatter(
        x=[1.0],
        y=[1.0],
        mode="markers",
        name="target alone",
        marker={"symbol": "cross", "size": 10, "color": GREY},
        hovertemplate="target alone<extra></extra>",
    )
    if info.budget is not None:
        figure.add_vline(
            x=info.budget,
            line={"color": ACCENT, "width": 1.5, "dash": "dash"},
            name=f"accuracy budget ({info.budget:g})",
            showlegend=True,
        )
    figure.update_xaxes(title="error over the target's (mse ratio)")
    if info.log:
        figure.update_xaxes(
            type="log", tickvals=[d * 10.0**k for k in range(-2, 5) for d in (1, 2, 5)]
        )
    _name_axes(figure)
    return dress(figure, 500, _scales(info.points, info.drafts))


def curves_figure(info: CurvesInfo) -> go.Figure:
    """Losses by epoch, a panel for each kind and stage, a colour for each draft's scale."""
    columns = 2 if len(info.panels) == 4 else min(3, max(1, len(info.panels)))
    rows = max(1, math.ceil(len(info.panels) / columns))
    height = 90 + 300 * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in info.panels],
        horizontal_spacing=0.07,
        vertical_spacing=90 / height,
    )
    colours = _colours(curve.scale for panel in info.panels for curve in panel.curves)
    for place, panel in enumerate(info.panels):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        for curve in panel.curves:
            _add_curve(figure, curve, colours.get(curve.scale, GREY), cell)
    seen: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.legendgroup not in seen and trace.line.dash is None
        seen |= {trace.legendgroup} if trace.showlegend else set()
    figure.update_xaxes(title="epoch", title_standoff=10, rangemode="tozero")
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": GREY})
    for place, note in enumerate(figure.layout.annotations):
        note.x = figure.layout[f"xaxis{place + 1 if place else ''}"].domain[0]
    return dress(figure, height, ())


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


def _add_trials(figure: go.Figure, points: Sequence[Point], places: Sequence[float | None]) -> None:
    for feasible, name, symbol in (
        (False, "over accuracy budget", "circle-open"),
        (True, "within accuracy budget", "circle"),
    ):
        chosen = [(p, x) for p, x in zip(points, places, strict=True) if p.feasible is feasible]
        if not chosen:
            continue
        figure.add_scatter(
            x=[x for _, x in chosen],
            y=[point.predicted for point, _ in chosen],
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 9 if feasible else 8,
                "opacity": 0.95 if feasible else 0.6,
                "line": {"width": 0.75 if feasible else 1.25, "color": "rgba(255,255,255,0.7)"},
                **_paint([point.scale for point, _ in chosen]),
            },
            **_keyed(figure, name, {"symbol": symbol, "size": 9}),
            text=[point.hover for point, _ in chosen],
            hovertemplate="%{text}<extra></extra>",
        )
    _add_measured(figure, [(p, x) for p, x in zip(points, places, strict=True) if p.measured])


def _add_measured(figure: go.Figure, chosen: Sequence[tuple[Point, float | None]]) -> None:
    if not chosen:
        return
    links = [(x, y) for point, x in chosen for y in (point.predicted, point.measured, None)]
    figure.add_scatter(
        x=[x for x, _ in links],
        y=[y for _, y in links],
        mode="lines",
        line={"color": ACCENT, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    speeds = [point.measured or 0.0 for point, _ in chosen]
    diamond = {"symbol": "diamond", "size": 9, "line": {"width": 1.5, "color": ACCENT}}
    figure.add_scatter(
        x=[x for _, x in chosen],
        y=speeds,
        mode="markers",
        marker={
            **diamond,
            **_paint([point.scale for point, _ in chosen]),
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
        text=[point.hover for point, _ in chosen],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_drafts(
    figure: go.Figure, drafts: Sequence[DraftAlone], places: Sequence[float | None]
) -> None:
    known = [(d, x) for d, x in zip(drafts, places, strict=True) if d.speedup and x is not None]
    if not known:
        return
    bar = {"symbol": "line-ew-open", "size": 15, "line": {"width": 3}}
    figure.add_scatter(
        x=[x for _, x in known],
        y=[draft.speedup for draft, _ in known],
        mode="markers+text",
        marker={**bar, **_paint([draft.scale for draft, _ in known])},
        **_keyed(figure, "draft alone", bar),
        text=[scale_text(draft.scale) if draft.labelled else "" for draft, _ in known],
        textposition=_beyond([draft.speedup or 0.0 for draft, _ in known]),
        textfont={"size": 11, "color": GREY},
        customdata=[
            f"<b>{', '.join(filter(None, (f'{scale_text(d.scale)} draft alone', d.policy)))}</b>"
            f"<br>speed {number(d.speedup, unit='×')}"
            f"<br>mse {number(d.mse, digits=4)}<br>mse ratio {number(d.mse_ratio)}"
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


def _add_curve(figure: go.Figure, curve: Curve, colour: str, cell: dict[str, int]) -> None:
    for losses, name, width, dash in (
        (curve.training, "training", 1, "dot"),
        (curve.validation, "validation", 2, None),
    ):
        figure.add_scatter(
            x=curve.epochs,
            y=losses,
            # A training of a single epoch would leave no line to see.
            mode="lines+markers" if len(curve.epochs) == 1 else "lines",
            name=curve.label,
            legendgroup=curve.label,
            line={"color": colour, "width": width, "dash": dash},
            hovertemplate=f"{curve.label}, {name}: %{{y:.4f}}<extra></extra>",
            **cell,
        )


def _dimension(axis: Axis) -> dict[str, object]:
    known = [math.log10(v) if axis.log else v for v in axis.values if v is not None]
    low, high = min(known), max(known)
    missing = low - 0.15 * ((high - low) or 1.0)
    drawn = iter(known)
    ticks = _ticks(axis, low, high)
    if len(known) < len(axis.values):
        ticks = [(missing, "not used"), *ticks]
    return {
        "label": axis.label,
        "values": [missing if value is None else next(drawn) for value in axis.values],
        "range": [min(missing, low) if len(known) < len(axis.values) else low, high],
        "tickvals": [place for place, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }


def _ticks(axis: Axis, low: float, high: float) -> list[tuple[float, str]]:
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


def _scales(points: Sequence[Point], drafts: Sequence[DraftAlone]) -> tuple[float, ...]:
    known = {point.scale for point in points} | {draft.scale for draft in drafts}
    return tuple(sorted(scale for scale in known if scale is not None))


def _paint(scales: Sequence[float | None]) -> dict[str, object]:
    if all(scale is None for scale in scales):
        return {"color": SCALES[len(SCALES) // 2]}
    return {"color": scales, "coloraxis": "coloraxis"}


def _colours(scales: Iterable[float | None]) -> dict[float | None, str]:
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
        # Under the axis title, whatever the height; plotly widens the margin as it takes.
        legend={"orientation": "h", "x": 0, "y": -60 / (height - 170), "yanchor": "top"},
        coloraxis={
            "colorscale": SCALES,
            "cmin": low,
            "cmax": high,
            "showscale": len(scales) > 1,
            "colorbar": _colorbar(scales),
        },
    )
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="outside")
    figure.update_xaxes(tickcolor="#cfd4d9", linecolor="#cfd4d9")
    figure.update_yaxes(gridcolor="#eceef0", zeroline=False, automargin=True, title_standoff=12)
    return figure
