"""Forecasting new data with the choice of a study.

    write_forecast(Path("runs/studies/demo/best.json"), "my.csv", out=Path("forecast.csv"))

A recipe was found on some data: at its time step, and in its units where variates go by the same
names. Data that differs in these is refused: what the study measured need not hold there.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from foredraft import bank, buckets, data, files, train
from foredraft.data.oddities import oddities
from foredraft.data.registry import file_of
from foredraft.errors import ConfigError
from foredraft.forecast.context import Context, Reads, contexts_of
from foredraft.judge import evaluate
from foredraft.settings.config import Evaluation, Machine, Settings, validated
from foredraft.settings.rules import Rule
from speculation import Acceptance, Plan, checkpoint, rollout, speculate
from speculation.forecaster import Forecaster
from speculation.heads import Heads
from speculation.network import Network

QUANTILES = (0.1, 0.5, 0.9)
SAMPLES_AT_ONCE = 32
AS_FOUND = data.Reading()
Progress = Callable[[int, int], None]


class _Place(Settings):
    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, Field(min_length=1)]


class _Alone(Settings):
    """What a forecast needs of a best.json that recommends the target alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    choice: Literal["target alone"]
    why: Annotated[str, Field(min_length=1)]
    target: _Place
    evaluation: Evaluation
    reads: Reads


class _Choice(Settings):
    """What a forecast needs of a best.json; the study keeps more there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    choice: Literal["draft and target"] = "draft and target"
    target: _Place
    draft: _Place
    acceptance: Rule
    evaluation: Evaluation
    plan: Plan | None
    reads: Reads

    @model_validator(mode="after")
    def _holds_together(self) -> _Choice:
        if self.acceptance.adapt != (self.plan is not None):
            raise ValueError("plan goes with a rule that adapts, and only there")
        if self.plan is not None and not _is_whole(self.plan):
            raise ValueError("plan has rows of unequal length, or none: leave it as it was found")
        return self


def _is_whole(plan: Plan) -> bool:
    costs = plan.costs
    per_batch = (costs.step_s, costs.verify_s, costs.draft_s)
    anchors = (costs.step_anchor_s, costs.round_anchor_s)
    rows = {len(row) for row in (*costs.verify_s, *costs.draft_s)}
    sizes = {len(part) for part in (*per_batch, *anchors)}
    return sizes == {len(costs.batches)} != {0} and len(rows) == 1 and min(rows) >= 2


class Together(NamedTuple):
    """A draft beside its target, and by which rule."""

    draft: Forecaster
    acceptance: Acceptance
    plan: Plan | None
    """of a rule that adapts"""


class _Run(NamedTuple):
    """Forecasts of some contexts, and how they came about."""

    forecast_BTC: Tensor
    proposed: int
    accepted: int
    passes: int


class Recipe(NamedTuple):
    """A choice of a study, ready to forecast."""

    target: Forecaster
    evaluation: Evaluation
    reads: Reads
    together: Together | None
    """None where the target goes alone"""
    why_alone: str | None = None

    @property
    def draws(self) -> bool:
        """Whether one forecast differs from the next."""
        return self.together is not None and self.together.acceptance.needs == "samples"

    @property
    def at_once(self) -> int:
        """Forecasts decoded together.

        The lookahead of a rule that adapts is one for a batch, at the costs of the recipe's own.
        """
        adapts = self.together is not None and self.together.acceptance.adapt
        return self.evaluation.batch if adapts else SAMPLES_AT_ONCE


def write_forecast(
    recipe: Path,
    source: str,
    *,
    out: Path,
    horizon: int | None = None,
    missing: data.Missing = "refuse",
    reading: data.Reading = AS_FOUND,
    at: str | None = None,
    samples: int = 100,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Where the forecast is and how often the draft was accepted, after writing it to `out`.

    A recipe that recommends the target alone is forecast by it, and `alone` says why.

    One row per time step and variate, in the units of the data: `time`, `variate`, `mean`, and
    `q10`, `q50`, `q90` where the rule samples. A variate that the recipe was found on is
    standardised as it was there, another one by its own past.

    Args:
        recipe: best.json or knee.json of a study.
        source: file or name of the data; its last rows are the context.
        out: .csv or .parquet.
        horizon: time steps; by default the study's.
        missing: what to do about missing cells and rows.
        reading: how the data are to be read, where they do not tell it themselves.
        at: time of the last row of the context, of the data's zone where it names none; by default
            the data's last.
        samples: forecasts drawn, where the rule samples.
        seed: of these.
        progress: told of forecasts done and wanted.

    Raises:
        ConfigError: the recipe or one of its models is missing or damaged, the horizon is below
            1, no row is at that time, or `out` is of no known kind, is the data itself or cannot
            be written.
        DataError: the data cannot be read, or its context is too short, has holes, or is of
            another time step or unit than the recipe's.
    """
    if horizon is not None and horizon < 1:
        raise ConfigError(f"horizon is {horizon}: at least 1 step can be forecast")
    chosen = read_recipe(recipe)
    _check_out(out, source)
    dataset = data.load(source, missing=missing, reading=reading)
    contexts = contexts_of(dataset, chosen.reads, source=source, at=at)
    train.use_threads(None)
    horizon = horizon or chosen.evaluation.horizon
    wanted = samples if chosen.draws else 1
    runs, values_KSHC = _forecasts(chosen, contexts, horizon, wanted, seed, progress)
    _write(out, _tidy(values_KSHC, contexts))
    proposed = sum(run.proposed for run in runs)
    return {
        "out": str(out),
        "horizon": horizon,
        "variates": sum(len(context.variates) for context in contexts),
        "left_out": max(0, len(dataset.series) - len(contexts)),
        "step": contexts[0].step and contexts[0].step.name,
        "last": contexts[0].last and str(max(c.last for c in contexts if c.last is not None)),
        "filled": sum(context.filled for context in contexts),
        "filled_rows": sum(context.filled_rows for context in contexts),
        "samples": wanted,
        "alone": chosen.why_alone,
        "acceptance_rate": sum(run.accepted for run in runs) / proposed if proposed else 0.0,
        "target_passes": sum(run.passes for run in runs),
        "notes": [finding.told() for finding in oddities(dataset)],
    }


