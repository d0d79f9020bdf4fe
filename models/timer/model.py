"""Timer: a univariate decoder-only transformer over patches (arXiv 2402.02368).

Every patch is one token, which sees itself and earlier ones; its time enters by rotary positions on
the whole head, half against half. Several variates are forecast one by one: they see nothing of
each other. Each block is attention and a gated feed-forward layer, each followed by its norm.

    model = Timer(TimerConfig())
    mean_BNCQ = model(x_BNCP).mean          # after every patch, the next one

Shapes: B batch, N patches, C variates, P patch length, Q = patches_out * P, D model width,
H heads, E head width, L patches of a pass, S patches whose keys are read, G = C * H.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speculation.caching import CachedContext, KeyValueCache, later_patches
from speculation.forecaster import Context, Forecaster
from speculation.history import History
from speculation.network import Network
from speculation.normalisation import Prediction
from speculation.policy import ContextPolicy
from timer.config import TimerConfig
from timer.context import DeployedContext

Keep = Callable[[Tensor], Tensor]
"""Takes keys and values of a pass [2, B, G, L, E], gives those of all patches [2, B, G, S, E]."""


class Layout(NamedTuple):
    """Where the patches of one pass stand; shared by all blocks."""

    cosine: Tensor
    """[1 or B, L, 1, 1, E/2], of the angles by which queries and keys are turned"""
    sine: Tensor
    seen: Tensor
    """bool [1 or B, 1, L, S]: a key's patch is not later than the query's"""


class Attention(nn.Module):
    """Attention of every variate to its own past."""

    def __init__(self, config: TimerConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.n_heads, config.head_width
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key_value = nn.Linear(config.d_model, 2 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(
        self, x_BLCD: Tensor, layout: Layout, *, queries: int, keep: Keep | None = None
    ) -> Tensor:
        """Attended tokens [B, queries, C, D], the last ones of `x`.

        `keep` takes the keys and values of these tokens, and gives those of all patches.
        """
        query = self._turned(self._heads(self.query(x_BLCD[:, -queries:]), 1)[..., 0, :, :], layout)
        key, value = self._heads(self.key_value(x_BLCD), 2).unbind(3)
        query, key, value = map(_by_head, (query, self._turned(key, layout), value))
        if keep is not None:
            key, value = keep(torch.stack((key, value))).unbind()
        attended_BGLE = F.scaled_dot_product_attention(
            query, key, value, attn_mask=layout.seen[:, :, -queries:]
        )
        attended_BLGE = attended_BGLE.transpose(1, 2)
        out: Tensor = self.out(attended_BLGE.unflatten(2, (-1, self.heads)).flatten(3))
        return out

    def _heads(self, x_BLCD: Tensor, parts: int) -> Tensor:
        """[B, L, C, parts, H, E]."""
        return x_BLCD.unflatten(-1, (parts, self.heads, self.head_width))

    def _turned(self, x_BLCHE: Tensor, layout: Layout) -> Tensor:
        """Each head turned by its patch's place, its first half against its second."""
        count = x_BLCHE.shape[1]
        cosine, sine = layout.cosine[:, -count:], layout.sine[:, -count:]
        first, second = x_BLCHE.to(cosine.dtype).chunk(2, -1)
        turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
        return turned.to(x_BLCHE.dtype)


def _by_head(x_BLCHE: Tensor) -> Tensor:
    """[B, G, L, E]: variates see nothing of each other, as heads do not."""
    return x_BLCHE.flatten(2, 3).transpose(1, 2)


class Block(nn.Module):
    """Attention and a gated feed-forward layer, each followed by its norm (post-norm)."""

    def __init__(self, config: TimerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.gate_and_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.norm_feed_forward = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BLCD: Tensor, layout: Layout, *, queries: int, keep: Keep | None = None
    ) -> Tensor:
        """Tokens [B, queries, C, D], the last ones of `x`; `keep` as in `Attention`."""
        attended = self.dropout(self.attention(x_BLCD, layout, queries=queries, keep=keep))
        x_BLCD = self.norm_attention(x_BLCD[:, -queries:] + attended)
        gate, up = self.gate_and_up(x_BLCD).chunk(2, -1)
        fed = self.dropout(self.down(F.silu(gate) * up))
        out: Tensor = self.norm_feed_forward(x_BLCD + fed)
        return out


class Timer(Network):
    """Timer with one head, which emits `patches_out` patches after every position."""

    def __init__(self, config: TimerConfig) -> None:
        super().__init__()
        self.config: TimerConfig = config
        self.embedding = nn.Linear(config.patch, config.d_model, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.patches_out * config.patch, bias=False)

    def engine(self, *, int8: bool = False) -> Forecaster:
        """What decodes as this does, faster: on a CPU with packed weights, elsewhere this itself.

        Raises:
            InvalidInput: 8 bits are asked for, and the model is not on a CPU.
        """
        from timer.packing import packed

        return packed(self, int8=int8) if int8 or self.device.type == "cpu" else self

    def caches(self, policy: ContextPolicy) -> bool:
        """Whether it keeps keys and values of what it has read under that policy."""
        return policy.keeps

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most."""
        if not policy.keeps:
            return super().open(history, policy, room=room)
        self.refuse_training()
        if policy.kind == "deployed":
            return DeployedContext(self, history, room=room)
        return CachedContext(self, history, renorm_every=policy.renorm_every, room=room)

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache with room for `patches` patches of `variates` variates."""
        return KeyValueCache(
            num_layers=self.config.n_layers,
            batch=batch,
            heads=variates * self.config.n_heads,
            tokens=patches,
            head_width=self.config.head_width,
            dtype=self.dtype,
            device=self.device,
        )

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

        Args:
            x_BNCP: patches, normalised, consecutive in time.
            last: number of positions to predict after.
            cache: keys and values of earlier patches; those of this pass are added.
            start: how many patches come before this pass; int64 [B] where the samples differ.
            end: patches in the longest sequence after this pass; needed where `start` is a tensor,
                so that no pass has to ask the device for a number.
        """
        patches = x_BNCP.shape[1]
        last = patches if last is None else last
        if end is None:
            assert isinstance(start, int), "`end` must be given with a start per sample"
            end = start + patches
        layout = self._layout(patches, start=start, end=end)
        tokens_BLCD = self.embedding(x_BNCP.to(self.dtype))
        for layer, block in enumerate(self.blocks):
            queries = last if layer == len(self.blocks) - 1 else patches
            keep = cache and partial(cache.write, layer, start=start, stop=end)
            tokens_BLCD = block(tokens_BLCD, layout, queries=queries, keep=keep)
        hidden_BMCD = self.norm(tokens_BLCD)
        return Prediction(self.head(hidden_BMCD).to(self.precision), None, hidden_BMCD)

    def _layout(self, patches: int, *, start: int | Tensor, end: int) -> Layout:
        """Where the patches of a pass stand (RoFormer, arXiv 2104.09864)."""
        half = self.config.head_width // 2
        place_L = torch.arange(patches, device=self.device)
        place_BL = place_L + (start if isinstance(start, int) else start[:, None])
        exponent_E = torch.arange(half, device=self.device, dtype=self.precision) / half
        angle = place_BL.view(-1, patches, 1, 1, 1) * self.config.rope_theta**-exponent_E
        unseen_BLS = later_patches(start, patches, end, device=self.device)
        return Layout(angle.cos(), angle.sin(), unseen_BLS.logical_not()[:, None])
