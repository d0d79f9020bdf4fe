"""The command `foredraft`: every verb of the platform, on one screen each.

    foredraft search search_spaces/demo.yaml

Progress goes to standard error. With --json the last line of standard output is one compact JSON
document. Exit code 0: done; 2: the user's mistake, in one clear line; 1: anything else.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

from foredraft import data, drafts, evaluate, train
from foredraft.config import (
    ConfigError,
    Evaluation,
    Machine,
    Stage,
    Training,
    read_study,
    validated,
)
from timer_xl import Acceptance, ContextPolicy, checkpoint

Result = dict[str, Any]
STDERR = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every verb takes."""

    storage: Path = Path("runs")
    """directory of all artefacts"""
    seed: int | None = None
    """of everything random; by default the configuration's own"""
    json: bool = False
    """print the result as one line of JSON on standard output"""


@dataclass(frozen=True, kw_only=True)
class Data(Common):
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
            return {"datasets": data.catalogue()}
        if self.name is None:
            raise ConfigError(f"data {self.action}: give a name or a path")
        if self.action == "fetch":
            return {"file": str(data.fetch(self.name))}
        return data.check(self.name)


@dataclass(frozen=True, kw_only=True)
class TrainTarget(Common):
    """Train a target by a recipe.

    For example:

        foredraft train target --recipe demo
        foredraft train target --recipe etth1 --set model.d_model=1024 --set stages.0.epochs=5
        foredraft train target --recipe etth1 --workers 2
    """

    recipe: str
    """name of a recipe"""
    set: tuple[str, ...] = ()
    """changes to the recipe, each field=value"""
    workers: int = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        training = _changed(drafts.recipe(self.recipe), self.set, seed=self.seed)
        return _train(training, kind="target", workers=self.workers, storage=self.storage)


@dataclass(frozen=True, kw_only=True)
class TrainDraft(Common):
    """Train a draft of a target.

    For example:

        foredraft train draft --target 0fb0 --scale 0.7 --stages scratch --data ETTh1
        foredraft train draft --target 0fb0 --scale 0.7 --stages pretrain finetune \\
            --data eia930 ETTh1
    """

    target: str
    """key, beginning of a key, or directory of a trained target"""
    scale: float
    """of the target's width, heads and layers"""
    stages: tuple[Literal["scratch", "pretrain", "finetune"], ...]
    """in order; each starts from the one before"""
    data: tuple[str, ...]
    """one data set per stage"""
    patches_out: int = 1
    """patches that one pass emits"""
    set: tuple[str, ...] = ()
    """changes to the training, each field=value, such as stages.0.epochs=5"""
    workers: int = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        if len(self.stages) != len(self.data):
            raise ConfigError(
                f"data names {len(self.data)} sets for {len(self.stages)} stages: one per stage"
            )
        target = drafts.find(self.target, kind="target", storage=self.storage)
        rates = {"scratch": 1e-4, "pretrain": 5e-4, "finetune": 5e-5}
        training = Training(
            model=drafts.open_model(target).config.scaled(self.scale, patches_out=self.patches_out),
            stages=tuple(
                Stage(name=name, data=source, lr=rates[name])
                for name, source in zip(self.stages, self.data, strict=True)
            ),
        )
        training = _changed(training, self.set, seed=self.seed)
        return _train(training, kind="draft", workers=self.workers, storage=self.storage)


