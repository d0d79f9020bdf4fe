"""Claims about the rules that a study may try: they span its space, and can all be drawn there."""

from __future__ import annotations

from typing import Any

import pytest

from foredraft.search import rulebook
from foredraft.settings.study import Study
from speculation import Gaussian, Tolerance

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


@pytest.fixture(scope="module")
def study() -> Study:
    dimensions: dict[str, Any] = {
        "scale": {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25},
        "rule": {"type": "categorical", "choices": ["tolerance", "gaussian", "lossless"]},
        "sigma": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
        "bias": {"type": "float", "low": 1.0, "high": 10.0},
        "mse_tol": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
        "scope": {"type": "categorical", "choices": ["joint", "variate"]},
        "quorum": {"type": "float", "low": 0.5, "high": 1.0, "when": {"scope": "variate"}},
        "lookahead": {"type": "int", "low": 1, "high": 4},
    }
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "dimensions": dimensions,
    }
    return Study.model_validate(tree)


def test_the_rules_reach_all_over_the_space(study: Study) -> None:
    rules = rulebook.spread(study, emits_draft=False)
    assert len(rules) == rulebook.PROBES
    gaussian = [rule for rule in rules if isinstance(rule, Gaussian)]
    tolerance = [rule for rule in rules if isinstance(rule, Tolerance)]
    assert len(gaussian) + len(tolerance) == len(rules)
    assert {rule.scope for rule in gaussian} == {rule.scope for rule in tolerance}
    assert {rule.lookahead for rule in rules} == {1, 2, 3, 4}
    # A logarithmic dimension is as full below its geometric mean as above it.
    below = sum(rule.sigma < 1.0 for rule in gaussian) / len(gaussian)
    assert 0.35 < below < 0.65
    assert min(rule.sigma for rule in gaussian) < 0.15
    assert max(rule.sigma for rule in gaussian) > 7


def test_each_can_be_drawn_in_the_study_and_the_first_looks_ahead_as_far_as_any(
    study: Study,
) -> None:
    rules = rulebook.spread(study, emits_draft=False)
    assert rules[0].lookahead == study.longest_lookahead
    for rule in rules:
        for name in ("sigma", "bias", "mse_tol", "quorum", "lookahead"):
            value = getattr(rule, name, None)
            assert value is None or study.dimensions[name].holds(value)


def test_rules_that_emit_the_drafts_patches_are_kept_apart(study: Study) -> None:
    assert {rule.rule for rule in rulebook.spread(study, emits_draft=True)} == {"lossless"}


def test_the_same_study_has_the_same_rules(study: Study) -> None:
    one, other = (rulebook.spread(study, emits_draft=False) for _ in range(2))
    assert one == other
    again = study.model_copy(update={"seed": 1})
    assert rulebook.spread(again, emits_draft=False) != one
