"""What a study leaves behind: trials.parquet, front.json, best.json, knee.json, references.json."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from foredraft import bank, data, files
from foredraft.judge import evaluate, timing
from foredraft.search import confirm
from foredraft.search.record import Row, chosen, knee
from foredraft.search.trial import ARCHITECTURE
from foredraft.settings.study import Study
from speculation import ContextPolicy, cost

CEILING_POINTS = 21
CHOICE = "fastest measured point within the accuracy budget; of equals, the most accurate"
KNEE = "confirmed point of the front nearest to the best of every objective"
UNITS = {"stages": "", "patches_out": " a pass"}


def write(
    study: Study,
    directory: Path,
    rows: list[Row],
    *,
    target: bank.Model,
    accuracy: evaluate.Accuracy,
) -> None:
    """Every file of the study's directory but its configuration and its database."""
    table = pd.DataFrame(rows)
    for column in ("speedup", "speedup_low", "speedup_high", "target_s", "speculation_s"):
        if column not in table:
            table[column] = math.nan
    files.atomic_write(directory / "trials.parquet", table.to_parquet(index=False))
    best, middle = chosen(rows), knee(rows, study)
    points = [
        {**_point(row), "confirmed": row["confirmed"], "chosen": row is best, "knee": row is middle}
        for row in rows
        if row["on_front"]
    ]
    points.sort(key=lambda point: float(point["metrics"]["acceptance_rate"]))
    write_json(directory / "front.json", points)
    for row, rule, name in ((best, CHOICE, "best.json"), (middle, KNEE, "knee.json")):
        (directory / name).unlink(missing_ok=True)
        if row:
            write_json(directory / name, _recipe(row, rule, study, directory, target))
    trained = _distinct_drafts(rows)
    write_json(directory / "references.json", _references(study, target, accuracy, rows))
    curves = [_curve(target, label="target", kind="target")]
    curves += [
        _curve(
            bank.open_model(directory.parents[1] / "drafts" / row["draft_key"]),
            label=label,
            kind="draft",
        )
        for row, label in zip(trained, _labels(trained), strict=True)
    ]
    files.atomic_write(directory / "curves.parquet", pd.concat(curves).to_parquet(index=False))


def _point(row: Row) -> Row:
    """A row of the front as nested settings, metrics and draft."""
    metrics = (
        *evaluate.PairRow._fields,
        "predicted_speedup",
        *timing.Timing._fields,
        *("test_acceptance_rate", "test_mse", "test_mse_ratio", "test_differs"),
    )
    architecture = ("draft_key", *ARCHITECTURE, "parameters")
    return {
        "number": row["number"],
        "settings": {
            k.removeprefix("settings."): v for k, v in row.items() if k.startswith("settings.")
        },
        "acceptance": json.loads(row["rule"]),
        "metrics": {k: row[k] for k in metrics if k in row} | json.loads(row["lists"]),
        "measured": json.loads(row["measured"]),
        "draft": {k: row[k] for k in architecture},
    }


def _recipe(
    row: Row, rule: str, study: Study, directory: Path, target: bank.Model
) -> dict[str, Any]:
    """A point of the front, with all that is needed to forecast by it."""
    recipe = _point(row)
    path = directory.parents[1] / "drafts" / row["draft_key"]
    recipe["draft"]["path"] = os.path.relpath(path, directory)
    return {
        **recipe,
        "rule": rule,
        "target": {"key": target.key, "path": os.path.relpath(target.path, directory)},
        "evaluation": confirm.evaluation_of(row, study).model_dump(mode="json"),
        "plan": json.loads(row["plan"]) if row.get("plan") else None,
        "reads": {
            "patch": target.config.patch,
            "context": target.config.context,
            **_scaler(study),
        },
    }


