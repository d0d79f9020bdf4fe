"""What each sample of a batch has so far, and places in it.

Samples advance unequally, but mostly they do not: a place is one number while all samples stand
alike, and reading or writing there is a slice. Places live on the host, so that finding out what to
read never waits for the device.

Shapes: B batch, A samples kept, T time steps, C variates, N patches, P patch length, K proposals,
M emitted patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

Place = int | Tensor
"""A patch's place in every sample: one number for all, or int64 [B] on the host."""


class History:
    """The context window of each sample, then the patches emitted after it, then proposals."""

    def __init__(self, context_BTC: Tensor, *, patch: int, room: int, keep_proposals: bool) -> None:
        batch, steps, variates = context_BTC.shape
        self.context_patches = steps // patch
        window_BNCP = context_BTC.unflatten(1, (self.context_patches, patch)).transpose(2, 3)
        # What the models read. With `keep_proposals` an accepted patch stays as the draft
        # proposed it, which is what the cached keys were computed from.
        self.read_BNCP = context_BTC.new_zeros(batch, self.context_patches + room, variates, patch)
        self.read_BNCP[:, : self.context_patches] = window_BNCP
        self.emitted_BNCP = self.read_BNCP.clone() if keep_proposals else self.read_BNCP
        self.end: Place = self.context_patches

    @property
    def emitted_B(self) -> Tensor:
        """Patches emitted so far, int64 on the host."""
        return each(self.end, len(self.read_BNCP)) - self.context_patches

    def patches(self, first: Place, count: int) -> Tensor:
        """`count` patches of each sample from its own first one, [B, count, C, P]."""
        return read_at(self.read_BNCP, first, count)

    def write_ahead(self, patches_BKCP: Tensor, *, ahead: int) -> None:
        """Place proposals `ahead` patches past each sample's end; the ends stay where they are."""
        write_at(self.read_BNCP, patches_BKCP, self.end + ahead)

    def commit(self, emitted_BMCP: Tensor, counts: Place) -> None:
        """Move each sample's end over the first `counts` of its emitted patches."""
        write_at(self.emitted_BNCP, emitted_BMCP, self.end)
        self.end = alike(self.end + counts)
        if self.emitted_BNCP is not self.read_BNCP:
            # The patch after the accepted ones was never proposed: the models read it as emitted.
            newest_B1 = read_at(emitted_BMCP, counts - 1, 1)
            write_at(self.read_BNCP, newest_B1, self.end - 1)

    def reread(self, sample_B: Tensor) -> None:
        """Let the models read the emitted patches of the samples marked true."""
        if self.emitted_BNCP is not self.read_BNCP:
            mask = sample_B.to(self.read_BNCP.device, non_blocking=True)[:, None, None, None]
            self.read_BNCP = torch.where(mask, self.emitted_BNCP, self.read_BNCP)

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        shared = self.emitted_BNCP is self.read_BNCP
        index_device = index_A.to(self.read_BNCP.device, non_blocking=True)
        self.read_BNCP = self.read_BNCP[index_device]
        self.emitted_BNCP = self.read_BNCP if shared else self.emitted_BNCP[index_device]
        self.end = of_samples(self.end, index_A)


def each(place: Place, batch: int) -> Tensor:
    """The place of each sample, int64 [B]."""
    return torch.full((batch,), place) if isinstance(place, int) else place


def alike(place: Place) -> Place:
    """The place as one number, if all samples stand alike."""
    if isinstance(place, int) or not len(place) or lowest(place) != highest(place):
        return place
    return int(place[0])


def lowest(place: Place) -> int:
    """The place of the sample that is least far."""
    return place if isinstance(place, int) else int(place.min())


def highest(place: Place) -> int:
    """The place of the sample that is farthest."""
    return place if isinstance(place, int) else int(place.max())


def earlier(one: Place, other: Place) -> Place:
    """The earlier of two places, sample by sample."""
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    return torch.minimum(torch.as_tensor(one), torch.as_tensor(other))


def of_samples(place: Place, index_A: Tensor) -> Place:
    """The places of the samples `index_A`."""
    return place if isinstance(place, int) else alike(place[index_A])


def on_device(place: Place, device: torch.device) -> int | Tensor:
    """The place as a pass takes it: one number, or int64 [B] on the device."""
    return place if isinstance(place, int) else place.to(device, non_blocking=True)


def read_at(x_BN: Tensor, first: Place, count: int) -> Tensor:
    """`count` entries of the second axis from each sample's own first one; a view if all alike."""
    if isinstance(first, int):
        return x_BN[:, first : first + count]
    return x_BN[_rows_and_places(x_BN, first, count)]


def write_at(x_BN: Tensor, values_BM: Tensor, first: Place) -> None:
    """Write along the second axis from each sample's own place; what has no room is left out."""
    count = min(values_BM.shape[1], x_BN.shape[1] - highest(first))
    if isinstance(first, int):
        x_BN[:, first : first + count] = values_BM[:, :count]
    else:
        x_BN[_rows_and_places(x_BN, first, count)] = values_BM[:, :count]


def _rows_and_places(x_BN: Tensor, first_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    row_B1 = torch.arange(len(x_BN), device=x_BN.device)[:, None]
    step_N = torch.arange(count, device=x_BN.device)
    return row_B1, first_B.to(x_BN.device, non_blocking=True)[:, None] + step_N
