"""One trial close up: what it was and came to, where its seconds went, how to repeat it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import NamedTuple

import yaml
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from foredraft.redaction import redacted
from foredraft.report.look import ACCENT, GREY, dress
from foredraft.report.readers import Round, round_of
from foredraft.report.tables import (
    CELLS,
    Table,
    number,
    plural,
    setting_text,
    settings_of,
    shortcoming,
)
from foredraft.search import examples
from foredraft.search.examples import Example
from foredraft.search.record import Point, Record, Standing
from foredraft.search.references import evaluation_of
from foredraft.search.trial import Scalar, Trial

READING = (
    "Left: how many patches a round gave, of all rounds of a sample; a round that gives one was "
    "rejected at once. Right: how often the proposal at each position was accepted when all before "
    "it were; where that falls, a longer lookahead is wasted."
)


class CloseUp(NamedTuple):
    """One trial of a study; `point` is None of one that failed or is under way."""

    trial: Trial
    verdict: str
    """how it stands, as one sentence"""
    point: Point | None
    round: Round | None
    """None before the closed form has seen it"""
    command: str
    """what judges the pair again, with this rule; empty where there is no draft yet"""
    recipe: str
    """the settings that were searched, as an entry of a study's `first:`"""
    example: Example | None
    """a few windows as it forecast them; None of one that was not decoded, or is not kept here"""


def close_up(record: Record, number_: int, *, directory: Path) -> CloseUp | None:
    """The trial of that number; None where the study has none.

    Args:
        record: of its study.
        number_: of the trial.
        directory: of its study; the command names the storage in which it is.
    """
    trial = next((one for one in record.trials if one.number == number_), None)
    if trial is None:
        return None
    standing = next((one for one in record.standings if one.trial.number == number_), None)
    point = Point(trial.outcome, standing) if trial.outcome and standing else None
    searched = {
        name: value for name, value in settings_of(trial).items() if name in record.study.dimensions
    }
    return CloseUp(
        trial=trial,
        verdict=_verdict(record, trial, standing),
        point=point,
        round=round_of(point, record) if point else None,
        command=command_of(point, record, storage=directory.parents[1]) if point else "",
        recipe=yaml.safe_dump({"first": [searched]}, sort_keys=False, default_flow_style=None),
        example=example_of(point, record, directory) if point else None,
    )


def example_of(point: Point, record: Record, directory: Path) -> Example | None:
    """A few windows as the trial forecast them, where its study's directory keeps any."""
    folder, outcome = directory / examples.FOLDER, point.outcome
    evaluation = evaluation_of(point.trial, record.study)
    return examples.example(folder, evaluation, outcome.draft.key, outcome.rule)


def _verdict(record: Record, trial: Trial, standing: Standing | None) -> str:
    name = f"Trial {trial.number}"
    if standing is None:
        return f"{name} is under way: it has reported nothing yet."
    if trial.error or not trial.outcome:
        return f"{name} failed: {redacted(str(trial.error).strip().rsplit(chr(10), 1)[-1])}"
    point = Point(trial.outcome, standing)
    if trial.state == "pruned":
        missed = {"budget": "over the budget", "front": "behind the front"}
        where = missed.get(str(trial.outcome.stopped))
        return f"{name} was stopped early: the closed form tells that it ends {where}."
    choice = record.choice
    if choice and choice.trial.number == trial.number:
        place = "is the study's choice"
    elif standing.on_front:
        place = "is on the front"
    elif not standing.feasible:
        place = f"is {shortcoming(point)} ({record.study.budget.in_words})"
    else:
        place = "is behind the front: another trial is better in every objective"
    told = trial.outcome.told
    speed = (
        f"measured at {told.in_words(unit='×')}"
        if told
        else f"predicted at {trial.outcome.speedup:.2f}×"
    )
    return f"{name} {place}, {speed} the target's speed."


