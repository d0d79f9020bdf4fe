"""The verb `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from foredraft.cli.common import Common, Result
from foredraft.settings.study import read_study


@dataclass(frozen=True, kw_only=True)
class Doctor(Common):
    """Whether a study would run: what is wrong here or on the cluster, and the cure.

    For example:

        foredraft doctor
        foredraft doctor search_spaces/etth1.yaml --storage /mnt/foredraft
        foredraft submit -- doctor
    """

    study: Positional[Path | None] = None
    """a study's YAML, of which data, database and machine are looked at too"""

    def run(self) -> Result:
        """The findings, and whether all is fine."""
        from foredraft.cluster import doctor

        study = read_study(self.study) if self.study else None
        found = doctor.examined(study=study, storage=self.storage.resolve(), root=Path.cwd())
        return {
            "findings": [finding._asdict() for finding in found],
            "fine": all(finding.fine for finding in found),
        }

    def show(self, result: Result) -> None:
        """A line for each finding, and one below it for what would cure it."""
        for found in result["findings"]:
            print(f"{'ok   ' if found['fine'] else 'FAULT'} {found['what']}: {found['says']}")
            if not found["fine"]:
                print(f"      -> {found['remedy']}")

    def code(self, result: Result) -> int:
        """0 where a study would run, else 2."""
        return 0 if result["fine"] else 2
