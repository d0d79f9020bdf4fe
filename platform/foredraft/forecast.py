"""Forecasting new data with the choice of a study.

    write_forecast(Path("runs/studies/demo/best.json"), "my.csv", out=Path("forecast.csv"))

A recipe was found on some data: at its time step, and in its units where variates go by the same
names. Data that differs in these is refused: what the study measured need not hold there.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor

from foredraft import data, drafts, evaluate, provenance, train
from foredraft.config import ConfigError, Evaluation, Machine, validated
from timer_xl import Acceptance, Engine, Plan, Speculation, checkpoint, speculate

QUANTILES = (0.1, 0.5, 0.9)
# Series drift, so a scaler is another one only where its unit is: kW for MW is a factor of 1000.
UNIT_FACTOR = 30.0
SAMPLES_AT_ONCE = 32
Progress = Callable[[int, int], None]


class Recipe(NamedTuple):
    """A choice of a study, ready to forecast."""

    target: Engine
    draft: Engine
    acceptance: Acceptance
    evaluation: Evaluation
    plan: Plan | None
    """of a rule that adapts"""
    reads: dict[str, Any]
    """patch, context, time step, variates, and their scaler"""


def write_forecast(
    recipe: Path,
    source: str,
    *,
    out: Path,
    horizon: int | None = None,
    missing: Literal["refuse", "interpolate"] = "refuse",
    samples: int = 100,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Where the forecast is and how often the draft was accepted, after writing it to `out`.

    One row per time step and variate, in the units of the data: `time`, `variate`, `mean`, and
    `q10`, `q50`, `q90` where the rule samples. The series is standardised by its own past, which
    RevIN makes equal to any other scaler of the same units.

    Args:
        recipe: best.json or knee.json of a study.
        source: file or name of the data; its last rows are the context.
        out: .csv or .parquet.
        horizon: time steps; by default the study's.
        missing: what to do about missing values.
        samples: forecasts drawn, where the rule samples.
        seed: of these.
        progress: told of forecasts done and wanted.

    Raises:
        ConfigError: the recipe or one of its models is missing, or `out` is of no known kind.
        DataError: the data cannot be read, is shorter than the context, or is of another time step
            or unit than the recipe's.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"out is {out}: its name must end in .csv or .parquet")
    train.use_threads(None)
    chosen = read_recipe(recipe)
    dataset = data.load(source, missing=missing)
    check_suits(dataset, chosen.reads, source=source)
    horizon = horizon or chosen.evaluation.horizon
    wanted = samples if chosen.acceptance.propose == "sample" else 1
    runs, values_SHC = _forecasts(chosen, dataset, horizon, wanted, seed, progress)
    _write(out, _tidy(values_SHC, dataset))
    proposed = sum(run.proposed for run in runs)
    return {
        "out": str(out),
        "horizon": horizon,
        "variates": len(dataset.variates),
        "samples": wanted,
        "acceptance_rate": sum(run.accepted for run in runs) / proposed if proposed else 0.0,
        "target_passes": sum(run.passes for run in runs),
    }


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file, with its models.

    Raises:
        ConfigError: the file or a model is missing, or the models are not those of the recipe.
    """
    choice = _read(path)
    evaluation = validated(Evaluation, choice["evaluation"], source=str(path))
    device = train.device_of(Machine())
    reads = choice["reads"]
    engines = []
    for kind in ("target", "draft"):
        model = drafts.open_model((path.parent / choice[kind]["path"]).resolve())
        for name in ("patch", "context"):
            if getattr(model.config, name) != reads[name]:
                raise ConfigError(
                    f"recipe {path}: {name} of the {kind} is {getattr(model.config, name)}, and "
                    f"the recipe was found with {reads[name]}"
                )
        engines.append(evaluate.ready(checkpoint.load(model.path), evaluation, device))
    acceptance = Acceptance(**choice["acceptance"])
    target, draft = engines
    plan = TypeAdapter(Plan | None).validate_python(choice["plan"])
    return Recipe(target, draft, acceptance, evaluation, plan, reads)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"recipe {path} does not exist: give the best.json of a study")
    try:
        choice: dict[str, Any] = json.loads(path.read_text())
        for key in ("target", "draft", "acceptance", "evaluation", "plan", "reads"):
            choice[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"recipe {path} is not the best.json of a study: {error}") from error
    return choice


