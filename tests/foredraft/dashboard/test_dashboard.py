"""Claims about the dashboard that need no browser: addresses, patches, labels, odd states."""

from __future__ import annotations

import copy
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dash", reason="the dashboard is an extra: pip install 'foredraft[dashboard]'")

from foredraft.dashboard import figures, pages, tabs
from foredraft.dashboard.catalogue import Catalogue
from foredraft.dashboard.pages import Shown
from foredraft.dashboard.patches import Figures, changes
from foredraft.dashboard.server import app_of, server_of
from foredraft.dashboard.view import Pick, View, address
from foredraft.errors import ConfigError
from foredraft.search.record import Record
from foredraft.search.trial import Trial
from foredraft.settings.budgets import Budget

MakeTrial = Callable[..., Trial]
WriteStudy = Callable[..., Path]


def some_trials(make_trial: MakeTrial, count: int) -> list[Trial]:
    return [
        make_trial(
            number,
            settings={"scale": 0.5 + 0.1 * (number % 5), "sigma": 0.1 * (number + 1)},
            draft={"key": f"d-{number % 5}"},
            acceptance_rate=0.4 + 0.01 * number,
            predicted_speedup=1.9 - 0.01 * number,
            mse_ratio=1.0 + 0.001 * number,
            deviation=0.0001 * (number + 1),
        )
        for number in range(count)
    ]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def shown_of(storage: Path, *labels: str, budget: Budget | None = None) -> list[Shown]:
    catalogue, found = Catalogue(storage), []
    for label in labels:
        shelf = catalogue.shelf(label)
        assert shelf
        look = shelf.look()
        record = look.record and shelf.under(look, budget or look.record.study.budget)
        found.append(Shown(shelf, look, record))
    return found


def text_of(component: Any) -> str:
    """Every text of components, as a page would show it."""
    if component is None or isinstance(component, bool):
        return ""
    if isinstance(component, str | int | float):
        return str(component)
    if isinstance(component, list | tuple):
        return " ".join(map(text_of, component))
    table = getattr(component, "data-table", None)
    if table:
        content = json.loads(table)
        return text_of([content["columns"], *content["rows"]])
    return text_of(getattr(component, "children", None))


# Addresses


def test_an_address_holds_the_whole_view() -> None:
    search = address(["a b", "<script>"], mse_ratio="1.02", axis="mse_ratio", trial="<script>:12")
    view = View.of(search.removeprefix("/"))
    assert view.studies == ("a b", "<script>")
    assert view.trial == Pick("<script>", 12)
    assert view.axis == "mse_ratio"
    assert view.budget(Budget(deviation_ratio=0.1)) == Budget(mse_ratio=1.02, deviation_ratio=0.1)


def test_an_address_names_the_window_and_the_variate_of_a_trial() -> None:
    view = View.of("?study=a&trial=a:3&window=2&variate=5")
    assert (view.window, view.variate) == (2, 5)


@pytest.mark.parametrize(
    "search",
    [
        None,
        "",
        "?mse_ratio=nan&axis=up&tab=&trial=x",
        "?mse_ratio=-1&trial=:",
        "?trial=a:-1&window=-1&variate=x",
    ],
)
def test_what_an_address_says_wrongly_is_left_out(search: str | None) -> None:
    assert View.of(search) == View()


# Patches


def drawn(record: Record, pick: Pick | None = None) -> dict[str, Any]:
    return figures.front({"tiny": record}, axis="acceptance", picked=(pick, None))


def patched(figure: dict[str, Any], found: list[tuple[tuple[str | int, ...], Any]]) -> Any:
    figure = copy.deepcopy(figure)
    for path, value in found:
        place: Any = figure
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return figure


