"""What decoding and the platform ask of a family of models, and nothing more.

A family is a folder beside this one: an architecture that can be scaled, a network that trains
(`speculation.network`), and what decodes. The rest of the project sees the protocols below, and
finds families by name (`speculation.families`).

Shapes: B batch, A samples kept, M predictions, N patches, C variates, P patch length.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from speculation.distribution import Outlook
from speculation.errors import InvalidInput
from speculation.history import History, Place
from speculation.normalisation import Normalisation
from speculation.policy import ContextPolicy, PolicyKind


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


class Architecture(Protocol):
    """What a model is before it has weights: a frozen dataclass of plain values.

    Its fields are what `config.json` and a training say of it, and what a model's key depends on.
    """

    @property
    def family(self) -> str:
        """The name of its family."""

    @property
    def patch(self) -> int:
        """Time steps of a patch."""

    @property
    def context(self) -> int:
        """Time steps of look-back."""

    @property
    def context_patches(self) -> int:
        """Patches of look-back."""

    @property
    def patches_out(self) -> int:
        """Patches that one pass emits."""

    @property
    def variance(self) -> bool:
        """Whether a log-variance comes beside the mean."""

    @property
    def units(self) -> str:
        """In what it reads and answers, by name: two models of one name have the same units."""

    @property
    def policies(self) -> tuple[PolicyKind, ...]:
        """The context policies that it reads under, by kind; the first is the family's own."""

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, by arithmetic alone; they are all that its weights file holds."""

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> Self:
        """The architecture of a draft, at `scale` of this target.

        All sizes follow `scale`, but those of which a factor of their own is given: `depth` is of
        the layers alone, `width` of all else. Each of the two changes nothing of the other's.

        Raises:
            InvalidInput: a factor is outside (0, 1], is of what this family does not have, or
                nothing near the requested size can be built.
        """

    def normalisation(self, window_BNCP: Tensor) -> Normalisation:
        """The units in which it reads what begins with that window."""


def check_factors(**factors: float | None) -> None:
    """Nothing, where each factor of a target is above 0 and at most 1, or is not given.

    Raises:
        InvalidInput: names the factor that is not, and its value.
    """
    for name, factor in factors.items():
        if factor is not None and not 0 < factor <= 1:
            raise InvalidInput(f"{name} is {factor}: it must be above 0 and at most 1")


def check_policy(architecture: Architecture, policy: ContextPolicy) -> None:
    """Nothing, where models of that architecture read under that policy.

    Raises:
        InvalidInput: names the policy, the family and the policies that would do.
    """
    if policy.kind not in architecture.policies:
        raise InvalidInput(
            f"context policy is {policy.kind!r}: the family {architecture.family} does not read "
            f"so; one of {', '.join(architecture.policies)} would do"
        )


class Forecaster(Protocol):
    """A model that drafts or judges."""

    @property
    def config(self) -> Architecture:
        """Its architecture."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def precision(self) -> torch.dtype:
        """In what it computes positions, scores and predictions."""

    def caches(self, policy: ContextPolicy) -> bool:
        """Whether it keeps what it has read, so that a step after the first reads only what is new.

        Where it does not, all steps cost alike.
        """

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most."""
