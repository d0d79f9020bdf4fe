"""A seasonal-naive forecaster with a linear head: the last patch again, and what that lacks.

It reads in units of its own, has no engine, no cache and no file format: all of those are general.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from speculation import InvalidInput
from speculation.families import Family, register
from speculation.forecaster import check_factors
from speculation.network import Network
from speculation.normalisation import Normalisation, Prediction
from speculation.policy import PolicyKind


@dataclass(frozen=True)
class SeasonalConfig:
    family: ClassVar[str] = "seasonal"
    units: ClassVar[str] = "mean absolute deviation"
    variance: ClassVar[bool] = False
    policies: ClassVar[tuple[PolicyKind, ...]] = ("sliding", "cached")

    patch: int = 8
    context: int = 32
    width: int = 16
    patches_out: int = 1

    @property
    def context_patches(self) -> int:
        return self.context // self.patch

    @property
    def num_parameters(self) -> int:
        return (self.patch + 1 + self.patches_out * self.patch) * self.width

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> SeasonalConfig:
        if variance:
            raise InvalidInput("variance is true: a seasonal model has no such head")
        if depth is not None:
            raise InvalidInput(f"depth is {depth}: a seasonal model has no layers; leave it out")
        check_factors(scale=scale, width=width)
        narrower = max(1, round((scale if width is None else width) * self.width))
        return dataclasses.replace(self, width=narrower, patches_out=patches_out)

    def normalisation(self, window_BNCP: Tensor) -> Normalisation:
        mean = window_BNCP.mean((1, 3), keepdim=True)
        return Normalisation(mean, (window_BNCP - mean).abs().mean((1, 3), keepdim=True) + 1e-3)


class Seasonal(Network):
    def __init__(self, config: SeasonalConfig) -> None:
        super().__init__()
        self.config = config
        self.narrow = nn.Linear(config.patch, config.width)
        self.head = nn.Linear(config.width, config.patches_out * config.patch, bias=False)

    def forward(self, x_BNCP: Tensor, *, last: int | None = None) -> Prediction:
        x_BNCP = x_BNCP[:, -(last or x_BNCP.shape[1]) :].to(self.dtype)
        again = x_BNCP.repeat(1, 1, 1, self.config.patches_out)
        lacking = self.head(torch.relu(self.narrow(x_BNCP)))
        return Prediction((again + lacking).to(self.precision), None)


FAMILY = register(Family("seasonal", 1, SeasonalConfig, Seasonal))
