"""Reading a history by encoding it anew at each step: right for every family, and the plainest.

`SlidingContext` reads the last window in its own units: Timer-XL's protocol. `AnchoredContext`
reads all that has come since an anchor, in the units of the anchor's window. `GrowingContext` reads
the context and all that came after it, in the units of both together. Nothing is kept from step to
step but anchors and units.

Shapes: B batch, A samples kept, C variates, N patches, P patch length, M predictions, one after
each of M prefixes, Q = patches_out * P.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from speculation.distribution import Outlook
from speculation.forecaster import Architecture, Context
from speculation.history import (
    History,
    Place,
    alike,
    each,
    highest,
    lowest,
    of_samples,
    read_at,
)
from speculation.normalisation import Normalisation, Prediction
from speculation.policy import ContextPolicy


class Reader(Protocol):
    """What encodes a window of normalised patches."""

    @property
    def config(self) -> Architecture:
        """Its architecture."""

    def __call__(self, x_BNCP: Tensor, *, last: int | None = None) -> Prediction:
        """What follows each of the last `last` patches."""


class SlidingContext:
    """Reads the last context window anew at each step, in its own units."""

    def __init__(self, model: Reader, history: History) -> None:
        self.model, self.history = model, history

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        Their windows are shifts of one another, each with statistics of its own: one batch, one
        pass.
        """
        size = self.history.context_patches
        span = self.history.patches(self.history.end + ahead - last + 1 - size, size + last - 1)
        windows = span.unfold(1, size, 1).permute(0, 1, 4, 2, 3).flatten(0, 1)
        normalisation = self.model.config.normalisation(windows)
        prediction = self.model(normalisation.apply(windows), last=1)
        return outlook_of(prediction, normalisation, config=self.model.config, batch=len(span))

    def begin_round(self) -> None:
        """Nothing is kept from round to round."""

    def keep(self, valid: Place) -> None:
        """Nothing is kept from round to round."""

    def forget(self, count: int) -> None:
        """Nothing is kept from round to round."""

    def select(self, index_A: Tensor) -> None:
        """Nothing is kept from round to round."""


class AnchoredContext:
    """Reads all patches since each sample's anchor, in the units of the anchor's window."""

    def __init__(self, model: Reader, history: History, *, renorm_every: int) -> None:
        self.model, self.history, self.renorm_every = model, history, renorm_every
        self.anchor: Place = 0
        window = history.read_BNCP[:, : history.context_patches]
        self.normalisation = model.config.normalisation(window)

    def begin_round(self) -> None:
        """Anchor anew the samples whose turn it is."""
        if not self.renorm_every:
            return
        emitted_B = self.history.emitted_B
        due_B = (emitted_B % self.renorm_every == 0) & (emitted_B > 0)
        if bool(due_B.any()):  # places are on the host: no wait
            self.anchor_anew(due_B)

    def anchor_anew(self, due_B: Tensor) -> None:
        """Let the windows of the samples marked true begin, and give units, from here on."""
        self.history.reread(due_B)
        size, batch = self.history.context_patches, len(due_B)
        window = self.history.end - size
        self.anchor = alike(torch.where(due_B, each(window, batch), each(self.anchor, batch)))
        fresh = self.model.config.normalisation(self.history.patches(window, size))
        mask = due_B.to(fresh.mean.device, non_blocking=True)[:, None, None, None]
        self.normalisation = Normalisation(
            *(
                torch.where(mask, new, old)
                for new, old in zip(fresh, self.normalisation, strict=True)
            )
        )

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        Where samples have come unequally far, all are read as far as the one that has most: what
        follows a patch does not depend on those after it.
        """
        length = self.history.end + ahead - self.anchor
        count, shortest = highest(length), lowest(length)
        x_BNCP = self.normalisation.apply(self._since_anchor(count))
        passed = self.model(x_BNCP, last=count - shortest + last)
        wanted = passed.through(lambda x: read_at(x, length - shortest, last))
        return outlook_of(
            wanted, self.normalisation, config=self.model.config, batch=len(wanted.mean)
        )

    def _since_anchor(self, count: int) -> Tensor:
        """`count` patches from each sample's anchor; past the last place there is, that one."""
        read_BNCP = self.history.read_BNCP
        if isinstance(self.anchor, int):
            return read_BNCP[:, self.anchor : self.anchor + count]
        place_BN = self.anchor[:, None] + torch.arange(count)
        place_BN = place_BN.clamp_max(read_BNCP.shape[1] - 1)
        device = read_BNCP.device
        row_B1 = torch.arange(len(read_BNCP), device=device)[:, None]
        return read_BNCP[row_B1, place_BN.to(device, non_blocking=True)]

    def keep(self, valid: Place) -> None:
        """Nothing of what was encoded is kept."""

    def forget(self, count: int) -> None:
        """Nothing of what was encoded is kept."""

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        self.anchor = of_samples(self.anchor, index_A)
        index_device = index_A.to(self.normalisation.mean.device, non_blocking=True)
        self.normalisation = Normalisation(*(part[index_device] for part in self.normalisation))


