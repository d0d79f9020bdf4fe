"""What a study may search: real numbers, whole numbers, choices, and when each of them exists.

sigma: {type: float, low: 0.02, high: 10.0, log: true, when: {rule: [gaussian, lossless]}}
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from foredraft.config import Count, Positive, Settings


class Searched(Settings):
    """What every dimension has."""

    when: dict[str, list[Any]] = Field({})
    """dimensions declared before this one, and the values beside which this one exists"""

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
    def ends(self) -> list[Any]:
        """Every value: none is between two others."""
        return self.choices

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        return value in self.choices


Dimension = Annotated[FloatDimension | IntDimension | ChoiceDimension, Field(discriminator="type")]


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(f"the range {low} to {high} is empty: low must not be above high")
    if log and low <= 0:
        raise ValueError(f"low is {low}: a logarithmic range starts above 0")
    if log and step:
        raise ValueError(f"step is {step}: a logarithmic range has no steps")
