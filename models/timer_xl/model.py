"""Timer-XL: a decoder-only transformer over patches of many variates (arXiv 2410.04803).

Every patch of every variate is one token. A token sees all variates of its own and of earlier
patches (TimeAttention, section 3.2); its time enters by rotary positions on half of each head, and
whether two tokens are of one variate by one learned bias. Inputs and outputs are in RevIN units:
normalised by the mean and deviation of the context window.

    model = TimerXL(TimerXLConfig())
    mean_BNCQ = model(x_BNCP).mean          # after every patch, the next one

Shapes: B batch, N patches, C variates, P patch length, Q = patches_out * P, D model width,
H heads, E head width, L query tokens, S key tokens (tokens are patch-major: patch * C + variate).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timer_xl.cache import KeyValueCache
from timer_xl.config import TimerXLConfig

REVIN_EPSILON = 1e-5
# Beyond it a variance is a collapse or an overflow, not an estimate (exp(10) is 22,000).
LOG_VARIANCE_BOUND = 10.0


class Prediction(NamedTuple):
    """What a pass emits after each of its positions: RevIN units, float32 whatever the weights."""

    mean: Tensor
    """[B, N, C, Q]"""
    log_variance: Tensor | None
    """[B, N, C, Q], or None for a model without a variance head"""


class Normalisation(NamedTuple):
    """Mean and deviation of a window, one of each per sample and variate (RevIN)."""

    mean: Tensor
    """[B, 1, C, 1]"""
    deviation: Tensor
    """[B, 1, C, 1]"""

    @classmethod
    def of(cls, window_BNCP: Tensor) -> Normalisation:
        """The statistics of a window; the deviation is the population's, kept above zero."""
        variance, mean = torch.var_mean(window_BNCP, dim=(1, 3), correction=0, keepdim=True)
        return cls(mean, torch.sqrt(variance + REVIN_EPSILON))

    def apply(self, x_BNCP: Tensor) -> Tensor:
        """`x` in RevIN units."""
        return (x_BNCP - self.mean) / self.deviation

    def invert(self, x_BNCP: Tensor) -> Tensor:
        """`x` in the data's units again."""
        return torch.addcmul(self.mean, x_BNCP, self.deviation)


class Layout(NamedTuple):
    """Where the tokens of one pass stand; built once per pass and shared by all blocks."""

    variates: int
    start: int | Tensor
    """first patch of the pass, from the window's anchor: one for all samples, or int64 [B]"""
    patches: int
    cos: Tensor
    """[1 or B, 1, patches * C, E/4] rotary table"""
    sin: Tensor
    visible: Tensor
    """bool [1 or B, 1, patches * C, S]: causal over patches, full over variates"""
    same_variate: Tensor
    """bool [patches * C, S]"""

    def last(self, patches: int) -> Layout:
        """The layout of the last `patches` patches as queries over the same keys."""
        skip = (self.patches - patches) * self.variates
        return self._replace(
            patches=patches,
            cos=self.cos[:, :, skip:],
            sin=self.sin[:, :, skip:],
            visible=self.visible[:, :, skip:],
            same_variate=self.same_variate[skip:],
        )


