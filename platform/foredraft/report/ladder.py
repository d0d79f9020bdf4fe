"""A ladder of draft quality for readers: plain information, then figure, table and page.

    foredraft progression --recipe demo

As for a study, every `*_info` returns plain data and the figure draws nothing else. The
ladder is a page of its own, and a section of the report of every study that has its target.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plotly import graph_objects as go
from plotly.subplots import make_subplots
from pydantic import ConfigDict, ValidationError

from foredraft import buckets
from foredraft.documents import read_json
from foredraft.errors import ConfigError
from foredraft.files import atomic_write
from foredraft.judge.progression import FILE
from foredraft.report import page
from foredraft.report.look import ACCENT, GREY
from foredraft.report.tables import Table, number, percent, quantity
from foredraft.search.trial import Sizes

BLUE = "#3b528b"
STRICT: dict[str, object] = {"symbol": "circle", "size": 10, "color": ACCENT}
LENIENT: dict[str, object] = {"symbol": "circle-open", "size": 11, "color": GREY}
TOGETHER: dict[str, object] = {"symbol": "diamond", "size": 10, "color": ACCENT}
ALONE: dict[str, object] = {
    "symbol": "line-ns-open",
    "size": 15,
    "color": BLUE,
    "line": {"width": 3},
}

READING = (
    "Every rung is a draft, trained one step better than the one above it. Left: how much of what "
    "it proposes the target accepts, under the strict rule (filled) and under the lenient one of "
    "the original study (hollow), which says little about quality. Middle: the error of the draft "
    "alone and of speculation; the dashed line is the target alone, the dotted one seasonal naive. "
    "Right: speed over the target alone, which is the dashed line at 1×. A draft that is left of "
    "the dashed line in the middle and right of it at the right, all by itself, makes its target "
    "superfluous on this data."
)

Content = dict[str, Any]
"""ladder.json as it stands: the ladder, its rules, its rows, and where they come from."""


class LadderRow(Sizes):
    """One row of ladder.json: the target, seasonal naive, or a rung with the target or without."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rung: str
    way: str
    """target, seasonal naive, speculation or draft alone"""
    key: str
    parameters: int
    near_horizon: int
    near_mse: float
    near_mae: float
    far_horizon: int
    far_mse: float
    far_mae: float
    acceptance_strict: float | None = None
    acceptance_lenient: float | None = None
    accept_length: float | None = None
    mse_ratio: float | None = None
    deviation_ratio: float | None = None
    """fidelity: mean squared difference to the target's own forecast, over the target's mse"""
    speedup: float | None = None
    """over the target alone; measured in pairs where it is speculation's"""
    speedup_low: float | None = None
    speedup_high: float | None = None


class Step(NamedTuple):
    """One rung: what the target accepts, and the errors and speeds with it and without it."""

    name: str
    strict: float
    lenient: float
    error: float
    """mean squared error of speculation at the ladder's horizon"""
    error_alone: float
    speed: float
    """measured, over the target alone"""
    low: float | None
    """None, as the other end, where too few pairs were timed for an interval"""
    high: float | None
    speed_alone: float


class LadderInfo(NamedTuple):
    """What `ladder_figure` shows."""

    steps: tuple[Step, ...]
    target_error: float
    horizon: int
    naive_error: float | None = None
    """of seasonal naive; None for a ladder of before it was measured"""


def read_ladder(directory: Path) -> Content:
    """What a climb left in its directory; ConfigError where nothing is."""
    path = directory / FILE
    if not path.is_file():
        raise ConfigError(f"{directory} holds no {FILE}: give the directory of a progression")
    content: Content = read_json(path, remedy="climb the ladder once more")
    return content


def rows_of(content: Content) -> list[LadderRow]:
    """The rows of a ladder: the target's, seasonal naive's, then two of each rung.

    Raises:
        ConfigError: they are not what a climb leaves.
    """
    try:
        return [LadderRow.model_validate(row) for row in content["rows"]]
    except (KeyError, ValidationError) as error:
        raise ConfigError(
            f"{FILE} is not what a climb leaves: climb the ladder once more"
        ) from error


def ladder_info(rows: Sequence[LadderRow]) -> LadderInfo:
    """The rungs in order, each from its two rows."""
    target = rows[0]
    by_way = {way: [row for row in rows if row.way == way] for way in {row.way for row in rows}}
    pairs = zip(by_way["speculation"], by_way["draft alone"], strict=True)
    naive = [row.far_mse for row in by_way.get("seasonal naive", [])]
    return LadderInfo(
        steps=tuple(
            Step(
                name=together.rung,
                strict=together.acceptance_strict or 0.0,
                lenient=together.acceptance_lenient or 0.0,
                error=together.far_mse,
                error_alone=alone.far_mse,
                speed=together.speedup or 0.0,
                low=together.speedup_low,
                high=together.speedup_high,
                speed_alone=alone.speedup or 0.0,
            )
            for together, alone in pairs
        ),
        target_error=target.far_mse,
        naive_error=naive[0] if naive else None,
        horizon=target.far_horizon,
    )


