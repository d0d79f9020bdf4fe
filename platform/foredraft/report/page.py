"""The page round the figures: rows as text, tables, and one HTML file without network requests.

Everything here is a pure function from plain values to text. Whatever a user may have written (a
study's name, a setting, an error) passes `html.escape` on its way into the page.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from foredraft.provenance import redacted

Row = dict[str, Any]

ACCENT = "#e8590c"
GREY = "#868e96"
CONFIG = {"displaylogo": False, "showSendToCloud": False, "responsive": True}
SYMBOLS = {"rule": "", "sigma": "σ", "bias": "bias", "mse_tol": "tol", "lookahead": "K"}


class Tile(NamedTuple):
    """One key figure: what it is, its value, and a line of small print under it."""

    label: str
    value: str
    note: str = ""


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
    """A measured speedup with its 95 % interval, or an en dash."""
    if row.get("speedup") is None:
        return "–"
    low, high = number(row.get("speedup_low"), digits=2), number(row.get("speedup_high"), digits=2)
    fell = ", fell off the front" if row.get("confirmed") is False else ""
    return f"{number(row['speedup'], digits=2, unit='×')} [{low}, {high}]{fell}"


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
    rows = [_alone_row("target", {"speedup_alone": 1.0, **target}, target, target)]
    drafts = sorted(references.get("drafts", []), key=lambda draft: -(draft.get("scale") or 0.0))
    for draft in drafts:
        name = f"draft {number(draft.get('scale'), digits=2)}"
        rows.append(_alone_row(name, draft, built.get(draft.get("key"), draft), target))
    columns = ("model", "parameters", "layers × width", "mse", "mae", "mse ratio", "speed alone")
    numeric = frozenset(columns) - {"model", "layers × width"}
    return Table((*columns, "key"), tuple(rows), numeric)


def _alone_row(name: str, model: Row, built: Row, target: Row) -> tuple[str, ...]:
    ratio = model["mse"] / target["mse"] if model.get("mse") and target.get("mse") else None
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


def tiles_html(tiles: Sequence[Tile]) -> str:
    """The row of key figures."""
    cells = (
        f'<div class="tile"><dt>{escape(tile.label)}</dt><dd>{escape(tile.value)}'
        f"<small>{escape(tile.note)}</small></dd></div>"
        for tile in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def table_html(table: Table) -> str:
    """A table that scrolls sideways in its own frame, never the page with it."""
    head = "".join(_cell("th", text, text in table.numeric) for text in table.columns)
    body = []
    for place, row in enumerate(table.rows):
        cells = (
            _cell("td", text, column in table.numeric)
            for column, text in zip(table.columns, row, strict=True)
        )
        mark = ' class="best"' if place == table.best else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )


def _cell(tag: str, text: str, numeric: bool) -> str:
    # An error's text has a line of its own cause at the end and a long tail before it.
    if "\n" in text.strip():
        last = text.strip().rsplit("\n", 1)[-1]
        inner = f"<details><summary>{escape(last)}</summary><pre>{escape(text)}</pre></details>"
    else:
        inner = escape(text)
    mark = ' class="number"' if numeric else ""
    return f"<{tag}{mark}>{inner}</{tag}>"


def figure_html(figure: go.Figure, *, name: str, reading: str, min_width: int = 0) -> str:
    """A plot and how to read it; under `min_width` pixels it scrolls in its own frame."""
    height = int(figure.layout.height)
    style = f"height:{height}px" + (f";min-width:{min_width}px" if min_width else "")
    # `<` is spelled out so that no text in a figure can close the script that holds it.
    data = str(figure.to_json()).replace("<", "\\u003c")
    return (
        f'<figure><div class="scroll"><div class="plot" id="{name}" style="{style}"></div></div>'
        f"<figcaption><b>How to read it.</b> {escape(reading)}</figcaption>"
        f'<script type="application/json" data-plot="{name}">{data}</script></figure>'
    )


def section_html(title: str, *parts: str, lead: str = "") -> str:
    """A titled section of the page."""
    paragraph = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{''.join(parts)}</section>"


def details_html(title: str, text: str) -> str:
    """A block of preformatted text, folded until it is asked for."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def tree_html(title: str, tree: Mapping[str, Any]) -> str:
    """A nested mapping as a folded table with one row for each leaf."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in leaves(tree)
    )
    return (
        f"<details><summary>{escape(title)}</summary>"
        f'<div class="scroll"><table class="tree"><tbody>{rows}</tbody></table></div></details>'
    )


def leaves(tree: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, text) of every leaf of a nested mapping, in its own order."""
    found: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found += leaves(value, prefix=f"{name}.")
        else:
            found.append((name, value if isinstance(value, str) else json.dumps(value)))
    return found


