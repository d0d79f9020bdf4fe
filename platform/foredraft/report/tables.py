"""Rows as text and tables: what a trial, a draft or a failure is in words and figures.

Pure functions from plain values to text; whoever puts them into a page escapes them
(`foredraft.report.page`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from foredraft.judge.timing import INTERVAL_PAIRS
from foredraft.redaction import redacted

Row = dict[str, Any]

SYMBOLS = {"rule": "", "sigma": "σ", "bias": "bias", "mse_tol": "tol", "lookahead": "K"}


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; `numeric` columns are set to the right, row `best` stands out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    best: int | None = None
    note: str = ""


def number(value: object, *, digits: int = 3, unit: str = "") -> str:
    """A number with fixed digits after the point, an en dash for one that is missing."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}{unit}"


def percent(value: object) -> str:
    """A fraction as per cent, with one digit after the point."""
    known = isinstance(value, int | float)
    return number(value * 100 if known else None, digits=1, unit=" %")  # type: ignore[operator]


def quantity(value: object) -> str:
    """A count in thousands (k) or millions (M) to three figures, as parameter counts are told."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def plural(count: int, noun: str) -> str:
    """'1 trial', '2 trials'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# The order in which a reader asks: how well, how fast, how exact, at what cost.
METRICS: dict[str, tuple[str, Callable[[object], str]]] = {
    "acceptance_rate": ("accepted", percent),
    "accept_length": ("accept length", lambda v: number(v, digits=2)),
    "predicted_speedup": ("predicted", lambda v: number(v, digits=2, unit="×")),
    "mse": ("mse", lambda v: number(v, digits=4)),
    "mae": ("mae", lambda v: number(v, digits=4)),
    "mse_ratio": ("mse ratio", number),
    "test_mse_ratio": ("on test", number),
    "deviation": ("deviation", lambda v: number(v, digits=5)),
    "parameters": ("parameters", quantity),
    "seconds": ("took", lambda v: number(v, digits=1, unit=" s")),
}
SIZES = ("n_layers", "d_model", "n_heads", "d_ff")
FRONT_METRICS = (
    "parameters",
    "acceptance_rate",
    "accept_length",
    "predicted_speedup",
    "measured",
    "mse",
    "mse_ratio",
    "test_mse_ratio",
    "deviation",
)


def plain_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows as plain Python values, None for whatever is missing or infinite."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    missing = value is None or value is pd.NA or value is pd.NaT
    return None if missing or (isinstance(value, float) and not math.isfinite(value)) else value


def is_feasible(row: Row) -> bool:
    """Whether a finished trial kept the accuracy budget; a table without one refuses nobody."""
    return row.get("state") == "complete" and bool(row.get("feasible", True))


def hover_text(row: Row) -> str:
    """Everything known of a trial, names and values aligned in two columns."""
    pairs = [(label, show(row.get(name))) for name, (label, show) in METRICS.items()]
    pairs.insert(3, ("measured", measured_text(row)))
    pairs.append(("draft", draft_text(row)))
    pairs += [(name, setting_text(value)) for name, value in settings_of(row).items()]
    pairs = [(label, text) for label, text in pairs if text != "–"]
    width = max((len(label) for label, _ in pairs), default=0)
    # Plotly folds ordinary spaces; these stay.
    lines = (f"{label.ljust(width)}  {text}".replace(" ", "\u00a0") for label, text in pairs)
    verdict = "" if is_feasible(row) else " (over the accuracy budget)"
    return "<br>".join(
        [f"<b>Trial {row.get('number')}</b>{verdict}", *(escape(line) for line in lines)]
    )


def settings_of(row: Row) -> Row:
    """The settings that apply to a trial, by their own names."""
    prefix = "settings."
    return {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }


def setting_text(value: object) -> str:
    """A setting as a person would write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measured_text(row: Row) -> str:
    """A measured speedup with its 95 % interval or range, or an en dash."""
    if row.get("speedup") is None:
        return "–"
    low, high = number(row.get("speedup_low"), digits=2), number(row.get("speedup_high"), digits=2)
    pairs = row.get("pairs")
    few = f", range of {pairs:.0f} pairs" if pairs and pairs < INTERVAL_PAIRS else ""
    fell = ", fell off the front" if row.get("confirmed") is False else ""
    return f"{number(row['speedup'], digits=2, unit='×')} [{low}, {high}]{few}{fell}"


def interval_text(pairs: int | None) -> str:
    """What the two ends of a measured speedup are: too few pairs have a range alone."""
    few = pairs is not None and pairs < INTERVAL_PAIRS
    return f"range of {plural(pairs or 0, 'pair')}" if few else "95 % interval"


def test_text(row: Row) -> str:
    """The error ratio on the test split, marked where it is not what the search saw."""
    return number(row.get("test_mse_ratio")) + (" (differs)" if row.get("test_differs") else "")


def draft_text(row: Row) -> str:
    """The effective architecture of a trial's draft: layers, width, heads, feed-forward width."""
    if row.get("d_model") is None:
        return "–"
    # A column that lacks a value for one trial holds fractions for all of them.
    sizes = {name: number(row.get(name), digits=0) for name in SIZES}
    return "{n_layers}×{d_model}, {n_heads} heads, ff {d_ff}".format(**sizes)


