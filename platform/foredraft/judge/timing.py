"""Seconds, measured honestly: here and nowhere else.

    costs = calibrate(target, draft, windows, lookahead=7, evaluation=evaluation)
    timing = time_pairs(target, draft, rule, windows, evaluation=evaluation, pairs=20).timing

The calibration times single passes, from which `speculation.cost` predicts. A timing runs target
alone and speculation in turn on the same windows, so that a machine that drifts spoils both alike;
the ratio is taken pair by pair.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Evaluation
from speculation import Acceptance, ContextPolicy, Plan, Tolerance, cost, rollout, speculate
from speculation.decode import Pair
from speculation.forecaster import Forecaster
from speculation.heads import Heads, by_itself
from speculation.history import alike

# A second of a shared machine is not like the next: medians need some seconds to settle.
CALIBRATION_REPEATS = 45
CALIBRATION_S = 3.0  # after which a batch size is left at 3 repeats or more
STEPS_IN_A_ROW = 5
LOOKS = 3  # of which a step's median is taken, where it is only to be checked
ALONE_PAIRS = 7
# Passes of new shapes are compiled when they are first met, for some milliseconds each.
WARM_UP_S = 1.0
PAIR_S = 0.3
"""Seconds that a pair lasts at least. What takes milliseconds is done several times in a row, each
on other windows: or one window's luck, and one interruption, would be the pair's."""
MOST_IN_A_ROW = 16

INTERVAL_PAIRS = 6
"""Pairs from which a median has a 95 % interval: of five, the whole range misses it in 6 %."""
MISSED = 0.025
"""How often the true median may lie below an interval, and above it."""


class Ratio(NamedTuple):
    """A ratio of two runs' seconds: the median over pairs, with its 95 % interval."""

    median: float
    low: float | None
    """None, as the other end, of fewer than `INTERVAL_PAIRS` pairs"""
    high: float | None
    spread: float
    """how wide the interval is, or the range of pairs that are too few, as a share of the median"""


class Timing(NamedTuple):
    """A measured speedup: the median over pairs, with its interval as in `Ratio`."""

    speedup: float
    speedup_low: float | None
    speedup_high: float | None
    target_s: float
    """median seconds of the target alone"""
    speculation_s: float
    pairs: int
    speedup_spread: float = 0.0
    """as in `Ratio`"""


class Pairs(NamedTuple):
    """Seconds of the target alone and of speculation, in turn on the same windows."""

    target_s: tuple[float, ...]
    speculation_s: tuple[float, ...]

    @property
    def timing(self) -> Timing:
        """The speedup that they tell."""
        speedup = ratio(self.target_s, self.speculation_s)
        return Timing(
            speedup=speedup.median,
            speedup_low=speedup.low,
            speedup_high=speedup.high,
            target_s=statistics.median(self.target_s),
            speculation_s=statistics.median(self.speculation_s),
            pairs=len(self.target_s),
            speedup_spread=speedup.spread,
        )

    def and_also(self, others: Pairs) -> Pairs:
        """These and the others, as if they had been measured in one go."""
        return Pairs(self.target_s + others.target_s, self.speculation_s + others.speculation_s)


def calibrate(
    target: Forecaster,
    draft: Forecaster,
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
        _Calibration(
            target,
            draft,
            _contexts(windows, size, target.device),
            lookahead=lookahead,
            policy=evaluation.policy,
        ).column()
        for size in sizes
    ]
    step_s, verify_s, draft_s, step_anchor_s, round_anchor_s = zip(*columns, strict=True)
    return cost.PassCosts(
        tuple(sizes),
        step_s,
        verify_s,
        draft_s,
        step_anchor_s,
        round_anchor_s,
        opens_alone=isinstance(draft, Heads),
    )


