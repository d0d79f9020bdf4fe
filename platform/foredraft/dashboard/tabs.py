"""The tabs beside the front: the report's figures, and the machines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from dash import html

from foredraft.dashboard import parts
from foredraft.dashboard.pages import Shown, last_report
from foredraft.dashboard.patches import UIREVISION
from foredraft.report.sections import Section, cost_sections, training_sections, why_sections
from foredraft.report.study_files import StudyFiles
from foredraft.report.tables import plural
from foredraft.search.record import Record

SECTIONS = {"why": why_sections, "training": training_sections, "cost": cost_sections}
EMPTY = {
    "why": "Too few trials are complete yet to tell why any of them pays.",
    "training": "Nothing has been trained to its end yet.",
    "cost": "No trial has been reported yet.",
}


def sections(shown: Sequence[Shown], tab: str) -> list[Any]:
    """The figures of a tab, for each study; a sentence where there are none yet."""
    found: list[Any] = []
    for one in shown:
        if one.record is None:
            continue
        drawn = list(SECTIONS[tab](one.shelf.files(one.record)))
        if len(shown) > 1 and drawn:
            found.append(html.H2(one.look.label, className="study"))
        found += [_section(one.look.label, section) for section in drawn]
        if tab == "cost":
            found.append(_machines(one.record, one.shelf.files(one.record)))
    return found or [html.P(EMPTY[tab], className="hint")]


def _section(label: str, section: Section) -> html.Section:
    figure = section.figure.update_layout(uirevision=UIREVISION)
    plot = parts.graph(
        f"{section.name} of {label}",
        reading=section.reading,
        figure=figure,
        min_width=section.min_width,
    )
    lead = [html.P(section.lead, className="lead")] if section.lead else []
    return html.Section([html.H2(section.title), *lead, plot])


def _machines(record: Record, files: StudyFiles) -> html.Section:
    """Where trials run, the age of the last report, and where else to look."""
    made, machine = files.provenance, record.study.machine
    timed = {kind for trial in record.trials if trial.outcome for kind in trial.outcome.timing}
    running = sum(trial.state == "running" for trial in record.trials)
    asked = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in machine.model_dump(exclude_none=True).items()
    )
    lines = [
        f"The last report came {last_report(record)}; {plural(running, 'trial')} under way.",
        f"Asked of each machine: {asked}.",
        f"Timed for real on: {', '.join(sorted(timed)) or 'nothing yet'}.",
    ]
    if made:
        lines.append(
            f"Its driver began on {made.get('host', '?')} ({made.get('cpu', '?')}, "
            f"{made.get('num_cpus', '?')} CPUs)."
        )
    found: list[Any] = [html.H2("Machines"), *(html.P(line) for line in lines)]
    ray = str(made.get("ray_dashboard") or "")
    if ray.startswith(("http://", "https://")):
        found.append(html.P([html.A("Ray's dashboard", href=ray), f" at {ray}, while it runs."]))
    storage = files.path.resolve().parents[1]
    found.append(html.P("TensorBoard, with every training and trial:"))
    found.append(
        parts.copyable(
            "tensorboard", shlex.join(["foredraft", "tensorboard", "--storage", str(storage)])
        )
    )
    return html.Section(found)
