"""Claims about the closed form: what it expects of a rule is what decoding counts, on average.

Of acceptance, lengths, pass rates and errors, under every policy, whether a rule draws lots or not,
whether accepted patches are the target's or the draft's; exactly where every round that may come
was played, nearly where only the likely ones were.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foredraft.judge import closed_form, courses, evaluate
from foredraft.settings.config import Evaluation
from speculation import Acceptance, ContextPolicy, Gaussian, Lossless, Tolerance
from speculation.forecaster import Forecaster
from speculation.heads import Heads, HeadsConfig
from timer_xl import Engine, TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=16, n_layers=2)
PATCHES = 6
HORIZON = PATCHES * 8 - 3
POLICIES = [ContextPolicy(), ContextPolicy("cached"), ContextPolicy("cached", 3)]


def engine(*, noise: float = 0.0) -> Engine:
    """One model, or that model with noise on its weights: a draft that is near its target."""
    torch.manual_seed(1)
    model = TimerXL(CONFIG).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    return Engine(model)


@pytest.fixture(scope="module")
def windows() -> evaluate.EvaluationWindows:
    torch.manual_seed(0)
    series = torch.randn(24, 32 + HORIZON, 3).cumsum(1)
    observed = torch.rand(24, HORIZON, 3) < 0.9
    return evaluate.EvaluationWindows(series[:, :32], series[:, 32:], observed)


class Judged:
    """A pair on some windows, by courses and by decoding."""

    def __init__(
        self,
        windows: Any,
        policy: ContextPolicy,
        probes: list[Acceptance],
        *,
        draft: Forecaster | None = None,
    ) -> None:
        self.windows = windows
        self.evaluation = Evaluation(data="none", horizon=HORIZON, policy=policy)
        self.target, self.draft = engine(), draft or engine(noise=0.03)
        self.reference_WHC = evaluate.forecast_alone(
            self.target, windows, evaluation=self.evaluation
        )
        self.courses = courses.grow(
            self.target,
            self.draft,
            windows,
            self.reference_WHC,
            probes=probes,
            evaluation=self.evaluation,
        )

    def expected(self, *rules: Acceptance) -> closed_form.Expected:
        return closed_form.expect(self.courses, rules, steps=8)

    def counted(self, rule: Acceptance, *, seed: int = 0) -> evaluate.PairRow:
        return evaluate.judge_pair(
            self.target,
            self.draft,
            rule,
            self.windows,
            evaluation=self.evaluation,
            alone_WHC=self.reference_WHC,
            seed=seed,
        )

    def typical(self) -> float:
        """The distance that half of the proposals keep."""
        apart_RK = self.courses.distance_RKC.mean(-1)
        return float(apart_RK[apart_RK.isfinite()].median())


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("emit", ["target", "draft"])
@pytest.mark.parametrize("scope", ["joint", "variate"])
def test_of_a_rule_that_draws_no_lots_it_expects_exactly_what_decoding_counts(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy, emit: Any, scope: Any
) -> None:
    quorum = 0.5 if scope == "variate" else None
    spread = Judged(windows, policy, [Tolerance(mse_tol=1e9, lookahead=4, emit=emit)])
    rule = Tolerance(mse_tol=spread.typical(), lookahead=3, emit=emit, scope=scope, quorum=quorum)
    longest = Tolerance(mse_tol=1e9, lookahead=4, emit=emit)
    judged = Judged(windows, policy, [longest, rule])
    expected, counted = judged.expected(rule), judged.counted(rule)
    assert 0.1 < counted.acceptance_rate < 0.95
    assert float(expected.acceptance_rate_Q) == pytest.approx(counted.acceptance_rate, abs=1e-5)
    assert float(expected.accept_length_Q) == pytest.approx(counted.accept_length, abs=1e-4)
    assert float(expected.mse_Q) == pytest.approx(counted.mse, rel=1e-4)
    assert float(expected.mae_Q) == pytest.approx(counted.mae, rel=1e-4)
    assert float(expected.deviation_Q) == pytest.approx(counted.deviation, rel=1e-3, abs=1e-7)
    assert expected.pass_rates_QK[0, :3].tolist() == pytest.approx(counted.pass_rates, abs=1e-5)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("emit", ["target", "draft"])
def test_of_heads_it_expects_exactly_what_decoding_counts(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy, emit: Any
) -> None:
    torch.manual_seed(2)
    heads = Heads(HeadsConfig.of(CONFIG, patches_out=4, hidden=8)).eval()
    torch.nn.init.normal_(heads.out.weight, std=0.05)
    longest = Tolerance(mse_tol=1e9, lookahead=4, emit=emit)
    spread = Judged(windows, policy, [longest], draft=heads)
    rule = Tolerance(mse_tol=spread.typical(), lookahead=3, emit=emit)
    judged = Judged(windows, policy, [longest, rule], draft=heads)
    expected, counted = judged.expected(rule), judged.counted(rule)
    assert 0.1 < counted.acceptance_rate < 0.95
    assert float(expected.acceptance_rate_Q) == pytest.approx(counted.acceptance_rate, abs=1e-5)
    assert float(expected.accept_length_Q) == pytest.approx(counted.accept_length, abs=1e-4)
    assert float(expected.mse_Q) == pytest.approx(counted.mse, rel=1e-4)
    assert float(expected.deviation_Q) == pytest.approx(counted.deviation, rel=1e-3, abs=1e-7)
    assert expected.pass_rates_QK[0, :3].tolist() == pytest.approx(counted.pass_rates, abs=1e-5)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_of_a_rule_that_draws_lots_it_expects_what_decoding_counts_on_average(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy
) -> None:
    unit = Judged(windows, policy, [Tolerance(mse_tol=0.0, lookahead=4)]).typical()
    rule = Gaussian(sigma=unit**0.5, bias=1.2, lookahead=4)
    judged = Judged(windows, policy, [rule])
    expected = judged.expected(rule)
    seeds = [judged.counted(rule, seed=seed) for seed in range(24)]

    def mean(name: str) -> float:
        return sum(getattr(one, name) for one in seeds) / len(seeds)

    assert 0.2 < mean("acceptance_rate") < 0.9
    assert float(expected.acceptance_rate_Q) == pytest.approx(mean("acceptance_rate"), abs=0.02)
    assert float(expected.accept_length_Q) == pytest.approx(mean("accept_length"), abs=0.06)
    assert float(expected.mse_Q) == pytest.approx(mean("mse"), rel=0.01)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_of_samples_it_knows_the_noise_that_they_bring(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy
) -> None:
    rule = Lossless(sigma=0.3, lookahead=2)
    judged = Judged(windows, policy, [rule])
    counted = [judged.counted(rule, seed=seed).mse for seed in range(8)]
    expected = judged.expected(rule)
    assert float(expected.mse_Q) == pytest.approx(sum(counted) / 8, rel=0.15)
    assert expected.mae_Q.isnan()


def test_rules_together_come_to_what_each_comes_to_alone(
    windows: evaluate.EvaluationWindows,
) -> None:
    rules = [
        Gaussian(sigma=0.05 * (1 + i % 7), bias=1.0 + i % 3, lookahead=1 + i % 4) for i in range(90)
    ]
    judged = Judged(windows, ContextPolicy("cached"), rules[:4])
    together = judged.expected(*rules)
    for i in (0, 1, 41, 89):
        alone = judged.expected(rules[i])
        for many, one in zip(together, alone, strict=True):
            assert torch.allclose(many[i], one[0], atol=1e-4)


def test_a_rule_that_accepts_everything_takes_as_few_rounds_as_can_be(
    windows: evaluate.EvaluationWindows,
) -> None:
    rule = Tolerance(mse_tol=1e9, lookahead=4)
    expected = Judged(windows, ContextPolicy(), [rule]).expected(rule)
    assert float(expected.acceptance_rate_Q) == 1
    assert float(expected.accept_length_Q) == PATCHES / 2  # five patches, then the last
