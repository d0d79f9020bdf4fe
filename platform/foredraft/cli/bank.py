"""The verb `drafts`: what the draft bank holds, and what of it nobody needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.cli.common import Common, Result
from foredraft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Drafts(Common):
    """The drafts of a storage: list them, show one, remove those that no study refers to.

    For example:

        foredraft drafts list
        foredraft drafts show 6812
        foredraft drafts prune --yes
    """

    needs_storage = True

    action: Positional[Literal["list", "show", "prune"]]
    key: Positional[str | None] = None
    """key of a draft, or the beginning of one, for `show`"""
    yes: bool = False
    """remove what `prune` would otherwise only name"""

    def run(self) -> Result:
        """The drafts, one of them in full, or what is unused."""
        if self.action != "show" and self.key is not None:
            raise ConfigError(f"drafts {self.action} takes no key: {self.key!r} has no effect")
        if self.action != "prune" and self.yes:
            raise ConfigError(f"--yes has no effect in drafts {self.action}")
        if self.action == "list":
            return {"drafts": [line._asdict() for line in housekeeping.listed(self.storage)]}
        if self.action == "show":
            if self.key is None:
                raise ConfigError("drafts show: give a key, as `foredraft drafts list` tells them")
            return housekeeping.shown(bank.find(self.key, kind="draft", storage=self.storage))
        unused = housekeeping.unused(self.storage)
        told = {
            "unused": [{"path": str(path)} for path in unused],
            "bytes": sum(housekeeping.size_of(path) for path in unused),
            **_kept(self.storage),
            "removed": self.yes,
        }
        if self.yes:
            housekeeping.remove(unused, storage=self.storage)
        return told


def _kept(storage: Path) -> Result:
    """Why every draft is kept, where a study may need any of them."""
    names = ", ".join(housekeeping.untold(storage))
    why = f"every draft: {names} has not ended, and only its database tells which ones it needs"
    return {"kept": why} if names else {}
