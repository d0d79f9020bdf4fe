"""A second study starts from the first: by its results where they compare, else by its front.

    print(start(study, optuna_study, storage=Path("runs")))

Results compare where both studies judged the same drafts and rules against the same yardstick and
budget, on the same machine. How they searched is no matter: another sampler, seed, slack or number
of trials makes no result another. A start that was interrupted goes on where it is called again.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from foredraft import buckets
from foredraft.bank import claims
from foredraft.documents import read_json, read_mapping
from foredraft.errors import ConfigError
from foredraft.redaction import redacted
from foredraft.search import record as records
from foredraft.search.record import TRIAL, trial_of
from foredraft.search.trial import Outcome, Scalar
from foredraft.settings.config import validated
from foredraft.settings.study import Study

# Two studies that agree in these measured the same thing by the same yardstick.
SAME = (
    *("target", "draft", "evaluation", "reference"),
    *("acceptance", "dimensions", "objectives", "budget"),
)
# What makes other weights, or other seconds, of the same configuration.
MACHINE = ("workers", "cpus", "use_gpu")
# Predicted speedups are of the machine that was timed.
HARDWARE = ("cpu", "num_cpus", "cuda")


def start(study: Study, record: optuna.Study, *, storage: Path) -> str:
    """What the new study took from the one that it names, in words.

    Raises:
        ConfigError: there is no such study, it is at work, or it has come to nothing yet.
    """
    name = str(study.warm_start)
    directory = buckets.fetch(storage / "studies" / name)
    if name == study.name:
        raise ConfigError(f"warm_start is {name!r}: that is this study itself; name an earlier one")
    if not (directory / "study.yaml").is_file():
        raise ConfigError(f"warm_start is {name!r}: no such study in {storage}")
    # What it still reports would be lost here without a word.
    with claims.held(storage / "claims" / f"study-{name}", wait=False):
        first = _read(directory, beside=study)
        why = _why_not_comparable(first, study, directory)
        stored = [] if why else records.stored(first, directory)
        taken = _take_over(stored, first, study, record)
        if taken:
            return f"starting from {taken} trial{'s' if taken > 1 else ''} of {name}"
        why = why or "its trials' storage is out of reach"
        tried = _enqueue_front(first, study, record, directory)
    points = f"{tried} point{'s' if tried > 1 else ''}"
    return f"starting with {points} of {name}'s front, to be judged anew, as {why}"


def _read(directory: Path, *, beside: Study) -> Study:
    """The first study, with the password that its file does not tell where both share a database.

    Raises:
        ConfigError: its file cannot be read.
    """
    path = directory / "study.yaml"
    first = validated(Study, read_mapping(path, what="a study"), source=str(path))
    if first.database and beside.database and first.database == redacted(beside.database):
        return first.model_copy(update={"database": beside.database})
    return first


def _why_not_comparable(first: Study, study: Study, directory: Path) -> str | None:
    """Why the results of the first are none of the new study's, or None where they are."""
    other = [name for name in SAME if getattr(first, name) != getattr(study, name)]
    if any(getattr(first.machine, name) != getattr(study.machine, name) for name in MACHINE):
        other.append("machine")
    if other:
        return f"{' and '.join(other)} differ{'' if len(other) > 1 else 's'}"
    # A study's file seldom tells its device, as its tasks are asked for it.
    asked, hardware = first.machine.device, _hardware(directory)
    if asked not in (None, study.machine.device):
        return f"it ran on {asked}"
    own = _hardware(directory.with_name(study.name))
    return None if hardware and hardware == own else "it ran on another machine"


def _hardware(directory: Path) -> list[object]:
    """What the machine says of itself; nothing where no file tells, which is like no other."""
    path = directory / "provenance.json"
    if not path.is_file():
        return []
    facts = read_json(path, remedy=f"search --resume of study {directory.name!r} writes it anew")
    return [facts.get(name) for name in HARDWARE]


def _take_over(stored: list[FrozenTrial], first: Study, study: Study, record: optuna.Study) -> int:
    """How many of the first study's trials are the new one's now; each is taken once."""
    there = {trial.user_attrs.get(TRIAL) for trial in record.get_trials(deepcopy=False)}
    count = 0
    for one in stored:
        trial = trial_of(one, study=first).model_copy(update={"source": first.name})
        if not trial.outcome or not one.state.is_finished():
            continue
        count += 1
        # It holds the trial's number in the first study, and so tells it from all others.
        text = trial.model_dump_json()
        if text not in there:
            record.add_trial(_as_reported(one, text, trial.outcome, study))
    return count


def _as_reported(stored: FrozenTrial, text: str, outcome: Outcome, study: Study) -> FrozenTrial:
    """A trial of the first study as if the new one had reported it.

    What a sampler noted for itself stays behind: a population of another is none of this one's.
    """
    room = study.budget.room(outcome.ratios)
    return optuna.trial.create_trial(
        state=stored.state,
        values=stored.values,
        params=stored.params,
        distributions=stored.distributions,
        user_attrs={**stored.user_attrs, TRIAL: text},
        constraints={name: -left for name, left in room.items()} or None,
    )


def _enqueue_front(first: Study, study: Study, record: optuna.Study, directory: Path) -> int:
    """How many settings of the first study's front are to be tried.

    Raises:
        ConfigError: it has no front yet, or none that the new study's dimensions reach.
    """
    front = records.read(first, directory).front
    if not front:
        raise ConfigError(
            f"warm_start is {first.name!r}: it has no trial that was judged to its end; search it "
            "further with --resume, or leave warm_start out"
        )
    wanted: list[dict[str, Scalar]] = []
    for point in front:
        settings = {
            name: value
            for name, value in point.trial.settings.items()
            if name in study.dimensions and study.dimensions[name].holds(value)
        }
        if settings and settings not in wanted:
            wanted.append(settings)
    if not wanted:
        raise ConfigError(
            f"warm_start is {first.name!r}: no setting of its front is in the dimensions of "
            f"{study.name!r}; leave warm_start out"
        )
    for wish in wanted:
        record.enqueue_trial(wish, skip_if_exists=True)
    return len(wanted)
