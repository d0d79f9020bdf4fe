"""Claims about what a decoding step reads, against loops that read everything anew."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from speculation import ContextPolicy, Tolerance, rollout, speculate
from speculation.distribution import Outlook
from speculation.history import History
from speculation.rereading import SlidingContext
from timer_xl import Engine, TimerXL
from timer_xl.context import FoldedContext

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]

POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "renormed": ContextPolicy("cached", renorm_every=3),
}
per_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


@torch.no_grad()
def naive_rollout(
    model: TimerXL, context_BTC: Tensor, *, horizon: int, policy: ContextPolicy
) -> Tensor:
    """The forecast by reading all that follows the anchor in one uncached pass per step."""
    patch, size, patches_out = model.config.patch, model.config.context, model.config.patches_out
    series, anchor, emitted, patches = context_BTC, 0, 0, -(-horizon // patch)
    while emitted < patches:
        every = policy.renorm_every
        if policy.kind == "sliding" or (every and emitted % every == 0):
            anchor = series.shape[1] - size
        count = min(patches_out, patches - emitted, every - emitted % every if every else patches)
        window = series[:, anchor : anchor + size]
        mean, deviation = torch.zeros(()), torch.ones(())
        if model.config.revin:
            mean = window.mean(1, keepdim=True)
            deviation = (window.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        read = (series[:, anchor:] - mean) / deviation
        after_last = model(read.unflatten(1, (-1, patch)).transpose(2, 3)).mean[:, -1]
        step = after_last.mT[:, : count * patch] * deviation + mean
        series, emitted = torch.cat((series, step), 1), emitted + count
    return series[:, size : size + horizon]


@per_policy
@pytest.mark.parametrize("patches_out", [1, 2, 5])
@pytest.mark.parametrize("variates", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("horizon", [3, 8, 75])
def test_a_rollout_equals_a_loop_that_reads_everything_anew(
    make_model: Make,
    make_series: MakeSeries,
    policy: ContextPolicy,
    patches_out: int,
    variates: int,
    layers: int,
    horizon: int,
) -> None:
    model = make_model(patches_out=patches_out, n_layers=layers)
    context = make_series(3, variates=variates)
    ours = rollout(model, context, horizon=horizon, policy=policy)
    assert ours.shape == (3, horizon, variates)
    theirs = naive_rollout(model, context, horizon=horizon, policy=policy)
    assert torch.allclose(ours, theirs, atol=1e-5)


@per_policy
@pytest.mark.parametrize("revin", [True, False], ids=["revin", "raw"])
@pytest.mark.parametrize("patches_out", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_in_double_precision_forecasts_in_double_precision(
    make_model: Make,
    make_series: MakeSeries,
    policy: ContextPolicy,
    revin: bool,
    patches_out: int,
    layers: int,
) -> None:
    """With and without RevIN; a context in single precision is read in the model's."""
    model = make_model(n_layers=layers, patches_out=patches_out, revin=revin).double()
    context = make_series().double()
    ours = rollout(model, context, horizon=75, policy=policy)
    theirs = naive_rollout(model, context, horizon=75, policy=policy)
    assert ours.dtype == torch.float64
    assert torch.allclose(ours, theirs, atol=1e-11, rtol=0)
    single = context.float()
    exact = rollout(model, single.double(), horizon=75, policy=policy)
    assert torch.equal(rollout(model, single, horizon=75, policy=policy), exact)