def test_a_figure_and_what_changed_in_it_make_the_next_figure(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    trials = some_trials(make_trial, 20)
    write_study(storage, "tiny", *trials[:19])
    (one,) = shown_of(storage, "tiny")
    assert one.record
    before = drawn(one.record)
    write_study(storage, "tiny", trials[19])
    after = one.shelf.look().record
    assert after
    for figure in (
        drawn(after),
        drawn(one.record.under(Budget(mse_ratio=1.015))),
        drawn(one.record, Pick("tiny", 3)),
    ):
        found = changes(before, figure)
        assert found
        assert patched(before, found) == figure
        # Zoom is the reader's: no change touches what an axis shows.
        assert not [path for path, _ in found if path[:1] == ("layout",) and "range" in path]


def test_picking_a_trial_sends_its_ring_and_nothing_else(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(storage, "tiny", *some_trials(make_trial, 12))
    (one,) = shown_of(storage, "tiny")
    assert one.record
    sent = Figures()
    whole = sent.send(drawn(one.record), name="a", shown=None)
    part = sent.send(drawn(one.record, Pick("tiny", 3)), name="b", shown="a")
    assert whole
    assert part
    assert len(json.dumps(part.content.to_plotly_json())) < 500
    assert sent.send(whole.content, name="b", shown="b") is None
    # A page that was away for long is sent all of it.
    assert "data" in sent.send(whole.content, name="c", shown="forgotten").content  # type: ignore[union-attr]


def test_a_figure_of_other_traces_is_sent_as_a_whole() -> None:
    one = {"data": [{"name": "a"}], "layout": {}}
    assert changes(one, {"data": [{"name": "a"}, {"name": "b"}], "layout": {}}) is None
    assert changes({"data": [], "layout": {"shapes": []}}, {"data": [], "layout": {}}) is None


# Budgets


def test_another_budget_makes_another_front(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(storage, "tiny", *some_trials(make_trial, 20))
    told = [
        pages.front_sentence(shown_of(storage, "tiny", budget=Budget(mse_ratio=bound)))
        for bound in (1.0095, 1.0145)
    ]
    assert told[0].startswith(
        "10 of 20 complete trials within the budget (mse ratio at most 1.0095)"
    )
    assert told[1].startswith("15 of 20 complete trials")


def test_a_slider_at_its_right_end_leaves_every_trial_within(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(storage, "tiny", *some_trials(make_trial, 20))
    reach = pages.limits(shown_of(storage, "tiny"))
    assert reach["mse_ratio"]["own"] == 1.01
    assert reach["deviation_ratio"]["own"] is None
    ends = Budget(**{name: found["range"][1] for name, found in reach.items()})
    (one,) = shown_of(storage, "tiny", budget=ends)
    assert one.record
    assert all(point.standing.feasible for point in one.record.complete)


# Which studies


def test_two_studies_of_one_name_are_told_apart_by_their_storages(
    tmp_path: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    here = write_study(tmp_path / "here", "same", make_trial(0))
    there = write_study(tmp_path / "there", "same", make_trial(0), make_trial(1))
    catalogue = Catalogue(tmp_path / "here", [there])
    labels = [shelf.label for shelf in catalogue.shelves()]
    assert labels == [f"same ({tmp_path / 'here'})", f"same ({tmp_path / 'there'})"]
    assert catalogue.given == (labels[1],)
    counts = [shelf.count().ended for shelf in catalogue.shelves()]
    assert counts == [1, 2]
    assert here != there


def test_an_address_opens_no_other_file(
    tmp_path: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(tmp_path / "elsewhere", "secret", make_trial(0))
    write_study(tmp_path / "runs", "tiny", make_trial(0))
    catalogue = Catalogue(tmp_path / "runs")
    for label in ("secret", "../../elsewhere/studies/secret", str(tmp_path / "elsewhere")):
        assert catalogue.shelf(label) is None


def test_a_study_that_begins_later_appears_in_the_list(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    catalogue = Catalogue(storage)
    assert "no study" in text_of(pages.studies(catalogue.shelves(), storage="runs"))
    write_study(storage, "<script>", make_trial(0))
    shown = text_of(pages.studies(catalogue.shelves(), storage="runs"))
    assert "<script>" in shown
    assert "1 of 40" in shown


# Odd states


def odd_states(make_trial: MakeTrial) -> dict[str, tuple[list[Trial], str]]:
    failed = [make_trial(n, error="Traceback\nMemoryError: 4 GiB") for n in range(2)]
    return {
        "empty": ([], "No trial has been begun yet"),
        "under way": ([make_trial(0, running=True)], "1 trial under way, none reported yet"),
        "failures": (failed, "All 2 trials failed, the last with: MemoryError: 4 GiB"),
        "stopped": ([make_trial(0, stopped="front")], "None of 1 trial is complete"),
        "one": ([make_trial(0)], "1 of 1 complete trial within the budget"),
    }


@pytest.mark.parametrize("state", ["empty", "under way", "failures", "stopped", "one"])
def test_every_state_of_a_study_is_a_sentence_on_every_tab(
    state: str, storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    trials, sentence = odd_states(make_trial)[state]
    write_study(storage, "tiny", *trials)
    shown = shown_of(storage, "tiny")
    assert sentence in pages.front_sentence(shown)
    assert text_of(pages.head(shown))
    for tab in tabs.SECTIONS:
        assert text_of(tabs.sections(shown, tab))
    assert shown[0].record
    assert drawn(shown[0].record)["data"]
    pages.limits(shown)


def test_a_study_of_another_version_is_a_sentence(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    old: Any = make_trial(0).model_copy()
    object.__setattr__(old, "model_dump_json", lambda: '{"version": 2, "number": 0}')
    write_study(storage, "tiny", old)
    (one,) = shown_of(storage, "tiny")
    assert one.record is None
    assert "another version of foredraft" in text_of(pages.troubles([one], ["tiny"]))
    listed = text_of(pages.studies(Catalogue(storage).shelves(), storage="runs"))
    assert "1 of 40" in listed


def test_what_was_read_stays_while_the_storage_is_away(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    directory = write_study(storage, "tiny", make_trial(0))
    shelf = Catalogue(storage).shelf("tiny")
    assert shelf
    before = shelf.look()
    away = directory.rename(directory.with_name(".away"))
    look = shelf.look()
    assert look.record is before.record
    assert "Shown is what there was at" in look.trouble
    away.rename(directory)
    assert shelf.look().trouble == ""


def test_a_study_that_there_is_none_of_is_named() -> None:
    assert "no study 'gone'" in text_of(pages.troubles([], ["gone"]))


def test_several_studies_are_drawn_over_each_other_in_marks_of_their_own(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    for name in ("a", "b"):
        write_study(storage, name, *some_trials(make_trial, 8))
    shown = shown_of(storage, "a", "b")
    records = {one.look.label: one.record for one in shown if one.record}
    figure = figures.front(records, axis="acceptance", picked=(Pick("b", 2), None))
    marks = {t["meta"]: t["marker"]["symbol"][0] for t in figure["data"] if "meta" in t}
    assert marks == {"a": "circle", "b": "square"}
    assert figure["data"][-1]["x"] == pytest.approx([0.42])


# A trial


def test_a_trial_is_shown_with_what_repeats_it_and_what_differs_from_a_pinned_one(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    from foredraft.report.close_up import close_up

    write_study(storage, "tiny", *some_trials(make_trial, 8))
    (one,) = shown_of(storage, "tiny")
    assert one.record
    found = close_up(one.record, 3, directory=one.shelf.directory)
    assert found
    assert "foredraft evaluate --target t-1f --draft d-3" in found.command
    assert f"--storage {storage}" in found.command
    view = View(trial=Pick("tiny", 3), pinned=Pick("tiny", 4))
    shown = text_of(pages.trial(found, one.record.trials[4], view))
    assert "compared with trial 4" in shown
    assert "first:" in shown
    missing = View(trial=Pick("tiny", 99))
    assert "no trial 99" in text_of(
        pages.trial(close_up(one.record, 99, directory=one.shelf.directory), None, missing)
    )


def test_the_command_reads_the_data_as_the_study_does(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    from foredraft.report.close_up import close_up

    reading = {"columns": ["OT", "HUFL"], "dayfirst": False}
    data = "synthetic-etth:rows=1200"
    evaluation = {"data": data, "horizon": 336, "variates": 1, "reading": reading}
    directory = write_study(storage, "tiny", make_trial(0), evaluation=evaluation)
    (one,) = shown_of(storage, "tiny")
    assert one.record
    found = close_up(one.record, 0, directory=directory)
    assert found
    assert f"--data {data} --columns OT HUFL --monthfirst --variates 1 " in found.command


def test_a_trial_is_shown_with_the_window_and_the_variate_that_are_asked_for(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy, keep_example: Any
) -> None:
    from foredraft.report.close_up import close_up

    directory = write_study(storage, "tiny", *some_trials(make_trial, 2))
    (one,) = shown_of(storage, "tiny")
    assert one.record
    target_WHC = keep_example(directory, one.record.trials[1])

    def shown(number: int, **asked: int) -> Any:
        assert one.record
        found = close_up(one.record, number, directory=directory)
        return pages.trial(found, None, View(trial=Pick("tiny", number), **asked))

    told = shown(1, window=2, variate=6)
    assert "window 1 window 3 window 6 window 9" in text_of(told)
    (figure,) = [found for part in told if (found := figure_in(part, "trial-forecasts"))]
    drawn = {trace.name: list(trace.y) for trace in figure.data if trace.type == "scatter"}
    assert drawn["target alone"] == pytest.approx(target_WHC[5, :, 6].tolist())
    assert drawn["speculation"] == pytest.approx((target_WHC[5, :, 6] + 0.5).tolist())
    assert drawn["what happened"][-336:] == pytest.approx((target_WHC[5, :, 6] + 1).tolist())
    patches = {trace.name: list(trace.customdata) for trace in figure.data if trace.type == "bar"}
    assert patches == {"patch proposed and accepted": [1, 3], "patch of the target": [2, 4]}
    # An address may ask for what there is not; the last is shown then.
    assert "OT, window 9 of 9" in str(shown(1, window=99, variate=99))
    assert "not here" in text_of(shown(0))


def figure_in(component: Any, name: str) -> Any:
    """The figure of that name in a component."""
    if getattr(component, "id", None) == name:
        return component.figure
    inner = getattr(component, "children", None)
    for part in inner if isinstance(inner, list | tuple) else [inner]:
        if hasattr(part, "children") or hasattr(part, "figure"):
            found = figure_in(part, name)
            if found is not None:
                return found
    return None


# The server


def test_the_server_answers_its_own_name_alone_and_lets_the_page_ask_nobody_else(
    storage: Path,
) -> None:
    server, url = server_of(storage=storage, given=(), host="127.0.0.1", port=0)
    server.server_close()
    assert url.startswith("http://127.0.0.1:")
    app = app_of(Catalogue(storage)).server
    app.config["TRUSTED_HOSTS"] = ["localhost"]
    client = app.test_client()
    answer = client.get("/", base_url="http://localhost")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert client.get("/", base_url="http://elsewhere.example").status_code == 400


def test_nothing_can_be_written_through_the_server(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(storage, "tiny", make_trial(0))
    client = app_of(Catalogue(storage)).server.test_client()
    for method in ("put", "delete", "patch"):
        for path in ("/", "/_dash-update-component", "/studies/tiny", "/assets/foredraft.js"):
            assert getattr(client, method)(path).status_code in (404, 405)


def test_a_port_that_is_taken_is_one_line(storage: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port is {port}: nothing can listen"):
            server_of(storage=storage, given=(), host="127.0.0.1", port=port)


def test_without_dash_the_verb_says_what_to_install() -> None:
    # In a process of its own: here the dashboard has been imported.
    without = "import sys; sys.modules['dash'] = None; from foredraft.cli import main; "
    command = [sys.executable, "-c", f"{without}main(['dashboard'])"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "pip install 'foredraft[dashboard]'" in ended.stderr.splitlines()[-1]


def test_a_storage_that_is_removed_while_it_is_listed_is_a_sentence(
    storage: Path, make_trial: MakeTrial, write_study: WriteStudy
) -> None:
    write_study(storage, "tiny", make_trial(0))
    catalogue = Catalogue(storage)
    shelves = catalogue.shelves()
    shutil.rmtree(storage / "studies")
    assert "out of reach" in text_of(pages.studies(shelves, storage="runs"))