def ladder_sentences(info: LadderInfo) -> tuple[str, ...]:
    """What the ladder says: how far the rungs lead, whether it pays, whether a target is needed."""
    first, best = info.steps[0], max(info.steps, key=lambda step: step.strict)
    sentences = [
        *_naive_sentences(info),
        f"Strict acceptance rises from {percent(first.strict)} ({first.name}) to "
        f"{percent(best.strict)} ({best.name}).",
    ]
    proven = [step for step in info.steps if step.low is not None and step.low > 1]
    fastest = max(proven or info.steps, key=lambda step: step.speed)
    if proven:
        sentences.append(f"Speculation is fastest with {fastest.name}: {_interval(fastest)}.")
    else:
        sentences.append(
            f"No rung is established to be faster than the target alone; the nearest is "
            f"{fastest.name}, {_interval(fastest)}."
        )
    rivals = [s for s in info.steps if s.error_alone <= info.target_error and s.speed_alone > 1]
    if rivals:
        rival = min(rivals, key=lambda step: step.error_alone)
        sentences.append(
            f"The target is not worth its cost here: {_count(len(rivals), len(info.steps))} alone "
            f"are as accurate as it and faster, best of all {rival.name} (mse "
            f"{number(rival.error_alone)} against {number(info.target_error)}, "
            f"{rival.speed_alone:.2f}× as fast). Where that is so, speculation is pointless."
        )
    else:
        sentences.append(
            "No draft alone is both as accurate as the target and faster: it earns its cost."
        )
    return tuple(sentences)


def _naive_sentences(info: LadderInfo) -> list[str]:
    """Whether the target is worth its seconds at all."""
    if info.naive_error is None or info.target_error < info.naive_error:
        return []
    return [
        f"The target alone (mse {number(info.target_error)}) is no better than seasonal naive "
        f"({number(info.naive_error)}), which costs nothing: train a better target first."
    ]


def _interval(step: Step) -> str:
    if step.low is None or step.high is None:
        return f"{step.speed:.2f}× (too few pairs for an interval)"
    return f"{step.speed:.2f}× (95 % interval {step.low:.2f} to {step.high:.2f})"


def _count(some: int, of: int) -> str:
    return f"{some} of {of} drafts"


def ladder_figure(info: LadderInfo) -> go.Figure:
    """Acceptance, error and speed of every rung, first rung on top."""
    figure = make_subplots(
        cols=3,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=("accepted", f"mse at {info.horizon}", "speed over the target alone"),
    )
    steps = info.steps
    _add_dots(figure, 1, "strict rule", {s.name: s.strict for s in steps}, STRICT)
    _add_dots(figure, 1, "lenient rule", {s.name: s.lenient for s in steps}, LENIENT)
    _add_dots(figure, 2, "draft alone", {s.name: s.error_alone for s in steps}, ALONE)
    _add_dots(figure, 2, "speculation", {s.name: s.error for s in steps}, TOGETHER)
    _add_dots(figure, 3, "draft alone", {s.name: s.speed_alone for s in steps}, ALONE)
    _add_dots(figure, 3, "speculation", {s.name: s.speed for s in steps}, TOGETHER)
    figure.data[-1].error_x = {
        "type": "data",
        "symmetric": False,
        "array": [(s.high or s.speed) - s.speed for s in steps],
        "arrayminus": [s.speed - (s.low or s.speed) for s in steps],
        "color": ACCENT,
    }
    for column, place in ((2, info.target_error), (3, 1.0)):
        figure.add_vline(x=place, line={"color": GREY, "dash": "dash", "width": 1.5}, col=column)
    if info.naive_error is not None:
        line = {"color": GREY, "dash": "dot", "width": 1.5}
        figure.add_vline(x=info.naive_error, line=line, col=2)
    return _dress(figure, rungs=len(steps))


def _add_dots(
    figure: go.Figure, column: int, name: str, values: dict[str, float], marker: dict[str, object]
) -> None:
    """One mark a rung; a name has one legend entry, whatever the panels it is in."""
    figure.add_scatter(
        x=list(values.values()),
        y=list(values),
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=name not in {trace.name for trace in figure.data},
        marker=marker,
        hovertemplate=f"%{{y}}<br>{name}: %{{x:.4g}}<extra></extra>",
        row=1,
        col=column,
    )


