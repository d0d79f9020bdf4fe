"""A Timer as it decodes on a CPU: the same passes, with weights laid out for the processor.

A step of one series is one token: a product with a vector, which in fp32 takes 0.7 ms with weights
as they are and 1.7 ms with packed ones (1024 x 2048, one core, AVX2); eight tokens take 2.4 and
1.8 ms. So both are kept, the first by reference to the model's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speculation.linear import PackedLinear
from timer.model import Timer


class Packed(nn.Module):
    """What an `nn.Linear` computes, from weights packed once; it cannot be trained."""

    def __init__(self, linear: nn.Linear, *, int8: bool) -> None:
        super().__init__()
        self.weight = linear.weight.detach()
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.product = PackedLinear(self.weight, self.bias, int8=int8)
        self.splits = not int8 and self.weight.dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """The map's value."""
        if self.splits and x.numel() == x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
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
