"""A one-layer model whose window slides without being encoded anew.

In one layer, keys and values are affine in the raw patches: with a patch z = (u + a - m) / d in the
window's units, a its own mean and u what moves round that, embedding and projection give

    k = W z + b = (W u) / d - ((m - a) / d) W 1 + b.

So W u and a are computed once per patch and kept, and a window's mean m and deviation d enter where
they are cheap: in the scores and in the weights of the attention. A patch's level is kept apart
from its movement, as low precision would round away a movement at a level far off. A score's two
other terms, of the query with W 1 and with b, depend on the distance of the two patches alone, as
rotary scores do: they are linear in the query's token, and so more columns of its projection. The
forecast is that of Timer-XL's protocol, re-normalised at every step, at the price of a cached one.

Shapes: B batch, M windows, C variates, P patch length, N patches of a window, T patches whose keys
are read, H heads, E head width, D model width, L = M * C query tokens, S = T * C key tokens
(patch-major).
"""

from __future__ import annotations

import torch
from torch import Tensor

from speculation.caching import KeyValueCache
from speculation.linear import PackedLinear
from speculation.normalisation import Normalisation
from timer_xl.attention import precision_of, rotary_table, rotate_
from timer_xl.config import TimerXLConfig
from timer_xl.masks import CACHES_WORTH, Kept, variate_bias
from timer_xl.model import TimerXL, blocks_of


def can_fold(config: TimerXLConfig) -> bool:
    """Whether keys are affine in the raw patches, wherever the window stands."""
    return config.n_layers == 1 and config.positions == "time"


