"""Claims about the engine: it predicts what the model does, and a cache changes nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from timer_xl import Engine, TimerXL

Make = Callable[..., TimerXL]
BATCH, PATCHES, VARIATES = 2, 9, 3


@pytest.fixture
def x_BNCP() -> Tensor:
    return torch.randn(BATCH, PATCHES, VARIATES, 8, generator=torch.Generator().manual_seed(3))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("positions", ["time", "flattened"])
@pytest.mark.parametrize("last", [1, 4, PATCHES])
@torch.no_grad()
def test_the_last_positions_alone_are_the_tail_of_the_full_pass(
    make_model: Make, x_BNCP: Tensor, n_layers: int, positions: str, last: int
) -> None:
    model = make_model(n_layers=n_layers, positions=positions, variance=True)
    full, tail = model(x_BNCP), Engine(model)(x_BNCP, last=last)
    assert tail.mean.shape[1] == last
    assert close(tail.mean, full.mean[:, -last:])
    assert close(tail.log_variance, full.log_variance[:, -last:])


@pytest.mark.parametrize("chunks", [(9,), (1,) * 9, (4, 1, 2, 2), (1, 6, 2)])
@torch.no_grad()
def test_a_cached_pass_in_chunks_equals_one_pass(
    make_model: Make, x_BNCP: Tensor, chunks: tuple[int, ...]
) -> None:
    model = make_model()
    engine = Engine(model)
    cache = engine.new_cache(batch=BATCH, patches=PATCHES + 3, variates=VARIATES)
    parts, start = [], 0
    for size in chunks:
        parts.append(engine(x_BNCP[:, start : start + size], cache=cache, start=start).mean)
        start += size
    assert close(torch.cat(parts, 1), model(x_BNCP).mean)


@torch.no_grad()
def test_a_cached_pass_starts_at_each_samples_own_place(make_model: Make, x_BNCP: Tensor) -> None:
    """The second sample's place moves back first: what it had cached beyond is dead."""
    model = make_model()
    engine = Engine(model)
    cache = engine.new_cache(batch=BATCH, patches=PATCHES, variates=VARIATES)
    spoilt = x_BNCP.clone()
    spoilt[1, 3:] = 100.0
    engine(spoilt[:, :6], cache=cache, start=0)
    start_B = torch.tensor([6, 3])
    chunk = torch.stack([x_BNCP[b, s : s + 2] for b, s in enumerate(start_B.tolist())])
    first = engine(chunk, cache=cache, start=start_B, end=8).mean
    chunk = torch.stack([x_BNCP[b, s + 2 : s + 3] for b, s in enumerate(start_B.tolist())])
    second = engine(chunk, cache=cache, start=start_B + 2, end=9).mean
    full = model(x_BNCP).mean
    for b, s in enumerate(start_B.tolist()):
        assert close(torch.cat((first[b], second[b])), full[b, s : s + 3])


@torch.no_grad()
def test_samples_that_leave_the_cache_do_not_disturb_the_others(
    make_model: Make, x_BNCP: Tensor
) -> None:
    model = make_model()
    engine = Engine(model)
    cache = engine.new_cache(batch=BATCH, patches=PATCHES, variates=VARIATES)
    engine(x_BNCP[:, :5], cache=cache)
    cache.select(torch.tensor([1]))
    rest = engine(x_BNCP[1:, 5:], cache=cache, start=5).mean
    assert close(rest, model(x_BNCP).mean[1:, 5:])


def test_flattened_positions_refuse_a_cache_of_several_variates(make_model: Make) -> None:
    with pytest.raises(ValueError, match="positions is 'flattened'"):
        Engine(make_model(positions="flattened")).new_cache(batch=1, patches=4, variates=2)


@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_half_precision_weights_predict_nearly_the_same_in_full_precision(
    make_model: Make, x_BNCP: Tensor, cached: bool
) -> None:
    model = make_model(variance=True)
    half = Engine(copy.deepcopy(model).to(torch.bfloat16))
    cache = half.new_cache(batch=BATCH, patches=PATCHES, variates=VARIATES) if cached else None
    ours, theirs = half(x_BNCP, cache=cache), model(x_BNCP)
    assert ours.mean.dtype == ours.log_variance.dtype == torch.float32
    assert (ours.mean - theirs.mean).square().mean() < 1e-3 * theirs.mean.var()


@pytest.mark.parametrize("kind", [{}, {"activation": "gelu"}, {"n_layers": 1, "variance": True}])
@torch.no_grad()
def test_eight_bits_predict_nearly_the_same(
    make_model: Make, x_BNCP: Tensor, kind: dict[str, Any]
) -> None:
    model = make_model(**kind)
    ours, theirs = Engine(model, int8=True)(x_BNCP).mean, model(x_BNCP).mean
    assert not close(ours, theirs)
    assert (ours - theirs).square().mean() < 1e-3 * theirs.var()
