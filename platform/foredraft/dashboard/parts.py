"""Parts of a page from plain values: React writes their text, so that no name is ever markup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dash import dcc, html
from plotly import graph_objects as go

from foredraft.report import page
from foredraft.report.page import Tile
from foredraft.report.tables import Table


def tiles(shown: Sequence[Tile]) -> html.Dl:
    """The row of key figures."""
    return html.Dl(
        [
            html.Div(
                [html.Dt(one.label), html.Dd([one.value, html.Small(one.note)])], className="tile"
            )
            for one in shown
        ],
        className="tiles",
    )


def table(shown: Table, *, links: Mapping[str, Mapping[str, str]] | None = None) -> html.Div:
    """A table in a frame of its own, which the page fills by itself (assets/foredraft.js).

    As a component for each cell, a front of sixty points took the page seconds: Dash asks every
    component whether it has changed, whatever has.

    Args:
        shown: its texts.
        links: what a click on a text of the first column changes in the address.
    """
    content = {
        "columns": shown.columns,
        "rows": shown.rows,
        "numeric": [name in shown.numeric for name in shown.columns],
        "best": shown.best,
        "links": links or {},
    }
    body = html.Div(className="scroll", tabIndex=0, **{"data-table": json.dumps(content)})  # type: ignore[arg-type]
    note = [html.P(shown.note, className="note")] if shown.note else []
    return html.Div([body, *note])


def graph(
    name: str,
    *,
    reading: str = "",
    figure: go.Figure | None = None,
    height: int | None = None,
    min_width: int | None = None,
) -> html.Figure:
    """A figure, or the place of one that callbacks fill, and how to read it.

    Args:
        name: of the element.
        reading: how to read it.
        figure: what is drawn; by default nothing yet.
        height: in pixels, of what will be drawn; a figure has its own.
        min_width: in pixels, below which it is scrolled.
    """
    tall = height if figure is None else int(figure.layout.height)
    style = {"height": f"{tall}px"}
    if min_width:
        style["minWidth"] = f"{min_width}px"
    plot = dcc.Graph(
        id=name,
        figure=figure or {"data": [], "layout": {}},
        config=dict(page.CONFIG),  # type: ignore[arg-type]
        className="plot",
        responsive=True,
        style=style,
    )
    caption = html.Figcaption([html.B("How to read it. "), reading]) if reading else None
    return html.Figure([html.Div(plot, className="scroll"), caption])


def copyable(name: str, text: str) -> html.Div:
    """Text that a click copies."""
    block = html.Pre(text, id=name)
    button = dcc.Clipboard(target_id=name, title="copy", className="clipboard")
    return html.Div([block, button], className="copy")


def paragraph(sentences: Sequence[str], *, name: str) -> list[html.P]:
    """Sentences in one paragraph; nothing where there are none."""
    return [html.P(" ".join(sentences), className=name)] if sentences else []
