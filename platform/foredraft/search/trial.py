"""A trial of a study as one typed value: the worker makes it, Optuna stores it, all others read it.

    trial = Trial(number=7, settings={"scale": 0.5, "sigma": 0.1}, outcome=outcome)
    assert Trial.read(json.loads(trial.model_dump_json()), study="demo") == trial

What follows from a trial and its study together, such as whether it is on the front, is no part of
it: `foredraft.search.record` tells that. Speeds are factors over the target alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foredraft.errors import ConfigError
from foredraft.judge.timing import Timing, in_words
from foredraft.settings.budgets import Budget
from foredraft.settings.rules import Rule
from speculation import Plan, cost

VERSION: Literal[3] = 3
"""Of the stored form; 2 had ratios over the target under each trial's own context policy."""

Scalar = bool | int | float | str | None
Cell = Scalar | tuple[int, ...] | tuple[float, ...]
"""What a column of a table holds of one trial."""
State = Literal["complete", "pruned", "failed", "running"]
Reason = Literal["budget", "front"]


class Part(BaseModel):
    """A frozen part of a trial; an unknown field is an error, and so is what is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sizes(Part):
    """The effective sizes of a model, as far as its family has them."""

    d_model: int | None = None
    n_heads: int | None = None
    d_ff: int | None = None
    n_layers: int | None = None
    hidden: int | None = None
    """of heads: width of the layer that they share"""
    patches_out: int | None = None

    @classmethod
    def of(cls, config: object) -> Sizes:
        """The sizes that a model's configuration names."""
        return cls(**{name: getattr(config, name, None) for name in Sizes.model_fields})


class Errors(Part):
    """Errors on standardised data, over every step of every window."""

    mse: float
    mae: float


class Draft(Part):
    """The draft of a trial, and what it does by itself."""

    key: str
    architecture: Sizes
    parameters: int
    errors: Errors
    speedup: float
    """seconds of the target over seconds of the draft, each alone"""
    deviation: float | None = None
    """mean squared difference between its forecast and the target's own under the study's
    reference policy; None of a trial of before it was counted"""


class Interval(Part):
    """Where 95 % of what might have been counted lie, by other windows of the same split."""

    low: float
    high: float

    @model_validator(mode="before")
    @classmethod
    def _of_a_pair(cls, given: object) -> object:
        """A pair (low, high) too, as the judge gives it."""
        return dict(zip(("low", "high"), given, strict=True)) if isinstance(given, tuple) else given


class Prediction(Part):
    """What the closed form expected of a trial before it was decoded.

    An error is what 95 % of the trials that were decoded before stayed within; None before any.
    """

    acceptance_rate: float
    acceptance_error: float | None = None
    speedup: float
    speedup_error: float | None = None
    """as a fraction of the speedup"""
    mse_ratio: float | None = None
    mse_ratio_error: float | None = None
    deviation_ratio: float | None = None
    deviation_ratio_error: float | None = None


class Metrics(Part):
    """What the rule does with the pair; errors are None where the closed form does not tell."""

    acceptance_rate: float
    """accepted / proposed patches, summed before dividing"""
    accept_length: float
    """mean patches emitted per round of a sample"""
    accept_lengths: tuple[int, ...] = ()
    """rounds of a sample by patches emitted, from 0"""
    pass_rates: tuple[float, ...] = ()
    """per position, how often a proposal was accepted when all before it were"""
    mse: float | None
    mae: float | None
    mse_ratio: float | None
    """mse / the target's own under the study's reference policy"""
    deviation: float | None
    """mean squared difference between the speculative forecast and the target's own under the
    study's reference policy"""
    predicted_speedup: float
    """over the target alone under the trial's own context policy"""
    windows: int
    """on which all this was counted; 0 for the closed form"""
    acceptance_interval: Interval | None = None
    mse_ratio_interval: Interval | None = None

    def ratios(self, *, reference_mse: float) -> dict[str, float | None]:
        """What a budget may bound, by its name.

        Args:
            reference_mse: of the target alone, under the study's reference policy.
        """
        deviation = self.deviation
        return {
            "mse_ratio": self.mse_ratio,
            "deviation_ratio": None if deviation is None else deviation / reference_mse,
        }


