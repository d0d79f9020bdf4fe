"""Every run as one frozen, typed tree: trainings, machines, evaluations. Unknown keys are refused.

A recipe is a function that returns a complete training; a study (study.py) holds several of these.

    training = RECIPES["etth1"]()
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from timer_xl import ContextPolicy, TimerXLConfig

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ConfigError(ValueError):
    """A user's mistake in a configuration: one line that names field, value and remedy."""


class Settings(BaseModel):
    """A frozen part of a configuration; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=Settings)


class Stage(Settings):
    """One stage of a training: data, and how long and how fast to learn from it."""

    name: Literal["scratch", "pretrain", "finetune"]
    """what the stage is called in curves and tables; each starts from the one before it"""
    data: str
    """name or path of the data set"""
    epochs: Count = 10
    """at most; early stopping may end the stage before"""
    windows_per_epoch: Count | None = None
    """training windows drawn per epoch; null for all of them"""
    batch: Count = 32
    """windows per optimiser step, over all workers"""
    lr: Positive = 1e-4
    """peak learning rate; warm-up leads to it, a cosine away from it"""
    warmup: Fraction = 0.05
    """fraction of the stage's steps"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """of AdamW"""
    patience: Count = 3
    """epochs without a better validation loss after which the stage ends"""
    clip_norm: Positive = 1.0
    """largest norm of the gradient"""
    variates: Count | None = None
    """variates drawn per window; null for all of them"""
    validation_windows: Count = 512
    """windows of the validation split that judge an epoch, evenly spaced"""


class Training(Settings):
    """A model and the stages that train it: a target, or one draft."""

    model: TimerXLConfig
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    seed: int = 0
    """of the weights, the order of the windows and dropout"""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """of the arithmetic; weights and optimiser stay in fp32"""


class Machine(Settings):
    """What a run may use."""

    workers: Annotated[int, Field(ge=0)] = 0
    """processes of a training, under DDP by Ray Train; 0 trains in one process without it"""
    cpus: Count | None = None
    """threads of a task; null for all of one machine's"""
    use_gpu: bool | None = None
    """null uses a GPU where there is one"""
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
    dtype: Literal["fp32", "bf16"] = "fp32"
    """of the weights while decoding"""
    missing: Literal["refuse", "interpolate"] = "refuse"


def validated(kind: type[SettingsT], content: dict[str, Any], *, source: str) -> SettingsT:
    """`content` as a `kind`, or one line that says where it is wrong.

    Raises:
        ConfigError: names the source, the field, its value and what is wrong with it.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in _UNION_TAGS)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"is not known; {_closest(field, kind)}"
        elif first["type"] == "missing":
            message = "is missing"
        elif field:
            message = f"is {first['input']!r}: {message}"
        raise ConfigError(f"{source}: {field} {message}".replace(":  ", ": ")) from error


# Pydantic puts the chosen member of a union into an error's path; a reader does not write these.
_UNION_TAGS = {"Training", "str", "float", "int", "categorical"}


def _closest(field: str, kind: type[Settings]) -> str:
    parts = (kind, *_descendants(Settings))
    names = sorted({name for part in parts for name in part.model_fields})
    near = difflib.get_close_matches(field.rsplit(".", 1)[-1], names, n=1)
    return f"did you mean {near[0]}?" if near else "remove it"


def _descendants(kind: type[Settings]) -> Iterator[type[Settings]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def etth1() -> Training:
    """The published ETTh1 model at half its width: one layer, trained in minutes on two cores."""
    return Training(
        model=TimerXLConfig(d_model=512, n_heads=8, d_ff=2048, n_layers=1),
        stages=(Stage(name="scratch", data="ETTh1", epochs=10, lr=1e-4),),
    )


def etth1_deep() -> Training:
    """A deep ETTh1 target: four layers, where a draft has depth to save."""
    return Training(
        model=TimerXLConfig(d_model=256, n_heads=8, d_ff=1024, n_layers=4),
        stages=(Stage(name="scratch", data="ETTh1", epochs=2, lr=1e-4),),
    )


def demo() -> Training:
    """A small target on generated data, trained in seconds."""
    return Training(
        model=TimerXLConfig(patch=24, context=168, d_model=96, n_heads=4, d_ff=192, n_layers=3),
        stages=(
            Stage(
                name="pretrain",
                data="synthetic-load",
                epochs=2,
                windows_per_epoch=4800,
                batch=64,
                lr=2e-3,
                variates=7,
            ),
            Stage(name="finetune", data="synthetic-etth", epochs=2, lr=5e-4),
        ),
    )


RECIPES: dict[str, Callable[[], Training]] = {
    "demo": demo,
    "etth1": etth1,
    "etth1-deep": etth1_deep,
}
"""Complete trainings of targets, by name."""
