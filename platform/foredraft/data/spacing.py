"""Which of many windows are looked at, where not all of them are."""

from __future__ import annotations

import torch
from torch import Tensor

SINGLE_EXACT = 2**24
"""Whole numbers up to here are exact in single precision."""


def evenly_spaced(total: int, *, count: int) -> Tensor:
    """`count` of the indices below `total`, evenly spaced from the first to the last, int64.

    Single precision as far as it goes: it puts some index one lower than whole numbers would, and
    every figure so far was taken there. Beyond, it rounds past the last index.
    """
    if total <= SINGLE_EXACT:
        return torch.linspace(0, total - 1, count).long()
    return torch.arange(count) * (total - 1) // max(1, count - 1)
