"""How a study's models were trained, epoch by epoch, and how those are that are trained now.

write(record, directory, target=target)     # once, as the study ends
now(record, directory)                      # while it runs
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from foredraft import bank, buckets, files
from foredraft.bank import housekeeping
from foredraft.search.record import Record
from foredraft.search.references import one_per_draft_and_policy

FILE = "curves.parquet"
WORDS = {
    "kind": "{}",
    "scale": "{:.2f}x",
    "depth": "depth {:.2f}",
    "width": "width {:.2f}",
    "stages": "{}",
    "patches_out": "{} a pass",
}
"""How what tells drafts apart is written in a figure."""

Row = dict[str, Any]


def write(record: Record, directory: Path, *, target: bank.Model) -> None:
    """Nothing; the study's directory then holds the losses of its target and of its drafts."""
    judged = one_per_draft_and_policy(record.study, record.trials)
    drafts = list({one[1].draft.key: one for one in judged}.values())
    curves = [_curve(target.metrics["curve"], label="target", kind="target")]
    labels = labels_of([trial.settings for trial, _ in drafts])
    for (_, outcome), label in zip(drafts, labels, strict=True):
        model = bank.open_model(directory.parents[1] / "drafts" / outcome.draft.key)
        curves.append(_curve(model.metrics["curve"], label=label, kind="draft"))
    files.atomic_write(directory / FILE, pd.concat(curves).to_parquet(index=False))


def now(record: Record, directory: Path) -> pd.DataFrame:
    """What `write` would write, with the drafts that are being trained as far as they are."""
    storage, asked = directory.resolve().parents[1], housekeeping.noted(directory)
    curves = []
    if record.target and bank.is_whole(path := storage / "targets" / record.target.key):
        rows = bank.open_model(path).metrics["curve"]
        curves.append(_curve(rows, label="target", kind="target"))
    for (key, settings), label in zip(asked.items(), labels_of(list(asked.values())), strict=True):
        path = storage / "drafts" / key
        if bank.is_whole(path):
            rows = bank.open_model(path).metrics["curve"]
        else:
            epochs = buckets.fetch_lately(bank.epochs_file(storage, key))
            rows, label = told(epochs), f"{label}, under way"
        curves.append(_curve(rows, label=label if settings else f"draft {key}", kind="draft"))
    curves = [curve for curve in curves if len(curve)]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def told(path: Path) -> list[Row]:
    """The epochs that a training has told, each as it was trained last; none where it told none."""
    rows: list[Row] = []
    for line in path.read_text().splitlines(keepends=True) if path.is_file() else ():
        if line.endswith("\n"):  # the last may be half written
            row = json.loads(line)
            rows = [one for one in rows if one["number"] < row["number"]]
            rows.append(row)
    return rows


def labels_of(drafts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The drafts' names in a figure, by their settings: their scale, and what else differs.

    Depth and width are named too where there is no scale, as neither follows one.
    """
    varied = {name for name in WORDS if len({own.get(name) for own in drafts}) > 1}
    return [f"draft {', '.join(_in_words(own, varied))}" for own in drafts]


def _in_words(own: Mapping[str, Any], varied: set[str]) -> Iterator[str]:
    named = {*varied, "scale"} if own.get("scale") is not None else {*varied, "depth", "width"}
    if own.get("kind") == "heads":
        named = {*varied, "kind"}
    for name, words in WORDS.items():
        if name in named and own.get(name) is not None:
            yield words.format(own[name])


def _curve(rows: Sequence[Row], *, label: str, kind: str) -> pd.DataFrame:
    """The rows as a table; stages of one name are told apart by their order."""
    begun: Counter[str] = Counter()
    stages = []
    for row in rows:
        begun[row["stage"]] += row["epoch"] == 1
        count = begun[row["stage"]]
        stages.append(row["stage"] if count < 2 else f"{row['stage']} {count}")
    return pd.DataFrame(rows).assign(stage=stages, label=label, kind=kind)
