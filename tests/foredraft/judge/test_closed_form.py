"""Claims about the closed form: for a draft near its target, what it expects is what counts."""

from __future__ import annotations

import pytest
import torch

from foredraft.judge import closed_form, evaluate
from foredraft.settings.config import Evaluation
from speculation import ContextPolicy, Tolerance
from timer_xl import Engine, TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=16, n_layers=1)
PATCHES = 6


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
    series = torch.randn(24, 32 + PATCHES * 8, 3).cumsum(1)
    return evaluate.EvaluationWindows(series[:, :32], series[:, 32:])


def evaluation(policy: ContextPolicy) -> Evaluation:
    return Evaluation(data="none", horizon=PATCHES * 8, policy=policy)


def distances(
    target: Engine, draft: Engine, windows: evaluate.EvaluationWindows, policy: ContextPolicy
) -> torch.Tensor:
    return closed_form.draft_distances(
        target, draft, windows, lookahead=4, evaluation=evaluation(policy)
    )


POLICIES = [ContextPolicy(), ContextPolicy("cached"), ContextPolicy("cached", 3)]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_draft_equal_to_its_target_is_at_no_distance(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy
) -> None:
    apart = distances(engine(), engine(), windows, policy)
    assert apart[~apart.isnan()].max() < 1e-6
    # The last start of the horizon has room for one proposal, the first for all four.
    assert apart[:, -1].isnan().float().mean() == pytest.approx(3 / 4)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("scope", ["joint", "variate"])
def test_for_a_draft_near_its_target_the_closed_form_is_what_decoding_counts(
    windows: evaluate.EvaluationWindows, policy: ContextPolicy, scope: str
) -> None:
    target, draft = engine(), engine(noise=0.02)
    apart = distances(target, draft, windows, policy)
    first = apart[:, :, 0] if scope == "variate" else apart[:, :, 0].mean(-1)
    rule = Tolerance(
        mse_tol=float(first[~first.isnan()].quantile(0.6)),
        lookahead=3,
        scope=scope,  # type: ignore[arg-type]
        quorum=0.5 if scope == "variate" else None,
    )
    expected = closed_form.expected_row(apart, rule, steps=8)
    context = evaluation(policy)
    counted = evaluate.judge_pair(
        target,
        draft,
        rule,
        windows,
        evaluation=context,
        alone_WHC=evaluate.forecast_alone(target, windows, evaluation=context),
    )
    assert 0.1 < counted.acceptance_rate < 0.9
    assert expected.acceptance_rate == pytest.approx(counted.acceptance_rate, abs=0.08)
    assert expected.accept_length == pytest.approx(counted.accept_length, abs=0.25)


def test_a_rule_that_accepts_everything_is_expected_to_take_as_few_rounds_as_can_be(
    windows: evaluate.EvaluationWindows,
) -> None:
    apart = distances(engine(), engine(noise=0.02), windows, ContextPolicy())
    row = closed_form.expected_row(apart, Tolerance(mse_tol=1e9, lookahead=4), steps=8)
    assert row.acceptance_rate == 1
    assert row.accept_length == PATCHES / 2  # five patches, then the last
