"""THUML's two ways to generate, in plain PyTorch, and the forecasts that the parity tests expect.

Written from the mathematics of the published code, one series, one patch, one head and one query at
a time, in double precision; it imports nothing of this project. `python tests/timer/generate.py`
writes the expected values of random checkpoints anew; nothing but a fault found in it is a reason
to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

EXPECTED = Path(__file__).with_name("expected.npz")
BASE = 10_000.0
NORM_EPSILON = 1e-5  # of PyTorch's LayerNorm


class Case(NamedTuple):
    """A random checkpoint, and what it is asked for."""

    batch: int
    variates: int
    horizon: int
    context: int
    layers: int
    heads: int
    patch: int = 8
    width: int = 16
    wide: int = 24

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return {
            "model_type": "timer",
            "architectures": ["TimerForPrediction"],
            "input_token_len": self.patch,
            "output_token_lens": [self.patch],
            "hidden_size": self.width,
            "intermediate_size": self.wide,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": "silu",
            "rope_theta": 10000,
            "attention_dropout": 0.0,
            "max_position_embeddings": 10000,
            "use_cache": True,
        }


CASES = {
    "one series": Case(batch=1, variates=1, horizon=40, context=32, layers=2, heads=2),
    "a batch": Case(batch=3, variates=1, horizon=24, context=32, layers=2, heads=2),
    "several variates": Case(batch=2, variates=3, horizon=40, context=32, layers=1, heads=4),
    "a cut horizon": Case(batch=2, variates=2, horizon=61, context=24, layers=3, heads=2),
    "a context of one patch": Case(batch=2, variates=1, horizon=48, context=8, layers=2, heads=1),
    "other widths": Case(*(1, 2, 30, 48, 2, 2), patch=6, width=24, wide=20),
}


def random_state(case: Case, *, seed: int = 0) -> dict[str, Tensor]:
    """A state dict under THUML's names, of random float32 values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, around: float = 0.0, deviation: float | None = None) -> Tensor:
        scale = deviation or shape[-1] ** -0.5
        return around + scale * torch.randn(shape, generator=generator)

    state = {"model.embed_layer.emb.weight": draw(case.width, case.patch)}
    for layer in range(case.layers):
        name = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj"):
            state[f"{name}.self_attn.{part}.weight"] = draw(case.width, case.width)
            state[f"{name}.self_attn.{part}.bias"] = draw(case.width, deviation=0.3)
        state[f"{name}.self_attn.o_proj.weight"] = draw(case.width, case.width)
        for part in ("gate_proj", "up_proj"):
            state[f"{name}.ffn_layer.{part}.weight"] = draw(case.wide, case.width)
        state[f"{name}.ffn_layer.down_proj.weight"] = draw(case.width, case.wide)
        for norm in ("norm1", "norm2"):
            state[f"{name}.{norm}.weight"] = draw(case.width, around=1.0, deviation=0.2)
            state[f"{name}.{norm}.bias"] = draw(case.width, deviation=0.2)
    state["model.norm.weight"] = draw(case.width, around=1.0, deviation=0.2)
    state["model.norm.bias"] = draw(case.width, deviation=0.2)
    state["lm_heads.0.weight"] = draw(case.patch, case.width)
    return state


def random_context(case: Case, *, seed: int = 1) -> Tensor:
    """Random walks [batch, context, variates], float32, each with a level of its own."""
    generator = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.context, case.variates)
    steps = 0.3 * torch.randn(shape, generator=generator)
    return steps.cumsum(1) + torch.randn(shape[0], 1, shape[2], generator=generator)


