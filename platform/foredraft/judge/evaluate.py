"""What a draft is worth to its target: accuracy and acceptance over windows, and what they predict.

    windows = draw_windows(evaluation, config)
    alone = forecast_alone(target, windows, evaluation=evaluation)
    row = judge_pair(target, draft, rule, windows, evaluation=evaluation, alone_WHC=alone)
    speedup = predict(row, costs, rule=rule, evaluation=evaluation, patch=96)

Seconds are measured in `foredraft.judge.timing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft import data
from foredraft.data.spacing import evenly_spaced
from foredraft.settings.config import Evaluation
from speculation import Acceptance, Plan, Speculation, cost, families, rollout, speculate
from speculation.forecaster import Architecture, Forecaster
from speculation.network import Network

# A forecast does not depend on how many windows are decoded together, so that many at once; but a
# rule that adapts chooses a lookahead for the whole batch, and is judged at the batch of its use.
ACCURACY_BATCH = 64

INTERVAL_WINDOWS = 8
"""Windows from which a bootstrap is worth its name: of fewer its ends are far too narrow."""
RESAMPLES = 1000


class EvaluationWindows(NamedTuple):
    """Windows of a split, standardised by the training split."""

    context_WTC: Tensor
    truth_WHC: Tensor
    observed_WHC: Tensor | None = None
    """bool, which of the truth was observed and not filled; None: all of it"""
    variates_WV: Tensor | None = None
    """int64, the variates of each, by their places in the data set; None: all of them"""

    def at(self, index_W: Tensor) -> EvaluationWindows:
        """Some of them, in that order."""
        observed_WHC = None if self.observed_WHC is None else self.observed_WHC[index_W]
        variates_WV = None if self.variates_WV is None else self.variates_WV[index_W]
        return EvaluationWindows(
            self.context_WTC[index_W], self.truth_WHC[index_W], observed_WHC, variates_WV
        )

    def errors_of(self, forecast_WHC: Tensor) -> Accuracy:
        """The errors of forecasts of them, where the truth is known."""
        return accuracy(forecast_WHC, self.truth_WHC, self.observed_WHC)

    def squares_of(self, forecast_WHC: Tensor) -> Tensor:
        """Their squared errors, summed over each window [W], float64, where the truth is known."""
        squares_WHC = (forecast_WHC.double() - self.truth_WHC.double()).square()
        if self.observed_WHC is not None:
            squares_WHC = squares_WHC.where(self.observed_WHC, 0.0)
        return squares_WHC.sum((1, 2))


class Accuracy(NamedTuple):
    """Errors on standardised data, over every step of every window."""

    mse: float
    mae: float


class Ends(NamedTuple):
    """Where 95 % of what might have been counted lie, by other windows of the same split."""

    low: float
    high: float


class PairRow(NamedTuple):
    """What one rule does with one pair of models; intervals are None of few windows."""

    acceptance_rate: float
    """accepted / proposed patches, summed before dividing"""
    accept_length: float
    """mean patches emitted per round of a sample"""
    accept_lengths: list[int]
    """rounds of a sample by patches emitted, from 0"""
    pass_rates: list[float]
    """per position, how often a proposal was accepted when all before it were"""
    mse: float
    mae: float
    mse_ratio: float
    """mse / the target's own"""
    deviation: float
    """mean squared difference between the speculative forecast and the target's own"""
    acceptance_interval: Ends | None = None
    mse_ratio_interval: Ends | None = None


