"""What a decoding step reads: the history of each sample, through one model, under one policy.

A context reads a `History` through one model. `FoldedContext` re-normalises the last window at each
step, as `SlidingContext` does, for a one-layer model without encoding it; what keeps keys and
values from an anchor on is general (`speculation.caching`).

Shapes: B batch, C variates, N patches, P patch length, M predictions, one after each of M prefixes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speculation.caching import CachedContext
from speculation.distribution import Outlook
from speculation.forecaster import Context, check_policy
from speculation.history import (
    History,
    Place,
    earlier,
    highest,
    lowest,
    of_samples,
    on_device,
    read_at,
    write_at,
)
from speculation.normalisation import REVIN_EPSILON, Normalisation
from speculation.policy import ContextPolicy
from speculation.rereading import SlidingContext, outlook_of

if TYPE_CHECKING:
    from timer_xl.engine import Engine


class FoldedContext:
    """What `SlidingContext` reads, from a one-layer model's raw keys: see `timer_xl.fold`."""

    def __init__(self, model: Engine, history: History) -> None:
        assert model.fold is not None
        self.model, self.history, self.fold = model, history, model.fold
        batch, places, variates, _ = history.read_BNCP.shape
        self.encoded: Place = 0
        # Means are kept less the first window's, so that no offset of the data drowns them.
        first = history.read_BNCP[:, : history.context_patches]
        self.level_B1C1 = model.config.normalisation(first).mean
        self.cache = self.fold.new_cache(batch=batch, patches=places, variates=variates)
        # Variance and mean of every patch: a window's follow from its patches'.
        self.moments_BN2C = history.read_BNCP.new_zeros(batch, places, 2, variates)

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """As `SlidingContext.predict`; only patches that are new are projected."""
        size, batch = self.history.context_patches, len(self.level_B1C1)
        end = self.history.end + ahead
        keys_values = self._encode(end)
        start = end - last + 1 - size  # of the first window
        units = self._window_units(read_at(self.moments_BN2C, start, size + last - 1))
        own = Normalisation(units.mean + self.level_B1C1, units.deviation)
        newest_BMCP = own.apply(self.history.patches(end - last, last))
        tokens_BLD = self.model.embedding(newest_BMCP.to(self.model.dtype).flatten(1, 2))
        variates, first = newest_BMCP.shape[2], lowest(start)
        attended_BHLE = self.fold.attend(
            tokens_BLD,
            keys_values[..., first * variates :, :],
            means_BTC=self.moments_BN2C[:, first : highest(end), 1],
            units=units,
            start=on_device(start, tokens_BLD.device),
            first=first,
        )
        tokens_BLD = self.model.blocks[0].after_attention(attended_BHLE, tokens_BLD)
        prediction = self.model.predict(tokens_BLD.view(batch, last, variates, -1))
        return outlook_of(prediction, own, config=self.model.config, batch=batch)

    def _encode(self, end: Place) -> Tensor:
        """All raw keys and values up to the farthest sample's `end`, those that lacked added.

        Where samples lack unequally many, all write as many as the one that lacks most, from their
        first place on if they have not as many: what is written past a sample's end lies outside
        its windows, and is written again when it counts.
        """
        count = max(1, highest(end - self.encoded))
        start = end - count if isinstance(end, int) else (end - count).clamp_min(0)
        x_BNCP = self.history.patches(start, count) - self.level_B1C1
        variance, mean_BNC = torch.var_mean(x_BNCP, 3, correction=0)
        write_at(self.moments_BN2C, torch.stack((variance, mean_BNC), 2), start)
        variates = x_BNCP.shape[2]
        keys_values = self.cache.write(
            0,
            self.fold.keys_values(
                x_BNCP - mean_BNC[..., None], start=on_device(start, x_BNCP.device)
            ),
            start=on_device(start * variates, x_BNCP.device),
            stop=highest(end) * variates,
        )
        self.encoded = end
        return keys_values

    def _window_units(self, moments_BN2C: Tensor) -> Normalisation:
        """Statistics [B, M, C, 1] of every window, its mean less the first window's.

        The variance of a window is the mean of its patches' and the variance of their means.
        """
        variance, mean = moments_BN2C.unfold(1, self.history.context_patches, 1).unbind(2)
        if not self.model.config.revin:
            zeros = torch.zeros_like(mean[..., :1])
            return Normalisation(zeros, torch.ones_like(zeros))
        between, mean_BMC = torch.var_mean(mean, dim=-1, correction=0)
        deviation_BMC = torch.sqrt(variance.mean(-1) + between + REVIN_EPSILON)
        return Normalisation(mean_BMC[..., None], deviation_BMC[..., None])

    def begin_round(self) -> None:
        """A window's units are its own at every step."""

    def keep(self, valid: Place) -> None:
        """Forget the proposals: what is emitted in their place may differ."""
        self.encoded = earlier(self.encoded, self.history.end)

    def forget(self, count: int) -> None:
        """Be as if the last `count` patches of the history were new."""
        self.encoded = self.history.end - count

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        self.encoded = of_samples(self.encoded, index_A)
        index_device = index_A.to(self.level_B1C1.device, non_blocking=True)
        self.level_B1C1 = self.level_B1C1[index_device]
        self.moments_BN2C = self.moments_BN2C[index_device]
        self.cache.select(index_device)


def open_context(model: Engine, history: History, policy: ContextPolicy, *, room: int) -> Context:
    """The context in which `model` reads `history`; `room` is the patches to come at most.

    Raises:
        InvalidInput: a Timer-XL does not read under that policy.
    """
    check_policy(model.config, policy)
    if policy.kind == "sliding":
        return (
            SlidingContext(model, history) if model.fold is None else FoldedContext(model, history)
        )
    return CachedContext(model, history, renorm_every=policy.renorm_every, room=room)
