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

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speculation.caching import CachedContext, KeyValueCache, later_patches
from speculation.errors import InvalidInput
from speculation.forecaster import Context, Forecaster
from speculation.history import History
from speculation.network import Network
from speculation.normalisation import Prediction
from speculation.policy import ContextPolicy
from timer_xl.attention import precision_of, rotary_table, rotated, token_places
from timer_xl.cache import new_cache
from timer_xl.config import TimerXLConfig
from timer_xl.masks import spelled_out

# Beyond it a variance is a collapse or an overflow, not an estimate (exp(10) is 22,000).
LOG_VARIANCE_BOUND = 10.0

Keep = Callable[[Tensor], Tensor]
"""Takes keys and values of a pass [2, B, H, L, E], gives those of its window [2, B, H, S, E]."""


class Layout(NamedTuple):
    """Where the tokens of one pass stand; shared by all blocks."""

    variates: int
    start: int | Tensor
    """first patch of the pass, from the window's anchor: one for all samples, or int64 [B]"""
    end: int
    """patches whose keys are read"""
    turn: Tensor
    """complex [1 or B, L, 1, 1, E/4], by which rotary positions turn queries and keys"""
    unseen: Tensor
    """bool [1 or B, N, S] over patches: later ones; all variates of one patch see each other"""


