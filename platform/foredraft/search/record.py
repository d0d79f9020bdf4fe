"""What a study has reported, whether it has ended or not: its trials as rows, front and choice.

    rows = rows_of(study, trials_of(study, directory))
    mark_front(rows, study)

Optuna's storage holds a trial as soon as it is reported. Nothing here writes or needs Ray.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from foredraft.search import front
from foredraft.settings.dimensions import FloatDimension
from foredraft.settings.study import Study

Row = dict[str, Any]

ROW = "row"
"""The user attribute of a trial that holds all that was reported."""
WARM = "warm_start"
"""The user attribute of a trial that another study reported."""


def address_of(study: Study, directory: Path) -> str:
    """The SQLAlchemy URL of the study's storage."""
    return study.database or f"sqlite:///{directory / 'study.db'}"


def trials_of(study: Study, directory: Path) -> list[FrozenTrial]:
    """All trials in the study's storage, which is not made where it does not exist: then none.

    None too where a database is out of reach, as a report need not be written where the study ran.
    """
    url = address_of(study, directory)
    if not study.database:
        if not (directory / "study.db").is_file():
            return []
        # Not mode=ro: the journal of a killed writer is rolled back by the next who opens it.
        url = f"sqlite:///file:{directory / 'study.db'}?mode=rw&uri=true"
    try:
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
        return optuna.load_study(study_name=study.name, storage=storage).get_trials()
    except Exception:  # the storage's own kinds of error differ from database to database
        return []


def reported(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The study's own trials that came to an end, in order."""
    return [t for t in trials if t.state.is_finished() and WARM not in t.user_attrs]


def row_of(trial: FrozenTrial) -> Row:
    """What a trial reported; empty where it reported nothing."""
    row: Row = json.loads(trial.user_attrs.get(ROW, "{}"))
    return row


def rows_of(study: Study, trials: Sequence[FrozenTrial]) -> list[Row]:
    """Every trial that ended as a flat row: its settings, its draft, its metrics."""
    rows = [_row(study, trial) for trial in trials if trial.state.is_finished()]
    covered = front.quality(rows, budget=study.budget)
    return [{**row, "hypervolume": now} for row, now in zip(rows, covered, strict=True)]


def _row(study: Study, trial: FrozenTrial) -> Row:
    row = row_of(trial)
    state = state_of(row)
    policy = study.policy(trial.params)
    settings = {
        "scale": study.draft.scale,
        "patches_out": study.draft.patches_out,
        **study.acceptance,
        **{name: _rounded(value) for name, value in trial.params.items()},
        "context_policy": policy.kind,
        "renorm_every": policy.renorm_every,
    }
    return {
        "number": trial.number,
        "state": state,
        "error": None,
        **{f"settings.{name}": value for name, value in settings.items()},
        **row,
        "feasible": state == "complete" and row["mse_ratio"] <= study.budget,
        "from_study": trial.user_attrs.get(WARM),
    }


def _rounded(value: Any) -> Any:
    return FloatDimension.rounded(value) if isinstance(value, float) else value


def state_of(row: Mapping[str, Any]) -> str:
    """How a trial with this row ended: complete, pruned or failed."""
    if not row or row.get("error"):
        return "failed"
    return "pruned" if row["stopped"] else "complete"


def failures(rows: Sequence[Row]) -> tuple[int, str | None]:
    """How many of the rows failed, and the commonest error, or None where none did."""
    errors = [str(r.get("error") or "no error was kept") for r in rows if r["state"] == "failed"]
    return len(errors), Counter(errors).most_common(1)[0][0] if errors else None


def mark_front(rows: list[Row], study: Study) -> None:
    """Set `on_front` in every row: of the trials within the budget, or of all where none is."""
    ended = [row for row in rows if row["state"] == "complete"]
    within = [row for row in ended if row["feasible"]] or ended
    kept = front.on_front([front.goals(row, study.objectives) for row in within])
    numbers = {row["number"] for row, keep in zip(within, kept, strict=True) if keep}
    for row in rows:
        row["on_front"] = row["number"] in numbers


def measured_goals(row: Row, study: Study) -> front.Point:
    """The row's objectives, with the measured speedup for the predicted one."""
    return front.goals({**row, "predicted_speedup": row["speedup"]}, study.objectives)


def chosen(rows: list[Row]) -> Row | None:
    """The fastest measured point within the accuracy budget; of equals, the most accurate."""
    within = [row for row in rows if row["on_front"] and row["feasible"]]
    return max(within, key=lambda row: (row["speedup"], -row["mse"]), default=None)


def knee(rows: list[Row], study: Study) -> Row | None:
    """The confirmed point of the front nearest to the best of everything."""
    points = [row for row in rows if row["on_front"] and row["feasible"] and row["confirmed"]]
    index = front.knee([measured_goals(row, study) for row in points])
    return None if index is None else points[index]
