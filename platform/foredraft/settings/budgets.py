"""What speculation may cost in fidelity: bounds by metric, each of which a trial has to keep.

    budget = Budget(mse_ratio=1.01, deviation_ratio=0.01)
    budget.is_kept({"mse_ratio": 1.002, "deviation_ratio": 0.004})

Two readers ask two questions. Who needs good forecasts bounds how much accuracy is lost against
what happened; who needs the forecasts of this very target bounds how far from them one may end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import model_validator

from foredraft.settings.config import Positive, Settings


class Budget(Settings):
    """Bounds by metric, one or both; a plain number, as in `budget: 1.01`, bounds mse_ratio."""

    mse_ratio: Positive | None = None
    """largest mse against what happened, over the target's own under the study's reference
    policy; 1 or a little more"""
    deviation_ratio: Positive | None = None
    """largest mean squared difference to the target's own forecast under the study's reference
    policy, over the target's mse under that policy; .01 is close, 1 is as far from the target as
    the target is from what happens"""

    @model_validator(mode="before")
    @classmethod
    def _of_a_number(cls, given: object) -> object:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"mse_ratio": given}
        if isinstance(given, Mapping) and (unknown := given.keys() - cls.model_fields.keys()):
            # Named here, as `deviation` and `mse` are names of other things.
            raise ValueError(
                f"budget bounds {min(map(str, unknown))!r}, which is no bound: there are "
                f"{' and '.join(cls.model_fields)}"
            )
        return given

    @model_validator(mode="after")
    def _bounds_something(self) -> Budget:
        if not self.bounds:
            raise ValueError("budget bounds nothing: give mse_ratio, deviation_ratio or both")
        return self

    @property
    def bounds(self) -> dict[str, float]:
        """What is bounded, by the metric's name."""
        both = {"mse_ratio": self.mse_ratio, "deviation_ratio": self.deviation_ratio}
        return {name: bound for name, bound in both.items() if bound is not None}

    @property
    def first(self) -> str:
        """The bounded metric that decides between points which are equal otherwise."""
        return next(iter(self.bounds))

    @property
    def largest_mse_ratio(self) -> float:
        """How inaccurate anything within the budget can be.

        Where only the deviation is bounded the triangle inequality tells: errors are distances to
        what happened, and no farther than the target's own and the distance to that together.
        """
        if self.mse_ratio is not None:
            return self.mse_ratio
        return (1 + math.sqrt(self.bounds["deviation_ratio"])) ** 2

    @property
    def largest_deviation_ratio(self) -> float:
        """How far from the target is still counted: the bound, else as far as the target errs."""
        return 1.0 if self.deviation_ratio is None else self.deviation_ratio

    def room(self, ratios: Mapping[str, float | None]) -> dict[str, float]:
        """What is left of each bound, by its name, below 0 where it is passed; of the known."""
        return {
            name: bound - ratio
            for name, bound in self.bounds.items()
            if (ratio := ratios.get(name)) is not None
        }

    def is_kept(self, ratios: Mapping[str, float | None]) -> bool:
        """Whether every metric that is bounded is known, and within its bound."""
        room = self.room(ratios)
        return room.keys() == self.bounds.keys() and min(room.values()) >= 0

    @property
    def in_words(self) -> str:
        """'mse ratio at most 1.01 and deviation ratio at most 0.01'."""
        return " and ".join(
            f"{name_in_words(name)} at most {bound:g}" for name, bound in self.bounds.items()
        )


def name_in_words(metric: str) -> str:
    """A metric's name as a sentence has it."""
    return metric.replace("_", " ")