def command_of(point: Point, record: Record, *, storage: Path) -> str:
    """What judges the pair on the study's windows with the trial's rule.

    A rule that adapts is timed, as `bench` alone knows it.
    """
    evaluation, rule = evaluation_of(point.trial, record.study), point.outcome.rule
    policy = evaluation.policy
    fields = dataclasses.asdict(rule)
    adapts = fields.pop("adapt", False)
    words = [
        *("foredraft", "bench" if adapts else "evaluate"),
        *("--target", record.target.key if record.target else "TARGET"),
        *("--draft", point.outcome.draft.key, "--data", evaluation.data),
        *evaluation.reading.flags,
        *(("--variates", evaluation.variates) if evaluation.variates else ()),
        *("--horizon", evaluation.horizon, "--batch", evaluation.batch),
        *("--dtype", evaluation.dtype, "--missing", evaluation.missing),
        *("--context-policy", policy.kind, "--renorm-every", policy.renorm_every),
        *(
            ("--adapt",)
            if adapts
            else ("--split", evaluation.split, "--windows", evaluation.windows)
        ),
        *("--acceptance", *(f"{name}={_word(value)}" for name, value in fields.items())),
        *("--storage", storage),
    ]
    return shlex.join(map(str, words))


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def outcome_table(point: Point) -> Table:
    """What a trial came to, a row for each figure."""
    rows = tuple((label, text) for label, show in CELLS.items() if (text := show(point)) != "–")
    return Table(("what", "value"), rows)


def settings_table(trial: Trial, other: Trial | None = None) -> Table:
    """The settings of a trial; beside those of another, in which they differ first."""
    own = settings_of(trial)
    if other is None:
        return Table(("setting", "value"), tuple((n, setting_text(v)) for n, v in own.items()))
    theirs = settings_of(other)
    names = sorted({*own, *theirs}, key=lambda name: own.get(name) == theirs.get(name))
    rows = tuple((name, _text(own.get(name)), _text(theirs.get(name))) for name in names)
    return Table(("setting", f"trial {trial.number}", f"trial {other.number}"), rows)


def _text(value: Scalar) -> str:
    return "–" if value is None else setting_text(value)


def seconds_sentences(shown: CloseUp) -> tuple[str, ...]:
    """Where a trial's seconds went, and where those of one of its rounds go."""
    told = []
    outcome = shown.trial.outcome
    if shown.trial.seconds is not None and outcome:
        rest = shown.trial.seconds - outcome.judging_s
        told.append(
            f"It took {number(shown.trial.seconds, digits=1)} s: "
            f"{number(outcome.judging_s, digits=1)} s of judging, "
            f"{number(rest, digits=1)} s of waiting, for its draft too."
        )
    if shown.round:
        told.append(f"{shown.round.in_words[:1].upper()}{shown.round.in_words[1:]}.")
    if outcome and outcome.measured:
        measured = outcome.measured
        told.append(
            f"Over {plural(measured.pairs, 'timed pair')} a forecast took "
            f"{number(measured.speculation_s * 1e3, digits=1)} ms by speculation and "
            f"{number(measured.target_s * 1e3, digits=1)} ms by the target alone."
        )
    return tuple(told)


def trial_figure(point: Point) -> go.Figure:
    """Patches that a round gave, and acceptance by position."""
    metrics = point.outcome.metrics
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.12,
        subplot_titles=["<b>patches a round gave</b>", "<b>accepted at each position</b>"],
    )
    rounds = sum(metrics.accept_lengths) or 1
    figure.add_bar(
        x=list(range(1, len(metrics.accept_lengths))),
        y=[count / rounds for count in metrics.accept_lengths[1:]],
        marker_color=GREY,
        hovertemplate="%{x} patches: %{y:.1%} of rounds<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_bar(
        x=list(range(1, len(metrics.pass_rates) + 1)),
        y=list(metrics.pass_rates),
        marker_color=ACCENT,
        hovertemplate="position %{x}: %{y:.1%} accepted<extra></extra>",
        row=1,
        col=2,
    )
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title="patches", row=1, col=1)
    figure.update_xaxes(title="position in the round", row=1, col=2)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_annotations(font={"size": 13, "color": GREY})
    dress(figure, 300, ())
    # Room for the mode bar above the panels' titles, on a narrow page too.
    return figure.update_layout(showlegend=False, bargap=0.35, margin={"t": 56})
