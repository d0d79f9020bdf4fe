"""Claims about the architecture, and about what derives a draft from a target.

One dial scales it as a whole; depth and width are what it does to the layers and to the rest.
"""

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from speculation import InvalidInput
from timer_xl import TimerXL, TimerXLConfig

TARGETS = {
    "t1": TimerXLConfig(d_model=512, n_heads=8, d_ff=2048, n_layers=1),
    "t4": TimerXLConfig(d_model=512, n_heads=8, d_ff=2048, n_layers=4),
    "t2": TimerXLConfig(d_model=1024, n_heads=16, d_ff=4096, n_layers=8),
}
SCALES = [0.5 + 0.05 * step for step in range(9)]
per_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def built(config: TimerXLConfig) -> TimerXL:
    with torch.device("meta"):
        return TimerXL(config)


@per_target
def test_every_scale_of_the_study_can_be_built(target: TimerXLConfig) -> None:
    for scale in SCALES:
        draft = target.scaled(scale)
        assert draft.head_width % 4 == 0
        assert draft.n_heads * draft.head_width == draft.d_model
        assert draft.num_parameters == sum(p.numel() for p in built(draft).parameters())


@per_target
def test_every_scale_of_the_study_is_a_draft_of_its_own(target: TimerXLConfig) -> None:
    assert len({target.scaled(scale) for scale in SCALES}) == len(SCALES)


@per_target
def test_a_larger_scale_has_more_parameters(target: TimerXLConfig) -> None:
    counts = [target.scaled(scale).num_parameters for scale in [*SCALES, 1.0]]
    assert all(small < large for small, large in itertools.pairwise(counts))


@per_target
def test_a_draft_is_as_wide_as_was_asked_within_fifteen_percent(target: TimerXLConfig) -> None:
    for scale in SCALES:
        draft = target.scaled(scale)
        for name in ("d_model", "d_ff"):
            assert getattr(draft, name) == pytest.approx(scale * getattr(target, name), rel=0.15)
        assert draft.n_layers == pytest.approx(scale * target.n_layers, abs=0.5 + 1e-9)


@pytest.mark.parametrize(
    "target",
    [
        *TARGETS.values(),
        TimerXLConfig(d_model=60, n_heads=5),
        TimerXLConfig(d_model=64, n_heads=16),
        TimerXLConfig(d_model=84, n_heads=3, d_ff=96),
        TimerXLConfig(d_model=960, n_heads=16),  # 15 heads of 64 would be as wide
        TimerXLConfig(d_model=1020, n_heads=17),
    ],
)
def test_scale_one_is_the_target_itself(target: TimerXLConfig) -> None:
    assert target.scaled(1.0) == target


@per_target
def test_depth_alone_leaves_the_width_as_scale_makes_it(target: TimerXLConfig) -> None:
    for scale, depth in itertools.product(SCALES, (0.5, 0.75, 1.0)):
        draft = target.scaled(scale, depth=depth)
        assert replace(draft, n_layers=1) == replace(target.scaled(scale), n_layers=1)
        assert draft.n_layers == pytest.approx(depth * target.n_layers, abs=0.5)


@per_target
def test_width_alone_leaves_the_layers_as_scale_makes_them(target: TimerXLConfig) -> None:
    for scale, width in itertools.product(SCALES, (0.25, 0.5, 1.0)):
        draft = target.scaled(scale, width=width)
        assert draft == replace(target.scaled(width), n_layers=target.scaled(scale).n_layers)
        assert draft.d_model == pytest.approx(width * target.d_model, rel=0.15)


@per_target
def test_one_scale_is_that_depth_and_that_width(target: TimerXLConfig) -> None:
    for scale in [*SCALES, 1.0]:
        for other in (0.1, 1.0):
            assert target.scaled(other, depth=scale, width=scale) == target.scaled(scale)