def _check_out(out: Path, source: str) -> None:
    """Nothing, where the forecast can be written: known before it is computed."""
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out is {out}: its name must end in .csv or .parquet")
    if out.is_dir():
        raise ConfigError(f"--out is {out}, which is a directory: name a file in it")
    file = file_of(source)
    if file is not None and out.exists() and out.samefile(file):
        raise ConfigError(f"--out is {out}, which is the data itself: name another file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"--out is {out}, which cannot be written ({error.strerror}): name a file in a "
            "directory that can"
        ) from error


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file, with its models.

    Raises:
        ConfigError: the file or a model is missing or damaged, or the models are not those of the
            recipe.
    """
    choice = _read(path)
    device = train.device_of(Machine())

    def ready(kind: str, place: _Place) -> Forecaster:
        model = _model(path, kind, place, choice.reads)
        return evaluate.ready(model, choice.evaluation, device)

    target = ready("target", choice.target)
    if isinstance(choice, _Alone):
        return Recipe(target, choice.evaluation, choice.reads, None, choice.why)
    draft = ready("draft", choice.draft)
    if isinstance(draft, Heads):
        places = (choice.target.path, choice.draft.path)
        bank.check_pair(*((path.parent / place).resolve() for place in places))
    together = Together(draft, choice.acceptance, choice.plan)
    return Recipe(target, choice.evaluation, choice.reads, together)


def reads_of(path: Path) -> Reads:
    """In which steps and units the data came on which a recipe was found; no model is loaded.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    return _read(path).reads


def _read(path: Path) -> _Choice | _Alone:
    if not path.is_file():
        raise ConfigError(f"recipe {path} is no file: give the best.json of a study")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"recipe {path} is not JSON ({error}): give the best.json of a study"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} is no mapping: give the best.json of a study")
    if content.get("choice") == "target alone":
        return validated(_Alone, content, source=f"recipe {path}")
    return validated(_Choice, content, source=f"recipe {path}")


def _model(recipe: Path, kind: str, place: _Place, reads: Reads) -> Network:
    """A model of the recipe, which names it from where the recipe itself lies."""
    path = (recipe.parent / place.path).resolve()
    if not files.is_complete(path):
        buckets.fetch(path)
    if not files.is_complete(path):
        raise ConfigError(
            f"recipe {recipe}: its {kind} is not at {path}: a recipe leads to its models from its "
            "study's directory; use it there, or move the whole storage"
        )
    model = checkpoint.load(path)
    for name in ("patch", "context"):
        if getattr(model.config, name) != getattr(reads, name):
            raise ConfigError(
                f"recipe {recipe}: {name} of the {kind} is {getattr(model.config, name)}, and "
                f"the recipe was found with {getattr(reads, name)}"
            )
    return model


