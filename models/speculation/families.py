"""The families of models, by name: each is a package whose module `family` registers it.

    family = family_of("timer_xl")          # imports timer_xl.family, if nobody has yet
    network = build(architecture_of({"family": "timer_xl", "d_model": 64}))

A family is added by adding its folder; nothing here names it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speculation.errors import InvalidInput
from speculation.forecaster import Architecture
from speculation.network import Network

DEFAULT = "timer_xl"
"""Of an architecture that names no family: there was one only, when the first were written."""


@dataclass(frozen=True)
class Family:
    """A family of models: how one is described, and how it is made."""

    name: str
    """that of its package"""
    version: int
    """of its arithmetic: raised when the same weights would give another forecast, or the same seed
    other weights. What was made before is then made anew"""
    architecture: type[Architecture]
    """a frozen dataclass of plain values"""
    network: Callable[[Any], Network]
    """makes the network of an architecture, with weights by PyTorch's own random state"""


REGISTERED: dict[str, Family] = {}


def register(family: Family) -> Family:
    """The family, from now on known by its name."""
    REGISTERED[family.name] = family
    return family


def family_of(name: str) -> Family:
    """The family of that name; its package is imported where nobody has yet.

    Raises:
        InvalidInput: no package of that name is a family.
    """
    if name not in REGISTERED and _is_family(name):
        importlib.import_module(f"{name}.family")
    if name not in REGISTERED:
        raise InvalidInput(f"family is {name!r}: there is no such family of models")
    return REGISTERED[name]


def _is_family(name: str) -> bool:
    """Whether there is a package with a module `family`; nothing of it is run to find out."""
    spec = importlib.util.find_spec(name) if isinstance(name, str) and name.isidentifier() else None
    places = (spec.submodule_search_locations if spec else None) or ()
    return any((Path(place) / "family.py").is_file() for place in places)


def architecture_of(content: Mapping[str, Any]) -> Architecture:
    """The architecture of its plain fields, `family` among them.

    Raises:
        InvalidInput: there is no such family, a field is not one of its architecture's, or one has
            no use for its value.
    """
    fields = dict(content)
    kind = family_of(fields.pop("family", DEFAULT)).architecture
    try:
        return kind(**fields)
    except TypeError as error:
        raise InvalidInput(str(error)) from error


def fields_of(architecture: Architecture) -> dict[str, Any]:
    """An architecture's plain fields, without the name of its family."""
    fields: dict[str, Any] = dataclasses.asdict(architecture)  # type: ignore[call-overload]
    return fields


def build(architecture: Architecture) -> Network:
    """A network of that architecture, its weights drawn from PyTorch's random state."""
    return family_of(architecture.family).network(architecture)