def check_suits(dataset: data.Dataset, reads: dict[str, Any], *, source: str) -> None:
    """Nothing, where the recipe may be used on the data.

    Raises:
        DataError: too few rows for a context; another time step, so that a patch is another
            stretch of time; or a variate of the same name in another unit.
    """
    rows, context = len(dataset.values_TC), reads["context"]
    if rows < context:
        raise data.DataError(f"{source} has {rows} rows: the model reads a context of {context}")
    if dataset.step and reads["step"] and dataset.step != reads["step"]:
        raise data.DataError(
            f"{source} has a row every {dataset.step}: the recipe's patch is {reads['patch']} rows "
            f"of {reads['step']}; resample the data"
        )
    scaler = dict(
        zip(reads["variates"], zip(reads["mean"], reads["deviation"], strict=True), strict=True)
    )
    for index, name in enumerate(dataset.variates):
        if name in scaler:
            values_T = dataset.values_TC[-context:, index]
            _check_unit(values_T, scaler[name], what=f"{source}: {name}")


def _check_unit(values_T: np.ndarray, scaler: tuple[float, float], *, what: str) -> None:
    mean, deviation = scaler
    now_mean, now = float(values_T.mean(dtype=np.float64)), float(values_T.std(dtype=np.float64))
    ratio = now / deviation
    other_spread = now > 0 and not 1 / UNIT_FACTOR < ratio < UNIT_FACTOR
    if other_spread or abs(now_mean - mean) > UNIT_FACTOR * max(deviation, now):
        raise data.DataError(
            f"{what} has mean {now_mean:.4g} and deviation {now:.4g}: the recipe's scaler has "
            f"{mean:.4g} and {deviation:.4g}; give it in the same unit, or rename it"
        )


def _forecasts(
    recipe: Recipe,
    dataset: data.Dataset,
    horizon: int,
    wanted: int,
    seed: int,
    progress: Progress,
) -> tuple[list[Speculation], np.ndarray]:
    """The runs, and their forecasts [S, H, C] in the data's units."""
    target = recipe.target
    context_TC = torch.from_numpy(dataset.values_TC[-target.config.context :].copy())
    deviation, mean = torch.std_mean(context_TC, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    context_BTC = ((context_TC - mean) / deviation)[None].to(target.device)
    generator = torch.Generator(device=target.device).manual_seed(seed)
    runs: list[Speculation] = []
    done = 0
    while done < wanted:
        count = min(SAMPLES_AT_ONCE, wanted - done)
        runs.append(
            speculate(
                target,
                recipe.draft,
                context_BTC.repeat(count, 1, 1),
                horizon=horizon,
                acceptance=recipe.acceptance,
                policy=recipe.evaluation.policy,
                plan=recipe.plan,
                generator=generator,
            )
        )
        done += count
        progress(done, wanted)
    values_SHC: Tensor = torch.cat([run.forecast_BTC.cpu() for run in runs])
    return runs, (values_SHC * deviation + mean).numpy()


def _tidy(values_SHC: np.ndarray, dataset: data.Dataset) -> pd.DataFrame:
    """One row per time step and variate; steps are numbered where the data has no time."""
    samples, horizon, variates = values_SHC.shape
    steps: Any = range(1, horizon + 1)
    if dataset.time is not None:
        rhythm = pd.Series(dataset.time).diff().median()
        steps = [dataset.time[-1] + step * rhythm for step in steps]
    table = pd.DataFrame(
        {
            "time": list(steps) * variates,
            "variate": np.repeat(list(dataset.variates), horizon),
            "mean": values_SHC.mean(0).T.ravel(),
        }
    )
    if samples > 1:
        for share in QUANTILES:
            name = f"q{math.floor(100 * share + 0.5):02d}"
            table[name] = np.quantile(values_SHC, share, axis=0).T.ravel()
    return table


def _write(out: Path, table: pd.DataFrame) -> None:
    if out.suffix == ".csv":
        provenance.atomic_write(out, table.to_csv(index=False))
    else:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        provenance.atomic_write(out, buffer.getvalue())
