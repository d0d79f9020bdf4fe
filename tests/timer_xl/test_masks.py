"""Claims about masks: they are spelled out for a pass, and kept only where they are small.

A mask over tokens is a future over patches and a bias over variates. Whatever an engine is asked,
all that it keeps beside its weights is at most twice the keys and values of one sample (or a
mebibyte), and what it keeps is the same mask as the one that it would make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from speculation import ContextPolicy, Tolerance, rollout, speculate
from timer_xl import Engine, TimerXL, masks

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]
POLICIES = (ContextPolicy(), ContextPolicy("cached"), ContextPolicy("cached", 3))


def tensors_of(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors that lead from an object, through whatever it is made of."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_of(value, seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors_of(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from tensors_of(vars(thing), seen)


def bytes_of(engine: Any) -> int:
    """Bytes of all storages that an engine holds, each counted once."""
    storages = {}
    for tensor in tensors_of(engine, set()):
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def decode(target: Any, draft: Any, context_BTC: Tensor, *, horizon: int, lookahead: int) -> None:
    """Forecasts of every kind, samples unequally far among them."""
    for policy in POLICIES:
        rollout(target, context_BTC, horizon=horizon, policy=policy)
        for seed in range(3):
            rule = Tolerance(mse_tol=1.0, lookahead=lookahead, forced=0.7)
            speculate(
                target,
                draft,
                context_BTC,
                horizon=horizon,
                acceptance=rule,
                policy=policy,
                generator=torch.Generator().manual_seed(seed),
            )


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("variates", [7, 54])
def test_an_engine_keeps_at_most_twice_the_keys_and_values_of_a_sample(
    make_model: Make, make_series: MakeSeries, layers: int, variates: int
) -> None:
    horizon, lookahead = 120, 5
    target = Engine(make_model(n_layers=layers))
    draft = Engine(make_model(n_layers=layers, patches_out=3))
    before = bytes_of(target)
    context_BTC = make_series(2, variates=variates)
    decode(target, draft, context_BTC, horizon=horizon, lookahead=lookahead)
    patches = target.config.context_patches + horizon // 8 + lookahead
    cache = target.new_cache(batch=1, patches=patches, variates=variates)
    assert bytes_of(target) - before <= max(2 * cache.store_L2BHSE.nbytes, 2 * masks.ALWAYS_KEPT)


def test_what_an_engine_keeps_does_not_grow_with_how_often_it_is_asked(
    make_model: Make, make_series: MakeSeries
) -> None:
    target, draft = Engine(make_model()), Engine(make_model(patches_out=3))
    kept = []
    for seed in range(3):
        context_BTC = make_series(2, variates=7, seed=seed)
        decode(target, draft, context_BTC, horizon=64, lookahead=4)
        kept.append(bytes_of(target))
    assert kept[1] == kept[2]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_mask_that_is_kept_is_the_one_that_would_be_made(
    make_model: Make,
    make_series: MakeSeries,
    monkeypatch: pytest.MonkeyPatch,
    layers: int,
) -> None:
    context_BTC = make_series(3)
    forecasts = []
    for allowed in (2**30, 0):
        monkeypatch.setattr(masks, "ALWAYS_KEPT", allowed)
        monkeypatch.setattr(masks, "CACHES_WORTH", 0)
        target, draft = (Engine(make_model(seed, n_layers=layers)) for seed in (0, 1))
        rule = Tolerance(mse_tol=1.0, lookahead=4, forced=0.6)
        for policy in POLICIES:
            for again in range(2):
                told = speculate(
                    target,
                    draft,
                    context_BTC,
                    horizon=61,
                    acceptance=rule,
                    policy=policy,
                    generator=torch.Generator().manual_seed(again),
                )
                forecasts.append(told.forecast_BTC)
        assert bool(target.masks.patches) == (allowed > 0)
    half = len(forecasts) // 2
    for kept, made in zip(forecasts[:half], forecasts[half:], strict=True):
        assert torch.equal(kept, made)


def test_every_pass_is_a_corner_of_one_square() -> None:
    biases = [torch.randn(2, 3, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    square = masks.SquareMasks(biases, head_width=1_000)
    assert square.grow(9, 2)
    assert not square.grow(7, 2), "there is room already"
    for start, queries in ((0, 1), (0, 9), (3, 4), (8, 1)):
        corners = square.corners(queries, start + queries, 2)
        assert corners is not None
        device = torch.device("cpu")
        unseen = masks.later_patches(start, queries, start + queries, device=device)
        for bias, corner in zip(biases, corners, strict=True):
            assert torch.equal(corner, masks.spelled_out(bias, unseen, 2))
    assert square.corners(1, 10, 2) is None
    assert square.corners(1, 1, 3) is None


def test_a_mask_lets_all_variates_of_a_patch_see_each_other_and_no_later_patch() -> None:
    bias_2H = torch.tensor([[-1.0], [5.0]])
    start_B = torch.tensor([0, 1])
    unseen = masks.later_patches(start_B, 1, 3, device=torch.device("cpu"))
    mask = masks.spelled_out(bias_2H, unseen, 2)
    inf = float("inf")
    assert mask[0, 0].tolist() == [[5, -1, -inf, -inf, -inf, -inf], [-1, 5, *[-inf] * 4]]
    assert mask[1, 0].tolist() == [[5, -1, 5, -1, -inf, -inf], [-1, 5, -1, 5, -inf, -inf]]