def _dress(figure: go.Figure, *, rungs: int) -> go.Figure:
    figure.update_xaxes(tickformat=".0%", range=[-0.04, 1.04], col=1)
    figure.update_xaxes(ticksuffix="×", rangemode="tozero", col=3)
    figure.update_xaxes(gridcolor="#eceef0", zeroline=False)
    figure.update_yaxes(autorange="reversed", gridcolor="#eceef0", automargin=True)
    figure.update_annotations(font={"size": 13, "color": GREY})
    return figure.update_layout(
        template="none",
        height=150 + 44 * rungs,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "color": "#5c6670",
        },
        margin={"l": 44, "r": 12, "t": 56, "b": 88},
        dragmode=False,
        modebar={
            "bgcolor": "rgba(0,0,0,0)",
            "color": "#adb5bd",
            "activecolor": ACCENT,
            "remove": ["select2d", "lasso2d", "autoScale2d"],
        },
        legend={"orientation": "h", "x": 0, "y": -50 / (44 * rungs), "yanchor": "top"},
    )


def ladder_table(rows: Sequence[LadderRow]) -> Table:
    """Every row: the target, seasonal naive, then each rung with the target and without it."""
    near, far = rows[0].near_horizon, rows[0].far_horizon
    columns = ("rung", "way", "architecture", "parameters")
    numbers = (
        *(f"mse {near}", f"mae {near}", f"mse {far}", f"mae {far}"),
        *("lenient", "strict", "mse ratio", "deviation ratio", "accept length", "speedup"),
    )
    return Table(
        columns=(*columns, *numbers),
        rows=tuple(_table_row(row) for row in rows),
        numeric=frozenset(("parameters", *numbers)),
        note=(
            "Architecture: d_model, heads, d_ff, layers, and the patches of one pass where it is "
            "more than one; of heads, how many and the width that they share. Speed of speculation "
            "is measured in pairs with the target alone."
        ),
    )


def _table_row(row: LadderRow) -> tuple[str, ...]:
    return (
        row.rung,
        row.way,
        _architecture(row),
        quantity(row.parameters) if row.parameters else "–",
        *(number(e, digits=4) for e in (row.near_mse, row.near_mae, row.far_mse, row.far_mae)),
        percent(row.acceptance_lenient),
        percent(row.acceptance_strict),
        number(row.mse_ratio),
        number(row.deviation_ratio, digits=4),
        number(row.accept_length, digits=2),
        number(row.speedup, digits=2, unit="×"),
    )


def _architecture(row: LadderRow) -> str:
    if row.hidden is not None:
        return f"{row.patches_out} heads / {row.hidden}"
    sizes = (row.d_model, row.n_heads, row.d_ff, row.n_layers)
    architecture = " / ".join(map(str, sizes)) if any(sizes) else "–"
    if row.patches_out and row.patches_out > 1:
        architecture += f" ×{row.patches_out}"
    return architecture


def ladder_sections(content: Content, *, name: str = "ladder", lead: bool = True) -> list[str]:
    """The ladder as sections of a page: its figure, with what it says as `lead`, and its table.

    `name` is the figure's own on the page.
    """
    rows = rows_of(content)
    info = ladder_info(rows)
    figure = page.figure_html(ladder_figure(info), name=name, reading=READING, min_width=860)
    sentences = " ".join(ladder_sentences(info)) if lead else ""
    title = f"The ladder of draft quality: {content['ladder']['name']}"
    return [
        page.section_html(title, figure, lead=sentences),
        page.section_html(
            "Every rung, with its target and without", page.table_html(ladder_table(rows))
        ),
    ]


def ladders_of(target: str, *, storage: Path) -> list[Content]:
    """The ladders in a storage that lead to this target's drafts."""
    kept = buckets.fetch(storage / "progressions")
    found = [read_ladder(path.parent) for path in sorted(kept.glob(f"*/{FILE}"))]
    return [content for content in found if rows_of(content)[0].key == target]


def write_page(directory: Path) -> Path:
    """The path of `report.html`, written into the ladder's directory."""
    content = read_ladder(directory)
    ladder, rows = content["ladder"], rows_of(content)
    evaluation = ladder["evaluation"]
    about = (
        f"{evaluation['data']}, {evaluation['split']} split · horizon {evaluation['horizon']} · "
        f"batch {evaluation['batch']} · target of {quantity(rows[0].parameters)} parameters"
    )
    parts = ladder_sections(content, lead=False)  # the page itself begins with it
    parts.append(
        page.section_html(
            "Record", page.tree_html("Where these results come from", content["provenance"])
        )
    )
    path = directory / "report.html"
    reading = ladder_sentences(ladder_info(rows))
    atomic_write(
        path,
        page.page_html(
            ladder["name"], about=about, reading=reading, parts=parts, kind="progression"
        ),
    )
    buckets.keep(path)
    return path
