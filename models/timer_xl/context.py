"""What a decoding step reads: the history of each sample, through one model, under one policy.

A `History` holds what each sample has so far, with room past its end for proposals. A context reads
it through one model: `SlidingContext` re-normalises and re-encodes the last window at each step,
`CachedContext` keeps statistics, keys and values from an anchor on. Lengths live on the host, so
that finding out what to read never waits for the device.

Shapes: B batch, T time steps, C variates, N patches, P patch length, K proposed patches,
M predictions, one after each of M prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from timer_xl.acceptance import Gaussian
from timer_xl.model import Normalisation, Prediction, TimerXL


@dataclass(frozen=True)
class ContextPolicy:
    """What a step reads, and in which units."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field

    kind: Literal["sliding", "cached"] = "sliding"
    """`sliding`: each step re-normalises and re-encodes the last context window (Timer-XL's
    protocol). `cached`: statistics are fixed and keys and values kept from an anchor on"""
    renorm_every: int = 0
    """`cached` only: patches after which the window is anchored anew; 0 for never"""

    def __post_init__(self) -> None:
        if self.kind not in ("sliding", "cached"):
            raise ValueError(f"context policy is {self.kind!r}: 'sliding' or 'cached' would do")
        if self.kind == "sliding" and self.renorm_every:
            raise ValueError(
                f"renorm_every is {self.renorm_every}: 'sliding' renormalises at every patch; set 0"
            )
        if self.renorm_every < 0 or self.renorm_every == 1:
            raise ValueError(
                f"renorm_every is {self.renorm_every}: 0 (never) or at least 2; to renormalise at "
                "every patch use 'sliding'"
            )


class History:
    """What each sample has so far: its context window, then the patches emitted after it."""

    def __init__(self, context_BTC: Tensor, *, patch: int, room: int, keep_proposals: bool) -> None:
        batch, steps, variates = context_BTC.shape
        self.context_patches = steps // patch
        window_BNCP = context_BTC.unflatten(1, (self.context_patches, patch)).transpose(2, 3)
        # What the models read. With `keep_proposals` an accepted patch stays as the draft
        # proposed it, which is what the cached keys were computed from.
        self.read_BNCP = context_BTC.new_zeros(batch, self.context_patches + room, variates, patch)
        self.read_BNCP[:, : self.context_patches] = window_BNCP
        self.emitted_BNCP = self.read_BNCP.clone() if keep_proposals else self.read_BNCP
        self.length_B = torch.full((batch,), self.context_patches)

    @property
    def emitted_B(self) -> Tensor:
        """Patches emitted so far, int64 on the host."""
        return self.length_B - self.context_patches

    def write_ahead(self, patches_BKCP: Tensor, *, ahead: int) -> None:
        """Place proposals `ahead` patches past each sample's end; the ends stay where they are."""
        _write(self.read_BNCP, patches_BKCP, self.length_B + ahead)

    def commit(self, emitted_BMCP: Tensor, counts_B: Tensor) -> None:
        """Move each sample's end over the first `counts_B` of its emitted patches."""
        _write(self.emitted_BNCP, emitted_BMCP, self.length_B)
        self.length_B = self.length_B + counts_B
        if self.emitted_BNCP is not self.read_BNCP:
            # The patch after the accepted ones was never proposed: the models read it as emitted.
            newest_B1 = _at(emitted_BMCP, counts_B - 1, 1)
            _write(self.read_BNCP, newest_B1, self.length_B - 1)

    def reread(self, sample_B: Tensor) -> None:
        """Let the models read the emitted patches of the samples marked true."""
        if self.emitted_BNCP is not self.read_BNCP:
            mask = sample_B.to(self.read_BNCP.device)[:, None, None, None]
            self.read_BNCP = torch.where(mask, self.emitted_BNCP, self.read_BNCP)

    def patches(self, first_B: Tensor, count: int) -> Tensor:
        """`count` patches of each sample from its own first one, [B, count, C, P]."""
        return _at(self.read_BNCP, first_B, count)

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        shared = self.emitted_BNCP is self.read_BNCP
        index_device = index_A.to(self.read_BNCP.device)
        self.read_BNCP = self.read_BNCP[index_device]
        self.emitted_BNCP = self.read_BNCP if shared else self.emitted_BNCP[index_device]
        self.length_B = self.length_B[index_A]


