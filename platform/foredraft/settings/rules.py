"""Acceptance rules in configurations: as a part of one (`Rule`), and as what a study searches.

    class Recipe(Settings):
        acceptance: Rule        # {"rule": "gaussian", "sigma": 0.3, "bias": 2.0, "lookahead": 3}

Which fields there are, of which rule, and what they may hold, is said by the rules' own types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from foredraft.errors import ConfigError
from foredraft.settings.dimensions import ChoiceDimension, Dimension, combinations
from speculation import Acceptance, rule_from
from speculation.rules import RULES
from speculation.rules.fields import InvalidField, fields_of
from speculation.rules.words import check, check_given, field_names, kind_of


def rule_of(fields: Mapping[str, Any], *, source: str) -> Acceptance:
    """The acceptance rule with these fields; what is not given has its default.

    Raises:
        ConfigError: a field that does not exist, is of another type, is missing or has no use.
    """
    try:
        return rule_from(fields)
    except InvalidField as error:
        raise ConfigError(f"{source}: {error}") from error


def _read(value: Any) -> Acceptance:
    if isinstance(value, Acceptance):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("it should be the fields of an acceptance rule, by name")
    try:
        return rule_from(value)
    except InvalidField as error:
        kind = PydanticCustomError("rule", "{problem}", {"problem": error.problem})
        place = InitErrorDetails(type=kind, loc=(error.field,), input=value)
        raise ValidationError.from_exception_data("rule", [place]) from error


Rule = Annotated[Acceptance, PlainValidator(_read), PlainSerializer(dataclasses.asdict)]
"""Any of the rules, told apart by its field `rule`; written as a flat mapping of its own fields.

What the rules of version 0.1 had in common and one has no use for is read where it is null.
"""


def beside_their_rules(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The dimensions, each that not every searched rule has with a `when` of those that have it.

    A `when` that names rules already stays as it is.
    """
    searched = dimensions.get("rule")
    choices = searched.choices if isinstance(searched, ChoiceDimension) else []
    kinds = {name: RULES[name] for name in choices if isinstance(name, str) and name in RULES}
    found: dict[str, Dimension] = {}
    for name, dimension in dimensions.items():
        having = [choice for choice, kind in kinds.items() if name in fields_of(kind)]
        if 0 < len(having) < len(kinds) and "rule" not in dimension.when:
            dimension = dimension.model_copy(update={"when": {**dimension.when, "rule": having}})
        found[name] = dimension
    return found


def check_fields(fixed: Mapping[str, Any], dimensions: Mapping[str, Dimension]) -> None:
    """Nothing, where a rule can be built of whatever is drawn.

    Each field is tried alone, at the ends of what it may be, beside each rule; and each two of
    which the rule says that not all of their values go together.

    Raises:
        ConfigError: a field that a rule lacks, does not know or has no use for, by its place.
    """
    for group in _groups(fixed):
        for drawn in combinations(dimensions, lambda _, it: it.ends, only=("rule", *group)):
            try:
                _check_group(group, {**fixed, **drawn})
            except InvalidField as error:
                place = "dimensions" if error.field in dimensions else "acceptance"
                hint = ""
                if error.field in fixed and "rule" in dimensions:
                    hint = "; as a dimension it is there beside the rules that have it"
                raise ConfigError(f"{place}.{error}{hint}") from error


def _groups(fixed: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys((*fixed, *field_names())):
        yield (name,)
    yield from dict.fromkeys((p.first, p.second) for kind in RULES.values() for p in kind.pairs)


def _check_group(group: tuple[str, ...], words: Mapping[str, Any]) -> None:
    kind = kind_of(words)
    known = fields_of(kind)
    check(kind, {name: words[name] for name in group if name in words})
    for name in group:
        if name in known:
            check_given(kind, name, words)
    for pair in kind.pairs:
        if (pair.first, pair.second) == group:
            pair.check(*(words.get(name, known[name].default) for name in group))
