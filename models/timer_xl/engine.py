"""A Timer-XL as it decodes: the same forecast as `TimerXL.forward`, from weights laid out for it.

    engine = Engine(model)
    cache = engine.new_cache(batch=1, patches=22, variates=7)
    prediction = engine(x_BNCP, last=1, cache=cache)

Training wants a module whose every position is predicted and differentiated; decoding wants the
last positions of short passes, soon. Here the weights are packed once for the processor, residuals
and activations ride on their products, rotary tables and masks are made once per shape, and the
last block computes queries for the wanted positions alone. Nothing in a pass waits for the device.

Shapes: B batch, N patches, C variates, P patch length, Q = patches_out * P, D model width, H heads,
E head width, L query tokens, S key tokens (patch-major: patch * C + variate).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from speculation.caching import KeyValueCache, later_patches
from speculation.forecaster import Context
from speculation.history import History
from speculation.linear import PackedLinear
from speculation.normalisation import Prediction
from speculation.policy import ContextPolicy
from timer_xl.attention import precision_of, rotary_table, rotate_, token_places
from timer_xl.cache import new_cache
from timer_xl.context import open_context
from timer_xl.fold import Fold, can_fold
from timer_xl.masks import SquareMasks, spelled_out
from timer_xl.model import LOG_VARIANCE_BOUND, Block, TimerXL, blocks_of

# Windows that only grow would keep one layout a step. One is some views and a mask over patches.
LAYOUTS_KEPT = 256


class Layout(NamedTuple):
    """Where the tokens of one pass stand; shared by all blocks."""

    variates: int
    start: int | Tensor
    """first patch of the pass, from the window's anchor: one for all samples, or int64 [B]"""
    end: int
    """patches whose keys are read"""
    turn: Tensor
    """complex [1 or B, L, 1, 1, E/4], rotary table"""
    unseen: Tensor
    """bool [1 or B, N, S]: keys of later patches"""
    masks: list[Tensor] | None
    """each block's additive mask [1, H, L, S], where it is kept"""


class Engine:
    """A model ready to decode. It may share the model's weights: if those change, make another."""

    def __init__(self, model: TimerXL, *, int8: bool = False) -> None:
        """Pack the weights of `model`, which may be dropped afterwards.

        Args:
            model: on the device and in the type to decode in.
            int8: quantise the weights to 8 bits, activations as they come (CPU only): meant for
                drafts, whose proposals are checked.
        """
        self.config = model.config
        self.dtype, self.device = model.dtype, model.device
        self.precision = precision_of(model.dtype)
        self.embedding = PackedLinear(*_affine(model.embedding), int8=int8)
        *others, last = blocks_of(model)
        self.blocks = [EngineBlock(block, int8=int8, splits=False) for block in others]
        self.blocks.append(EngineBlock(last, int8=int8, splits=True))
        self.fold = Fold(model) if can_fold(model.config) else None
        self.norm_weight, self.norm_bias = model.norm.weight.detach(), model.norm.bias.detach()
        weight, bias = _affine(model.head)
        if model.log_variance_head is not None:
            second_weight, second_bias = _affine(model.log_variance_head)
            weight, bias = torch.cat((weight, second_weight)), torch.cat((bias, second_bias))
        self.head = PackedLinear(weight, bias, int8=int8)
        self.masks = SquareMasks(
            [block.bias_2H for block in self.blocks], head_width=model.config.head_width
        )
        # By place in a window of so many variates: made with the first pass.
        self._turns_LE, self._turned_variates = torch.empty(0), 0
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def caches(self, policy: ContextPolicy) -> bool:
        """Whether it keeps keys and values of what it has read under that policy."""
        return policy.kind == "cached" or self.fold is not None

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most."""
        return open_context(self, history, policy, room=room)

    def __call__(
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
        layout = self._layout(patches, variates, start=start, end=end)
        tokens_BLD = self.embedding(x_BNCP.to(self.dtype).flatten(1, 2))
        for layer, block in enumerate(self.blocks):
            wanted = last if layer == len(self.blocks) - 1 else patches
            tokens_BLD = block(
                tokens_BLD, layout, wanted=wanted * variates, cache=cache, layer=layer
            )
        return self.predict(tokens_BLD.unflatten(1, (last, variates)))

    def predict(self, tokens_BNCD: Tensor) -> Prediction:
        """What the heads make of the last block's tokens."""
        normed = F.layer_norm(tokens_BNCD, tokens_BNCD.shape[-1:], self.norm_weight, self.norm_bias)
        out = self.head(normed).to(self.precision)
        if not self.config.variance:
            return Prediction(out, None, normed)
        mean, log_variance = out.chunk(2, dim=-1)
        return Prediction(mean, log_variance.clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND), normed)

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache with room for `patches` patches of `variates` variates."""
        cache = new_cache(
            self.config,
            batch=batch,
            patches=patches,
            variates=variates,
            dtype=self.dtype,
            device=self.device,
        )
        self._make_room(patches, variates)
        return cache

    def _make_room(self, patches: int, variates: int) -> None:
        """Masks, and rotary positions, for windows of so many patches."""
        grown = self.masks.grow(patches, variates)
        if variates != self._turned_variates or patches * variates > len(self._turns_LE):
            patch_L, _ = token_places(patches, variates, device=self.device)
            nobody_L = torch.zeros_like(patch_L)
            self._turns_LE = rotary_table(
                self.config, patch_L, nobody_L, window=0, dtype=self.precision
            )
            self._turned_variates, grown = variates, True
        if grown:
            self._layouts.clear()  # they are views of what was before

    def _layout(
        self, patches: int, variates: int, *, start: int | Tensor, end: int | None
    ) -> Layout:
        """The layout of a pass; one that does not depend on data is built once and kept."""
        if not isinstance(start, int):
            assert end is not None, "`end` must be given with a start per sample"
            return self._build_layout(patches, variates, start=start, end=end)
        key = (patches, variates, start)
        if key not in self._layouts:
            if len(self._layouts) >= LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = self._build_layout(
                patches, variates, start=start, end=start + patches
            )
        return self._layouts[key]

    def _build_layout(
        self, patches: int, variates: int, *, start: int | Tensor, end: int
    ) -> Layout:
        self._make_room(end, variates)
        alike = isinstance(start, int)
        return Layout(
            variates=variates,
            start=start,
            end=end,
            turn=self._turn(patches, variates, start=start, end=end),
            unseen=later_patches(start, patches, end, device=self.device),
            masks=self.masks.corners(patches, end, variates) if alike else None,
        )

    def _turn(self, patches: int, variates: int, *, start: int | Tensor, end: int) -> Tensor:
        """The rotary table of the pass's tokens, complex [1 or B, L, 1, 1, E/4]."""
        if self.config.positions == "flattened" and variates > 1:
            assert start == 0, "such positions have no cache"
            patch_L, variate_L = token_places(patches, variates, device=self.device)
            turn_BLE = rotary_table(
                self.config, patch_L, variate_L, window=end, dtype=self.precision
            )[None]
        elif isinstance(start, int):
            first, count = start * variates, patches * variates
            turn_BLE = self._turns_LE[None, first : first + count]
        else:
            step_L = torch.arange(patches * variates, device=self.device)
            turn_BLE = self._turns_LE[(start * variates)[:, None] + step_L]
        return turn_BLE[:, :, None, None]