@per_policy
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("context_dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("draft_dtype", [torch.float64, torch.bfloat16])
def test_models_and_contexts_of_unlike_precision_decode_together(
    make_model: Make,
    make_series: MakeSeries,
    policy: ContextPolicy,
    layers: int,
    context_dtype: torch.dtype,
    draft_dtype: torch.dtype,
) -> None:
    target = make_model(n_layers=layers)
    draft, context = copy.deepcopy(target).to(draft_dtype), make_series().to(context_dtype)
    rule = Tolerance(mse_tol=0.01)
    ours = speculate(target, draft, context, horizon=61, acceptance=rule, policy=policy)
    alone = rollout(target, context, horizon=61, policy=policy)
    assert ours.forecast_BTC.dtype == torch.promote_types(draft_dtype, torch.float32) or (
        ours.forecast_BTC.dtype == context_dtype
    )
    assert ours.acceptance_rate > 0.9
    assert (ours.forecast_BTC - alone).abs().mean() < 0.05


@per_policy
@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_without_revin_answers_in_the_units_that_it_is_given(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy, layers: int
) -> None:
    """So does its draft: what is accepted is judged in those units."""
    model, context = make_model(n_layers=layers, revin=False), 3 * make_series() + 1
    theirs = naive_rollout(model, context, horizon=75, policy=policy)
    assert torch.allclose(rollout(model, context, horizon=75, policy=policy), theirs, atol=1e-5)
    normalised = make_model(n_layers=layers)
    assert (rollout(normalised, context, horizon=75, policy=policy) - theirs).abs().max() > 0.1
    rule = Tolerance(mse_tol=1e-4, lookahead=3)
    ours = speculate(model, model, context, horizon=75, acceptance=rule, policy=policy)
    assert ours.accepted == ours.proposed
    assert torch.allclose(ours.forecast_BTC, theirs, atol=1e-5)


def after_a_step_in_level(kind: Any, model: TimerXL, series_BTC: Tensor) -> Outlook:
    """What follows a series whose first window is its first 32 steps, read patch by patch."""
    later_BNCP = series_BTC[:, 32:].unflatten(1, (-1, 8)).transpose(2, 3)
    count = later_BNCP.shape[1]
    history = History(series_BTC[:, :32], patch=8, room=count, keep_proposals=False)
    context = kind(Engine(model), history)
    for index in range(count):
        context.predict(ahead=0, last=1)
        history.commit(later_BNCP[:, index : index + 1], 1)
    outlook: Outlook = context.predict(ahead=0, last=1)
    return outlook


@pytest.mark.parametrize("step", [0.0, 10.0, 1000.0])
def test_a_level_far_from_the_first_windows_costs_a_one_layer_model_no_precision(
    make_model: Make, make_series: MakeSeries, step: float
) -> None:
    """Half-precision weights err as much as if every window were encoded anew."""
    model, series = make_model(n_layers=1), make_series(16, steps=72)
    series[:, 32:] += step
    exact = after_a_step_in_level(SlidingContext, copy.deepcopy(model).double(), series.double())

    def error(kind: Any) -> Tensor:
        half = after_a_step_in_level(kind, copy.deepcopy(model).bfloat16(), series)
        return ((half.mean - exact.mean) / exact.unit).square().mean().sqrt()

    assert error(FoldedContext) < 1.2 * error(SlidingContext)


def test_an_offset_that_dwarfs_the_signal_does_not_drown_a_one_layer_model(
    make_model: Make, make_series: MakeSeries
) -> None:
    """Its keys are of patches that no window has normalised."""
    model, offset = make_model(n_layers=1).double(), 1e4
    context = make_series()
    exact = naive_rollout(model, context.double() + offset, horizon=75, policy=ContextPolicy())
    ours = rollout(model.float(), context + offset, horizon=75)
    assert (ours - exact).abs().max() < 10 * offset * torch.finfo(torch.float32).eps


def test_flattened_positions_slide_over_several_variates(
    make_model: Make, make_series: MakeSeries
) -> None:
    model, context = make_model(positions="flattened"), make_series()
    theirs = naive_rollout(model, context, horizon=43, policy=POLICIES["sliding"])
    assert torch.allclose(rollout(model, context, horizon=43), theirs, atol=1e-5)


def test_the_policies_are_three_different_forecasts(
    make_model: Make, make_series: MakeSeries
) -> None:
    model, context = make_model(), make_series()
    sliding, cached, renormed = (
        rollout(model, context, horizon=48, policy=policy) for policy in POLICIES.values()
    )
    assert torch.allclose(sliding[:, :8], cached[:, :8], atol=1e-5)
    assert (sliding[:, 8:] - cached[:, 8:]).abs().max() > 1e-2
    assert torch.allclose(cached[:, :24], renormed[:, :24], atol=1e-5)
    assert (cached[:, 24:] - renormed[:, 24:]).abs().max() > 1e-2


@per_policy
def test_a_longer_horizon_begins_as_a_shorter_one(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy
) -> None:
    model, context = make_model(), make_series()
    long = rollout(model, context, horizon=64, policy=policy)
    for horizon in (1, 8, 30):
        short = rollout(model, context, horizon=horizon, policy=policy)
        assert torch.allclose(short, long[:, :horizon], atol=1e-6)


@per_policy
def test_a_shift_and_a_stretch_of_the_data_shift_and_stretch_the_forecast(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy
) -> None:
    model, context = make_model(), make_series()
    plain = rollout(model, context, horizon=40, policy=policy)
    moved = rollout(model, 50.0 * context - 200.0, horizon=40, policy=policy)
    assert torch.allclose((moved + 200.0) / 50.0, plain, atol=2e-3)


@per_policy
def test_the_context_is_left_as_it_was(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy
) -> None:
    model, context = make_model(), make_series()
    before = context.clone()
    rollout(model, context, horizon=40, policy=policy)
    rule = Tolerance(mse_tol=0.1, emit="draft")
    speculate(model, make_model(1), context, horizon=40, acceptance=rule, policy=policy)
    assert torch.equal(context, before)


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("renorm_every", {"kind": "sliding", "renorm_every": 4}),
        ("renorm_every", {"kind": "cached", "renorm_every": -1}),
        ("renorm_every", {"kind": "cached", "renorm_every": 1}),
        ("context policy", {"kind": "windowed"}),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_field(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is [^\n]+$"):
        ContextPolicy(**settings)


def test_a_cached_policy_refuses_positions_that_cannot_be_kept(
    make_model: Make, make_series: MakeSeries
) -> None:
    model, context, policy = make_model(positions="flattened"), make_series(), POLICIES["cached"]
    rule, refused = Tolerance(mse_tol=0.1), r"^positions is 'flattened'.*'sliding'"
    with pytest.raises(ValueError, match=refused):
        rollout(model, context, horizon=16, policy=policy)
    with pytest.raises(ValueError, match=refused):
        speculate(model, model, context, horizon=16, acceptance=rule, policy=policy)


def test_a_model_that_has_decoded_can_still_be_trained(
    make_model: Make, make_series: MakeSeries
) -> None:
    """Validation by decoding comes before the first training step; what it left must not bite."""
    model, context = make_model(), make_series()
    rollout(model, context, horizon=24)
    loss = model(context.unflatten(1, (4, 8)).transpose(2, 3)).mean.square().mean()
    loss.backward()
    assert model.embedding.weight.grad is not None


def test_a_forecast_can_be_the_target_of_a_training_loss(
    make_model: Make, make_series: MakeSeries
) -> None:
    """Distillation learns from the target's own rollouts."""
    target, draft, context = make_model(), make_model(1), make_series()
    teacher = rollout(target, context, horizon=8)
    ours = draft(context.unflatten(1, (4, 8)).transpose(2, 3)).mean[:, -1].mT
    (ours - teacher).square().mean().backward()
    torch.nn.functional.mse_loss(ours.detach().requires_grad_(), teacher).backward()
    assert draft.embedding.weight.grad is not None
