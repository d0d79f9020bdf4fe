"""What a study cost in seconds, draft by draft, and what is still to come."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from plotly import graph_objects as go

from foredraft.report.look import ACCENT, GREY, dress
from foredraft.report.tables import number, plural, size_text
from foredraft.search.record import Record, own

READING = (
    "The seconds of all trials of a draft, by what they went into. A draft is trained once: in a "
    "nested search beside the trials, which then hold none of it, else in the first trial that "
    "asks for it. Trials that run at the same time count their seconds each."
)


class DraftExpense(NamedTuple):
    """The trials of one draft; seconds."""

    name: str
    trials: int
    training: float
    """and waiting: what its trials took beyond judging"""
    judging: float


class ExpenseInfo(NamedTuple):
    """Seconds by draft, the dearest first, and how the study goes on."""

    drafts: tuple[DraftExpense, ...]
    ended: int
    to_come: int
    wall_s: float | None
    """from the first trial's beginning to the last report; None where nothing tells"""

    @property
    def left_s(self) -> float | None:
        """Seconds that the trials to come will take, at the pace so far."""
        if not self.ended or self.wall_s is None:
            return None
        return self.to_come * self.wall_s / self.ended


def expense_info(record: Record) -> ExpenseInfo:
    """What `expense_figure` and `sentence` show."""
    alone = record.references.drafts if record.references else ()
    sizes = {draft.key: size_text(draft) for draft in alone}
    found: dict[str, list[tuple[float, float]]] = {}
    for trial in own(record.trials):
        if trial.outcome and trial.seconds is not None:
            judging = trial.outcome.judging_s
            seconds = (max(0.0, trial.seconds - judging), judging)
            found.setdefault(trial.outcome.draft.key, []).append(seconds)
    drafts = [
        DraftExpense(
            name=f"{sizes.get(key, 'draft')} ({key[:6]})",
            trials=len(spent),
            training=sum(training for training, _ in spent),
            judging=sum(judging for _, judging in spent),
        )
        for key, spent in found.items()
    ]
    began = [one.began for one in record.times.values() if one.began]
    ended = [one.ended for one in record.times.values() if one.ended]
    wall = (max(ended) - min(began)).total_seconds() if began and ended else None
    reported = len(own(record.trials))
    return ExpenseInfo(
        drafts=tuple(sorted(drafts, key=lambda one: -(one.training + one.judging))),
        ended=reported,
        to_come=max(0, record.study.trials - reported),
        wall_s=wall,
    )


def expense_figure(info: ExpenseInfo) -> go.Figure:
    """A bar for each draft: training and waiting, then judging."""
    figure = go.Figure()
    names = [one.name for one in reversed(info.drafts)]
    for title, colour, values in (
        ("training and waiting", ACCENT, [one.training for one in reversed(info.drafts)]),
        ("judging", GREY, [one.judging for one in reversed(info.drafts)]),
    ):
        figure.add_bar(
            orientation="h",
            name=title,
            y=names,
            x=values,
            marker_color=colour,
            hovertemplate="%{y}: %{x:.1f} s of " + title + "<extra></extra>",
        )
    figure.update_xaxes(title="seconds of its trials", ticksuffix=" s")
    dress(figure, 190 + 26 * len(names), ())
    return figure.update_layout(barmode="stack", bargap=0.3)


def sentence(info: ExpenseInfo) -> str:
    """What it cost and what is to come, in one line."""
    spent = sum(one.training + one.judging for one in info.drafts)
    told = f"{plural(info.ended, 'trial')} took {in_words(spent)} of work"
    if info.wall_s is not None:
        told += f" in {in_words(info.wall_s)} of the clock"
    if info.drafts:
        median = statistics.median(one.training for one in info.drafts)
        # A nested search has drafts made beside its trials, whose seconds these are.
        waited = f"{number(median, digits=1)} s in the median"
        told += f"; waiting for a draft, or training it, took its trials {waited}"
    if not info.to_come:
        return f"{told}; none is to come."
    left = f", about {in_words(info.left_s)} at this pace" if info.left_s is not None else ""
    return f"{told}; at most {plural(info.to_come, 'trial')} to come{left}."


def in_words(seconds: float) -> str:
    """'42 s', '12 min', '3.5 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
