"""The plain loop that the engine is measured against forecasts the same."""

import runpy
from pathlib import Path

import pytest
import torch

from speculation import rollout
from timer_xl import TimerXL, TimerXLConfig

REFERENCE = Path(__file__).parents[2] / "benchmarks" / "reference_rolling.py"


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("horizon", [5, 96, 200])
def test_the_reference_loop_and_the_engine_forecast_the_same(layers: int, horizon: int) -> None:
    torch.manual_seed(0)
    config = TimerXLConfig(patch=24, context=168, d_model=64, n_heads=4, d_ff=128, n_layers=layers)
    model = TimerXL(config).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.bias_2H)
    context = torch.randn(3, 168, 7).cumsum(1)
    plain = runpy.run_path(str(REFERENCE))["rolling_forecast"]
    theirs = plain(model, context, horizon=horizon)
    ours = rollout(model, context, horizon=horizon)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-5 * float(context.abs().max()))