class Outlook(NamedTuple):
    """What a model expects after some prefixes of a history, in the data's units."""

    mean: Tensor
    """[B, M, C, P], or for a one-pass draft [B, patches_out, C, P] after its one prefix"""
    log_variance: Tensor | None
    """as `mean`, in RevIN units"""
    unit: Tensor
    """[B, 1 or M, C, 1], the length of one RevIN unit"""

    def gaussian(self, sigma: float | None) -> Gaussian:
        """The distribution: the model's variance where it has one, `sigma` units elsewhere."""
        if self.log_variance is None:
            deviation = self.unit * (1.0 if sigma is None else sigma)
        else:
            deviation = self.unit * torch.exp(0.5 * self.log_variance)
        return Gaussian(self.mean, deviation.expand_as(self.mean))


class SlidingContext:
    """Reads the last context window anew at each step: Timer-XL's own protocol."""

    def __init__(self, model: TimerXL, history: History) -> None:
        self.model, self.history = model, history

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        Their windows are shifts of one another, each with statistics of its own: one batch, one
        pass.
        """
        size = self.history.context_patches
        first_B = self.history.length_B + ahead - last + 1 - size
        span = self.history.patches(first_B, size + last - 1)
        windows = span.unfold(1, size, 1).permute(0, 1, 4, 2, 3).flatten(0, 1)
        normalisation = Normalisation.of(windows)
        prediction = self.model(normalisation.apply(windows), last=1)
        mean = normalisation.invert(prediction.mean)
        unit = normalisation.deviation
        return _outlook(self.model, mean, prediction.log_variance, unit, batch=len(first_B))

    def begin_round(self) -> None:
        """Nothing is kept from round to round."""

    def keep(self, valid_B: Tensor) -> None:
        """Nothing is kept from round to round."""

    def select(self, index_A: Tensor) -> None:
        """Nothing is kept from round to round."""


class CachedContext:
    """Keeps keys and values from an anchor on; statistics are those of the anchor's window."""

    def __init__(self, model: TimerXL, history: History, *, renorm_every: int, room: int) -> None:
        self.model, self.history, self.renorm_every = model, history, renorm_every
        batch, _, variates, _ = history.read_BNCP.shape
        self.anchor_B = torch.zeros(batch, dtype=torch.int64)
        self.encoded_B = torch.zeros(batch, dtype=torch.int64)
        size = history.context_patches
        self.normalisation = Normalisation.of(history.read_BNCP[:, :size])
        self.cache = model.new_cache(batch=batch, patches=size + room, variates=variates)

    def begin_round(self) -> None:
        """Anchor anew the samples whose turn it is."""
        if not self.renorm_every:
            return
        due_B = (self.history.emitted_B % self.renorm_every == 0) & (self.history.emitted_B > 0)
        if not bool(due_B.any()):
            return
        self.history.reread(due_B)
        window_B = self.history.length_B - self.history.context_patches
        self.anchor_B = torch.where(due_B, window_B, self.anchor_B)
        self.encoded_B = torch.where(due_B, window_B, self.encoded_B)
        fresh = Normalisation.of(self.history.patches(window_B, self.history.context_patches))
        mask = due_B.to(fresh.mean.device)[:, None, None, None]
        self.normalisation = Normalisation(
            *(
                torch.where(mask, new, old)
                for new, old in zip(fresh, self.normalisation, strict=True)
            )
        )

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        Only what the cache lacks is encoded. Where samples lack unequally many patches, all encode
        as many as the one that lacks most: the others write the same keys once more.
        """
        end_B = self.history.length_B + ahead
        shortest = int((end_B - self.anchor_B).min())
        # A sample cannot write more than it has: those that lack more catch up in steps.
        while int((end_B - self.encoded_B).max()) > shortest:
            self._encode(torch.minimum(end_B, self.encoded_B + shortest), shortest, last=1)
        count = max(last, int((end_B - self.encoded_B).max()))
        prediction = self._encode(end_B, count, last=last)
        mean = self.normalisation.invert(prediction.mean)
        unit = self.normalisation.deviation
        return _outlook(self.model, mean, prediction.log_variance, unit, batch=len(end_B))

    def _encode(self, end_B: Tensor, count: int, *, last: int) -> Prediction:
        """A pass over the `count` patches before each sample's `end_B`, which are then cached."""
        start_B = end_B - count - self.anchor_B
        x = self.normalisation.apply(self.history.patches(end_B - count, count))
        uniform = bool((start_B == start_B[0]).all())
        prediction: Prediction = self.model(
            x,
            last=last,
            cache=self.cache,
            start=int(start_B[0]) if uniform else start_B.to(x.device, non_blocking=True),
            end=int((end_B - self.anchor_B).max()),
        )
        self.encoded_B = end_B
        return prediction

    def keep(self, valid_B: Tensor) -> None:
        """Forget what was encoded past each sample's first `valid_B` patches."""
        self.encoded_B = torch.minimum(self.encoded_B, valid_B)

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        self.anchor_B, self.encoded_B = self.anchor_B[index_A], self.encoded_B[index_A]
        index_device = index_A.to(self.normalisation.mean.device)
        self.normalisation = Normalisation(*(part[index_device] for part in self.normalisation))
        self.cache.select(index_device)


