"""Acceptance rules from words: a study's `acceptance`, a command line's `field=value`.

    rule = rule_of({"rule": "gaussian", "sigma": 0.3, "bias": 2.0, "lookahead": 3})

Python does not check the types of a dataclass: without a look at them `adapt: "False"` would be
true and `lookahead: 2.5` would count to 3.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from foredraft.errors import ConfigError
from speculation import Acceptance, InvalidInput

FIELDS = tuple(field.name for field in dataclasses.fields(Acceptance))
"""What an acceptance rule may be told."""

_TYPES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(hint, config=ConfigDict(strict=True))
    for name, hint in get_type_hints(Acceptance).items()
    if name in FIELDS
}


def rule_of(fields: Mapping[str, Any]) -> Acceptance:
    """The acceptance rule with these fields; what is not given has its default.

    Raises:
        ConfigError: a field that does not exist, is of another type, is missing or has no use.
    """
    for name, value in fields.items():
        if name not in _TYPES:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FIELDS)}"
            raise ConfigError(f"acceptance.{name} is not known; {hint}")
        try:
            _TYPES[name].validate_python(value)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigError(f"acceptance.{name} is {value!r}: it must be {wanted}") from error
    try:
        return Acceptance(**fields)
    except InvalidInput as error:
        raise ConfigError(f"acceptance: {error}") from error
