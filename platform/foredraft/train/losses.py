"""What a prediction is charged for, and how well its variance tells its errors.

    loss = LOSSES["nll"](prediction, lesson)

Errors count in the unit of the lesson (`foredraft.train.lessons.Lesson`); likelihoods in the
model's own units.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from foredraft.train.lessons import Lesson
from speculation.normalisation import Prediction

# A variance below this is taken for this: what is below the rounding of bf16 means cannot be known.
VARIANCE_FLOOR = 1e-4
# How far an error counts by the variance that was expected of it (beta-NLL, Seitzer et al., ICLR
# 2022): at 0 a mean that is hard to learn is given up and its variance raised instead.
NLL_BETA = 0.5


def mse(prediction: Prediction, lesson: Lesson) -> Tensor:
    """Mean squared error."""
    return _mean(
        ((prediction.mean - lesson.y_BMCQ) * lesson.unit_B1C1).square(), lesson.observed_BMCQ
    )


def nll(prediction: Prediction, lesson: Lesson) -> Tensor:
    """Mean Gaussian negative log-likelihood; the model has a variance head."""
    assert prediction.log_variance is not None, "Training refuses nll without a variance head"
    return gaussian_nll(
        prediction.mean, prediction.log_variance, lesson.y_BMCQ, told=lesson.observed_BMCQ
    )


LOSSES: dict[str, Callable[[Prediction, Lesson], Tensor]] = {"mse": mse, "nll": nll}
"""The losses by the name that a stage gives them."""


def _mean(cells: Tensor, told: Tensor | None) -> Tensor:
    """The mean over cells, without those that were filled; 0 where all of them were."""
    if told is None:
        return cells.mean()
    return (cells * told).sum() / told.sum().clamp_min(1)


def gaussian_nll(
    mean: Tensor, log_variance: Tensor, observed: Tensor, *, told: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood of a Gaussian, each error weighted by its variance ** beta.

    Only cells that are `told` count; None for all. The variance is bounded from below, so that it
    cannot collapse onto what is fitted by heart.
    """
    bounded = log_variance.clamp_min(math.log(VARIANCE_FLOOR))
    variance = bounded.exp()
    nll = 0.5 * (bounded + (observed - mean).square() / variance)
    return _mean(nll * variance.detach() ** NLL_BETA, told)


def calibration(prediction: Prediction, lesson: Lesson) -> Tensor:
    """Sums over cells [2]: squared errors in deviations, and errors within one deviation.

    Divided by the number of cells they are 1 and .683 where errors are Gaussian and the variance
    tells exactly how large they are. Zeros for a model without a variance head.
    """
    if prediction.log_variance is None:
        return torch.zeros(2, dtype=torch.float64, device=prediction.mean.device)
    squared = (prediction.mean - lesson.y_BMCQ).square() * torch.exp(-prediction.log_variance)
    if lesson.observed_BMCQ is not None:
        squared = squared[lesson.observed_BMCQ]
    return torch.stack((squared.double().sum(), (squared <= 1).double().sum()))
