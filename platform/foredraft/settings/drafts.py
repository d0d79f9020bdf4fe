"""The drafts of a study: how large they are, how they are trained, which of them a trial may want.

    plan = DraftPlan(stages=(stage,), scale=0.7, depth=0.25)
    plan.training(target, {"width": 0.5}, path=path)

`scale` is the one dial of a model's size. Beside it `depth` is of the layers alone, which set a
draft's cost where a pass waits for kernels to start, and `width` of all else. Heads (`kind`) have
none of these: they have a plan of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from foredraft.errors import ConfigError
from foredraft.settings.config import (
    Count,
    DraftKind,
    Factor,
    Name,
    Seed,
    Settings,
    Stage,
    Training,
    complaint,
)
from foredraft.settings.dimensions import Dimension, combinations
from speculation import InvalidInput
from speculation.forecaster import Architecture
from speculation.heads import HEADS, HIDDEN, HeadsConfig

FACTORS = ("scale", "depth", "width")
"""What a draft's sizes are derived by from its target's."""
MODEL_DIMENSIONS = (*FACTORS, "stages", "patches_out")
"""Those about models, which exist beside no heads."""
DRAFT_DIMENSIONS = ("kind", *MODEL_DIMENSIONS)
"""What a dimension about drafts may be called."""


class HeadsPlan(Settings):
    """How the heads of a study are trained."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """all of them `heads`, each from the one before"""
    count: Count = HEADS
    """patches that they propose: as many as the longest lookahead"""
    hidden: Count = HIDDEN
    """width of the layer that they share"""


class DraftPlan(Settings):
    """How the drafts of a study are trained; what is searched overrides it."""

    kind: DraftKind = "model"
    """smaller models of the target's family, or heads on its own last hidden state; a dimension of
    that name searches both"""
    heads: HeadsPlan | None = None
    """of heads, where there are any; all else here is of models"""
    stages: tuple[Stage, ...] = ()
    """of every model, each from the one before"""
    plans: dict[Name, Annotated[tuple[Stage, ...], Field(min_length=1)]] = Field({})
    """instead of `stages`: several ways to train, by the names that dimension `stages` picks"""
    scale: Factor = 0.7
    """of all the target's sizes: layers, width, heads and feed-forward width"""
    depth: Factor | None = None
    """of its layers alone; null for them to follow `scale`"""
    width: Factor | None = None
    """of its width, heads and feed-forward width alone; null for them to follow `scale`"""
    patches_out: Count = 1
    """patches that one pass of the draft emits"""
    seed: Seed = 0
    dtype: Literal["fp32", "bf16"] = "bf16"

    @model_validator(mode="after")
    def _is_trained_somehow(self) -> DraftPlan:
        if self.heads is not None and not (self.stages or self.plans):
            return self
        if bool(self.stages) == bool(self.plans):
            raise ValueError("give stages, or plans where several are to be compared; one of both")
        return self

    @property
    def every_plan(self) -> tuple[tuple[Stage, ...], ...]:
        """Each way in which a draft is trained."""
        return (self.stages, *self.plans.values(), *((self.heads.stages,) if self.heads else ()))

    def kind_of(self, settings: Mapping[str, Any]) -> DraftKind:
        """What drafts in one trial."""
        kind: DraftKind = settings.get("kind", self.kind)
        return kind

    def patches_of(self, settings: Mapping[str, Any]) -> int:
        """Patches that one pass of a trial's draft emits."""
        if self.kind_of(settings) == "heads":
            assert self.heads is not None
            return self.heads.count
        count: int = settings.get("patches_out", self.patches_out)
        return count

    def factors(self, settings: Mapping[str, Any]) -> dict[str, float | None]:
        """What makes one trial's draft smaller than its target, by name.

        None is a `depth` or `width` that follows scale, and a `scale` that nothing follows. Heads
        have none.
        """
        if self.kind_of(settings) == "heads":
            return dict.fromkeys(FACTORS)
        given = self._given(settings)
        followed = given["depth"] is None or given["width"] is None
        return given if followed else {**given, "scale": None}

    def _given(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: settings.get(name, getattr(self, name)) for name in FACTORS}

    def training(
        self, target: Architecture, settings: Mapping[str, Any], *, path: Path
    ) -> Training:
        """The training of the draft of one trial's settings; the target's directory is `path`.

        Raises:
            InvalidInput: a factor at which nothing can be built.
        """
        model, stages = self._model(target, settings)
        return Training(
            model=model, stages=stages, target=str(path), seed=self.seed, dtype=self.dtype
        )

    def _model(
        self, target: Architecture, settings: Mapping[str, Any]
    ) -> tuple[Architecture, tuple[Stage, ...]]:
        patches_out = self.patches_of(settings)
        if self.kind_of(settings) == "heads":
            assert self.heads is not None
            heads = HeadsConfig.of(target, patches_out=patches_out, hidden=self.heads.hidden)
            return heads, self.heads.stages
        stages = self.plans[settings["stages"]] if self.plans else self.stages
        return target.scaled(**self._given(settings), patches_out=patches_out), stages

    def trainings(
        self, target: Architecture, dimensions: Mapping[str, Dimension], *, path: Path
    ) -> list[Training]:
        """Every distinct training that settings of these dimensions lead to, smallest model first.

        Raises:
            ConfigError: a factor at which nothing can be built.
        """

        found: list[Training] = []
        for settings in self.drawn(target, dimensions):
            try:
                training = self.training(target, settings, path=path)
            except InvalidInput as error:
                raise ConfigError(f"{_place_of(error, dimensions)}{error}") from error
            except ValidationError as error:
                raise ConfigError(f"draft.{complaint(error.errors()[0])}") from error
            if training not in found:
                found.append(training)
        return sorted(found, key=lambda training: training.model.num_parameters)

    def drawn(
        self,
        target: Architecture,
        dimensions: Mapping[str, Dimension],
        *,
        beside: Sequence[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """Settings of these dimensions that lead to every draft, some of them to the same.

        Args:
            target: whose drafts.
            dimensions: in an order that can be drawn.
            beside: other dimensions whose values are to be told apart too.
        """

        def tried(name: str, dimension: Dimension) -> Sequence[Any]:
            if name in FACTORS:
                return _told_apart(target, name, dimension.sampled)
            wanted = name in DRAFT_DIMENSIONS or name in beside
            return dimension.sampled if wanted else dimension.ends[:1]

        return combinations(dimensions, tried, only=(*DRAFT_DIMENSIONS, *beside))

    def check_dimensions(self, dimensions: Mapping[str, Dimension]) -> None:
        """Nothing, where whatever these dimensions draw is a draft, and each of them has an effect.

        Raises:
            ValueError: names the dimension or the field of the plan, and what would do.
        """
        self._check_kinds(dimensions)
        self._check_stages(dimensions.get("stages"))
        for name in (*FACTORS, "patches_out"):
            for value in dimensions[name].ends if name in dimensions else ():
                _check_value(name, value)
        for name in ("depth", "width"):
            searched, fixed = dimensions.get(name), getattr(self, name)
            if searched and not searched.when and fixed is not None:
                raise ValueError(
                    f"draft.{name} is {fixed} and dimensions.{name} searches it: leave one"
                )
        self._check_scale(dimensions)

    def check_lookahead(self, longest: int, dimensions: Mapping[str, Dimension]) -> None:
        """Nothing, where every draft can propose that many patches in a round.

        Raises:
            ValueError: there are fewer heads.
        """
        if self.heads and "heads" in self._kinds(dimensions) and longest > self.heads.count:
            raise ValueError(
                f"draft.heads.count is {self.heads.count} and lookahead goes up to {longest}: each "
                f"head proposes one patch; {longest} heads would do, or a shorter lookahead"
            )

    def _kinds(self, dimensions: Mapping[str, Dimension]) -> list[Any]:
        return list(dimensions["kind"].ends) if "kind" in dimensions else [self.kind]

    def _check_kinds(self, dimensions: Mapping[str, Dimension]) -> None:
        """Nothing, where what is searched and fixed is of the kinds of draft that there are."""
        for kind in self._kinds(dimensions):
            _check_value("kind", kind)
        kinds = self._kinds(dimensions)
        if ("heads" in kinds) != (self.heads is not None):
            raise ValueError("draft.heads goes with kind heads: give both, or neither")
        if "model" in kinds:
            if not (self.stages or self.plans):
                raise ValueError("draft.stages is missing: it says how models are trained")
            return
        for name in MODEL_DIMENSIONS:
            if name in dimensions:
                raise ValueError(f"dimensions.{name} has no effect where every draft is heads")
        for name in (*MODEL_DIMENSIONS, "plans"):
            if getattr(self, name) != DraftPlan.model_fields[name].get_default():
                raise ValueError(f"draft.{name} has no effect where every draft is heads")

    def _check_stages(self, searched: Dimension | None) -> None:
        if bool(searched) != bool(self.plans):
            raise ValueError("draft.plans goes with dimensions.stages, which picks one of them")
        if searched and set(searched.when) - {"kind"}:
            raise ValueError(
                "dimensions.stages.when has no use: every draft is trained by one of the plans"
            )
        named = set(searched.ends) if searched else set()
        if named != set(self.plans):
            odd = ", ".join(sorted(map(str, named ^ set(self.plans))))
            raise ValueError(f"draft.plans and dimensions.stages differ in {odd}: name the same")

    def _check_scale(self, dimensions: Mapping[str, Dimension]) -> None:
        searched = "scale" in dimensions
        if not searched and self.scale == DraftPlan.model_fields["scale"].default:
            return
        drawn = combinations(dimensions, lambda _, dimension: dimension.ends, only=FACTORS)
        asked = [settings for settings in drawn if "scale" in settings or not searched]
        if all(self.factors(settings)["scale"] is None for settings in asked):
            place = "dimensions.scale" if searched else f"draft.scale is {self.scale}: it"
            raise ValueError(
                f"{place} has no effect where both depth and width are given: leave one of the "
                "three out"
            )


def beside_models(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The dimensions, each that is about models with a `when` of that kind where heads are tried.

    A `when` that names kinds already stays as it is.
    """
    kinds = dimensions["kind"].ends if "kind" in dimensions else []
    if "heads" not in kinds or "model" not in kinds:
        return dict(dimensions)
    only: dict[str, list[Any]] = {"kind": ["model"]}
    return {
        name: it.model_copy(update={"when": {**only, **it.when}})
        if name in MODEL_DIMENSIONS
        else it
        for name, it in dimensions.items()
    }


def check_effect(target: Architecture, dimensions: Mapping[str, Dimension]) -> None:
    """Nothing, where the values of each factor that is searched lead to more than one draft.

    Raises:
        ConfigError: such as a depth where the target has one layer.
    """
    for name in FACTORS:
        values = dimensions[name].sampled if name in dimensions else []
        numbers = sorted({value for value in values if value is not None})
        if len(numbers) > 1 and len(_told_apart(target, name, numbers)) == 1:
            raise ConfigError(
                f"dimensions.{name} has no effect: from {numbers[0]} to {numbers[-1]} it makes one "
                "and the same draft of this target; leave it out"
            )


def _told_apart(target: Architecture, name: str, values: Sequence[Any]) -> list[Any]:
    """The first value of each architecture that a factor leads to by itself.

    As depth and width change nothing of each other's, what is one draft here is one beside
    whatever else is drawn; and 201 values each of two factors are not multiplied.
    """
    first: dict[Any, Any] = {}
    for value in values:
        made: Any = value
        if value is not None:
            # What cannot be built stays apart: whether it matters shows beside what else is drawn.
            with contextlib.suppress(InvalidInput):
                made = target.scaled(**{"scale": 1.0, name: value})
        first.setdefault(made, value)
    return list(first.values())


def _check_value(name: str, value: Any) -> None:
    field = DraftPlan.model_fields[name]
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(
            f"dimensions.{name} is {value!r}: {complaint(error.errors()[0])}"
        ) from error


def _place_of(error: InvalidInput, dimensions: Mapping[str, Dimension]) -> str:
    """Where in a study the field stands with which the error begins."""
    field = str(error).partition(" ")[0]
    if field in dimensions:
        return "dimensions."
    return "draft." if field in DRAFT_DIMENSIONS else "draft: "
