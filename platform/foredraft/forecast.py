"""Forecasting new data with the choice of a study.

write_forecast(Path("runs/studies/demo/best.json"), "my.csv", out=Path("forecast.csv"))
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from foredraft import data, drafts, evaluate, provenance, train
from foredraft.config import ConfigError, Evaluation, Machine, validated
from timer_xl import Acceptance, checkpoint, speculate


def write_forecast(
    recipe: Path,
    source: str,
    *,
    out: Path,
    horizon: int | None = None,
    missing: Literal["refuse", "interpolate"] = "refuse",
    seed: int = 0,
) -> dict[str, Any]:
    """Where the forecast is and how often the draft was accepted, after writing it to `out`.

    One row per time step and variate, in the units of the data: `time`, `variate`, `mean`. The
    series is standardised by its own past, which RevIN makes equal to any other scaler.

    Raises:
        ConfigError: the recipe or one of its models is missing, or `out` is of no known kind.
        DataError: the data cannot be read, or is shorter than the context.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"out is {out}: its name must end in .csv or .parquet")
    choice = _read(recipe)
    paths = [(recipe.parent / choice[kind]["path"]).resolve() for kind in ("target", "draft")]
    evaluation = validated(Evaluation, choice["evaluation"], source=str(recipe))
    horizon = horizon or evaluation.horizon
    dataset = data.load(source, missing=missing)
    train.use_threads(None)
    device = train.device_of(Machine())
    target, draft = (
        evaluate.ready(checkpoint.load(drafts.open_model(path).path), evaluation, device)
        for path in paths
    )
    rows = len(dataset.values_TC)
    if rows < target.config.context:
        raise data.DataError(
            f"{source} has {rows} rows: the model reads a context of {target.config.context}"
        )
    context_TC = torch.from_numpy(dataset.values_TC[-target.config.context :].copy())
    deviation, mean = torch.std_mean(context_TC, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    run = speculate(
        target,
        draft,
        ((context_TC - mean) / deviation)[None].to(device),
        horizon=horizon,
        acceptance=Acceptance(**choice["acceptance"]),
        policy=evaluation.policy,
        generator=torch.Generator(device=device).manual_seed(seed),
    )
    values_HC = run.forecast_BTC[0].cpu() * deviation + mean
    _write(out, _tidy(values_HC.numpy(), dataset))
    return {
        "out": str(out),
        "horizon": horizon,
        "variates": len(dataset.variates),
        "acceptance_rate": run.acceptance_rate,
        "target_passes": run.passes,
    }


def _read(recipe: Path) -> dict[str, Any]:
    if not recipe.is_file():
        raise ConfigError(f"recipe {recipe} does not exist: give the best.json of a study")
    try:
        choice: dict[str, Any] = json.loads(recipe.read_text())
        for key in ("target", "draft", "acceptance", "evaluation"):
            choice[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"recipe {recipe} is not the best.json of a study: {error}") from error
    return choice


def _tidy(values_HC: Any, dataset: data.Dataset) -> pd.DataFrame:
    """One row per time step and variate; steps are numbered where the data has no time."""
    steps: Any = range(1, len(values_HC) + 1)
    if dataset.time is not None:
        rhythm = pd.Series(dataset.time).diff().median()
        steps = [dataset.time[-1] + step * rhythm for step in steps]
    wide = pd.DataFrame(values_HC, columns=list(dataset.variates))
    wide.insert(0, "time", steps)
    return wide.melt(id_vars="time", var_name="variate", value_name="mean")


def _write(out: Path, table: pd.DataFrame) -> None:
    if out.suffix == ".csv":
        provenance.atomic_write(out, table.to_csv(index=False))
    else:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        provenance.atomic_write(out, buffer.getvalue())
