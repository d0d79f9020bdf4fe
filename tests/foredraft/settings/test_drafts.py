"""Claims about which drafts a study may train: depth and width are searched apart, beside scale.

What is not given follows scale; settings of one effective architecture are one draft. Sizes that
contradict each other, have no effect or cannot be built are refused in one line.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from foredraft import bank
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine, validated
from foredraft.settings.drafts import DRAFT_DIMENSIONS
from foredraft.settings.study import POLICY_DIMENSIONS, Study
from speculation.rules.words import field_names
from timer_xl import TimerXLConfig

HERE = Path("target")
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
SCALE = {"type": "float", "low": 0.5, "high": 0.75, "step": 0.25}
SIGMA = {"type": "float", "low": 0.1, "high": 1.0, "log": True}
DEEP = TimerXLConfig(**{**MODEL, "n_layers": 8})
HALVES = {"type": "float", "low": 0.25, "high": 1.0, "step": 0.25}


def shaped(draft: dict[str, Any] | None = None, **dimensions: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE], **(draft or {})},
        "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": SIGMA, **dimensions},
    }
    return validated(Study, tree, source="tiny.yaml")


def choice(*values: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(values)}


def sizes_of(space: Study) -> list[tuple[int, int]]:
    """Layers and width of every draft that a trial may ask for."""
    models = [training.model for training in space.drafts_of(DEEP, path=HERE)]
    return sorted((model.n_layers, model.d_model) for model in models)  # type: ignore[attr-defined]


HEADS = {"stages": [{"name": "heads", "data": STAGE["data"], "epochs": 1}], "count": 4, "hidden": 8}
KINDS = choice("model", "heads")


def test_a_study_searches_models_and_heads_and_sizes_are_of_models_alone() -> None:
    both = shaped({"heads": HEADS}, kind=KINDS, scale=SCALE)
    assert both.dimensions["scale"].when == {"kind": ["model"]}
    drafts = both.drafts_of(TimerXLConfig(**MODEL), path=HERE)
    assert [draft.model.family for draft in drafts] == ["heads", "timer_xl", "timer_xl"]
    assert drafts[0].model.patches_out == 4
    assert [stage.name for stage in drafts[0].stages] == ["heads"]
    assert [stage.name for stage in drafts[1].stages] == ["scratch"]


def test_a_study_of_heads_alone_needs_no_stages_of_models() -> None:
    only = shaped({"kind": "heads", "heads": HEADS, "stages": []})
    (draft,) = only.drafts_of(TimerXLConfig(**MODEL), path=HERE)
    assert draft.model.family == "heads"
    assert set(only.draft.factors({}).values()) == {None}


@pytest.mark.parametrize(
    ("draft", "dimensions", "said"),
    [
        ({"kind": "heads"}, {}, "draft.heads goes with kind heads"),
        ({"heads": HEADS}, {}, "draft.heads goes with kind heads"),
        ({}, {"kind": KINDS}, "draft.heads goes with kind heads"),
        ({"kind": "heads", "heads": HEADS}, {}, "draft.stages has no effect where every draft is"),
        (
            {"kind": "heads", "heads": HEADS, "stages": []},
            {"scale": SCALE},
            "dimensions.scale has no effect where every draft is heads",
        ),
        ({"heads": HEADS, "stages": []}, {"kind": KINDS}, "draft.stages is missing"),
        (
            {"kind": "heads", "heads": HEADS, "stages": []},
            {"lookahead": {"type": "int", "low": 1, "high": 5}},
            "draft.heads.count is 4 and lookahead goes up to 5: each head proposes one patch; 5",
        ),
        ({"heads": HEADS}, {"kind": choice("model", "tails")}, "dimensions.kind is 'tails'"),
    ],
)
def test_kinds_of_draft_that_contradict_each_other_are_refused(
    draft: dict[str, Any], dimensions: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        shaped(draft, **dimensions)


def test_depth_and_width_are_searched_apart_and_what_is_not_given_follows_scale() -> None:
    assert sizes_of(shaped(depth=HALVES)) == [(2, 24), (4, 24), (6, 24), (8, 24)]
    assert sizes_of(shaped({"scale": 0.5}, depth=HALVES)) == [(n, 16) for n in (2, 4, 6, 8)]
    assert sizes_of(shaped({"scale": 0.5}, width=HALVES)) == [(4, n) for n in (8, 16, 24, 32)]
    assert sizes_of(shaped({"depth": 0.25}, scale=SCALE)) == [(2, 16), (2, 24)]
    assert sizes_of(shaped({"width": 1.0}, scale=SCALE)) == [(4, 32), (6, 32)]
    assert len(sizes_of(shaped(depth=HALVES, width=HALVES))) == 16


def test_two_settings_of_one_effective_architecture_are_one_draft() -> None:
    space = shaped(depth={**HALVES, "step": 0.05}, width=HALVES)
    trainings = [
        space.draft_training(DEEP, settings, path=HERE)
        for settings in (
            {"depth": 0.5, "width": 0.5},
            {"depth": 0.55, "width": 0.5},
            {"depth": None, "width": None, "scale": 0.5},
            {"depth": 0.55, "scale": 0.5},
        )
    ]
    assert trainings == [trainings[0]] * 4
    assert len({bank.key_of(training, machine=Machine()) for training in trainings}) == 1
    assert len(space.drafts_of(DEEP, path=HERE)) == 7 * 4


def test_continua_of_depth_and_width_lead_to_as_many_drafts_as_there_are_architectures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    scaled = TimerXLConfig.scaled
    monkeypatch.setattr(
        TimerXLConfig, "scaled", lambda *given, **named: asked.append(1) or scaled(*given, **named)
    )
    upper = {"type": "float", "low": 0.5, "high": 1.0}
    found = sizes_of(shaped(depth=upper, width=upper))
    layers, widths = ({pair[place] for pair in found} for place in (0, 1))
    assert layers == {4, 5, 6, 7, 8}
    assert set(found) == set(itertools.product(layers, widths))
    assert len(asked) < 1000, "201 depths were multiplied by 201 widths"


def test_a_depth_that_hangs_on_another_dimension_is_counted_beside_its_values_alone() -> None:
    deep = {**HALVES, "when": {"scale": 0.5}}
    assert sizes_of(shaped(scale=SCALE, depth=deep)) == sorted(
        [*((n, 16) for n in (2, 4, 6, 8)), (6, 24)]
    )
    fixed = shaped({"depth": 1.0}, scale=SCALE, depth=deep)
    assert sizes_of(fixed) == [*((n, 16) for n in (2, 4, 6, 8)), (8, 24)]
    both = shaped(scale=SCALE, width=HALVES, depth=deep)
    assert (6, 8) in sizes_of(both), "beside scale 0.75 the layers follow it"


def test_a_choice_of_null_follows_scale() -> None:
    assert sizes_of(shaped(scale=SCALE, depth=choice(None, 1.0))) == [
        *((4, 16), (6, 24)),
        *((8, 16), (8, 24)),
    ]


@pytest.mark.parametrize(
    ("draft", "dimensions", "said"),
    [
        ({"depth": 0.0}, {}, r"draft\.depth is 0\.0: it should be greater than 0"),
        ({"depth": -0.5}, {}, r"draft\.depth is -0\.5: it should be greater than 0"),
        ({"width": 1.5}, {}, r"draft\.width is 1\.5: it should be less than or equal to 1"),
        ({"width": float("inf")}, {}, r"draft\.width is inf: "),
        ({"scale": 1.5}, {}, r"draft\.scale is 1\.5: "),
        ({}, {"depth": {**HALVES, "low": 0.0}}, r"dimensions\.depth is 0\.0: .* greater than 0"),
        ({}, {"width": {**HALVES, "high": 1.25}}, r"dimensions\.width is 1\.25: .* equal to 1"),
        ({}, {"width": choice("half", 1.0)}, r"dimensions\.width is 'half': .* number"),
        ({}, {"depth": choice(True, 0.5)}, r"dimensions\.depth is True: .* number"),
        ({}, {"scale": choice(None, 0.5)}, r"dimensions\.scale is None: .* number"),
        ({}, {"depth": {"type": "int", "low": 1, "high": 4}}, r"dimensions\.depth is 4: "),
        ({}, {"patches_out": choice(1, 2.5)}, r"dimensions\.patches_out is 2\.5: .* integer"),
        ({"depth": 0.5}, {"depth": HALVES}, r"draft\.depth is 0\.5 and .* leave one"),
        (
            {},
            {"scale": SCALE, "depth": HALVES, "width": HALVES},
            r"dimensions\.scale has no effect where both depth and width are given: leave one",
        ),
        ({"depth": 1.0}, {"scale": SCALE, "width": HALVES}, r"dimensions\.scale has no effect"),
        ({"depth": 1.0, "width": 1.0}, {"scale": SCALE}, r"dimensions\.scale has no effect"),
        (
            {"width": 1.0},
            {"scale": SCALE, "depth": {**HALVES, "when": {"scale": [0.5, 0.75]}}},
            r"dimensions\.scale has no effect",
        ),
        (
            {"scale": 0.5, "depth": 1.0},
            {"width": HALVES},
            r"draft\.scale is 0\.5: it has no effect where both",
        ),
    ],
)
def test_sizes_that_contradict_each_other_or_cannot_be_are_refused_in_one_line(
    draft: dict[str, Any], dimensions: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^tiny\.yaml: {said}") as refusal:
        shaped(draft, **dimensions)
    assert "\n" not in str(refusal.value)


def test_scale_beside_depth_and_width_may_be_searched_where_one_of_them_is_conditional() -> None:
    deep = {**HALVES, "when": {"scale": 0.5}}
    assert shaped({"width": 0.5}, scale=SCALE, depth=deep).dimensions["scale"]


@pytest.mark.parametrize(
    ("layers", "draft", "dimensions", "said"),
    [
        (8, {}, {"depth": {**HALVES, "low": 0.05}}, r"dimensions\.depth is 0\.05: .* 0\.063 would"),
        (8, {"depth": 0.05}, {}, r"draft\.depth is 0\.05: "),
        (8, {}, {"width": {**HALVES, "low": 0.01}}, r"dimensions\.width is 0\.01: .* d_model"),
        (8, {"scale": 0.01}, {}, r"draft\.scale is 0\.01: .* d_model"),
        (
            1,
            {},
            {"depth": {**HALVES, "low": 0.5}},
            r"dimensions\.depth has no effect: from 0\.5 to 1\.0 it makes one and the same draft",
        ),
    ],
)
def test_sizes_that_the_target_does_not_have_are_refused_in_one_line(
    layers: int, draft: dict[str, Any], dimensions: dict[str, Any], said: str
) -> None:
    target = TimerXLConfig(**{**MODEL, "n_layers": layers})
    with pytest.raises(ConfigError, match=rf"^{said}") as refusal:
        shaped(draft, **dimensions).check_target(target)
    assert "\n" not in str(refusal.value)


def test_no_rule_has_a_field_that_is_called_as_a_dimension_of_something_else() -> None:
    assert not set(field_names()) & {*DRAFT_DIMENSIONS, *POLICY_DIMENSIONS}


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (
            {
                "kind": "heads",
                "stages": [],
                "heads": {
                    "stages": [{**STAGE, "name": "heads", "policy": {"kind": "deployed"}}],
                    "count": 3,
                },
            },
            r"^draft\.heads\.stages\.0\.policy: context policy is 'deployed': .* sliding, cached",
        ),
        ({"stages": [{**STAGE, "name": "heads"}]}, r"^draft\.stages\.0 \(heads\) trains a model"),
    ],
)
def test_a_stage_that_its_target_has_no_use_for_is_one_line(
    draft: dict[str, Any], said: str
) -> None:
    study = shaped(draft, lookahead={"type": "int", "low": 1, "high": 3})
    with pytest.raises(ConfigError, match=said):
        study.check_target(DEEP)
