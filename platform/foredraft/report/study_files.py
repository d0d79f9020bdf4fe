"""What a study's directory holds, for its report: of one that runs, what it has come to so far."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foredraft.documents import read_json, read_mapping
from foredraft.errors import ConfigError
from foredraft.report import ladder
from foredraft.search import curves, record
from foredraft.search.record import Record
from foredraft.settings.config import validated
from foredraft.settings.study import Study


@dataclass(frozen=True)
class StudyFiles:
    """What a study directory holds; parts that are not written yet are empty."""

    name: str
    path: Path
    settings: dict[str, Any]
    """study.yaml, as it stands"""
    record: Record
    provenance: dict[str, Any]
    ladders: tuple[ladder.Content, ...] = ()
    """of the same target, where the storage holds any"""

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """Losses by epoch; while the study runs, of what is being trained too."""
        kept = self.path / curves.FILE
        return pd.read_parquet(kept) if kept.is_file() else curves.now(self.record, self.path)


def read_study_files(study_dir: Path) -> StudyFiles:
    """The study in a directory.

    Raises:
        ConfigError: there is none, a file cannot be read, or another version wrote it.
    """
    path = study_dir / "study.yaml"
    if not path.is_file():
        raise ConfigError(
            f"study {str(study_dir)!r}: no study.yaml there; give a study's directory"
        )
    settings = read_mapping(path, what="a study")
    found = record.read(validated(Study, settings, source=str(path)), study_dir)
    return files_of(study_dir, found)


def files_of(study_dir: Path, found: Record) -> StudyFiles:
    """What the directory of a study holds beside its record.

    Raises:
        ConfigError: a file cannot be read.
    """
    provenance = study_dir / "provenance.json"
    remedy = f"search --resume of study {study_dir.name!r} writes it anew"
    # studies/NAME is two folders below the storage, where progressions/ is too.
    storage = study_dir.resolve().parents[1]
    return StudyFiles(
        name=study_dir.resolve().name,
        path=study_dir,
        settings=read_mapping(study_dir / "study.yaml", what="a study"),
        record=found,
        provenance=read_json(provenance, remedy=remedy) if provenance.is_file() else {},
        ladders=tuple(ladder.ladders_of(found.target.key, storage=storage) if found.target else ()),
    )