class GrowingContext:
    """Reads the context and all that came after it anew at each step, in the units of the whole.

    It is not `SlidingContext`, which forgets the oldest patch at every step, nor `AnchoredContext`,
    whose units stay. Keys of one prefix are of no use to the next: verifying K patches encodes
    K + 1 whole sequences.
    """

    def __init__(self, model: Reader, history: History) -> None:
        self.model, self.history = model, history

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        The prefixes are one batch, each filled up at its end with what its prediction cannot see.
        """
        end_B = each(self.history.end + ahead, len(self.history.read_BNCP))
        length_W = (end_B[:, None] + torch.arange(1 - last, 1)).flatten()
        longest, shortest = highest(length_W), lowest(length_W)
        x_WNCP = self.history.read_BNCP[:, :longest].repeat_interleave(last, 0)
        mean, deviation = (x_WNCP.new_empty(len(x_WNCP), 1, x_WNCP.shape[2], 1) for _ in range(2))
        for length in set(length_W.tolist()):
            index_A = torch.nonzero(length_W == length).flatten().to(x_WNCP.device)
            units = self.model.config.normalisation(x_WNCP[index_A, :length])
            mean[index_A], deviation[index_A] = units
        normalisation = Normalisation(mean, deviation)
        passed = self.model(normalisation.apply(x_WNCP), last=longest - shortest + 1)
        wanted = passed.through(lambda x: read_at(x, alike(length_W - shortest), 1))
        return outlook_of(wanted, normalisation, config=self.model.config, batch=len(end_B))

    def begin_round(self) -> None:
        """Nothing is kept from round to round."""

    def keep(self, valid: Place) -> None:
        """Nothing is kept from round to round."""

    def forget(self, count: int) -> None:
        """Nothing is kept from round to round."""

    def select(self, index_A: Tensor) -> None:
        """Nothing is kept from round to round."""


def open_rereading(model: Reader, history: History, policy: ContextPolicy) -> Context:
    """The context in which `model` reads `history`, encoding it anew at each step.

    Under every policy but `deployed`, which is a family's own.
    """
    assert policy.kind != "deployed"
    if policy.kind == "sliding":
        return SlidingContext(model, history)
    if policy.kind == "growing":
        return GrowingContext(model, history)
    return AnchoredContext(model, history, renorm_every=policy.renorm_every)


def outlook_of(
    prediction: Prediction, units: Normalisation, *, config: Architecture, batch: int
) -> Outlook:
    """The outlook of a pass of shape [batch * windows, last, C, Q], patch by patch.

    A pass has either several windows or several last positions; both become the axis of prefixes.
    """

    def by_patch(x: Tensor) -> Tensor:
        x = x.reshape(batch, -1, *x.shape[2:])
        if config.patches_out == 1:
            return x
        split: Tensor = x.unflatten(-1, (-1, config.patch))
        return split.transpose(2, 3).flatten(1, 2)

    log_variance, hidden = prediction.log_variance, prediction.hidden
    return Outlook(
        by_patch(units.invert(prediction.mean)),
        None if log_variance is None else by_patch(log_variance),
        units.deviation.reshape(batch, -1, *units.deviation.shape[2:]),
        None if hidden is None else hidden.reshape(batch, -1, *hidden.shape[2:]),
    )
