"""Claims about heads on a Timer: they serve it under each of its policies, as a model would."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from speculation import ContextPolicy, Tolerance, families, rollout, speculate
from speculation.heads import Heads, HeadsConfig
from speculation.policy import PolicyKind
from timer import TimerConfig

CONFIG = TimerConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=32, n_layers=2)
HORIZON = 60


@pytest.mark.parametrize("kind", get_args(PolicyKind))
def test_where_all_heads_are_rejected_the_forecast_is_the_targets_own(kind: PolicyKind) -> None:
    torch.manual_seed(0)
    target = families.build(CONFIG).eval().engine()
    heads = Heads(HeadsConfig.of(CONFIG, patches_out=4)).eval()
    torch.nn.init.normal_(heads.out.weight, std=0.1)
    context_BTC, policy = torch.randn(3, 32, 2), ContextPolicy(kind)
    own_BTC = rollout(target, context_BTC, horizon=HORIZON, policy=policy)
    none = speculate(
        target,
        heads,
        context_BTC,
        horizon=HORIZON,
        policy=policy,
        acceptance=Tolerance(mse_tol=0.0, lookahead=3),
    )
    assert none.accepted == 0
    torch.testing.assert_close(none.forecast_BTC, own_BTC, rtol=1e-5, atol=1e-5)
    every = speculate(
        target,
        heads,
        context_BTC,
        horizon=HORIZON,
        policy=policy,
        acceptance=Tolerance(mse_tol=1e9, lookahead=3),
    )
    assert every.acceptance_rate == 1.0
    # Eight patches: one without a proposal, as nothing was read before it, then four and three.
    assert every.passes == 3
