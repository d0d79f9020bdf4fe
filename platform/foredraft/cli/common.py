"""What the verbs share: their common flags, and how settings are read from words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from foredraft.config import ConfigError
from timer_xl import Acceptance

Result = dict[str, Any]
STDERR = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every verb takes."""

    storage: Path = Path("runs")
    """directory of all artefacts"""
    seed: int | None = None
    """of everything random; by default the configuration's own"""
    json: bool = False
    """print the result as one line of JSON on standard output"""

    def show(self, result: Result) -> None:
        """Print the result for a person."""
        show(result)


def rule_of(fields: tuple[str, ...]) -> Acceptance:
    """The acceptance rule of `field=value` words."""
    try:
        return Acceptance(**dict(assignment(text) for text in fields))
    except TypeError as error:
        raise ConfigError(f"acceptance: {error}") from error


def assignment(text: str) -> tuple[str, Any]:
    """Field and value of `field=value`; the value is read as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is no assignment: write field=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def show(result: Result, *, indent: int = 0) -> None:
    """Print names and values, one a line; what is nested is set in."""
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{'':{indent}}{name}")
            show(value, indent=indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                print(f"{'':{indent}}" + "  ".join(str(v) for v in item.values()))
        elif isinstance(value, float):
            print(f"{'':{indent}}{name:<20} {value:.6g}")
        else:
            print(f"{'':{indent}}{name:<20} {value}")
