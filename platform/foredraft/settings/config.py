"""Every run as one frozen, typed tree: trainings, machines, evaluations. Unknown keys are refused.

Complete trainings by name are in `recipes` beside this; a study (`study`) holds several.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from foredraft.data.reading import Missing, Reading
from foredraft.errors import ConfigError
from speculation import ContextPolicy, families
from speculation import forecaster as protocols
from speculation.heads import HeadsConfig

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
StageName = Literal["scratch", "pretrain", "finetune", "distill", "heads"]
TAUGHT = ("distill", "heads")
"""Stages that learn from what a target says, not from what was observed."""
DraftKind = Literal["model", "heads"]
"""What drafts: a smaller model of the target's family, or heads on the target's own state."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Settings(BaseModel):
    """A frozen part of a configuration; an unknown key is an error, and so is infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound=Settings)


# What a stage's name changes about the fields that are not given.
_STAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"lr": 5e-4},
    "finetune": {"lr": 5e-5, "patience": 5},
    "distill": {
        "lr": 5e-4,
        "patience": 5,
        "dropout": 0.0,
        "rollouts": 7,
        "rolled": 0.5,
        "policy": ContextPolicy(),
    },
    "heads": {"lr": 1e-3, "patience": 5, "rollouts": 8, "policy": ContextPolicy()},
}


class Stage(Settings):
    """One stage of a training: data, loss, and how long and how fast to learn."""

    name: StageName
    """what is learnt from: the future that was observed, (`distill`) the target's answers, or
    (`heads`) its hidden states and rollouts; each stage starts from the one before it"""
    data: str | dict[str, float]
    """name or path of the data set; or several, each with its weight in what is drawn; their rows
    are the same time apart"""
    missing: Missing = "refuse"
    """what to do about missing cells and rows: refuse the data, skip the windows that reach over
    them, or fill them (interpolate linearly in time; seasonal from the seasons beside)"""
    reading: Reading = Reading()
    """how the files are to be read, where they do not tell it themselves"""
    judge: str | None = None
    """data set whose validation split judges an epoch; null for all that are learnt from"""
    epochs: Count = 10
    """at most; early stopping may end the stage before"""
    windows: Count | None = None
    """training windows of each data set that exist for the stage, evenly spaced; null for all"""
    windows_per_epoch: Count | None = None
    """training windows drawn per epoch; null for as many as there are"""
    batch: Count = 32
    """windows per optimiser step, over all workers"""
    accumulate: Count = 1
    """equal parts in which a worker passes its share of a batch, where memory is short"""
    lr: Positive = 1e-4
    """peak learning rate; warm-up leads to it, a cosine away from it. By default 1e-4 from
    scratch, 5e-4 in pretraining and distillation, 5e-5 in fine-tuning, 1e-3 of heads"""
    warmup: Fraction = 0.05
    """fraction of the stage's steps"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """of AdamW"""
    patience: Count = 3
    """epochs without a better validation loss after which the stage ends; by default 3, and 5 in
    fine-tuning, distillation and of heads"""
    clip_norm: Positive = 1.0
    """largest norm of the gradient"""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """instead of the model's own; by default 0 in distillation, where there is no noise to fit"""
    variates: Count | None = None
    """variates drawn per window, 1 for a univariate stage; null for all of them"""
    validation_windows: Count = 512
    """windows of the validation splits that judge an epoch, evenly spaced; in `distill` each in
    one of the contexts that are learnt from, of each kind as many as are learnt"""
    loss: Literal["mse", "nll"] = "mse"
    """`nll`: Gaussian negative log-likelihood, for a model with a variance head"""
    rollouts: Count | None = None
    """`distill` and `heads` only: contexts per window, as the target's own rollout goes on; 7 by
    default, 8 of heads"""
    rolled: Fraction | None = None
    """`distill` only: fraction of the steps that learn what follows such a context; the others
    learn what the target says of a window itself, after every prefix of it where the draft emits
    one patch at a time; 0.5 by default"""
    policy: ContextPolicy | None = None
    """`distill` and `heads` only: how the target rolls out; `sliding` by default"""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, content: Any) -> Any:
        """What the name of the stage says about the fields that are not given."""
        if not isinstance(content, dict):
            return content
        defaults = _STAGE_DEFAULTS.get(str(content.get("name")), {})
        given = {k: v for k, v in content.items() if v is not None or k not in defaults}
        return {**defaults, **given}

    @model_validator(mode="after")
    def _holds_together(self) -> Stage:
        if not self.sources:
            raise ValueError("data is empty: name at least one data set")
        for name, weight in self.sources.items():
            if not weight > 0:
                raise ValueError(f"data gives {name} the weight {weight}: it must be above 0")
        for name, stages in (("rollouts", TAUGHT), ("policy", TAUGHT), ("rolled", ("distill",))):
            if self.name not in stages and getattr(self, name) is not None:
                told = " and ".join(stages)
                raise ValueError(f"{name} has no effect in stage {self.name}: only in {told}")
        if self.judge is not None and self.judge not in self.sources:
            raise ValueError(f"judge is {self.judge!r}: one of {', '.join(self.sources)} would do")
        return self

    @property
    def sources(self) -> dict[str, float]:
        """The data sets by name or path, each with its weight."""
        return {self.data: 1.0} if isinstance(self.data, str) else self.data

    @property
    def judges(self) -> tuple[str, ...]:
        """The data sets whose validation splits judge an epoch."""
        return tuple(self.sources) if self.judge is None else (self.judge,)


