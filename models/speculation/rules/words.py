"""A rule from words: a study's `acceptance`, a command line's `field=value`, a recipe's JSON.

    rule = rule_from({"rule": "gaussian", "sigma": 0.3, "bias": 2.0, "lookahead": 3})

Where the rule is known, its class says the same and mypy sees it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from speculation.rules.acceptance import RULES, Acceptance
from speculation.rules.fields import InvalidField, fields_of, shown

DEFAULT = "tolerance"


def rule_from(fields: Mapping[str, Any]) -> Acceptance:
    """The rule of these fields; what is not given has its default.

    What another rule would be told is read too where it says what this one does anyway (`propose`
    of a rule that always samples), or nothing: null.

    Raises:
        InvalidInput: names a field that does not exist, has another type, is missing or has no use.
    """
    kind = kind_of(fields)
    check(kind, fields)
    for name in fields_of(kind):
        check_given(kind, name, fields)
    return kind(**{name: fields[name] for name in fields_of(kind) if name in fields})


def field_names() -> tuple[str, ...]:
    """What a rule may be told, of all rules together."""
    return tuple(dict.fromkeys(name for kind in RULES.values() for name in fields_of(kind)))


def kind_of(fields: Mapping[str, Any]) -> type[Acceptance]:
    """The rule that the fields name, or by default `tolerance`.

    Raises:
        InvalidInput: there is no such rule.
    """
    name = fields.get("rule", DEFAULT)
    if not isinstance(name, str) or name not in RULES:
        raise InvalidField("rule", f"is {shown(name)}: one of {', '.join(RULES)} would do")
    return RULES[name]


def check(kind: type[Acceptance], fields: Mapping[str, Any]) -> None:
    """Nothing, where the rule may be told each of these fields.

    Raises:
        InvalidInput: names the field, its value and what would do.
    """
    known = fields_of(kind)
    for name, value in fields.items():
        if name in known:
            known[name].check(name, value)
        elif name in kind.always:
            _check_same(kind, name, value)
        elif name not in field_names():
            raise InvalidField(name, f"is not known; {_nearest(name)}")
        elif value is not None:
            raise InvalidField(
                name, f"is {shown(value)}: it has no effect under rule '{_name(kind)}'"
            )


def check_given(kind: type[Acceptance], name: str, fields: Mapping[str, Any]) -> None:
    """Nothing, where the field is among `fields` or has a default.

    Raises:
        InvalidInput: the rule needs it.
    """
    if name not in fields and fields_of(kind)[name].required:
        raise InvalidField(name, f"is missing: rule '{_name(kind)}' needs it")


def _check_same(kind: type[Acceptance], name: str, value: Any) -> None:
    if value not in (None, kind.always[name]):
        raise InvalidField(
            name,
            f"is {shown(value)}: under rule '{_name(kind)}' it is always '{kind.always[name]}'; "
            "leave it out",
        )


def _name(kind: type[Acceptance]) -> str:
    return str(fields_of(kind)["rule"].default)


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, field_names(), n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(field_names())}"
