"""Ladders of draft quality: what each rung adds to a draft's training, as configurations by name.

    ladder = ladder_of("etth1")

A ladder is a target, the drafts that are trained for it one improvement after another, and where
all of them are judged. `foredraft.judge.progression` climbs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foredraft.settings.config import (
    Count,
    DraftKind,
    Evaluation,
    Name,
    Positive,
    Seed,
    Settings,
    Stage,
    StageName,
    named,
    validated,
)
from foredraft.settings.recipes import electricity
from speculation import ContextPolicy
from speculation.heads import HEADS


class Rung(Settings):
    """One step of a ladder: a draft, and how it is trained."""

    name: str
    """what the rung adds, in a few words"""
    kind: DraftKind = "model"
    scales: tuple[Positive, ...] = ()
    """of the target; of several, that draft is shown of which most is accepted on validation; heads
    have none"""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    patches_out: Count = 1
    """patches that one pass of the draft emits, or how many heads there are"""

    @model_validator(mode="after")
    def _holds_together(self) -> Rung:
        if (self.kind == "heads") == bool(self.scales):
            raise ValueError("scales go with kind model, which needs at least one, and only there")
        return self

    @property
    def sizes(self) -> tuple[float | None, ...]:
        """The scales, or None for heads."""
        return self.scales or (None,)


class Ladder(Settings):
    """A target, the rungs that lead to its best draft, and where all are judged."""

    name: Name
    target: str
    """a recipe's name, or the directory or key of a trained target"""
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)]
    evaluation: Evaluation
    """its horizon is the longer of the two at which errors are told; the other is one patch"""
    pairs: Count = 20
    """timed pairs of target alone and speculation"""
    seed: Seed = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    """of the arithmetic in the drafts' training; a recipe says its own"""


def _rungs(
    scratch: Stage,
    pretrain: Stage,
    finetune: Stage,
    distill: Stage,
    one_pass: Stage,
    heads: Stage,
) -> tuple[Rung, ...]:
    """The original study's own progression, what it left as next steps, and heads.

    `one_pass` is the distillation of a draft that emits seven patches at once: they are harder to
    learn than one.
    """
    chain = (pretrain, finetune, distill)
    return (
        Rung(name="0.5x from scratch", scales=(0.5,), stages=(scratch,)),
        Rung(name="0.7x from scratch", scales=(0.7,), stages=(scratch,)),
        Rung(name="0.7x pretrained", scales=(0.7,), stages=chain[:1]),
        Rung(name="0.7x fine-tuned", scales=(0.7,), stages=chain[:2]),
        Rung(name="0.7x distilled", scales=(0.7,), stages=chain),
        Rung(name="0.5x distilled", scales=(0.5,), stages=chain),
        Rung(
            name="0.7x one-pass, distilled",
            scales=(0.7,),
            stages=(pretrain, finetune, one_pass),
            patches_out=7,
        ),
        Rung(name="best of 0.8x and 0.9x, distilled", scales=(0.8, 0.9), stages=chain),
        Rung(name="heads", kind="heads", stages=(heads,), patches_out=HEADS),
    )


def etth1() -> Ladder:
    """ETTh1, after pretraining on the electricity demand of 54 balancing authorities."""
    return Ladder(
        name="etth1",
        target="etth1",
        rungs=_rungs(
            Stage(name="scratch", data="ETTh1", epochs=1, dropout=0.3, validation_windows=256),
            electricity("pretrain", epochs=2, windows=4800, lr=1e-3),
            Stage(name="finetune", data="ETTh1", epochs=1, dropout=0.3, validation_windows=256),
            Stage(name="distill", data="ETTh1", epochs=6, validation_windows=256),
            # By the target's answers about ETTh1 alone a one-pass head is soon known by heart
            # (LOG.md); about EIA-930 there are as many as one cares to ask for.
            Stage(
                name="distill",
                data={"eia930": 1, "ETTh1": 1},
                judge="ETTh1",
                epochs=32,
                windows=16_000,
                windows_per_epoch=14_400,
                lr=2e-3,
                variates=7,
                validation_windows=256,
            ),
            Stage(
                name="heads",
                data={"eia930": 1, "ETTh1": 1},
                judge="ETTh1",
                epochs=20,
                windows=8000,
                windows_per_epoch=8000,
                variates=7,
                validation_windows=256,
            ),
        ),
        evaluation=Evaluation(data="ETTh1", split="test", horizon=720, windows=128),
    )


