"""What a study's directory holds, for its report: of one that runs, what it has come to so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foredraft.documents import read_json, read_mapping
from foredraft.errors import ConfigError
from foredraft.report import ladder
from foredraft.report.tables import Row
from foredraft.search import record
from foredraft.settings import study
from foredraft.settings.config import validated


@dataclass(frozen=True)
class Study:
    """What a study directory holds; parts that are not written yet are empty."""

    name: str
    path: Path
    resolved: Row
    trials: pd.DataFrame
    best: Row
    references: Row
    curves: pd.DataFrame
    provenance: Row
    ladders: tuple[Row, ...] = ()
    """of the same target, where the storage holds any"""


def read_study(study_dir: Path) -> Study:
    """The study in a directory; ConfigError where there is none."""
    if not (study_dir / "study.yaml").is_file():
        raise ConfigError(
            f"study {str(study_dir)!r}: no study.yaml there; give a study's directory"
        )
    resolved = read_mapping(study_dir / "study.yaml", what="a study")
    references = _read_json(study_dir / "references.json")
    trials = _read_table(study_dir / "trials.parquet")
    running = _reported(study_dir, resolved, known=len(trials))
    if running is not None:
        trials, asked = running
        references = _asked_for(asked) | references
    target = references.get("target", {}).get("key", "")
    # studies/NAME is two folders below the storage, where progressions/ is too.
    ladders = ladder.ladders_of(target, storage=study_dir.resolve().parents[1])
    return Study(
        name=study_dir.resolve().name,
        path=study_dir,
        resolved=resolved,
        trials=trials,
        best=_read_json(study_dir / "best.json"),
        references=references,
        curves=_read_table(study_dir / "curves.parquet"),
        provenance=_read_json(study_dir / "provenance.json"),
        ladders=tuple(ladders),
    )


def _reported(
    study_dir: Path, resolved: Row, *, known: int
) -> tuple[pd.DataFrame, study.Study] | None:
    """The trials in the study's storage, where they are more than were known when it last ended.

    Their front is that of the predicted values: nothing of it has been measured yet.
    """
    if not (study_dir / "study.db").is_file() and not resolved.get("database"):
        return None
    asked = validated(study.Study, resolved, source=str(study_dir / "study.yaml"))
    rows = record.rows_of(asked, record.trials_of(asked, study_dir))
    if len(rows) <= known:
        return None
    record.mark_front(rows, asked)
    return pd.DataFrame(rows), asked


def _asked_for(asked: study.Study) -> Row:
    """What a report can tell of a study that has not ended, beside its trials."""
    evaluation = asked.evaluation
    return {
        "budget": asked.budget,
        "horizon": evaluation.horizon,
        "batch": evaluation.batch,
    }


def _read_json(path: Path) -> Row:
    remedy = f"search --resume of study {path.parent.name!r} writes it anew"
    content: Row = read_json(path, remedy=remedy) if path.is_file() else {}
    return content


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()
