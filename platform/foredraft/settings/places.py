"""Where the files are that a study names: each trial works in a directory of its own.

A path that is not absolute is looked for where the command runs, as `--storage` is, and then beside
the file that names it. Names of data sets, generators, recipes and keys of models stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from foredraft.data import DATASETS
from foredraft.data.tables.formats import is_table
from foredraft.errors import ConfigError
from foredraft.files import is_complete
from foredraft.settings.config import Stage, Training


def of_data(source: str, folders: Iterable[Path]) -> str:
    """The data set's name, or its file or folder as an absolute path; else as it stands."""
    if source in DATASETS:
        return source
    found = (folder / Path(source).expanduser() for folder in folders)
    return next((str(path.absolute()) for path in found if is_table(path)), source)


def of_target(reference: str, folders: Iterable[Path]) -> str:
    """A trained target's directory as an absolute path; any other reference as it stands."""
    found = (folder / Path(reference).expanduser() for folder in folders)
    return next((str(path.absolute()) for path in found if is_complete(path)), reference)


def of_stages(stages: Sequence[Stage], folders: Sequence[Path]) -> tuple[Stage, ...]:
    """The stages with the places of their data.

    Raises:
        ConfigError: one stage names the same file in two ways.
    """
    return tuple(_of_stage(stage, folders) for stage in stages)


def of_training(training: Training, folders: Sequence[Path]) -> Training:
    """The training with the places of its data, and of the target that teaches it."""
    target = training.target and of_target(training.target, folders)
    stages = of_stages(training.stages, folders)
    return training.model_copy(update={"target": target, "stages": stages})


def _of_stage(stage: Stage, folders: Sequence[Path]) -> Stage:
    places = {name: of_data(name, folders) for name in stage.sources}
    if len(set(places.values())) < len(places):
        raise ConfigError(f"data names {', '.join(places)}: two of them are the same file")
    weighted = {places[name]: weight for name, weight in stage.sources.items()}
    data = weighted if isinstance(stage.data, dict) else next(iter(weighted))
    judge = stage.judge and places[stage.judge]
    return stage.model_copy(update={"data": data, "judge": judge})
