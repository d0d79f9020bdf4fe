"""Looking after the draft bank: what it holds, which study needs it, what was left behind.

for line in listed(Path("runs")):
    print(line.key, line.parameters, line.used_by)

A study notes every draft that a trial asks for in its own directory, before it is trained: what an
interrupted one needs is told by files, wherever its database is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from foredraft import bank, buckets, documents, files
from foredraft.bank import claims, model_files


class Line(NamedTuple):
    """One draft of the bank, in a line."""

    key: str
    parameters: int
    stages: str
    patches_out: int
    validation_loss: float | None
    seconds: float | None
    """of training"""
    used_by: str
    """studies that asked for it, or may have"""


def listed(storage: Path) -> list[Line]:
    """The finished drafts of a storage, smallest first."""
    users = _users(storage)
    lines = [_line(path, users) for path in bank.models("draft", storage=storage)]
    return sorted(lines, key=lambda line: line.parameters)


def _line(path: Path, users: dict[str, set[str]]) -> Line:
    model = bank.open_model(path)
    training = _json(path / "training.json")
    return Line(
        key=model.key,
        parameters=model.config.num_parameters,
        stages="+".join(stage["name"] for stage in training.get("stages", [])) or "imported",
        patches_out=model.config.patches_out,
        validation_loss=model.metrics.get("validation_loss"),
        seconds=model.metrics.get("seconds"),
        used_by=", ".join(sorted(users.get(model.key, set()))) or "nobody",
    )


def shown(path: Path) -> dict[str, Any]:
    """All that is known of one draft but its weights and its curve."""
    model = bank.open_model(path)
    return {
        "key": model.key,
        "path": str(path),
        "bytes": size_of(path),
        "architecture": vars(model.config),
        "metrics": {name: value for name, value in model.metrics.items() if name != "curve"},
        "training": _json(path / "training.json"),
        "provenance": _json(path / "provenance.json"),
    }


def note(key: str, *, study: Path, settings: Mapping[str, Any]) -> None:
    """Nothing; the study of that directory needs the draft `key` from now on.

    Args:
        key: of the draft.
        study: its directory.
        settings: by which it asks for it.
    """
    path = study / ASKED / key
    if not path.is_file():
        files.atomic_write(path, json.dumps(settings))
        buckets.keep(path)


def noted(study: Path) -> dict[str, dict[str, Any]]:
    """The settings by which the study of that directory first asked for each draft, by its key.

    Empty of a draft that an earlier version noted.
    """
    asked = buckets.fetch(study / ASKED)
    paths = (path for path in asked.glob("*") if not path.name.startswith("."))
    in_order = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    return {path.name: json.loads(path.read_text() or "{}") for path in in_order}


def unused(storage: Path) -> list[Path]:
    """Drafts that no study refers to, and what dead trainings left; never what is being made."""
    users, busy = _users(storage), _busy(storage)
    whole = bank.models("draft", storage=storage)
    finished = [path for path in whole if path.name not in users]
    left = [
        path
        for folder in (storage / "drafts", storage / "training")
        for path in sorted({*folder.glob("*"), *(folder / n for n in buckets.names(folder))})
        if path.name != files.LOCK and path not in whole
    ]
    return [path for path in finished + left if not any(key in path.name for key in busy)]


def untold(storage: Path) -> list[str]:
    """Names of the studies that may need any draft: which ones only their database tells.

    They were begun before studies noted their drafts, and have not ended.
    """
    return [study.name for study in _studies(storage) if _is_untold(study)]


def _studies(storage: Path) -> list[Path]:
    """The directories of a storage's studies, as they are now."""
    return sorted(buckets.fetch(storage / "studies").glob("*"))


def _is_untold(study: Path) -> bool:
    if (study / "front.json").is_file() or (study / ASKED).is_dir():
        return False
    settings = study / "study.yaml"
    # A line of a file that we wrote, in which a null database says so.
    lines = settings.read_text().splitlines() if settings.is_file() else []
    return any(line.startswith("database:") and "null" not in line for line in lines)


def remove(paths: list[Path], *, storage: Path) -> None:
    """Delete what `unused` named; the claim on each keeps a trainer from beginning meanwhile.

    Raises:
        ConfigError: a study is at work, which may be about to use any of them.
    """
    for name in buckets.names(storage / "claims"):
        if name.startswith("study-"):
            with claims.held(storage / "claims" / name, wait=False):
                pass
    for path in paths:
        with claims.held(storage / "claims" / path.name):
            buckets.remove(path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _users(storage: Path) -> dict[str, set[str]]:
    """Which studies need which drafts, by key: whatever a study's directory holds is looked at."""
    users: dict[str, set[str]] = {}
    keys = [path.name for path in bank.models("draft", storage=storage)]
    for study in _studies(storage):
        content = b"".join(f.read_bytes() for f in study.glob("*") if f.suffix in _NAMING)
        asked = {note.name for note in study.glob(f"{ASKED}/*")}
        untold = _is_untold(study)
        for key in keys:
            if untold or key in asked or key.encode() in content:
                users.setdefault(key, set()).add(study.name)
    return users


ASKED = "drafts"
_NAMING = (".json", ".db", ".db-journal")


def _busy(storage: Path) -> list[str]:
    """Keys that somebody claims, dead or alive: a claim without a holder goes at the next use."""
    names = buckets.names(storage / "claims")
    return [name for name in names if not name.startswith("study-")]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = documents.read_json(path, remedy=model_files.ANOTHER)
    return content