def _scaler(study: Study) -> dict[str, Any]:
    """In which units, and at what step, the data came on which the recipe was found."""
    dataset = data.load(study.evaluation.data, missing=study.evaluation.missing)
    return {
        "step": dataset.step,
        "variates": list(dataset.variates),
        "mean": dataset.mean_C.tolist(),
        "deviation": dataset.deviation_C.tolist(),
    }


def _distinct_drafts(rows: list[Row]) -> list[Row]:
    """One row per draft that was judged, smallest first."""
    return list({row["draft_key"]: row for row in _alone(rows)}.values())


def _alone(rows: list[Row]) -> list[Row]:
    """One row per draft and context policy under which it was judged, smallest draft first."""
    judged = {
        (row["draft_key"], row["settings.context_policy"], row["settings.renorm_every"]): row
        for row in rows
        if row.get("draft_key")
    }
    return sorted(judged.values(), key=lambda row: int(row["parameters"]))


def _references(
    study: Study, target: bank.Model, accuracy: evaluate.Accuracy, rows: list[Row]
) -> dict[str, Any]:
    """What the report draws beside the trials: target alone, drafts alone, the ceiling.

    An error is that of one context policy: a draft is told beside the target under the same.
    """
    alone = _alone(rows)
    costs = [TypeAdapter(cost.PassCosts).validate_json(row["costs"]) for row in alone]
    patches = -(-study.evaluation.horizon // target.config.patch)
    policies = [confirm.evaluation_of(row, study).policy for row in alone]
    horizons = [
        {"patches": patches, "renorm_every": p.renorm_every, "batch": study.evaluation.batch}
        for p in policies
    ]
    grid = [i / (CEILING_POINTS - 1) for i in range(CEILING_POINTS)]
    errors = {
        policy_in_words(policy): {"mse": row["target_mse"], "mae": row["target_mae"]}
        for policy, row in zip(policies, alone, strict=True)
        if "target_mse" in row
    }
    return {
        "target": {
            "key": target.key,
            "parameters": target.config.num_parameters,
            **{name: getattr(target.config, name, None) for name in ARCHITECTURE},
            "mse": accuracy.mse,
            "mae": accuracy.mae,
            "step_s": costs[0].step_s[-1] if costs else None,
            "policies": errors,
        },
        "drafts": [
            {
                "key": row["draft_key"],
                "scale": row["settings.scale"],
                "parameters": row["parameters"],
                "policy": policy_in_words(policy),
                "mse": row["draft_mse"],
                "mae": row["draft_mae"],
                "speedup_alone": row["draft_speedup_alone"],
            }
            for policy, row in zip(policies, alone, strict=True)
        ],
        "ceiling": [
            {
                "acceptance": a,
                "speedup": max(
                    cost.best_speedup(c, a, **h) for c, h in zip(costs, horizons, strict=True)
                ),
            }
            for a in (grid if costs else [])
        ],
        "horizon": study.evaluation.horizon,
        "patch": target.config.patch,
        "batch": study.evaluation.batch,
        "budget": study.budget,
    }


def policy_in_words(policy: ContextPolicy) -> str:
    """A context policy as a report names it."""
    return (
        f"{policy.kind}, anew every {policy.renorm_every}" if policy.renorm_every else policy.kind
    )


def _labels(trained: list[Row]) -> list[str]:
    """The drafts' names in a figure: their scale, and what else differs between them."""
    varied = [
        name
        for name in ("stages", "patches_out")
        if len({row.get(f"settings.{name}") for row in trained}) > 1
    ]
    return [
        ", ".join(
            [f"draft {row['settings.scale']:.2f}x"]
            + [f"{row[f'settings.{name}']}{UNITS[name]}" for name in varied]
        )
        for row in trained
    ]


def _curve(model: bank.Model, *, label: str, kind: str) -> pd.DataFrame:
    return pd.DataFrame(model.metrics["curve"]).assign(label=label, kind=kind)


def write_json(path: Path, content: Any) -> None:
    """Write a file of the study as a whole."""
    files.atomic_write(path, json.dumps(content, indent=2) + "\n")
