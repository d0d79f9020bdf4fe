"""What runs on the machines: each function opens its models, does one thing, returns plain data.

A trial is judged in stages, each dearer and surer than the one before: in closed form from cached
distances, on a few windows, on all. It stops where it can no longer reach the front or the accuracy
budget even if the stage was wrong by the study's slack.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from foredraft import bank, train
from foredraft.data.spacing import evenly_spaced
from foredraft.judge import closed_form, evaluate, timing
from foredraft.judge.evaluate import EvaluationWindows, PairRow
from foredraft.judge.examine import Examiner
from foredraft.search import front
from foredraft.search.machines import threads
from foredraft.search.trial import Metrics, Reason
from foredraft.settings.config import Evaluation, Machine, Training
from foredraft.settings.rules import Rule
from foredraft.settings.study import OBJECTIVES, Study
from foredraft.train.journal import Journal
from speculation import Plan, checkpoint, cost
from speculation.forecaster import Forecaster

OPEN_MODELS = 6
"""Models that a worker process keeps open."""


class Baseline(NamedTuple):
    """What every trial under one context policy is judged against."""

    target: Path
    windows: EvaluationWindows
    reference_WHC: torch.Tensor
    """the target's own forecasts under the study's reference policy"""
    reference: evaluate.Accuracy
    """of these"""
    alone: evaluate.Accuracy
    """of the target alone under the trial's policy"""

    def few(self, count: int) -> Baseline:
        """The same on `count` of the windows, evenly spaced."""
        total = len(self.windows.truth_WHC)
        index_W = evenly_spaced(total, count=min(count, total))
        windows, alone_WHC = self.windows.at(index_W), self.alone_WHC[index_W]
        return Baseline(self.target, windows, alone_WHC, windows.errors_of(alone_WHC))


class Prepared(NamedTuple):
    """A trained draft beside its target under one context policy, on this device."""

    costs: cost.PassCosts
    distances_WSKC: torch.Tensor
    accuracy: evaluate.Accuracy
    """of the draft alone"""
    target_accuracy: evaluate.Accuracy
    """of the target alone, under the same policy"""
    speedup_alone: float
    """seconds of the target over seconds of the draft, each alone"""


class Assessment(NamedTuple):
    """What judging a pair came to, and how far it got."""

    metrics: Metrics
    stopped: Reason | None
    """why it was not judged on all windows, or None where it was"""
    plan: Plan | None
    """of a rule that adapts: what the passes cost, and the closed form's pass rates"""
    seconds: float
    """of judging alone"""


def train_model(
    training: Training, kind: bank.Kind, storage: Path, machine: Machine, epochs: Path | None
) -> None:
    """Nothing; afterwards the model is in the bank. Every epoch is written to the file `epochs`."""
    bank.obtain(
        training,
        kind=kind,
        storage=storage,
        machine=threads(machine),
        log=Journal(epochs) if epochs else None,
        examine=Examiner.of(training),
    )


def open_baseline(evaluation: Evaluation, target: Path, machine: Machine) -> Baseline:
    """The windows, and what the target makes of them."""
    model = _open(target, evaluation, machine)
    windows = evaluate.draw_windows(evaluation, model.config)
    alone_WHC = evaluate.forecast_alone(model, windows, evaluation=evaluation)
    return Baseline(target, windows, alone_WHC, windows.errors_of(alone_WHC))


def prepare(study: Study, evaluation: Evaluation, path: Path, baseline: Baseline) -> Prepared:
    """What a draft costs and proposes, whatever the rule; wants an otherwise idle machine."""
    target, draft = (_open(p, evaluation, study.machine) for p in (baseline.target, path))
    lookahead = study.longest_lookahead
    alone_WHC = evaluate.forecast_alone(draft, baseline.windows, evaluation=evaluation)
    few = baseline.few(study.few_windows or 1)
    return Prepared(
        costs=timing.calibrate(
            target, draft, baseline.windows, lookahead=lookahead, evaluation=evaluation
        ),
        distances_WSKC=closed_form.draft_distances(
            target, draft, few.windows, lookahead=lookahead, evaluation=evaluation
        ),
        accuracy=baseline.windows.errors_of(alone_WHC),
        target_accuracy=baseline.accuracy,
        speedup_alone=timing.time_alone(target, draft, baseline.windows, evaluation=evaluation),
    )


