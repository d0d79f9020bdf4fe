"""Where the time of training steps goes: inside the passes of the model, or outside them.

watch.begin_step()
with watch.passing():
    ...                      # forward and backward
watch.end_step()
watch.outside_share
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

# One step in so many is timed: on a GPU the clock has to wait for the device.
TIMED_EVERY = 8


class Stopwatch:
    """Tells which share of the steps is spent outside forward and backward."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.step, self.step_s, self.passing_s = 0, 0.0, 0.0

    def begin_step(self) -> None:
        """A step begins: with the drawing of its windows."""
        self.timed = self.step % TIMED_EVERY == 0
        self.started = self._now() if self.timed else 0.0

    def end_step(self) -> None:
        """The weights are those of the next step."""
        self.step += 1
        if self.timed:
            self.step_s += self._now() - self.started

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Around forward and backward."""
        started = self._now() if self.timed else 0.0
        yield
        if self.timed:
            self.passing_s += self._now() - started

    @property
    def outside_share(self) -> float:
        """Share of the timed steps outside forward and backward, 0..1."""
        return 1 - self.passing_s / self.step_s

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