def _rotate(x_BHLE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` with half of each head rotated, in neighbouring pairs (RoFormer, arXiv 2104.09864)."""
    half = x_BHLE.shape[-1] // 2
    even, odd = x_BHLE[..., :half:2], x_BHLE[..., 1:half:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x_BHLE[..., half:]), dim=-1)


class TimeAttention(nn.Module):
    """Attention over all variates, causal over patches."""

    def __init__(self, config: TimerXLConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.n_heads, config.head_width
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        # [0] between different variates, [1] within one. As in the authors' code it is added
        # before the scores are divided by sqrt(E).
        self.bias_2H = nn.Parameter(torch.zeros(2, config.n_heads))

    def forward(
        self, x_BLD: Tensor, layout: Layout, *, last: int, cache: KeyValueCache | None, layer: int
    ) -> Tensor:
        """Attended tokens [B, last * C, D] of the pass's last patches.

        Args:
            x_BLD: all tokens of the pass.
            layout: where they stand.
            last: number of patches whose queries are wanted.
            cache: earlier keys and values; the new ones are added to it.
            layer: index of this block in the cache.
        """
        num_queries = last * layout.variates
        query_layout = layout.last(last)
        d_model = x_BLD.shape[-1]
        if num_queries == x_BLD.shape[1]:
            query, key, value = self.qkv(x_BLD).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x_BLD[:, -num_queries:], weight[:d_model], bias[:d_model])
            key, value = F.linear(x_BLD, weight[d_model:], bias[d_model:]).chunk(2, dim=-1)
        query_BHLE = _rotate(self._heads(query), query_layout.cos, query_layout.sin)
        key_BHSE, value_BHSE = _rotate(self._heads(key), layout.cos, layout.sin), self._heads(value)
        if cache is not None:
            start = layout.start * layout.variates
            stop = layout.visible.shape[-1]
            key_BHSE, value_BHSE = cache.write(layer, key_BHSE, value_BHSE, start=start, stop=stop)
        attended_BHLE = F.scaled_dot_product_attention(
            query_BHLE,
            key_BHSE,
            value_BHSE,
            attn_mask=self._mask(query_layout, dtype=query_BHLE.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(attended_BHLE.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def _mask(self, layout: Layout, *, dtype: torch.dtype) -> Tensor:
        """Additive mask [1 or B, H, L, S]: the variate bias, and minus infinity on the future."""
        bias_2H11 = (self.bias_2H * self.head_width**-0.5)[..., None, None]
        bias_HLS = torch.where(layout.same_variate, bias_2H11[1], bias_2H11[0])
        mask: Tensor = bias_HLS.masked_fill(~layout.visible, float("-inf"))
        return mask.to(dtype)


class Dropout(nn.Module):
    """Dropout whose mask costs a quarter of the random numbers.

    On a CPU one 64-bit draw decides four elements, by 16 bits each: PyTorch's own mask took 22 %
    of a training step there. The probability is exact to 1 / 65536.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """`x` with some elements zero and the others scaled up; unchanged in evaluation."""
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
        keep = bits >= round(self.probability * 65536) - 32768
        return x * (keep.to(x.dtype) * (1 / (1 - self.probability)))


class Block(nn.Module):
    """TimeAttention and a feed-forward layer, each followed by its norm (post-norm)."""

    def __init__(self, config: TimerXLConfig) -> None:
        super().__init__()
        self.attention = TimeAttention(config)
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.widen = nn.Linear(config.d_model, config.d_ff)
        self.narrow = nn.Linear(config.d_ff, config.d_model)
        self.norm_feed_forward = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.activation = F.relu if config.activation == "relu" else F.gelu

    def forward(
        self, x_BLD: Tensor, layout: Layout, *, last: int, cache: KeyValueCache | None, layer: int
    ) -> Tensor:
        """Tokens [B, last * C, D]; see `TimeAttention.forward`."""
        attended = self.attention(x_BLD, layout, last=last, cache=cache, layer=layer)
        x_BLD = x_BLD[:, -attended.shape[1] :]
        x_BLD = self.norm_attention(x_BLD + self.dropout(attended))
        wide = self.dropout(self.activation(self.widen(x_BLD)))
        out: Tensor = self.norm_feed_forward(x_BLD + self.dropout(self.narrow(wide)))
        return out


class TimerXL(nn.Module):
    """Timer-XL with a mean head and, if configured, a log-variance head."""

    def __init__(self, config: TimerXLConfig) -> None:
        super().__init__()
        self.config = config
        width_out = config.patches_out * config.patch
        self.embedding = nn.Linear(config.patch, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, width_out)
        self.log_variance_head = nn.Linear(config.d_model, width_out) if config.variance else None
        self._layouts: dict[tuple[object, ...], Layout] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def forward(
        self,
        x_BNCP: Tensor,
        *,
        last: int | None = None,
        cache: KeyValueCache | None = None,
        start: int | Tensor = 0,
        end: int | None = None,
    ) -> Prediction:
        """What follows each of the last `last` patches of the pass (all of them by default).

        The last block computes queries for these alone; the blocks before it need every token.

        Args:
            x_BNCP: patches in RevIN units, consecutive in time.
            last: number of positions to predict after.
            cache: keys and values of earlier patches; those of this pass are added.
            start: how many patches of the window come before this pass; int64 [B] where the
                samples differ.
            end: patches in the longest window after this pass; needed where `start` is a tensor,
                so that no pass has to ask the device for a number.
        """
        patches, variates = x_BNCP.shape[1], x_BNCP.shape[2]
        last = patches if last is None else last
        layout = self._layout(patches, variates, start=start, end=end, cached=cache is not None)
        tokens_BLD = self.embedding(x_BNCP.to(self.dtype).flatten(1, 2))
        for layer, block in enumerate(self.blocks):
            wanted = last if layer == len(self.blocks) - 1 else patches
            tokens_BLD = block(tokens_BLD, layout, last=wanted, cache=cache, layer=layer)
        tokens_BNCD = self.norm(tokens_BLD).unflatten(1, (last, variates))
        mean_BNCQ = self.head(tokens_BNCD).float()
        if self.log_variance_head is None:
            return Prediction(mean_BNCQ, None)
        log_variance_BNCQ = self.log_variance_head(tokens_BNCD).float()
        bound = LOG_VARIANCE_BOUND
        return Prediction(mean_BNCQ, log_variance_BNCQ.clamp(-bound, bound))

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache with room for `patches` patches of `variates` variates."""
        if self.config.positions == "flattened" and variates > 1:
            raise ValueError(
                "positions is 'flattened': a token's position depends on the window's length, so "
                "its keys cannot be kept; use the context policy 'sliding'"
            )
        return KeyValueCache(
            num_layers=self.config.n_layers,
            batch=batch,
            heads=self.config.n_heads,
            tokens=patches * variates,
            head_width=self.config.head_width,
            dtype=self.dtype,
            device=self.device,
        )

    def _layout(
        self, patches: int, variates: int, *, start: int | Tensor, end: int | None, cached: bool
    ) -> Layout:
        """The layout of a pass; one that does not depend on data is built once and kept."""
        if not isinstance(start, int):
            assert end is not None, "`end` must be given with a start per sample"
            return self._build_layout(patches, variates, start=start, end=end)
        key = (patches, variates, start, cached, self.device, self.dtype)
        if key not in self._layouts:
            if len(self._layouts) > 256:  # windows that only grow would keep one layout a step
                self._layouts.clear()
            self._layouts[key] = self._build_layout(
                patches, variates, start=start, end=start + patches
            )
        return self._layouts[key]

    def _build_layout(
        self, patches: int, variates: int, *, start: int | Tensor, end: int
    ) -> Layout:
        device = self.device
        starts_B1 = torch.as_tensor(start, device=device).reshape(-1, 1)
        query_patch_BL = starts_B1 + torch.arange(patches, device=device).repeat_interleave(
            variates
        )
        key_patch_S = torch.arange(end, device=device).repeat_interleave(variates)
        query_variate_L = torch.arange(variates, device=device).repeat(patches)
        key_variate_S = torch.arange(variates, device=device).repeat(end)
        cos, sin = self._rotary(query_patch_BL, query_variate_L, window=end)
        return Layout(
            variates=variates,
            start=start,
            patches=patches,
            cos=cos[:, None],
            sin=sin[:, None],
            visible=(key_patch_S <= query_patch_BL[..., None])[:, None],
            same_variate=query_variate_L[:, None] == key_variate_S,
        )

    def _rotary(self, patch_BL: Tensor, variate_L: Tensor, *, window: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, L, E/4] of the tokens' positions."""
        flattened = self.config.positions == "flattened"
        position_BL = variate_L * window + patch_BL if flattened else patch_BL
        rotated = self.config.head_width // 2
        exponent = torch.arange(0, rotated, 2, device=patch_BL.device, dtype=torch.float32)
        angle_BLE = position_BL[..., None] * 10_000.0 ** (-exponent / rotated)
        return angle_BLE.cos().to(self.dtype), angle_BLE.sin().to(self.dtype)