def _forecasts(
    recipe: Recipe,
    contexts: list[Context],
    horizon: int,
    wanted: int,
    seed: int,
    progress: Progress,
) -> tuple[list[_Run], np.ndarray]:
    """The runs, and the forecasts of each context [K, S, H, C] in the data's units."""
    target = recipe.target
    scaled, scalers = [], []
    for context in contexts:
        values_TC = torch.from_numpy(context.values_TC)
        scalers.append(scaler := _scaler(values_TC, context.variates, recipe.reads))
        scaled.append(((values_TC - scaler[0]) / scaler[1]).float())
    variates = len(contexts[0].variates)
    together = min(variates, recipe.evaluation.variates or variates)
    groups = -(-variates // together)
    # The last group goes round to the first variates again; what is forecast twice is cut off.
    group_GV = evaluate.taking_turns(variates, together=together, count=groups)
    context_KGTV = torch.stack(scaled)[:, :, group_GV].transpose(1, 2)
    context_ATV = context_KGTV.flatten(0, 1)
    generator = torch.Generator(device=target.device).manual_seed(seed)
    runs: list[_Run] = []
    done = 0
    total = wanted * len(context_ATV)
    while done < total:
        count = min(recipe.at_once, total - done)
        index_B = torch.arange(done, done + count) // wanted
        context_BTC = context_ATV[index_B].to(target.device)
        runs.append(_run(recipe, context_BTC, horizon=horizon, generator=generator))
        done += count
        progress(done, total)
    values_BHC = torch.cat([run.forecast_BTC.cpu() for run in runs])
    mean_KC, deviation_KC = (torch.stack(part) for part in zip(*scalers, strict=True))
    values_KGSHV = values_BHC.unflatten(0, (len(contexts), groups, wanted))
    values_KSHGV = values_KGSHV.permute(0, 2, 3, 1, 4)
    values_KSHC = values_KSHGV.flatten(3)[..., :variates]
    values_KSHC = values_KSHC * deviation_KC[:, None, None] + mean_KC[:, None, None]
    return runs, values_KSHC.float().numpy()


def _run(recipe: Recipe, context_BTC: Tensor, *, horizon: int, generator: torch.Generator) -> _Run:
    """The forecasts of some contexts, by draft and target or by the target alone."""
    policy = recipe.evaluation.policy
    if recipe.together is None:
        forecast_BTC = rollout(recipe.target, context_BTC, horizon=horizon, policy=policy)
        patches = -(-horizon // recipe.reads.patch)
        return _Run(forecast_BTC, proposed=0, accepted=0, passes=patches)
    told = speculate(
        recipe.target,
        recipe.together.draft,
        context_BTC,
        horizon=horizon,
        acceptance=recipe.together.acceptance,
        policy=policy,
        plan=recipe.together.plan,
        generator=generator,
    )
    return _Run(told.forecast_BTC, told.proposed, told.accepted, told.passes)


def _scaler(values_TC: Tensor, variates: tuple[str, ...], reads: Reads) -> tuple[Tensor, Tensor]:
    """Mean and deviation [C]: the recipe's where it knows the variate, else of the context.

    RevIN makes all scalers equal but for its epsilon, which counts where a window is calm.
    """
    deviation_C, mean_C = torch.std_mean(values_TC, dim=0, correction=0)
    deviation_C = torch.where(deviation_C > 0, deviation_C, 1.0)
    for index, name in enumerate(variates):
        if name in reads.scaler:
            mean_C[index], deviation_C[index] = reads.scaler[name]
    return mean_C, deviation_C


def _tidy(values_KSHC: np.ndarray, contexts: list[Context]) -> pd.DataFrame:
    """One row per time step and variate; steps are numbered where the data has no time."""
    parts = [_rows(*one) for one in zip(values_KSHC, contexts, strict=True)]
    return pd.concat(parts, ignore_index=True)


def _rows(values_SHC: np.ndarray, context: Context) -> pd.DataFrame:
    samples, horizon, variates = values_SHC.shape
    axis = context.axis(horizon)
    table = pd.DataFrame(
        {
            "time": axis.take(np.tile(np.arange(horizon), variates)),
            "variate": np.repeat(list(context.variates), horizon),
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
        files.atomic_write(out, table.to_csv(index=False))
    else:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        files.atomic_write(out, buffer.getvalue())
