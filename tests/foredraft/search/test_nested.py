"""Claims about the nested search: what it decodes, which draft it has made, and when it is done.

What it is told of drafts is made up here; where it is true is `test_enumeration.py`'s claim, and
that a study ends by it `test_search.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foredraft.cluster.allotment import allot
from foredraft.cluster.node_types import NodeType
from foredraft.errors import ConfigError
from foredraft.judge.closed_form import Expected
from foredraft.judge.evaluate import Accuracy
from foredraft.provenance import Origin
from foredraft.search.enumeration import NEARER, Inner, Sketch, Terms
from foredraft.search.nested import TRIES, Asked, Nested, Prospect, key_of
from foredraft.search.trial import Trial
from foredraft.search.workshop import Job
from foredraft.settings.config import Machine, validated
from foredraft.settings.study import Study
from speculation.cost import PassCosts
from timer_xl import TimerXLConfig

TARGET = TimerXLConfig(patch=12, context=48, d_model=64, n_heads=4, d_ff=64, n_layers=2)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
COSTS = PassCosts((1,), (1.0,), ((1.0, 1.1),), ((0.0, 0.1),), (0.0,), (0.0,))
ALLOTTED = allot(Machine(), [NodeType("a node", cpus=1, gpus=0, accelerator=None, most=1)])
GOOD, FAST, POOR = (0.9, 1.5, -0.4), (0.5, 2.5, -0.4), (0.4, 1.2, -0.45)


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": {"patch": 12, "context": 48}, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0, "lookahead": 1},
        "dimensions": {
            "scale": {"type": "float", "low": 0.25, "high": 1.0, "step": 0.25},
            "sigma": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
        },
    }
    return validated(Study, tree | changes, source="tiny")


class Told(Nested):
    """A nested search whose drafts are prepared by whoever tells it."""

    def __init__(self, what: Study, storage: Path, *, at_once: int = 1) -> None:
        job = Job(what, storage, storage / "target", TARGET, ALLOTTED, None, Origin.of([]))
        super().__init__(job, at_once=at_once)
        self.asked: list[Prospect] = []
        self.chosen: list[dict[str, Any]] = []

    def ask(self, *ended: Trial, left: int) -> dict[str, Any] | None:
        """What is next, where what was chosen so far is under way but for some that ended."""
        done = {key_of(self.chosen[n]): trial for n, trial in enumerate(ended)}
        asked = [
            Asked(key_of(one), done.get(key_of(one), Trial(number=n)))
            for n, one in enumerate(self.chosen)
        ]
        found = self.next(asked, left=left)
        if found:
            self.chosen.append(found)
        return found

    def _prepare(self, prospect: Prospect) -> None:
        self.asked.append(prospect)
        prospect.preparing = "somebody is at it"

    def _collect(self) -> None:
        pass

    def tell(
        self, prospect: Prospect, *goals: tuple[float, ...], ratio: float = 0.9, hope: float = 0.0
    ) -> None:
        """What a draft's rules come to, and by how much a nearer one would be accepted more."""
        settings = [{**prospect.settings, "sigma": 0.5 + n} for n in range(len(goals))]
        rules = [self.study.rule(one) for one in settings or [{"sigma": 0.5}]]
        rows = torch.tensor(goals or [POOR], dtype=torch.float64)
        rate_N, mse_N = rows[:, 0], -rows[:, 2]
        expected = [
            Expected(rate_N + hope * (factor < 1), rate_N, rate_N[:, None], mse_N, mse_N, mse_N)
            for factor in NEARER
        ]
        terms = Terms(self.study, self.study.evaluation, Accuracy(0.5, 0.5), 12)
        sketch = Sketch(rules, expected, COSTS, terms)
        points = torch.tensor(goals, dtype=torch.float64).reshape(-1, 3)
        room = torch.full((len(goals), 1), 1.01 - ratio)
        prospect.inner = Inner(settings, points, room, 10_000, sketch)
        prospect.preparing = None


@pytest.fixture
def search(tmp_path: Path) -> Told:
    return Told(study(), tmp_path)


def all_told(search: Told, **goals: Any) -> None:
    for prospect in search.prospects:
        search.tell(prospect, *goals.get(f"at_{prospect.settings['scale']}".replace(".", "_"), []))


def test_before_any_draft_is_known_the_cheapest_is_made_and_nothing_is_tried(search: Told) -> None:
    assert [prospect.settings["scale"] for prospect in search.prospects] == [0.25, 0.5, 0.75, 1.0]
    assert search.ask(left=20) is None
    assert search.ask(left=20) is None
    assert [prospect.settings for prospect in search.asked] == [{"scale": 0.25}]


