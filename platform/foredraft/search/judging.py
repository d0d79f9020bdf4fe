"""What runs on the machines: each function opens its models, does one thing, returns plain data.

A trial is judged in closed form, and decoded unless that tells that it will miss the front or the
budget (`foredraft.search.stopping`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from foredraft import bank, buckets, provenance, train
from foredraft.cluster.tasks import threads
from foredraft.judge import calibrations, closed_form, courses, evaluate, timing
from foredraft.judge.courses import Courses
from foredraft.judge.evaluate import EvaluationWindows, PairRow
from foredraft.judge.examine import Examiner
from foredraft.search import examples, front, rulebook
from foredraft.search.stopping import Slack, why_stop
from foredraft.search.trial import Metrics, Reason
from foredraft.settings.config import Evaluation, Machine, Training
from foredraft.settings.rules import Rule
from foredraft.settings.study import Study
from foredraft.train.journal import Journal
from speculation import Plan, Speculation, checkpoint, cost
from speculation.forecaster import Forecaster
from speculation.heads import by_itself

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


class Prepared(NamedTuple):
    """A trained draft beside its target under one context policy, on this device."""

    costs: cost.PassCosts
    courses: Courses
    accuracy: evaluate.Accuracy
    """of the draft alone"""
    deviation: float
    """of the draft alone: mean squared difference to the reference's forecasts"""
    speedup_alone: float
    """seconds of the target over seconds of the draft, each alone"""


class Assessment(NamedTuple):
    """What judging a pair came to, and how far it got."""

    metrics: Metrics
    prediction: Metrics
    """what the closed form told"""
    stopped: Reason | None
    """why nothing was decoded, or None where it was"""
    plan: Plan | None
    """of a rule that adapts: what the passes cost, and the closed form's pass rates"""
    seconds: float
    """of judging alone"""


def train_model(
    training: Training,
    kind: bank.Kind,
    storage: Path,
    machine: Machine,
    origin: provenance.Origin,
    epochs: Path | None,
) -> None:
    """Nothing; afterwards the model is in the bank, as that of the command that the study is of.

    Every epoch is written to the file `epochs`.
    """
    bank.obtain(
        training,
        kind=kind,
        storage=storage,
        machine=threads(machine),
        log=Journal(epochs) if epochs else None,
        examine=Examiner.of(training),
        origin=origin,
    )


def open_baseline(
    study: Study, evaluation: Evaluation, target: Path, looked_at: Path | None = None
) -> Baseline:
    """The windows, and what the target makes of them: as the trial reads, and as the reference.

    A few of them are kept in the folder `looked_at`, where one is given.
    """
    model = _open(target, evaluation, study.machine)
    windows = evaluate.draw_windows(evaluation, model.config)
    alone_WHC = evaluate.forecast_alone(model, windows, evaluation=evaluation)
    alone, reference_WHC = windows.errors_of(alone_WHC), alone_WHC
    if evaluation.policy != study.reference:
        referred = evaluation.model_copy(update={"policy": study.reference})
        reference_WHC = evaluate.forecast_alone(model, windows, evaluation=referred)
    if looked_at:
        patch = model.config.patch
        examples.keep_windows(looked_at, evaluation, windows, reference_WHC, patch=patch)
    return Baseline(target, windows, reference_WHC, windows.errors_of(reference_WHC), alone)


def prepare(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    baseline: Baseline,
    emits_draft: bool,
    storage: Path,
) -> Prepared:
    """What a draft costs and proposes, whatever the rule; wants an otherwise idle machine."""
    target, draft = (_open(p, evaluation, study.machine) for p in (baseline.target, path))
    alone_WHC = evaluate.forecast_alone(
        by_itself(draft, target=target), baseline.windows, evaluation=evaluation
    )
    calibration = calibrations.of_pair(
        target,
        draft,
        baseline.windows,
        target_key=baseline.target.name,
        draft_key=path.name,
        lookahead=study.longest_lookahead,
        evaluation=evaluation,
        storage=storage,
    )
    return Prepared(
        costs=calibration.costs,
        courses=courses.grow(
            target,
            draft,
            baseline.windows,
            baseline.reference_WHC,
            probes=rulebook.spread(study, emits_draft=emits_draft),
            evaluation=evaluation,
        ),
        accuracy=baseline.windows.errors_of(alone_WHC),
        deviation=evaluate.accuracy(alone_WHC, baseline.reference_WHC).mse,
        speedup_alone=calibration.speedup_alone,
    )


