"""What the search believes, put to the test: timed alone, in pairs, and judged on unseen data."""

from __future__ import annotations

import json
from pathlib import Path

import ray
from pydantic import TypeAdapter
from rich.console import Console

from foredraft.judge import evaluate, timing
from foredraft.search import front, judging, record
from foredraft.search.machines import Device, devices, submit
from foredraft.search.record import Row
from foredraft.settings.config import Evaluation
from foredraft.settings.study import Study
from speculation import Acceptance, Plan, rule_from

TEST_TOLERANCE = 0.01
"""By how much mse_ratio may differ between the search's split and the test split, unflagged."""


def confirm(
    rows: list[Row], study: Study, *, storage: Path, target: Path, console: Console
) -> None:
    """Measure every point of the front; the rows gain what was measured.

    `speedup` and its interval are those of the first kind of device, `measured` has them all.
    `confirmed` is false where another point, by measured speed, is better in everything.
    """
    points = [row for row in rows if row["on_front"]]
    kinds = devices(study.machine)
    for row in points:
        path, evaluation = storage / "drafts" / row["draft_key"], evaluation_of(row, study)
        pair = (path, rule_of(row), plan_of(row), target)
        timings = {kind.name: _time(study, evaluation, pair, kind) for kind in kinds}
        first = timings[kinds[0].name]
        row.update(first._asdict())
        row["measured"] = json.dumps({name: t._asdict() for name, t in timings.items()})
        row.update(_on_test(study, evaluation, pair, row))
        console.print(_in_words(row, first), soft_wrap=True)
    kept = front.on_front([record.measured_goals(row, study) for row in points])
    for row, keep in zip(points, kept, strict=True):
        row["confirmed"] = keep
        if not keep:
            console.print(f"trial {row['number']} fell off the front when it was measured")


Pair = tuple[Path, Acceptance, Plan | None, Path]
"""A draft, its rule, the plan of one that adapts, and the target."""


def _time(study: Study, evaluation: Evaluation, pair: Pair, device: Device) -> timing.Timing:
    machine, arguments = study.machine, (study, evaluation, *pair)
    work = submit(judging.time_pairs, *arguments, machine=machine, alone=True, device=device)
    measured: timing.Timing = ray.get(work)
    return measured


def _on_test(study: Study, evaluation: Evaluation, pair: Pair, row: Row) -> Row:
    """The point's accuracy on the test split, and whether it is not what the search saw."""
    if evaluation.split == "test":
        return {}
    unseen = evaluation.model_copy(
        update={"split": "test", "windows": study.confirm_windows or evaluation.windows}
    )
    arguments = (study, unseen, *pair)
    judged: evaluate.PairRow = ray.get(submit(judging.judge_on, *arguments, machine=study.machine))
    return {
        "test_acceptance_rate": judged.acceptance_rate,
        "test_mse": judged.mse,
        "test_mse_ratio": judged.mse_ratio,
        "test_differs": abs(judged.mse_ratio - row["mse_ratio"]) > TEST_TOLERANCE,
    }


def rule_of(row: Row) -> Acceptance:
    """The acceptance rule of a row."""
    return rule_from(json.loads(row["rule"]))


def plan_of(row: Row) -> Plan | None:
    """The plan of a row whose rule adapts."""
    return TypeAdapter(Plan).validate_json(row["plan"]) if row.get("plan") else None


def evaluation_of(row: Row, study: Study) -> Evaluation:
    """What the row was judged on."""
    return study.judged_on({k: row[f"settings.{k}"] for k in ("context_policy", "renorm_every")})


def _in_words(row: Row, measured: timing.Timing) -> str:
    said = (
        f"trial {row['number']}: predicted {row['predicted_speedup']:.2f}x, measured "
        f"{measured.speedup:.2f}x [{measured.speedup_low:.2f}, {measured.speedup_high:.2f}]"
    )
    if measured.pairs < timing.INTERVAL_PAIRS:
        said += f" (the range of {measured.pairs} pairs)"
    if "test_mse_ratio" in row:
        flag = ", which differs" if row["test_differs"] else ""
        said += f"; mse ratio {row['mse_ratio']:.4f}, on test {row['test_mse_ratio']:.4f}{flag}"
    return said
