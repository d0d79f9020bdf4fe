"""The verbs about a study: `search`, `report`, `forecast`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from foredraft.cli.common import Common, Result
from foredraft.config import ConfigError, read_study, validated


@dataclass(frozen=True, kw_only=True)
class Search(Common):
    """Run a study: scale and acceptance together, each distinct draft trained once.

    For example:

        foredraft search search_spaces/demo.yaml
        foredraft search search_spaces/etth1.yaml --trials 60 --storage /mnt/team
    """

    study: Positional[Path]
    """a study's YAML file"""
    trials: int | None = None
    """instead of the study's own number"""
    replace: bool = False
    """start anew where a study of that name exists"""
    verbose: bool = False
    """Ray Tune's own tables"""

    def run(self) -> Result:
        """Where the report is, and the choice."""
        from foredraft import report, search

        study = read_study(self.study)
        changes = {"trials": self.trials, "seed": self.seed}
        changed = study.model_dump() | {k: v for k, v in changes.items() if v is not None}
        study = validated(type(study), changed, source=str(self.study))
        directory = search.run(
            study, storage=self.storage, replace=self.replace, verbose=self.verbose
        )
        page = report.write_report(directory)
        best = directory / "best.json"
        return {
            "study": str(directory),
            "report": str(page),
            "best": json.loads(best.read_text()) if best.exists() else None,
        }


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """Write the report of a study once more.

    For example:

        foredraft report demo
    """

    study: Positional[str]
    """name of the study, or its directory"""

    def run(self) -> Result:
        """Where the report is."""
        from foredraft import report

        directory = Path(self.study)
        if not (directory / "study.yaml").is_file():
            directory = self.storage / "studies" / self.study
        if not (directory / "study.yaml").is_file():
            raise ConfigError(f"study {self.study!r} does not exist in {self.storage}")
        return {"report": str(report.write_report(directory))}


@dataclass(frozen=True, kw_only=True)
class Forecast(Common):
    """Forecast what follows a series, with the choice of a study.

    For example:

        foredraft forecast --recipe runs/studies/demo/best.json --data my.csv --horizon 720 \\
            --out forecast.csv
    """

    recipe: Path
    """best.json of a study"""
    data: str
    """CSV or Parquet file, or a data set's name; its last rows are the context"""
    out: Path
    """.csv or .parquet: time, variate, mean"""
    horizon: int | None = None
    """time steps; by default the study's"""
    missing: Literal["refuse", "interpolate"] = "refuse"

    def run(self) -> Result:
        """Where the forecast is, and how it came about."""
        from foredraft import forecast

        return forecast.write_forecast(
            self.recipe,
            self.data,
            out=self.out,
            horizon=self.horizon,
            missing=self.missing,
            seed=self.seed or 0,
        )