def _architecture(content: Any) -> protocols.Architecture:
    """An architecture as it is given, or by its fields and the name of its family."""
    name, fields = families.DEFAULT, content
    if isinstance(content, Mapping):
        fields = dict(content)
        name = fields.pop("family", name)
    elif hasattr(content, "family"):
        name = content.family
    kind: type[Any] = families.family_of(name).architecture
    if isinstance(fields, dict):
        _refuse_unknown(fields, kind)
    return TypeAdapter(kind).validate_python(fields)


def _refuse_unknown(fields: Mapping[str, Any], kind: type[Any]) -> None:
    """Nothing; raises at a field that a dataclass does not have, which pydantic would pass over."""
    known = {field.name for field in dataclasses.fields(kind)}
    unknown: list[InitErrorDetails] = [
        {"type": "unexpected_keyword_argument", "loc": (name,), "input": value}
        for name, value in fields.items()
        if name not in known
    ]
    if unknown:
        raise ValidationError.from_exception_data(kind.__name__, unknown)


def _plain(architecture: protocols.Architecture) -> dict[str, Any]:
    """An architecture by its fields; its family is named where it is not the first one."""
    fields = families.fields_of(architecture)
    if architecture.family == families.DEFAULT:
        return fields
    return {"family": architecture.family, **fields}


Architecture = Annotated[
    protocols.Architecture, PlainValidator(_architecture), PlainSerializer(_plain)
]
"""Of any family, which `family` names; without it the first one is meant (`families.DEFAULT`)."""


class Training(Settings):
    """A model and the stages that train it: a target, or one draft."""

    model: Architecture
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    target: str | None = None
    """directory of the trained target that a draft is for: it teaches in `distill` and `heads`, and
    the draft is examined against it after every epoch; null for a target"""
    seed: Seed = 0
    """of the weights, the order of the windows and dropout"""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """of the arithmetic; weights and optimiser stay in fp32"""
    compile: bool = False
    """whether torch.compile makes the passes; LOG.md tells where it is faster"""

    @model_validator(mode="after")
    def _can_be_taught(self) -> Training:
        for index, stage in enumerate(self.stages):
            where = f"stages.{index} ({stage.name})"
            if stage.name in TAUGHT and self.target is None:
                raise ValueError(f"{where} needs a target: it learns from that one's answers")
            if (stage.name == "heads") != isinstance(self.model, HeadsConfig):
                raise ValueError(
                    f"{where} trains a model of the family {self.model.family}: heads have stages "
                    "of that name, and nothing else has"
                )
            if stage.policy is not None:
                protocols.check_policy(self.model, stage.policy)
            if (stage.loss == "nll") != self.model.variance:
                head = "has" if self.model.variance else "has no"
                would = "nll" if self.model.variance else "mse"
                raise ValueError(
                    f"{where}: loss is {stage.loss} and the model {head} variance head; "
                    f"loss {would} would do"
                )
        return self