class Fold:
    """The weights of a one-layer model's attention, folded with its embedding."""

    def __init__(self, model: TimerXL) -> None:
        config, attention = model.config, blocks_of(model)[0].attention
        self.config, self.device, self.dtype = config, model.device, model.dtype
        self.precision = precision_of(model.dtype)
        heads, width, size = config.n_heads, config.head_width, config.context_patches
        weight, bias = (x.detach().double() for x in (attention.qkv.weight, attention.qkv.bias))
        query_HED = weight[: config.d_model].unflatten(0, (heads, width)) * width**-0.5
        query_HE = bias[: config.d_model].unflatten(0, (heads, width)) * width**-0.5
        folded = weight[config.d_model :] @ model.embedding.weight.detach().double()
        constants = weight[config.d_model :] @ model.embedding.bias.detach().double()
        # W 1 and b of the formula above.
        ones_2HE = folded.sum(1).unflatten(0, (2, heads, width))
        constants_2HE = (constants + bias[config.d_model :]).unflatten(0, (2, heads, width))
        self.value_ones_HE, self.value_constants_HE = (
            part[1].to(self.precision) for part in (ones_2HE, constants_2HE)
        )
        # A key term at every distance that a window holds, the farthest first.
        terms_H2NE = torch.stack((ones_2HE[0], constants_2HE[0]), 1)[:, :, None].repeat(
            1, 1, size, 1
        )
        rotate_(terms_H2NE, self._turns(torch.arange(1 - size, 1, device=self.device)))
        term_weight = torch.einsum("hxne,hed->hxnd", terms_H2NE, query_HED).flatten(0, 2)
        term_bias = torch.einsum("hxne,he->hxn", terms_H2NE, query_HE).flatten()
        self.query = PackedLinear(
            torch.cat((query_HED.flatten(0, 1), term_weight)).to(self.dtype),
            torch.cat((query_HE.flatten(), term_bias)).to(self.dtype),
        )
        self.key_value = PackedLinear(
            folded.to(self.dtype), torch.zeros(len(folded), dtype=self.dtype, device=self.device)
        )
        # [0] between different variates, [1] within one.
        self.bias_2H = attention.bias_2H.detach().to(self.precision) * width**-0.5
        self.turns_TE = self._turns(torch.arange(4 * size, device=self.device))
        self._columns = (config.d_model, len(term_bias))
        self._kept = Kept()

    def _turns(self, place_T: Tensor) -> Tensor:
        nobody_T = torch.zeros_like(place_T)
        return rotary_table(self.config, place_T, nobody_T, window=0, dtype=self.precision)

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache for raw keys and values at places below `patches`."""
        if patches > len(self.turns_TE):
            self.turns_TE = self._turns(torch.arange(2 * patches, device=self.device))
        return KeyValueCache(
            num_layers=1,
            batch=batch,
            heads=self.config.n_heads,
            tokens=patches * variates,
            head_width=self.config.head_width,
            dtype=self.precision,
            device=self.device,
        )

    def keys_values(self, u_BNCP: Tensor, *, start: int | Tensor) -> Tensor:
        """W u of patches from place `start` on, keys rotated: [2, B, H, N * C, E], `precision`.

        Args:
            u_BNCP: patches, each less its own mean, in the data's units.
            start: one place for all samples, or int64 [B].
        """
        batch, patches, variates, _ = u_BNCP.shape
        parts = (batch, patches, variates, 2, self.config.n_heads, self.config.head_width)
        raw = self.key_value(u_BNCP.to(self.dtype)).to(self.precision).view(parts)
        rotate_(raw[..., 0, :, :], self._turns_at(start, patches))
        return raw.flatten(1, 2).permute(2, 0, 3, 1, 4)

    def attend(
        self,
        tokens_BLD: Tensor,
        keys_values_2BHSE: Tensor,
        *,
        means_BTC: Tensor,
        units: Normalisation,
        start: int | Tensor,
        first: int,
    ) -> Tensor:
        """What the last patch of each window attends to, [B, H, L, E], `precision`.

        Args:
            tokens_BLD: embedded last patches of the windows.
            keys_values_2BHSE: W u of the patches from place `first` on.
            means_BTC: means of those patches.
            units: statistics of the windows, [B, M, C, 1]; their means count from where those do.
            start: place of the first window's first patch: one for all samples, or int64 [B].
            first: the lowest of them.
        """
        batch, windows, variates, _ = units.mean.shape
        heads, size = self.config.n_heads, self.config.context_patches
        key_BHSE, value_BHSE = keys_values_2BHSE.unbind()
        queries = (batch, windows, variates, heads)
        query, terms = self.query(tokens_BLD).to(self.precision).split(self._columns, dim=-1)
        query_BMCHE = query.view(*queries, -1)
        rotate_(query_BMCHE, self._turns_at(start + size - 1, windows))
        scores = query_BMCHE.flatten(1, 2).transpose(1, 2) @ key_BHSE.mT
        scores_BHMCTC = scores.view(batch, heads, windows, variates, -1, variates)
        patches = scores_BHMCTC.shape[4]
        of_ones, of_constants = self._terms(
            terms.view(*queries, 2, size), start=start - first, patches=patches
        )
        window = (batch, 1, windows, 1, 1, variates)
        inverse = units.deviation.to(self.precision).reciprocal().view(window)
        below = (units.mean.view(window) - means_BTC[:, None, None, None]).to(self.precision)
        below = below * inverse  # what each patch's mean lies below its window's
        mask = self._mask(start - first, windows=windows, patches=patches, variates=variates)
        rest = torch.addcmul(of_constants + mask, of_ones, below, value=-1)
        scores_BHMCTC = torch.addcmul(rest, scores_BHMCTC, inverse)
        weights = scores_BHMCTC.flatten(-2).softmax(-1).view_as(scores_BHMCTC)
        shift_BHL1 = (weights * below).sum((-1, -2)).view(batch, heads, -1, 1)
        base_BHLE = torch.addcmul(
            self.value_constants_HE[:, None], shift_BHL1, self.value_ones_HE[:, None], value=-1
        )
        weights_BHLS = (weights * inverse).view(scores.shape)
        attended = torch.baddbmm(*(x.flatten(0, 1) for x in (base_BHLE, weights_BHLS, value_BHSE)))
        return attended.view_as(base_BHLE)

    def _turns_at(self, start: int | Tensor, patches: int) -> Tensor:
        """The rotary table from each sample's place on, [1 or B, patches, 1, 1, E/4]."""
        if isinstance(start, int):
            return self.turns_TE[start : start + patches, None, None]
        place_BN = start[:, None] + torch.arange(patches, device=start.device)
        return self.turns_TE[place_BN][:, :, None, None]

    def _terms(
        self, terms_BMCH2N: Tensor, *, start: int | Tensor, patches: int
    ) -> tuple[Tensor, Tensor]:
        """A score's two other terms for every key, [B, H, M, C, T, 1] each."""
        terms_BHMC2N = terms_BMCH2N.movedim(3, 1).contiguous()
        if patches > self.config.context_patches:
            windows = terms_BHMC2N.shape[2]
            index = self._read_of_terms(start, windows=windows, patches=patches)
            terms_BHMC2N = terms_BHMC2N.gather(-1, index.expand(*terms_BHMC2N.shape[:-1], patches))
        of_ones, of_constants = terms_BHMC2N[..., None].unbind(4)
        return of_ones, of_constants

    def _read_of_terms(self, start: int | Tensor, *, windows: int, patches: int) -> Tensor:
        """Which distance's terms each key has, int64 [1 or B, 1, M, 1, 1, T]."""

        def made() -> Tensor:
            place_BMT = _places_in_windows(start, windows, patches, device=self.device)
            return place_BMT.clamp(0, self.config.context_patches - 1)[:, None, :, None, None]

        if not isinstance(start, int):
            return made()
        return self._kept.get((start, windows, patches), made, at_most=0)

    def _mask(self, start: int | Tensor, *, windows: int, patches: int, variates: int) -> Tensor:
        """Additive [1 or B, H, M, C, T, C]: the variate bias, minus infinity outside the window.

        Windows that stand alike in all samples stand alike to their keys, wherever they are: one
        mask serves them all.
        """

        def made() -> Tensor:
            place_BMT = _places_in_windows(start, windows, patches, device=self.device)
            outside_BMT = (place_BMT < 0) | (place_BMT >= self.config.context_patches)
            bias_HCC = variate_bias(self.bias_2H, variates)
            return bias_HCC[:, None, :, None].masked_fill(
                outside_BMT[:, None, :, None, :, None], float("-inf")
            )

        if not isinstance(start, int):
            return made()
        cache = 2 * self.config.d_model * patches * variates * self.bias_2H.element_size()
        key = (start, windows, patches, variates)
        return self._kept.get(key, made, at_most=CACHES_WORTH * cache)


def _places_in_windows(
    start: int | Tensor, windows: int, patches: int, *, device: torch.device
) -> Tensor:
    """Where each key stands in each window, int64 [1 or B, M, T]; outside it below 0 or too far."""
    step_M1 = torch.arange(windows, device=device)[:, None]
    first_M1 = start + step_M1 if isinstance(start, int) else start.view(-1, 1, 1) + step_M1
    return (torch.arange(patches, device=device) - first_M1).view(-1, windows, patches)