def test_what_adds_most_is_tried_first_and_what_adds_nothing_never(
    search: Told, make_trial: Callable[..., Trial]
) -> None:
    all_told(search, at_0_25=[POOR, GOOD], at_0_75=[FAST])
    chosen = [search.ask(left=20) for _ in range(3)]
    assert chosen == [{"scale": 0.25, "sigma": 1.5}, {"scale": 0.75, "sigma": 0.5}, None]
    assert not search.exhausted  # while what is under way may come out otherwise
    ended = [
        make_trial(n, acceptance_rate=rate, predicted_speedup=speedup, mse=-mse, mse_ratio=0.9)
        for n, (rate, speedup, mse) in enumerate((GOOD, FAST))
    ]
    assert search.ask(*ended, left=18) is None
    assert search.exhausted
    assert "of 40,000 rules of 4 drafts in closed form none" in search.in_words


def test_what_was_tried_before_is_not_tried_again_however_it_ended(
    search: Told, make_trial: Callable[..., Trial]
) -> None:
    all_told(search, at_0_25=[GOOD])
    tried = Asked(key_of({"sigma": 0.5, "scale": 0.25}), make_trial(0, mse=0.5, mse_ratio=2.0))
    assert search.next([tried], left=19) == {}
    kept = Asked(key_of({"sigma": 3.0, "scale": 1.0}), make_trial(1, mse=0.5, mse_ratio=0.9))
    assert search.next([tried, kept], left=18) is None
    assert search.exhausted


def test_of_what_came_out_worse_than_expected_the_like_are_not_tried_again(
    search: Told, make_trial: Callable[..., Trial]
) -> None:
    almost = (GOOD[0] - 1e-9, GOOD[1] - 1e-9, GOOD[2])
    all_told(search, at_0_25=[GOOD], at_0_5=[almost])
    assert search.ask(left=20) == {"scale": 0.25, "sigma": 0.5}
    worse = make_trial(0, acceptance_rate=0.2, predicted_speedup=0.9, mse=0.5, mse_ratio=0.9)
    assert search.ask(worse, left=19) is None


@pytest.mark.parametrize(
    ("hope", "left", "made"), [(0.0, 20, False), (0.1, 20, True), (0.1, 200, False)]
)
def test_a_draft_is_made_where_it_is_expected_to_add_more_than_the_trials_left_would(
    search: Told, hope: float, left: int, made: bool
) -> None:
    little = (GOOD[0] + 1e-3, GOOD[1], GOOD[2])
    search.tell(search.prospects[0], GOOD, little, hope=hope)
    search.chosen.append({"scale": 0.25, "sigma": 0.5})
    search.expected[key_of(search.chosen[0])] = torch.tensor(GOOD).double()
    chosen = search.ask(left=left)
    assert (chosen, len(search.asked)) == (
        (None, 1) if made else ({"scale": 0.25, "sigma": 1.5}, 0)
    )


def test_where_there_is_room_drafts_are_made_while_settings_are_tried(tmp_path: Path) -> None:
    search = Told(study(), tmp_path, at_once=3)
    search.tell(search.prospects[0], GOOD)
    assert search.ask(left=200) == {"scale": 0.25, "sigma": 0.5}
    assert len(search.asked) == 1


def test_a_draft_that_could_not_be_made_is_a_trial_that_says_why(search: Told) -> None:
    search.prospects[1].failures = TRIES
    assert search.ask(left=20) == {"scale": 0.5}
    assert {"scale": 0.5} not in [prospect.settings for prospect in search.prospects]


def test_where_nothing_keeps_the_budget_all_is_drawn_as_the_sampler_likes(search: Told) -> None:
    all_told(search)
    assert search.ask(left=20) == {}
    assert not search.exhausted


def test_what_is_likely_over_the_budget_is_worth_less(
    search: Told, make_trial: Callable[..., Trial]
) -> None:
    better = (GOOD[0] + 0.01, GOOD[1] + 0.01, GOOD[2])
    all_told(search)
    search.tell(search.prospects[0], better, ratio=1.01)
    search.tell(search.prospects[1], GOOD, ratio=0.9)
    assert search.ask(left=20) == {"scale": 0.25, "sigma": 0.5}
    search.chosen[:] = [{"scale": 1.0, "sigma": 8.0}, {"scale": 1.0, "sigma": 9.0}]
    search.expected.clear()
    told = {"acceptance_rate": 0.0, "speedup": 1.0}
    off = [
        make_trial(n, acceptance_rate=0.01, mse_ratio=2.0, prediction={**told, "mse_ratio": 2.1})
        for n in range(2)
    ]
    assert search.ask(*off, left=20) == {"scale": 0.5, "sigma": 0.5}


@pytest.mark.parametrize("outer", ["tpe", "nsgaii", "random"])
def test_a_sampler_of_optuna_may_pick_the_drafts(tmp_path: Path, outer: str) -> None:
    search = Told(study(outer=outer), tmp_path)
    search.tell(search.prospects[0])
    assert search.ask(left=20) is None
    assert search.asked[0].settings["scale"] in (0.5, 0.75, 1.0)


def test_an_outer_sampler_beside_another_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="outer is 'tpe': it has no effect where sampler is 'gp'"):
        study(outer="tpe", sampler="gp")