@dataclass(frozen=True, kw_only=True)
class Import(Common):
    """Import an OpenLTM or STRIDE Timer-XL checkpoint.pth.

    For example:

        foredraft import checkpoint.pth --kind target
    """

    checkpoint: Positional[Path]
    kind: Literal["target", "draft"] = "target"
    """what it will be used as"""
    context: int = 672
    """look-back in time steps: the weights do not tell it"""
    activation: Literal["relu", "gelu"] = "relu"
    """of the feed-forward layers: the weights do not tell it"""

    def run(self) -> Result:
        """The imported model's key, place and architecture."""
        model = checkpoint.import_openltm(
            self.checkpoint, context=self.context, activation=self.activation
        )
        path = drafts.add(model, kind=self.kind, storage=self.storage, source=self.checkpoint)
        return _described(path)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Accuracy, acceptance, deviation and measured speed of a draft beside its target.

    For example:

        foredraft evaluate --target 0fb0 --draft 6812 --data synthetic-etth --horizon 240
        foredraft evaluate --target 0fb0 --draft 6812 --data ETTh1 --acceptance rule=gaussian \\
            sigma=0.5 bias=2 lookahead=6
    """

    target: str
    draft: str
    data: str
    split: Literal["train", "validation", "test"] = "test"
    horizon: int = 720
    windows: int | None = 64
    """windows of the split, evenly spaced; None for every one"""
    batch: int = 1
    """forecasts decoded together when timed"""
    context_policy: Literal["sliding", "cached"] = "sliding"
    renorm_every: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    missing: Literal["refuse", "interpolate"] = "refuse"
    acceptance: tuple[str, ...] = ("rule=tolerance", "mse_tol=0.01")
    """fields of the acceptance rule, each field=value"""
    pairs: int = 20
    """timed pairs of target alone and speculation"""

    def run(self) -> Result:
        """The metrics of the pair, and of each model alone."""
        storage = self.storage
        rule = _rule(self.acceptance)
        evaluation = Evaluation(
            data=self.data,
            split=self.split,
            horizon=self.horizon,
            windows=self.windows,
            batch=self.batch,
            policy=ContextPolicy(self.context_policy, self.renorm_every),
            dtype=self.dtype,
            missing=self.missing,
        )
        train.use_threads(None)
        device = train.device_of(Machine())
        target, draft = (
            evaluate.ready(
                checkpoint.load(drafts.find(reference, kind=kind, storage=storage)),
                evaluation,
                device,
            )
            for reference, kind in _kinds(self.target, self.draft)
        )
        windows = evaluate.draw_windows(evaluation, target.config)
        with STDERR.status("forecasting"):
            alone, by_draft = (
                evaluate.forecast_alone(model, windows, evaluation=evaluation)
                for model in (target, draft)
            )
            row = evaluate.judge_pair(
                target,
                draft,
                rule,
                windows,
                evaluation=evaluation,
                alone_WHC=alone,
                seed=self.seed or 0,
            )
            timing = evaluate.time_pairs(
                target, draft, rule, windows, evaluation=evaluation, pairs=self.pairs
            )
        return {
            **row._asdict(),
            **timing._asdict(),
            "windows": len(windows.truth_WHC),
            "target": evaluate.accuracy(alone, windows.truth_WHC)._asdict(),
            "draft": evaluate.accuracy(by_draft, windows.truth_WHC)._asdict(),
        }


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


@dataclass(frozen=True, kw_only=True)
class TrainVerb:
    """Train a target or a draft."""

    kind: Annotated[TrainTarget, subcommand("target")] | Annotated[TrainDraft, subcommand("draft")]

    @property
    def json(self) -> bool:
        """As the chosen kind has it."""
        return self.kind.json

    def run(self) -> Result:
        """What the chosen training gives."""
        return self.kind.run()


Verb = (
    Annotated[Data, subcommand("data")]
    | Annotated[TrainVerb, subcommand("train")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Search, subcommand("search")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Forecast, subcommand("forecast")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    kind: Any = OmitSubcommandPrefixes[Verb]  # type: ignore[misc]
    verb: Any = tyro.cli(kind, prog="foredraft", args=arguments, description=__doc__)
    try:
        result = verb.run()
    except (ConfigError, data.DataError, ValueError) as error:
        # ValueError is how models/ names a user's mistake; a bug of ours is told apart by where
        # it was raised only in its traceback, which FOREDRAFT_TRACEBACK brings back.
        if os.environ.get("FOREDRAFT_TRACEBACK"):
            raise
        print(f"foredraft: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("foredraft: stopped", file=sys.stderr)
        sys.exit(130)
    if verb.json:
        print(json.dumps(result, separators=(",", ":"), default=str))
    else:
        _show(result)


def _show(result: Result, *, indent: int = 0) -> None:
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{'':{indent}}{name}")
            _show(value, indent=indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                print(f"{'':{indent}}" + "  ".join(str(v) for v in item.values()))
        elif isinstance(value, float):
            print(f"{'':{indent}}{name:<20} {value:.6g}")
        else:
            print(f"{'':{indent}}{name:<20} {value}")


def _train(training: Training, *, kind: drafts.Kind, workers: int, storage: Path) -> Result:
    machine = Machine(workers=workers)
    if workers:
        from foredraft import search

        search.connect()
    path = drafts.obtain(
        training, kind=kind, storage=storage.resolve(), machine=machine, log=_say_epoch
    )
    return _described(path)


def _described(path: Path) -> Result:
    model = drafts.open_model(path)
    figures = {k: v for k, v in model.metrics.items() if k not in ("curve", "kind")}
    return {"key": model.key, "path": str(path), **figures}


def _say_epoch(row: train.Row) -> None:
    left = (row["epochs"] - row["epoch"]) * row["seconds"]
    STDERR.print(
        f"{row['stage']} {row['epoch']}/{row['epochs']}: train {row['train_loss']:.4f}, "
        f"validation {row['validation_loss']:.4f}, {row['samples_per_s']:.0f} samples/s, "
        f"at most {left:.0f} s left",
        highlight=False,
    )


def _changed(training: Training, changes: tuple[str, ...], *, seed: int | None) -> Training:
    """The training with fields set by `a.b=value`."""
    tree: dict[str, Any] = training.model_dump(mode="json")
    if seed is not None:
        tree["seed"] = seed
    for change in changes:
        path, value = _assignment(change)
        *parents, last = path.split(".")
        branch: Any = tree
        try:
            for part in parents:
                branch = branch[int(part) if isinstance(branch, list) else part]
            branch[int(last) if isinstance(branch, list) else last] = value
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ConfigError(f"--set {change}: {path} does not exist") from error
    return validated(Training, tree, source="--set")


def _rule(fields: tuple[str, ...]) -> Acceptance:
    try:
        return Acceptance(**dict(_assignment(text) for text in fields))
    except TypeError as error:
        raise ConfigError(f"acceptance: {error}") from error


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is no assignment: write field=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _kinds(target: str, draft: str) -> list[tuple[str, drafts.Kind]]:
    return [(target, "target"), (draft, "draft")]
