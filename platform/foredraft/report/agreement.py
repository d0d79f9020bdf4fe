"""Whether predictions held: predicted against measured speedup, as information and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plotly import graph_objects as go

from foredraft.report.dots import Dot
from foredraft.report.look import ACCENT, GREY, dress

READING = (
    "Each dot is a trial that was timed: to the right what the cost model predicted, upwards what "
    "the clock said, with its 95 % interval. On the dashed line the prediction held; below it the "
    "cost model promised too much."
)


class AgreementInfo(NamedTuple):
    """The trials that were timed."""

    dots: tuple[Dot, ...]


def agreement_info(dots: Sequence[Dot]) -> AgreementInfo:
    """What `agreement_figure` shows."""
    return AgreementInfo(tuple(dot for dot in dots if dot.measured is not None))


def agreement_figure(info: AgreementInfo) -> go.Figure:
    """Predicted against measured speedup, beside the line where they are the same."""
    measured = [dot.measured or 0.0 for dot in info.dots]
    ends = [*measured, *(dot.predicted for dot in info.dots)]
    reach = [0.95 * min(ends), 1.05 * max(ends)]
    figure = go.Figure()
    figure.add_scatter(
        x=reach,
        y=reach,
        mode="lines",
        name="as predicted",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[dot.predicted for dot in info.dots],
        y=measured,
        mode="markers",
        name="measured (95 % interval)",
        marker={"symbol": "diamond", "size": 9, "color": ACCENT},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [(d.high or m) - m for d, m in zip(info.dots, measured, strict=True)],
            "arrayminus": [m - (d.low or m) for d, m in zip(info.dots, measured, strict=True)],
            "color": ACCENT,
            "thickness": 1.5,
            "width": 4,
        },
        customdata=[dot.number for dot in info.dots],
        hovertemplate="trial %{customdata}: predicted %{x:.2f}×, measured %{y:.2f}×<extra></extra>",
    )
    figure.update_xaxes(title="predicted speedup over the target alone", ticksuffix="×")
    figure.update_yaxes(title="measured speedup", ticksuffix="×")
    return dress(figure, 400, ())
