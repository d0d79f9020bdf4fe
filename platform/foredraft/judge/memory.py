"""How much memory a run holds at once, in tensors alone.

    mib = peak_mib(lambda: speculate(target, draft, context_BTC, ...), torch.device("cpu"))

CUDA counts by itself; on a CPU every operation is watched, which is slow: not what is timed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


def peak_mib(run: Callable[[], object], device: torch.device) -> float:
    """The most MiB of tensors that were alive at once during `run`, beyond what was there."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with _Meter() as meter:
        run()
    return meter.peak / 2**20


class _Meter(TorchDispatchMode):
    """Counts the bytes of storages that operations make, for as long as these live."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What the operation gives, its new storages counted."""
        given = {x.data_ptr() for x in tree_leaves((args, kwargs)) if _is_dense(x)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not _is_dense(tensor) or tensor.data_ptr() in given:
                continue
            storage = tensor.untyped_storage()
            if storage not in self.known and tensor._base is None:
                self.known[storage] = None
                self.held += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
                self.peak = max(self.peak, self.held)
        return out

    def _release(self, num_bytes: int) -> None:
        self.held -= num_bytes


def _is_dense(x: object) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided
