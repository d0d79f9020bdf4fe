"""The report of a study: rows, then plain information, then Plotly figures, then one HTML file.

    foredraft report joint

Every `*_info` returns plain data and every `*_figure` draws nothing but such data, so that the
dashboard shows the same figures live and tests never look at pixels. A study that is still running
is reported as far as it has come.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from plotly import graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from foredraft import ladder_page, page, quality_page
from foredraft.page import (
    Row,
    Tile,
    hover_text,
    is_feasible,
    number,
    percent,
    plain_rows,
    plural,
    quantity,
)
from foredraft.provenance import atomic_write, redacted

ACCENT = "#e8590c"
GREY = "#868e96"
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
# Viridis without its ends: they vanish on a dark and on a white page.
SCALES = sample_colorscale("Viridis", np.linspace(0.12, 0.88, 7).tolist())
SPEEDS = [[0.0, "#d5dade"], [0.5, "#f4b183"], [1.0, ACCENT]]
STAGES = {
    "scratch": "from scratch",
    "pretrain": "pretraining",
    "finetune": "fine-tuning",
    "distill": "distillation",
}

READING = {
    "front": (
        "Each dot is a trial: to the right the target accepts more of what the draft proposes, "
        "upwards the forecast gets faster. Hollow dots cost more accuracy than the study allows. "
        "No trial on the orange line can gain in one direction without losing in the other; "
        "diamonds are trials of the front, timed for real, and hollow where another measured one "
        "is better in everything. The bars at the right are the drafts "
        "without any target."
    ),
    "accuracy": (
        "Left of the dashed line a trial keeps the accuracy budget; above 1× it is faster than "
        "the target alone. The best place is the upper left."
    ),
    "settings": (
        "Every line is a trial, running through its settings to what they led to; the more "
        "orange, the faster. Drag along an axis to keep only the trials that pass through there."
    ),
    "curves": (
        "Solid lines are the loss on the validation split, dotted ones on the training split; "
        "where they part, the model has begun to memorise. Losses of different stages measure "
        "different things and are not comparable."
    ),
}


@dataclass(frozen=True)
class Study:
    """What a study directory holds; parts that are not written yet are empty."""

    name: str
    path: Path
    resolved: Row
    trials: pd.DataFrame
    best: Row
    references: Row
    curves: pd.DataFrame
    provenance: Row
    ladders: tuple[Row, ...] = ()
    """of the same target, where the storage holds any"""


class Point(NamedTuple):
    """One finished trial; speeds are factors over the target alone, rates are 0..1."""

    number: int
    scale: float | None
    acceptance: float
    predicted: float
    mse_ratio: float | None
    measured: float | None
    low: float | None
    high: float | None
    feasible: bool
    on_front: bool
    hover: str
    confirmed: bool = True
    """false where another point of the front is better in everything once both are measured"""


class DraftAlone(NamedTuple):
    """A draft forecasting by itself, without the target; `labelled` where its scale is written."""

    key: str
    scale: float | None
    parameters: int | None
    speedup: float | None
    mse: float | None
    mse_ratio: float | None
    labelled: bool


class FrontInfo(NamedTuple):
    """Acceptance against speedup: the trials, their front, and what to compare them with."""

    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]
    drafts: tuple[DraftAlone, ...]
    ceiling: tuple[tuple[float, float], ...]


class AccuracyInfo(NamedTuple):
    """Error against speedup, with the largest error ratio that the study allows."""

    points: tuple[Point, ...]
    drafts: tuple[DraftAlone, ...]
    budget: float | None
    log: bool


class Curve(NamedTuple):
    """One training's losses, one value for each epoch."""

    label: str
    scale: float | None
    epochs: tuple[float, ...]
    training: tuple[float | None, ...]
    validation: tuple[float | None, ...]


class Panel(NamedTuple):
    """The trainings whose losses may be compared: of one kind, in one stage."""

    title: str
    curves: tuple[Curve, ...]


class CurvesInfo(NamedTuple):
    """Training and validation losses, target first, stages in the order in which they chain."""

    panels: tuple[Panel, ...]


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

    axes: tuple[Axis, ...]
    speedups: tuple[float, ...]


class Summary(NamedTuple):
    """The study in a few numbers and sentences; `best` is None where no trial kept the budget."""

    best: Point | None
    accept_length: float | None
    budget: float | None
    states: dict[str, int]
    feasible: int
    num_drafts: int
    reading: tuple[str, ...]


# Reading


def read_study(study_dir: Path) -> Study:
    """The study in a directory; ValueError where there is none."""
    if not (study_dir / "study.yaml").is_file():
        raise ValueError(f"study {str(study_dir)!r}: no study.yaml there; give a study's directory")
    references = _read_json(study_dir / "references.json")
    target = references.get("target", {}).get("key", "")
    # studies/NAME is two folders below the storage, where progressions/ is too.
    ladders = ladder_page.ladders_of(target, storage=study_dir.resolve().parents[1])
    return Study(
        name=study_dir.resolve().name,
        path=study_dir,
        resolved=yaml.safe_load((study_dir / "study.yaml").read_text()) or {},
        trials=_read_table(study_dir / "trials.parquet"),
        best=_read_json(study_dir / "best.json"),
        references=references,
        curves=_read_table(study_dir / "curves.parquet"),
        provenance=_read_json(study_dir / "provenance.json"),
        ladders=tuple(ladders),
    )


def _read_json(path: Path) -> Row:
    # Python writes NaN into JSON; here it is a value that is missing.
    return json.loads(path.read_text(), parse_constant=lambda _: None) if path.is_file() else {}


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()


# Information


def points_info(trials: pd.DataFrame) -> tuple[Point, ...]:
    """Every trial that came to an end with an acceptance rate and a predicted speedup."""
    ended = (row for row in plain_rows(trials) if row.get("state") in ("complete", "infeasible"))
    return tuple(
        Point(
            number=int(row.get("number") or 0),
            scale=row.get("settings.scale"),
            acceptance=row["acceptance_rate"],
            predicted=row["predicted_speedup"],
            mse_ratio=row.get("mse_ratio"),
            measured=row.get("speedup"),
            low=row.get("speedup_low"),
            high=row.get("speedup_high"),
            feasible=is_feasible(row),
            on_front=bool(row.get("on_front")),
            hover=hover_text(row),
            confirmed=row.get("confirmed") is not False,
        )
        for row in ended
        if row.get("acceptance_rate") is not None and row.get("predicted_speedup") is not None
    )


def drafts_info(references: Row) -> tuple[DraftAlone, ...]:
    """Each draft alone, cheapest first; only the fastest and the slowest are labelled."""
    target_mse = references.get("target", {}).get("mse")
    drafts = sorted(references.get("drafts", []), key=lambda draft: draft.get("scale") or 0.0)
    speeds = [d["speedup_alone"] for d in drafts if d.get("speedup_alone")]
    ends = {max(speeds), min(speeds)} if speeds else set()
    return tuple(
        DraftAlone(
            key=str(draft.get("key")),
            scale=draft.get("scale"),
            parameters=draft.get("parameters"),
            speedup=draft.get("speedup_alone"),
            mse=draft.get("mse"),
            mse_ratio=draft["mse"] / target_mse if draft.get("mse") and target_mse else None,
            labelled=draft.get("speedup_alone") in ends,
        )
        for draft in drafts
    )


def front_info(trials: pd.DataFrame, *, references: Row) -> FrontInfo:
    """What `front_figure` shows; the front is that of the trials within the budget, if any is."""
    points = points_info(trials)
    on_front = [point for point in points if point.on_front]
    within = [point for point in on_front if point.feasible] or on_front
    ceiling = sorted((c["acceptance"], c["speedup"]) for c in references.get("ceiling", []))
    return FrontInfo(
        points=points,
        front=staircase((point.acceptance, point.predicted) for point in within),
        drafts=drafts_info(references),
        ceiling=tuple(ceiling),
    )


