"""The verbs about a study: `search`, `report`, `forecast`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional

from foredraft.cli.common import STDERR, Common, Result, show
from foredraft.cli.reading import ReadsData
from foredraft.errors import ConfigError
from foredraft.settings.config import Count, validated
from foredraft.settings.study import Study, read_study


@dataclass(frozen=True, kw_only=True)
class Search(Common):
    """Run a study: scale and acceptance together, each distinct draft trained once.

    For example:

        foredraft search search_spaces/demo.yaml
        foredraft search search_spaces/etth1.yaml --dry-run
        foredraft search search_spaces/etth1.yaml --trials 60 --storage /mnt/team
        foredraft search search_spaces/etth1.yaml --trials 90 --storage /mnt/team --resume
        foredraft search search_spaces/etth1.yaml --name etth1-random --sampler random
    """

    study: Positional[Path]
    """a study's YAML file"""
    trials: Count | None = None
    """instead of the study's own number"""
    name: str | None = None
    """instead of the study's own: the same search again, beside the first"""
    sampler: Literal["tpe", "nsgaii", "gp", "random"] | None = None
    """instead of the study's own"""
    dry_run: bool = False
    """say what would be searched, how many drafts that is and what training them costs"""
    resume: bool = False
    """go on with a study that was interrupted, or that is to have more trials"""
    replace: bool = False
    """start anew where a study of that name exists"""
    verbose: bool = False
    """Ray Tune's own tables"""

    def run(self) -> Result:
        """Where the report is, and the choice."""
        from foredraft import report
        from foredraft.search import driver

        study = self._study()
        if self.dry_run:
            from foredraft.search import plan

            return plan.of(study, storage=self.storage)
        directory = driver.run(
            study,
            storage=self.storage,
            replace=self.replace,
            resume=self.resume,
            verbose=self.verbose,
        )
        page = report.write_report(directory)
        best = directory / "best.json"
        return {
            "study": str(directory),
            "report": str(page),
            "best": json.loads(best.read_text()) if best.exists() else None,
        }

    def show(self, result: Result) -> None:
        """The choice in a few lines; all of it is in best.json."""
        best = result.pop("best", None)
        show(result)
        if best:
            show(_choice(best))

    def _study(self) -> Study:
        """The study of the file, with what the command line changes."""
        study = read_study(self.study)
        said = {name: getattr(self, name) for name in ("name", "trials", "sampler", "seed")}
        changes = {name: value for name, value in said.items() if value is not None}
        return validated(Study, study.model_dump() | changes, source=str(self.study))


def _choice(best: Result) -> Result:
    """What a study chose, for a terminal."""
    from foredraft.search.trial import Measured

    told = best["metrics"]
    known = Measured.model_fields.keys() & told.keys()
    settings = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in best["settings"].items()}
    return {
        "chosen": f"trial {best['number']}",
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "draft": f"{best['draft']['parameters']:,} parameters, {best['draft']['draft_key']}",
        "speedup": Measured.model_validate({n: told[n] for n in known}).in_words(),
        "acceptance_rate": _with_interval(told, "acceptance_rate", "acceptance_interval"),
        "mse_ratio": _with_interval(told, "mse_ratio", "mse_ratio_interval"),
        "rule": best["rule"],
    }


def _with_interval(told: Result, name: str, interval: str) -> str:
    """A figure with its interval over windows, where it has one."""
    ends = told.get(interval)
    return f"{told[name]:.4f}" + (f" [{ends['low']:.4f}, {ends['high']:.4f}]" if ends else "")


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
class Forecast(ReadsData, Common):
    """Forecast what follows a series, with the choice of a study.

    For example:

        foredraft forecast --recipe runs/studies/demo/best.json --data my.csv --horizon 720 \\
            --out forecast.csv
    """

    recipe: Path
    """best.json of a study, or its knee.json"""
    data: str
    """CSV or Parquet file, or a data set's name; its last rows are the context"""
    out: Path
    """.csv or .parquet: time, variate, mean, and q10, q50, q90 where the rule samples"""
    horizon: Count | None = None
    """time steps; by default the study's"""
    at: str | None = None
    """time of the last row of the context; by default the data's last"""
    samples: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    """forecasts drawn, where the rule samples"""

    def run(self) -> Result:
        """Where the forecast is, and how it came about."""
        from foredraft import forecast

        with STDERR.status("forecasting") as status:
            return forecast.write_forecast(
                self.recipe,
                self.data,
                out=self.out,
                horizon=self.horizon,
                missing=self.missing,
                reading=self.reading,
                at=self.at,
                samples=self.samples,
                seed=self.seed or 0,
                progress=lambda done, total: status.update(f"forecast {done} of {total}"),
            )
