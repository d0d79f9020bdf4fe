"""The dashboard as a server: callbacks from the address and the studies' marks to the page.

    serve(storage=Path("runs"), given=(), host="127.0.0.1", port=8050)

The page asks every two seconds whether any mark has changed. Nothing here writes: it reads the
studies' records, and the address names no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dash import ALL, Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from foredraft.dashboard import figures, pages, tabs
from foredraft.dashboard.catalogue import Catalogue
from foredraft.dashboard.pages import AXES, BOUNDS, TABS, Shown
from foredraft.dashboard.patches import Figures
from foredraft.dashboard.view import View, address
from foredraft.errors import ConfigError
from foredraft.report import page
from foredraft.report.close_up import close_up
from foredraft.settings.budgets import Budget

# The page asks nothing of any other host, and nothing else may frame it or send it forms.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
INDEX = """<!doctype html>
<html lang="en">
<head>
{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>
{%favicon%}
<style>STYLE</style>
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>
"""


def app_of(catalogue: Catalogue) -> Dash:
    """The application over the studies of a catalogue."""
    app = Dash(
        __name__,
        title="foredraft",
        update_title=None,  # type: ignore[arg-type]
        serve_locally=True,
        index_string=INDEX.replace("STYLE", page.STYLE),
        suppress_callback_exceptions=True,
    )
    app.layout = pages.layout
    _browse(app)
    _watch(app, catalogue)
    _draw(app, catalogue, Figures())
    _tell(app, catalogue)

    app.server.after_request(_kept_at_home)
    return app


def _kept_at_home(response: Any) -> Any:
    """The response with what a browser is to refuse it."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _shown(catalogue: Catalogue, scope: str | None) -> tuple[View, list[Shown]]:
    view = View.of(scope)
    found = []
    for label in view.studies:
        shelf = catalogue.shelf(label)
        if shelf is not None:
            look = shelf.look()
            own = look.record.study.budget if look.record else Budget(mse_ratio=1.0)
            found.append(Shown(shelf, look, shelf.under(look, view.budget(own))))
    return view, found


def _browse(app: Dash) -> None:
    """What the page does by itself (assets/foredraft.js)."""

    def does(name: str, *arguments: Any) -> None:
        app.clientside_callback(
            f"window.dash_clientside.foredraft.{name}", *arguments, prevent_initial_call=True
        )

    does_at_once = app.clientside_callback
    parts = ("scope", "picked", "tab", "axis")
    does_at_once(
        "window.dash_clientside.foredraft.split",
        [Output(name, "data") for name in parts],
        Input("url", "search"),
        Input("url", "pathname"),
        [State(name, "data") for name in parts],
    )
    does_at_once(
        "window.dash_clientside.foredraft.show",
        Output("studies", "style"),
        Output("study", "style"),
        [Output(f"tab-{name}", "style") for name in TABS],
        [Output(f"go-{name}", "className") for name in TABS],
        [Output(f"axis-{name}", "className") for name in AXES],
        [Input(name, "data") for name in ("tab", "axis", "scope")],
    )
    nothing = Output("nothing", "data", allow_duplicate=True)
    sliders = [Input(f"slider-{name}", "value") for name in BOUNDS]
    does("slide", nothing, *sliders, State("limits", "data"))
    does("place", nothing, Input("url", "search"), Input("limits", "data"))
    does("click", nothing, Input("front", "clickData"), State("front", "figure"))
    does("pick", nothing, Input({"pick": ALL, "trial": ALL}, "n_clicks"))
    does("pick", nothing, Input({"pick": ALL, "trial": ALL, "pinned": ALL}, "n_clicks"))
    does("look", nothing, Input({"look": ALL, "place": ALL}, "n_clicks"))
    does("tab", nothing, *(Input(f"go-{name}", "n_clicks") for name in TABS))
    does("axis", nothing, *(Input(f"axis-{name}", "n_clicks") for name in AXES))
    does("own", nothing, Input("own", "n_clicks"))


def _watch(app: Dash, catalogue: Catalogue) -> None:
    """Whether anything has changed, and what follows from it for every tab."""

    @app.callback(
        Output("marks", "data"),
        Input("tick", "n_intervals"),
        Input("scope", "data"),
        State("marks", "data"),
    )
    def poll(_: int, scope: str | None, before: dict[str, str] | None) -> dict[str, str]:
        asked = View.of(scope).studies
        shelves = catalogue.shelves() if not asked else map(catalogue.shelf, asked)
        marks = {shelf.label: shelf.mark for shelf in shelves if shelf is not None}
        if marks == before:
            raise PreventUpdate
        return marks

    @app.callback(
        Output("trouble", "children"),
        Output("head", "children"),
        Output("studies", "children"),
        Input("marks", "data"),
        Input("scope", "data"),
    )
    def say(marks: dict[str, str] | None, scope: str | None) -> tuple[Any, Any, Any]:
        view, shown = _shown(catalogue, scope)
        if marks is None:
            raise PreventUpdate
        if not view.studies:
            listed = pages.studies(catalogue.shelves(), storage=str(catalogue.storage))
            return [], no_update, listed
        return pages.troubles(shown, view.studies), pages.head(shown), no_update

    @app.callback(Output("limits", "data"), Input("marks", "data"), Input("scope", "data"))
    def limits(_: Any, scope: str | None) -> dict[str, Any]:
        _, shown = _shown(catalogue, scope)
        return pages.limits([one for one in shown if one.look.record])


def _draw(app: Dash, catalogue: Catalogue, sent: Figures) -> None:
    """The tab of the front."""

    @app.callback(
        Output("front", "figure"),
        Output("front-reading", "children"),
        Output("shown", "data"),
        Input("marks", "data"),
        Input("scope", "data"),
        Input("picked", "data"),
        Input("tab", "data"),
        Input("axis", "data"),
        State("shown", "data"),
    )
    def front(
        _: Any, scope: str | None, picked: str | None, tab: str, axis: Any, before: str | None
    ) -> tuple[Any, Any, Any]:
        _, shown = _shown(catalogue, scope)
        records = {one.look.label: one.record for one in shown if one.record}
        if tab != "front" or not records:
            raise PreventUpdate
        looked_at = View.of(picked)
        picks = (looked_at.trial, looked_at.pinned)
        marks = {one.look.label: one.look.mark for one in shown}
        name = figures.name_of(marks, scope, picks, axis)
        if name == before:
            raise PreventUpdate
        figure = figures.front(records, axis=axis, picked=picks)
        new = sent.send(figure, name=name, shown=before)
        if new is None:
            raise PreventUpdate
        return new.content, figures.READINGS[axis], new.name

    @app.callback(
        Output("front-sentence", "children"),
        Output("others", "children"),
        Output("front-table", "children"),
        Input("marks", "data"),
        Input("scope", "data"),
        Input("tab", "data"),
    )
    def beside(_: Any, scope: str | None, tab: str) -> tuple[Any, Any, Any]:
        if tab != "front":
            raise PreventUpdate
        _, shown = _shown(catalogue, scope)
        return pages.front_sentence(shown), pages.others(shown), pages.front_table(shown)

    @app.callback(
        Output("trial", "children"),
        Input("marks", "data"),
        Input("scope", "data"),
        Input("picked", "data"),
    )
    def trial(_: Any, scope: str | None, picked: str | None) -> Any:
        _, shown = _shown(catalogue, scope)
        view, by_label = View.of(picked), {one.look.label: one for one in shown}
        seen = []
        for one in (view.trial, view.pinned):
            found = by_label.get(one.study) if one else None
            seen.append(
                close_up(found.record, one.number, directory=found.shelf.directory)
                if one and found and found.record
                else None
            )
        return pages.trial(seen[0], seen[1].trial if seen[1] else None, view)


def _tell(app: Dash, catalogue: Catalogue) -> None:
    """The other tabs, each drawn while it is looked at."""

    def tab_callback(tab: str) -> None:
        @app.callback(
            Output(f"tab-{tab}", "children"),
            Input("marks", "data"),
            Input("scope", "data"),
            Input("tab", "data"),
        )
        def tell(_: Any, scope: str | None, chosen: str) -> Any:
            if chosen != tab:
                raise PreventUpdate
            _, shown = _shown(catalogue, scope)
            return tabs.sections(shown, tab)

    for tab in tabs.SECTIONS:
        tab_callback(tab)


def server_of(
    *, storage: Path, given: Iterable[Path], host: str, port: int
) -> tuple[BaseWSGIServer, str]:
    """A server that listens, and its address for a browser.

    Raises:
        ConfigError: nothing can listen there.
    """
    catalogue = Catalogue(storage, given)
    app = app_of(catalogue)
    if host in LOOPBACK:
        # A page of another name that points here is answered nothing.
        app.server.config["TRUSTED_HOSTS"] = [*LOOPBACK[:3]]
    try:
        server = make_server(host, port, app.server, threaded=True, request_handler=_Quiet)
    except (OSError, SystemExit) as error:
        raise ConfigError(
            f"--port is {port}: nothing can listen at {host}:{port}; give another --port or --host"
        ) from error
    path = address(catalogue.given) if catalogue.given else "/"
    return server, f"http://{host}:{server.port}{path}"


def serve(*, storage: Path, given: Iterable[Path], host: str, port: int) -> None:
    """Nothing; serves until it is interrupted.

    Args:
        storage: directory of all artefacts.
        given: directories of the studies to show first.
        host: where to listen.
        port: where to listen; 0 for any that is free.

    Raises:
        ConfigError: nothing can listen there.
    """
    server, url = server_of(storage=storage, given=given, host=host, port=port)
    print(url, flush=True)
    server.serve_forever()


class _Quiet(WSGIRequestHandler):
    """Says nothing of each of the page's questions."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing."""