class _Calibration:
    """Passes of one pair at one batch size, timed in turn so that a drifting clock spoils none.

    One history is rewound before every pass: a round then costs what it does in the middle of a
    forecast, and none has to encode its window again.
    """

    def __init__(
        self,
        target: Forecaster,
        draft: Forecaster,
        context_BTC: Tensor,
        *,
        lookahead: int,
        policy: ContextPolicy,
    ) -> None:
        self.target, self.draft, self.context_BTC = target, draft, context_BTC
        self.lookahead, self.policy = lookahead, policy
        # A draft that is never rejected brings every pass to its full length.
        self.rule = Tolerance(mse_tol=1e30, lookahead=lookahead)
        # What is measured is one round after the first one; never an anchor of its own.
        self.unanchored = ContextPolicy(policy.kind)
        self.middle = target.config.context_patches + lookahead + 1
        # Samples of a batch advance unequally, which costs a little more than a common stride.
        apart_B = torch.arange(len(context_BTC)) % 2
        self.places = alike(self.middle - apart_B)

    def column(self) -> tuple[float, tuple[float, ...], tuple[float, ...], float, float]:
        """Step, verify per k, draft per k, and the two anchors' seconds."""
        counts = range(self.lookahead + 1)
        first_s: list[float] = []
        anchored_s: list[float] = []
        step_s: list[float] = []
        draft_s: list[list[float]] = [[] for _ in counts]
        verify_s: list[list[float]] = [[] for _ in counts]
        began = _now(self.target.device)
        with torch.no_grad():
            self._alone()  # these two warm up
            self._open()
            while len(step_s) < CALIBRATION_REPEATS and (
                len(step_s) < 3 or _now(self.target.device) - began < CALIBRATION_S
            ):
                first, step = self._alone()
                pair, anchored = self._open()
                first_s.append(first)
                step_s.append(step)
                anchored_s.append(anchored)
                for count in counts:
                    drafted, verified = self._round(pair, count)
                    draft_s[count].append(drafted)
                    verify_s[count].append(verified)
        step, drafts, verifies = (
            midmean(step_s),
            tuple(midmean(seconds) for seconds in draft_s),
            tuple(midmean(seconds) for seconds in verify_s),
        )
        if not self.target.caches(self.policy):
            return step, verifies, drafts, 0.0, 0.0
        step_anchor_s = max(0.0, midmean(first_s) - step)
        opened = 0 if isinstance(self.draft, Heads) else -1
        unanchored_s = drafts[opened] + verifies[opened]
        round_anchor_s = max(0.0, midmean(anchored_s) - unanchored_s)
        return step, verifies, drafts, step_anchor_s, round_anchor_s

    def _alone(self) -> tuple[float, float]:
        """Seconds of the target's first step from a window, and of one that follows it."""
        return _first_and_next(self.target, self.context_BTC, policy=self.unanchored)

    def _open(self) -> tuple[Pair, float]:
        """A pair with patches behind the window, and the seconds of its first round."""
        started = _now(self.target.device)
        pair = Pair(
            self.target,
            self.draft,
            self.context_BTC,
            patches=2 * self.lookahead + 2,
            acceptance=self.rule,
            policy=self.unanchored,
        )
        play_round(pair, self.lookahead)
        seconds = _now(self.target.device) - started
        if isinstance(self.draft, Heads):  # which had nothing to propose from
            play_round(pair, self.lookahead)
        return pair, seconds

    def _round(self, pair: Pair, count: int) -> tuple[float, float]:
        """Seconds of drafting `count` patches, and of verifying and accepting them."""
        pair.history.end = self.places
        pair.judging.forget(1)
        # A one-pass draft has not read what it proposed, one that rolls lacks its last step.
        pair.drafting.forget(1 + (count if self.draft.config.patches_out > 1 else min(count, 1)))
        seconds = play_round(pair, count)
        return seconds.draft, seconds.verify + seconds.accept


def midmean(seconds: Sequence[float]) -> float:
    """The mean of the middle half.

    As deaf to outliers as a median; but of a processor with two speeds every kind of pass gets the
    same mixture, where medians would fall to one speed here and to the other there.
    """
    ordered = sorted(seconds)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


def time_step(target: Forecaster, windows: EvaluationWindows, *, evaluation: Evaluation) -> float:
    """Seconds of the target's plain step at the evaluation's batch: a moment, for a first look."""
    context_BTC = _contexts(windows, evaluation.batch, target.device)
    policy = ContextPolicy(evaluation.policy.kind)
    times = [_first_and_next(target, context_BTC, policy=policy) for _ in range(1 + LOOKS)]
    return statistics.median(step for _, step in times[1:])  # the first warms up


def _first_and_next(
    target: Forecaster, context_BTC: Tensor, *, policy: ContextPolicy
) -> tuple[float, float]:
    """Seconds of the target's first step from a window, and of one that follows it.

    By whole forecasts of two lengths: steps in a row find the processor's caches full of the
    target's own weights, as a step that is timed between other passes does not.
    """
    seconds = []
    for patches in (1, 1 + STEPS_IN_A_ROW):
        started = _now(target.device)
        rollout(target, context_BTC, horizon=patches * target.config.patch, policy=policy)
        seconds.append(_now(target.device) - started)
    first, many = seconds
    return first, (many - first) / STEPS_IN_A_ROW


class StageSeconds(NamedTuple):
    """Seconds of one round, or of the rounds of a forecast."""

    draft: float
    verify: float
    accept: float


def play_round(pair: Pair, count: int) -> StageSeconds:
    """The seconds of a round's stages, with `count` patches proposed where there is room."""
    started = _now(pair.target.device)
    limit_B = pair.begin_round().clamp_max(count)
    proposal, drafted = pair.propose(int(limit_B.max()))
    proposed = _now(pair.target.device)
    outlook = pair.verify(proposal.shape[1])
    verified = _now(pair.target.device)
    pair.accept(proposal, drafted, outlook, limit_B=limit_B)
    ended = _now(pair.target.device)
    return StageSeconds(proposed - started, verified - proposed, ended - verified)