@pytest.mark.parametrize("name", ["depth", "width"])
@pytest.mark.parametrize("factor", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_depth_or_width_outside_its_range_is_refused_by_name(name: str, factor: float) -> None:
    with pytest.raises(InvalidInput, match=rf"^{name} is {re.escape(str(factor))}: [^\n]+$"):
        TARGETS["t4"].scaled(0.7, **{name: factor})


@pytest.mark.parametrize("layers", [1, 3, 6, 8, 12])
def test_a_depth_that_leaves_no_layer_is_refused_with_one_that_leaves_one(layers: int) -> None:
    target = TimerXLConfig(n_layers=layers)
    with pytest.raises(InvalidInput, match=r"^depth is 0\.01: [^\n]+$") as refusal:
        target.scaled(0.7, depth=0.01)
    suggested = re.search(r"a depth of at least ([0-9.]+) would do", str(refusal.value))
    assert suggested
    assert target.scaled(0.7, depth=float(suggested[1])).n_layers == 1


def test_a_width_too_small_to_build_is_refused_with_one_that_can_be_built() -> None:
    target = TimerXLConfig(d_model=64)
    with pytest.raises(InvalidInput, match=r"^width is 0\.01: [^\n]+$") as refusal:
        target.scaled(0.7, width=0.01)
    suggested = re.search(r"a width of ([0-9.]+) would do", str(refusal.value))
    assert suggested
    assert target.scaled(0.7, width=float(suggested[1])).d_model == 4


def test_scaling_keeps_what_the_pair_must_share() -> None:
    target = TimerXLConfig(patch=24, context=96, activation="gelu", dropout=0.3)
    draft = target.scaled(0.6, patches_out=4, variance=True)
    for name in ("patch", "context", "activation", "dropout", "positions"):
        assert getattr(draft, name) == getattr(target, name)
    assert (draft.patches_out, draft.variance) == (4, True)


def test_a_draft_does_not_inherit_the_heads_of_its_target() -> None:
    draft = TimerXLConfig(variance=True, patches_out=2).scaled(0.5)
    assert (draft.patches_out, draft.variance) == (1, False)


@pytest.mark.parametrize(
    "changes",
    [{}, {"variance": True}, {"patches_out": 3}, {"patches_out": 2, "variance": True}],
    ids=["plain", "variance", "one_pass", "both"],
)
def test_the_parameter_count_is_that_of_the_built_model(changes: dict[str, Any]) -> None:
    config = TimerXLConfig(
        patch=12, context=48, d_model=48, n_heads=3, d_ff=56, n_layers=3, **changes
    )
    assert config.num_parameters == sum(p.numel() for p in built(config).parameters())


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_scale_outside_its_range_is_refused_by_name(scale: float) -> None:
    with pytest.raises(ValueError, match=rf"^scale is {re.escape(str(scale))}: [^\n]+$"):
        TARGETS["t1"].scaled(scale)


@pytest.mark.parametrize("d_model", [64, 512, 1024])
@pytest.mark.parametrize("scale", [0.001, 0.002])
def test_a_scale_too_small_to_build_is_refused_in_one_line(d_model: int, scale: float) -> None:
    with pytest.raises(ValueError, match=rf"^scale is {scale}: [^\n]+$"):
        TimerXLConfig(d_model=d_model).scaled(scale)


def test_a_hundredth_of_64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^scale is 0\.01: [^\n]+$"):
        TimerXLConfig(d_model=64).scaled(0.01)


@pytest.mark.parametrize(
    ("d_model", "scale"), [(64, 0.01), (512, 0.001), (512, 0.01), (1024, 0.001)]
)
def test_the_scale_that_a_refusal_suggests_can_be_built(d_model: int, scale: float) -> None:
    target = TimerXLConfig(d_model=d_model)
    with pytest.raises(ValueError, match="scale is") as refusal:
        target.scaled(scale)
    suggested = re.search(r"a scale of ([0-9.e-]+) would do", str(refusal.value))
    assert suggested
    assert target.scaled(float(suggested[1])).d_model >= 4


def test_a_patch_that_does_not_divide_the_context_is_refused_with_one_that_would_do() -> None:
    with pytest.raises(ValueError, match=r"patch is 96.* context 700") as refusal:
        TimerXLConfig(patch=96, context=700)
    suggested = re.search(r"context of (\d+) would do", str(refusal.value))
    assert suggested
    assert TimerXLConfig(patch=96, context=int(suggested[1])).context_patches == 7


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("patch", {"patch": 0}),
        ("context", {"context": -96}),
        ("d_model", {"d_model": 0}),
        ("d_model", {"d_model": 24, "n_heads": 4}),
        ("d_model", {"d_model": 100, "n_heads": 3}),
        ("n_heads", {"n_heads": 0}),
        ("d_ff", {"d_ff": 0}),
        ("n_layers", {"n_layers": 0}),
        ("patches_out", {"patches_out": 0}),
        ("dropout", {"dropout": 1.0}),
        ("dropout", {"dropout": -0.1}),
        ("activation", {"activation": "tanh"}),
        ("positions", {"positions": "absolute"}),
    ],
)
def test_an_impossible_architecture_is_refused_by_field(
    field: str, changes: dict[str, Any]
) -> None:
    (value,) = list(changes.values())[:1]
    with pytest.raises(ValueError, match=rf"{field} is '?{value}'?"):
        TimerXLConfig(**changes)
