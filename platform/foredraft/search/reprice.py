"""A study's front and choice on another device, without decoding again.

    record = read(study, directory)
    costs = measured_here(record, storage=Path("runs"), device=torch.device("cpu"))
    here = repriced(record, costs)
    here.front, here.choice

What a rule accepts does not depend on the device; what a pass costs does. So acceptance and errors
stand as they were counted, and the predicted speedup is told anew from them and the costs of the
other device. Speeds that were timed stay behind: only predictions carry over. Nothing needs Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from foredraft import bank, buckets, files
from foredraft.documents import read_json
from foredraft.errors import ConfigError
from foredraft.judge import calibrations, evaluate
from foredraft.judge.calibrations import Calibration
from foredraft.search.record import Point, Record
from foredraft.search.references import Target, policy_in_words, policy_of
from foredraft.search.trial import Outcome, Trial
from foredraft.settings.config import validated
from speculation import ContextPolicy, Plan, checkpoint

Pair = tuple[str, ContextPolicy]
"""A draft by its key, and how it and the target read."""
Costs = Mapping[Pair, Calibration]

NOT_CARRIED = (
    "speeds measured on the device of the search do not carry over, only predictions do: "
    "search there, or foredraft evaluate, to measure"
)


def decoded(record: Record) -> list[tuple[Trial, Outcome]]:
    """The trials that were decoded to their end, with what they came to.

    Raises:
        ConfigError: there is none.
    """
    found = [(one.trial, one.outcome) for one in record.complete if one.outcome.metrics.pass_rates]
    if not found or not record.target:
        raise ConfigError(
            f"study {record.study.name!r} has no trial that was decoded to its end: search it "
            "further with --resume, then reprice it"
        )
    return found


def pairs_of(record: Record) -> list[Pair]:
    """Each pair that was decoded, smallest draft first."""
    found = sorted(decoded(record), key=lambda one: one[1].draft.parameters)
    return list(dict.fromkeys(_pair(record, *one) for one in found))


def _pair(record: Record, trial: Trial, outcome: Outcome) -> Pair:
    return outcome.draft.key, policy_of(trial, record.study)


def repriced(record: Record, costs: Costs) -> Record:
    """The record as it would be on the device of the costs: its decoded trials, predicted anew."""
    target = _target(record)
    trials = [
        trial.model_copy(update={"outcome": _repriced(record, trial, outcome, target, costs)})
        for trial, outcome in decoded(record)
    ]
    return Record(record.study, tuple(trials), record.target)


def _repriced(
    record: Record, trial: Trial, outcome: Outcome, target: Target, costs: Costs
) -> Outcome:
    """What a trial came to, in the seconds of another device; what was timed is left out."""
    pair = _pair(record, trial, outcome)
    own, metrics = costs[pair], outcome.metrics
    counted = {name: getattr(metrics, name) for name in evaluate.PairRow._fields}
    speedup = evaluate.predict(
        evaluate.PairRow(**counted),
        own.costs,
        rule=outcome.rule,
        evaluation=record.study.evaluation.model_copy(update={"policy": pair[1]}),
        patch=target.patch,
    )
    return outcome.model_copy(
        update={
            "metrics": metrics.model_copy(update={"predicted_speedup": speedup}),
            "draft": outcome.draft.model_copy(update={"speedup": own.speedup_alone}),
            "costs": own.costs,
            "plan": Plan(own.costs, outcome.plan.pass_rates) if outcome.plan else None,
            "timing": {},
            "fresh": {},
            "prediction": None,
        }
    )


def _target(record: Record) -> Target:
    assert record.target, "a record without a target has no decoded trial"
    return record.target


# Costs of a device


def measured_here(
    record: Record,
    *,
    storage: Path,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Costs:
    """The calibrations of every pair on a device of this process: kept ones, the others timed now.

    Raises:
        ConfigError: a model is not in the bank, or a kept calibration cannot be read.
        DataError: the study's data cannot be read.
    """
    pairs = pairs_of(record)
    path = _target_path(record, storage)
    evaluation = record.study.evaluation
    windows = evaluate.draw_windows(evaluation, bank.open_model(path).config)
    target = evaluate.ready(checkpoint.load(path), evaluation, device)
    found = {}
    for count, pair in enumerate(pairs, start=1):
        key, policy = pair
        say(f"costs of draft {key}, {policy_in_words(policy)}: {count} of {len(pairs)}")
        draft = checkpoint.load(bank.find(key, kind="draft", storage=storage))
        found[pair] = calibrations.of_pair(
            target,
            evaluate.ready(draft, evaluation, device),
            windows,
            target_key=path.name,
            draft_key=key,
            lookahead=record.study.longest_lookahead,
            evaluation=evaluation.model_copy(update={"policy": policy}),
            storage=storage,
        )
    return found


def _target_path(record: Record, storage: Path) -> Path:
    """The target in the bank, or where the study says that it lies."""
    key, named = _target(record).key, record.study.target
    elsewhere = isinstance(named, str) and Path(named).name == key
    return bank.find(str(named) if elsewhere else key, kind="target", storage=storage)


def write_costs(path: Path, costs: Costs) -> None:
    """Write a file from which `read_costs` reads the same on another machine."""
    content = {_label(pair): one.model_dump(mode="json") for pair, one in costs.items()}
    files.atomic_write(path, json.dumps(content, indent=2) + "\n")


def _label(pair: Pair) -> str:
    return f"{pair[0]} {policy_in_words(pair[1])}"


def read_costs(path: Path, record: Record) -> Costs:
    """The calibrations of a file that `write_costs` wrote, one for every pair of the record.

    Raises:
        ConfigError: it cannot be read, it lacks a pair or was timed for other work, or it mixes
            devices.
    """
    remedy = (
        f"write it anew by `foredraft reprice {record.study.name} --write-costs FILE` on the "
        "device in question"
    )
    content = read_json(path, remedy=remedy)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no costs by pair: {remedy}")
    found = {}
    for pair in pairs_of(record):
        if _label(pair) not in content:
            raise ConfigError(f"{path} has no costs of draft {_label(pair)}: {remedy}")
        one = validated(Calibration, content[_label(pair)], source=f"{path}: {_label(pair)}")
        if other := _other_work(one, pair, record):
            raise ConfigError(f"{path}: {_label(pair)}: {other}: {remedy}")
        found[pair] = one
    if len(devices := sorted({one.device for one in found.values()})) > 1:
        raise ConfigError(f"{path} holds costs of {' and of '.join(devices)}: {remedy}")
    return found


def _other_work(calibration: Calibration, pair: Pair, record: Record) -> str | None:
    """What was timed that the study does not ask for, or None where all of it is the study's."""
    evaluation, target = record.study.evaluation, _target(record)
    lookahead = calibrations.room_for(
        record.study.longest_lookahead, evaluation, patch=target.patch
    )
    wanted = {
        "target": target.key,
        "draft": pair[0],
        "policy": pair[1],
        "batch": evaluation.batch,
        "horizon": evaluation.horizon,
        "lookahead": lookahead,
        "dtype": evaluation.dtype,
    }
    for name, value in wanted.items():
        timed = getattr(calibration.key.work, name)
        if timed != value:
            return f"{name} is {timed}, and the study's is {value}"
    return None


