"""The joint study: Ray Tune and Optuna over draft scale and acceptance, each draft trained once.

    directory = run(read_study(Path("search_spaces/etth1.yaml")), storage=Path("runs"))

A trial is a coordinator that holds no CPU and no GPU. It asks for its draft, which is trained as a
task of its own if nobody had it before; has the pair judged as another task; and reports. Inside
the search speed is what the cost model predicts from passes timed while the machine was otherwise
idle, so that trials may share it. At the end every point of the front is timed for real.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import optuna
import pandas as pd
import ray
import torch
import yaml
from pydantic import TypeAdapter
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from foredraft import drafts, evaluate, provenance, timing, train
from foredraft.config import (
    ChoiceDimension,
    ConfigError,
    FloatDimension,
    IntDimension,
    Machine,
    Study,
    Training,
)
from foredraft.examine import Examiner
from foredraft.recipes import RECIPES, recipe
from timer_xl import Acceptance, Engine, checkpoint, cost

OBJECTIVES = {"acceptance_rate": "max", "predicted_speedup": "max", "mse": "min"}
# A coordinator must hold something, and on the head node: the one machine that is never spot.
COORDINATOR = {"cpu": 0, "node:__internal_head__": 0.001}
CEILING_POINTS = 21
CHOICE = "fastest measured point within the accuracy budget; of equals, the most accurate"


class Bench(NamedTuple):
    """What every trial of a study is judged against; lives in Ray's object store."""

    target: Path
    windows: evaluate.EvaluationWindows
    alone_WHC: torch.Tensor
    """the target's own forecasts"""
    accuracy: evaluate.Accuracy


class Prepared(NamedTuple):
    """A trained draft beside its target, on this device."""

    path: Path
    costs: cost.PassCosts
    accuracy: evaluate.Accuracy
    """of the draft alone"""
    speedup_alone: float
    """seconds of the target over seconds of the draft, each alone"""


def run(study: Study, *, storage: Path, replace: bool = False, verbose: bool = False) -> Path:
    """The directory of the finished study: trials, front, choice, references, curves.

    Raises:
        ConfigError: the study exists already, or something that it names does not.
        DataError: its data cannot be read.
    """
    storage = storage.resolve()  # every trial has a working directory of its own
    directory = storage / "studies" / study.name
    if directory.exists() and not replace:
        raise ConfigError(
            f"study {study.name!r} exists in {storage}: give it another name, or say --replace"
        )
    target_training = _target_training(study, storage)
    console = Console(stderr=True)
    connect()
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    provenance.atomic_write(directory / "study.yaml", _yaml(study))
    _write_json(directory / "provenance.json", provenance.collect(seed=study.seed))
    with console.status("target"):
        target = _obtain_target(study, target_training, storage, console)
    bench = _on_machine(_open_bench, study, target, machine=study.machine)
    target_accuracy = ray.get(_on_machine(_accuracy_of, bench, machine=study.machine))
    console.print(f"target {target.name}: mse {target_accuracy.mse:.4f} alone")
    optuna_study = _search(study, storage, directory, target, bench, verbose=verbose)
    rows = _confirm(study, optuna_study, bench, storage, console)
    _write_results(study, directory, rows, target, target_accuracy, storage)
    return directory


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine alone.

    A Ray of our own listens on loopback only, and so needs no token; a cluster's own settings
    are left as they are.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner comes even with verbose=0
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray.init(log_to_driver=False, logging_level=logging.ERROR)


def _target_training(study: Study, storage: Path) -> Training | Path:
    """How the target is trained, or where it is."""
    if isinstance(study.target, Training):
        return study.target
    if study.target in RECIPES:
        return recipe(study.target)
    return drafts.find(study.target, kind="target", storage=storage)


def _obtain_target(
    study: Study, training: Training | Path, storage: Path, console: Console
) -> Path:
    if isinstance(training, Path):
        return training
    directory = drafts.directory_of(training, kind="target", storage=storage)
    if not provenance.is_complete(directory):
        console.print(f"training target {directory.name}")
    work = _on_machine(
        _train,
        training,
        "target",
        storage.resolve(),
        study.machine,
        machine=study.machine,
        training=True,
    )
    ray.get(work)
    return directory


