"""What a draft is worth to its target: accuracy, acceptance, and seconds.

    windows = draw_windows(evaluation, config)
    row = judge_pair(target, draft, rule, windows, alone=forecast_alone(target, windows, ...), ...)
    costs = calibrate(target, draft, windows, rule=rule, evaluation=evaluation)
    timing = time_pairs(target, draft, rule, windows, evaluation=evaluation)

Accuracy and acceptance are counted over windows; seconds are measured here and nowhere else. The
calibration times single passes, from which `timer_xl.cost` predicts; the timing runs target and
speculation in turn on the same windows, so that a machine that drifts spoils both alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft import data
from foredraft.config import Evaluation
from timer_xl import (
    Acceptance,
    ContextPolicy,
    Engine,
    Speculation,
    TimerXL,
    TimerXLConfig,
    cost,
    rollout,
    speculate,
)
from timer_xl.decode import Pair

# Accuracy does not depend on how many windows are decoded together, so that many at once.
ACCURACY_BATCH = 64
CALIBRATION_REPEATS = 7


class EvaluationWindows(NamedTuple):
    """Windows of a split, standardised by the training split."""

    context_WTC: Tensor
    truth_WHC: Tensor


class Accuracy(NamedTuple):
    """Errors on standardised data, over every step of every window."""

    mse: float
    mae: float


class PairRow(NamedTuple):
    """What one rule does with one pair of models."""

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
    """mse / the target's own under the same context policy"""
    deviation: float
    """mean squared difference between the speculative forecast and the target's own"""


class Timing(NamedTuple):
    """A measured speedup: the median over pairs, with its 95 % interval."""

    speedup: float
    speedup_low: float
    speedup_high: float
    target_s: float
    """median seconds of the target alone"""
    speculation_s: float
    pairs: int


def draw_windows(evaluation: Evaluation, config: TimerXLConfig) -> EvaluationWindows:
    """The windows to judge on: evenly spaced over the split, all of them where none is named.

    Raises:
        DataError: the data cannot be read, or the split is too short for context and horizon.
    """
    dataset = data.load(evaluation.data, missing=evaluation.missing)
    windows = dataset.windows(evaluation.split, context=config.context, horizon=evaluation.horizon)
    count = min(len(windows), evaluation.windows or len(windows))
    index_W = torch.linspace(0, len(windows) - 1, count).long()
    window_WLC = windows.batch(index_W)
    return EvaluationWindows(window_WLC[:, : config.context], window_WLC[:, config.context :])


def ready(model: TimerXL, evaluation: Evaluation, device: torch.device) -> Engine:
    """The model as it decodes: of the evaluation's dtype, on the device."""
    dtype = torch.bfloat16 if evaluation.dtype == "bf16" else torch.float32
    return Engine(model.to(device=device, dtype=dtype))


def forecast_alone(model: Engine, windows: EvaluationWindows, *, evaluation: Evaluation) -> Tensor:
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


def accuracy(forecast_WHC: Tensor, truth_WHC: Tensor) -> Accuracy:
    """The errors of forecasts, summed in double precision before they are divided."""
    error = forecast_WHC.double() - truth_WHC.double()
    return Accuracy(float(error.square().mean()), float(error.abs().mean()))


def judge_pair(
    target: Engine,
    draft: Engine,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    evaluation: Evaluation,
    alone_WHC: Tensor,
    seed: int = 0,
) -> PairRow:
    """Acceptance and accuracy of speculation over all windows.

    Args:
        target, draft: as `ready` gives them.
        rule: the acceptance rule.
        windows: to forecast.
        evaluation: horizon and context policy.
        alone_WHC: the target's own forecasts of the same windows.
        seed: of the rules that draw.
    """
    generator = torch.Generator(device=target.device).manual_seed(seed)
    runs = [
        speculate(
            target,
            draft,
            context_BTC.to(target.device),
            horizon=evaluation.horizon,
            acceptance=rule,
            policy=evaluation.policy,
            generator=generator,
        )
        for context_BTC in windows.context_WTC.split(ACCURACY_BATCH)
    ]
    forecast_WHC = torch.cat([run.forecast_BTC.cpu() for run in runs])
    errors = accuracy(forecast_WHC, windows.truth_WHC)
    lengths = torch.stack([run.accept_lengths for run in runs]).sum(0)
    rounds = lengths.sum()
    return PairRow(
        acceptance_rate=_rate(runs),
        accept_length=float((lengths * torch.arange(len(lengths))).sum() / rounds),
        accept_lengths=lengths.tolist(),
        pass_rates=cost.pass_rates(
            torch.stack([run.tested_K for run in runs]).sum(0),
            torch.stack([run.passed_K for run in runs]).sum(0),
        ),
        mse=errors.mse,
        mae=errors.mae,
        mse_ratio=errors.mse / accuracy(alone_WHC, windows.truth_WHC).mse,
        deviation=accuracy(forecast_WHC, alone_WHC).mse,
    )


