"""Claims about one pass of the model: what a token sees, and that a cache changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from speculation.normalisation import Normalisation
from timer_xl import TimerXL
from timer_xl.model import Dropout

Make = Callable[..., TimerXL]
BATCH, PATCHES, VARIATES = 2, 9, 3


@pytest.fixture
def x_BNCP() -> Tensor:
    return torch.randn(BATCH, PATCHES, VARIATES, 8, generator=torch.Generator().manual_seed(3))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("positions", ["time", "flattened"])
@pytest.mark.parametrize("changed", [0, 4, PATCHES - 1])
@torch.no_grad()
def test_a_patch_changes_no_earlier_prediction_and_all_later_ones(
    make_model: Make, x_BNCP: Tensor, positions: str, changed: int
) -> None:
    model = make_model(positions=positions)
    before = model(x_BNCP).mean
    x_BNCP[:, changed] += 1.0
    moved_N = (model(x_BNCP).mean - before).abs().amax((0, 2, 3))
    assert torch.all(moved_N[:changed] == 0)
    assert torch.all(moved_N[changed:] > 1e-4)


@torch.no_grad()
def test_every_variate_of_a_patch_is_seen_by_all_variates_of_it(
    make_model: Make, x_BNCP: Tensor
) -> None:
    model = make_model(n_layers=1)
    before = model(x_BNCP).mean
    for variate in range(VARIATES):
        other = x_BNCP.clone()
        other[:, 5, variate] += 1.0
        moved_C = (model(other).mean - before)[:, 5].abs().amax((0, 2))
        assert torch.all(moved_C > 1e-4)


@torch.no_grad()
def test_the_order_of_the_variates_does_not_matter(make_model: Make, x_BNCP: Tensor) -> None:
    model, order = make_model(variance=True), [2, 0, 1]
    ours, theirs = model(x_BNCP[:, :, order]), model(x_BNCP)
    assert close(ours.mean, theirs.mean[:, :, order])
    assert close(ours.log_variance, theirs.log_variance[:, :, order])


@torch.no_grad()
def test_the_bias_tells_a_variate_from_the_others(make_model: Make, x_BNCP: Tensor) -> None:
    model = make_model()
    before = model(x_BNCP).mean
    for block in model.blocks:
        block.attention.bias_2H.copy_(block.attention.bias_2H.flip(0))
    assert (model(x_BNCP).mean - before).abs().max() > 1e-2


@pytest.mark.parametrize("last", [1, 4, PATCHES])
def test_the_last_patches_alone_are_predicted_and_learnt_as_among_all(
    make_model: Make, x_BNCP: Tensor, last: int
) -> None:
    model = make_model()
    whole = model(x_BNCP).mean[:, -last:]
    alone = model(x_BNCP, last=last).mean
    assert close(alone, whole)
    (wanted,) = torch.autograd.grad(whole.square().sum(), model.embedding.weight)
    (learnt,) = torch.autograd.grad(alone.square().sum(), model.embedding.weight)
    torch.testing.assert_close(learnt, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("patches_out", [1, 3])
@torch.no_grad()
def test_heads_have_the_width_of_all_patches_they_emit(
    make_model: Make, x_BNCP: Tensor, patches_out: int
) -> None:
    shape = (BATCH, PATCHES, VARIATES, patches_out * 8)
    assert make_model(patches_out=patches_out)(x_BNCP).log_variance is None
    prediction = make_model(patches_out=patches_out, variance=True)(x_BNCP)
    assert prediction.mean.shape == prediction.log_variance.shape == shape


@torch.no_grad()
def test_the_log_variance_is_bounded_whatever_the_weights(make_model: Make, x_BNCP: Tensor) -> None:
    model = make_model(variance=True)
    model.log_variance_head.weight.mul_(1e6)
    log_variance = model(x_BNCP).log_variance
    assert log_variance.abs().max() == 10.0
    assert torch.isfinite(log_variance.exp()).all()


@torch.no_grad()
def test_flattened_positions_of_one_variate_are_its_time(make_model: Make, x_BNCP: Tensor) -> None:
    flattened, time = (make_model(positions=positions) for positions in ("flattened", "time"))
    assert torch.equal(flattened(x_BNCP[:, :, :1]).mean, time(x_BNCP[:, :, :1]).mean)
    assert (flattened(x_BNCP).mean - time(x_BNCP).mean).abs().max() > 1e-3


def test_a_training_step_under_autocast_reaches_every_parameter(
    make_model: Make, x_BNCP: Tensor
) -> None:
    model = make_model(variance=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(x_BNCP)
    loss = prediction.mean.square().mean() + prediction.log_variance.square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_alone(make_model: Make, x_BNCP: Tensor) -> None:
    model = make_model(dropout=0.5)
    assert torch.equal(model(x_BNCP).mean, model(x_BNCP).mean)
    model.train()
    assert not torch.equal(model(x_BNCP).mean, model(x_BNCP).mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.001, 0.1, 0.3, 0.9, 0.999])
def test_dropout_zeroes_the_share_asked_for_and_keeps_the_mean(
    probability: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    dropout = Dropout(probability)
    drawn = torch.stack([dropout(torch.ones(257, 31, dtype=dtype)) for _ in range(400)])
    count = drawn.numel()
    # Five deviations of the binomial, and what the drawn threshold adds to it.
    near = 5 * (probability * (1 - probability) / count + 0.25 / 256**2 / 400) ** 0.5
    assert (drawn == 0).double().mean().item() == pytest.approx(probability, abs=near)
    kept = drawn[drawn != 0]
    assert torch.all(kept == torch.tensor(1 / (1 - probability), dtype=dtype))


def test_dropout_drops_from_the_gradient_what_it_drops_from_the_value() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 33, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(y, x * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}


@pytest.mark.parametrize("last", [1, PATCHES])
@torch.no_grad()
def test_training_with_hardly_any_dropout_is_evaluation(
    make_model: Make, x_BNCP: Tensor, last: int
) -> None:
    model = make_model(dropout=1e-12)
    evaluated = model(x_BNCP, last=last).mean
    assert close(model.train()(x_BNCP, last=last).mean, evaluated)


def test_a_normalised_window_has_mean_zero_and_deviation_one(x_BNCP: Tensor) -> None:
    window = 3.0 * x_BNCP + 7.0
    normalisation = Normalisation.of(window)
    standard = normalisation.apply(window)
    assert standard.mean((1, 3)).abs().max() < 1e-5
    assert (standard.var((1, 3), correction=0) - 1).abs().max() < 1e-4
    assert torch.allclose(normalisation.invert(standard), window, atol=1e-5)


def test_a_constant_window_is_normalised_to_zeros_not_to_nan() -> None:
    window = torch.full((1, 4, 2, 8), 5.0)
    normalisation = Normalisation.of(window)
    assert torch.equal(normalisation.apply(window), torch.zeros_like(window))
    assert torch.equal(normalisation.invert(torch.zeros_like(window)), window)


@pytest.mark.parametrize("kind", [{"positions": "flattened"}, {"activation": "gelu"}])
@torch.no_grad()
def test_a_layout_kept_from_one_pass_does_not_leak_into_another(
    make_model: Make, x_BNCP: Tensor, kind: dict[str, Any]
) -> None:
    """One model reads windows of many shapes; each pass equals that of a model that is new."""
    used = make_model(**kind)
    for patches, variates in ((9, 3), (4, 3), (9, 1), (4, 2), (9, 3)):
        part = x_BNCP[:, :patches, :variates]
        assert torch.equal(used(part).mean, make_model(**kind)(part).mean)
