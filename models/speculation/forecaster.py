"""What decoding asks of a family of models, and nothing more.

A family is a folder beside this one: an architecture that can be scaled, a module that trains, and
what decodes. The rest of the project sees the protocols below.

Shapes: B batch, A samples kept, M predictions, C variates, P patch length.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from speculation.distribution import Outlook
from speculation.history import History, Place
from speculation.policy import ContextPolicy


class Context(Protocol):
    """One model's reading of a history, under one policy."""

    def begin_round(self) -> None:
        """Whatever a round begins with, such as an anchor whose turn it is."""

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After each of the last `last` prefixes of the history and `ahead` patches past its end.

        A model that emits several patches a pass is asked with `last` 1 alone.
        """

    def keep(self, valid: Place) -> None:
        """Forget what was encoded past each sample's first `valid` patches."""

    def forget(self, count: int) -> None:
        """Be as if the last `count` patches of the history were new."""

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""


class Shape(Protocol):
    """What decoding needs to know of an architecture."""

    @property
    def patch(self) -> int:
        """Time steps of a patch."""

    @property
    def context(self) -> int:
        """Time steps of look-back."""

    @property
    def patches_out(self) -> int:
        """Patches that one pass emits."""

    @property
    def variance(self) -> bool:
        """Whether a log-variance comes beside the mean."""

    @property
    def revin(self) -> bool:
        """Whether it reads in units of a window's mean and deviation, or in the data's own."""


class Forecaster(Protocol):
    """A model that drafts or judges."""

    @property
    def config(self) -> Shape:
        """Its architecture."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def precision(self) -> torch.dtype:
        """In what it computes positions, scores and predictions."""

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most."""