class Measured(Part):
    """A speedup that was timed, with its 95 % interval; seconds are medians."""

    speedup: float
    speedup_low: float | None
    """None, as the other end, of fewer pairs than an interval needs"""
    speedup_high: float | None
    target_s: float
    speculation_s: float
    pairs: int
    speedup_spread: float | None = None
    """how far the pairs are apart, as a share of their median (`timing.Ratio`)"""
    doubt: str | None = None
    """why it cannot be true, however often it was tried; such a point is never chosen"""

    @classmethod
    def of(cls, timing: Timing) -> Measured:
        """What a timing measured."""
        return cls(**timing._asdict())

    def in_words(self, *, unit: str = "x") -> str:
        """The speedup with its interval, or with the number of pairs that are too few for one."""
        low, high = self.speedup_low, self.speedup_high
        return in_words(self.speedup, low, high, pairs=self.pairs, unit=unit)


class OnTest(Part):
    """The pair on the test split, which the search never saw."""

    acceptance_rate: float
    mse: float
    mse_ratio: float
    deviation_ratio: float | None = None
    """None of a study of before it was counted"""
    differs: bool
    """whether mse_ratio is another than the search saw, beyond what chance explains"""


class Outcome(Part):
    """What a trial came to."""

    draft: Draft
    target: Errors
    """of the target alone, under the trial's context policy"""
    reference: Errors
    """of the target alone, under the study's reference policy"""
    rule: Rule
    metrics: Metrics
    costs: cost.PassCosts
    plan: Plan | None = None
    """of a rule that adapts"""
    stopped: Reason | None = None
    """why nothing was decoded, or None where it was"""
    judging_s: float
    """of judging alone: what a trial took beyond them is Ray's, Tune's and Optuna's"""
    prediction: Prediction | None = None
    timing: dict[str, Measured] = Field(default_factory=dict)
    """by kind of device, the first of which counts; of the front's points, once all have ended"""
    fresh: dict[str, Measured] = Field(default_factory=dict)
    """of the chosen point alone: timed once more after it was chosen, as it owes nothing to luck"""
    test: OnTest | None = None
    """of the front's points too"""

    @property
    def ratios(self) -> dict[str, float | None]:
        """What a budget may bound, by its name."""
        return self.metrics.ratios(reference_mse=self.reference.mse)

    @property
    def deviation_ratio(self) -> float | None:
        """The deviation over the target's mse, both under the study's reference policy."""
        return self.ratios["deviation_ratio"]

    def objective(self, name: str) -> float:
        """What a study may optimise, by its name; of a trial that was not stopped."""
        ratios = self.ratios
        value: float | None = ratios[name] if name in ratios else getattr(self.metrics, name)
        if value is None:
            raise ValueError(f"{name} is not known of a trial that was stopped")
        return float(value)

    @property
    def measured(self) -> Measured | None:
        """What was timed on the first kind of device, if anything was."""
        return next(iter(self.timing.values()), None)

    @property
    def told(self) -> Measured | None:
        """What a reader is told of its speed: timed once more where it was, else measured."""
        return next(iter(self.fresh.values()), self.measured)

    @property
    def speedup(self) -> float:
        """Over the target alone: measured where it was and can be true, else predicted."""
        if self.measured and not self.measured.doubt:
            return self.measured.speedup
        return self.metrics.predicted_speedup

    @model_validator(mode="after")
    def _tells_errors(self) -> Outcome:
        if not self.stopped and self.metrics.mse_ratio is None:
            raise ValueError("metrics have no errors: a trial that was not stopped has all of them")
        return self


