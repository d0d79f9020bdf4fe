"""The live front: the report's figure, with the trial that is looked at ringed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from plotly import graph_objects as go

from foredraft.dashboard.patches import UIREVISION
from foredraft.dashboard.view import Axis, Pick
from foredraft.report.dots import Dot, FrontInfo, front_info, ratio_info
from foredraft.report.look import ACCENT
from foredraft.report.overlay import overlay_figure
from foredraft.report.scatter import front_figure, ratio_figure
from foredraft.search.record import Record

READINGS = {
    "acceptance": (
        "Each dot is a trial: to the right the target accepts more of what the draft proposes, "
        "upwards the forecast gets faster. Hollow dots are over the budget, diamonds are timed for "
        "real, small crosses were stopped early. No trial on the orange line can gain in one "
        "direction without losing in the other. Click a dot to open its trial."
    ),
    "mse_ratio": (
        "How much accuracy is lost against what happened: left of the dashed line a trial keeps "
        "the budget, above 1× it is faster than the target alone. The best place is the upper left."
    ),
    "deviation_ratio": (
        "How far a forecast is from the target's own: at 0 it is the same. Left of the dashed line "
        "a trial keeps the budget. The best place is the upper left."
    ),
}
"""One for each axis; in words of what there is to do as well as to see."""


def front(
    records: Mapping[str, Record], *, axis: Axis, picked: tuple[Pick | None, Pick | None]
) -> dict[str, Any]:
    """The figure of one study, or of several over each other, as plain JSON."""
    if len(records) > 1:
        fronts = {label: front_info(record) for label, record in records.items()}
        figure = overlay_figure(fronts)
        _ring(figure, _marks(fronts, picked, "acceptance"))
    else:
        ((label, record),) = records.items()
        info = front_info(record)
        drawn = front_figure(info) if axis == "acceptance" else None
        figure = drawn or ratio_figure(ratio_info(record, axis))
        for trace in figure.data:
            trace.meta = label
        _ring(figure, _marks({label: info}, picked, axis))
    # The view is the reader's for as long as the axis stays; another axis has another view.
    figure.update_layout(uirevision=UIREVISION, xaxis={"uirevision": axis})
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain


def name_of(*facts: object) -> str:
    """A name for a figure that is made of these facts."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _marks(
    fronts: Mapping[str, FrontInfo], picked: tuple[Pick | None, Pick | None], axis: Axis
) -> list[tuple[float, float]]:
    """Where the picked and the pinned trial stand in the figure."""
    found = []
    for one in filter(None, picked):
        info = fronts.get(one.study)
        dots = (*info.dots, *info.stopped) if info else ()
        found += [place for dot in dots if dot.number == one.number for place in _place(dot, axis)]
    return found


def _place(dot: Dot, axis: Axis) -> list[tuple[float, float]]:
    x = getattr(dot, axis)
    return [] if x is None else [(x, dot.measured or dot.predicted)]


def _ring(figure: go.Figure, places: list[tuple[float, float]]) -> None:
    # There always, if empty, so that picking a trial changes a trace and adds none.
    figure.add_scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        name="picked",
        showlegend=False,
        hoverinfo="skip",
        marker={
            "symbol": "circle-open",
            "size": 22,
            "color": ACCENT,
            "line": {"width": 2.5, "color": ACCENT},
        },
    )
