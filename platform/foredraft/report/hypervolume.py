"""How well a study searched: the hypervolume below its front, trial by trial.

A study is drawn beside those in the same storage that searched the same thing in another way, such
as at random: only that tells whether its sampler was worth having.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from foredraft import buckets
from foredraft.documents import read_mapping
from foredraft.errors import ConfigError
from foredraft.report.look import ACCENT, GREY, dress
from foredraft.search.record import Standing, Times

READING = (
    "The volume between the trials within the budget and nothing at all: acceptance, times "
    "speedup, times what they leave of the budget's first bound. It can only grow; a "
    "sampler that learns grows faster than one that draws at random. Grey lines are other studies "
    "of the same search in this storage."
)

# How a study searched; in all else two have to agree to be drawn together.
HOW = (
    *("name", "sampler", "outer", "seed", "trials", "startup_trials", "first", "warm_start"),
    *("database", "machine", "confirm_pairs", "confirm_windows", "stop_early"),
)


class StudyLine(NamedTuple):
    """One study's hypervolume after each trial."""

    label: str
    own: bool
    hypervolumes: tuple[float, ...]
    seconds: tuple[float, ...] = ()
    """after which each was reported, since the first trial began; empty where nothing tells"""


class HypervolumeInfo(NamedTuple):
    """What `hypervolume_figure` shows: the study itself first."""

    studies: tuple[StudyLine, ...]


def hypervolume_info(
    study_dir: Path, standings: Sequence[Standing], *, times: Mapping[int, Times]
) -> HypervolumeInfo:
    """The study's line, and that of each that searched the same thing in another way.

    `standings` and `times` are those of the study itself, which may be running; of the others,
    those count that have ended.
    """
    searched = _what(study_dir)
    studies = study_dir.resolve().parent
    for name in buckets.names(studies):  # all that is asked of them, and no more
        for file in ("study.yaml", "trials.parquet"):
            buckets.fetch_lately(studies / name / file)
    others = sorted(path.parent for path in studies.glob("*/trials.parquet"))
    alike = [p for p in others if p.name != study_dir.resolve().name and _what(p) == searched]
    own = [standing.hypervolume for standing in standings]
    lines = [
        _line(study_dir, own, own=True)._replace(seconds=_seconds(standings, times)),
        *(_line(path, _column(path / "trials.parquet"), own=False) for path in alike),
    ]
    return HypervolumeInfo(tuple(line for line in lines if line.hypervolumes))


def _seconds(standings: Sequence[Standing], times: Mapping[int, Times]) -> tuple[float, ...]:
    """When each trial was reported; empty where that is not known of all."""
    known = [times[one.trial.number] for one in standings if one.trial.number in times]
    began = [one.began for one in known if one.began]
    ended = [one.ended for one in known if one.ended]
    if not began or len(ended) < len(standings):
        return ()
    return tuple((end - min(began)).total_seconds() for end in ended)


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
    """Hypervolume over trials, this study in colour; over seconds too where they are known."""
    timed = bool(info.studies and info.studies[0].seconds)
    figure = make_subplots(rows=1, cols=1 + timed, shared_yaxes=True, horizontal_spacing=0.04)
    for line in reversed(info.studies):
        look = {"color": ACCENT if line.own else GREY, "width": 2 if line.own else 1}
        _add_steps(figure, line, list(range(1, len(line.hypervolumes) + 1)), look, col=1)
        if timed and line.seconds:
            # Trials end in another order than they began in.
            seconds, volumes = zip(*_by_time(line), strict=True)
            later = line._replace(hypervolumes=volumes)
            _add_steps(figure, later, list(seconds), look, col=2)
    figure.update_xaxes(title="trials", row=1, col=1)
    if timed:
        figure.update_xaxes(title="seconds since the first trial began", row=1, col=2)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="hypervolume", row=1, col=1)
    return dress(figure, 380, ())


def _by_time(line: StudyLine) -> list[tuple[float, float]]:
    """Seconds and hypervolume by rising seconds; it never falls."""
    highest, found = 0.0, []
    for second, volume in sorted(zip(line.seconds, line.hypervolumes, strict=True)):
        highest = max(highest, volume)
        found.append((second, highest))
    return found


def _add_steps(
    figure: go.Figure, line: StudyLine, places: list[Any], look: Mapping[str, object], *, col: int
) -> None:
    figure.add_scatter(
        x=places,
        y=line.hypervolumes,
        mode="lines",
        name=line.label,
        legendgroup=line.label,
        showlegend=col == 1,
        line=dict(look),
        line_shape="hv",
        row=1,
        col=col,
    )


def sentence(info: HypervolumeInfo) -> str:
    """What the figure says, in one line."""
    own, *others = info.studies
    parts = [f"{own.label} covers {own.hypervolumes[-1]:.4f} after {len(own.hypervolumes)} trials"]
    for other in others:
        count = min(len(other.hypervolumes), len(own.hypervolumes))
        parts.append(f"{other.label} {other.hypervolumes[count - 1]:.4f} after {count}")
    return f"{'; '.join(parts)}."