def judge(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    rule: Rule,
    baseline: Baseline,
    prepared: Prepared,
    best: Sequence[front.Goals],
) -> Assessment:
    """What the rule makes of the pair, stage by stage; `best` is the front when the trial began."""
    began = time.perf_counter()
    draft = _open(path, evaluation, study.machine)
    patch = draft.config.patch
    predict = functools.partial(
        evaluate.predict, costs=prepared.costs, rule=rule, evaluation=evaluation, patch=patch
    )
    expected = closed_form.expected_row(prepared.distances_WSKC, rule, steps=patch)
    plan = Plan(prepared.costs, tuple(expected.pass_rates)) if rule.adapt else None

    def assessed(row: PairRow, *, windows: int) -> Assessment:
        metrics = metrics_of(row, predicted_speedup=predict(row), windows=windows)
        return Assessment(metrics, None, plan, time.perf_counter() - began)

    def on(part: Baseline) -> Assessment:
        row = _counted(study, evaluation, draft, rule, part, plan)
        return assessed(row, windows=len(part.windows.truth_WHC))

    total = len(baseline.windows.truth_WHC)
    if not 0 < study.few_windows < total:
        return on(baseline)
    judged = assessed(expected, windows=0)
    for part in (baseline.few(study.few_windows), baseline):
        stopped = why_stop(judged.metrics, study, best, target_mse=baseline.accuracy.mse)
        if stopped:
            return judged._replace(stopped=stopped)
        judged = on(part)
    return judged


def metrics_of(row: PairRow, *, predicted_speedup: float, windows: int) -> Metrics:
    """What was counted on so many windows; what the closed form (0) does not tell is None.

    Raises:
        ValueError: a number counted on windows is none.
    """
    numbers = {**row._asdict(), "predicted_speedup": predicted_speedup}
    odd = {n: v for n, v in numbers.items() if isinstance(v, float) and not math.isfinite(v)}
    if odd and windows:
        name, value = next(iter(odd.items()))
        raise ValueError(f"{name} is {value}: the pair does not forecast")
    return Metrics(**(numbers | dict.fromkeys(odd)), windows=windows)


def why_stop(
    metrics: Metrics, study: Study, best: Sequence[front.Goals], *, target_mse: float
) -> Reason | None:
    """Why a trial is hopeless that came to these metrics in an early stage, or None.

    They are taken as better by the study's slack. Nothing beats a trial in what is not known yet:
    the closed form knows no error, and so stops none for a front that has one.
    """
    ratio = metrics.mse_ratio
    if ratio is not None and ratio - study.slack > study.budget:
        return "budget"
    known = metrics.model_dump(exclude_none=True)
    # A few windows have errors of their own: only their ratio tells of the others.
    if ratio is not None:
        known["mse"] = ratio * target_mse
    optimistic = []
    for name in study.objectives:
        sign = 1 if OBJECTIVES[name] == "max" else -1
        if name not in known:
            optimistic.append(math.inf)
            continue
        slack = study.slack * (1.0 if name == "acceptance_rate" else abs(known[name]))
        optimistic.append(sign * known[name] + slack)
    return "front" if any(front.beats(other, tuple(optimistic)) for other in best) else None


def time_pairs(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    rule: Rule,
    plan: Plan | None,
    target: Path,
) -> timing.Timing:
    """The measured speedup; to be run on an otherwise idle machine."""
    alone = _open(target, evaluation, study.machine)
    return timing.time_pairs(
        alone,
        _open(path, evaluation, study.machine),
        rule,
        evaluate.draw_windows(evaluation, alone.config),
        evaluation=evaluation,
        pairs=study.confirm_pairs,
        plan=plan,
    )


def judge_on(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    rule: Rule,
    plan: Plan | None,
    target: Path,
) -> PairRow:
    """The pair on another split than the search saw."""
    draft = _open(path, evaluation, study.machine)
    baseline = open_baseline(evaluation, target, study.machine)
    return _counted(study, evaluation, draft, rule, baseline, plan)


def _counted(
    study: Study,
    evaluation: Evaluation,
    draft: Forecaster,
    rule: Rule,
    baseline: Baseline,
    plan: Plan | None,
) -> PairRow:
    """What the pair does on the windows of a baseline."""
    return evaluate.judge_pair(
        _open(baseline.target, evaluation, study.machine),
        draft,
        rule,
        baseline.windows,
        evaluation=evaluation,
        alone_WHC=baseline.alone_WHC,
        plan=plan,
        seed=study.seed,
    )


def _open(path: Path, evaluation: Evaluation, machine: Machine) -> Forecaster:
    """A model as it decodes, on this task's share of the machine."""
    share = threads(machine)
    train.use_threads(share.cpus)
    return _opened(path, evaluation.dtype, str(train.device_of(share)))


@functools.lru_cache(maxsize=OPEN_MODELS)
def _opened(path: Path, dtype: str, device: str) -> Forecaster:
    evaluation = Evaluation(data="", dtype=dtype)  # type: ignore[arg-type]
    return evaluate.ready(checkpoint.load(path), evaluation, torch.device(device))