def page_html(
    title: str, *, about: str, reading: Sequence[str], parts: Sequence[str], kind: str = "study"
) -> str:
    """The whole page, plotly.js embedded once; `kind` is what it reports about."""
    sentences = " ".join(escape(sentence) for sentence in reading)
    # The policy makes the promise hold: the browser itself refuses any request to the outside.
    # plotly.js compiles its WebGL drawing code at run time, hence 'unsafe-eval'.
    policy = (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data: blob:"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · foredraft</title>
<style>{STYLE}</style>
</head>
<body>
<header><p class="eyebrow">foredraft {escape(kind)}</p><h1>{escape(title)}</h1>
<p class="about">{escape(about)}</p><p class="reading">{sentences}</p></header>
<main>{"".join(parts)}</main>
<script>{get_plotlyjs()}</script>
<script>const config = {json.dumps(CONFIG)};{DRAW}</script>
</body>
</html>
"""


DRAW = """
for (const source of document.querySelectorAll("script[data-plot]")) {
  const figure = JSON.parse(source.textContent);
  Plotly.newPlot(source.dataset.plot, figure.data, figure.layout, config);
}
"""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #16191d; --soft: #5c6670; --line: #e4e7ea; --paper: #fff; --wash: #f6f7f8;
  --accent: #c2410c; --accent-wash: #fff4ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8eaed; --soft: #9aa3ad; --line: #2c3137; --paper: #131518; --wash: #1b1e22;
    --accent: #fb923c; --accent-wash: #2a1d14;
  }
  /* Axes and lettering follow the page; the data keeps its colours. */
  .plot .main-svg text {
    fill: var(--soft) !important; text-shadow: 0 0 3px var(--paper) !important;
  }
  .plot .hoverlayer text { fill: #16191d !important; }
  .plot .scatterlayer, .plot .cbfills { filter: brightness(1.35); }
  .plot .gridlayer path { stroke: var(--line) !important; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 4.5rem 2rem 6rem; max-width: 1200px;
  background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
h1 { margin: 0; font-size: 2.6rem; line-height: 1.15; letter-spacing: -.025em; font-weight: 650;
  overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1.35rem; letter-spacing: -.01em; font-weight: 620; }
.eyebrow { margin: 0 0 .6rem; color: var(--accent); font-size: .8rem; font-weight: 600;
  letter-spacing: .08em; text-transform: uppercase; }
.about { margin: .7rem 0 0; color: var(--soft); }
.reading { margin: 2rem 0 0; max-width: 46rem; font-size: 1.2rem; line-height: 1.55; }
.lead { margin: 0 0 1.5rem; max-width: 46rem; color: var(--soft); }
section { margin-top: 5rem; }
.tiles { display: grid; grid-template-columns: repeat(5, 1fr); gap: 1.5rem 2rem; margin: 3rem 0 0; }
.tile { border-top: 1px solid var(--line); padding-top: .9rem; }
.tile:first-child { border-top: 2px solid var(--accent); padding-top: calc(.9rem - 1px); }
.tile dt { color: var(--soft); font-size: .85rem; }
.tile dd { margin: .15rem 0 0; font-size: 2rem; line-height: 1.3; font-weight: 600;
  letter-spacing: -.02em; }
.tile:first-child dd { color: var(--accent); }
.tile small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400;
  line-height: 1.45; letter-spacing: 0; }
figure { margin: 0; }
figcaption { max-width: 46rem; margin-top: .9rem; color: var(--soft); font-size: .92rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; }
.plot { width: 100%; }
table { width: 100%; border-collapse: collapse; font-size: .82rem; line-height: 1.4; }
th, td { padding: .55rem .7rem .55rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { padding-left: .7rem; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; }
.number { text-align: right; }
.number + :not(.number) { padding-left: .8rem; }
tr.best td { background: var(--accent-wash); }
tr.best td:first-child { box-shadow: inset 3px 0 var(--accent); }
.note { margin: .9rem 0 0; max-width: 46rem; color: var(--soft); font-size: .92rem; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--ink); }
summary:hover { color: var(--accent); }
td details { margin: 0; }
td summary { white-space: normal; }
pre { margin: .75rem 0 0; padding: 1.1rem 1.25rem; overflow-x: auto; border-radius: 6px;
  background: var(--wash);
  font: .8rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.tree { margin-top: .5rem; }
.tree th { width: 1%; padding-right: 2rem; color: var(--soft); font-weight: 500; }
.tree td { white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 860px) { .tiles { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 560px) {
  body { padding: 2.5rem 1.1rem 4rem; }
  h1 { font-size: 2rem; }
  .reading { font-size: 1.08rem; }
  .tile dd { font-size: 1.6rem; }
  .tile:first-child { grid-column: 1 / -1; }
  section { margin-top: 3.75rem; }
}
@media print { body { padding: 0; } section { break-inside: avoid; } }
"""
