"""Tiny models and series for the claims about decoding; one thread, as tests are many and small."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from timer_xl import TimerXL, TimerXLConfig

TINY: dict[str, Any] = {
    "patch": 8,
    "context": 32,
    "d_model": 32,
    "n_heads": 4,
    "d_ff": 48,
    "n_layers": 2,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TimerXL]:
    """A model of random weights, its variate biases too, in inference mode."""

    def build(seed: int = 0, **changes: Any) -> TimerXL:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = TimerXL(TimerXLConfig(**(TINY | changes)))
            for block in model.blocks:
                torch.nn.init.normal_(block.attention.bias_2H, std=2.0)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def make_near() -> Callable[..., TimerXL]:
    """A copy of a model whose weights were moved a little: a draft that is right at times."""

    def build(model: TimerXL, *, amount: float, seed: int = 1) -> TimerXL:
        near = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in near.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(amount * parameter.abs().mean() * noise)
        return near

    return build


@pytest.fixture(scope="session")
def make_series() -> Callable[..., Tensor]:
    """Series [batch, steps, variates] of scale about one; rows differ in period, level, noise."""

    def build(batch: int = 4, *, steps: int = 32, variates: int = 3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        time = torch.arange(steps)[None, :, None]
        shape = (batch, 1, variates)
        period = 4 + 20 * torch.rand(shape, generator=generator)
        phase = 6.3 * torch.rand(shape, generator=generator)
        noise = torch.randn(batch, steps, variates, generator=generator)
        loudness = 1.5 * torch.rand(shape, generator=generator)
        level = torch.randn(shape, generator=generator)
        return level + torch.sin(6.28 * time / period + phase) + loudness * noise

    return build
