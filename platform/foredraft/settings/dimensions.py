"""What a study may search: real numbers, whole numbers, choices, and when each of them exists.

sigma: {type: float, low: 0.02, high: 10.0, log: true, when: {rule: [gaussian, lossless]}}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from foredraft.settings.config import Count, Positive, Settings

# Values tried to find out which architectures a continuous range of scales can lead to.
SWEEP = 201


class Searched(Settings):
    """What every dimension has."""

    when: dict[str, list[Any]] = Field({})
    """other dimensions, and the values of them beside which this one exists"""

    @field_validator("when", mode="before")
    @classmethod
    def _single_values_are_lists(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        return {k: v if isinstance(v, list) else [v] for k, v in when.items()}

    def is_active(self, settings: dict[str, Any]) -> bool:
        """Whether the dimension exists beside these settings."""
        return all(k in settings and settings[k] in values for k, values in self.when.items())


class FloatDimension(Searched):
    """A searched real number."""

    type: Literal["float"]
    low: float
    high: float
    step: Positive | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatDimension:
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self

    @property
    def values(self) -> list[float] | None:
        """Every value, or None where there is a continuum."""
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [self.rounded(self.low + i * self.step) for i in range(count)]

    @property
    def sampled(self) -> list[float]:
        """Every value, or many of a continuum, evenly spaced."""
        if self.values is not None:
            return self.values
        width = self.high - self.low
        return [self.low + width * i / (SWEEP - 1) for i in range(SWEEP)]

    @property
    def ends(self) -> list[float]:
        """The lowest and the highest value."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        known = self.values
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high if known is None else self.rounded(value) in known

    @staticmethod
    def rounded(value: float) -> float:
        """Without the last digits, in which samplers differ: a model's key depends on it."""
        return round(value, 10)


class IntDimension(Searched):
    """A searched whole number."""

    type: Literal["int"]
    low: int
    high: int
    step: Count = 1
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> IntDimension:
        _check_range(self.low, self.high, log=self.log, step=self.step if self.step > 1 else None)
        return self

    @property
    def values(self) -> list[int]:
        """Every value."""
        return list(range(self.low, self.high + 1, self.step))

    @property
    def sampled(self) -> list[int]:
        """Every value."""
        return self.values

    @property
    def ends(self) -> list[int]:
        """The lowest and the highest value."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        return not isinstance(value, bool) and value in self.values


class ChoiceDimension(Searched):
    """A searched choice."""

    type: Literal["categorical"]
    choices: Annotated[list[str | int | float | bool | None], Field(min_length=1)]

    @property
    def values(self) -> list[Any]:
        """Every value."""
        return self.choices

    @property
    def sampled(self) -> list[Any]:
        """Every value."""
        return self.values

    @property
    def ends(self) -> list[Any]:
        """Every value: none is between two others."""
        return self.choices

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        return value in self.choices


Dimension = Annotated[FloatDimension | IntDimension | ChoiceDimension, Field(discriminator="type")]


def by_dependency(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The dimensions, each after those that its `when` names, otherwise in the order given.

    Raises:
        ValueError: a `when` names no dimension, or two wait for each other.
    """
    ordered: dict[str, Dimension] = {}

    def add(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise ValueError(f"dimensions.{name}.when waits for itself: {' <- '.join(waiting)}")
        for parent in dimensions[name].when:
            if parent not in dimensions:
                raise ValueError(
                    f"dimensions.{name}.when.{parent} does not exist: name a dimension"
                )
            add(parent, (*waiting, name))
        ordered.setdefault(name, dimensions[name])

    for name in dimensions:
        add(name, ())
    return ordered


def combinations(
    dimensions: Mapping[str, Dimension],
    tried: Callable[[str, Any], Sequence[Any]],
    *,
    only: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Settings of some dimensions that can be drawn, each once: all combinations of some values.

    Args:
        dimensions: in an order that can be drawn.
        tried: by name and dimension, values to combine; every value on which the existence of
            another dimension may hang is tried too.
        only: the dimensions that are wanted.
    """
    hangs = _hanging(dimensions, only)
    waiting = [name for name in dimensions if name in only or name in hangs]
    grown: list[dict[str, Any]] = [{}]
    while waiting:
        name = waiting.pop(0)
        dimension = dimensions[name]
        values = [*tried(name, dimension)]
        if name in hangs:
            values += [v for v in (dimension.values or hangs[name]) if v not in values]
        grown = [
            following
            for settings in grown
            for following in (
                [{**settings, name: value} for value in values]
                if dimension.is_active(settings)
                else [settings]
            )
        ]
        # What nothing hangs on any more is left out at once: it would multiply what follows.
        needed = {*only, *(parent for later in waiting for parent in dimensions[later].when)}
        grown = _distinct({n: v for n, v in one.items() if n in needed} for one in grown)
    yield from grown


def _distinct(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({repr(settings): settings for settings in found}.values())


def _hanging(dimensions: Mapping[str, Dimension], only: Sequence[str]) -> dict[str, list[Any]]:
    """The dimensions on which those of `only` hang, and the values that they wait for."""
    found: dict[str, list[Any]] = {}
    # From the last to the first: what hangs on one that hangs is met before it.
    for name, dimension in reversed(list(dimensions.items())):
        if name in only or name in found:
            for parent, values in dimension.when.items():
                found.setdefault(parent, []).extend(values)
    return found


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(f"the range {low} to {high} is empty: low must not be above high")
    if log and low <= 0:
        raise ValueError(f"low is {low}: a logarithmic range starts above 0")
    if log and step:
        raise ValueError(f"step is {step}: a logarithmic range has no steps")