def draw_windows(evaluation: Evaluation, config: Architecture) -> EvaluationWindows:
    """The windows to judge on: evenly spaced over the split, all of them where none is named.

    Raises:
        DataError: the data cannot be read, or have fewer variates than are to be forecast together,
            or the split is too short for context and horizon, or nothing was observed in what
            would be forecast.
    """
    dataset = data.load(evaluation.data, missing=evaluation.missing, reading=evaluation.reading)
    windows = dataset.windows(evaluation.split, context=config.context, horizon=evaluation.horizon)
    count = min(len(windows), evaluation.windows or len(windows))
    index_W = evenly_spaced(len(windows), count=count)
    variates_WV = _variates_of(dataset, count, evaluation)
    window_WLC = windows.batch(index_W, variates=variates_WV)
    observed_WLC = windows.observed(index_W, variates=variates_WV)
    observed_WHC = None if observed_WLC is None else observed_WLC[:, config.context :]
    if observed_WHC is not None and not observed_WHC.any():
        raise data.DataError(
            f"{evaluation.data}: all that the {count} windows of {evaluation.split} forecast was "
            "missing and filled, so that there is no truth to judge by; judge on more windows"
        )
    return EvaluationWindows(
        window_WLC[:, : config.context], window_WLC[:, config.context :], observed_WHC, variates_WV
    )


def _variates_of(dataset: data.Dataset, count: int, evaluation: Evaluation) -> Tensor | None:
    """The variates of each of so many windows, [W, V]; None for all of them."""
    there, together = len(dataset.variates), evaluation.variates
    if together is None:
        return None
    if together > there:
        raise data.DataError(
            f"variates is {together}: {evaluation.data} has {there}; ask for as many at most, or "
            "leave it out"
        )
    return taking_turns(there, together=together, count=count)


def taking_turns(variates: int, *, together: int, count: int) -> Tensor:
    """Which of the variates each of `count` groups has, int64 [count, together].

    The first has the first, the next those after, and round again.
    """
    return torch.arange(count * together).unflatten(0, (count, together)) % variates


def ready(model: Network, evaluation: Evaluation, device: torch.device) -> Forecaster:
    """The model as it decodes: of the evaluation's dtype, on the device; it stays as it is."""
    dtype = torch.bfloat16 if evaluation.dtype == "bf16" else torch.float32
    return cast(model, device=device, dtype=dtype).eval().engine()


def cast(model: Network, *, device: torch.device, dtype: torch.dtype) -> Network:
    """A model of that type on the device; it shares the weights that already are so.

    `model.to` would round the caller's own weights, for good.
    """
    with torch.device("meta"):
        twin = families.build(model.config)
    weights = {name: x.to(device=device, dtype=dtype) for name, x in model.state_dict().items()}
    twin.load_state_dict(weights, assign=True)
    return twin.train(model.training)


def forecast_alone(
    model: Forecaster, windows: EvaluationWindows, *, evaluation: Evaluation
) -> Tensor:
    """One model's own forecasts of all windows [W, H, C], on the CPU."""
    parts = [
        rollout(
            model,
            context_BTC.to(model.device),
            horizon=evaluation.horizon,
            policy=evaluation.policy,
        ).cpu()
        for context_BTC in windows.context_WTC.split(ACCURACY_BATCH)
    ]
    return torch.cat(parts)


def accuracy(
    forecast_WHC: Tensor, truth_WHC: Tensor, observed_WHC: Tensor | None = None
) -> Accuracy:
    """The errors of forecasts, summed in double precision before they are divided.

    What was not observed but filled is no truth, and is left out.
    """
    error = forecast_WHC.double() - truth_WHC.double()
    if observed_WHC is not None:
        error = error[observed_WHC]
    return Accuracy(float(error.square().mean()), float(error.abs().mean()))


def judge_pair(
    target: Forecaster,
    draft: Forecaster,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    evaluation: Evaluation,
    alone_WHC: Tensor,
    plan: Plan | None = None,
    seed: int = 0,
) -> PairRow:
    """Acceptance and accuracy of speculation over all windows.

    Args:
        target, draft: as `ready` gives them.
        rule: the acceptance rule.
        windows: to forecast.
        evaluation: horizon and context policy, and the batch at which a rule that adapts is used.
        alone_WHC: the target's own forecasts of the same windows that these are held against.
        plan: of a rule that adapts.
        seed: of the rules that draw.
    """
    runs = decode(target, draft, rule, windows, evaluation=evaluation, plan=plan, seed=seed)
    return row_of(runs, windows, alone_WHC=alone_WHC)


