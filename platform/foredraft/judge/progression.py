"""The ladder of draft quality: every rung trained, judged and timed beside its target.

    directory = climb(ladder_of("etth1"), storage=Path("runs"), machine=Machine(), say=print)

Every rung is told twice: as speculation under the strict rule, and as the draft alone, without its
target. Where the draft alone is as accurate, no speculation pays, and the ladder says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foredraft import bank, buckets, files, provenance, train
from foredraft.judge import evaluate, timing, yardstick
from foredraft.judge.examine import DEFAULT_TOLERANCE, Examiner, default_rule
from foredraft.settings.config import Evaluation, Machine, Training, validated
from foredraft.settings.ladders import Ladder, Rung
from foredraft.settings.recipes import RECIPES, recipe
from speculation import Acceptance, Gaussian, Tolerance, checkpoint
from speculation.forecaster import Architecture, Forecaster
from speculation.heads import HeadsConfig, by_itself

Say = Callable[[str], None]
Row = dict[str, Any]

FILE = "ladder.json"
STRICT = Tolerance(mse_tol=DEFAULT_TOLERANCE)
# The setting of the study that this project grew from: it accepts nearly everything.
LENIENT = Gaussian(sigma=10.0, bias=100.0, mse_tol=50.0)


class Judged(NamedTuple):
    """The windows of one horizon, and the target's own forecasts of them."""

    evaluation: Evaluation
    windows: evaluate.EvaluationWindows
    alone_WHC: torch.Tensor


def climb(
    ladder: Ladder, *, storage: Path, machine: Machine, say: Say, log: train.Log | None = None
) -> Path:
    """The directory of the finished ladder: its configuration, rows and provenance.

    Raises:
        DataError: its data cannot be read, or are too short.
        ConfigError: the target does not exist, or a scale cannot be built.
    """
    storage = storage.resolve()
    _refuse_hopeless(ladder, storage=storage, machine=machine)
    target_path = _target(ladder, storage=storage, machine=machine, say=say, log=log)
    paths = [
        _draft(ladder, rung, target_path, storage=storage, machine=machine, say=say, log=log)
        for rung in ladder.rungs
    ]
    # All are trained before the first is timed: nothing else runs in this process then.
    train.use_threads(machine.cpus)
    # Rungs are judged in this process, on what it has; its workers may have another device.
    device = train.device_of(machine.model_copy(update={"device": None}))
    target = evaluate.ready(checkpoint.load(target_path), ladder.evaluation, device)
    judged = [_judged(target, e) for e in _evaluations(ladder.evaluation, target.config)]
    rows = [_target_row(target, target_path, judged), _naive_row(target, judged)]
    for rung, path in zip(ladder.rungs, paths, strict=True):
        say(f"judging {rung.name}")
        draft = evaluate.ready(checkpoint.load(path), ladder.evaluation, device)
        rows += _rung_rows(ladder, rung.name, target, draft, path, judged)
    return _write(ladder, rows, directory=storage / "progressions" / ladder.name)


def _refuse_hopeless(ladder: Ladder, *, storage: Path, machine: Machine) -> None:
    """Nothing; raises where a rung or its judging would fail, before anything is trained."""
    workers = max(1, machine.workers)
    if ladder.target in RECIPES:
        training = _target_training(ladder)
        train.checked(training, workers=workers)
        config = training.model
    else:
        config = bank.open_model(_found_target(ladder, storage=storage)).config
    for rung in ladder.rungs:
        for scale in rung.sizes:
            train.checked(_training(ladder, rung, scale, config, target=""), workers=workers)
    evaluate.draw_windows(ladder.evaluation, config)


def _target(
    ladder: Ladder, *, storage: Path, machine: Machine, say: Say, log: train.Log | None
) -> Path:
    if ladder.target not in RECIPES:
        return _found_target(ladder, storage=storage)
    say(f"target {ladder.target}")
    training = _target_training(ladder)
    return bank.obtain(training, kind="target", storage=storage, machine=machine, log=log)


def _target_training(ladder: Ladder) -> Training:
    return recipe(ladder.target).model_copy(update={"seed": ladder.seed})


def _found_target(ladder: Ladder, *, storage: Path) -> Path:
    return bank.find(ladder.target, kind="target", storage=storage).resolve()


def _draft(
    ladder: Ladder,
    rung: Rung,
    target: Path,
    *,
    storage: Path,
    machine: Machine,
    say: Say,
    log: train.Log | None,
) -> Path:
    """The draft of a rung: of several scales the one whose proposals are accepted most."""
    config = bank.open_model(target).config
    candidates = []
    for scale in rung.sizes:
        say(f"training {rung.name}" + (f": {scale}x" if len(rung.scales) > 1 else ""))
        training = _training(ladder, rung, scale, config, target=str(target))
        candidates.append(
            bank.obtain(
                training,
                kind="draft",
                storage=storage,
                machine=machine,
                log=log,
                examine=Examiner.of(training),
            )
        )
    return max(candidates, key=lambda path: _accepted(path))


def _training(
    ladder: Ladder, rung: Rung, scale: float | None, config: Architecture, *, target: str
) -> Training:
    """How one draft of a rung is trained for a target of that architecture and directory."""
    model = (
        HeadsConfig.of(config, patches_out=rung.patches_out)
        if scale is None
        else config.scaled(scale, patches_out=rung.patches_out)
    )
    content = {
        "model": model,
        "stages": rung.stages,
        "target": target,
        "seed": ladder.seed,
        "dtype": ladder.dtype,
    }
    return validated(Training, content, source=f"rung {rung.name}")


