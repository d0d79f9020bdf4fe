"""Reading a history with keys and values kept: a step after the first encodes only what is new.

`KeyValueCache` keeps them, with a place of its own for every sample of a batch. Patches are counted
from the window's anchor. A query never sees a key of a later patch, so what lies beyond a sample's
place is dead: truncating is moving the place back, and the next pass writes over it.
`CachedContext` keeps keys and values from an anchor on, where `AnchoredContext` encodes them anew.

Shapes: B batch, C variates, N patches, P patch length, H heads, S cached tokens, E head width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from speculation.distribution import Outlook
from speculation.history import (
    History,
    Place,
    alike,
    each,
    earlier,
    highest,
    lowest,
    of_samples,
    on_device,
)
from speculation.normalisation import Normalisation, Prediction
from speculation.rereading import AnchoredContext, Reader, outlook_of


class KeyValueCache:
    """Preallocated keys and values of every layer of one model."""

    def __init__(
        self,
        *,
        num_layers: int,
        batch: int,
        heads: int,
        tokens: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, 2, batch, heads, tokens, head_width)
        self.store_L2BHSE = torch.empty(shape, dtype=dtype, device=device)
        self.tokens_made = 0  # of every sample: written, or zero

    def write(self, layer: int, new_2BHSE: Tensor, *, start: int | Tensor, stop: int) -> Tensor:
        """Keys and values [2, B, H, stop, E] after writing the new ones at token `start`.

        Args:
            layer: index of the block.
            new_2BHSE: keys and values of the new tokens.
            start: first token to write; one number for all, or an int64 tensor [B].
            stop: tokens to return, at least as many as any sample holds after the write.
        """
        stored_2BHSE = self.store_L2BHSE[layer]
        num_new = new_2BHSE.shape[3]
        if isinstance(start, int):
            stored_2BHSE[:, :, :, start : start + num_new] = new_2BHSE
        else:
            # What a sample does not write is masked, but enters as 0 * value, and 0 * NaN is NaN.
            self.store_L2BHSE[..., self.tokens_made : stop, :] = 0
            token_BS = start[:, None] + torch.arange(num_new, device=start.device)
            token_2BHSE = token_BS[None, :, None, :, None].expand_as(new_2BHSE)
            stored_2BHSE.scatter_(3, token_2BHSE, new_2BHSE)
        self.tokens_made = max(self.tokens_made, stop)
        return stored_2BHSE[:, :, :, :stop]

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch, in that order."""
        self.store_L2BHSE = self.store_L2BHSE.index_select(2, index_A)


def later_patches(start: int | Tensor, queries: int, keys: int, *, device: torch.device) -> Tensor:
    """Whether a key's patch is later than a query's, bool [1 or B, N, S].

    Args:
        start: patch of the first query; one for all samples, or int64 [B] on the device.
        queries: patches of queries.
        keys: patches of keys, from the first there is.
        device: where the mask is wanted.
    """
    patch_N1 = torch.arange(queries, device=device)[:, None] + (
        start if isinstance(start, int) else start[:, None, None]
    )
    return (torch.arange(keys, device=device) > patch_N1).view(-1, queries, keys)


class CachingReader(Reader, Protocol):
    """What encodes patches behind others whose keys and values it has kept."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def new_cache(self, *, batch: int, patches: int, variates: int) -> KeyValueCache:
        """An empty cache with room for `patches` patches of `variates` variates."""

    def __call__(
        self,
        x_BNCP: Tensor,
        *,
        last: int | None = None,
        cache: KeyValueCache | None = None,
        start: int | Tensor = 0,
        end: int | None = None,
    ) -> Prediction:
        """What follows each of the last `last` patches of the pass."""


class CachedContext(AnchoredContext):
    """Keeps keys and values from an anchor on; statistics are those of the anchor's window."""

    def __init__(
        self, model: CachingReader, history: History, *, renorm_every: int, room: int
    ) -> None:
        super().__init__(model, history, renorm_every=renorm_every)
        self.reader = model
        batch, _, variates, _ = history.read_BNCP.shape
        self.encoded: Place = 0
        patches = history.context_patches + room
        self.cache = model.new_cache(batch=batch, patches=patches, variates=variates)

    def anchor_anew(self, due_B: Tensor) -> None:
        """As `AnchoredContext.anchor_anew`; nothing of these samples' windows is encoded yet."""
        super().anchor_anew(due_B)
        anchor_B, encoded_B = (each(place, len(due_B)) for place in (self.anchor, self.encoded))
        self.encoded = alike(torch.where(due_B, anchor_B, encoded_B))

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        Only what the cache lacks is encoded. Where samples lack unequally many patches, all encode
        as many as the one that lacks most: the others write the same keys once more.
        """
        end = self.history.end + ahead
        shortest = lowest(end - self.anchor)
        # A sample cannot write more than it has: those that lack more catch up in steps.
        while highest(end - self.encoded) > shortest:
            self._encode(earlier(end, self.encoded + shortest), shortest, last=1)
        count = max(last, highest(end - self.encoded))
        return self.outlook(self._encode(end, count, last=last), end=end)

    def units_of(self, first: Place, patches_BNCP: Tensor) -> Normalisation:
        """In what the patches from each sample's `first` one on are read: here, the anchor's."""
        return self.normalisation

    def outlook(self, prediction: Prediction, *, end: Place) -> Outlook:
        """The outlook of a pass over the patches before each sample's `end`."""
        return outlook_of(
            prediction, self.normalisation, config=self.model.config, batch=len(prediction.mean)
        )

    def _encode(self, end: Place, count: int, *, last: int) -> Prediction:
        """A pass over the `count` patches before each sample's `end`, which are then cached."""
        patches_BNCP = self.history.patches(end - count, count)
        x = self.units_of(end - count, patches_BNCP).apply(patches_BNCP)
        prediction = self.reader(
            x,
            last=last,
            cache=self.cache,
            start=on_device(alike(end - count - self.anchor), x.device),
            end=highest(end - self.anchor),
        )
        self.encoded = end
        return prediction

    def keep(self, valid: Place) -> None:
        """Forget what was encoded past each sample's first `valid` patches."""
        self.encoded = earlier(self.encoded, valid)

    def forget(self, count: int) -> None:
        """Be as if the last `count` patches of the history were new."""
        self.encoded = self.history.end - count

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        super().select(index_A)
        self.encoded = of_samples(self.encoded, index_A)
        self.cache.select(index_A.to(self.reader.device, non_blocking=True))