def decode(
    target: Forecaster,
    draft: Forecaster,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    evaluation: Evaluation,
    plan: Plan | None = None,
    seed: int = 0,
) -> list[Speculation]:
    """The speculations of all windows, a batch after the other; `judge_pair` has the arguments."""
    generator = torch.Generator(device=target.device).manual_seed(seed)
    batch = evaluation.batch if rule.adapt else ACCURACY_BATCH
    return [
        speculate(
            target,
            draft,
            context_BTC.to(target.device),
            horizon=evaluation.horizon,
            acceptance=rule,
            policy=evaluation.policy,
            plan=plan,
            generator=generator,
        )
        for context_BTC in windows.context_WTC.split(batch)
    ]


def row_of(
    runs: Sequence[Speculation], windows: EvaluationWindows, *, alone_WHC: Tensor
) -> PairRow:
    """What the speculations of all windows came to, beside the target's own forecasts."""
    forecast_WHC = forecasts_of(runs)
    errors = windows.errors_of(forecast_WHC)
    proposed_W = torch.cat([run.proposed_B for run in runs])
    accepted_W = torch.cat([run.accepted_B for run in runs])
    lengths = torch.stack([run.accept_lengths for run in runs]).sum(0)
    rounds = lengths.sum()
    return PairRow(
        acceptance_rate=int(accepted_W.sum()) / max(1, int(proposed_W.sum())),
        accept_length=float((lengths * torch.arange(len(lengths))).sum() / rounds),
        accept_lengths=lengths.tolist(),
        pass_rates=cost.pass_rates(
            torch.stack([run.tested_K for run in runs]).sum(0),
            torch.stack([run.passed_K for run in runs]).sum(0),
        ),
        mse=errors.mse,
        mae=errors.mae,
        mse_ratio=errors.mse / windows.errors_of(alone_WHC).mse,
        deviation=accuracy(forecast_WHC, alone_WHC).mse,
        acceptance_interval=interval(accepted_W, proposed_W),
        mse_ratio_interval=interval(
            windows.squares_of(forecast_WHC), windows.squares_of(alone_WHC)
        ),
    )


def forecasts_of(runs: Sequence[Speculation]) -> Tensor:
    """The forecasts of all windows [W, H, C], on the CPU."""
    return torch.cat([run.forecast_BTC.cpu() for run in runs])


def interval(above_W: Tensor, below_W: Tensor) -> Ends | None:
    """The 95 % interval of a ratio of sums over windows; None below `INTERVAL_WINDOWS`.

    The percentile bootstrap (Efron 1979): windows are drawn anew as often as there are, always by
    the same draws, and summed before they are divided. It takes windows for independent: where
    they overlap, as a short split's do, the truth is wider.
    """
    count = len(above_W)
    if count < INTERVAL_WINDOWS:
        return None
    generator = torch.Generator().manual_seed(0)
    drawn_RW = torch.randint(count, (RESAMPLES, count), generator=generator)
    times_RW = torch.zeros(RESAMPLES, count, dtype=torch.float64)
    times_RW.scatter_add_(1, drawn_RW, torch.ones_like(times_RW))
    sums_R2 = times_RW @ torch.stack((above_W, below_W), 1).double()
    ratio_R = sums_R2[:, 0] / sums_R2[:, 1]
    if not ratio_R.isfinite().all():
        return None  # nothing was proposed, or the target alone errs nowhere
    ends = torch.quantile(ratio_R, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Ends(*ends.tolist())


def predict(
    row: PairRow, costs: cost.PassCosts, *, rule: Acceptance, evaluation: Evaluation, patch: int
) -> float:
    """The speedup that the cost model predicts for what `judge_pair` counted.

    A rule that adapts is granted the best lookahead up to its own; where none pays it goes alone.
    """
    patches = -(-evaluation.horizon // patch)
    lookahead = min(rule.lookahead, len(row.pass_rates), max(1, patches - 1))
    horizon = {
        "patches": patches,
        "renorm_every": evaluation.policy.renorm_every,
        "batch": evaluation.batch,
    }
    if rule.adapt:
        return Plan(costs, tuple(row.pass_rates[:lookahead])).best(**horizon)[1]
    return cost.predicted_speedup(costs, row.pass_rates, lookahead=lookahead, **horizon)