def staircase(pairs: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The pairs that no other beats in both coordinates, by rising first coordinate.

    The front has three objectives; a trial may be on it for its accuracy alone, and a line through
    all of its points would run to and fro.
    """
    kept: list[tuple[float, float]] = []
    for pair in sorted(set(pairs), reverse=True):
        if not kept or pair[1] > kept[-1][1]:
            kept.append(pair)
    return tuple(reversed(kept))


def accuracy_info(trials: pd.DataFrame, *, references: Row) -> AccuracyInfo:
    """What `accuracy_figure` shows; `log` where the errors differ by a factor of more than 4."""
    points = tuple(point for point in points_info(trials) if point.mse_ratio is not None)
    ratios = [point.mse_ratio for point in points]
    drafts = drafts_info(references)
    return AccuracyInfo(points, drafts, references.get("budget"), _is_wide(ratios))


def _is_wide(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) / min(known) > 4


def curves_info(curves: pd.DataFrame) -> CurvesInfo:
    """What `curves_figure` shows: a panel for each kind and stage, since their losses differ."""
    rows = plain_rows(curves)
    stages = [*STAGES, *sorted({row["stage"] for row in rows} - set(STAGES))]
    order = sorted(
        {(row["kind"], row["stage"]) for row in rows},
        key=lambda place: (place[0] != "target", stages.index(place[1])),
    )
    return CurvesInfo(
        tuple(
            Panel(
                f"{'Target' if kind == 'target' else 'Drafts'}: {STAGES.get(stage, stage)}",
                _curves([row for row in rows if (row["kind"], row["stage"]) == (kind, stage)]),
            )
            for kind, stage in order
        )
    )


def _curves(rows: list[Row]) -> tuple[Curve, ...]:
    # Two drafts of one scale share a label; an epoch that does not rise starts another training.
    runs: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: str(row["label"])):
        last = runs[-1][-1] if runs else None
        if last and last["label"] == row["label"] and last["epoch"] < row["epoch"]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return tuple(
        Curve(
            label=run[0]["label"],
            scale=_scale_in(run[0]["label"]) if run[0]["kind"] == "draft" else None,
            epochs=tuple(row["epoch"] for row in run),
            training=tuple(row["train_loss"] for row in run),
            validation=tuple(row["validation_loss"] for row in run),
        )
        for run in runs
    )


def _scale_in(label: str) -> float | None:
    found = re.search(r"\d*\.?\d+", label)
    return float(found.group()) if found else None


def settings_info(trials: pd.DataFrame) -> SettingsInfo:
    """What `settings_figure` shows; a column that is constant or never given is left out."""
    finished = {point.number for point in points_info(trials)}
    rows = [row for row in plain_rows(trials) if row.get("number") in finished]
    # The fastest are drawn last, over the others.
    rows.sort(key=lambda row: row["predicted_speedup"])
    candidates = (
        _axis(rows, "settings.scale", "draft scale"),
        _axis(rows, "settings.rule", "rule"),
        _axis(rows, "settings.lookahead", "lookahead"),
        _axis(rows, "settings.patches_out", "patches out"),
        _axis(rows, "settings.sigma", "σ", log=True),
        _axis(rows, "settings.bias", "bias", log=True),
        _axis(rows, "settings.mse_tol", "mse tolerance", log=True),
        _axis(rows, "acceptance_rate", "accepted"),
        _axis(rows, "predicted_speedup", "speedup", unit="×"),
        _axis(rows, "mse_ratio", "mse ratio", log=_is_wide([r.get("mse_ratio") for r in rows])),
    )
    axes = tuple(axis for axis in candidates if len(set(axis.values)) > 1)
    return SettingsInfo(axes, tuple(row["predicted_speedup"] for row in rows))


def _axis(rows: list[Row], name: str, label: str, *, log: bool = False, unit: str = "") -> Axis:
    values = [row.get(name) for row in rows]
    names = tuple(sorted({value for value in values if isinstance(value, str)}))
    if names:
        places = tuple(names.index(value) if value else None for value in values)
        return Axis(name, label, places, categories=names)
    # A logarithm has no place for zero, which searches do use for "no tolerance".
    kept = tuple(None if log and v is not None and v <= 0 else v for v in values)
    return Axis(name, label, kept, log, unit)


def summary_info(trials: pd.DataFrame, *, references: Row, best: Row) -> Summary:
    """The study in a few numbers and sentences."""
    points = points_info(trials)
    within = [point for point in points if point.feasible]
    chosen = [point for point in within if point.number == best.get("number")]
    pick = chosen[0] if chosen else max(within, key=_rank, default=None)
    rows = plain_rows(trials)
    lengths = {row.get("number"): row.get("accept_length") for row in rows}
    states = trials["state"].value_counts().to_dict() if "state" in trials else {}
    keys = {row.get("draft_key") for row in rows} - {None}
    budget = references.get("budget")
    return Summary(
        best=pick,
        accept_length=lengths.get(pick.number) if pick else None,
        budget=budget,
        states={str(state): int(count) for state, count in states.items()},
        feasible=len(within),
        num_drafts=len(keys) or len(references.get("drafts", [])),
        reading=tuple(
            _best_sentences(points, pick) + _alone_sentences(drafts_info(references), pick, budget)
        ),
    )


def _rank(point: Point) -> tuple[bool, float]:
    # What was measured outranks what was only predicted.
    return point.measured is not None, point.measured or point.predicted


def _best_sentences(points: Sequence[Point], best: Point | None) -> list[str]:
    if not points:
        return ["No trial has been completed yet."]
    if best is None or (best.measured or best.predicted) <= 1:
        slow = "No trial was faster than the target alone within the accuracy budget."
        return [slow] + ([] if best else [f"None of {len(points)} kept the budget at all."])
    error = f"{number(best.mse_ratio)} times its error" if best.mse_ratio else "an unknown error"
    tail = f"at {error}, with {percent(best.acceptance)} of the drafted patches accepted."
    if best.measured is None:
        speed = f"is predicted to forecast {best.predicted:.2f}× as fast as the target alone"
        return [f"Trial {best.number} {speed}, {tail}", "No speedup has been measured yet."]
    sentences = [
        f"Trial {best.number} forecasts {best.measured:.2f}× as fast as the target alone, {tail}"
    ]
    if best.low is not None and best.low <= 1:
        sentences.append(
            f"Its 95 % interval reaches down to {best.low:.2f}×, so that gain is not established."
        )
    off = [abs(p.predicted / p.measured - 1) for p in points if p.measured]
    sentences.append(
        f"Over {plural(len(off), 'measured trial')} the prediction was off by "
        f"{percent(float(np.median(off)))} in the median."
    )
    return sentences


def _alone_sentences(
    drafts: Sequence[DraftAlone], best: Point | None, budget: float | None
) -> list[str]:
    speed = max(1.0, (best.measured or best.predicted) if best else 1.0)
    kept = [d for d in drafts if (d.mse_ratio or math.inf) <= max(budget or 1.0, 1.0)]
    rival = max(kept, key=lambda d: (_is_as_good(d), _alone_speed(d)), default=None)
    if rival is None or _alone_speed(rival) <= 1:
        return []
    name = f"The {_scale_text(rival.scale)} draft alone"
    fact = (
        f"({number(rival.mse_ratio)} times its error, {number(rival.speedup, digits=2)}× its speed)"
    )
    if _is_as_good(rival) and _alone_speed(rival) >= speed:
        return [
            f"{name} is as accurate as the target {fact}: speculation is pointless on this data "
            "set, as the draft alone would do."
        ]
    if _is_as_good(rival):
        return [f"{name} is as accurate as the target {fact} and could take its place."]
    if _alone_speed(rival) > speed:
        return [f"{name} keeps the accuracy budget too {fact}, and is faster still."]
    return []


def _is_as_good(draft: DraftAlone) -> bool:
    return draft.mse_ratio is not None and draft.mse_ratio <= 1


def _alone_speed(draft: DraftAlone) -> float:
    return draft.speedup or 0.0


def _scale_text(scale: float | None) -> str:
    return f"{scale:.2f}×" if scale is not None else "unscaled"


# Figures


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
    return _dress(figure, 580, _scales(info.points, info.drafts))


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
    return _dress(figure, 500, _scales(info.points, info.drafts))


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
    return _dress(figure, height, ())


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
    _dress(figure, 460, ())
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
        text=[_scale_text(draft.scale) if draft.labelled else "" for draft, _ in known],
        textposition=_beyond([draft.speedup or 0.0 for draft, _ in known]),
        textfont={"size": 11, "color": GREY},
        customdata=[
            f"<b>{_scale_text(d.scale)} draft alone</b><br>speed {number(d.speedup, unit='×')}"
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


def _dress(figure: go.Figure, height: int, scales: Sequence[float]) -> go.Figure:
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


# The page


def write_report(study_dir: Path) -> Path:
    """The path of `report.html`, written into the study's directory."""
    path = study_dir / "report.html"
    atomic_write(path, report_html(read_study(study_dir)))
    return path


def report_html(study: Study) -> str:
    """The report as one self-contained page."""
    summary = summary_info(study.trials, references=study.references, best=study.best)
    parts = [page.tiles_html(tiles(summary)), *_figure_sections(study), *_table_sections(study)]
    return page.page_html(study.name, about=about_text(study), reading=summary.reading, parts=parts)


def about_text(study: Study) -> str:
    """What was forecast, with which target and when, in one line."""
    known, made = study.references, str(study.provenance.get("time_utc", ""))
    parts = [
        f"Horizon {known['horizon']} in patches of {known.get('patch', '?')}"
        if "horizon" in known
        else "",
        f"batch {known['batch']}" if "batch" in known else "",
        f"target of {quantity(known['target'].get('parameters'))} parameters"
        if "target" in known
        else "",
        f"{made[:16].replace('T', ' ')} UTC" if made else "",
    ]
    return " · ".join(part for part in parts if part)


def tiles(summary: Summary) -> list[Tile]:
    """The key figures, the one that matters most first."""
    best, states = summary.best, summary.states
    others = [f"{count} {state}" for state, count in states.items() if state != "complete"]
    counts = ", ".join([f"{summary.feasible} within the budget", *others])
    done = Tile("Trials complete", str(states.get("complete", 0)), counts)
    drafts = Tile("Drafts trained", str(summary.num_drafts), "distinct architectures and recipes")
    if best is None:
        return [Tile("Speedup within budget", "–", "no trial so far"), done, drafts]
    interval = f"95 % interval {number(best.low, digits=2)} to {number(best.high, digits=2)}"
    note = interval if best.measured else "predicted, not measured yet"
    length = f"{number(summary.accept_length, digits=2)} patches a round"
    return [
        Tile("Speedup within budget", f"{best.measured or best.predicted:.2f}×", note),
        Tile("Its acceptance rate", percent(best.acceptance), length),
        Tile("Its error over the target's", number(best.mse_ratio), _budget_text(summary.budget)),
        done,
        drafts,
    ]


def _budget_text(budget: float | None) -> str:
    return f"mse ratio, budget {budget:g}" if budget is not None else "mse ratio"


def _figure_sections(study: Study) -> list[str]:
    trials, references = study.trials, study.references
    sections = []
    if points_info(trials):
        front = front_figure(front_info(trials, references=references))
        accuracy = accuracy_figure(accuracy_info(trials, references=references))
        settings = settings_info(trials)
        sections = [
            _plot_section("Acceptance against speedup", "front", front),
            _plot_section("Accuracy against speedup", "accuracy", accuracy),
        ]
        if len(settings.axes) > 1:
            figure = settings_figure(settings)
            sections.append(_plot_section("Which settings pay", "settings", figure, min_width=860))
    quality = quality_page.quality_info(study.path)
    if quality.studies:
        figure = _dress(quality_page.quality_figure(quality), 380, ())
        sections.append(quality_page.section(figure, quality))
    if len(study.curves):
        curves = curves_figure(curves_info(study.curves))
        sections.append(
            _plot_section("How the models were trained", "curves", curves, min_width=860)
        )
    return sections


def _plot_section(title: str, name: str, figure: go.Figure, *, min_width: int = 0) -> str:
    plot = page.figure_html(figure, name=name, reading=READING[name], min_width=min_width)
    return page.section_html(title, plot)


def _table_sections(study: Study) -> list[str]:
    trials, references = study.trials, study.references
    front = page.front_table(trials, best=study.best)
    failures = page.failures_table(trials)
    sections = []
    if front.rows:
        rule = study.best.get("rule")
        lead = f"The highlighted trial is the recommended one. {rule}" if rule else ""
        sections.append(page.section_html("The front", page.table_html(front), lead=lead))
    if references:
        drafts = page.table_html(page.drafts_table(trials, references=references))
        lead = "Each model by itself: its size, its error, and its speed over the target's."
        sections.append(page.section_html("Target and drafts, each alone", drafts, lead=lead))
    if failures.rows:
        sections.append(page.section_html("Failed trials", page.table_html(failures)))
    resolved = yaml.safe_dump(study.resolved, sort_keys=False, allow_unicode=True)
    # A team's database address may be among the settings, password and all.
    folded = page.details_html("The study as it was run (study.yaml)", redacted(resolved))
    if study.provenance:
        folded += page.tree_html("Where these results come from (provenance)", study.provenance)
    for ladder in study.ladders:
        sections += ladder_page.ladder_sections(ladder)
    return [*sections, page.section_html("Record", folded)]
