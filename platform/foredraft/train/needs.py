"""What a training needs of its data, asked before anything is trained.

    sets = checked(training, workers=1)
    digests = [[d.digest for d in sets.values()] for sets in datasets(training)]

Data are opened here and nowhere else in a training, so that what is wrong with them is told with
the place in the training where it can be put right.
"""

from __future__ import annotations

import itertools

from foredraft import data
from foredraft.errors import ConfigError
from foredraft.settings.config import Stage, Training
from speculation.forecaster import Architecture

Datasets = dict[str, data.Dataset]
"""By name or path, as the stage has them."""


def datasets(training: Training) -> list[Datasets]:
    """The data sets of every stage.

    Raises:
        DataError: one cannot be read, or has holes that the stage does not let be filled.
    """
    return [_of_stage(stage, number) for number, stage in enumerate(training.stages)]


def checked(training: Training, *, workers: int) -> list[Datasets]:
    """The data sets of every stage, once it is certain that each stage can be trained on them.

    Args:
        training: to be trained.
        workers: that share each batch.

    Raises:
        DataError: a stage's data cannot be read, or are too short for the model.
        ConfigError: the workers cannot share a batch, or data of different steps are mixed.
    """
    opened = datasets(training)
    for stage, sets in zip(training.stages, opened, strict=True):
        _refuse_odd_batch(stage, workers=workers)
        _refuse_mixed_steps(stage, sets)
        for dataset in sets.values():
            windows(dataset, "train", training.model)
        for name in stage.judges:
            windows(sets[name], "validation", training.model)
    return opened


def windows(dataset: data.Dataset, split: str, model: Architecture) -> data.Windows:
    """Every window of a split that a model can learn from: its context, and what it emits next.

    Raises:
        DataError: there is none.
    """
    return dataset.windows(split, context=model.context, horizon=model.patches_out * model.patch)


def _of_stage(stage: Stage, number: int) -> Datasets:
    try:
        return {
            name: data.load(name, missing=stage.missing, reading=stage.reading)
            for name in stage.sources
        }
    except data.MissingCells as error:
        remedy = f"fill them with stages.{number}.missing=interpolate"
        raise data.MissingCells(error.what, remedy) from error


def _refuse_odd_batch(stage: Stage, *, workers: int) -> None:
    if stage.batch % (workers * stage.accumulate):
        raise ConfigError(
            f"batch of stage {stage.name} is {stage.batch}: it must be a multiple of the "
            f"{workers} workers times {stage.accumulate} parts"
        )


def _refuse_mixed_steps(stage: Stage, sets: Datasets) -> None:
    """A patch is a day in one and a month in the other: no model can tell which."""
    timed = [(name, dataset.step) for name, dataset in sets.items() if dataset.step is not None]
    for (name, step), (other, another) in itertools.pairwise(timed):
        if not step.alike(another):
            raise ConfigError(
                f"data of stage {stage.name} mixes steps of time: {name} has {step.name}, {other} "
                f"has {another.name}; give each its own stage"
            )