def _rate(runs: list[Speculation]) -> float:
    proposed = sum(run.proposed for run in runs)
    return sum(run.accepted for run in runs) / proposed if proposed else 0.0


def predict(
    row: PairRow, costs: cost.PassCosts, *, rule: Acceptance, evaluation: Evaluation, patch: int
) -> float:
    """The speedup that the cost model predicts for what `judge_pair` counted."""
    patches = -(-evaluation.horizon // patch)
    return cost.predicted_speedup(
        costs,
        row.pass_rates,
        lookahead=min(rule.lookahead, len(row.pass_rates), max(1, patches - 1)),
        patches=patches,
        renorm_every=evaluation.policy.renorm_every,
        batch=evaluation.batch,
    )


def calibrate(
    target: Engine,
    draft: Engine,
    windows: EvaluationWindows,
    *,
    lookahead: int,
    evaluation: Evaluation,
) -> cost.PassCosts:
    """Seconds of every pass of a round, and of a step of the target alone, on this device.

    Batches smaller than the evaluation's are timed too: samples that are done leave.
    """
    sizes = sorted({1, *(4**i for i in range(1, 5) if 4**i < evaluation.batch), evaluation.batch})
    patches = -(-evaluation.horizon // target.config.patch)
    lookahead = min(lookahead, max(1, patches - 1))
    columns = [
        _calibrate_batch(
            target,
            draft,
            _contexts(windows, size, target.device),
            lookahead=lookahead,
            patches=patches,
            policy=evaluation.policy,
        )
        for size in sizes
    ]
    step_s, verify_s, draft_s, step_anchor_s, round_anchor_s = zip(*columns, strict=True)
    return cost.PassCosts(tuple(sizes), step_s, verify_s, draft_s, step_anchor_s, round_anchor_s)


def _calibrate_batch(
    target: Engine,
    draft: Engine,
    context_BTC: Tensor,
    *,
    lookahead: int,
    patches: int,
    policy: ContextPolicy,
) -> tuple[float, tuple[float, ...], tuple[float, ...], float, float]:
    """Step, verify per k, draft per k, and the two anchors' seconds, at one batch size."""
    # A draft that is never rejected brings every pass to its full length.
    rule = Acceptance(mse_tol=1e30, lookahead=lookahead)
    size, patch = len(context_BTC), target.config.patch

    def first_steps(count: int) -> Callable[[], object]:
        return lambda: rollout(target, context_BTC, horizon=count * patch, policy=policy)

    # The first step of a window also encodes it; the difference of two lengths is pure steps.
    span = min(patches, policy.renorm_every or patches)
    one, many = _seconds(first_steps(1), target), _seconds(first_steps(span), target)
    step_s = (many - one) / (span - 1) if span > 1 else one
    step_anchor_s = max(0.0, one - step_s)

    with torch.no_grad():
        draft_s, verify_s, anchored_s = [], [], 0.0
        for count in range(lookahead + 1):
            limit_B = torch.full((size,), count)
            drafting, verifying, anchored = [], [], []
            for _ in range(CALIBRATION_REPEATS):
                pair = Pair(
                    target, draft, context_BTC, patches=patches, acceptance=rule, policy=policy
                )
                for round_index in range(2):
                    started = _now(target)
                    pair.begin_round()
                    proposal, drafted = pair.propose(count)
                    proposed = _now(target)
                    pair.verify(proposal, drafted, limit_B=limit_B)
                    verified = _now(target)
                    if round_index == 0:
                        anchored.append(verified - started)
                drafting.append(proposed - started)
                verifying.append(verified - proposed)
            draft_s.append(statistics.median(drafting))
            verify_s.append(statistics.median(verifying))
            anchored_s = statistics.median(anchored)
    # `anchored_s` is now the first round at the full lookahead.
    round_anchor_s = max(0.0, anchored_s - draft_s[-1] - verify_s[-1])
    if policy.kind == "sliding":
        step_anchor_s = round_anchor_s = 0.0
    return step_s, tuple(verify_s), tuple(draft_s), step_anchor_s, round_anchor_s


def time_pairs(
    target: Engine,
    draft: Engine,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    evaluation: Evaluation,
    pairs: int,
) -> Timing:
    """The measured speedup: target and speculation in turn, on the same windows, after warm-up."""
    horizon, policy = evaluation.horizon, evaluation.policy
    batches = _batches(windows, evaluation.batch, target.device)
    generator = torch.Generator(device=target.device).manual_seed(0)

    def alone(context_BTC: Tensor) -> float:
        return _rollout_seconds(target, context_BTC, evaluation)

    def together(context_BTC: Tensor) -> float:
        return _seconds_once(
            lambda: speculate(
                target,
                draft,
                context_BTC,
                horizon=horizon,
                acceptance=rule,
                policy=policy,
                generator=generator,
            ),
            target,
        )

    for _ in range(2):
        alone(batches[0])
        together(batches[0])
    seconds: list[tuple[float, float]] = []
    for index in range(pairs):
        context_BTC = batches[index % len(batches)]
        # Whoever goes second finds warmer caches: they take turns at it.
        if index % 2 == 0:
            seconds.append((alone(context_BTC), together(context_BTC)))
        else:
            seconds.append((together(context_BTC), alone(context_BTC))[::-1])
    ratios = sorted(a / b for a, b in seconds)
    low, high = median_interval(len(ratios))
    return Timing(
        speedup=statistics.median(ratios),
        speedup_low=ratios[low],
        speedup_high=ratios[high],
        target_s=statistics.median(a for a, _ in seconds),
        speculation_s=statistics.median(b for _, b in seconds),
        pairs=pairs,
    )


def time_alone(
    target: Engine, draft: Engine, windows: EvaluationWindows, *, evaluation: Evaluation
) -> float:
    """Seconds of the target alone over seconds of the draft alone, in turn on the same windows."""
    context_BTC = _contexts(windows, evaluation.batch, target.device)
    pair, ratios = (target, draft), []
    for index in range(CALIBRATION_REPEATS + 1):
        target_s, draft_s = (_rollout_seconds(model, context_BTC, evaluation) for model in pair)
        if index:  # the first pair warms up
            ratios.append(target_s / draft_s)
    return statistics.median(ratios)


def median_interval(count: int) -> tuple[int, int]:
    """Indices into `count` sorted values that enclose their median with 95 % confidence.

    By the binomial distribution of how many values lie below the true median (normal
    approximation); no assumption about the values.
    """
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor(count / 2 - reach))
    return low, count - 1 - low


def _batches(windows: EvaluationWindows, size: int, device: torch.device) -> list[Tensor]:
    """Full batches of contexts; windows are repeated where there are fewer than one batch."""
    whole = [part for part in windows.context_WTC.split(size) if len(part) == size]
    return [part.to(device) for part in whole] or [_contexts(windows, size, device)]


def _contexts(windows: EvaluationWindows, size: int, device: torch.device) -> Tensor:
    repeats = -(-size // len(windows.context_WTC))
    return windows.context_WTC.repeat(repeats, 1, 1)[:size].to(device)


def _seconds(run: Callable[[], object], model: Engine) -> float:
    """Median seconds of a few runs after a warm-up."""
    run()
    return statistics.median(_seconds_once(run, model) for _ in range(CALIBRATION_REPEATS))


def _rollout_seconds(model: Engine, context_BTC: Tensor, evaluation: Evaluation) -> float:
    horizon, policy = evaluation.horizon, evaluation.policy
    return _seconds_once(lambda: rollout(model, context_BTC, horizon=horizon, policy=policy), model)


def _seconds_once(run: Callable[[], object], model: Engine) -> float:
    started = _now(model)
    run()
    return _now(model) - started


def _now(model: Engine) -> float:
    """The clock, once the device has done all it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