def _search(
    study: Study,
    storage: Path,
    directory: Path,
    target: Path,
    bench: Any,
    *,
    verbose: bool,
) -> optuna.Study:
    """Optuna's record of all trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    once = ray.remote(drafts.Once).options(num_cpus=0).remote()
    architecture = drafts.open_model(target).config
    searcher = _Searcher(
        {name: _distribution(dimension) for name, dimension in study.dimensions.items()},
        budget=study.budget,
        metric=list(OBJECTIVES),
        mode=list(OBJECTIVES.values()),
        sampler=optuna.samplers.TPESampler(
            seed=study.seed, n_startup_trials=study.startup_trials, multivariate=True
        ),
        storage=optuna.storages.RDBStorage(f"sqlite:///{directory / 'study.db'}"),
        study_name=study.name,
    )

    def trial(settings: dict[str, Any]) -> None:
        started = time.perf_counter()
        row: dict[str, Any] = {}
        try:
            training = study.draft_training(architecture, settings, path=target)
            rule = study.rule(settings)
            row = _judge(study, training, rule, storage, bench, once)
        except Exception as error:
            # Told to Optuna as a failure with its reason; the study goes on.
            row = {"error": str(error).strip().rsplit("\n", 1)[-1] or repr(error)}
        tune.report({**row, "seconds": time.perf_counter() - started})

    tuner = tune.Tuner(
        tune.with_resources(trial, COORDINATOR),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=study.trials,
            max_concurrent_trials=study.machine.concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=study.name,
            storage_path=str(storage / "tune"),
            verbose=1 if verbose else 0,
            callbacks=[_Bar(study.trials)],
        ),
    )
    shutil.rmtree(storage / "tune" / study.name, ignore_errors=True)
    tuner.fit()
    return searcher.record


def _judge(
    study: Study, training: Training, rule: Acceptance, storage: Path, bench: Any, once: Any
) -> dict[str, Any]:
    """The row of one trial: its draft, and what the rule makes of it."""
    path = drafts.directory_of(training, kind="draft", storage=storage)
    ray.get(
        once.get.remote(
            path.name,
            _train,
            (training, "draft", storage, study.machine),
            resources(study.machine, training=True),
        )
    )
    prepared: Prepared = ray.get(
        once.get.remote(
            f"costs of {path.name}",
            _prepare,
            (study, path, bench),
            resources(study.machine, alone=True),
        )
    )
    judged = _on_machine(_judge_pair, study, path, rule, bench, machine=study.machine)
    row: evaluate.PairRow = ray.get(judged)
    patch = training.model.patch
    speedup = evaluate.predict(
        row, prepared.costs, rule=rule, evaluation=study.evaluation, patch=patch
    )
    return {
        **{name: value for name, value in row._asdict().items() if name not in _LISTS},
        "lists": json.dumps({name: getattr(row, name) for name in _LISTS}),
        "predicted_speedup": speedup,
        "draft_key": path.name,
        "draft_mse": prepared.accuracy.mse,
        "draft_mae": prepared.accuracy.mae,
        "draft_speedup_alone": prepared.speedup_alone,
        "costs": json.dumps(asdict(prepared.costs)),
        "rule": json.dumps(asdict(rule)),
        **{name: getattr(training.model, name) for name in _ARCHITECTURE},
        "parameters": training.model.num_parameters,
    }


_LISTS = ("accept_lengths", "pass_rates")
_ARCHITECTURE = ("d_model", "n_heads", "d_ff", "n_layers", "patches_out")


class _Searcher(OptunaSearch):
    """Ray's OptunaSearch, safe for several objectives, with the budget as a constraint.

    A trial without finite objectives is told as a failure: Ray's own class ends the experiment
    over a missing one, and leaves a NaN's trial running for ever.
    """

    def __init__(self, space: dict[str, Any], *, budget: float, **options: Any) -> None:
        super().__init__(space, **options)
        self.budget = budget

    @property
    def record(self) -> optuna.Study:
        """Optuna's study."""
        study: Any = self._ot_study  # Ray annotates it as None
        return cast(optuna.Study, study)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep the row beside the trial, then tell Optuna its values or its failure."""
        trial = self._ot_trials[trial_id]
        row = {k: v for k, v in (result or {}).items() if k in _ROW}
        finite = all(math.isfinite(row.get(name, math.nan)) for name in OBJECTIVES)
        if not row.get("error") and not finite:
            row["error"] = "the trial ended without a result"
        for name, value in row.items():
            trial.set_user_attr(name, value)
        if finite:
            trial.set_constraint("mse_ratio", row["mse_ratio"] - self.budget)
        super().on_trial_complete(trial_id, result if finite else None, error or not finite)


_ROW = {
    *evaluate.PairRow._fields,
    *_ARCHITECTURE,
    *("predicted_speedup", "draft_key", "draft_mse", "draft_mae", "draft_speedup_alone"),
    *("costs", "rule", "lists", "parameters", "seconds", "error"),
}


class _Bar(tune.Callback):
    """One line of progress on standard error, with an estimate of the time left."""

    def __init__(self, trials: int) -> None:
        self.trials, self.ended = trials, 0

    def setup(self, *args: Any, **info: Any) -> None:
        """Show the bar; made here, as Tune pickles its callbacks and a bar cannot be."""
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=self.trials)
        self.progress.start()

    def __getstate__(self) -> dict[str, Any]:
        return {"trials": self.trials, "ended": self.ended}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Move the bar, and say what the trial gave."""
        if "acceptance_rate" in result:
            said = (
                f"acceptance {result['acceptance_rate']:.0%}, predicted "
                f"{result['predicted_speedup']:.2f}x, mse ratio {result['mse_ratio']:.4f}"
            )
        elif "error" in result:
            said = result["error"]
        else:
            return
        self.ended += 1
        self.progress.update(self.task, completed=self.ended, description=said)
        if not self.console.is_terminal:
            self.console.print(f"trial {self.ended}/{self.trials}: {said}", soft_wrap=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Leave the bar as it ended."""
        self.progress.stop()


def resources(machine: Machine, *, training: bool = False, alone: bool = False) -> dict[str, Any]:
    """What a task claims: its share of a node, or with `alone` all of one, or nothing.

    A training with several workers claims nothing, as Ray Train claims for each of them.
    """
    if training and machine.workers:
        return {"num_cpus": 0}
    node = int(min(n["Resources"]["CPU"] for n in ray.nodes() if n["Resources"].get("CPU")))
    share = machine.cpus or max(1, node // machine.concurrency)
    if share > node:
        raise ConfigError(f"machine.cpus is {share}: the smallest node has {node}")
    return {
        "num_cpus": node if alone else share,
        "num_gpus": 1 if train.uses_gpu(machine) else 0,
    }


def _on_machine(
    work: Callable[..., Any],
    *arguments: Any,
    machine: Machine,
    training: bool = False,
    alone: bool = False,
) -> Any:
    """The future of `work(*arguments)` as a task with what it needs."""
    claims = resources(machine, training=training, alone=alone)
    # Not in the placement group of the trial that asks: that one holds nothing to share.
    options = {"max_retries": 2, "scheduling_strategy": "DEFAULT", **claims}
    return ray.remote(work).options(**options).remote(*arguments)


# What runs on the machines: each function opens its models, does one thing, and returns plain data.


def _train(training: Training, kind: drafts.Kind, storage: Path, machine: Machine) -> None:
    examine = Examiner.of(training)
    drafts.obtain(training, kind=kind, storage=storage, machine=_share(machine), examine=examine)


def _open_bench(study: Study, target: Path) -> Bench:
    model = _open(study, target)
    windows = evaluate.draw_windows(study.evaluation, model.config)
    alone_WHC = evaluate.forecast_alone(model, windows, evaluation=study.evaluation)
    return Bench(target, windows, alone_WHC, evaluate.accuracy(alone_WHC, windows.truth_WHC))


def _accuracy_of(bench: Bench) -> evaluate.Accuracy:
    return bench.accuracy


def _prepare(study: Study, path: Path, bench: Bench) -> Prepared:
    target, draft = _open(study, bench.target), _open(study, path)
    evaluation = study.evaluation
    lookahead = study.dimensions.get("lookahead")
    longest = int(max(lookahead.ends) if lookahead else study.acceptance.get("lookahead", 4))
    alone_WHC = evaluate.forecast_alone(draft, bench.windows, evaluation=evaluation)
    return Prepared(
        path=path,
        costs=timing.calibrate(
            target, draft, bench.windows, lookahead=longest, evaluation=evaluation
        ),
        accuracy=evaluate.accuracy(alone_WHC, bench.windows.truth_WHC),
        speedup_alone=timing.time_alone(target, draft, bench.windows, evaluation=evaluation),
    )


def _judge_pair(study: Study, path: Path, rule: Acceptance, bench: Bench) -> evaluate.PairRow:
    return evaluate.judge_pair(
        _open(study, bench.target),
        _open(study, path),
        rule,
        bench.windows,
        evaluation=study.evaluation,
        alone_WHC=bench.alone_WHC,
        seed=study.seed,
    )


def _time_pairs(study: Study, path: Path, rule: Acceptance, bench: Bench) -> timing.Timing:
    return timing.time_pairs(
        _open(study, bench.target),
        _open(study, path),
        rule,
        bench.windows,
        evaluation=study.evaluation,
        pairs=study.confirm_pairs,
    )


def _open(study: Study, path: Path) -> Engine:
    """A model as it decodes, on this task's share of the machine."""
    machine = _share(study.machine)
    train.use_threads(machine.cpus)
    return evaluate.ready(checkpoint.load(path), study.evaluation, train.device_of(machine))


def _share(machine: Machine) -> Machine:
    """The machine as this task may use it: as many threads as it claimed CPUs."""
    claimed = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    share = machine.cpus or int(claimed) or None
    return machine.model_copy(update={"cpus": share})


def _distribution(
    dimension: FloatDimension | IntDimension | ChoiceDimension,
) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, ChoiceDimension):
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    kind = (
        optuna.distributions.FloatDistribution
        if isinstance(dimension, FloatDimension)
        else optuna.distributions.IntDistribution
    )
    return kind(dimension.low, dimension.high, log=dimension.log, step=dimension.step)  # type: ignore[arg-type]


