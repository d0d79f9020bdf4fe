"""What the verbs share: their common flags, what these may hold, and results in print."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from tyro.conf import UseAppendAction

from foredraft import buckets
from foredraft.errors import ConfigError
from foredraft.settings import rules
from foredraft.settings.config import Seed, complaint, shown
from speculation import Acceptance

Result = dict[str, Any]
STDERR = Console(stderr=True)

# A flag of several words that may also be given several times: all of them count.
Words = UseAppendAction[tuple[tuple[str, ...], ...]]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_DEFAULT_RULE = ("rule=tolerance", "mse_tol=0.01")


class Verb(Protocol):
    """What `main` asks of a verb."""

    @property
    def json(self) -> bool:
        """Whether the result is wanted as JSON."""

    def check(self) -> None:
        """Nothing; raises ConfigError where a flag holds what the verb cannot use."""

    def run(self) -> Result:
        """What the verb is for."""

    def show(self, result: Result) -> None:
        """Print the result for a person."""

    def code(self, result: Result) -> int:
        """With which the process ends: 0, or 2 where the result is that something will not do."""


def default_storage() -> Path:
    """Where artefacts are when no `--storage` is given."""
    return Path(os.environ.get("FOREDRAFT_STORAGE", "runs"))


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every verb takes."""

    needs_storage: ClassVar[bool] = False
    """whether the verb only reads its storage, so that it must be there"""

    storage: Path = field(default_factory=default_storage)
    """directory of all artefacts, or a bucket, s3://BUCKET/PREFIX; by default $FOREDRAFT_STORAGE,
    else runs"""
    json: bool = False
    """print the result as one line of JSON on standard output"""

    def check(self) -> None:
        """Nothing, where every flag holds what its type says and the storage can be one.

        Raises:
            ConfigError: names the flag, its value and what would do.
        """
        flags = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        try:
            TypeAdapter(type(self)).validate_python(flags)
        except ValidationError as error:
            first = error.errors()[0]
            flag = f"--{first['loc'][0]}".replace("_", "-")
            raise ConfigError(f"{flag} is {shown(first['input'])}: {complaint(first)}") from error
        self._check_storage()

    def _check_storage(self) -> None:
        given = f"--storage is {self.storage}"
        if _ADDRESS.match(str(self.storage)):
            raise ConfigError(
                f"{given}: only a directory or s3://BUCKET/PREFIX will do; mount it, and "
                "name its path"
            )
        if buckets.address_of(self.storage):
            return  # who uses it asks the bucket: a job's storage may be out of reach from here
        if self.storage.exists() and not self.storage.is_dir():
            raise ConfigError(f"{given}, which is a file: give a directory")
        # The default need not be there: a newcomer has made nothing yet.
        if self.needs_storage and self.storage != default_storage() and not self.storage.exists():
            raise ConfigError(f"{given}, which does not exist: correct the path")

    def show(self, result: Result) -> None:
        """Print the result for a person."""
        show(result)

    def code(self, result: Result) -> int:
        """0: what was asked for is done."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Draws(Common):
    """What every verb takes that draws lots."""

    seed: Seed | None = None
    """of everything random; by default the configuration's own"""


def say_line(line: str) -> None:
    """Print a line of progress as it is, on standard error."""
    STDERR.print(line, soft_wrap=True, markup=False, highlight=False)


def flat(words: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The words of a flag that may be given several times, in order."""
    return tuple(word for given in words for word in given)


def rule_of(words: tuple[tuple[str, ...], ...]) -> Acceptance:
    """The acceptance rule of `field=value` words; by default the strict one.

    Raises:
        ConfigError: names the field, its value and what would do.
    """
    fields = dict(assignments(flat(words) or _DEFAULT_RULE, flag="--acceptance"))
    return rules.rule_of(fields, source="--acceptance")


def assignments(words: Sequence[str], *, flag: str) -> Iterator[tuple[str, Any]]:
    """Field and value of each `field=value`; a value is read as JSON where it is JSON.

    Raises:
        ConfigError: a word is no assignment, or a field is set twice.
    """
    seen: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"{flag} {word}: that is no assignment; write field=value")
        if name in seen:
            raise ConfigError(
                f"{flag} {name} is set twice, to {seen[name]} and to {text}: keep one"
            )
        seen[name] = text
        try:
            yield name, json.loads(text)
        except ValueError:  # no JSON, or a number of more digits than Python reads
            yield name, text


def show(result: Result, *, indent: int = 0) -> None:
    """Print names and values, one a line; what is nested is set in, and rows become a table."""
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{'':{indent}}{name}")
            show(value, indent=indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{'':{indent}}{name}")
            for line in table(value):
                print(f"{'':{indent + 2}}{line}")
        else:
            print(f"{'':{indent}}{name:<20} {told(value)}")


def table(rows: list[Result]) -> Iterator[str]:
    """Lines of aligned columns under a header; a row may lack what another has.

    Numbers stand to the right; a column that would hold nothing but structures is left to --json.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [[row.get(name) for row in rows] for name in names]
    printed = [
        (name, [told(value) for value in column], all(_is_number(v) for v in column))
        for name, column in zip(names, columns, strict=True)
        if not all(isinstance(value, dict | list | tuple) for value in column)
    ]
    widths = [max(len(name), *map(len, cells)) for name, cells, _ in printed]
    for index in range(-1, len(rows)):
        cells = [
            f"{name if index < 0 else column[index]:{'>' if right else '<'}{width}}"
            for (name, column, right), width in zip(printed, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def told(value: Any) -> str:
    """A value in a word or a few."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(told, value))
    return str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