class Dropout(nn.Module):
    """Dropout whose mask costs a small part of PyTorch's own, which took 22 % of a training step.

    On a CPU one 64-bit draw decides eight elements, by a byte each; the threshold is drawn too, so
    that every element is dropped with exactly the probability that was asked for.
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
        return x * self._factors(x)

    def _factors(self, x: Tensor) -> Tensor:
        """0 for the elements to drop, 1 / (1 - probability) for the others; shape and type of x."""
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        byte = draws.view(torch.int8)[: x.numel()].view(x.shape)
        threshold = math.floor(256 * self.probability + torch.rand(()).item()) - 128
        # Integers of the width of x all the way: products with booleans take ten times as long.
        integer = _INTEGERS[x.dtype]
        kept = byte.to(integer).neg_().add_(threshold - 1)  # negative where byte >= threshold
        kept.bitwise_right_shift_(8 * x.element_size() - 1)  # all bits of what is kept, or none
        scale = torch.tensor(1 / (1 - self.probability), dtype=x.dtype)
        return kept.bitwise_and_(scale.view(integer)).view(x.dtype)


_INTEGERS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class TimeAttention(nn.Module):
    """Attention over all variates, causal over patches."""

    def __init__(self, config: TimerXLConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.n_heads, config.head_width
        self.dropout = Dropout(config.dropout)
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        # [0] between different variates, [1] within one. As in the authors' code it is added
        # before the scores are divided by sqrt(E).
        self.bias_2H = nn.Parameter(torch.zeros(2, config.n_heads))

    def forward(
        self, x_BLD: Tensor, layout: Layout, *, queries: int, keep: Keep | None = None
    ) -> Tensor:
        """Attended tokens [B, queries, D], the last ones of `x`.

        `keep` takes the keys and values of these tokens, and gives those of the whole window.
        """
        query, key, value = (part.transpose(1, 2) for part in self._project(x_BLD, layout, queries))
        if keep is not None:
            key, value = keep(torch.stack((key, value))).unbind()
        mask = self._mask(layout, queries=queries, dtype=query.dtype)
        attended_BHLE = self._attend(query, key, value, mask)
        out: Tensor = self.out(attended_BHLE.transpose(1, 2).flatten(2))
        return out

    def _project(self, x_BLD: Tensor, layout: Layout, queries: int) -> tuple[Tensor, ...]:
        """Queries of the last tokens, keys and values of all [B, L, H, E]; the first two turned."""
        turn = layout.turn
        if queries == x_BLD.shape[1]:
            qkv_BL3HE = self._heads(self.qkv(x_BLD), 3)
            return *rotated(qkv_BL3HE[:, :, :2], turn).unbind(2), qkv_BL3HE[:, :, 2]
        weight, bias, width = self.qkv.weight, self.qkv.bias, x_BLD.shape[-1]
        query = self._heads(F.linear(x_BLD[:, -queries:], weight[:width], bias[:width]), 1)
        key_value = self._heads(F.linear(x_BLD, weight[width:], bias[width:]), 2)
        turned = rotated(query, turn[:, -queries:]), rotated(key_value[:, :, :1], turn)
        return turned[0][:, :, 0], turned[1][:, :, 0], key_value[:, :, 1]

    def _heads(self, x_BLD: Tensor, parts: int) -> Tensor:
        return x_BLD.unflatten(-1, (parts, self.heads, self.head_width))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Values by the softmax of masked scores [B, H, L, E]."""
        dropping = self.training and self.dropout.probability > 0
        if dropping and query.device.type == "cpu":
            # What PyTorch's own does there, but for its dropout's mask, which costs more than both
            # products.
            scores = query @ key.mT * self.head_width**-0.5 + mask
            return self.dropout(scores.softmax(-1).to(value.dtype)) @ value
        probability = self.dropout.probability if dropping else 0.0
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=probability
        )

    def _mask(self, layout: Layout, *, queries: int, dtype: torch.dtype) -> Tensor:
        """Additive mask [1 or B, H, queries, S]: the variate bias, minus infinity on the future."""
        unseen_BNS = layout.unseen[:, -(queries // layout.variates) :]
        bias_2H = self.bias_2H * self.head_width**-0.5
        return spelled_out(bias_2H, unseen_BNS, layout.variates).to(dtype)


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

    def forward(
        self, x_BLD: Tensor, layout: Layout, *, queries: int, keep: Keep | None = None
    ) -> Tensor:
        """Tokens [B, queries, D], the last ones of `x`; `keep` as in `TimeAttention`."""
        attended = self.dropout(self.attention(x_BLD, layout, queries=queries, keep=keep))
        x_BLD = self.norm_attention(x_BLD[:, -queries:] + attended)
        wide = self.dropout(self.activation(self.widen(x_BLD)))
        out: Tensor = self.norm_feed_forward(x_BLD + self.dropout(self.narrow(wide)))
        return out


class TimerXL(Network):
    """Timer-XL with a mean head and, if configured, a log-variance head."""

    def __init__(self, config: TimerXLConfig) -> None:
        super().__init__()
        self.config: TimerXLConfig = config
        width_out = config.patches_out * config.patch
        self.embedding = nn.Linear(config.patch, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, width_out)
        self.log_variance_head = nn.Linear(config.d_model, width_out) if config.variance else None

    def use_dropout(self, probability: float | None) -> None:
        """Drop out with that probability from now on; None for the architecture's own."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.probability = self.config.dropout if probability is None else probability

    def engine(self, *, int8: bool = False) -> Forecaster:
        """What decodes as this does, faster: on a CPU `timer_xl.engine`, elsewhere this itself.

        Raises:
            InvalidInput: 8 bits are asked for, and the model is not on a CPU.
        """
        from timer_xl.engine import Engine

        if self.device.type == "cpu":
            return Engine(self, int8=int8)
        if int8:
            raise InvalidInput(f"int8 is for drafts on a CPU: this one is on {self.device}")
        return self

    def caches(self, policy: ContextPolicy) -> bool:
        """Whether it keeps keys and values of what it has read under that policy."""
        return policy.kind == "cached"

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most."""
        if policy.kind != "cached":
            return super().open(history, policy, room=room)
        self.refuse_training()
        return CachedContext(self, history, renorm_every=policy.renorm_every, room=room)

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache with room for `patches` patches of `variates` variates."""
        return new_cache(
            self.config,
            batch=batch,
            patches=patches,
            variates=variates,
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

        What trains, what decodes on an accelerator, and the plain form of what
        `timer_xl.engine.Engine` does on a CPU.

        Args:
            x_BNCP: patches in the window's units, consecutive in time.
            last: number of positions to predict after.
            cache: keys and values of earlier patches; those of this pass are added.
            start: how many patches of the window come before this pass; int64 [B] where the
                samples differ.
            end: patches in the longest window after this pass; needed where `start` is a tensor,
                so that no pass has to ask the device for a number.
        """
        patches, variates = x_BNCP.shape[1], x_BNCP.shape[2]
        last = patches if last is None else last
        layout = self._layout(patches, variates, start=start, end=end)
        tokens_BLD = self.embedding(x_BNCP.to(self.dtype).flatten(1, 2))
        for layer, block in enumerate(self.blocks):
            wanted = last if layer == len(self.blocks) - 1 else patches
            keep = None
            if cache is not None:
                keep = partial(
                    cache.write,
                    layer,
                    start=layout.start * variates,
                    stop=layout.end * variates,
                )
            tokens_BLD = block(tokens_BLD, layout, queries=wanted * variates, keep=keep)
        tokens_BNCD = self.norm(tokens_BLD).unflatten(1, (last, variates))
        mean_BNCQ = self.head(tokens_BNCD).to(self.precision)
        if self.log_variance_head is None:
            return Prediction(mean_BNCQ, None, tokens_BNCD)
        log_variance_BNCQ = self.log_variance_head(tokens_BNCD).to(self.precision)
        bound = LOG_VARIANCE_BOUND
        return Prediction(mean_BNCQ, log_variance_BNCQ.clamp(-bound, bound), tokens_BNCD)

    def _layout(
        self, patches: int, variates: int, *, start: int | Tensor, end: int | None
    ) -> Layout:
        """Where the tokens of a pass stand."""
        device = self.device
        if end is None:
            assert isinstance(start, int), "`end` must be given with a start per sample"
            end = start + patches
        patch_L, variate_L = token_places(patches, variates, device=device)
        patch_BL = patch_L + (start if isinstance(start, int) else start[:, None])
        turn_BLE = rotary_table(
            self.config,
            patch_BL.view(-1, len(patch_L)),
            variate_L,
            window=end,
            dtype=precision_of(self.dtype),
        )
        return Layout(
            variates=variates,
            start=start,
            end=end,
            turn=turn_BLE[:, :, None, None],
            unseen=later_patches(start, patches, end, device=device),
        )


def blocks_of(model: TimerXL) -> list[Block]:
    """The model's blocks, first to last."""
    return [block for block in model.blocks if isinstance(block, Block)]