class EngineBlock:
    """One block: TimeAttention and feed-forward layer, each followed by its norm."""

    def __init__(self, block: Block, *, int8: bool, splits: bool) -> None:
        """Pack a block's weights; with `splits` for passes whose last tokens alone are wanted."""
        attention = block.attention
        self.heads, self.head_width = attention.heads, attention.head_width
        weight, bias = _affine(attention.qkv)
        rows = weight.shape[1]
        self.qkv = PackedLinear(weight, bias, int8=int8)
        if splits:
            self.query = PackedLinear(weight[:rows], bias[:rows], int8=int8)
            self.key_value = PackedLinear(weight[rows:], bias[rows:], int8=int8)
        self.out = PackedLinear(*_affine(attention.out), int8=int8)
        # [0] between different variates, [1] within one.
        self.bias_2H = attention.bias_2H.detach() * attention.head_width**-0.5
        self.widen = PackedLinear(
            *_affine(block.widen), activation=block.activation_name, int8=int8
        )
        self.narrow = PackedLinear(*_affine(block.narrow), int8=int8)
        norms = (block.norm_attention, block.norm_feed_forward)
        self.norms = [(norm.weight.detach(), norm.bias.detach()) for norm in norms]

    def __call__(
        self,
        x_BLD: Tensor,
        layout: Layout,
        *,
        wanted: int,
        cache: KeyValueCache | None,
        layer: int,
    ) -> Tensor:
        """The block's last `wanted` tokens."""
        parts = (3, self.heads, self.head_width)
        if wanted == x_BLD.shape[1]:
            qkv_BL3HE = self.qkv(x_BLD).unflatten(-1, parts)
            rotate_(qkv_BL3HE[:, :, :2], layout.turn)
            query_BLHE, key_value_BS2HE = qkv_BL3HE[:, :, 0], qkv_BL3HE[:, :, 1:]
        else:
            key_value_BS2HE = self.key_value(x_BLD).unflatten(-1, (2, *parts[1:]))
            rotate_(key_value_BS2HE[:, :, :1], layout.turn)
            x_BLD = x_BLD[:, -wanted:].contiguous()
            query_BL1HE = self.query(x_BLD).unflatten(-1, (1, *parts[1:]))
            rotate_(query_BL1HE, layout.turn[:, -wanted:])
            query_BLHE = query_BL1HE[:, :, 0]
        key_value_2BHSE = key_value_BS2HE.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key_value_2BHSE = cache.write(
                layer,
                key_value_2BHSE,
                start=layout.start * layout.variates,
                stop=layout.end * layout.variates,
            )
        key_BHSE, value_BHSE = key_value_2BHSE.unbind()
        attended_BHLE = F.scaled_dot_product_attention(
            query_BLHE.transpose(1, 2),
            key_BHSE,
            value_BHSE,
            attn_mask=self._mask(layout, wanted=wanted, layer=layer),
        )
        return self.after_attention(attended_BHLE, x_BLD)

    def after_attention(self, attended_BHLE: Tensor, x_BLD: Tensor) -> Tensor:
        """The block's tokens, from what its queries attended to and the tokens they came from."""
        x_BLD = self._norm(
            self.out.plus(attended_BHLE.transpose(1, 2).flatten(2).to(x_BLD.dtype), x_BLD), 0
        )
        return self._norm(self.narrow.plus(self.widen(x_BLD), x_BLD), 1)

    def _norm(self, x_BLD: Tensor, index: int) -> Tensor:
        return F.layer_norm(x_BLD, x_BLD.shape[-1:], *self.norms[index])

    def _mask(self, layout: Layout, *, wanted: int, layer: int) -> Tensor:
        """Additive mask [1 or B, H, wanted, S]: the variate bias, minus infinity on the future."""
        if layout.masks is not None:
            return layout.masks[layer][:, :, -wanted:]
        unseen_BNS = layout.unseen[:, -(wanted // layout.variates) :]
        return spelled_out(self.bias_2H, unseen_BNS, layout.variates)


def _affine(layer: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight.detach(), layer.bias.detach()