def front_table(trials: pd.DataFrame, *, best: Row) -> Table:
    """The front by rising acceptance; settings that all of its trials share go into the note."""
    rows = [row for row in plain_rows(trials) if row.get("on_front")]
    rows.sort(key=lambda row: row.get("acceptance_rate") or 0.0)
    settings = [settings_of(row) for row in rows]
    names = sorted({name for one in settings for name in one} - {"scale"}, key=_setting_place)
    varied = [name for name in names if len({one.get(name) for one in settings}) > 1]
    shared = ", ".join(
        f"{name} {setting_text(settings[0][name])}" for name in names if name not in varied
    )
    numbers = [row.get("number") for row in rows]
    texts = ("trial", "settings", "draft", "measured")
    columns = ("trial", "scale", "settings", "draft", *FRONT_METRICS)
    return Table(
        columns=tuple(METRICS[name][0] if name in METRICS else name for name in columns),
        rows=tuple(_front_row(row, varied) for row in rows),
        numeric=frozenset(METRICS[n][0] if n in METRICS else n for n in columns if n not in texts),
        best=numbers.index(best["number"]) if best.get("number") in numbers else None,
        note=f"The same for all of them: {shared}." if shared else "",
    )


def _front_row(row: Row, varied: Sequence[str]) -> tuple[str, ...]:
    own = settings_of(row)
    settings = " · ".join(
        f"{SYMBOLS.get(name, name)} {setting_text(own[name])}".strip()
        for name in varied
        if name in own
    )
    return (
        str(row.get("number")),
        number(own.get("scale"), digits=2),
        settings,
        draft_text(row),
        *(
            OWN_TEXTS[name](row) if name in OWN_TEXTS else METRICS[name][1](row.get(name))
            for name in FRONT_METRICS
        ),
    )


OWN_TEXTS = {"measured": measured_text, "test_mse_ratio": test_text}


def _setting_place(name: str) -> tuple[int, str]:
    known = list(SYMBOLS)
    return known.index(name) if name in known else len(known), name


def drafts_table(trials: pd.DataFrame, *, references: Row) -> Table:
    """The target and every trained draft, each forecasting alone."""
    built = {row.get("draft_key"): row for row in plain_rows(trials)}
    target = references.get("target", {})
    policies = target.get("policies", {})
    several = len(policies) > 1
    rows = [
        _alone_row(f"target{under}", {"speedup_alone": 1.0, **target, **errors}, target, 1.0)
        for under, errors in (
            [(f", {policy}", error) for policy, error in policies.items()]
            if several
            else [("", {})]
        )
    ]
    drafts = sorted(references.get("drafts", []), key=lambda draft: -(draft.get("scale") or 0.0))
    for draft in drafts:
        under = f", {draft.get('policy')}" if several else ""
        name = f"draft {number(draft.get('scale'), digits=2)}{under}"
        ratio = ratio_alone(draft, target)
        rows.append(_alone_row(name, draft, built.get(draft.get("key"), draft), ratio))
    columns = ("model", "parameters", "layers × width", "mse", "mae", "mse ratio", "speed alone")
    numeric = frozenset(columns) - {"model", "layers × width"}
    return Table((*columns, "key"), tuple(rows), numeric)


def ratio_alone(draft: Row, target: Row) -> float | None:
    """The error of a draft alone over the target's, both under the draft's context policy.

    None where the target's error under that policy is not known.
    """
    policies = target.get("policies") or {}
    beside = policies.get(draft.get("policy"), {}) if policies else target
    return draft["mse"] / beside["mse"] if draft.get("mse") and beside.get("mse") else None


def _alone_row(name: str, model: Row, built: Row, ratio: float | None) -> tuple[str, ...]:
    return (
        name,
        quantity(model.get("parameters")),
        draft_text(built),
        number(model.get("mse"), digits=4),
        number(model.get("mae"), digits=4),
        number(ratio),
        number(model.get("speedup_alone"), digits=2, unit="×"),
        str(model.get("key", ""))[:12],
    )


def failures_table(trials: pd.DataFrame) -> Table:
    """The trials that failed, and the error of each."""
    rows = [row for row in plain_rows(trials) if row.get("state") == "failed"]
    return Table(
        ("trial", "scale", "error"),
        tuple(
            (
                str(row.get("number")),
                number(row.get("settings.scale"), digits=2),
                redacted(str(row.get("error") or "no error was recorded")),
            )
            for row in rows
        ),
        frozenset({"trial", "scale"}),
    )
