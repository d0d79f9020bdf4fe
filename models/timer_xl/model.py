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

from timer_xl.attention import rotary_table
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
    """Where the tokens of one pass stand; built once per shape and shared by all blocks."""

    cos: Tensor
    """[L, E/4] rotary table"""
    sin: Tensor
    future: Tensor
    """bool [L, S]: keys of later patches; all variates of one patch see each other"""
    same_variate: Tensor
    """bool [L, S]"""

    def last(self, queries: int) -> Layout:
        """The layout of the last tokens as queries over the same keys."""
        return Layout(*(part[-queries:] for part in self))


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

    def forward(self, x_BLD: Tensor, layout: Layout, *, queries: int) -> Tensor:
        """Attended tokens [B, queries, D], the last ones of `x`."""
        query, key, value = (self._heads(part) for part in self._project(x_BLD, queries))
        asking = layout.last(queries)
        attended_BHLE = F.scaled_dot_product_attention(
            _rotate(query, asking.cos, asking.sin),
            _rotate(key, layout.cos, layout.sin),
            value,
            attn_mask=self._mask(asking, dtype=query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(attended_BHLE.transpose(1, 2).flatten(2))
        return out

    def _project(self, x_BLD: Tensor, queries: int) -> tuple[Tensor, ...]:
        """Queries of the last tokens, keys and values of all."""
        if queries == x_BLD.shape[1]:
            return self.qkv(x_BLD).chunk(3, dim=-1)
        weight, bias, width = self.qkv.weight, self.qkv.bias, x_BLD.shape[-1]
        query = F.linear(x_BLD[:, -queries:], weight[:width], bias[:width])
        return query, *F.linear(x_BLD, weight[width:], bias[width:]).chunk(2, dim=-1)

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def _mask(self, layout: Layout, *, dtype: torch.dtype) -> Tensor:
        """Additive mask [H, L, S]: the variate bias, and minus infinity on the future."""
        bias_2H11 = (self.bias_2H * self.head_width**-0.5)[..., None, None]
        bias_HLS = torch.where(layout.same_variate, bias_2H11[1], bias_2H11[0])
        mask: Tensor = bias_HLS.masked_fill(layout.future, float("-inf"))
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
        self.activation_name = config.activation
        self.activation = F.relu if config.activation == "relu" else F.gelu

    def forward(self, x_BLD: Tensor, layout: Layout, *, queries: int) -> Tensor:
        """Tokens [B, queries, D], the last ones of `x`."""
        attended = self.dropout(self.attention(x_BLD, layout, queries=queries))
        x_BLD = self.norm_attention(x_BLD[:, -queries:] + attended)
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

    def forward(self, x_BNCP: Tensor, *, last: int | None = None) -> Prediction:
        """What follows each of the last `last` patches of a window (all of them by default).

        For training, and as the plain form of what `timer_xl.engine.Engine` does when decoding.
        The window is given in RevIN units; its patches are consecutive in time.
        """
        patches, variates = x_BNCP.shape[1], x_BNCP.shape[2]
        last = patches if last is None else last
        layout = self._layout(patches, variates)
        tokens_BLD = self.embedding(x_BNCP.to(self.dtype).flatten(1, 2))
        for layer, block in enumerate(self.blocks, start=1):
            wanted = last if layer == len(self.blocks) else patches
            tokens_BLD = block(tokens_BLD, layout, queries=wanted * variates)
        tokens_BNCD = self.norm(tokens_BLD).unflatten(1, (last, variates))
        mean_BNCQ = self.head(tokens_BNCD).float()
        if self.log_variance_head is None:
            return Prediction(mean_BNCQ, None)
        log_variance_BNCQ = self.log_variance_head(tokens_BNCD).float()
        bound = LOG_VARIANCE_BOUND
        return Prediction(mean_BNCQ, log_variance_BNCQ.clamp(-bound, bound))

    def _layout(self, patches: int, variates: int) -> Layout:
        """The layout of a window, built once and kept."""
        key = (patches, variates, self.device, self.dtype)
        if key not in self._layouts:
            patch_L = torch.arange(patches, device=self.device).repeat_interleave(variates)
            variate_L = torch.arange(variates, device=self.device).repeat(patches)
            turn = rotary_table(self.config, patch_L, variate_L, window=patches)
            self._layouts[key] = Layout(
                cos=turn.real.to(self.dtype),
                sin=turn.imag.to(self.dtype),
                future=patch_L > patch_L[:, None],
                same_variate=variate_L == variate_L[:, None],
            )
        return self._layouts[key]


def blocks_of(model: TimerXL) -> list[Block]:
    """The model's blocks, first to last."""
    return [block for block in model.blocks if isinstance(block, Block)]
