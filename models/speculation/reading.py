"""What a step of a forecast reads under each context policy, said once and for all families.

    read = last_reading(history_BNCP, model.config, ContextPolicy("deployed"))
    next_BCQ = read.units.invert(model(read.x_BNCP, last=1).mean)

The contexts that decode come to the same in fewer passes; a draft is taught by this.

Shapes: B batch, N patches, C variates, P patch length.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from speculation.forecaster import Architecture
from speculation.history import Place
from speculation.normalisation import Normalisation
from speculation.policy import ContextPolicy


class Reading(NamedTuple):
    """What the step after a history reads."""

    x_BNCP: Tensor
    """patches of the history, each in the units in which it is read"""
    units: Normalisation
    """of what is said after the last of them"""
    unit: Tensor
    """[B, 1, C, 1], the length in which acceptance counts distances"""


def last_reading(history_BNCP: Tensor, config: Architecture, policy: ContextPolicy) -> Reading:
    """What a model reads after a history: a context, and all the patches that came after it."""
    size, count = config.context_patches, history_BNCP.shape[1]
    if policy.kind == "deployed":
        context = config.normalisation(history_BNCP[:, :size])
        units = patch_units(history_BNCP, config, first=0, context=context)
        newest = Normalisation(*(part[:, -1:] for part in units))
        return Reading(units.apply(history_BNCP), newest, context.deviation)
    if policy.kind == "growing":
        begin, window = 0, history_BNCP
    else:
        # `sliding` anchors its window at every patch, `cached` every `renorm_every` patches.
        every = 1 if policy.kind == "sliding" else policy.renorm_every
        ahead = count - size
        begin = ahead - ahead % every if every else 0
        window = history_BNCP[:, begin : begin + size]
    units = config.normalisation(window)
    return Reading(units.apply(history_BNCP[:, begin:]), units, units.deviation)


def patch_units(
    x_BNCP: Tensor, config: Architecture, *, first: Place, context: Normalisation
) -> Normalisation:
    """Of each patch under `deployed`, [B, N, C, 1]: its own after the context, there the context's.

    Args:
        x_BNCP: consecutive patches.
        config: says how a window is normalised, and how long the context is.
        first: place of the first of them in each sample, from the context's begin.
        context: the context's units.
    """
    batch, count, variates, _ = x_BNCP.shape
    alone = config.normalisation(x_BNCP.flatten(0, 1)[:, None])
    place_BN = torch.as_tensor(first).view(-1, 1) + torch.arange(count)
    within = (place_BN < config.context_patches).to(x_BNCP.device, non_blocking=True)
    return Normalisation(
        *(
            torch.where(within[:, :, None, None], its, own.view(batch, count, variates, 1))
            for its, own in zip(context, alone, strict=True)
        )
    )
