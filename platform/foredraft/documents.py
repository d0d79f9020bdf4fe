"""YAML and JSON as a person means them, and one line where a file cannot be read as that.

A key given twice is an error, and 1e-3 is a number: YAML itself takes the last of the two, and
reads a word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from foredraft.errors import ConfigError


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        # Before `<<` is worked in: what a mapping says may override what it merges.
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            mark = key.start_mark
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                problem = f"{key.value} is given twice, in line {first} and again"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
            lines[key.tag, key.value] = mark.line + 1
        return node


class _Dumper(yaml.SafeDumper):
    """Puts a word such as 1e3 in quotes, as `_Loader` would read a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def read_mapping(path: Path, *, what: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: the file.
        what: what the file is expected to be, such as "a study".

    Raises:
        ConfigError: the file is missing, cannot be read, is no YAML, or no mapping.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: give the path of {what}'s YAML file")
    try:
        content = yaml.load(_text(path), _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_where(error)}") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}, no mapping"
        raise ConfigError(
            f"{path} {found}: {what} has at least a name; write it anew, or start with --replace "
            "where a study left it half-written"
        )
    return content


def yaml_text(tree: dict[str, Any]) -> str:
    """The mapping as YAML that `read_mapping` reads as the same."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False)
    return text


def read_json(path: Path, *, remedy: str) -> Any:
    """The content of a JSON file of ours; NaN, which Python writes and JSON does not know, is None.

    Raises:
        ConfigError: it is missing, empty or not whole; one line names it and ends in `remedy`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: {remedy}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    try:
        return json.loads(content, parse_constant=lambda _: None)
    except ValueError as error:
        what = f"is no whole JSON ({error})" if content.strip() else "is empty"
        raise ConfigError(f"{path} {what}: {remedy}") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        content = path.read_bytes()
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; "
            "save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _where(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    line = f" in line {mark.line + 1}" if mark else ""
    hint = "; indent with spaces" if "'\\t'" in problem else ""
    return f"{' '.join(str(problem).split())}{line}{hint}"
