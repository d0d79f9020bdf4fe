"""The verbs about a study: `search`, `report`, `reprice`, `forecast`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from tyro.conf import Positional

from foredraft import buckets
from foredraft.cli.common import STDERR, Common, Draws, Result, say_line, show
from foredraft.cli.reading import ReadsData
from foredraft.documents import read_mapping
from foredraft.errors import ConfigError
from foredraft.settings.config import Count, Machine, validated
from foredraft.settings.study import Study, read_study

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Search(Draws):
    """Run a study: scale and acceptance together, each distinct draft trained once.

    For example:

        foredraft search search_spaces/demo.yaml
        foredraft search search_spaces/etth1.yaml --dry-run
        foredraft search search_spaces/etth1.yaml --trials 60 --storage /mnt/team
        foredraft search search_spaces/etth1.yaml --trials 90 --storage /mnt/team --resume
        foredraft search search_spaces/etth1.yaml --name etth1-random --sampler random
    """

    study: Positional[Path]
    """a study's YAML file, or the name of one that foredraft brings with it"""
    trials: Count | None = None
    """instead of the study's own number"""
    name: str | None = None
    """instead of the study's own: the same search again, beside the first"""
    sampler: Literal["nested", "tpe", "nsgaii", "gp", "random"] | None = None
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
        """Where the report is, the choice, and a sentence for each of a study's three readers."""
        from foredraft import report
        from foredraft.search import driver

        study = self._study()
        if self.dry_run:
            from foredraft.search import plan

            return plan.of(study, storage=self.storage, say=say_line)
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
            "study": buckets.address_of(directory) or str(directory),
            "report": str(page),
            "best": json.loads(best.read_text()) if best.exists() else None,
            "readers": list(report.reading_of(directory)),
        }

    def show(self, result: Result) -> None:
        """The choice in a few lines, all of which is in best.json, and what it means for whom."""
        best, readers = result.pop("best", None), result.pop("readers", [])
        show(result)
        if best:
            show(_choice(best))
        for sentence in readers:
            print(sentence)

    def _study(self) -> Study:
        """The study of the file, with what the command line changes."""
        study = read_study(self.study)
        said = {name: getattr(self, name) for name in ("name", "trials", "sampler", "seed")}
        changes = {name: value for name, value in said.items() if value is not None}
        return validated(Study, study.model_dump() | changes, source=str(self.study))


def _choice(best: Result) -> Result:
    """What a study chose, for a terminal."""
    from foredraft.search.choice import TARGET_ALONE
    from foredraft.search.trial import Measured
    from foredraft.settings.budgets import Budget

    if best["choice"] == TARGET_ALONE:
        return {"chosen": TARGET_ALONE, "why": best["why"]}
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
        "deviation_ratio": f"{told['deviation_ratio']:.4f}",
        "budget": Budget.model_validate(best["budget"]).in_words,
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
        foredraft report demo --png figures
    """

    study: Positional[str]
    """name of the study, or its directory"""
    png: Path | None = None
    """a directory for the key figures as PNG files too, drawn by Chromium"""

    def run(self) -> Result:
        """Where the report is, and the pictures where they are wanted."""
        from foredraft import report

        directory = directory_of(self.study, storage=self.storage)
        told: Result = {"report": str(report.write_report(directory))}
        if self.png:
            told["pictures"] = [str(path) for path in report.pictures_of(directory, self.png)]
        return told


def directory_of(study: str, *, storage: Path) -> Path:
    """The directory of a study that is given by its name, or as a directory.

    Raises:
        ConfigError: there is none.
    """
    for directory in (buckets.located(Path(study)), storage / "studies" / study):
        buckets.fetch(directory)
        if (directory / "study.yaml").is_file():
            return directory
    raise ConfigError(f"study {study!r} does not exist in {storage}")


@dataclass(frozen=True, kw_only=True)
class Reprice(Common):
    """Front and choice of a study on another device, without decoding again.

    For example:

        foredraft reprice demo
        foredraft reprice demo --write-costs laptop.json
        foredraft reprice demo --costs laptop.json
    """

    study: Positional[str]
    """name of the study, or its directory"""
    costs: Path | None = None
    """what passes cost elsewhere, as --write-costs wrote it there; by default they are timed here,
    as far as the storage keeps none of this device"""
    write_costs: Path | None = None
    """file for the costs of this device, to be read by --costs on another machine"""
    device: Literal["cpu", "cuda"] | None = None
    """of this machine; by default the GPU where there is one"""
    threads: Count | None = None
    """of PyTorch, on a CPU; by default the study's, or one per core"""

    def run(self) -> Result:
        """The comparison, and where it is kept."""
        from foredraft.bank import claims
        from foredraft.search import record, reprice

        if self.costs and (self.write_costs or self.device or self.threads):
            raise ConfigError(
                "--costs tells of another device, and --write-costs, --device and --threads of "
                "this one: leave out the one or the others"
            )
        directory = directory_of(self.study, storage=self.storage).resolve()
        path, storage = directory / "study.yaml", directory.parents[1]
        tree = read_mapping(path, what="a study")
        study = validated(Study, tree, source=str(path))
        # One that runs would disturb the clock, and has more to tell.
        with claims.held(storage / "claims" / f"study-{study.name}", wait=False):
            found = record.read(study, directory)
            if self.costs:
                costs = reprice.read_costs(self.costs, found)
            else:
                device = self._device(study)
                with STDERR.status("timing passes") as status:
                    costs = reprice.measured_here(
                        found, storage=storage, device=device, say=status.update
                    )
            if self.write_costs:
                reprice.write_costs(self.write_costs, costs)
            told = reprice.comparison(found, costs)
            return {**told, "written": str(reprice.write(told, directory))}

    def show(self, result: Result) -> None:
        """Front and choice beside the old ones; the calibrations are in the file."""
        choice = result["choice"]
        told = {
            "device": result["device"],
            "front": result["front"],
            "choice": "target alone, nothing is predicted faster"
            if choice is None
            else f"trial {choice}",
            "choice before": "none"
            if result["choice_before"] is None
            else f"trial {result['choice_before']}",
            "written": result["written"],
        }
        show(told)
        for note in result["notes"]:
            print(note)

    def _device(self, study: Study) -> torch.device:
        """The device to time on, its threads set.

        Raises:
            ConfigError: a GPU is asked for and there is none.
        """
        from foredraft import train

        train.use_threads(self.threads or study.machine.cpus)
        use_gpu = None if self.device is None else self.device == "cuda"
        if use_gpu and train.kind_of_device(Machine()) == "cpu":
            raise ConfigError("--device is cuda: no CUDA device was found; give cpu")
        return train.device_of(Machine(use_gpu=use_gpu))


@dataclass(frozen=True, kw_only=True)
class Forecast(ReadsData, Draws):
    """Forecast what follows a series, with the choice of a study.

    For example:

        foredraft forecast --recipe demo --data my.csv --out forecast.csv
        foredraft forecast --recipe runs/studies/demo/best.json --data my.csv --horizon 720 \\
            --out forecast.csv
    """

    recipe: str
    """name of a study, for its choice; or a file, the best.json or knee.json of one, which may lie
    in a bucket, s3://BUCKET/PREFIX/studies/..."""
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
            told = forecast.write_forecast(
                self._recipe(),
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
        if told["alone"]:
            STDERR.print(
                f"the target forecast alone, as its study recommends: {told['alone']}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )
        return told

    def _recipe(self) -> Path:
        if Path(self.recipe).suffix == ".json":
            return buckets.fetch(buckets.located(Path(self.recipe)))
        return directory_of(self.recipe, storage=self.storage) / "best.json"