def _confirm(
    study: Study, record: optuna.Study, bench: Any, storage: Path, console: Console
) -> list[dict[str, Any]]:
    """The rows of all trials, those of the front with the speedup that was measured."""
    rows = [_row(study, trial) for trial in record.get_trials(deepcopy=False)]
    front = {trial.number for trial in record.best_trials}
    for row in rows:
        row["on_front"] = row["number"] in front
    for row in (row for row in rows if row["on_front"]):
        rule = Acceptance(**json.loads(row["rule"]))
        path = storage / "drafts" / row["draft_key"]
        timed = _on_machine(
            _time_pairs, study, path, rule, bench, machine=study.machine, alone=True
        )
        measured: timing.Timing = ray.get(timed)
        row.update(measured._asdict())
        console.print(
            f"trial {row['number']}: predicted {row['predicted_speedup']:.2f}x, measured "
            f"{measured.speedup:.2f}x [{measured.speedup_low:.2f}, {measured.speedup_high:.2f}]",
            soft_wrap=True,
        )
    return rows


def _row(study: Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """One trial as a flat row: its settings, its draft, its metrics."""
    attributes = dict(trial.user_attrs)
    complete = trial.state == optuna.trial.TrialState.COMPLETE
    feasible = complete and attributes["mse_ratio"] <= study.budget
    fixed = {"scale": study.draft.scale, **study.acceptance}
    fixed |= {
        "context_policy": study.evaluation.policy.kind,
        "renorm_every": study.evaluation.policy.renorm_every,
    }
    settings = {f"settings.{k}": v for k, v in {**fixed, **trial.params}.items()}
    error = attributes.pop("error", None)
    return {
        "number": trial.number,
        "state": "complete" if complete else "failed",
        "error": error if error or complete else "the trial did not end",
        **settings,
        **attributes,
        "feasible": feasible,
    }


def _write_results(
    study: Study,
    directory: Path,
    rows: list[dict[str, Any]],
    target: Path,
    accuracy: evaluate.Accuracy,
    storage: Path,
) -> None:
    """trials.parquet, front.json, best.json, references.json and curves.parquet."""
    model = drafts.open_model(target)
    table = pd.DataFrame(rows)
    for column in ("speedup", "speedup_low", "speedup_high", "target_s", "speculation_s"):
        if column not in table:
            table[column] = math.nan
    provenance.atomic_write(directory / "trials.parquet", table.to_parquet(index=False))
    points = [_point(row) for row in rows if row["on_front"]]
    points.sort(key=lambda point: float(point["metrics"]["acceptance_rate"]))
    _write_json(directory / "front.json", points)
    feasible = [p for p in points if p["metrics"]["mse_ratio"] <= study.budget]
    if feasible:
        fastest = max(feasible, key=lambda p: (p["metrics"]["speedup"], -p["metrics"]["mse"]))
        best = {
            **fastest,
            "rule": CHOICE,
            "target": {"key": model.key, "path": os.path.relpath(target, directory)},
            "evaluation": study.evaluation.model_dump(mode="json"),
        }
        best["draft"]["path"] = os.path.relpath(
            storage / "drafts" / best["draft"]["draft_key"], directory
        )
        _write_json(directory / "best.json", best)
    trained = _distinct_drafts(rows)
    references = _references(study, model, accuracy, trained)
    _write_json(directory / "references.json", references)
    curves = [_curve(model, label="target", kind="target")]
    curves += [
        _curve(
            drafts.open_model(storage / "drafts" / row["draft_key"]),
            label=f"draft {row['settings.scale']:.2f}x",
            kind="draft",
        )
        for row in trained
    ]
    provenance.atomic_write(directory / "curves.parquet", pd.concat(curves).to_parquet(index=False))


def _point(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the front as nested settings, metrics and draft."""
    metrics = (*evaluate.PairRow._fields, "predicted_speedup", *timing.Timing._fields)
    architecture = ("draft_key", *_ARCHITECTURE, "parameters")
    return {
        "number": row["number"],
        "settings": {
            k.removeprefix("settings."): v for k, v in row.items() if k.startswith("settings.")
        },
        "acceptance": json.loads(row["rule"]),
        "metrics": {k: row[k] for k in metrics if k in row} | json.loads(row["lists"]),
        "draft": {k: row[k] for k in architecture},
    }


def _distinct_drafts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per draft that was judged, smallest first."""
    first = {row["draft_key"]: row for row in rows if row.get("draft_key")}
    return sorted(first.values(), key=lambda row: int(row["parameters"]))


def _references(
    study: Study, target: drafts.Model, accuracy: evaluate.Accuracy, trained: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the report draws beside the trials: target alone, drafts alone, the ceiling."""
    costs = [_costs(row["costs"]) for row in trained]
    patches = -(-study.evaluation.horizon // target.config.patch)
    horizon = {
        "patches": patches,
        "renorm_every": study.evaluation.policy.renorm_every,
        "batch": study.evaluation.batch,
    }
    grid = [i / (CEILING_POINTS - 1) for i in range(CEILING_POINTS)]
    return {
        "target": {
            "key": target.key,
            "parameters": target.config.num_parameters,
            **{name: getattr(target.config, name) for name in _ARCHITECTURE},
            "mse": accuracy.mse,
            "mae": accuracy.mae,
            "step_s": costs[0].step_s[-1] if costs else None,
        },
        "drafts": [
            {
                "key": row["draft_key"],
                "scale": row["settings.scale"],
                "parameters": row["parameters"],
                "mse": row["draft_mse"],
                "mae": row["draft_mae"],
                "speedup_alone": row["draft_speedup_alone"],
            }
            for row in trained
        ],
        "ceiling": [
            {"acceptance": a, "speedup": max(cost.best_speedup(c, a, **horizon) for c in costs)}
            for a in (grid if costs else [])
        ],
        "horizon": study.evaluation.horizon,
        "patch": target.config.patch,
        "batch": study.evaluation.batch,
        "budget": study.budget,
    }


def _costs(text: str) -> cost.PassCosts:
    return TypeAdapter(cost.PassCosts).validate_json(text)


def _curve(model: drafts.Model, *, label: str, kind: str) -> pd.DataFrame:
    return pd.DataFrame(model.metrics["curve"]).assign(label=label, kind=kind)


def _yaml(study: Study) -> str:
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)


def _write_json(path: Path, content: Any) -> None:
    provenance.atomic_write(path, json.dumps(content, indent=2) + "\n")
