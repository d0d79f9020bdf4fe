"""How well a study searched: the hypervolume that its front covers, trial by trial.

A study is drawn beside those in the same storage that searched the same thing in another way, such
as at random: only that tells whether its sampler was worth having.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from plotly import graph_objects as go

from foredraft.documents import read_mapping
from foredraft.errors import ConfigError
from foredraft.report import page
from foredraft.report.page import ACCENT, GREY

READING = (
    "The volume between the trials within the accuracy budget and nothing at all: acceptance, "
    "times speedup, times the part of the target's error that was saved. It can only grow; a "
    "sampler that learns grows faster than one that draws at random. Grey lines are other studies "
    "of the same search in this storage."
)

# How a study searched; in all else two have to agree to be drawn together.
HOW = (
    *("name", "sampler", "seed", "trials", "startup_trials", "first", "warm_start", "database"),
    *("machine", "confirm_pairs", "confirm_windows", "few_windows", "slack"),
)


class Progress(NamedTuple):
    """One study's hypervolume after each trial."""

    label: str
    own: bool
    hypervolume: tuple[float, ...]


class QualityInfo(NamedTuple):
    """What `quality_figure` shows: the study itself first."""

    studies: tuple[Progress, ...]


def quality_info(study_dir: Path, *, trials: pd.DataFrame) -> QualityInfo:
    """The study's progress, and that of each that searched the same thing in another way.

    `trials` are the study's own, those of a running one included.
    """
    asked = _what(study_dir)
    others = sorted(path.parent for path in study_dir.resolve().parent.glob("*/trials.parquet"))
    alike = [p for p in others if p.name != study_dir.resolve().name and _what(p) == asked]
    lines = [
        _progress(study_dir, trials, own=True),
        *(_progress(path, pd.read_parquet(path / "trials.parquet"), own=False) for path in alike),
    ]
    return QualityInfo(tuple(line for line in lines if line.hypervolume))


def _what(study_dir: Path) -> dict[str, Any] | None:
    """What a study searches, apart from how; None where its file cannot be read."""
    path = study_dir / "study.yaml"
    try:
        tree = read_mapping(path, what="a study")
    except ConfigError:
        return None  # a neighbour's broken file is no reason to refuse a report
    return {name: value for name, value in tree.items() if name not in HOW}


def _progress(study_dir: Path, trials: pd.DataFrame, *, own: bool) -> Progress:
    tree = read_mapping(study_dir / "study.yaml", what="a study")
    covered = trials["hypervolume"].tolist() if "hypervolume" in trials else []
    label = f"{study_dir.resolve().name} ({tree.get('sampler', 'tpe')})"
    return Progress(label, own, tuple(covered))


def quality_figure(info: QualityInfo) -> go.Figure:
    """Hypervolume over trials, this study in colour."""
    figure = go.Figure()
    for line in reversed(info.studies):
        figure.add_scatter(
            x=list(range(1, len(line.hypervolume) + 1)),
            y=line.hypervolume,
            mode="lines",
            name=line.label,
            line={"color": ACCENT if line.own else GREY, "width": 2 if line.own else 1},
            line_shape="hv",
        )
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return figure


def sentence(info: QualityInfo) -> str:
    """What the figure says, in one line."""
    own, *others = info.studies
    said = f"{own.label} covers {own.hypervolume[-1]:.4f} after {len(own.hypervolume)} trials"
    shared = [(o, min(len(o.hypervolume), len(own.hypervolume))) for o in others]
    told = [
        f"{other.label} {other.hypervolume[count - 1]:.4f} after {count}" for other, count in shared
    ]
    return f"{'; '.join([said, *told])}."


def section(figure: go.Figure, info: QualityInfo) -> str:
    """The part of the report."""
    plot = page.figure_html(figure, name="quality", reading=READING)
    return page.section_html("How well the search did", plot, lead=sentence(info))
