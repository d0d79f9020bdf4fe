"""The verbs that show what is under way: `dashboard`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional

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
        foredraft dashboard etth1 etth1-random --storage /mnt/team --port 8051
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
        dashboard.serve(storage=self.storage, given=given, host=self.host, port=self.port)
        return {}
