"""A Timer as it decodes on a CPU: the same passes, with weights laid out for the processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speculation.linear import PackedLinear
from timer.model import Timer


class Packed(nn.Module):
    """What an `nn.Linear` computes, from weights packed once; it cannot be trained."""

    def __init__(self, linear: nn.Linear, *, int8: bool) -> None:
        super().__init__()
        bias = None if linear.bias is None else linear.bias.detach()
        self.product = PackedLinear(linear.weight.detach(), bias, int8=int8)

    def forward(self, x: Tensor) -> Tensor:
        """The map's value."""
        return self.product(x)


def packed(model: Timer, *, int8: bool = False) -> Timer:
    """The model with all its linear maps packed; `model` stays as it is.

    Args:
        model: in the type to decode in.
        int8: quantise the weights to 8 bits: meant for drafts, whose proposals are checked.

    Raises:
        InvalidInput: 8 bits are asked for, and the model is not on a CPU.
    """
    with torch.device("meta"):
        twin = Timer(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Packed(child, int8=int8))
    return twin.train(model.training)
