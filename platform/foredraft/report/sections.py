"""The figures of a study, each with its title and how to read it.

For a page that is written once, and for one that is live.

    for section in sections_of(read_study_files(Path("runs/studies/demo"))):
        section.figure.write_image(f"{section.name}.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plotly import graph_objects as go

from foredraft.report import (
    agreement,
    curves,
    expense,
    forecasts,
    hypervolume,
    importance,
    scatter,
    slices,
)
from foredraft.report.axes import settings_figure, settings_info
from foredraft.report.close_up import example_of
from foredraft.report.dots import dots_of, front_info, ratio_info
from foredraft.report.study_files import StudyFiles
from foredraft.search.record import Point

READING = {
    "front": (
        "Each dot is a trial: to the right the target accepts more of what the draft proposes, "
        "upwards the forecast gets faster. Hollow dots are over the study's budget. "
        "No trial on the orange line can gain in one direction without losing in the other; "
        "diamonds are trials of the front, timed for real, and hollow where another measured one "
        "is better in everything. The bars at the right are the drafts "
        "without any target."
    ),
    "accuracy": (
        "How much accuracy is lost against what happened. Left of the dashed line, where there is "
        "one, a trial keeps the budget; above 1× it is faster than the target alone. The best "
        "place is the upper left."
    ),
    "fidelity": (
        "How far a forecast is from the target's own: at 0 it is the same, at 1 as far from the "
        "target as the target is from what happened. Left of the dashed line, where there is one, "
        "a trial keeps the budget; a draft alone that stands there gives the target's forecasts "
        "without the target."
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
    "examined": (
        "After each epoch the draft proposed beside its target, under the strict rule: the share "
        "of its patches that were accepted. A draft whose loss still falls while its acceptance "
        "stands still is trained enough."
    ),
}
NARROWEST = 860
"""Pixels below which a figure of several panels scrolls in its own frame."""


class Section(NamedTuple):
    """A figure with its title, how to read it, and a sentence that says what it tells."""

    title: str
    name: str
    figure: go.Figure
    reading: str
    lead: str = ""
    min_width: int = 0


def sections_of(study: StudyFiles) -> list[Section]:
    """All that a study has enough trials for, in the order in which a reader asks."""
    return [
        *front_sections(study),
        *forecast_sections(study),
        *why_sections(study),
        *training_sections(study),
        *cost_sections(study),
    ]


def front_sections(study: StudyFiles) -> list[Section]:
    """Acceptance, accuracy and fidelity against speedup."""
    record = study.record
    if not record.complete:
        return []
    return [
        Section(
            "Acceptance against speedup",
            "front",
            scatter.front_figure(front_info(record)),
            READING["front"],
        ),
        *(
            Section(title, name, scatter.ratio_figure(ratio_info(record, metric)), READING[name])
            for title, name, metric in (
                ("Accuracy against speedup", "accuracy", "mse_ratio"),
                ("Fidelity against speedup", "fidelity", "deviation_ratio"),
            )
        ),
    ]


def forecast_sections(study: StudyFiles) -> list[Section]:
    """What the best trial forecasts, where its forecasts are kept."""
    record = study.record
    point = record.choice or record.favourite
    example = example_of(point, record, study.path) if point else None
    if point is None or example is None:
        return []
    windows, variates = _first_and_last(example.windows), _first_and_last(example.variates[0])
    info = forecasts.forecasts_info(example, windows=windows, variates=variates)
    return [
        Section(
            f"What trial {point.trial.number} forecasts",
            "forecasts",
            forecasts.forecasts_figure(info, columns=len(windows), height=280),
            forecasts.READING,
            _apart(point),
            min_width=NARROWEST,
        )
    ]


def _first_and_last(kept: Sequence[object]) -> list[int]:
    return sorted({0, len(kept) - 1})


def _apart(point: Point) -> str:
    apart, ratio = point.outcome.deviation_ratio, point.outcome.metrics.mse_ratio
    told = [
        f"over all windows its forecasts are {apart:.4f} of the target's own error away from the "
        "target's"
        if apart is not None
        else "",
        f"its error is {ratio:.4f} times the target's" if ratio is not None else "",
    ]
    sentence = ", and ".join(one for one in told if one)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def why_sections(study: StudyFiles) -> list[Section]:
    """Which settings pay and why, whether predictions held, and how well the search did."""
    record, found = study.record, []
    settings = settings_info(record.complete) if record.complete else None
    if settings and (importances := importance.importance_info(record)):
        found.append(
            Section(
                "Which settings matter",
                "importance",
                importance.importance_figure(importances),
                importance.READING,
                importance.sentence(importances),
            )
        )
    if settings and len(settings.axes) > 1:
        found.append(
            Section(
                "Which settings pay",
                "settings",
                settings_figure(settings),
                READING["settings"],
                min_width=NARROWEST,
            )
        )
        cut = slices.slices_info(settings.points, settings.axes)
        if cut.axes:
            figure = slices.slices_figure(cut)
            found.append(
                Section(
                    "Each setting against speed",
                    "slices",
                    figure,
                    slices.READING,
                    min_width=NARROWEST,
                )
            )
    scales = slices.scale_info(record.complete)
    if any(len(line.medians) > 1 for line in scales.lines):
        figure = slices.scale_figure(scales)
        found.append(Section("Acceptance against scale", "scale", figure, slices.SCALE_READING))
    timed = agreement.agreement_info(dots_of(record))
    if timed.dots:
        figure = agreement.agreement_figure(timed)
        found.append(Section("Predicted against measured", "agreement", figure, agreement.READING))
    searched = hypervolume.hypervolume_info(study.path, record.standings, times=record.times)
    if searched.studies:
        figure = hypervolume.hypervolume_figure(searched)
        found.append(
            Section(
                "How well the search did",
                "hypervolume",
                figure,
                hypervolume.READING,
                hypervolume.sentence(searched),
            )
        )
    return found


def training_sections(study: StudyFiles) -> list[Section]:
    """How target and drafts were trained."""
    if not len(study.curves):
        return []
    info = curves.curves_info(study.curves)
    found = [
        Section(
            "How the models were trained",
            "curves",
            curves.curves_figure(info),
            READING["curves"],
            min_width=NARROWEST,
        )
    ]
    if curves.is_examined(info):
        found.append(
            Section(
                "What the drafts were worth to the target, epoch by epoch",
                "examined",
                curves.acceptance_figure(info),
                READING["examined"],
            )
        )
    return found


def cost_sections(study: StudyFiles) -> list[Section]:
    """What it cost, and what is to come."""
    info = expense.expense_info(study.record)
    if not info.drafts:
        return []
    figure, lead = expense.expense_figure(info), expense.sentence(info)
    return [Section("What it cost", "expense", figure, expense.READING, lead)]
