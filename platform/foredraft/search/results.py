"""What a study leaves behind: its trials, front, choice, knee, references and curves, as files."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd

from foredraft import bank, buckets, data, files
from foredraft.judge import evaluate, yardstick
from foredraft.search import choice, curves
from foredraft.search.record import KNEE, REFERENCES_FILE, TRIALS_FILE, Point, Record
from foredraft.search.references import (
    Naive,
    Target,
    evaluation_of,
)
from foredraft.search.trial import Errors, Measured, Sizes
from foredraft.settings.study import Study


def write(record: Record, directory: Path, *, target: bank.Model) -> None:
    """Every file of the study's directory but its configuration and its database."""
    write_json(directory / TRIALS_FILE, [trial.model_dump(mode="json") for trial in record.trials])
    table = pd.DataFrame([standing.flat() for standing in record.standings])
    for column in Measured.model_fields:
        if column not in table:
            table[column] = math.nan
    files.atomic_write(directory / "trials.parquet", table.to_parquet(index=False))
    chosen, knee = record.choice, record.knee
    points = [
        {
            **_point(point),
            "confirmed": point.standing.confirmed,
            "chosen": point == chosen,
            "knee": point == knee,
        }
        for point in sorted(record.front, key=lambda one: one.outcome.metrics.acceptance_rate)
    ]
    write_json(directory / "front.json", points)
    chosen_by = choice.rule_in_words(record.study.budget)
    for point, rule, name in ((chosen, chosen_by, "best.json"), (knee, KNEE, "knee.json")):
        if name == "best.json" and record.why_alone:
            write_json(directory / name, _alone(record, directory, target))
        elif point:
            write_json(directory / name, _recipe(point, rule, record, directory, target))
        else:  # of an earlier end of the study, in a bucket too
            buckets.remove(directory / name)
    write_references(record, directory)
    curves.write(record, directory, target=target)


def write_references(record: Record, directory: Path) -> None:
    """What the trials are compared with, as far as it is known; the record has its target."""
    references = record.references
    content = references.model_dump(mode="json") if references else {}
    write_json(directory / REFERENCES_FILE, content)


def target_alone(target: bank.Model, accuracy: evaluate.Accuracy, naive: yardstick.Naive) -> Target:
    """The target and its errors beside seasonal naive's, as a record knows it."""
    return Target(
        **Sizes.of(target.config).model_dump(),
        key=target.key,
        parameters=target.config.num_parameters,
        patch=target.config.patch,
        mse=accuracy.mse,
        mae=accuracy.mae,
        naive=Naive(**naive._asdict()),
    )


def _point(point: Point) -> dict[str, Any]:
    """A point of the front as nested settings, metrics and draft, for a JSON file."""
    outcome = point.outcome
    metrics, draft = outcome.metrics.model_dump(exclude={"windows"}), outcome.draft
    measured = outcome.told.model_dump() if outcome.told else {}
    tested = outcome.test.model_dump() if outcome.test else {}
    written = outcome.model_dump(mode="json", include={"rule", "timing", "fresh"})
    return {
        "number": point.trial.number,
        "settings": point.trial.settings,
        "acceptance": written["rule"],
        "metrics": {
            **metrics,
            "deviation_ratio": outcome.deviation_ratio,
            **measured,
            **{f"test_{n}": v for n, v in tested.items()},
        },
        "measured": written["timing"],
        "fresh": written["fresh"],
        "draft": {
            "draft_key": draft.key,
            **draft.architecture.model_dump(),
            "parameters": draft.parameters,
        },
    }


def _recipe(
    point: Point, rule: str, record: Record, directory: Path, target: bank.Model
) -> dict[str, Any]:
    """A point of the front, with all that is needed to forecast by it."""
    recipe = _point(point)
    path = directory.parents[1] / "drafts" / point.outcome.draft.key
    recipe["draft"]["path"] = os.path.relpath(path, directory)
    return {
        "choice": choice.TOGETHER,
        **recipe,
        "rule": rule,
        "evaluation": evaluation_of(point.trial, record.study).model_dump(mode="json"),
        "plan": point.outcome.model_dump(mode="json", include={"plan"})["plan"],
        **_surroundings(record, point.outcome.target, directory, target),
    }


def _alone(record: Record, directory: Path, target: bank.Model) -> dict[str, Any]:
    """The recipe of a study in which nothing is faster: the target alone, and why."""
    alone, favourite = record.target, record.favourite
    errors = Errors(mse=alone.mse, mae=alone.mae) if alone else None
    return {
        "choice": choice.TARGET_ALONE,
        "why": record.why_alone,
        "favourite": _point(favourite) if favourite else None,
        "rule": choice.rule_in_words(record.study.budget),
        "evaluation": record.study.referred_to.model_dump(mode="json"),
        **_surroundings(record, errors, directory, target),
    }


def _surroundings(
    record: Record, errors: Errors | None, directory: Path, target: bank.Model
) -> dict[str, Any]:
    """What every recipe says of the target and of the data that it reads."""
    naive = record.target.naive if record.target else None
    return {
        "budget": record.study.budget.bounds,
        "target": {"key": target.key, "path": os.path.relpath(target.path, directory)},
        "references": {
            "target": errors.model_dump() if errors else None,
            "seasonal_naive": naive.model_dump() if naive else None,
        },
        "reads": {
            "patch": target.config.patch,
            "context": target.config.context,
            **_scaler(record.study),
        },
    }


def _scaler(study: Study) -> dict[str, Any]:
    """In which units, and at what step, the data came on which the recipe was found."""
    read = study.evaluation
    dataset = data.load(read.data, missing=read.missing, reading=read.reading)
    return {
        "step": dataset.step and dataset.step.name,
        "variates": list(dataset.variates),
        "mean": dataset.mean_C.tolist(),
        "deviation": dataset.deviation_C.tolist(),
    }


def write_json(path: Path, content: Any) -> None:
    """Write a file of the study as a whole."""
    files.atomic_write(path, json.dumps(content, indent=2) + "\n")