# What is told of it


def comparison(record: Record, costs: Costs) -> dict[str, Any]:
    """Front and choice on the device of the costs beside those of the search, JSON-able."""
    here = repriced(record, costs)
    choice, before = here.choice, record.choice
    fronts = [{p.trial.number for p in one.front} for one in (here, record)]
    points = {point.trial.number: point for point in here.complete}
    numbers = sorted(
        (fronts[0] | fronts[1]) & points.keys(),
        key=lambda n: -points[n].outcome.metrics.predicted_speedup,
    )
    was = {trial.number: trial for trial in record.trials}
    chosen = [point.trial.number if point else None for point in (choice, before)]
    rows = [_row(points[n], was[n], record, fronts=fronts, chosen=chosen) for n in numbers]
    device = next(iter(costs.values()))
    return {
        "study": record.study.name,
        "device": device.device,
        "front": rows,
        "choice": chosen[0],
        "choice_before": chosen[1],
        "notes": _notes(record, here),
        "calibrations": {_label(pair): one.model_dump(mode="json") for pair, one in costs.items()},
    }


def _row(
    point: Point, was: Trial, record: Record, *, fronts: list[set[int]], chosen: list[int | None]
) -> dict[str, Any]:
    """A point beside what it was on the device of the search."""
    number, outcome, metrics = point.trial.number, point.outcome, point.outcome.metrics
    assert was.outcome
    measured = was.outcome.measured
    return {
        "trial": number,
        "draft": outcome.draft.key,
        "policy": policy_in_words(policy_of(point.trial, record.study)),
        "acceptance_rate": metrics.acceptance_rate,
        **outcome.ratios,
        "predicted_here": metrics.predicted_speedup,
        "predicted_before": was.outcome.metrics.predicted_speedup,
        "measured_before": measured.speedup if measured else None,
        "front": _where(number in one for one in fronts),
        "chosen": _where(number == one for one in chosen),
        "settings": dict(point.trial.settings),
        "rule": outcome.model_dump(mode="json", include={"rule"})["rule"],
        "plan": outcome.model_dump(mode="json", include={"plan"})["plan"],
    }


def _where(holds: Iterable[bool]) -> str:
    here, before = holds
    return {(True, True): "both", (True, False): "here", (False, True): "before"}.get(
        (here, before), "-"
    )


def _notes(record: Record, here: Record) -> list[str]:
    """What the figures do not tell by themselves."""
    notes = [NOT_CARRIED]
    stopped = sum(bool(t.outcome and t.outcome.stopped == "front") for t in record.trials)
    if stopped:
        notes.append(
            f"trials stopped early as too slow or too inaccurate for the front: {stopped}; by the "
            "costs of this device some might have gone on"
        )
    if any(point.outcome.rule.adapt for point in here.front):
        notes.append(
            "a rule that adapts chose its lookaheads by the costs of the search's device; here it "
            "chooses others, and its acceptance and errors are as they were counted there"
        )
    return notes


def write(found: dict[str, Any], directory: Path) -> Path:
    """The file of a comparison in the study's directory, named by the device."""
    words = "".join(c if c.isalnum() else " " for c in found["device"].lower()).split()
    path = directory / f"repriced-{'-'.join(words)}.json"
    files.atomic_write(path, json.dumps(found, indent=2) + "\n")
    buckets.keep(path)
    return path
