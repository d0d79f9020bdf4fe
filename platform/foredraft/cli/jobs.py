"""The verb `submit`: any other verb, on a cluster."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from foredraft.cli.common import Result, default_storage, say_line, show
from foredraft.cluster import token
from foredraft.errors import ConfigError
from foredraft.redaction import redacted_words

if TYPE_CHECKING:
    from foredraft.cluster.jobs import Jobs


def _default_address() -> str:
    return os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Run a verb as a job on a cluster, and follow it: its exit code is this one's.

    The working directory goes with it, without data, results and environments, and so does
    foredraft itself. Results lie in the storage of the cluster's nodes.

    For example:

        foredraft submit -- search search_spaces/etth1.yaml --storage /mnt/foredraft
        foredraft submit --detach -- search mine.yaml --resume
        foredraft submit --attach raysubmit_9CsWbqdYM7WpN5bh
    """

    words: Positional[tuple[str, ...]] = ()
    """after --: the verb and its flags"""
    address: str = field(default_factory=_default_address)
    """of the cluster's dashboard; by default $RAY_API_SERVER_ADDRESS, else where `ray dashboard`
    brings it"""
    detach: bool = False
    """leave the job alone once it is there"""
    attach: str | None = None
    """follow a job that is there already"""
    json: bool = False
    """print the result as one line of JSON on standard output"""

    def check(self) -> None:
        """Nothing, where there is a verb to run, which tells no secret to whoever sees the job.

        Raises:
            ConfigError: names what is wrong, and what would do.
        """
        if self.attach and (self.words or self.detach):
            raise ConfigError("--attach follows a job that is there: give no verb and no --detach")
        if not self.words and not self.attach:
            raise ConfigError("submit: give the verb after --, as in `submit -- search mine.yaml`")
        if self.words[:1] == ("submit",):
            raise ConfigError("submit -- submit: a job that submits a job is not followed")
        if redacted_words(self.words) != list(self.words):
            raise ConfigError(
                "submit: the command holds a password or a token, which every user of the cluster "
                "would see in the list of jobs; put it where the nodes find it, such as ~/.pgpass"
            )

    def run(self) -> Result:
        """The job, and how it ended."""
        token.expect()
        from foredraft.cli.command import parsed
        from foredraft.cluster import upload
        from foredraft.cluster.jobs import Jobs

        if self.words:
            parsed(list(self.words)).check()
        jobs = Jobs(self.address)
        job = self.attach
        if job is None:
            sent = upload.of(Path.cwd(), storage=default_storage())
            say_line(sent.in_words)
            job = jobs.send(list(self.words), sent)
        say_line(f"job {job}; to come back to it: {jobs.way_back(job)}")
        if self.detach:
            return {"job": job, "status": "sent", "code": 0}
        return self._followed(jobs, job)

    def show(self, result: Result) -> None:
        """Print the result for a person."""
        show(result)

    def code(self, result: Result) -> int:
        """The job's own."""
        code: int = result["code"]
        return code

    def _followed(self, jobs: Jobs, job: str) -> Result:
        """How the job ended; or that it was left alone, where it was interrupted here."""
        told = 0

        def say(piece: str) -> None:
            nonlocal told
            told += len(piece)
            print(piece, end="", file=sys.stderr, flush=True)

        try:
            jobs.follow(job, say)
        except KeyboardInterrupt:
            if not _wants_stop():
                say_line(f"left alone, and it goes on; to come back to it: {jobs.way_back(job)}")
                return {"job": job, "status": "left alone", "code": 130}
            say_line("stopping; what was reported is kept")
            jobs.stop(job)
            jobs.follow(job, say, told=told)
            return {"job": job, "status": "STOPPED", "code": 130}
        outcome = jobs.outcome(job)
        assert outcome, "a job was followed to its end"
        why = {"message": outcome.message} if outcome.message and outcome.code else {}
        return {"job": job, "status": outcome.status, **why, "code": outcome.code}


def _wants_stop() -> bool:
    """Whether the job is to end too; asked of a person, and no where there is none."""
    if not sys.stdin.isatty():
        return False
    try:
        answer = input("\nstop the job (s), or leave it alone (return)? ")
    except (EOFError, KeyboardInterrupt):
        return False
    return answer.strip().lower() in ("s", "stop")
