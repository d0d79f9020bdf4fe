"""The verb `data`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from foredraft import data
from foredraft.cli.common import Common, Result
from foredraft.cli.reading import ReadsData
from foredraft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Data(ReadsData, Common):
    """The data sets: what there is, where it is, whether a file can be used.

    For example:

        foredraft data list
        foredraft data fetch ETTh1
        foredraft data check my.csv
    """

    action: Positional[Literal["list", "fetch", "check"]]
    name: Positional[str | None] = None
    """a name for `fetch`, a path for `check`"""

    def run(self) -> Result:
        """The catalogue, the file fetched, or what a file holds."""
        if self.action == "list":
            if self.name is not None:
                raise ConfigError(f"data list takes no name: {self.name!r} has no effect")
            return {"datasets": data.catalogue()}
        if self.name is None:
            raise ConfigError(f"data {self.action}: give a name or a path")
        if self.action == "fetch":
            return {"file": str(data.fetch(self.name))}
        return data.check(self.name, reading=self.reading)