def eia930() -> Ladder:
    """EIA-930 and a deep target: where is the target worth its cost?"""
    observed = electricity("scratch", epochs=4, windows=6400, lr=5e-4)
    distill = Stage(
        name="distill",
        data="eia930",
        epochs=6,
        windows=4000,
        variates=7,
        validation_windows=256,
    )
    chain = (observed, distill)
    return Ladder(
        name="eia930",
        target="eia930-deep",
        rungs=(
            Rung(name="0.5x from scratch", scales=(0.5,), stages=chain[:1]),
            Rung(name="0.5x distilled", scales=(0.5,), stages=chain),
            Rung(name="0.7x from scratch", scales=(0.7,), stages=chain[:1]),
            Rung(name="0.7x distilled", scales=(0.7,), stages=chain),
            Rung(
                name="heads",
                kind="heads",
                stages=(
                    Stage(
                        name="heads",
                        data="eia930",
                        epochs=20,
                        windows=8000,
                        variates=7,
                        validation_windows=256,
                    ),
                ),
                patches_out=HEADS,
            ),
        ),
        evaluation=Evaluation(data="eia930", split="test", horizon=720, windows=32),
    )


def demo() -> Ladder:
    """The demo's target on generated data, in a few minutes."""
    deployed = ContextPolicy(kind="deployed")

    def stage(name: StageName, *, data: str = "synthetic-etth", **fields: Any) -> Stage:
        return Stage(name=name, data=data, variates=1, validation_windows=64, **fields)

    return Ladder(
        name="demo",
        target="demo",
        rungs=_rungs(
            stage("scratch", epochs=2, windows_per_epoch=3200, lr=1e-3),
            stage(
                "pretrain",
                data="synthetic-load",
                epochs=2,
                windows_per_epoch=3200,
                batch=64,
                lr=2e-3,
            ),
            stage("finetune", epochs=1, windows_per_epoch=3200, lr=5e-4),
            stage("distill", epochs=3, windows=1200, lr=1e-3, policy=deployed),
            stage("distill", epochs=12, windows=1200, lr=2e-3, policy=deployed),
            stage("heads", epochs=12, windows=1600, lr=2e-3, policy=deployed),
        ),
        evaluation=Evaluation(
            data="synthetic-etth", split="test", horizon=336, windows=32, policy=deployed
        ),
        pairs=10,
    )


LADDERS: dict[str, Callable[[], Ladder]] = {"demo": demo, "etth1": etth1, "eia930": eia930}
"""Complete ladders, by name."""


def ladder_of(
    name: str,
    *,
    target: str | None = None,
    windows: int | None = None,
    seed: int | None = None,
    read: Mapping[str, Any] = MappingProxyType({}),
) -> Ladder:
    """The ladder of that name, with what is given instead of its own.

    Args:
        name: in `LADDERS`.
        target: a recipe's name, or the directory or key of a trained target.
        windows: that judge each rung.
        seed: of every training.
        read: `missing` and `reading` of every stage and of the evaluation.

    Raises:
        ConfigError: there is no such ladder, or it cannot have what is given.
    """
    content = named(LADDERS, name, what="ladder").model_dump(mode="json")
    given = {"target": target, "seed": seed}
    content |= {field: value for field, value in given.items() if value is not None}
    content["evaluation"] |= read
    for rung in content["rungs"]:
        rung["stages"] = [stage | read for stage in rung["stages"]]
    if windows is not None:
        content["evaluation"]["windows"] = windows
    return validated(Ladder, content, source=f"ladder {name}")