class PlainTimer:
    """One pass of the published model over one series, with the keys and values of earlier ones."""

    def __init__(self, state: dict[str, Tensor], *, heads: int) -> None:
        self.state = {name: value.double() for name, value in state.items()}
        self.patch = state["model.embed_layer.emb.weight"].shape[1]
        self.layers = sum(name.endswith("o_proj.weight") for name in state)
        self.heads = heads

    def __call__(self, values: Tensor, past: list[list[tuple[Tensor, Tensor]]]) -> Tensor:
        """The patch after the last of `values` [T], as its forward has it.

        `past` holds, for every layer, key and value [heads, width of a head] of every patch before;
        those of this pass are added.
        """
        mean, deviation = values.mean(), values.std()
        patches = ((values - mean) / deviation).split(self.patch)
        rows = [self.state["model.embed_layer.emb.weight"] @ patch for patch in patches]
        for layer in range(self.layers):
            rows = [self._layer(layer, row, past[layer]) for row in rows]
        hidden = self._norm("model.norm", rows[-1])
        return self.state["lm_heads.0.weight"] @ hidden * deviation + mean

    def _layer(self, layer: int, x: Tensor, past: list[tuple[Tensor, Tensor]]) -> Tensor:
        name = f"model.layers.{layer}"
        query, key, value = (
            self.state[f"{name}.self_attn.{part}_proj.weight"] @ x
            + self.state[f"{name}.self_attn.{part}_proj.bias"]
            for part in "qkv"
        )
        place = len(past)
        past.append((self._rotate(key, place), value.view(self.heads, -1)))
        query = self._rotate(query, place)
        attended = []
        for head in range(self.heads):
            scores = torch.stack([query[head] @ key[head] for key, _ in past])
            weights = (scores / query.shape[1] ** 0.5).softmax(0)
            attended.append(
                sum(weight * value[head] for weight, (_, value) in zip(weights, past, strict=True))
            )
        x = x + self.state[f"{name}.self_attn.o_proj.weight"] @ torch.cat(attended)
        x = self._norm(f"{name}.norm1", x)
        gate, up = (
            self.state[f"{name}.ffn_layer.{part}_proj.weight"] @ x for part in ("gate", "up")
        )
        fed = self.state[f"{name}.ffn_layer.down_proj.weight"] @ (gate * torch.sigmoid(gate) * up)
        return self._norm(f"{name}.norm2", x + fed)

    def _rotate(self, x: Tensor, place: int) -> Tensor:
        """[heads, E]: element i and element i + E / 2 turned by place * BASE ** (-2 i / E)."""
        x = x.view(self.heads, -1).clone()
        width = x.shape[1]
        for i in range(width // 2):
            angle = torch.tensor(place * BASE ** (-2 * i / width), dtype=torch.float64)
            first, second = x[:, i].clone(), x[:, i + width // 2].clone()
            x[:, i] = first * angle.cos() - second * angle.sin()
            x[:, i + width // 2] = second * angle.cos() + first * angle.sin()
        return x

    def _norm(self, name: str, x: Tensor) -> Tensor:
        spread = (x.var(correction=0) + NORM_EPSILON).sqrt()
        return (x - x.mean()) / spread * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def with_cache(model: PlainTimer, series: Tensor, *, horizon: int) -> Tensor:
    """Its `generate` as it is by default: each new patch is the whole input of the next pass."""
    past: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(model.layers)]
    fresh, out = series, []
    while sum(len(part) for part in out) < horizon:
        fresh = model(fresh, past)
        out.append(fresh)
    return torch.cat(out)[:horizon]


def without_cache(model: PlainTimer, series: Tensor, *, horizon: int) -> Tensor:
    """Its `generate` with `use_cache=False`: all that there is, is the input of every pass."""
    length = len(series) + horizon
    while len(series) < length:
        series = torch.cat((series, model(series, [[] for _ in range(model.layers)])))
    return series[length - horizon : length]


WAYS = {"deployed": with_cache, "growing": without_cache}
"""By the context policy that is the same."""


def expected(case: Case, policy: str) -> Tensor:
    """The forecast [batch, horizon, variates] of one case, every series by itself."""
    model = PlainTimer(random_state(case), heads=case.heads)
    context_BTC = random_context(case).double()
    rows = [
        torch.stack(
            [WAYS[policy](model, series, horizon=case.horizon) for series in one_TC.unbind(1)], 1
        )
        for one_TC in context_BTC
    ]
    return torch.stack(rows)


if __name__ == "__main__":
    forecasts = {
        f"{name}, {policy}": expected(case, policy).numpy()
        for name, case in CASES.items()
        for policy in WAYS
    }
    np.savez_compressed(EXPECTED, **forecasts)