class Trial(Part):
    """One trial: what was asked for, and what it came to, its error, or neither while it runs."""

    version: Literal[3] = VERSION
    number: int
    settings: dict[str, Scalar] = Field(default_factory=dict)
    """in full: those that the study fixes too"""
    outcome: Outcome | None = None
    error: str | None = None
    seconds: float | None = None
    """from its beginning to its end, its waiting for a draft's training included"""
    source: str | None = None
    """the study that it was taken over from"""

    @model_validator(mode="after")
    def _ended_once(self) -> Trial:
        if self.outcome and self.error:
            raise ValueError("outcome and error: a trial comes to one of them")
        return self

    @property
    def state(self) -> State:
        """How far the trial has come."""
        if self.error:
            return "failed"
        if self.outcome is None:
            return "running"
        return "pruned" if self.outcome.stopped else "complete"

    def is_within(self, budget: Budget) -> bool:
        """Whether the trial is complete and kept every bound of the budget."""
        outcome = self.outcome
        return outcome is not None and not outcome.stopped and budget.is_kept(outcome.ratios)

    @classmethod
    def read(cls, content: object, *, study: str) -> Trial:
        """The trial of a JSON object, as `model_dump` wrote it.

        Raises:
            ConfigError: another version of foredraft wrote it, or a figure of it is no number;
                names the study.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            for one in error.errors():
                if one["type"] == "finite_number":
                    number = content.get("number") if isinstance(content, dict) else None
                    raise no_number(study, number, ".".join(map(str, one["loc"]))) from error
            raise other_version(study) from error

    def flat(self) -> dict[str, Cell]:
        """The trial as one row of a table: every number and word under a column of its own."""
        return {
            "number": self.number,
            "state": self.state,
            "error": self.error,
            **{f"settings.{name}": value for name, value in self.settings.items()},
            **(_columns(self.outcome) if self.outcome else {}),
            "seconds": self.seconds,
            "from_study": self.source,
        }


def other_version(study: str) -> ConfigError:
    """The refusal of a study whose trials are stored in another form."""
    return ConfigError(
        f"study {study!r} was searched by another version of foredraft, whose trials this one "
        "cannot read: search anew with --replace"
    )


def no_number(study: str, number: object, field: str) -> ConfigError:
    """The refusal of a study in which something that was counted is NaN or infinite."""
    return ConfigError(
        f"study {study!r}: {field} of trial {number} is no number, so that nothing can be held "
        "against it: search anew with --replace"
    )


INTERVALS = {"acceptance_interval": "acceptance_rate", "mse_ratio_interval": "mse_ratio"}
"""The metrics that are intervals, and of what."""


def _columns(outcome: Outcome) -> dict[str, Cell]:
    draft, target = outcome.draft, outcome.target
    tested = outcome.test.model_dump() if outcome.test else {}
    metrics = outcome.metrics
    return {
        **metrics.model_dump(exclude=set(INTERVALS)),
        **{
            f"{counted}_{end}": getattr(getattr(metrics, name), end, None)
            for name, counted in INTERVALS.items()
            for end in Interval.model_fields
        },
        "deviation_ratio": outcome.deviation_ratio,
        "draft_key": draft.key,
        **draft.architecture.model_dump(),
        "parameters": draft.parameters,
        "draft_mse": draft.errors.mse,
        "draft_mae": draft.errors.mae,
        "draft_deviation": draft.deviation,
        "draft_speedup_alone": draft.speedup,
        "target_mse": target.mse,
        "target_mae": target.mae,
        "policy_cost": target.mse / outcome.reference.mse - 1,
        **(
            {f"expected_{n}": v for n, v in outcome.prediction.model_dump().items()}
            if outcome.prediction
            else {}
        ),
        "stopped": outcome.stopped,
        "judging_s": outcome.judging_s,
        **(outcome.measured.model_dump() if outcome.measured else {}),
        **{f"test_{name}": value for name, value in tested.items()},
    }
