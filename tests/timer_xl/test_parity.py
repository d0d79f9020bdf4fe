"""Claims about the plain path: a model decodes by its own forward, and its engine does the same.

`TimerXL.forward`, with keys and values kept or with everything encoded anew, is what can be read
and what an accelerator runs; `Engine` and `Fold` are its specialisation for a CPU. Every policy,
rule and type agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speculation import (
    ContextPolicy,
    Gaussian,
    InvalidInput,
    Lossless,
    Speculation,
    Tolerance,
    rollout,
    speculate,
)
from speculation.forecaster import Context, Forecaster
from speculation.history import History
from speculation.rereading import open_rereading
from timer_xl import Engine, TimerXL

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]

RULES = {
    "tolerance": Tolerance(mse_tol=0.14, lookahead=3),
    "tolerance, draft's patches": Tolerance(mse_tol=0.14, lookahead=3, emit="draft"),
    "by variate": Tolerance(mse_tol=0.14, lookahead=5, scope="variate", quorum=0.6),
    "gaussian": Gaussian(sigma=0.2, bias=2.0, lookahead=4),
    "gaussian, sampled": Gaussian(sigma=0.5, bias=2.0, lookahead=4, propose="sample", emit="draft"),
    "lossless": Lossless(sigma=0.5, lookahead=4),
    "forced": Tolerance(mse_tol=0.14, lookahead=4, forced=0.6),
}
POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "cached, anchored": ContextPolicy("cached", 3),
}
TYPES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.2}


class Rereading:
    """A model that keeps nothing: all is encoded anew, by its forward, at each step."""

    def __init__(self, model: TimerXL) -> None:
        self.model, self.config = model, model.config
        self.device, self.precision = model.device, model.precision

    def caches(self, policy: ContextPolicy) -> bool:
        return False

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        return open_rereading(self.model, history, policy)


def told(target: Forecaster, draft: Forecaster, context_BTC: Tensor, **how: object) -> Speculation:
    generator = torch.Generator().manual_seed(0)
    return speculate(
        target,
        draft,
        context_BTC,
        horizon=61,
        generator=generator,
        **how,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("rule", RULES)
def test_a_pair_decodes_alike_by_its_engines_its_forward_and_encoding_all_anew(
    make_model: Make,
    make_near: Make,
    make_series: MakeSeries,
    layers: int,
    policy: str,
    rule: str,
) -> None:
    target = make_model(n_layers=layers).double()
    draft = make_near(target, amount=0.2)
    how = {"acceptance": RULES[rule], "policy": POLICIES[policy]}
    ways: list[Callable[[TimerXL], Forecaster]] = [Engine, lambda model: model, Rereading]
    first, *others = (told(way(target), way(draft), make_series(5).double(), **how) for way in ways)
    assert 0 < first.accepted < first.proposed
    for other in others:
        assert torch.equal(other.accept_lengths, first.accept_lengths)
        assert (other.forecast_BTC - first.forecast_BTC).abs().max() < TYPES[torch.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("changes", [{}, {"patches_out": 3}, {"revin": False}, {"variance": True}])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_of_any_type_rolls_out_alike_by_its_engine_and_its_forward(
    make_model: Make,
    make_series: MakeSeries,
    dtype: torch.dtype,
    changes: dict[str, object],
    layers: int,
    policy: str,
) -> None:
    model = make_model(n_layers=layers, **changes).to(dtype)
    context_BTC = make_series(4).to(torch.promote_types(dtype, torch.float32))
    by_engine, plainly = (
        rollout(way, context_BTC, horizon=61, policy=POLICIES[policy])
        for way in (Engine(model), model)
    )
    assert by_engine.dtype == plainly.dtype
    assert (by_engine - plainly).abs().max() < TYPES[dtype]


def test_a_model_that_is_handed_over_itself_decodes_by_its_own_forward(
    make_model: Make, make_series: MakeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passes = make_model(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    for policy in POLICIES.values():
        rollout(model, make_series(), horizon=16, policy=policy)
    assert len(passes) == 2 * len(POLICIES)


def test_a_model_in_training_is_not_asked_for_a_forecast(
    make_model: Make, make_series: MakeSeries
) -> None:
    model = copy.deepcopy(make_model()).train()
    for policy in POLICIES.values():
        with pytest.raises(InvalidInput, match="in training mode: call eval"):
            rollout(model, make_series(), horizon=16, policy=policy)


def test_eight_bits_are_refused_where_the_model_is_not_on_a_cpu(make_model: Make) -> None:
    model = copy.deepcopy(make_model()).to("meta")
    assert model.engine() is model
    with pytest.raises(InvalidInput, match="int8 is for drafts on a CPU: this one is on meta"):
        model.engine(int8=True)


def test_positions_that_depend_on_the_windows_length_are_refused_a_cache(
    make_model: Make, make_series: MakeSeries
) -> None:
    model = make_model(positions="flattened")
    with pytest.raises(InvalidInput, match="positions is 'flattened'"):
        rollout(model, make_series(), horizon=16, policy=ContextPolicy("cached"))
