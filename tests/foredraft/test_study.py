"""Claims about studies before they run: what is refused, and what a trial's settings come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from foredraft.config import ConfigError, validated
from foredraft.search.searcher import draw
from foredraft.study import Study, read_study
from timer_xl import TimerXLConfig

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
HERE = Path("target")
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
SCALE = {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25}
RULE = {"type": "categorical", "choices": ["tolerance", "gaussian"]}
SIGMA = {"type": "float", "low": 0.1, "high": 1.0, "log": True}
TOLERANCE = {"type": "float", "low": 0.1, "high": 1.0}


def study(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"scale": SCALE, "sigma": SIGMA},
    } | changes


def read(**changes: Any) -> Study:
    return validated(Study, study(**changes), source="tiny.yaml")


CONDITIONAL: dict[str, Any] = {
    "acceptance": {"bias": 2.0},
    "dimensions": {"rule": RULE, "mse_tol": TOLERANCE, "sigma": SIGMA},
}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_every_search_space_can_be_read(path: Path) -> None:
    assert read_study(path).name == path.stem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trails": 3}, "did you mean trials"),
        ({"dimensions": {"sigma": {"type": "float", "low": 2.0, "high": 1.0}}}, "is empty"),
        ({"dimensions": {"sigma": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}}, "low"),
        ({"dimensions": {"warp": {"type": "int", "low": 1, "high": 2}}}, "warp does not exist"),
        ({"dimensions": {"bias": {"type": "float", "low": 1.0, "high": 2.0}}}, "bias is fixed"),
        ({"acceptance": {"rule": "tolerance", "mse_tol": 0.1}}, "no effect under rule"),
        ({"dimensions": {"sigma": {"type": "float", "low": 1.0, "high": 1.0}}}, "has no effect"),
        ({"objectives": ["speed"]}, "'speed' does not exist"),
        ({"objectives": ["mse", "mse"]}, "name each once"),
        ({"first": [{"sigma": 5.0}]}, "first.0.sigma is 5.0"),
        ({"first": [{"beta": 5.0}]}, "first.0.beta is no dimension"),
        ({"draft": {"plans": {"a": [STAGE]}}}, "goes with dimensions.stages"),
        ({"draft": {}}, "give stages"),
        (CONDITIONAL, "say `when` it applies"),
        (
            {"dimensions": {"sigma": {**SIGMA, "when": {"scale": 0.5}}, "scale": SCALE}},
            "declared before",
        ),
        (
            {"dimensions": {"scale": SCALE, "sigma": {**SIGMA, "when": {"scale": 0.6}}}},
            "never has that value",
        ),
        (
            {
                "evaluation": {**study()["evaluation"], "policy": {"kind": "cached"}},
                "dimensions": {
                    "context_policy": {"type": "categorical", "choices": ["cached", "sliding"]},
                    "sigma": SIGMA,
                },
            },
            "evaluation.policy is fixed",
        ),
    ],
)
def test_a_study_that_cannot_be_run_is_refused_in_one_line(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        read(**changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": {**study()["evaluation"], "horizon": 12}}, "nothing can speed up"),
        (
            {"dimensions": {"sigma": SIGMA, "lookahead": {"type": "int", "low": 1, "high": 5}}},
            "has room for 4",
        ),
        ({"dimensions": {"sigma": SIGMA, "scale": {**SCALE, "low": 0.05}}}, "scale is 0.05"),
    ],
)
def test_a_study_that_does_not_suit_its_target_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read(**changes).check_target(TimerXLConfig(**MODEL))


def conditional() -> Study:
    when = {"sigma": {"rule": ["gaussian"]}, "bias": {"rule": "gaussian"}}
    bias = {"type": "float", "low": 1.0, "high": 9.0}
    return read(
        acceptance={},
        dimensions={
            "rule": RULE,
            "mse_tol": TOLERANCE,
            "sigma": {**SIGMA, "when": when["sigma"]},
            "bias": {**bias, "when": when["bias"]},
        },
    )


def test_a_dimension_with_a_condition_is_drawn_beside_its_value_and_never_else() -> None:
    space = conditional()
    record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [draw(record.ask(), space.dimensions) for _ in range(20)]
    assert {settings["rule"] for settings in drawn} == {"tolerance", "gaussian"}
    for settings in drawn:
        assert ("sigma" in settings) == (settings["rule"] == "gaussian")
        assert space.rule(settings).rule == settings["rule"]


def test_scales_of_one_effective_architecture_are_one_draft() -> None:
    target = TimerXLConfig(**MODEL)
    near = read(dimensions={"sigma": SIGMA, "scale": {**SCALE, "high": 0.52, "step": 0.01}})
    assert len(near.drafts_of(target, path=HERE)) == 1
    assert len(read().drafts_of(target, path=HERE)) == 2


def test_a_continuum_of_scales_leads_to_as_many_drafts_as_there_are_architectures() -> None:
    target = TimerXLConfig(**MODEL)
    scales = {"type": "float", "low": 0.5, "high": 1.0}
    drafts = read(dimensions={"sigma": SIGMA, "scale": scales}).drafts_of(target, path=HERE)
    sizes = [draft.model.num_parameters for draft in drafts]
    assert len(sizes) == len(set(sizes)) > 3
    assert sizes == sorted(sizes)


def test_plans_are_told_apart_by_the_stages_that_a_trial_names() -> None:
    plans = {"short": [STAGE], "long": [{**STAGE, "epochs": 5}]}
    named = {"type": "categorical", "choices": ["short", "long"]}
    space = read(draft={"plans": plans}, dimensions={"stages": named, "sigma": SIGMA})
    target = TimerXLConfig(**MODEL)
    assert space.draft_training(target, {"stages": "long"}, path=HERE).stages[0].epochs == 5
    assert len(space.drafts_of(target, path=HERE)) == 2
