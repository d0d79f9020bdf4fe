"""Claims about the running dashboard that only a browser can settle.

It shows the points that the study has, follows it, keeps what the reader has set, and asks nothing
of any other host. One study, one server and one browser serve all of them.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlparse

import pytest

pytest.importorskip("dash", reason="the dashboard is an extra: pip install 'foredraft[dashboard]'")

from foredraft import bank
from foredraft.bank import housekeeping
from foredraft.dashboard.server import server_of
from foredraft.train.journal import Journal

WAIT_S = 60.0
NAME = "<script>"

pytestmark = pytest.mark.browser

DOTS = """
const figure = document.querySelector("#front .js-plotly-plot");
const ring = figure && figure.data.find((trace) => trace.name === "picked");
if (!ring) return null;  // it is drawn empty, before the study is known
const isDots = (trace) => Array.isArray(trace.customdata) && Array.isArray(trace.customdata[0]);
const dots = figure.data.filter(isDots);
return {
  numbers: dots.flatMap((t) => t.customdata.map((c) => Number(c[0]))).sort((a, b) => a - b),
  within: dots.filter((t) => t.name === "within the budget").flatMap((t) => t.customdata).length,
  drawn: figure.querySelectorAll(".scatterlayer .point").length,
  ringed: ring.x,
  range: figure.layout.xaxis.range.map((end) => Math.round(100 * end) / 100),
};
"""


class Page(NamedTuple):
    browser: Any
    url: str
    report: Callable[..., Path]
    make: Callable[[int], Any]
    directory: Path

    def open(self, **query: str) -> None:
        self.browser.get(
            f"{self.url}/?study={NAME}" + "".join(f"&{k}={v}" for k, v in query.items())
        )

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, holds: Callable[[], Any], *, what: str) -> Any:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            found = holds()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {WAIT_S:.0f} s")

    def dots(self) -> dict[str, Any]:
        return self.until(lambda: self.js(DOTS), what="the front is drawn")

    def text(self, name: str) -> str:
        return str(self.js("return document.getElementById(arguments[0])?.innerText ?? ''", name))

    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.js("return window.location.search").removeprefix("?"))

    def click(self, number: int) -> None:
        """A click with the mouse on the trial's dot."""
        place = self.js(
            """
            const figure = document.querySelector("#front .js-plotly-plot");
            figure.scrollIntoView({block: "center"});
            for (const trace of figure.data) {
              const at = (trace.customdata || []).findIndex((c) => Number(c[0]) === arguments[0]);
              if (at < 0 || !Array.isArray(trace.customdata[at])) continue;
              const box = figure.getBoundingClientRect(), layout = figure._fullLayout;
              return [
                box.left + layout._size.l + layout.xaxis.d2p(trace.x[at]),
                box.top + layout._size.t + layout.yaxis.d2p(trace.y[at]),
              ];
            }""",
            number,
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            event = {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
            time.sleep(0.15)

    def slide(self, name: str, place: int) -> None:
        self.js(
            """
            const slider = document.querySelector("#slider-" + arguments[0]);
            const range = slider.matches("input") ? slider : slider.querySelector("input");
            const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
            set.call(range, arguments[1]);
            range.dispatchEvent(new Event("input", {bubbles: true}));
            range.dispatchEvent(new Event("change", {bubbles: true}));""",
            name,
            place,
        )


@pytest.fixture(scope="module")
def page(
    browser: Any,
    tmp_path_factory: pytest.TempPathFactory,
    make_trial: Callable[..., Any],
    write_study: Callable[..., Path],
    keep_example: Callable[..., Any],
) -> Iterator[Page]:
    storage = tmp_path_factory.mktemp("runs")

    def make(number: int) -> Any:
        return make_trial(
            number,
            settings={"scale": 0.5 + 0.1 * (number % 5), "sigma": 0.01 * 1.3 ** (number % 24)},
            draft={"key": f"d-{number % 5}"},
            acceptance_rate=0.4 + 0.02 * number,
            accept_lengths=(0, 5, 3, 2),
            pass_rates=(0.8, 0.7),
            predicted_speedup=1.9 - 0.02 * number,
            mse_ratio=1.0 + 0.001 * number,
            deviation=0.0001 * (number + 1),
        )

    trials = [*map(make, range(24)), make_trial(24, error="<b>no room</b>")]
    directory = write_study(storage, NAME, *trials)
    keep_example(directory, trials[5])
    server, url = server_of(storage=storage, given=(), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    report = functools.partial(write_study, storage, NAME)
    yield Page(browser, url.rstrip("/"), report, make, directory)
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_front_shows_the_points_that_the_study_has_and_a_name_is_text(page: Page) -> None:
    page.open()
    dots = page.dots()
    assert dots["numbers"] == list(range(24))
    assert dots["drawn"] >= 24
    page.until(lambda: NAME in page.text("head"), what="the study's name")
    assert "1 trial failed" in page.text("others")


def test_a_slider_redraws_the_front_and_is_in_the_address(page: Page) -> None:
    page.open()
    before = page.until(lambda: page.dots()["within"], what="trials within the budget")
    page.until(lambda: "at most 1.01" in page.text("label-mse_ratio"), what="the study's own bound")
    page.slide("mse_ratio", 200)
    page.until(lambda: page.dots()["within"] == 24, what="all within the budget")
    assert before == 11
    page.until(lambda: "mse_ratio" in page.query(), what="the bound in the address")
    assert "24 of 24 complete trials within the budget" in page.text("front-sentence")


def test_a_click_opens_the_trial_and_back_and_forward_go_over_it(page: Page) -> None:
    page.open()
    page.dots()
    page.click(5)
    page.until(lambda: page.query().get("trial") == [f"{NAME}:5"], what="the trial's address")
    page.until(lambda: "Trial 5" in page.text("trial"), what="the trial")
    page.until(lambda: len(page.dots()["ringed"]) == 1, what="its ring")
    page.click(7)
    page.until(lambda: "Trial 7" in page.text("trial"), what="another trial")
    page.browser.back()
    page.until(lambda: "Trial 5" in page.text("trial"), what="the first trial, by going back")
    page.browser.forward()
    page.until(lambda: "Trial 7" in page.text("trial"), what="the other, by going forward")


def test_another_window_of_a_trial_is_a_click_away_and_in_the_address(page: Page) -> None:
    page.open(trial=f"{NAME}:5", variate="6")
    title = "return document.querySelector('#trial-forecasts .annotation-text')?.textContent ?? ''"
    page.until(lambda: page.js(title) == "OT, window 1 of 9", what="the first window")
    page.js("[...document.querySelectorAll('#trial .choices button')].at(2).click()")
    page.until(lambda: page.js(title) == "OT, window 6 of 9", what="the third of those kept")
    page.until(lambda: page.query().get("window") == ["2"], what="the window in the address")
    assert page.query()["variate"] == ["6"]
    drawn = "return document.querySelectorAll('#trial-forecasts .scatterlayer .js-line').length"
    assert page.js(drawn) == 3


def test_a_training_is_followed_epoch_by_epoch(page: Page) -> None:
    storage = page.directory.parents[1]
    housekeeping.note("d-9", study=page.directory, settings={"scale": 0.9})
    told = Journal(bank.epochs_file(storage, "d-9"))
    losses = """
        const drawn = document.querySelector("#tab-training .js-plotly-plot");
        return drawn && drawn.data ? drawn.data[0].x.length : 0;"""
    page.open(tab="training")
    page.until(lambda: "Nothing has been trained" in page.text("tab-training"), what="the hint")
    for number in (1, 2):
        told(
            {
                "number": number,
                "stage": "scratch",
                "epoch": number,
                "train_loss": 0.5,
                "validation_loss": 0.6,
            }
        )
        page.until(lambda n=number: page.js(losses) == n, what=f"epoch {number}")
    assert "under way" in page.text("tab-training")


def test_a_link_shows_a_colleague_the_same_view(page: Page) -> None:
    page.open(mse_ratio="1.0055", trial=f"{NAME}:3", axis="mse_ratio")
    page.until(lambda: "Trial 3" in page.text("trial"), what="the trial")
    page.until(lambda: page.dots()["within"] == 6, what="the budget")
    page.until(lambda: "at most 1.0055" in page.text("label-mse_ratio"), what="the slider")
    chosen = page.js("return document.querySelector('.choices .chosen').innerText")
    assert chosen == "accuracy (mse ratio)"


def test_a_trial_that_is_reported_appears_while_zoom_and_selection_stay(page: Page) -> None:
    page.open(trial=f"{NAME}:5")
    page.until(lambda: "Trial 5" in page.text("trial"), what="the trial")
    page.dots()
    zoom = "Plotly.relayout(document.querySelector('#front .js-plotly-plot'),"
    page.js(f"{zoom} {{'xaxis.range': [0.45, 0.55]}})")
    page.report(page.make(25))
    page.until(lambda: 25 in page.dots()["numbers"], what="the new trial")
    dots = page.dots()
    assert dots["range"] == [0.45, 0.55]
    assert dots["ringed"] == [0.5]
    assert "Trial 5" in page.text("trial")


def test_every_tab_draws_its_figures(page: Page) -> None:
    for tab, least in (("why", 4), ("cost", 0)):
        page.open(tab=tab)
        drawn = f"return document.querySelectorAll('#tab-{tab} .js-plotly-plot .main-svg').length"
        page.until(lambda d=drawn, n=least: page.js(d) >= n, what=f"the figures of {tab}")
        page.until(lambda t=tab: len(page.text(f"tab-{t}")) > 40, what=f"the text of {tab}")


def test_it_is_legible_on_a_dark_page(page: Page) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        page.open()
        page.dots()
        paper, ink, axis = page.js(
            """
            const text = document.querySelector("#front .xtick text");
            const body = getComputedStyle(document.body), letters = getComputedStyle(text);
            const seen = [body.backgroundColor, body.color, letters.fill];
            return seen.map((colour) => colour.match(/\\d+/g).map(Number));"""
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert max(paper[:3]) < 60
    assert min(ink[:3]) > 150
    assert min(axis[:3]) > 120


def test_nothing_went_wrong_and_nothing_was_asked_of_another_host(page: Page) -> None:
    page.open(tab="why")
    page.until(lambda: len(page.text("tab-why")) > 40, what="the tab")
    severe = [one["message"] for one in page.browser.get_log("browser") if one["level"] == "SEVERE"]
    assert severe == []
    asked = {
        message["params"]["request"]["url"]
        for one in page.browser.get_log("performance")
        if (message := json.loads(one["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    }
    hosts = {urlparse(url).netloc for url in asked if url.startswith("http")}
    assert hosts == {urlparse(page.url).netloc}