class Machine(Settings):
    """What a run may use."""

    workers: Annotated[int, Field(ge=0)] = 0
    """processes of a training, under DDP by Ray Train; 0 trains in one process without it"""
    cpus: Count | None = None
    """threads of a task; null for all of one machine's"""
    use_gpu: bool | None = None
    """null uses a GPU where there is one"""
    device: Literal["cpu", "cuda"] | None = None
    """what trainings compute on, as a model's key says it; null for what this process has. A study
    asks a task of its own once, so that all of its nodes have one key for a model"""
    concurrency: Count | None = None
    """trials under way at once, which share the machine; null for one per device (GPU, or node
    without one)"""


class Evaluation(Settings):
    """On what, and how, a pair of models is judged."""

    data: str
    """name or path of the data set"""
    split: Literal["train", "validation", "test"] = "validation"
    horizon: Count = 720
    """time steps of a forecast"""
    windows: Count | None = 64
    """windows of the split, evenly spaced; null for every one"""
    batch: Count = 1
    """forecasts decoded together, for which speed is stated"""
    policy: ContextPolicy = ContextPolicy()
    variates: Count | None = None
    """variates that are forecast together, where the data have more: the first window has the first
    so many of them, the next one those after, and round again; null for all at once"""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """of the weights while decoding"""
    missing: Missing = "refuse"
    """what to do about missing cells and rows: refuse the data, skip the windows that reach over
    them, or fill them (interpolate linearly in time; seasonal from the seasons beside)"""
    reading: Reading = Reading()
    """how the files are to be read, where they do not tell it themselves"""
    season: Count | None = None
    """rows after which the like is expected again, for seasonal naive; null for the step's own: a
    day of hours, a week of days, a year of months"""


def validated(kind: type[T], content: Any, *, source: str) -> T:
    """`content` as a `kind`, a part of a configuration; or one line that says where it is wrong.

    Raises:
        ConfigError: names the source, the field, its value and what is wrong with it.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in _UNION_TAGS)
        message = complaint(first)
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            message = f"is not known; {_closest(field, kind)}"
        elif first["type"].startswith("missing"):
            message = "is missing"
        elif field and not isinstance(first["input"], dict):
            # A part of the tree as a whole tells its fields itself.
            message = f"is {shown(first['input'])}: {message}"
        raise ConfigError(f"{source}: {field} {message}".replace(":  ", ": ")) from error


def complaint(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, of one error that pydantic tells."""
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should", "it should")


def shown(value: Any) -> str:
    """A value as it stands in a message: no number or list of hundreds of digits."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def named(table: Mapping[str, Callable[[], SettingsT]], name: str, *, what: str) -> SettingsT:
    """What a name stands for in a table of complete configurations.

    Raises:
        ConfigError: the table does not have it.
    """
    if name not in table:
        raise ConfigError(f"{what} {name!r} does not exist; there are: {', '.join(table)}")
    return table[name]()


# Pydantic puts the chosen member of a union into an error's path; a reader does not write these.
_UNION_TAGS = {"Training", "str", "float", "int", "categorical"}
_LONGEST = 120


def _closest(field: str, kind: type[Any]) -> str:
    names = {name for part in _descendants(Settings) for name in part.model_fields}
    if dataclasses.is_dataclass(kind):
        names = {known.name for known in dataclasses.fields(kind)}
    near = difflib.get_close_matches(field.rsplit(".", 1)[-1], sorted(names), n=1)
    return f"did you mean {near[0]}?" if near else "remove it"


def _descendants(kind: type[Settings]) -> Iterator[type[Settings]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
