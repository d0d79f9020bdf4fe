"""Claims about all rules of a draft: thousands, each as the closed form has it, and none decoded.

What is kept is their front within the budget; looking closer round it finds a better one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foredraft.judge import closed_form, courses, evaluate
from foredraft.search import enumeration, rulebook
from foredraft.search.enumeration import Inner, Terms, enumerate_rules
from foredraft.search.judging import Prepared
from foredraft.settings.study import Study
from speculation.cost import PassCosts
from timer_xl import Engine, TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=16, n_layers=2)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
COSTS = PassCosts(
    batches=(1,),
    step_s=(1.0,),
    verify_s=((1.0, 1.1, 1.2, 1.3),),
    draft_s=((0.0, 0.1, 0.2, 0.3),),
    step_anchor_s=(0.0,),
    round_anchor_s=(0.0,),
)
DIMENSIONS = {
    "scale": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
    "rule": {"type": "categorical", "choices": ["tolerance", "gaussian"]},
    "emit": {"type": "categorical", "choices": ["target", "draft"], "when": {"rule": "tolerance"}},
    "sigma": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
    "bias": {"type": "float", "low": 1.0, "high": 4.0},
    "mse_tol": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
    "lookahead": {"type": "int", "low": 1, "high": 3},
}


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": {"patch": 8, "context": 32}, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 40},
        "dimensions": DIMENSIONS,
    }
    return Study.model_validate(tree | changes)


def engine(*, noise: float = 0.0) -> Engine:
    torch.manual_seed(1)
    model = TimerXL(CONFIG).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    return Engine(model)


def beaten_by(inner: Inner) -> Callable[[Tensor], bool]:
    goals_ND = inner.goals_ND

    def is_beaten(goals_D: Tensor) -> bool:
        return bool(((goals_ND >= goals_D).all(1) & (goals_ND > goals_D + 1e-6).any(1)).any())

    return is_beaten


class Tiny:
    """A pair on some windows, prepared as a study does it."""

    def __init__(self, what: Study) -> None:
        torch.manual_seed(0)
        self.study, self.evaluation = what, what.evaluation
        series = torch.randn(8, 32 + 40, 2).cumsum(1)
        windows = evaluate.EvaluationWindows(series[:, :32], series[:, 32:], None)
        target, draft = engine(), engine(noise=0.03)
        alone_WHC = evaluate.forecast_alone(target, windows, evaluation=self.evaluation)
        self.reference = windows.errors_of(alone_WHC)
        self.prepared = {
            emits: Prepared(
                costs=COSTS,
                courses=courses.grow(
                    target,
                    draft,
                    windows,
                    alone_WHC,
                    probes=rulebook.spread(what, emits_draft=emits),
                    evaluation=self.evaluation,
                ),
                accuracy=self.reference,
                deviation=0.0,
                speedup_alone=1.0,
            )
            for emits in rulebook.emissions(what)
        }

    def inner(self, **settings: Any) -> Inner:
        terms = Terms(self.study, self.evaluation, self.reference, 8)
        return enumerate_rules(terms, settings, self.prepared)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny(study(budget=1.05))


@pytest.fixture(scope="module")
def inner(tiny: Tiny) -> Inner:
    return tiny.inner(scale=0.5)


def test_ten_thousand_rules_of_one_draft_are_looked_at_whatever_they_emit(
    tiny: Tiny, inner: Inner
) -> None:
    assert rulebook.emissions(tiny.study) == [False, True]
    assert inner.rules > 10_000
    assert all(one["scale"] == 0.5 for one in inner.settings)
    assert len({repr(one) for one in inner.settings}) == len(inner.settings)


def test_each_is_expected_to_come_to_what_the_closed_form_tells(tiny: Tiny, inner: Inner) -> None:
    assert len(inner.settings) > 20
    for settings, goals_D in zip(inner.settings[:40], inner.goals_ND[:40], strict=True):
        rule = tiny.study.rule(settings)
        known = tiny.prepared[rule.emits_draft].courses
        told = closed_form.expect(known, [rule], steps=8)
        assert float(goals_D[0]) == pytest.approx(float(told.acceptance_rate_Q), abs=1e-6)
        assert -float(goals_D[2]) == pytest.approx(float(told.mse_Q), rel=1e-6)
        row = evaluate.PairRow(0, 0, [], told.pass_rates_QK[0].tolist(), 0, 0, 0, 0)
        speedup = evaluate.predict(row, COSTS, rule=rule, evaluation=tiny.evaluation, patch=8)
        assert float(goals_D[1]) == pytest.approx(speedup, rel=1e-6)


def test_nothing_that_is_kept_is_beaten_or_over_the_budget(tiny: Tiny, inner: Inner) -> None:
    assert float(inner.room_NB.min()) >= 0
    assert not any(map(beaten_by(inner), inner.goals_ND))
    none = Tiny(study(budget=1e-6)).inner(scale=0.5)
    assert none.settings == []
    assert none.sketch.rules


def test_looking_closer_round_the_front_finds_a_better_one(
    tiny: Tiny, inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enumeration, "STEPS", ())
    evenly = tiny.inner(scale=0.5)
    assert evenly.rules < inner.rules
    assert sum(map(beaten_by(evenly), inner.goals_ND)) == 0
    assert len(inner.settings) > 2 * len(evenly.settings) > 0


def test_a_nearer_draft_is_expected_to_be_accepted_more_and_a_cheaper_one_to_be_faster(
    inner: Inner,
) -> None:
    own, nearer = inner.sketch.goals(), inner.sketch.goals(nearer=0.5)
    assert float(nearer[:, 0].mean()) > float(own[:, 0].mean())
    cheaper = inner.sketch.of_another(draft_cost=0.5, opens_alone=False)
    assert (cheaper.goals()[:, 1] > own[:, 1]).all()
    heads = inner.sketch.of_another(draft_cost=1.0, opens_alone=True)
    assert (heads.goals()[:, 1] < own[:, 1]).all()


def test_where_no_objective_goes_the_way_of_a_bound_some_rules_keep_well_within_it() -> None:
    objectives = ["acceptance_rate", "predicted_speedup"]
    inner = Tiny(study(budget=1.05, objectives=objectives)).inner(scale=0.5)
    fastest = inner.goals_ND[:, 1].argmax()
    assert float(inner.room_NB.max()) > float(inner.room_NB[fastest]) + 1e-4
