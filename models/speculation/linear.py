"""An affine map laid out once for the processor that applies it many times.

A decoding step multiplies a handful of tokens by every weight of the model. On a CPU the library
rearranges those weights at each call, which costs more than the product: 7 tokens through a
512 x 2048 layer take 345 us by `F.linear` and 102 us with weights arranged beforehand (2 cores,
AVX-512, fp32; bf16: 98 and 57 us).
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from speculation.errors import InvalidInput

Activation = Literal["none", "relu", "gelu"]
# The arrangement depends a little on how many tokens are to come: a patch of some variates.
TOKENS_EXPECTED = 8
# Without these instructions products of 8 bits are added in pairs of 16, which overflow: there the
# activations have 7 bits (mean squared error .0004 of the variance; with 8 it was .04).
_HAS_VNNI = torch.cpu._is_vnni_supported()


class PackedLinear:
    """x @ weight.T + bias (if any), with an activation or a residual that rides on the product."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        activation: Activation = "none",
        int8: bool = False,
    ) -> None:
        self.bias, self.activation = bias, activation
        self.int8: Any = None
        if int8:
            self.int8 = _quantised(weight, bias)
            self.packs = False
            return
        self.packs = _can_pack(weight)
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TOKENS_EXPECTED)
            if self.packs
            else weight
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The map's value, activated."""
        if self.packs:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, self.activation, [], "none"
            )
            return out
        out = self._product(x)
        if self.activation == "none":
            return out
        return F.relu(out) if self.activation == "relu" else F.gelu(out)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The map's value added to `residual`; for a map without activation."""
        if self.packs:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self.weight, self.bias, "add"
            )
            return out
        return residual + self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        if self.int8 is None:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.quantized.linear_dynamic(x.float(), self.int8, not _HAS_VNNI)
        return out.to(x.dtype)


def _can_pack(weight: Tensor) -> bool:
    """Whether oneDNN takes this weight: a CPU's, in a type that its processor multiplies."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _quantised(weight: Tensor, bias: Tensor | None) -> Any:
    """The weight in 8 bits, one scale per row, packed.

    Raises:
        InvalidInput: the weight is not on a CPU.
    """
    if weight.device.type != "cpu":
        raise InvalidInput(f"int8 is for drafts on a CPU: this one is on {weight.device}")
    weight, zeros = weight.float(), torch.zeros(len(weight), dtype=torch.int64)
    scale = weight.abs().amax(1).clamp_min(1e-12).double() / 127
    with warnings.catch_warnings():
        # The tensor type is to move to another package; the packed product that is used stays.
        warnings.simplefilter("ignore", UserWarning)
        rows = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rows, None if bias is None else bias.float())
