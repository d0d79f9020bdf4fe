"""The command `foredraft`: every verb of the platform, on one screen each.

    foredraft search search_spaces/demo.yaml

Progress goes to standard error. With --json the last line of standard output is one compact JSON
document. Exit code 0: done; 2: the user's mistake, in one clear line; 1: anything else.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import tyro
from tyro.conf import OmitSubcommandPrefixes, subcommand

from foredraft.cli.bank import Drafts
from foredraft.cli.datasets import Data
from foredraft.cli.ladders import Progression
from foredraft.cli.pairs import Bench, Evaluate
from foredraft.cli.studies import Forecast, Report, Search
from foredraft.cli.training import Import, TrainVerb
from foredraft.study import StudyStopped
from foredraft.train import Diverged
from timer_xl import InvalidInput

Verb = (
    Annotated[Data, subcommand("data")]
    | Annotated[TrainVerb, subcommand("train")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Progression, subcommand("progression")]
    | Annotated[Drafts, subcommand("drafts")]
    | Annotated[Search, subcommand("search")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Forecast, subcommand("forecast")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    kind: Any = OmitSubcommandPrefixes[Verb]  # type: ignore[misc]
    verb: Any = tyro.cli(kind, prog="foredraft", args=arguments, description=__doc__)
    try:
        result = verb.run()
    except InvalidInput as error:
        if os.environ.get("FOREDRAFT_TRACEBACK"):
            raise
        print(f"foredraft: {error}", file=sys.stderr)
        sys.exit(2)
    except (StudyStopped, Diverged) as stopped:
        print(f"foredraft: {stopped}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("foredraft: stopped", file=sys.stderr)
        sys.exit(130)
    if verb.json:
        print(json.dumps(result, separators=(",", ":"), default=str))
    else:
        verb.show(result)
