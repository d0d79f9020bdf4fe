"""How the models were trained: losses by epoch, as plain information and drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from plotly import graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from foredraft.report.look import GREY, SCALES, colours_of, dress

STAGES = {
    "scratch": "from scratch",
    "pretrain": "pretraining",
    "finetune": "fine-tuning",
    "distill": "distillation",
    "heads": "heads",
}


class Epoch(NamedTuple):
    """One epoch of one training."""

    label: str
    kind: str
    """target or draft"""
    stage: str
    epoch: float
    training: float | None
    validation: float | None
    acceptance: float | None = None
    """of what a draft proposed to its target under the strict rule, where it was examined"""


class Curve(NamedTuple):
    """One training's losses, one value for each epoch."""

    label: str
    kind: str
    """target or draft"""
    scale: float | None
    """None for the target, and for a draft of which depth and width are given instead"""
    epochs: tuple[float, ...]
    training: tuple[float | None, ...]
    validation: tuple[float | None, ...]
    acceptance: tuple[float | None, ...] = ()


class Panel(NamedTuple):
    """The trainings whose losses may be compared: of one kind, in one stage."""

    title: str
    curves: tuple[Curve, ...]


class CurvesInfo(NamedTuple):
    """Training and validation losses, target first, stages in the order in which they chain."""

    panels: tuple[Panel, ...]


def curves_info(curves: pd.DataFrame) -> CurvesInfo:
    """What `curves_figure` shows: a panel for each kind and stage, since their losses differ."""
    epochs = _epochs(curves)
    stages = [*STAGES, *sorted({_name_of(epoch.stage) for epoch in epochs} - set(STAGES))]
    order = sorted(
        {(epoch.kind, epoch.stage) for epoch in epochs},
        key=lambda place: (place[0] != "target", stages.index(_name_of(place[1])), place[1]),
    )
    return CurvesInfo(
        tuple(
            Panel(
                f"{'Target' if kind == 'target' else 'Drafts'}: {_stage_in_words(stage)}",
                _curves([epoch for epoch in epochs if (epoch.kind, epoch.stage) == (kind, stage)]),
            )
            for kind, stage in order
        )
    )


def _name_of(stage: str) -> str:
    """The stage's name, without the number of a second one of that name."""
    return stage.partition(" ")[0]


def _stage_in_words(stage: str) -> str:
    name, _, number = stage.partition(" ")
    return f"{STAGES.get(name, name)} {number}".strip()


def _epochs(curves: pd.DataFrame) -> list[Epoch]:
    columns = ("label", "kind", "stage", "epoch", "train_loss", "validation_loss")
    known = curves.reindex(columns=[*columns, "acceptance_rate"])
    rows = zip(*(known[name].tolist() for name in known), strict=True)
    return [
        Epoch(label, kind, stage, epoch, *map(_finite, figures))
        for label, kind, stage, epoch, *figures in rows
    ]


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def _curves(epochs: Sequence[Epoch]) -> tuple[Curve, ...]:
    # Two drafts of one scale share a label; an epoch that does not rise starts another training.
    runs: list[list[Epoch]] = []
    for epoch in sorted(epochs, key=lambda one: one.label):
        last = runs[-1][-1] if runs else None
        if last and last.label == epoch.label and last.epoch < epoch.epoch:
            runs[-1].append(epoch)
        else:
            runs.append([epoch])
    return tuple(
        Curve(
            label=run[0].label,
            kind=run[0].kind,
            scale=_scale_in(run[0].label) if run[0].kind == "draft" else None,
            epochs=tuple(one.epoch for one in run),
            training=tuple(one.training for one in run),
            validation=tuple(one.validation for one in run),
            acceptance=tuple(one.acceptance for one in run),
        )
        for run in runs
    )


def _scale_in(label: str) -> float | None:
    found = re.search(r"(\d*\.?\d+)x", label)
    return float(found.group(1)) if found else None


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
    colours = _colours([curve for panel in info.panels for curve in panel.curves])
    for place, panel in enumerate(info.panels):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        for curve in panel.curves:
            _add_curve(figure, curve, colours[curve.label], cell)
    seen: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.legendgroup not in seen and trace.line.dash is None
        seen |= {trace.legendgroup} if trace.showlegend else set()
    figure.update_xaxes(title="epoch", title_standoff=10, rangemode="tozero")
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": GREY})
    for place, note in enumerate(figure.layout.annotations):
        note.x = figure.layout[f"xaxis{place + 1 if place else ''}"].domain[0]
    return dress(figure, height, ())


def is_examined(info: CurvesInfo) -> bool:
    """Whether any draft was examined beside its target after an epoch."""
    return any(
        value is not None
        for panel in info.panels
        for curve in panel.curves
        for value in curve.acceptance
    )


def acceptance_figure(info: CurvesInfo) -> go.Figure:
    """Acceptance by epoch of each draft, one stage after the other."""
    figure = go.Figure()
    shown = [(panel, curve) for panel in info.panels for curve in panel.curves]
    colours = _colours([curve for _, curve in shown])
    dashes = dict(zip(STAGES, ("dot", "dot", "dash", "solid", "dashdot"), strict=True))
    stages = {title: name for name, title in STAGES.items()}
    for panel, curve in shown:
        if all(value is None for value in curve.acceptance):
            continue
        stage = panel.title.partition(": ")[2]
        figure.add_scatter(
            x=curve.epochs,
            y=curve.acceptance,
            mode="lines+markers",
            name=f"{curve.label}, {stage}",
            line={
                "color": colours[curve.label],
                "width": 2,
                "dash": dashes.get(stages.get(stage, ""), "solid"),
            },
            marker={"size": 5},
            hovertemplate=f"{curve.label}, {stage}: %{{y:.1%}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch of the stage", rangemode="tozero")
    figure.update_yaxes(title="accepted under the strict rule", tickformat=".0%")
    return dress(figure, 380, ())


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    """A colour for each label: its draft's scale, else its place among those that have none."""
    unscaled = sorted({one.label for one in curves if one.kind == "draft" and one.scale is None})
    places = [number / max(1, len(unscaled) - 1) for number in range(len(unscaled))]
    by_scale = colours_of(one.scale for one in curves)
    return {one.label: by_scale.get(one.scale, GREY) for one in curves} | dict(
        zip(unscaled, sample_colorscale(SCALES, places) if places else [], strict=True)
    )


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
