"""A second study starts from the first: by its results where they compare, else by its front."""

from __future__ import annotations

from pathlib import Path

import optuna

from foredraft.documents import read_json, read_mapping
from foredraft.errors import ConfigError
from foredraft.search.record import TRIAL, trial_of
from foredraft.search.searcher import open_record
from foredraft.settings.config import validated
from foredraft.settings.study import Study

# Two studies that agree in these measured the same thing, and stopped the same trials.
SAME = (
    *("target", "draft", "evaluation", "acceptance", "dimensions", "objectives"),
    *("few_windows", "slack", "budget", "machine"),
)
# Predicted speedups are of the machine that was timed.
HARDWARE = ("cpu", "num_cpus", "cuda")


def start(study: Study, record: optuna.Study, *, storage: Path) -> str:
    """What the new study took from the one that it names, in words.

    Raises:
        ConfigError: there is no such study.
    """
    directory = storage / "studies" / str(study.warm_start)
    if not (directory / "study.yaml").is_file():
        raise ConfigError(f"warm_start is {study.warm_start!r}: no such study in {storage}")
    tree = read_mapping(directory / "study.yaml", what="a study")
    first = validated(Study, tree, source=str(directory / "study.yaml"))
    # What a study asks its tasks is not in its file; their hardware is compared below.
    asked = {"device": study.machine.device}
    alike = first.model_copy(update={"machine": first.machine.model_copy(update=asked)})
    other = [name for name in SAME if getattr(alike, name) != getattr(study, name)]
    if not other and _hardware(directory) == _hardware(storage / "studies" / study.name):
        return _take_over(first, record, directory)
    taken = 0
    for point in _front(directory):
        settings = {
            name: value
            for name, value in point["settings"].items()
            if name in study.dimensions and study.dimensions[name].holds(value)
        }
        record.enqueue_trial(settings, skip_if_exists=True)
        taken += 1
    why = f"{', '.join(other)} differ" if other else "it ran on another machine"
    return f"starting with {taken} points of {first.name}'s front, to be judged anew, as {why}"


def _hardware(directory: Path) -> list[object]:
    path = directory / "provenance.json"
    remedy = f"search --resume of study {directory.name!r} writes it anew"
    facts = read_json(path, remedy=remedy) if path.is_file() else {}
    return [facts.get(name) for name in HARDWARE]


def _take_over(first: Study, record: optuna.Study, directory: Path) -> str:
    complete = open_record(first, directory).get_trials(
        states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    )
    for stored in complete:
        taken = trial_of(stored, study=first).model_copy(update={"source": first.name})
        stored.set_user_attr(TRIAL, taken.model_dump_json())
        record.add_trial(stored)
    return f"starting from {len(complete)} trials of {first.name}"


def _front(directory: Path) -> list[dict[str, dict[str, object]]]:
    path = directory / "front.json"
    if not path.is_file():
        raise ConfigError(
            f"warm_start: study {directory.name!r} has not ended yet; resume it first"
        )
    points: list[dict[str, dict[str, object]]] = read_json(
        path, remedy=f"search --resume of study {directory.name!r} writes it anew"
    )
    return points
