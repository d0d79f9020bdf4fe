"""What stands on the page, from records and the view: components, no callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dash import dcc, html

from foredraft.dashboard import parts
from foredraft.dashboard.catalogue import Look, Shelf, age_in_words
from foredraft.dashboard.patches import UIREVISION
from foredraft.dashboard.view import View, address
from foredraft.documents import read_json
from foredraft.errors import ConfigError
from foredraft.report import forecasts, tables
from foredraft.report.close_up import (
    READING,
    CloseUp,
    outcome_table,
    seconds_sentences,
    settings_table,
    trial_figure,
)
from foredraft.report.look import FRONT_HEIGHT
from foredraft.report.study_report import about_text, tiles
from foredraft.report.summary import Summary, summary_info
from foredraft.report.tables import Table, plural
from foredraft.search import choice
from foredraft.search.examples import Example
from foredraft.search.record import Record
from foredraft.search.trial import Measured, Trial

TABS = {"front": "Front", "why": "Why", "training": "Training", "cost": "Cost and machines"}
AXES = {
    "acceptance": "acceptance",
    "mse_ratio": "accuracy (mse ratio)",
    "deviation_ratio": "fidelity (deviation ratio)",
}
BOUNDS = {"mse_ratio": "Accuracy: mse ratio", "deviation_ratio": "Fidelity: deviation ratio"}
NO_FORECASTS = "Its forecasts are not here: they lie in the study's directory, where it ran."


class Shown(NamedTuple):
    """One study as the view asks for it."""

    shelf: Shelf
    look: Look
    record: Record | None
    """under the view's budget; None where it could never be read"""