def judge(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    rule: Rule,
    baseline: Baseline,
    prepared: Prepared,
    best: Sequence[front.Goals],
    slack: Slack | None,
    looked_at: Path,
) -> Assessment:
    """What the rule makes of the pair: in closed form, and by decoding where that may pay.

    Args:
        study, evaluation: what is judged, and on what.
        path: the draft's directory.
        rule: the acceptance rule.
        baseline: what the target makes of the windows.
        prepared: what the draft costs and proposes.
        best: the goals of the front when the trial began.
        slack: by how much the closed form may be wrong, as far as the study has shown.
        looked_at: the folder that keeps the forecasts of a few windows.
    """
    began = time.perf_counter()
    draft = _open(path, evaluation, study.machine)
    patch = draft.config.patch
    predict = functools.partial(
        evaluate.predict, costs=prepared.costs, rule=rule, evaluation=evaluation, patch=patch
    )
    expected = expected_row(prepared.courses, rule, steps=patch, reference=baseline.reference)
    plan = Plan(prepared.costs, tuple(expected.pass_rates)) if rule.adapt else None
    prediction = metrics_of(expected, predicted_speedup=predict(expected), windows=0)
    stopped = why_stop(prediction, study, best, slack=slack, reference_mse=baseline.reference.mse)
    metrics = prediction
    if not stopped:
        runs = _decoded(study, evaluation, draft, rule, baseline, plan)
        examples.keep_forecasts(looked_at, evaluation, path.name, rule, runs)
        row = evaluate.row_of(runs, baseline.windows, alone_WHC=baseline.reference_WHC)
        windows = len(baseline.windows.truth_WHC)
        metrics = metrics_of(row, predicted_speedup=predict(row), windows=windows)
    return Assessment(metrics, prediction, stopped, plan, time.perf_counter() - began)


def expected_row(
    known: Courses, rule: Rule, *, steps: int, reference: evaluate.Accuracy
) -> PairRow:
    """The row that decoding is expected to give."""
    expected = closed_form.expect(known, [rule], steps=steps)
    mse = float(expected.mse_Q)
    return PairRow(
        acceptance_rate=float(expected.acceptance_rate_Q),
        accept_length=float(expected.accept_length_Q),
        accept_lengths=[],
        pass_rates=expected.pass_rates_QK[0, : rule.lookahead].tolist(),
        mse=mse,
        mae=float(expected.mae_Q),
        mse_ratio=mse / reference.mse,
        deviation=float(expected.deviation_Q),
    )


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


def time_pairs(
    study: Study,
    evaluation: Evaluation,
    path: Path,
    rule: Rule,
    plan: Plan | None,
    target: Path,
) -> timing.Pairs:
    """Target alone and the pair in turn; to be run on an otherwise idle machine."""
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
    baseline = open_baseline(study, evaluation, target)
    runs = _decoded(study, evaluation, draft, rule, baseline, plan)
    return evaluate.row_of(runs, baseline.windows, alone_WHC=baseline.reference_WHC)


def _decoded(
    study: Study,
    evaluation: Evaluation,
    draft: Forecaster,
    rule: Rule,
    baseline: Baseline,
    plan: Plan | None,
) -> list[Speculation]:
    """What the pair makes of the windows of a baseline."""
    return evaluate.decode(
        _open(baseline.target, evaluation, study.machine),
        draft,
        rule,
        baseline.windows,
        evaluation=evaluation,
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
    weights = checkpoint.load(buckets.fetch(path))
    return evaluate.ready(weights, evaluation, torch.device(device))
