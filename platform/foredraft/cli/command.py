"""The command `foredraft`: every verb of the platform, on one screen each.

    foredraft search search_spaces/demo.yaml

Progress goes to standard error. With --json the last line of standard output is one compact JSON
document. Exit code 0: done; 2: the user's mistake, in one clear line; 130: stopped by Ctrl-C or
SIGTERM; 1: anything else. --version tells the version and the commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitSubcommandPrefixes, subcommand

from foredraft import __version__, buckets, provenance
from foredraft.cli.bank import Drafts
from foredraft.cli.common import Common, Verb
from foredraft.cli.datasets import Data
from foredraft.cli.doctor import Doctor
from foredraft.cli.jobs import Submit
from foredraft.cli.ladders import Progression
from foredraft.cli.live import Dashboard, Tensorboard
from foredraft.cli.pairs import Bench, Evaluate
from foredraft.cli.studies import Forecast, Report, Reprice, Search
from foredraft.cli.training import Import, Train
from foredraft.errors import ConfigError, Stopped
from foredraft.files import DiskFull
from foredraft.interruption import treat_as_ctrl_c
from foredraft.redaction import redacted
from speculation import InvalidInput

Command = (
    Annotated[Data, subcommand("data")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Progression, subcommand("progression")]
    | Annotated[Drafts, subcommand("drafts")]
    | Annotated[Search, subcommand("search")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Dashboard, subcommand("dashboard")]
    | Annotated[Tensorboard, subcommand("tensorboard")]
    | Annotated[Reprice, subcommand("reprice")]
    | Annotated[Forecast, subcommand("forecast")]
    | Annotated[Submit, subcommand("submit")]
    | Annotated[Doctor, subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    words = sys.argv[1:] if arguments is None else arguments
    verb: Verb | None = None
    treat_as_ctrl_c()
    try:
        with _printing():
            if words[:1] == ["--version"]:
                print(version())
                return
            verb = parsed(words)
        verb.check()
        result = verb.run()
        with _printing():
            if verb.json:
                print(json.dumps(result, separators=(",", ":"), default=str))
            else:
                verb.show(result)
        if code := verb.code(result):
            sys.exit(code)
    except InvalidInput as error:
        if os.environ.get("FOREDRAFT_TRACEBACK"):
            raise
        _end(str(error), code=2)
    except DiskFull as error:
        _end(str(error), code=1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _end(f"no room is left on the disk of {error.filename or 'what is written'}", code=1)
        if not _is_named(error.filename, verb):
            raise
        _end(f"{error.filename}: {error.strerror}; correct the path or its permissions", code=2)
    except Stopped as stopped:
        _end(str(stopped), code=1)
    except KeyboardInterrupt:
        _end("stopped", code=130)


def parsed(words: list[str]) -> Verb:
    """The verb that the words of a command line ask for, not yet run.

    Raises:
        ConfigError: a verb or flag is missing or unknown, or a value cannot be read.
        SystemExit: help was asked for, and printed.
    """
    kind: Any = OmitSubcommandPrefixes[Command]  # type: ignore[misc]
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            command: Command = tyro.cli(kind, prog="foredraft", args=words, description=__doc__)
    except SystemExit as ended:
        if ended.code != 2:
            raise
        raise ConfigError(_in_one_line(box.getvalue())) from None
    verb = command.kind if isinstance(command, Train) else command
    if isinstance(verb, Common):
        verb = dataclasses.replace(verb, storage=buckets.located(verb.storage))
    return verb


def version() -> str:
    """Version, and the commit of a checkout."""
    state = provenance.git_state(Path(__file__))
    changed = ", changed since" if state and state["dirty"] else ""
    return f"foredraft {__version__}" + (
        f", commit {state['commit'][:12]}{changed}" if state else ""
    )


def _in_one_line(box: str) -> str:
    """What tyro draws as a box of several lines: its title, what it says, and where help is."""
    title, *body = [line for line in (part.strip("╭╮╰╯│ ") for part in box.splitlines()) if line]
    text = " ".join(body)
    said, *others = [part.strip(" ─.") for part in text.split("─" * 3) if part.strip(" ─")]
    said = re.sub(r"\s*\((required|applied to [^)]*)\)", "", said)
    said = said.split(" Arguments are applied to")[0]
    known = [part for part in others if part.startswith("Available subcommands")]
    where = re.search(r"applied to (foredraft[\w ]*)", text)
    asked = where or re.search(r"(foredraft[\w -]*?) --help", text)
    trouble = title.strip("─ ").lower()
    told = said if trouble in said.lower() else f"{trouble}: {said}"
    return "; ".join([told, *known, f"see {asked.group(1) if asked else 'foredraft'} --help"])


def _is_named(filename: Any, verb: Verb | None) -> bool:
    """Whether a path lies on the way to, at or below one that the user named."""
    if not isinstance(filename, str) or not dataclasses.is_dataclass(verb):
        return False
    path = Path(filename).absolute()
    values = [getattr(verb, field.name) for field in dataclasses.fields(verb)]
    named = [Path(value).absolute() for value in values if isinstance(value, str | Path)]
    return any(path.is_relative_to(other) or other.is_relative_to(path) for other in named)


def _end(line: str, *, code: int) -> None:
    print(f"foredraft: {redacted(line)}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Printing to a reader who may leave before the end, as `head` does: then nothing is said."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written once more, and fail once more, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
