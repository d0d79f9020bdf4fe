"""The verbs that show what is under way: `dashboard`, `tensorboard`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional

from foredraft import buckets
from foredraft.cli.common import STDERR, Common, Result
from foredraft.cli.studies import directory_of
from foredraft.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Dashboard(Common):
    """Show studies in a browser, live, while they run and after.

    Without a study it lists those that there are; several are drawn over each other. It reads
    their records alone, so that it runs wherever the storage or the database can be reached.
    For example:

        foredraft dashboard
        foredraft dashboard demo
        foredraft dashboard etth1 etth1-random --port 8051
        foredraft dashboard runs/studies/demo /mnt/team/studies/demo
    """

    needs_storage = True

    studies: Positional[tuple[str, ...]] = ()
    """names of studies, or their directories"""
    host: str = "127.0.0.1"
    """where to listen; whoever reaches it may read every study of the storage"""
    port: Annotated[int, Field(ge=0, le=65535)] = 8050
    """where to listen; 0 for any that is free"""

    def run(self) -> Result:
        """Nothing, once it is interrupted."""
        try:
            from foredraft import dashboard
        except ModuleNotFoundError as error:
            if error.name not in ("dash", "flask", "werkzeug"):
                raise
            raise ConfigError(
                "the dashboard needs Dash, which is not installed: "
                "pip install 'foredraft[dashboard]'"
            ) from error
        given = [directory_of(study, storage=self.storage) for study in self.studies]
        if self.host not in LOOPBACK:
            STDERR.print(
                f"--host is {self.host}: whoever reaches it may read every study of the storage, "
                "as there is no password",
                soft_wrap=True,
            )
        with buckets.followed(self.storage / "studies"):
            dashboard.serve(storage=self.storage, given=given, host=self.host, port=self.port)
        return {}


@dataclass(frozen=True, kw_only=True)
class Tensorboard(Common):
    """Show every training and trial of a storage in TensorBoard, trials grouped by their study.

    Its HPARAMS tab holds the settings of the trials beside what they came to. For example:

        foredraft tensorboard
        foredraft tensorboard demo --port 6007
    """

    needs_storage = True

    study: Positional[str | None] = None
    """name of a study, or its directory: its trials alone; by default everything"""
    host: str = "127.0.0.1"
    """where to listen; whoever reaches it may read every training of the storage"""
    port: Annotated[int, Field(ge=0, le=65535)] = 6006
    """where to listen; 0 for any that is free"""

    def run(self) -> Result:
        """Nothing, once it is interrupted."""
        from tensorboard import program

        board = program.TensorBoard()
        folder = self.logs()
        words = ["--logdir", str(folder), "--host", self.host, "--port", str(self.port)]
        board.configure(argv=["tensorboard", *words])
        try:
            url = board.launch()
        except program.TensorBoardServerException as error:
            raise ConfigError(f"--port is {self.port}: {error}; give another --port") from error
        print(url, flush=True)
        with buckets.followed(folder):
            threading.Event().wait()
        return {}

    def logs(self) -> Path:
        """Where the event files are.

        Raises:
            ConfigError: nothing has been written there.
        """
        folder = self.storage / "tensorboard"
        if self.study is not None:
            directory = directory_of(self.study, storage=self.storage).resolve()
            folder = directory.parents[1] / "tensorboard" / directory.name
        if not buckets.fetch(folder).is_dir():
            raise ConfigError(
                f"{folder} does not exist: a training or a study of that storage makes it"
            )
        return folder
