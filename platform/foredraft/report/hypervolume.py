"""How well a study searched: the hypervolume below its front, trial by trial.

A study is drawn beside those in the same storage that searched the same thing in another way, such
as at random: only that tells whether its sampler was worth having.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from plotly import graph_objects as go

from foredraft.documents import read_mapping
from foredraft.errors import ConfigError
from foredraft.report import page
from foredraft.report.look import ACCENT, GREY, dress
from foredraft.search.record import Standing

READING = (
    "The volume between the trials within the budget and nothing at all: acceptance, times "
    "speedup, times what they leave of the budget's first bound. It can only grow; a "
    "sampler that learns grows faster than one that draws at random. Grey lines are other studies "
    "of the same search in this storage."
)

# How a study searched; in all else two have to agree to be drawn together.
HOW = (
    *("name", "sampler", "seed", "trials", "startup_trials", "first", "warm_start", "database"),
    *("machine", "confirm_pairs", "confirm_windows", "stop_early"),
)


class StudyLine(NamedTuple):
    """One study's hypervolume after each trial."""

    label: str
    own: bool
    hypervolumes: tuple[float, ...]


class HypervolumeInfo(NamedTuple):
    """What `hypervolume_figure` shows: the study itself first."""

    studies: tuple[StudyLine, ...]


def hypervolume_info(study_dir: Path, standings: Sequence[Standing]) -> HypervolumeInfo:
    """The study's line, and that of each that searched the same thing in another way.

    `standings` are those of the study itself, which may be running; of the others, those count that
    have ended.
    """
    searched = _what(study_dir)
    others = sorted(path.parent for path in study_dir.resolve().parent.glob("*/trials.parquet"))
    alike = [p for p in others if p.name != study_dir.resolve().name and _what(p) == searched]
    own = [standing.hypervolume for standing in standings]
    lines = [
        _line(study_dir, own, own=True),
        *(_line(path, _column(path / "trials.parquet"), own=False) for path in alike),
    ]
    return HypervolumeInfo(tuple(line for line in lines if line.hypervolumes))


def _what(study_dir: Path) -> dict[str, Any] | None:
    """What a study searches, apart from how; None where its file cannot be read."""
    path = study_dir / "study.yaml"
    try:
        tree = read_mapping(path, what="a study")
    except ConfigError:
        return None  # a neighbour's broken file is no reason to refuse a report
    return {name: value for name, value in tree.items() if name not in HOW}


def _line(study_dir: Path, hypervolumes: Sequence[float], *, own: bool) -> StudyLine:
    tree = read_mapping(study_dir / "study.yaml", what="a study")
    label = f"{study_dir.resolve().name} ({tree.get('sampler', 'tpe')})"
    return StudyLine(label, own, tuple(hypervolumes))


def _column(path: Path) -> list[float]:
    trials = pd.read_parquet(path)
    return trials["hypervolume"].tolist() if "hypervolume" in trials else []


def hypervolume_figure(info: HypervolumeInfo) -> go.Figure:
    """Hypervolume over trials, this study in colour."""
    figure = go.Figure()
    for line in reversed(info.studies):
        figure.add_scatter(
            x=list(range(1, len(line.hypervolumes) + 1)),
            y=line.hypervolumes,
            mode="lines",
            name=line.label,
            line={"color": ACCENT if line.own else GREY, "width": 2 if line.own else 1},
            line_shape="hv",
        )
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return dress(figure, 380, ())


def sentence(info: HypervolumeInfo) -> str:
    """What the figure says, in one line."""
    own, *others = info.studies
    parts = [f"{own.label} covers {own.hypervolumes[-1]:.4f} after {len(own.hypervolumes)} trials"]
    for other in others:
        count = min(len(other.hypervolumes), len(own.hypervolumes))
        parts.append(f"{other.label} {other.hypervolumes[count - 1]:.4f} after {count}")
    return f"{'; '.join(parts)}."


def section(info: HypervolumeInfo) -> str:
    """The part of the report."""
    figure = hypervolume_figure(info)
    plot = page.figure_html(figure, name="hypervolume", reading=READING)
    return page.section_html("How well the search did", plot, lead=sentence(info))