def time_pairs(
    target: Forecaster,
    draft: Forecaster,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    evaluation: Evaluation,
    pairs: int,
    plan: Plan | None = None,
) -> Pairs:
    """Target and speculation in turn, on the same windows, after warm-up."""
    batches = _batches(windows, evaluation.batch, target.device)
    generator = torch.Generator(device=target.device).manual_seed(0)

    def alone(index: int) -> object:
        return _rollout(target, batches[index % len(batches)], evaluation)

    def together(index: int) -> object:
        return speculate(
            target,
            draft,
            batches[index % len(batches)],
            horizon=evaluation.horizon,
            acceptance=rule,
            policy=evaluation.policy,
            plan=plan,
            generator=generator,
        )

    seconds = interleaved((alone, together), pairs=pairs, device=target.device, pair_s=PAIR_S)
    return Pairs(*map(tuple, seconds))


def interleaved(
    runs: Sequence[Callable[[int], object]],
    *,
    pairs: int,
    device: torch.device,
    at_most_s: float = math.inf,
    pair_s: float = 0.0,
) -> list[list[float]]:
    """Seconds of one call of each run, by pair, after a warm-up of all.

    Each is called with the number of its pair; or as often in a row as it takes for a pair to last
    `pair_s` seconds, with numbers that go on. Whoever goes second finds warmer caches: they take
    turns at it. Past `at_most_s` seconds no new pair is begun, but for the first three.
    """
    began = now = _now(device)
    for index in range(pairs):
        before = now
        for run in runs:
            run(index)
        now = _now(device)
        if now - began > WARM_UP_S:
            break
    in_a_row = min(MOST_IN_A_ROW, max(1, math.ceil(pair_s / max(now - before, 1e-9))))
    seconds: list[list[float]] = [[] for _ in runs]
    began = time.perf_counter()
    for index in range(pairs):
        if index >= 3 and time.perf_counter() - began > at_most_s:
            break
        order = list(enumerate(runs))
        for place, run in order if index % 2 == 0 else reversed(order):
            started = _now(device)
            for call in range(index * in_a_row, (index + 1) * in_a_row):
                run(call)
            seconds[place].append((_now(device) - started) / in_a_row)
    return seconds


def ratio(slow_s: Sequence[float], fast_s: Sequence[float]) -> Ratio:
    """How many times as long the first takes, pair by pair."""
    ratios = sorted(a / b for a, b in zip(slow_s, fast_s, strict=True))
    ends = median_interval(len(ratios))
    least, most = (ratios[index] for index in ends or (0, -1))
    median = statistics.median(ratios)
    spread = (most - least) / median
    return Ratio(median, least if ends else None, most if ends else None, spread)


def in_words(
    speedup: float, low: float | None, high: float | None, *, pairs: int, unit: str = "x"
) -> str:
    """A speedup with its interval, or with the number of pairs that are too few for one."""
    if low is None or high is None:
        return f"{speedup:.2f}{unit} ({pairs} pair{'s' if pairs != 1 else ''})"
    return f"{speedup:.2f}{unit} [{low:.2f}, {high:.2f}]"


def time_alone(
    target: Forecaster, draft: Forecaster, windows: EvaluationWindows, *, evaluation: Evaluation
) -> float:
    """Seconds of the target alone over seconds of the draft alone, in turn on the same windows.

    Heads alone are their target and they, unverified.
    """
    context_BTC = _contexts(windows, evaluation.batch, target.device)
    unverified = by_itself(draft, target=target)
    seconds = interleaved(
        [
            lambda _: _rollout(target, context_BTC, evaluation),
            lambda _: _rollout(unverified, context_BTC, evaluation),
        ],
        pairs=ALONE_PAIRS,
        device=target.device,
    )
    return ratio(*seconds).median


def median_interval(count: int) -> tuple[int, int] | None:
    """Indices into `count` sorted values that enclose their median with 95 % confidence.

    Exact, by the binomial distribution of how many values lie below the true median; no assumption
    about the values. None below `INTERVAL_PAIRS`, where even the first and the last do not enclose
    it that surely: those of three values do in 75 %.
    """
    if count < INTERVAL_PAIRS:
        return None
    below, low = 0.5**count, 0  # the probability that at most `low` values lie below
    while low < (count - 1) // 2:
        following = below + math.comb(count, low + 1) * 0.5**count
        if following > MISSED:
            break
        below, low = following, low + 1
    return low, count - 1 - low


def _batches(windows: EvaluationWindows, size: int, device: torch.device) -> list[Tensor]:
    """Full batches of contexts; windows are repeated where there are fewer than one batch."""
    whole = [part for part in windows.context_WTC.split(size) if len(part) == size]
    return [part.to(device) for part in whole] or [_contexts(windows, size, device)]


def _contexts(windows: EvaluationWindows, size: int, device: torch.device) -> Tensor:
    repeats = -(-size // len(windows.context_WTC))
    return windows.context_WTC.repeat(repeats, 1, 1)[:size].to(device)


def _rollout(model: Forecaster, context_BTC: Tensor, evaluation: Evaluation) -> Tensor:
    return rollout(model, context_BTC, horizon=evaluation.horizon, policy=evaluation.policy)


def _now(device: torch.device) -> float:
    """The clock, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