def layout() -> html.Div:
    """The page with every part in its place, all of them empty."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=2000),
            *(dcc.Store(id=name) for name in ("marks", "scope", "picked", "tab", "axis")),
            *(dcc.Store(id=name) for name in ("limits", "shown", "nothing")),
            html.Div(id="trouble", className="trouble", role="status"),
            html.Div(id="studies", style={"display": "none"}),
            html.Div(_study_parts(), id="study", style={"display": "none"}),
        ]
    )


def _study_parts() -> list[Any]:
    tabs = [html.Button(title, id=f"go-{name}") for name, title in TABS.items()]
    return [
        html.Header(id="head"),
        html.Nav(tabs, className="tabs"),
        html.Div(_front_parts(), id="tab-front"),
        *(html.Div(id=f"tab-{name}") for name in TABS if name != "front"),
    ]


def _front_parts() -> list[Any]:
    sliders = [
        html.Label(
            [
                html.Span(title, className="name"),
                dcc.Input(id=f"slider-{name}", type="range", min=0, max=200, step=1, value=200),
                html.Span(id=f"label-{name}", className="value"),
            ],
            className="control",
        )
        for name, title in BOUNDS.items()
    ]
    axes = [html.Button(title, id=f"axis-{name}") for name, title in AXES.items()]
    figure = html.Div(
        [parts.graph("front", height=FRONT_HEIGHT), html.P(id="front-reading", className="note")]
    )
    return [
        html.Div(
            [
                *sliders,
                html.Button("the study's own budget", id="own", className="quiet"),
                html.Div(
                    [
                        html.Span("against speedup", className="name"),
                        html.Div(axes, className="choices"),
                    ],
                    className="control",
                ),
            ],
            className="controls",
        ),
        html.P(id="front-sentence", className="lead"),
        html.Div(
            [html.Div([figure, html.Div(id="others")]), html.Div(id="trial", className="trial")],
            className="side",
        ),
        html.Section(id="front-table"),
    ]


def studies(shelves: Sequence[Shelf], *, storage: str) -> list[Any]:
    """The list of the studies that there are."""
    head = [html.P("foredraft dashboard", className="eyebrow"), html.H1("Studies")]
    if not shelves:
        return [
            *head,
            html.P(
                f"There is no study in {storage} yet: foredraft search begins one, and it appears "
                "here by itself.",
                className="about",
            ),
        ]
    labels = [shelf.label for shelf in shelves]
    links = {label: {"study": label} for label in labels}
    columns = ("study", "trials", "what it found", "last report")
    rows = tuple(_study_row(shelf) for shelf in shelves)
    shown = parts.table(Table(columns, rows, frozenset({"trials"})), links=links)
    together: list[Any] = []
    if len(labels) > 1:
        every = dcc.Link("show the fronts of all of them in one figure", href=address(labels))
        together = [html.P(every)]
    return [*head, html.P(f"in {storage}", className="about"), html.Section(shown), *together]


def _study_row(shelf: Shelf) -> tuple[str, ...]:
    """A study without its trials, as there may be many studies."""
    try:
        study, count = shelf.study(), shelf.count()
        found = _finding(shelf.directory / "best.json")
    except ConfigError as error:
        return shelf.label, "–", str(error), "–"
    return shelf.label, f"{count.ended} of {study.trials}", found, _ago(count.last)


def _finding(path: Path) -> str:
    if not path.is_file():
        return "no choice yet"
    best = read_json(path, remedy="search --resume writes it anew")
    if best.get("choice") == choice.TARGET_ALONE:
        return f"target alone: {best.get('why')}"
    metrics = best["metrics"]
    if metrics.get("speedup") is None:
        speed = f"{metrics['predicted_speedup']:.2f}× (predicted)"
    else:
        told = {name: metrics.get(name) for name in Measured.model_fields}
        speed = Measured.model_validate(told).in_words(unit="×")
    return f"trial {best['number']}, {speed}"


def last_report(record: Record) -> str:
    """How long ago a trial was reported, or an en dash where nothing tells."""
    return _ago(max((one.ended for one in record.times.values() if one.ended), default=None))


def _ago(then: datetime | None) -> str:
    if then is None:
        return "–"
    # Optuna writes the clock of the driver's machine, without its zone.
    now = datetime.now(UTC).astimezone().replace(tzinfo=None)
    return f"{age_in_words(int((now - then).total_seconds()))} ago"


def state_sentence(record: Record) -> str:
    """What there is to see of a study none of whose trials is complete."""
    ended = [one.trial for one in record.standings]
    if not record.trials:
        return "No trial has been begun yet: the target or the first draft may still be training."
    if not ended:
        return f"{plural(len(record.trials), 'trial')} under way, none reported yet."
    failed = [trial for trial in ended if trial.error]
    if len(failed) == len(ended):
        last = str(failed[-1].error).strip().rsplit("\n", 1)[-1]
        return f"All {plural(len(ended), 'trial')} failed, the last with: {last}"
    return f"None of {plural(len(ended), 'trial')} is complete: they failed or were stopped early."


def troubles(shown: Sequence[Shown], asked: Sequence[str]) -> list[html.P]:
    """A sentence for each study that cannot be read, or that there is none of."""
    known = {one.look.label for one in shown}
    missing = [f"There is no study {label!r} here." for label in asked if label not in known]
    found = [one.look.trouble for one in shown if one.look.trouble]
    return [html.P(sentence) for sentence in (*missing, *found)]


def head(shown: Sequence[Shown]) -> list[Any]:
    """Name, first paragraph and key figures of a study; of several, a line for each."""
    back = html.P([dcc.Link("foredraft dashboard", href="/")], className="eyebrow")
    title = html.H1(", ".join(one.look.label for one in shown) or "No such study")
    known = [(one, one.record) for one in shown if one.record is not None]
    if len(known) == 1 and len(shown) == 1:
        (one, record) = known[0]
        summary = summary_info(record)
        about = about_text(one.shelf.files(record))
        return [back, title, html.P(about, className="about"), *_told(record, summary)]
    lines = [
        html.P(
            [
                dcc.Link(one.look.label, href=address([one.look.label])),
                f": {_first_sentence(record)}",
            ],
            className="notes",
        )
        for one, record in known
    ]
    return [back, title, *lines]


def _first_sentence(record: Record) -> str:
    return summary_info(record).reading[0] if record.complete else state_sentence(record)


def _told(record: Record, summary: Summary) -> list[Any]:
    if not record.complete:
        return [html.P(state_sentence(record), className="reading")]
    told = [
        *parts.paragraph(summary.reading, name="reading"),
        *parts.paragraph(summary.notes, name="notes"),
    ]
    return [html.Div([html.Div(told), parts.tiles(tiles(summary))], className="told")]


def front_sentence(shown: Sequence[Shown]) -> str:
    """What the front says, under the budget that is set."""
    told = []
    for one in shown:
        record = one.record
        if record is None:
            continue
        name = f"{one.look.label}: " if len(shown) > 1 else ""
        if not record.complete:
            told.append(f"{name}{state_sentence(record)}")
            continue
        within = sum(point.standing.feasible for point in record.complete)
        sentence = (
            f"{within} of {plural(len(record.complete), 'complete trial')} within the budget "
            f"({record.study.budget.in_words})"
        )
        if within:
            best = max((p for p in record.front), key=lambda point: point.outcome.speedup)
            sentence += (
                f", {len(record.front)} of them on the front; the fastest, trial "
                f"{best.trial.number}, is at {best.outcome.speedup:.2f}×"
            )
        told.append(f"{name}{sentence}.")
    return " ".join(told)


def others(shown: Sequence[Shown]) -> list[Any]:
    """The trials that have no place in the figure: under way, or failed."""
    rows = []
    for one in shown:
        trials = one.record.trials if one.record else ()
        for state, title in (("running", "under way"), ("failed", "failed")):
            found = [trial for trial in trials if trial.state == state]
            if found:
                rows.append(_chips(one.look.label, title, found))
    return rows


def _chips(label: str, title: str, found: Sequence[Trial]) -> html.Div:
    last = found[-24:]
    more = f" and {len(found) - len(last)} before them" if len(found) > len(last) else ""
    return html.Div(
        [
            html.Span(f"{plural(len(found), 'trial')} {title}{more}:"),
            *(pick(f"{label}:{trial.number}", str(trial.number)) for trial in last),
        ],
        className="chips",
    )


def pick(trial: str, text: str, *, pinned: bool = False) -> html.Button:
    """A button that opens a trial, or pins it."""
    kind = {"pinned": True} if pinned else {}
    return html.Button(text, id={"pick": "trial", "trial": trial, **kind}, className="quiet")


def front_table(shown: Sequence[Shown]) -> list[Any]:
    """The front as a table, of one study; its trials open by a click."""
    if len(shown) != 1 or shown[0].record is None or not shown[0].record.front:
        return []
    label, record = shown[0].look.label, shown[0].record
    numbers = [str(point.trial.number) for point in record.front]
    links = {number: {"trial": f"{label}:{number}"} for number in numbers}
    return [html.H2("The front"), parts.table(tables.front_table(record), links=links)]


def trial(shown: CloseUp | None, pinned: Trial | None, view: View) -> list[Any]:
    """One trial close up; a hint where none is picked."""
    if view.trial is None:
        return [html.P("Click a dot, and its trial opens here.", className="hint")]
    if shown is None:
        return [html.P(f"There is no trial {view.trial.number} in study {view.trial.study!r}.")]
    pinned_text = f"compared with trial {pinned.number}: unpin" if pinned else "pin to compare"
    found: list[Any] = [
        html.H2(f"Trial {shown.trial.number}"),
        html.P(shown.verdict),
        html.Div(
            [
                _pin("" if pinned else str(view.trial), pinned_text),
                pick("", "close"),
            ],
            className="buttons",
        ),
    ]
    if shown.trial.error:
        found.append(html.Details([html.Summary("The error"), html.Pre(shown.trial.error)]))
    found.append(parts.table(settings_table(shown.trial, pinned)))
    if shown.point is None:
        return found
    found += [html.P(sentence) for sentence in seconds_sentences(shown)]
    metrics = shown.point.outcome.metrics
    if metrics.accept_lengths or metrics.pass_rates:
        figure = trial_figure(shown.point)
        found.append(parts.graph("trial-figure", reading=READING, figure=figure))
    if shown.example:
        found += _forecasts(shown.example, view)
    elif shown.trial.state == "complete":
        found.append(html.P(NO_FORECASTS, className="hint"))
    found += [
        parts.table(outcome_table(shown.point)),
        html.P("Judge it again:"),
        parts.copyable("command", shown.command),
        html.P("Try it first in another study:"),
        parts.copyable("recipe", shown.recipe),
    ]
    return found


def _forecasts(example: Example, view: View) -> list[Any]:
    """What the trial forecast, for the window and the variate that the view asks for."""
    window = min(view.window, len(example.windows) - 1)
    variates = example.variates[window]
    variate = min(view.variate, len(variates) - 1)
    info = forecasts.forecasts_info(example, windows=[window], variates=[variate])
    figure = forecasts.forecasts_figure(info).update_layout(uirevision=UIREVISION)
    windows = [f"window {number + 1}" for number in example.windows]
    return [
        html.H2("Its forecasts"),
        _choices("window", windows, chosen=window),
        _choices("variate", variates, chosen=variate),
        parts.graph("trial-forecasts", reading=forecasts.READING, figure=figure),
    ]


def _choices(name: str, texts: Sequence[str], *, chosen: int) -> html.Div:
    """A row of buttons, one for each text; a click puts its place into the address."""
    buttons = [
        html.Button(
            text,
            id={"look": name, "place": str(place)},
            className="chosen" if place == chosen else "",
        )
        for place, text in enumerate(texts)
    ]
    return html.Div(buttons if len(buttons) > 1 else [], className="choices")


def _pin(trial: str, text: str) -> html.Button:
    return html.Button(text, id={"pick": "pin", "trial": trial, "pinned": "yes"}, className="quiet")


def limits(shown: Sequence[Shown]) -> dict[str, Any]:
    """How far each slider reaches, so that at its right end every trial is within, and its bound.

    `own` is the studies' bound, where they agree on one.
    """
    complete = [p for one in shown if one.look.record for p in one.look.record.complete]
    found = {}
    for name in BOUNDS:
        values = [v for p in complete if (v := p.outcome.ratios[name]) is not None]
        bounds = {one.look.record.study.budget.bounds.get(name) for one in shown if one.look.record}
        own = bounds.pop() if len(bounds) == 1 else None
        known = [*values, *([own] if own else [])]
        found[name] = {"range": _range(name, known), "own": own}
    return found


def _range(name: str, values: Sequence[float]) -> tuple[float, float]:
    if name == "deviation_ratio":
        positive = [value for value in values if value > 0]
        return max(1e-5, min(positive, default=1e-3) / 2), 1.02 * max(positive, default=1.0)
    low, high = min(values, default=1.0), max(values, default=1.0)
    return low - 0.001, high + 0.001
