"""A study for its three readers, a sentence each: the first paragraph of a report.

    sentences(record)

One needs the target's own forecasts, which a team has validated and signed off; one needs accuracy
on this data, from whatever model; and one wants to know where speculation does not pay at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from foredraft.report.dots import DraftMark, draft_marks
from foredraft.report.tables import number
from foredraft.search.record import Point, Record
from foredraft.search.references import policy_of
from speculation import Plan


class Round(NamedTuple):
    """A whole round of a trial, in steps of the target alone: it pays where it emits more.

    Per step, after Leviathan et al. (2211.17192), section 3.3: the expected patches of a round
    against K c + v(K+1).
    """

    proposals: int
    """K"""
    drafting: float
    """K c, what proposing costs"""
    verifying: float
    """v(K+1), what the target's pass over them costs"""
    emitted: float
    """patches that are expected, the target's own included"""

    @property
    def cost(self) -> float:
        """Both together, of figures as they are told."""
        return round(self.drafting, 2) + round(self.verifying, 2)

    @property
    def pays(self) -> bool:
        """Whether it emits more than it costs."""
        return self.emitted > self.drafting + self.verifying

    @property
    def in_words(self) -> str:
        """What it costs and emits."""
        noun = "proposal" if self.proposals == 1 else "proposals"
        parts = f"{self.drafting:.2f} to draft + {self.verifying:.2f} to verify"
        return (
            f"a round of {self.proposals} {noun} costs {self.cost:.2f} steps of the target "
            f"({parts}) and is expected to emit {self.emitted:.2f} patches"
        )


def sentences(record: Record) -> tuple[str, ...]:
    """A sentence for each of the three readers; one that tells so before any trial is complete."""
    if not record.complete:
        return ("No trial has been completed yet.",)
    drafts = draft_marks(record.references)
    near, accurate = _near(record, drafts), _accurate(record, drafts)
    speed = _speed(record)
    either = all(draft and draft.speedup > speed for draft in (near, accurate))
    return (
        _of_the_target(record, near),
        _of_accuracy(record, accurate, drafts),
        _of_the_break_even(record, is_needless=either),
    )


def _speed(record: Record) -> float:
    """What the study's choice gives; 1 where that is the target alone."""
    return _told(record.choice) if record.choice else 1.0


def _told(point: Point) -> float:
    told = point.outcome.told
    return told.speedup if told else point.outcome.speedup


def _near(record: Record, drafts: Sequence[DraftMark]) -> DraftMark | None:
    """The fastest draft that alone is as near to the target as is asked, if any is faster than it.

    Where the budget does not say how near, as the choice is.
    """
    limit = record.study.budget.deviation_ratio
    if limit is None:
        limit = record.choice.outcome.deviation_ratio if record.choice else None
    if limit is None:
        return None
    return _fastest(
        [d for d in drafts if d.deviation_ratio is not None and d.deviation_ratio <= limit]
    )


def _accurate(record: Record, drafts: Sequence[DraftMark]) -> DraftMark | None:
    """The fastest draft that alone is as accurate as is asked, if any is faster than the target."""
    limit = _asked(record)
    return _fastest([draft for draft in drafts if draft.mse_ratio <= limit])


def _asked(record: Record) -> float:
    """The mse_ratio of what is accurate enough: the target's own where the budget does not say."""
    asked = record.study.budget.mse_ratio
    return 1.0 if asked is None else asked


def _fastest(drafts: Sequence[DraftMark]) -> DraftMark | None:
    best = max(drafts, key=lambda draft: draft.speedup, default=None)
    return best if best and best.speedup > 1 else None


def _named(draft: DraftMark) -> str:
    return f"the {draft.size} draft alone{f' under {draft.policy}' if draft.policy else ''}"


def _of_the_target(record: Record, near: DraftMark | None) -> str:
    """What the one may do who needs the target's own forecasts."""
    who, choice = "Who needs the target's own forecasts", record.choice
    if choice is None:
        if near is None:
            return f"{who} should run the target alone: {record.why_alone}."
        return (
            f"{who} comes within a deviation ratio of {_ratio(near.deviation_ratio)} of them at "
            f"{near.speedup:.2f}× the target's speed by {_named(near)}; of speculation, "
            f"{record.why_alone}."
        )
    bound = record.study.budget.deviation_ratio
    budget = "the budget does not bound it" if bound is None else f"the budget is {bound:g}"
    predicted = "" if choice.outcome.told else "a predicted "
    got = (
        f"comes within a deviation ratio of {_ratio(choice.outcome.deviation_ratio)} of them "
        f"({budget}) at {predicted}{_told(choice):.2f}× the target's speed, by trial "
        f"{choice.trial.number}"
    )
    if near is None:
        return f"{who} {got}."
    but = "and" if near.speedup > _told(choice) else "but"
    return (
        f"{who} {got}; {_named(near)} does so too ({_ratio(near.deviation_ratio)}), {but} at "
        f"{near.speedup:.2f}×."
    )


