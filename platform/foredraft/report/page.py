"""The page round figures and tables: one HTML file without network requests.

Everything here is a pure function from plain values to text. Whatever a user may have written (a
study's name, a setting, an error) passes `html.escape` on its way into the page.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from foredraft.report.tables import Table

CONFIG = {"displaylogo": False, "showSendToCloud": False, "responsive": True}


class Tile(NamedTuple):
    """One key figure: what it is, its value, and a line of small print under it."""

    label: str
    value: str
    note: str = ""


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
    title: str,
    *,
    about: str,
    reading: Sequence[str],
    parts: Sequence[str],
    notes: Sequence[str] = (),
    kind: str = "study",
) -> str:
    """The whole page, plotly.js embedded once.

    Args:
        title: its heading.
        about: a line below that.
        reading: the sentences of the first paragraph.
        parts: the sections.
        notes: the sentences of a second paragraph, in small.
        kind: what it reports about.
    """
    sentences = " ".join(escape(sentence) for sentence in reading)
    small = f'<p class="notes">{" ".join(map(escape, notes))}</p>' if notes else ""
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
<p class="about">{escape(about)}</p><p class="reading">{sentences}</p>{small}</header>
<main>{"".join(parts)}</main>
<script>{get_plotlyjs()}</script>
<script>const config = {json.dumps(CONFIG)};{DRAW}</script>
</body>
</html>
"""


def figure_page(figure: go.Figure) -> str:
    """A page that holds one figure and nothing else, on white."""
    data = str(figure.to_json()).replace("<", "\\u003c")
    height = int(figure.layout.height)
    return f"""<!doctype html>
<meta charset="utf-8">
<style>html {{ color-scheme: light; }} body {{ margin: 0; background: #fff; }}</style>
<div class="plot" id="figure" style="height:{height}px"></div>
<script type="application/json" data-plot="figure">{data}</script>
<script>{get_plotlyjs()}</script>
<script>const config = {{"displayModeBar": false}};{DRAW}</script>
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
.notes { margin: 1rem 0 0; max-width: 46rem; color: var(--soft); }
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
