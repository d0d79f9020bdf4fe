"""What is judged is what was asked for: the split's own windows, counted and averaged by hand.

The windows of an evaluation, a study and a ladder lie in the split that each names; accuracy,
ratio, deviation and the counts of acceptance are those of forecasts made one by one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from foredraft import bank, data
from foredraft.judge import evaluate, progression
from foredraft.judge.evaluate import EvaluationWindows, PairRow
from foredraft.search import driver
from foredraft.search.trial import Metrics
from foredraft.settings.config import Evaluation, Machine, Stage, Training, validated
from foredraft.settings.ladders import Ladder, Rung
from foredraft.settings.study import Study
from speculation import (
    Acceptance,
    ContextPolicy,
    Gaussian,
    Tolerance,
    checkpoint,
    rollout,
    rule_from,
    speculate,
)
from speculation.cost import PassCosts
from timer_xl import Engine, TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=4, context=12, d_model=16, n_heads=2, d_ff=16, n_layers=2)
HORIZON = 24
SPLITS = {"train": (0, 140), "validation": (140, 160), "test": (160, 200)}
GENERATED = "synthetic-etth:rows=1200"
BORDERS = {"train": (0, 840), "validation": (840, 960), "test": (960, 1200)}


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of 200 rows in which a value is its row + 1000 times its column."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = np.arange(200)[:, None] + 1000 * np.arange(2)
    table = pd.DataFrame(values, columns=["a", "b"])
    table.insert(0, "date", pd.date_range("2024-01-01", periods=200, freq="h"))
    table.to_csv(tmp_path / "counting.csv", index=False)
    return str(tmp_path / "counting.csv")


def rows_of(values_WLC: Tensor) -> np.ndarray:
    """Rows [W, L] of the counting file that standardised values come from."""
    rows = values_WLC[..., 0].double().numpy() * np.sqrt((140**2 - 1) / 12) + 69.5
    np.testing.assert_allclose(rows, rows.round(), atol=1e-3)
    return rows.round().astype(int)


def drawn(source: str, split: str, *, horizon: int = 5, windows: int | None = None) -> np.ndarray:
    """First rows of the windows that are drawn, each of which is checked to be whole."""
    evaluation = Evaluation(data=source, split=split, horizon=horizon, windows=windows)
    found = evaluate.draw_windows(evaluation, CONFIG)
    context, truth = rows_of(found.context_WTC), rows_of(found.truth_WHC)
    assert context.shape[1] == CONFIG.context
    assert truth.shape[1] == horizon
    whole = np.concatenate([context, truth], axis=1)
    assert (whole == whole[:, :1] + np.arange(CONFIG.context + horizon)).all()
    return whole[:, 0]


# Windows


@pytest.mark.parametrize(
    ("split", "first", "last"), [("train", 0, 123), ("validation", 128, 143), ("test", 148, 183)]
)
def test_the_windows_are_those_of_the_split_that_is_asked_for(
    counting: str, split: str, first: int, last: int
) -> None:
    assert drawn(counting, split).tolist() == list(range(first, last + 1))
    assert drawn(counting, split, windows=1000).tolist() == list(range(first, last + 1))
    forecast = {row + CONFIG.context + step for row in drawn(counting, split) for step in range(5)}
    if split != "train":
        assert forecast == set(range(*SPLITS[split]))


def test_validation_is_the_split_where_none_is_asked_for(counting: str) -> None:
    found = evaluate.draw_windows(Evaluation(data=counting, horizon=5, windows=None), CONFIG)
    assert rows_of(found.truth_WHC)[:, 0].tolist() == list(range(140, 156))


def test_some_windows_are_evenly_spaced_from_the_first_to_the_last(counting: str) -> None:
    assert drawn(counting, "test", windows=6).tolist() == [148, 155, 162, 169, 176, 183]
    assert drawn(counting, "test", windows=2).tolist() == [148, 183]
    assert drawn(counting, "test", windows=1).tolist() == [148]


@pytest.mark.parametrize("together", [1, 3, 7])
def test_variates_that_are_forecast_together_take_turns(together: int) -> None:
    asked = {"data": GENERATED, "horizon": 5, "windows": 9}
    whole = evaluate.draw_windows(validated(Evaluation, asked, source="all"), CONFIG)
    evaluation = validated(Evaluation, {**asked, "variates": together}, source="some")
    some = evaluate.draw_windows(evaluation, CONFIG)
    assert some.variates_WV is not None
    for window in range(9):
        own = [(together * window + place) % 7 for place in range(together)]
        assert some.variates_WV[window].tolist() == own
        assert torch.equal(some.context_WTC[window], whole.context_WTC[window][:, own])
        assert torch.equal(some.truth_WHC[window], whole.truth_WHC[window][:, own])
    last = some.at(torch.tensor([8]))
    assert torch.equal(last.variates_WV, some.variates_WV[8:])


def test_more_variates_than_there_are_cannot_be_forecast_together() -> None:
    evaluation = Evaluation(data=GENERATED, horizon=5, variates=8)
    with pytest.raises(data.DataError, match=r"variates is 8: synthetic-etth:rows=1200 has 7"):
        evaluate.draw_windows(evaluation, CONFIG)


# Figures


def test_errors_are_means_over_every_step_in_double_precision() -> None:
    forecast = torch.tensor([[[4096.0], [2.0]], [[0.0], [-1.0]]])
    truth = torch.tensor([[[0.0], [1.0]], [[3.0], [-1.0]]])
    found = evaluate.accuracy(forecast, truth)
    assert found.mse == (4096**2 + 1 + 9) / 4
    assert found.mae == (4096 + 1 + 3) / 4


def engine(seed: int, *, near: float | None = None) -> Engine:
    """A random model; with `near` the model of seed 0 with that much noise on its weights."""
    torch.manual_seed(0 if near is not None else seed)
    model = TimerXL(CONFIG).eval()
    if near is not None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight += near * torch.randn_like(weight)
    return Engine(model)


@pytest.fixture(scope="module")
def windows() -> EvaluationWindows:
    torch.manual_seed(3)
    series = torch.randn(7, CONFIG.context + HORIZON, 3).cumsum(1)
    return EvaluationWindows(series[:, : CONFIG.context], series[:, CONFIG.context :])


POLICIES = [ContextPolicy(), ContextPolicy("cached")]


def asked(policy: ContextPolicy | None = None, *, horizon: int = HORIZON) -> Evaluation:
    return Evaluation(data="none", horizon=horizon, policy=policy or ContextPolicy())


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_forecasts_of_one_model_are_its_rollouts_however_many_at_a_time(
    windows: EvaluationWindows, monkeypatch: pytest.MonkeyPatch, policy: ContextPolicy, batch: int
) -> None:
    monkeypatch.setattr(evaluate, "ACCURACY_BATCH", batch)
    model = engine(0)
    found = evaluate.forecast_alone(model, windows, evaluation=asked(policy))
    one_by_one = [
        rollout(model, context[None], horizon=HORIZON, policy=policy)
        for context in windows.context_WTC
    ]
    torch.testing.assert_close(found, torch.cat(one_by_one))


def judged(
    draft: Engine,
    rule: Acceptance,
    windows: EvaluationWindows,
    *,
    policy: ContextPolicy | None = None,
    **options: Any,
) -> PairRow:
    """What `judge_pair` says of the draft beside the model of seed 0."""
    target, evaluation = engine(0), asked(policy)
    alone = evaluate.forecast_alone(target, windows, evaluation=evaluation)
    return evaluate.judge_pair(
        target, draft, rule, windows, evaluation=evaluation, alone_WHC=alone, **options
    )


def test_a_draft_equal_to_its_target_has_everything_accepted_and_costs_nothing(
    windows: EvaluationWindows,
) -> None:
    row = judged(engine(0), Tolerance(mse_tol=1e-6, lookahead=2), windows)
    # Six patches in rounds of two proposals and one of the target's own, seven windows.
    assert row.accept_lengths == [0, 0, 0, 14]
    assert (row.acceptance_rate, row.accept_length, row.pass_rates) == (1.0, 3.0, [1.0, 1.0])
    assert row.mse_ratio == pytest.approx(1.0)
    assert row.deviation < 1e-10


def test_a_draft_of_which_nothing_is_accepted_leaves_the_targets_own_forecast(
    windows: EvaluationWindows,
) -> None:
    row = judged(engine(1), Tolerance(mse_tol=0.0, lookahead=2), windows)
    # A round emits the target's one patch; the sixth is proposed by nobody.
    assert row.accept_lengths == [0, 42, 0, 0]
    assert (row.acceptance_rate, row.accept_length, row.pass_rates[0]) == (0.0, 1.0, 0.0)
    assert row.mse_ratio == pytest.approx(1.0)
    assert row.deviation < 1e-10


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_row_is_counted_over_windows_that_are_forecast_one_by_one(
    windows: EvaluationWindows, monkeypatch: pytest.MonkeyPatch, policy: ContextPolicy, batch: int
) -> None:
    monkeypatch.setattr(evaluate, "ACCURACY_BATCH", batch)
    draft, rule = engine(5, near=0.05), Tolerance(mse_tol=0.1, lookahead=3)
    row = judged(draft, rule, windows, policy=policy)
    runs = [
        speculate(engine(0), draft, c[None], horizon=HORIZON, acceptance=rule, policy=policy)
        for c in windows.context_WTC
    ]
    proposed, accepted = (sum(getattr(r, n) for r in runs) for n in ("proposed", "accepted"))
    assert 0 < accepted < proposed
    assert row.acceptance_rate == accepted / proposed
    lengths = [sum(int(r.accept_lengths[n]) for r in runs) for n in range(5)]
    assert row.accept_lengths == lengths
    emitted = sum(n * count for n, count in enumerate(lengths))
    assert emitted == len(runs) * HORIZON / CONFIG.patch
    assert row.accept_length == pytest.approx(emitted / sum(lengths))
    tested, passed = (sum(getattr(r, n) for r in runs) for n in ("tested_K", "passed_K"))
    assert row.pass_rates == pytest.approx((passed / tested).tolist())

    forecast = torch.cat([r.forecast_BTC for r in runs]).double().numpy()
    alone = [
        rollout(engine(0), c[None], horizon=HORIZON, policy=policy) for c in windows.context_WTC
    ]
    own, truth = torch.cat(alone).double().numpy(), windows.truth_WHC.double().numpy()
    mse = ((forecast - truth) ** 2).mean()
    assert row.mse == pytest.approx(mse, rel=1e-5)
    assert row.mae == pytest.approx(np.abs(forecast - truth).mean(), rel=1e-5)
    assert row.mse_ratio == pytest.approx(mse / ((own - truth) ** 2).mean(), rel=1e-5)
    assert row.deviation == pytest.approx(((forecast - own) ** 2).mean(), rel=1e-4)
    assert row.deviation > 1e-4


def test_where_nothing_can_be_proposed_nothing_is_accepted(windows: EvaluationWindows) -> None:
    one_patch = EvaluationWindows(windows.context_WTC, windows.truth_WHC[:, :4])
    evaluation = asked(horizon=4)
    alone = evaluate.forecast_alone(engine(0), one_patch, evaluation=evaluation)
    row = evaluate.judge_pair(
        engine(0),
        engine(1),
        Tolerance(mse_tol=0.1, lookahead=2),
        one_patch,
        evaluation=evaluation,
        alone_WHC=alone,
    )
    assert (row.acceptance_rate, row.accept_length, row.mse_ratio) == (0.0, 1.0, 1.0)


def test_an_interval_over_windows_is_that_of_windows_drawn_one_by_one() -> None:
    above_W, below_W = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)).double()
    found = evaluate.interval(above_W, below_W)
    assert found
    draws = np.random.default_rng(1).integers(40, size=(4000, 40))
    ratios = [float(above_W[w].sum() / below_W[w].sum()) for w in torch.from_numpy(draws)]
    assert found == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=0.03)
    assert found.low < float(above_W.sum() / below_W.sum()) < found.high


def test_an_interval_over_windows_holds_the_truth_in_about_95_of_100() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(300):
        proposed_W = torch.randint(3, 12, (64,), generator=generator)
        chance_W = 0.3 + 0.6 * torch.rand(64, generator=generator)
        accepted_W = torch.binomial(proposed_W.double(), chance_W.double(), generator=generator)
        found = evaluate.interval(accepted_W, proposed_W)
        assert found
        held += found.low <= 0.6 <= found.high
    assert 0.92 < held / 300 < 0.98


def test_few_windows_or_nothing_proposed_have_no_interval() -> None:
    counts_W = torch.arange(1, 9)
    assert evaluate.interval(counts_W, counts_W) == (1.0, 1.0)
    assert evaluate.interval(counts_W[:7], counts_W[:7]) is None
    assert evaluate.interval(0 * counts_W, 0 * counts_W) is None


def test_a_row_has_the_intervals_of_its_own_windows_where_the_truth_is_known(
    windows: EvaluationWindows,
) -> None:
    truth_WHC = windows.truth_WHC.repeat(2, 1, 1)
    observed_WHC = torch.rand(truth_WHC.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    truth_WHC = truth_WHC.where(observed_WHC, 1e6)  # were it looked at, it would be all that counts
    many = EvaluationWindows(windows.context_WTC.repeat(2, 1, 1), truth_WHC, observed_WHC)
    draft, rule = engine(5, near=0.05), Tolerance(mse_tol=0.1, lookahead=3)
    row = judged(draft, rule, many)
    assert row.acceptance_interval
    assert row.mse_ratio_interval
    for middle, (low, high) in (
        (row.acceptance_rate, row.acceptance_interval),
        (row.mse_ratio, row.mse_ratio_interval),
    ):
        assert low < middle < high < low + 0.5
    assert judged(draft, rule, windows).acceptance_interval is None
    Metrics(**row._asdict(), predicted_speedup=1.0, windows=14)


def test_a_rule_that_draws_repeats_itself_by_its_seed(windows: EvaluationWindows) -> None:
    rule = Gaussian(sigma=0.3, bias=1.0, lookahead=3)
    draft = engine(5, near=0.05)
    first, again, other, default = (
        judged(draft, rule, windows, **options)
        for options in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {})
    )
    assert first == again != other
    assert default == judged(draft, rule, windows, seed=0) != first


@pytest.mark.parametrize(("dtype", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_model_decodes_in_the_dtype_of_the_evaluation(dtype: str, wanted: torch.dtype) -> None:
    evaluation = Evaluation(data="none", dtype=dtype)
    ready = evaluate.ready(TimerXL(CONFIG).eval(), evaluation, torch.device("cpu"))
    assert ready.dtype == ready.norm_weight.dtype == wanted


# A step of the target alone takes 10 s, a round 12 s whatever is verified, and 1 s a proposal.
COSTS = PassCosts(
    batches=(1, 3),
    step_s=(10.0, 30.0),
    verify_s=((12.0,) * 4, (30.0,) * 4),
    draft_s=((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 2.0, 3.0)),
    step_anchor_s=(0.0, 0.0),
    round_anchor_s=(0.0, 0.0),
)


def certain(passes: list[float]) -> PairRow:
    return PairRow(1.0, 3.0, [0, 0, 0, 1], passes, 1.0, 1.0, 1.0, 0.0)


def predicted(rule: Acceptance, *, horizon: int, batch: int = 1, rates: int = 3) -> float:
    evaluation = Evaluation(data="none", horizon=horizon, batch=batch)
    row = certain([1.0] * rates)
    return evaluate.predict(row, COSTS, rule=rule, evaluation=evaluation, patch=4)


def test_the_predicted_speedup_counts_the_rounds_of_the_horizon_by_their_costs() -> None:
    rule = Tolerance(mse_tol=0.1, lookahead=2)
    # Six patches are two rounds of two proposals: 60 s against 2 x (12 + 2).
    assert predicted(rule, horizon=24) == pytest.approx(60 / 28)
    # A cut patch is a whole one: four rounds of 10 s; one proposal is left for the second round.
    assert predicted(rule, horizon=21) == pytest.approx(60 / 28)
    # At batch 3 a step takes 30 s and a round 30 s.
    assert predicted(rule, horizon=24, batch=3) == pytest.approx(180 / 64)
    # No more is proposed than was counted, than the rule allows, or than the horizon has room for.
    assert predicted(Tolerance(mse_tol=0.1, lookahead=9), horizon=24) == pytest.approx(
        predicted(Tolerance(mse_tol=0.1, lookahead=3), horizon=24)
    )
    assert predicted(rule, horizon=24, rates=1) == pytest.approx(60 / 39)
    assert predicted(rule, horizon=8) == pytest.approx(20 / 13)


def test_a_rule_that_adapts_is_predicted_at_its_best_lookahead_or_alone() -> None:
    rule = Tolerance(mse_tol=0.1, lookahead=3, adapt=True)
    fixed = [predicted(Tolerance(mse_tol=0.1, lookahead=k), horizon=24) for k in (1, 2, 3)]
    assert predicted(rule, horizon=24) == pytest.approx(max(fixed))
    evaluation = Evaluation(data="none", horizon=24)
    hopeless = certain([0.0, 0.0, 0.0])
    assert evaluate.predict(
        hopeless, COSTS, rule=rule, evaluation=evaluation, patch=4
    ) == pytest.approx(1.0)


# Where windows are judged

STAGE = {"name": "scratch", "data": GENERATED, "epochs": 1, "windows_per_epoch": 64, "lr": 0.003}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


def by_hand(split: str, *, horizon: int, count: int) -> EvaluationWindows:
    """Windows of 48 rows of context, evenly over the split of the generated series."""
    values_TC = np.array(data.load(GENERATED).values_TC, dtype=np.float64)
    train_TC = values_TC[:840]
    scaled_TC = (values_TC - train_TC.mean(0)) / train_TC.std(0)
    first, end = BORDERS[split]
    starts = np.linspace(first - 48, end - 48 - horizon, count).astype(int)
    windows = np.stack([scaled_TC[start : start + 48 + horizon] for start in starts])
    both = torch.from_numpy(windows).float()
    return EvaluationWindows(both[:, :48], both[:, 48:])


def own_mse(model: Engine, windows: EvaluationWindows, *, horizon: int) -> float:
    forecast = rollout(model, windows.context_WTC, horizon=horizon)
    return float((forecast.double() - windows.truth_WHC.double()).square().mean())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_ladder_is_judged_on_the_split_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = Machine(cpus=1, use_gpu=False)
    stages = (Stage.model_validate(STAGE),)
    training = Training(model=TimerXLConfig(**MODEL), stages=stages)
    target = bank.obtain(training, kind="target", storage=tmp_path, machine=machine)
    ladder = Ladder(
        name="tiny",
        target=target.name,
        rungs=(Rung(name="half", scales=(0.5,), stages=stages),),
        evaluation=Evaluation(data=GENERATED, split=split, horizon=48, windows=5),
        pairs=1,
    )
    directory = progression.climb(ladder, storage=tmp_path, machine=machine, say=lambda text: None)
    row = json.loads((directory / progression.FILE).read_text())["rows"][0]
    model = Engine(checkpoint.load(target))
    for name, horizon in {"near": 12, "far": 48}.items():
        wanted = own_mse(model, by_hand(split, horizon=horizon, count=5), horizon=horizon)
        assert row[f"{name}_mse"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.timeout(600)  # Ray starts its workers slowly where a machine is busy
def test_a_study_judges_its_trials_on_its_own_split_and_confirms_them_on_the_test_split(
    tmp_path: Path, ray_cluster: None
) -> None:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
        "draft": {"stages": [STAGE], "dtype": "fp32", "scale": 0.5},
        "evaluation": {"data": GENERATED, "horizon": 60, "windows": 7},
        "dimensions": {"mse_tol": {"type": "float", "low": 0.01, "high": 1.0, "log": True}},
        "acceptance": {"rule": "tolerance", "lookahead": 3},
        "trials": 1,
        "sampler": "random",
        "stop_early": False,
        "confirm_pairs": 1,
        "confirm_windows": 6,
        "budget": 100.0,
        "machine": {"concurrency": 1, "use_gpu": False},
    }
    directory = driver.run(validated(Study, tree, source="tiny"), storage=tmp_path)
    (row,) = pd.read_parquet(directory / "trials.parquet").to_dict("records")
    told = json.loads((directory / "references.json").read_text())["target"]
    target = Engine(checkpoint.load(tmp_path / "targets" / told["key"]))
    draft = Engine(checkpoint.load(tmp_path / "drafts" / row["draft_key"]))
    (point,) = json.loads((directory / "front.json").read_text())
    rule = rule_from(point["acceptance"])
    for split, count, prefix in [("validation", 7, ""), ("test", 6, "test_")]:
        windows = by_hand(split, horizon=60, count=count)
        run = speculate(target, draft, windows.context_WTC, horizon=60, acceptance=rule)
        mse = float((run.forecast_BTC.double() - windows.truth_WHC.double()).square().mean())
        assert row[f"{prefix}mse"] == pytest.approx(mse, rel=1e-4)
        ratio = mse / own_mse(target, windows, horizon=60)
        assert row[f"{prefix}mse_ratio"] == pytest.approx(ratio, rel=1e-4)
        assert row[f"{prefix}acceptance_rate"] == pytest.approx(run.accepted / run.proposed)
    wanted = own_mse(target, by_hand("validation", horizon=60, count=7), horizon=60)
    assert told["mse"] == pytest.approx(wanted, rel=1e-4)
