"""What a field of a rule may hold, read from its annotation; one line where a value is not that.

    sigma: Annotated[float, Range(above=0)]

Python does not check the types of a dataclass: without a look at them `adapt: "False"` would be
true and `lookahead: 2.5` would count to 3.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from speculation.errors import InvalidInput

_LONGEST = 80
_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    type(None): "null",
}


class InvalidField(InvalidInput):
    """A field, and what is wrong with it: "is 2.5: it must be a whole number"."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field, self.problem = field, problem

    def __str__(self) -> str:
        return f"{self.field} {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The finite numbers within some bounds."""

    above: float = -math.inf
    at_least: float = -math.inf
    at_most: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether the number is one of them."""
        return value > self.above and self.at_least <= value <= self.at_most and _is_finite(value)

    def __str__(self) -> str:
        bounds = {"above": self.above, "at least": self.at_least, "at most": self.at_most}
        given = [f"{name} {bound:g}" for name, bound in bounds.items() if math.isfinite(bound)]
        return f"finite, {' and '.join(given)}" if given else "finite"


class Field(NamedTuple):
    """What one field of a rule may hold."""

    kinds: tuple[Any, ...]
    """the types that would do: float, int, bool, str, None"""
    words: tuple[Any, ...]
    """the words that would do"""
    range: Range
    required: bool
    default: Any

    def check(self, name: str, value: Any) -> None:
        """Nothing, where the field may hold the value.

        Raises:
            InvalidField: says what would do.
        """
        if value in self.words:
            return
        if not any(_is_a(value, kind) for kind in self.kinds):
            wanted = [_WORDS[kind] for kind in self.kinds]
            if self.words:
                wanted.append(f"one of {', '.join(self.words)}")
            raise InvalidField(name, f"is {shown(value)}: it must be {' or '.join(wanted)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not self.range.holds(value):
            raise InvalidField(name, f"is {shown(value)}: it must be {self.range}")


@functools.cache
def fields_of(kind: type[Any]) -> Mapping[str, Field]:
    """The fields of a frozen dataclass by name, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _field(hints[field.name], field) for field in dataclasses.fields(kind)}


def shown(value: Any) -> str:
    """A value as it stands in a message: no number of hundreds of digits."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _field(hint: Any, field: dataclasses.Field[Any]) -> Field:
    bounds = Range()
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    required = field.default is dataclasses.MISSING
    return Field(
        kinds=tuple(option for option in options if get_origin(option) is not Literal),
        words=tuple(word for option in options for word in get_args(option)),
        range=bounds,
        required=required,
        default=None if required else field.default,
    )


def _is_a(value: Any, kind: Any) -> bool:
    """Whether the value is of the type: a whole number is a number, true is none."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