Context = SlidingContext | CachedContext


def open_context(model: TimerXL, history: History, policy: ContextPolicy, *, room: int) -> Context:
    """The context in which `model` reads `history`; `room` is the patches to come at most."""
    if policy.kind == "sliding":
        return SlidingContext(model, history)
    return CachedContext(model, history, renorm_every=policy.renorm_every, room=room)


def _outlook(
    model: TimerXL, mean: Tensor, log_variance: Tensor | None, unit: Tensor, *, batch: int
) -> Outlook:
    """The outlook of a pass of shape [batch * windows, last, C, Q], patch by patch.

    A pass has either several windows or several last positions; both become the axis of prefixes.
    """
    patch = model.config.patch

    def by_patch(x: Tensor) -> Tensor:
        x = x.reshape(batch, -1, *x.shape[2:])
        if model.config.patches_out == 1:
            return x
        split: Tensor = x.unflatten(-1, (-1, patch))
        return split.transpose(2, 3).flatten(1, 2)

    unit = unit.reshape(batch, -1, *unit.shape[2:])
    return Outlook(by_patch(mean), None if log_variance is None else by_patch(log_variance), unit)


def _at(x_BNCP: Tensor, first_B: Tensor, count: int) -> Tensor:
    """`count` patches of each sample from its own first one; a view where all start alike."""
    if bool((first_B == first_B[0]).all()):
        first = int(first_B[0])
        return x_BNCP[:, first : first + count]
    index_BN = (first_B[:, None] + torch.arange(count)).to(x_BNCP.device, non_blocking=True)
    return x_BNCP[torch.arange(len(x_BNCP), device=x_BNCP.device)[:, None], index_BN]


def _write(x_BNCP: Tensor, patches_BMCP: Tensor, first_B: Tensor) -> None:
    """Write patches into `x`, from each sample's own first one; what has no room is left out."""
    count = min(patches_BMCP.shape[1], x_BNCP.shape[1] - int(first_B.max()))
    if bool((first_B == first_B[0]).all()):
        first = int(first_B[0])
        x_BNCP[:, first : first + count] = patches_BMCP[:, :count]
        return
    index_BM = (first_B[:, None] + torch.arange(count)).to(x_BNCP.device, non_blocking=True)
    row_B1 = torch.arange(len(x_BNCP), device=x_BNCP.device)[:, None]
    x_BNCP[row_B1, index_BM] = patches_BMCP[:, :count]
