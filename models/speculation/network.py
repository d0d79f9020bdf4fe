"""A model of a family as it is trained, and the plainest way in which it decodes.

Shapes: B batch, N patches, C variates, P patch length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from speculation.errors import InvalidInput
from speculation.forecaster import Architecture, Context, Forecaster, check_policy
from speculation.history import History
from speculation.normalisation import Prediction
from speculation.policy import ContextPolicy
from speculation.rereading import open_rereading


class Network(nn.Module, ABC):
    """What every family's module is; it is a `Forecaster`, too, that encodes anew at each step.

    A family that decodes faster gives an `engine`; one that keeps keys and values, or that has a
    reading of its own for a context policy, opens contexts of its own.
    """

    config: Architecture

    @abstractmethod
    def forward(self, x_BNCP: Tensor, *, last: int | None = None) -> Prediction:
        """What follows each of the last `last` patches (all of them by default).

        The patches are consecutive in time and in the units of `config.normalisation`. What
        follows a patch depends on that patch and on earlier ones alone.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def precision(self) -> torch.dtype:
        """In what predictions are: float32, or what the weights have that is finer."""
        return torch.promote_types(self.dtype, torch.float32)

    def use_dropout(self, probability: float | None) -> None:
        """Drop out with that probability from now on; None for the architecture's own.

        An architecture without a field `dropout` has none of its own.
        """
        own: float = getattr(self.config, "dropout", 0.0)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = own if probability is None else probability

    def engine(self, *, int8: bool = False) -> Forecaster:
        """What decodes as this does, as fast as the family knows how to on this device.

        Raises:
            InvalidInput: 8 bits are asked for, and the family has none.
        """
        if int8:
            raise InvalidInput(f"int8 is true: the family {self.config.family} has no such weights")
        return self

    def caches(self, policy: ContextPolicy) -> bool:
        """Whether steps after the first read only what is new: not where all is encoded anew."""
        return False

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Its reading of a history; `room` is the patches to come at most.

        Raises:
            InvalidInput: the family does not read under that policy, or the model is in training.
        """
        check_policy(self.config, policy)
        self.refuse_training()
        return open_rereading(self, history, policy)

    def refuse_training(self) -> None:
        """Nothing; raises where the model would drop out while it forecasts."""
        if self.training:
            raise InvalidInput("the model is in training mode: call eval() before it forecasts")
