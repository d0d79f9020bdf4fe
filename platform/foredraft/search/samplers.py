"""Optuna's samplers as a study names them, and drawing a trial's settings by them."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from foredraft.errors import ConfigError
from foredraft.settings.dimensions import ChoiceDimension, Dimension, FloatDimension
from foredraft.settings.study import Study


def sampler_of(study: Study, *, seed: int) -> BaseSampler:
    """The sampler of Optuna that draws all that a study searches together.

    That of a nested search is asked where no setting is expected to add anything.
    """
    return named("tpe" if study.sampler == "nested" else study.sampler, study, seed=seed)


def named(name: str, study: Study, *, seed: int) -> BaseSampler:
    """A sampler of Optuna.

    Raises:
        ConfigError: it needs a library that is not there.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "nsgaii":
        return NSGAIISampler(seed=seed, population_size=max(4, study.startup_trials))
    if name == "gp":
        try:
            import scipy  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise ConfigError("sampler 'gp' needs scipy; pip install scipy") from error
        return GPSampler(seed=seed, n_startup_trials=study.startup_trials)
    # Dimension by dimension: over all of them together it settles on a corner sooner (LOG.md).
    # Trials under way count as bad ones until they report, so that the next is another.
    return TPESampler(
        seed=seed,
        n_startup_trials=study.startup_trials,
        constant_liar=study.machine.concurrency != 1,
    )


def draw(trial: optuna.Trial, dimensions: dict[str, Dimension]) -> dict[str, Any]:
    """A value for each dimension that exists beside the values before it."""
    settings: dict[str, Any] = {}
    for name, dimension in dimensions.items():
        if not dimension.is_active(settings):
            continue
        if isinstance(dimension, ChoiceDimension):
            settings[name] = trial.suggest_categorical(name, dimension.choices)
        elif isinstance(dimension, FloatDimension):
            low, high, options = dimension.low, dimension.high, {"log": dimension.log}
            value = trial.suggest_float(name, low, high, step=dimension.step, **options)
            settings[name] = dimension.rounded(value)
        else:
            settings[name] = trial.suggest_int(
                name, dimension.low, dimension.high, step=dimension.step, log=dimension.log
            )
    return settings


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """What Optuna draws a dimension from."""
    if isinstance(dimension, ChoiceDimension):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension, FloatDimension):
        return FloatDistribution(
            dimension.low, dimension.high, log=dimension.log, step=dimension.step
        )
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
