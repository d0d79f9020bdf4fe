"""What a study's report tells, as plain data: rows in, information out, nothing drawn.

A study that is still running is told as far as it has come (`foredraft.report.directory`).
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from foredraft.redaction import redacted
from foredraft.report.tables import (
    Row,
    hover_text,
    interval_text,
    is_feasible,
    number,
    percent,
    plain_rows,
    plural,
    ratio_alone,
    setting_text,
)
from foredraft.search import record

# The settings in the order in which a reader asks for them, by their names in a figure; whatever
# else a study searches comes after them under its own name.
SETTING_LABELS = {
    "scale": "draft scale",
    "stages": "stages",
    "rule": "rule",
    "lookahead": "lookahead",
    "patches_out": "patches out",
    "sigma": "σ",
    "bias": "bias",
    "mse_tol": "mse tolerance",
    "context_policy": "context policy",
    "renorm_every": "renorm every",
    "scope": "scope",
    "quorum": "quorum",
    "adapt": "adapt",
}
LOGARITHMIC = {"sigma", "bias", "mse_tol"}

STAGES = {
    "scratch": "from scratch",
    "pretrain": "pretraining",
    "finetune": "fine-tuning",
    "distill": "distillation",
}


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
    pairs: int | None = None
    """timed; below six, `low` and `high` are their range and no 95 % interval"""
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
    """over the target's under the same context policy"""
    labelled: bool
    policy: str = ""
    """the context policy, where the study compares several"""


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
            pairs=int(row["pairs"]) if row.get("pairs") else None,
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
    target = references.get("target", {})
    several = len(target.get("policies", {})) > 1
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
            mse_ratio=ratio_alone(draft, target),
            labelled=draft.get("speedup_alone") in ends,
            policy=str(draft.get("policy", "")) if several else "",
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
    names = {name for row in rows for name in row if name.startswith("settings.")}
    known = [f"settings.{name}" for name in SETTING_LABELS]
    candidates = (
        *(_setting_axis(rows, name) for name in [*known, *sorted(names - set(known))]),
        _axis(rows, "acceptance_rate", "accepted"),
        _axis(rows, "predicted_speedup", "speedup", unit="×"),
        _axis(rows, "mse_ratio", "mse ratio", log=_is_wide([r.get("mse_ratio") for r in rows])),
    )
    axes = tuple(axis for axis in candidates if len(set(axis.values)) > 1)
    return SettingsInfo(axes, tuple(row["predicted_speedup"] for row in rows))


def _setting_axis(rows: list[Row], name: str) -> Axis:
    setting = name.removeprefix("settings.")
    label = SETTING_LABELS.get(setting, setting.replace("_", " "))
    return _axis(rows, name, label, log=setting in LOGARITHMIC)


def _axis(rows: list[Row], name: str, label: str, *, log: bool = False, unit: str = "") -> Axis:
    values = [row.get(name) for row in rows]
    if any(isinstance(value, bool | str) for value in values):
        values = [None if value is None else setting_text(value) for value in values]
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
            _best_sentences(points, pick)
            + _failure_sentences(rows)
            + _policy_sentences(references)
            + _alone_sentences(drafts_info(references), pick, budget)
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
            f"Its {interval_text(best.pairs)} reaches down to {best.low:.2f}×, "
            "so that gain is not established."
        )
    off = [abs(p.predicted / p.measured - 1) for p in points if p.measured]
    sentences.append(
        f"Over {plural(len(off), 'measured trial')} the prediction was off by "
        f"{percent(float(np.median(off)))} in the median."
    )
    return sentences


def _failure_sentences(rows: list[Row]) -> list[str]:
    count, error = record.failures([row for row in rows if row.get("state")])
    if 2 * count <= len(rows):
        return []
    last_line = redacted(str(error).strip().rsplit("\n", 1)[-1])
    return [f"Most trials failed ({count} of {len(rows)}), most often with: {last_line}"]


def _policy_sentences(references: Row) -> list[str]:
    """What reading under another context policy costs the target by itself."""
    errors = references.get("target", {}).get("policies", {})
    known = {policy: error["mse"] for policy, error in errors.items() if error.get("mse")}
    if len(known) < 2:
        return []
    best = min(known, key=lambda policy: float(known[policy]))
    costs = [
        f"{policy} {percent(mse / known[best] - 1)}"
        for policy, mse in known.items()
        if policy != best
    ]
    return [
        f"Read under {best}, the target errs least; another context policy by itself adds to its "
        f"error: {', '.join(costs)}. Every other ratio compares models under the same policy."
    ]


def _alone_sentences(
    drafts: Sequence[DraftAlone], best: Point | None, budget: float | None
) -> list[str]:
    speed = max(1.0, (best.measured or best.predicted) if best else 1.0)
    kept = [d for d in drafts if (d.mse_ratio or math.inf) <= max(budget or 1.0, 1.0)]
    rival = max(kept, key=lambda d: (_is_as_good(d), _alone_speed(d)), default=None)
    if rival is None or _alone_speed(rival) <= 1:
        return []
    under = f", under {rival.policy}," if rival.policy else ""
    name = f"The {scale_text(rival.scale)} draft alone{under}"
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


def scale_text(scale: float | None) -> str:
    """The scale as it is written in figures."""
    return f"{scale:.2f}×" if scale is not None else "unscaled"
