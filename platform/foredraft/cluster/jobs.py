"""A verb of foredraft as a job on a cluster: sent, followed, stopped.

    cluster = Jobs("http://127.0.0.1:8265")
    job = cluster.send(["search", "mine.yaml"], upload)
    cluster.follow(job, print)
    cluster.outcome(job)        # Outcome("SUCCEEDED", 0, None)

The packages go with the job, so that nodes need only what they depend on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from ray.job_submission import JobSubmissionClient

from foredraft import provenance
from foredraft.cluster.upload import Upload
from foredraft.errors import ConfigError, Stopped
from foredraft.redaction import redacted

PACKAGES = ("foredraft", "speculation", "timer", "timer_xl")
STATUS_S = 1.0
"""Seconds between two looks at a job that has ended its log."""
LAST_WORDS_S = 30
"""Seconds that a stopped job has to end what it is at, and to say how to go on."""


class Outcome(NamedTuple):
    """How a job ended."""

    status: str
    """Ray's own: SUCCEEDED, FAILED, STOPPED"""
    code: int
    """with which the verb ended; 130 where the job was stopped, 1 where nobody knows"""
    message: str | None
    """what Ray says of a job whose driver did not end by itself"""


class Jobs:
    """The jobs of a cluster whose dashboard is at an address.

    Raises:
        ConfigError: nobody answers there, or the token is not the cluster's.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            with _only(address):
                self.client: Any = JobSubmissionClient(address)
        except ConnectionError as error:
            raise ConfigError(
                f"--address is {address}: nobody answers there; keep `ray dashboard cluster.yaml` "
                "open beside this, or give the address of the cluster's dashboard"
            ) from error
        except Exception as error:
            if not any(word in str(error) for word in ("401", "403", "token", "Unauthorized")):
                raise
            raise ConfigError(
                f"--address is {address}: the cluster did not accept the token; give it in "
                "RAY_AUTH_TOKEN, or as ~/.ray/auth_token, the same as on the head"
            ) from error

        # They tell of every package and every connection.
        for name in ("ray", JobSubmissionClient.__module__):
            logging.getLogger(name).setLevel(logging.WARNING)

    def send(self, words: list[str], upload: Upload) -> str:
        """The name of a new job that runs a verb in a copy of the directory."""
        env: dict[str, Any] = {
            "working_dir": str(upload.root),
            "excludes": [f"/{path}" for path in upload.left_out],
            "py_modules": [str(path) for path in _packages()],
            "env_vars": {
                provenance.SUBMITTED: json.dumps(_facts(words)),
                "RAY_JOB_STOP_WAIT_TIME_S": str(LAST_WORDS_S),
            },
        }
        name: str = self.client.submit_job(
            entrypoint=shlex.join(["python", "-m", "foredraft", *words]), runtime_env=env
        )
        return name

    @contextlib.contextmanager
    def _reached(self, job: str) -> Iterator[None]:
        """Say in one line that the cluster does not answer, or does not know the job."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if "status code 404" in str(error):
                raise ConfigError(f"job {job} is not known at {self.address}") from error
            raise Stopped(
                f"nobody answers at {self.address} any more; the job goes on: bring the tunnel "
                f"back (`ray dashboard`), then `{self.way_back(job)}`"
            ) from error

    def way_back(self, job: str) -> str:
        """The command that follows the job again, wherever it is typed."""
        return f"foredraft submit --attach {job} --address {shlex.quote(redacted(self.address))}"

    def follow(self, job: str, say: Callable[[str], None], *, told: int = 0) -> None:
        """Nothing; every piece of the job's log is told as it comes, until the job has ended.

        Args:
            job: its name.
            say: told of the pieces.
            told: characters of the log that are known already.

        Raises:
            Stopped: the cluster is out of reach; the job goes on.
        """

        async def tail() -> None:
            nonlocal told
            place, pieces = 0, self.client.tail_job_logs(job)
            while piece := await _next(pieces):
                new, place = piece[max(0, told - place) :], place + len(piece)
                told = max(told, place)
                if new:
                    say(new)

        # Its log ends a moment before it does, or where a connection broke: then it is told on.
        while True:
            asyncio.run(tail())
            if self.outcome(job):
                break
            time.sleep(STATUS_S)
        with self._reached(job):
            if rest := self.client.get_job_logs(job)[told:]:
                say(rest)

    def stop(self, job: str) -> None:
        """Nothing; the job is told to end, and keeps what it has reported.

        Raises:
            Stopped: the cluster is out of reach; the job goes on.
        """
        with self._reached(job):
            self.client.stop_job(job)

    def outcome(self, job: str) -> Outcome | None:
        """How the job ended, or None while it runs.

        Raises:
            ConfigError: the cluster does not know it.
            Stopped: the cluster is out of reach; the job goes on.
        """
        with self._reached(job):
            info = self.client.get_job_info(job)
        if not info.status.is_terminal():
            return None
        status = info.status.value
        known = {"SUCCEEDED": 0, "STOPPED": 130}.get(status, 1)
        code = info.driver_exit_code if status == "FAILED" else None
        if code in (1, 2, 130):  # of a driver that ended by itself the log has told
            return Outcome(status, code, None)
        return Outcome(status, known, info.message)


async def _next(pieces: AsyncIterator[str]) -> str | None:
    """The next piece of a log; None at its end, or where the connection breaks."""
    try:
        return await anext(pieces, None)
    except (RuntimeError, OSError, aiohttp.ClientError):
        return None


@contextlib.contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray heeds this variable, and RAY_ADDRESS, more than the address that it is given."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _packages() -> list[Path]:
    """The directories of the packages that run here, wherever they are installed."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    return [Path(spec.origin).parent for spec in specs if spec and spec.origin]


def _facts(words: list[str]) -> dict[str, Any]:
    """Whose command this is, and of which code: a job's own process knows neither."""
    facts = provenance.collect(origin=provenance.Origin.of(["foredraft", *words]))
    return {name: facts[name] for name in ("user", "host", "command", "git")}