def _accepted(path: Path) -> float:
    return float(bank.open_model(path).metrics["acceptance_rate"])


def _evaluations(longer: Evaluation, config: Architecture) -> Iterator[Evaluation]:
    """One patch ahead, and as far as the ladder looks."""
    yield longer.model_copy(update={"horizon": config.patch})
    yield longer


def _judged(target: Forecaster, evaluation: Evaluation) -> Judged:
    windows = evaluate.draw_windows(evaluation, target.config)
    alone_WHC = evaluate.forecast_alone(target, windows, evaluation=evaluation)
    return Judged(evaluation, windows, alone_WHC)


def _target_row(target: Forecaster, path: Path, judged: list[Judged]) -> Row:
    errors = [part.windows.errors_of(part.alone_WHC) for part in judged]
    return {"rung": "target", "way": "target", **_model(target, path), **_errors(judged, errors)}


def _naive_row(target: Forecaster, judged: list[Judged]) -> Row:
    """What it costs nothing to say, on the same windows."""
    errors = [
        yardstick.seasonal_naive(
            part.windows, season=yardstick.season_of(part.evaluation, target.config)
        )
        for part in judged
    ]
    told = [evaluate.Accuracy(error.mse, error.mae) for error in errors]
    return {
        "rung": f"season {errors[-1].season}",
        "way": "seasonal naive",
        "key": "",
        "parameters": 0,
        **_errors(judged, told),
        "mse_ratio": errors[-1].mse / judged[-1].windows.errors_of(judged[-1].alone_WHC).mse,
    }


def _rung_rows(
    ladder: Ladder,
    name: str,
    target: Forecaster,
    draft: Forecaster,
    path: Path,
    judged: list[Judged],
) -> Iterator[Row]:
    """The rung's draft with its target, then without it."""
    strict = default_rule(draft.config)
    lenient = replace(LENIENT, lookahead=strict.lookahead)
    about = {"rung": name, **_model(draft, path)}
    *_, far = judged
    pairs = [_judge(target, draft, strict, part, seed=ladder.seed) for part in judged]
    own = far.windows.errors_of(far.alone_WHC).mse
    timed = timing.time_pairs(
        target, draft, strict, far.windows, evaluation=far.evaluation, pairs=ladder.pairs
    ).timing
    yield {
        **about,
        "way": "speculation",
        **_errors(judged, [evaluate.Accuracy(pair.mse, pair.mae) for pair in pairs]),
        "acceptance_lenient": _judge(target, draft, lenient, far, seed=ladder.seed).acceptance_rate,
        "acceptance_strict": pairs[-1].acceptance_rate,
        "accept_length": pairs[-1].accept_length,
        "mse_ratio": pairs[-1].mse_ratio,
        "deviation": pairs[-1].deviation,
        "deviation_ratio": pairs[-1].deviation / own,
        **timed._asdict(),
    }
    unverified = by_itself(draft, target=target)
    forecasts = [
        evaluate.forecast_alone(unverified, part.windows, evaluation=part.evaluation)
        for part in judged
    ]
    errors = [
        part.windows.errors_of(forecast_WHC)
        for forecast_WHC, part in zip(forecasts, judged, strict=True)
    ]
    deviation = evaluate.accuracy(forecasts[-1], far.alone_WHC).mse
    yield {
        **about,
        "way": "draft alone",
        **_errors(judged, errors),
        "mse_ratio": errors[-1].mse / own,
        "deviation": deviation,
        "deviation_ratio": deviation / own,
        "speedup": timing.time_alone(target, draft, far.windows, evaluation=far.evaluation),
    }


def _judge(
    target: Forecaster, draft: Forecaster, rule: Acceptance, judged: Judged, *, seed: int
) -> evaluate.PairRow:
    return evaluate.judge_pair(
        target,
        draft,
        rule,
        judged.windows,
        evaluation=judged.evaluation,
        alone_WHC=judged.alone_WHC,
        seed=seed,
    )


def _model(model: Forecaster, path: Path) -> Row:
    """The effective architecture."""
    names = ("d_model", "n_heads", "d_ff", "n_layers", "hidden", "patches_out")
    architecture = {name: getattr(model.config, name, None) for name in names}
    return {"key": path.name, **architecture, "parameters": model.config.num_parameters}


def _errors(judged: list[Judged], errors: list[evaluate.Accuracy]) -> Row:
    """Errors by horizon: `near` is one patch, `far` the ladder's horizon."""
    named = zip(("near", "far"), judged, errors, strict=True)
    return {
        f"{name}_{field}": value
        for name, part, error in named
        for field, value in {"horizon": part.evaluation.horizon, **error._asdict()}.items()
    }


def _write(ladder: Ladder, rows: list[Row], *, directory: Path) -> Path:
    content = {
        "ladder": ladder.model_dump(mode="json"),
        "rules": {"strict": asdict(STRICT), "lenient": asdict(LENIENT)},
        "rows": rows,
        "provenance": provenance.collect(seed=ladder.seed),
    }
    files.atomic_write(directory / FILE, json.dumps(content, indent=2) + "\n")
    buckets.keep(directory)
    return directory
