"""The common rolling loop, plainly: what `foredraft bench --reference` measures the engine against.

    forecast_BTC = rolling_forecast(model, context_BTC, horizon=1440)

Public code of Timer-XL forecasts like this: normalise the last context window, encode all of its
patches, attend from every position, predict after every position, keep the last prediction, slide
by one patch. The attention mask is made in every layer of every step, and attention is written out
as two products and a softmax. Nothing is cached and nothing is fused; nothing is made slow on
purpose either. The weights are those of a `timer_xl.TimerXL`, so that both forecasts must agree.

Shapes: B batch, T time steps, C variates, N patches, P patch length, L = N * C tokens (patch-
major), D model width, H heads, E head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from timer_xl import TimerXL
from timer_xl.model import Block

EPSILON = 1e-5


@torch.no_grad()
def rolling_forecast(model: TimerXL, context_BTC: Tensor, *, horizon: int) -> Tensor:
    """The model's forecast [B, horizon, C], patch by patch, each from a window encoded anew."""
    config = model.config
    series = context_BTC
    for _ in range(math.ceil(horizon / config.patch)):
        window = series[:, -config.context :]
        following = _forward(model, window)
        series = torch.cat((series, following[:, -config.patch :]), dim=1)
    return series[:, config.context :][:, :horizon]


def _forward(model: TimerXL, x_BTC: Tensor) -> Tensor:
    """What follows every patch of a window, [B, T, C], in the data's units."""
    patch, (batch, steps, variates) = model.config.patch, x_BTC.shape
    mean = x_BTC.mean(1, keepdim=True)
    x_BTC = x_BTC - mean
    deviation = torch.sqrt(torch.var(x_BTC, dim=1, keepdim=True, unbiased=False) + EPSILON)
    x_BTC = x_BTC / deviation
    patches = steps // patch
    x_BNCP = x_BTC.reshape(batch, patches, patch, variates).transpose(2, 3)
    tokens_BLD = model.embedding(x_BNCP.reshape(batch, patches * variates, patch).to(model.dtype))
    for block in model.blocks:
        tokens_BLD = _block(block, tokens_BLD, patches=patches, variates=variates)
    y_BLP = model.head(model.norm(tokens_BLD)).float()
    y_BTC = y_BLP.reshape(batch, patches, variates, patch).transpose(2, 3).reshape(x_BTC.shape)
    return y_BTC * deviation + mean


def _block(block: Block, x_BLD: Tensor, *, patches: int, variates: int) -> Tensor:
    x_BLD = block.norm_attention(x_BLD + _attention(block, x_BLD, patches, variates))
    narrow = block.narrow(block.activation(block.widen(x_BLD)))
    return block.norm_feed_forward(x_BLD + narrow)


def _attention(block: Block, x_BLD: Tensor, patches: int, variates: int) -> Tensor:
    layer = block.attention
    batch, tokens, _ = x_BLD.shape
    weights, biases = layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
    query, key, value = (
        F.linear(x_BLD, weight, bias).reshape(batch, tokens, layer.heads, layer.head_width)
        for weight, bias in zip(weights, biases, strict=True)
    )
    patch_L = torch.arange(patches, device=x_BLD.device).repeat_interleave(variates)
    variate_L = torch.arange(variates, device=x_BLD.device).repeat(patches)
    query, key = _rotary(query, patch_L), _rotary(key, patch_L)
    same_LL = variate_L[:, None] == variate_L[None, :]
    bias_HLL = torch.where(
        same_LL, layer.bias_2H[1, :, None, None], layer.bias_2H[0, :, None, None]
    )
    future_LL = patch_L[:, None] < patch_L[None, :]
    scores_BHLL = torch.einsum("blhe,bshe->bhls", query, key)
    scores_BHLL = scores_BHLL + bias_HLL.masked_fill(future_LL, -math.inf)
    weights_BHLL = torch.softmax(scores_BHLL / math.sqrt(layer.head_width), dim=-1)
    attended = torch.einsum("bhls,bshe->blhe", weights_BHLL, value)
    return layer.out(attended.reshape(batch, tokens, -1))


def _rotary(x_BLHE: Tensor, patch_L: Tensor) -> Tensor:
    """Half of each head rotated by its patch's place, in neighbouring pairs (arXiv 2104.09864)."""
    half = x_BLHE.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(0, half, 2, device=patch_L.device) / half)
    angle_LE = patch_L[:, None] * frequency
    cos, sin = (f(angle_LE)[None, :, None].to(x_BLHE.dtype) for f in (torch.cos, torch.sin))
    even, odd = x_BLHE[..., :half:2], x_BLHE[..., 1:half:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x_BLHE[..., half:]), dim=-1)