def _of_accuracy(record: Record, accurate: DraftMark | None, drafts: Sequence[DraftMark]) -> str:
    """What the one may do who needs accuracy on this data alone."""
    who, choice, asked = "Who needs only accuracy on this data", record.choice, _asked(record)
    speculation = choice.outcome.metrics.mse_ratio if choice else None
    suits = speculation is not None and speculation <= asked
    if accurate and (not suits or accurate.speedup >= _speed(record)):
        return (
            f"{who} needs no target: {_named(accurate)} gives {_ratio(accurate.mse_ratio, 3)} "
            f"times its error at {accurate.speedup:.2f}× its speed."
        )
    takes = f"{who} takes the same trial, at {_ratio(speculation, 3)} times the target's error"
    if accurate:
        return (
            f"{takes}; {_named(accurate)} would do too ({_ratio(accurate.mse_ratio, 3)}), but only "
            f"at {accurate.speedup:.2f}×."
        )
    most = min((draft.mse_ratio for draft in drafts), default=None)
    missing = f"no draft alone is faster than it within an mse ratio of {asked:g}" + (
        f" (the most accurate gives {_ratio(most, 3)})" if most is not None else ""
    )
    if choice is None:
        return f"{who} should run the target alone: {missing}."
    return f"{takes}: {missing}." if suits else f"{takes}, or the target alone: {missing}."


def _of_the_break_even(record: Record, *, is_needless: bool) -> str:
    """Who should not speculate at all, with the inequality in numbers."""
    point = record.choice or record.favourite or _least_bad(record)
    whole = round_of(point, record)
    told = f"in trial {point.trial.number} {whole.in_words}"
    if is_needless:
        who = "Nobody has to speculate on this data set, as a draft alone would do for either"
    elif record.choice:
        who = "Nobody should speculate whose rounds emit less than they cost"
    else:
        who = "Nobody should speculate within this budget on this device"
    return f"{who}: {told}; {_verdict(record, point, whole)}."


def _verdict(record: Record, point: Point, whole: Round) -> str:
    """What follows from the round, and why it is not chosen all the same where it is not."""
    if record.choice:
        return f"it pays above {whole.cost:.2f}"
    if not whole.pays:
        return f"it would pay above {whole.cost:.2f}"
    why = "no gain is established" if point.standing.feasible else "that is over the budget"
    return f"it should pay above {whole.cost:.2f}, but {why}"


def _least_bad(record: Record) -> Point:
    """The fastest trial, of those within the budget where there are any."""
    within = [point for point in record.complete if point.standing.feasible]
    return max(within or record.complete, key=lambda point: point.outcome.speedup)


def round_of(point: Point, record: Record) -> Round:
    """A whole round of a trial, at the study's batch; a horizon's last ones are shorter.

    A rule that adapts is told at the lookahead that is predicted to be its best.
    """
    outcome, metrics = point.outcome, point.outcome.metrics
    costs, rates = outcome.costs, metrics.pass_rates
    evaluation = record.study.evaluation
    every, batch = policy_of(point.trial, record.study).renorm_every, evaluation.batch
    patches = -(-evaluation.horizon // record.target.patch) if record.target else 0
    rooms = [count - 1 for count in (patches, every) if count]
    known = min(costs.lookahead, len(rates) or costs.lookahead)
    proposals = min(outcome.rule.lookahead, known, *rooms)
    if outcome.rule.adapt and patches:
        plan = Plan(costs, rates[:proposals])
        best, _ = plan.best(patches=patches, renorm_every=every, batch=batch)
        proposals = best or proposals
    free = replace(costs, draft_s=tuple(tuple(0.0 for _ in row) for row in costs.draft_s))
    batch_1 = torch.tensor([batch])
    at = costs.at(batch_1)
    step = float(at.step_Q)
    verifying = float(free.at(batch_1).round_QM[0, proposals])
    survival_K = torch.tensor(rates[:proposals], dtype=torch.float64).cumprod(0)
    return Round(
        proposals=proposals,
        drafting=(float(at.round_QM[0, proposals]) - verifying) / step,
        verifying=verifying / step,
        emitted=1.0 + float(survival_K.sum()) if rates else metrics.accept_length,
    )


def _ratio(value: float | None, digits: int = 4) -> str:
    return number(value, digits=digits)
