"""Claims about models on disk: nothing is lost, and a foreign checkpoint forecasts as its own code.

`OpenTimerXL` is the forward pass of OpenLTM's Timer-XL written out from its mathematics, one
token, one head and one row of the mask at a time, in double precision.
"""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from speculation import rollout
from speculation.checkpoint import load, save
from timer_xl import TimerXL
from timer_xl.checkpoint import import_openltm

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]
PATCH, CONTEXT, WIDTH, HEADS, WIDE = 6, 24, 16, 2, 20


def random_state(
    *, layers: int = 2, patches_out: int = 1, stochastic: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """A state dict under OpenLTM's names (STRIDE's, for the stochastic draft), of random values."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def put(name: str, *shape: int, deviation: float | None = None, around: float = 0.0) -> None:
        scale = deviation or shape[-1] ** -0.5
        state[name] = around + scale * torch.randn(shape, generator=generator)

    def linear(name: str, rows: int, columns: int) -> None:
        put(f"{name}.weight", rows, columns)
        put(f"{name}.bias", rows, deviation=0.3)

    def norm(name: str) -> None:
        put(f"{name}.weight", WIDTH, deviation=0.2, around=1.0)
        put(f"{name}.bias", WIDTH, deviation=0.2)

    linear("embedding", WIDTH, PATCH)
    for layer in range(layers):
        prefix = f"blocks.attn_layers.{layer}"
        for part in ("query", "key", "value", "out"):
            linear(f"{prefix}.attention.{part}_projection", WIDTH, WIDTH)
        put(f"{prefix}.attention.inner_attention.attn_bias.emb.weight", 2, HEADS, deviation=2.0)
        put(f"{prefix}.conv1.weight", WIDE, WIDTH, 1, deviation=WIDTH**-0.5)
        put(f"{prefix}.conv1.bias", WIDE, deviation=0.3)
        put(f"{prefix}.conv2.weight", WIDTH, WIDE, 1, deviation=WIDE**-0.5)
        put(f"{prefix}.conv2.bias", WIDTH, deviation=0.3)
        norm(f"{prefix}.norm1")
        norm(f"{prefix}.norm2")
    norm("blocks.norm")
    for head in ("head_mean", "head_logvar") if stochastic else ("head",):
        linear(head, patches_out * PATCH, WIDTH)
    return state


class OpenTimerXL:
    """Timer-XL over a variate-major sequence, as the paper's authors lay it out."""

    def __init__(
        self,
        state: dict[str, Tensor],
        *,
        activation: str = "relu",
        use_norm: bool = True,
        flash_attention: bool = False,
    ) -> None:
        self.use_norm, self.flash_attention = use_norm, flash_attention
        self.state = {name: value.double() for name, value in state.items()}
        self.layers = len([name for name in state if name.endswith("conv1.weight")])
        self.activation = activation

    def next_patches(self, window_BTC: Tensor, *, head: str = "head") -> Tensor:
        """What follows each patch of the windows, still normalised, [B, C, N, head]."""
        batch, steps, variates = window_BTC.shape
        count = steps // PATCH
        # Token number variate * N + patch.
        tokens = window_BTC.mT.reshape(batch, variates * count, PATCH)
        x = self.linear("embedding", tokens)
        for layer in range(self.layers):
            name = f"blocks.attn_layers.{layer}"
            x = self.norm(f"{name}.norm1", x + self.attention(f"{name}.attention", x, count))
            hidden = self.pointwise(f"{name}.conv1", x)
            hidden = hidden.clamp_min(0) if self.activation == "relu" else gelu(hidden)
            x = self.norm(f"{name}.norm2", x + self.pointwise(f"{name}.conv2", hidden))
        out = self.linear(head, self.norm("blocks.norm", x))
        return out.reshape(batch, variates, count, -1)

    def forecast(self, window_BTC: Tensor) -> Tensor:
        """The steps after the window, [B, width of the head, C], in the data's units."""
        mean, spread = torch.zeros(()), torch.ones(())
        if self.use_norm:
            mean = window_BTC.mean(1, keepdim=True)
            spread = ((window_BTC - mean).square().mean(1, keepdim=True) + 1e-5).sqrt()
        head = "head" if "head.weight" in self.state else "head_mean"
        out = self.next_patches((window_BTC - mean) / spread, head=head)[:, :, -1]
        return out.mT * spread + mean

    def rolled(self, context_BTC: Tensor, *, horizon: int) -> Tensor:
        """The rolling forecast: predict, append, slide the window over what was predicted."""
        series = context_BTC.double()
        while series.shape[1] < CONTEXT + horizon:
            series = torch.cat((series, self.forecast(series[:, -CONTEXT:])), 1)
        return series[:, CONTEXT : CONTEXT + horizon]

    def attention(self, name: str, x: Tensor, count: int) -> Tensor:
        width = WIDTH // HEADS
        bias = self.state[f"{name}.inner_attention.attn_bias.emb.weight"]
        query, key, value = (
            self.linear(f"{name}.{part}_projection", x) for part in ("query", "key", "value")
        )
        out = torch.zeros_like(x)
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            turned_query, turned_key = turned(query[..., part]), turned(key[..., part])
            for index in range(x.shape[1]):
                variate, patch = divmod(index, count)
                seen = [other for other in range(x.shape[1]) if other % count <= patch]
                score = (turned_key[:, seen] * turned_query[:, index : index + 1]).sum(-1)
                same = [int(other // count == variate) for other in seen]
                # PyTorch's own attention, which the flag turns to, divides the products alone.
                inside, outside = (0, 1) if self.flash_attention else (1, 0)
                score = (score + inside * bias[same, head]) / math.sqrt(width)
                weight = (score + outside * bias[same, head]).softmax(-1)
                out[:, index, part] = (weight[..., None] * value[:, seen, part]).sum(1)
        return self.linear(f"{name}.out_projection", out)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].mT + self.state[f"{name}.bias"]

    def pointwise(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"][:, :, 0].mT + self.state[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def turned(x: Tensor) -> Tensor:
    """The first half of the last axis as complex numbers, each turned by its token's index."""
    half = x.shape[-1] // 2
    pairs = torch.view_as_complex(x[..., :half].reshape(*x.shape[:-1], half // 2, 2))
    speed = 10_000.0 ** (-2.0 * torch.arange(half // 2, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speed
    spun = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle))
    return torch.cat((spun.reshape(*x.shape[:-1], half), x[..., half:]), -1)


def gelu(x: Tensor) -> Tensor:
    return x * torch.special.ndtr(x)


def imported(path: Path, state: dict[str, Tensor], **settings: Any) -> TimerXL:
    torch.save(state, path)
    return import_openltm(path, context=CONTEXT, **settings)


STATES: dict[str, dict[str, Any]] = {
    "one_layer": {"layers": 1},
    "three_layers": {"layers": 3, "seed": 4},
    "two_patches_out": {"patches_out": 2},
    "stochastic": {"stochastic": True},
}


@pytest.mark.parametrize("kind", STATES.values(), ids=STATES)
@pytest.mark.parametrize("horizon", [PATCH, 5 * PATCH - 2], ids=["one_step", "rolling"])
@pytest.mark.parametrize("variates", [1, 3])
def test_an_imported_checkpoint_forecasts_as_the_code_that_wrote_it(
    tmp_path: Path, make_series: MakeSeries, kind: dict[str, Any], horizon: int, variates: int
) -> None:
    state = random_state(**kind)
    model = imported(tmp_path / "checkpoint.pth", state)
    context = 3.0 + 2.0 * make_series(2, steps=CONTEXT, variates=variates)
    theirs = OpenTimerXL(state).rolled(context, horizon=horizon)
    assert torch.allclose(rollout(model, context, horizon=horizon).double(), theirs, atol=1e-5)


def test_the_variance_of_an_imported_stochastic_draft_is_its_own(
    tmp_path: Path, make_series: MakeSeries
) -> None:
    state = random_state(stochastic=True)
    model = imported(tmp_path / "checkpoint.pth", state)
    x = make_series(2, steps=CONTEXT)
    theirs = OpenTimerXL(state).next_patches(x.double(), head="head_logvar")
    ours = model(x.unflatten(1, (-1, PATCH)).transpose(2, 3)).log_variance
    assert torch.allclose(ours.double().transpose(1, 2), theirs, atol=1e-5)


def test_the_reference_notices_each_tensor_of_a_checkpoint(
    tmp_path: Path, make_series: MakeSeries
) -> None:
    """Else equal forecasts would say little."""
    context = make_series(2, steps=CONTEXT)
    state = random_state()
    before = OpenTimerXL(state).forecast(context.double())
    for name in state:
        other = copy.deepcopy(state)
        other[name] = other[name].flip(0)
        moved = (OpenTimerXL(other).forecast(context.double()) - before).abs().max()
        assert moved > 1e-4, name


@pytest.mark.parametrize("wrapper", ["module", "state_dict"])
def test_what_training_wrapped_round_the_tensors_is_taken_off(
    tmp_path: Path, make_series: MakeSeries, wrapper: str
) -> None:
    state = random_state()
    wrapped: dict[str, Any] = (
        {f"module.{name}": value for name, value in state.items()}
        if wrapper == "module"
        else {"state_dict": state, "epoch": 3}
    )
    context = make_series(2, steps=CONTEXT)
    plain = imported(tmp_path / "plain.pth", state)
    ours = imported(tmp_path / "wrapped.pth", wrapped)
    assert torch.equal(rollout(ours, context, horizon=9), rollout(plain, context, horizon=9))


def test_the_activation_that_is_given_is_the_one_that_acts(
    tmp_path: Path, make_series: MakeSeries
) -> None:
    state, context = random_state(), make_series(2, steps=CONTEXT)
    model = imported(tmp_path / "checkpoint.pth", state, activation="gelu")
    theirs = OpenTimerXL(state, activation="gelu").forecast(context.double())
    assert torch.allclose(rollout(model, context, horizon=PATCH).double(), theirs, atol=1e-5)


@pytest.mark.parametrize("use_norm", [True, False])
@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_how_a_checkpoint_was_trained_is_how_it_forecasts(
    tmp_path: Path, make_series: MakeSeries, use_norm: bool, flash_attention: bool, layers: int
) -> None:
    state, context = random_state(layers=layers), 1.0 + 2.0 * make_series(2, steps=CONTEXT)
    path = tmp_path / "checkpoint.pth"
    model = imported(path, state, revin=use_norm, flash_attention=flash_attention)
    settings = {"use_norm": use_norm, "flash_attention": flash_attention}
    theirs = OpenTimerXL(state, **settings).rolled(context, horizon=20)
    assert torch.allclose(rollout(model, context, horizon=20).double(), theirs, atol=1e-5)
    save(model, tmp_path)
    assert torch.equal(
        rollout(load(tmp_path), context, horizon=20), rollout(model, context, horizon=20)
    )
    for other in (
        settings | {"use_norm": not use_norm},
        settings | {"flash_attention": not flash_attention},
    ):
        assert (OpenTimerXL(state, **other).rolled(context, horizon=20) - theirs).abs().max() > 1e-2


def test_an_architecture_written_before_a_field_was_there_has_its_default(
    tmp_path: Path, make_model: Make
) -> None:
    model = make_model()
    save(model, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["revin"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert load(tmp_path).config == model.config
    assert model.config.revin


def test_an_imported_model_survives_saving(tmp_path: Path, make_series: MakeSeries) -> None:
    model = imported(tmp_path / "checkpoint.pth", random_state(stochastic=True))
    save(model, tmp_path)
    context = make_series(2, steps=CONTEXT)
    assert torch.equal(
        rollout(load(tmp_path), context, horizon=14), rollout(model, context, horizon=14)
    )


@pytest.mark.parametrize("name", sorted(random_state(layers=1)))
def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_file_and_tensor(
    tmp_path: Path, name: str
) -> None:
    state = random_state(layers=1)
    del state[name]
    with pytest.raises(ValueError, match=r"odd\.pth") as refusal:
        imported(tmp_path / "odd.pth", state)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["projector.weight", "blocks.norm.running_mean"])
def test_a_checkpoint_with_a_tensor_too_many_is_refused_by_file_and_tensor(
    tmp_path: Path, name: str
) -> None:
    state = random_state() | {name: torch.zeros(3)}
    with pytest.raises(ValueError, match=r"odd\.pth") as refusal:
        imported(tmp_path / "odd.pth", state)
    assert name in str(refusal.value)


@pytest.mark.parametrize("content", [b"not a checkpoint\n", b"", b"\x80\x02junk"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.pth"):
        import_openltm(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"a": torch.zeros(2)}}])
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth"):
        import_openltm(tmp_path / "other.pth")


def test_a_checkpoint_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pth does not exist"):
        import_openltm(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variance": True, "patches_out": 3},
        {"positions": "flattened", "activation": "gelu", "n_layers": 1},
    ],
    ids=["plain", "heads", "flattened"],
)
def test_a_saved_model_comes_back_bit_for_bit(
    tmp_path: Path, make_model: Make, changes: dict[str, Any]
) -> None:
    model = make_model(seed=5, dropout=0.3, **changes)
    save(model, tmp_path)
    back = load(tmp_path)
    assert back.config == model.config
    assert not back.training
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_directory_without_one_of_the_files_is_refused_by_name(
    tmp_path: Path, make_model: Make, name: str
) -> None:
    save(make_model(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name) as refusal:
        load(tmp_path)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "these are no weights\n"),
        ("model.safetensors", ""),
        ("config.json", "patch: 96\n"),
        ("config.json", '{"patch": 8, "depth": 3}'),
        ("config.json", "[8, 32]"),
        ("config.json", '{"patch": 7, "context": 32}'),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, make_model: Make, name: str, content: str
) -> None:
    save(make_model(), tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        load(tmp_path)


def test_weights_of_another_shape_are_refused_by_file_and_tensor(
    tmp_path: Path, make_model: Make
) -> None:
    save(make_model(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"d_ff": 64}))
    with pytest.raises(ValueError, match=r"model\.safetensors: blocks\.0\.widen\.weight has shape"):
        load(tmp_path)


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_weights_of_another_architecture_are_refused_by_file(
    tmp_path: Path, make_model: Make, change: str
) -> None:
    save(make_model(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change == "fewer":
        del weights["head.bias"]
    else:
        weights["log_variance_head.bias"] = torch.zeros(8)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(tmp_path)
