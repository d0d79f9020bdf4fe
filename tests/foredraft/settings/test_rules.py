"""Claims about rules in configurations: they are told apart by `rule`, and a new one is one class.

Whatever is written of a rule is read as that rule; a field that it cannot hold is named by its
place; a rule that is defined here decodes, is foretold in closed form and can be searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import optuna
import pytest
import torch
from torch import Tensor

from foredraft.errors import ConfigError
from foredraft.judge import closed_form, courses, evaluate
from foredraft.search.searcher import draw
from foredraft.settings.config import Evaluation, Settings, validated
from foredraft.settings.rules import Rule, rule_of
from foredraft.settings.study import Study
from speculation import Acceptance, ContextPolicy, Gaussian, Lossless, Tolerance
from speculation.rules import RULES
from speculation.rules.acceptance import Needs, Round
from speculation.rules.fields import Range
from timer_xl import Engine, TimerXL

EXAMPLES = [
    Tolerance(mse_tol=0.3, scope="variate", quorum=0.5),
    Gaussian(sigma=0.4, bias=2.0, propose="sample", emit="draft"),
    Lossless(sigma=0.8, lookahead=2, adapt=True),
]
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}


class Part(Settings):
    acceptance: Rule = Tolerance(mse_tol=0.01)


@pytest.mark.parametrize("rule", EXAMPLES, ids=lambda rule: rule.rule)
def test_a_rule_in_a_configuration_comes_back_from_its_json(rule: Acceptance) -> None:
    written = Part(acceptance=rule).model_dump(mode="json")
    assert ("sigma" in written["acceptance"]) == (rule.rule != "tolerance")
    assert validated(Part, written, source="part.json").acceptance == rule
    assert Part.model_validate_json(Part(acceptance=rule).model_dump_json()).acceptance == rule


@pytest.mark.parametrize(
    ("acceptance", "said"),
    [
        ({"rule": "strict"}, "acceptance.rule is 'strict': one of tolerance"),
        ({"mse_tol": 0.1, "lookahead": 2.5}, "acceptance.lookahead is 2.5: it must be a whole"),
        ({"mse_tol": 0.1, "adapt": "False"}, "acceptance.adapt is 'False': it must be true or"),
        ({"mse_tol": 0.1, "sigma": 1.0}, "acceptance.sigma is 1.0: it has no effect under rule"),
        ({"rule": "gaussian", "sigma": 1.0}, "acceptance.bias is missing: rule 'gaussian' needs"),
        ({"mse_toll": 0.1}, "acceptance.mse_toll is not known; did you mean mse_tol?"),
        ("tolerance", "acceptance is 'tolerance': it should be the fields of an acceptance rule"),
    ],
)
def test_a_field_that_a_rule_cannot_hold_is_named_by_its_place(acceptance: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validated(Part, {"acceptance": acceptance}, source="part.json")
    assert str(refusal.value).startswith(f"part.json: {said}")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def soft() -> Iterator[type[Acceptance]]:
    """A rule of its own: the farther from the target's mean, the seldomer it accepts."""

    @dataclass(frozen=True, kw_only=True)
    class Soft(Acceptance):
        rule: Literal["soft"] = "soft"
        slope: Annotated[float, Range(above=0)]

        @property
        def needs(self) -> Needs:
            return "means"

        @property
        def emits_draft(self) -> bool:
            return False

        def accepts(self, of: Round) -> Tensor:
            mse_BK = ((of.proposal_BKCP - of.verified.mean) / of.unit_BKC1).square().mean((2, 3))
            return torch.rand(mse_BK.shape, generator=of.generator) < self.chance(mse_BK)

        def emits(self, of: Round, alike_BK: Tensor, kept_BK: Tensor) -> Tensor:
            return of.target.mean

        def chance(self, mse: Tensor, *, dimensions: int = 1) -> Tensor:
            return torch.exp(-mse / self.slope)

    yield Soft
    del RULES["soft"]


def test_a_new_rule_decodes_and_its_closed_form_tells_what_is_counted(
    soft: type[Acceptance], make_model: Callable[..., TimerXL], make_near: Callable[..., TimerXL]
) -> None:
    model = make_model(n_layers=1)
    target, draft = Engine(model), Engine(make_near(model, amount=0.02))
    torch.manual_seed(0)
    series_WTC = torch.randn(24, 32 + 48, 3).cumsum(1)
    windows = evaluate.EvaluationWindows(series_WTC[:, :32], series_WTC[:, 32:])
    evaluation = Evaluation(data="none", horizon=48, policy=ContextPolicy("cached"))
    alone_WHC = evaluate.forecast_alone(target, windows, evaluation=evaluation)
    near = {"rule": "soft", "slope": 0.01, "lookahead": 3}
    known = courses.grow(
        target,
        draft,
        windows,
        alone_WHC,
        probes=[rule_of(near, source="here")],
        evaluation=evaluation,
    )
    typical = float(known.distance_RKC[known.distance_RKC.isfinite()].median())
    counted, expected = [], []
    for factor in (1e-6, 1.0, 1e6):
        fields = {"rule": "soft", "slope": factor * typical, "lookahead": 3}
        rule = rule_of(fields, source="here")
        assert isinstance(rule, soft)
        row = evaluate.judge_pair(
            target, draft, rule, windows, evaluation=evaluation, alone_WHC=alone_WHC
        )
        counted.append(row.acceptance_rate)
        expected.append(float(closed_form.expect(known, [rule], steps=8).acceptance_rate_Q))
    assert counted[0] == 0 == pytest.approx(expected[0], abs=1e-6)
    assert 0.1 < counted[1] < 0.9
    assert expected[1] == pytest.approx(counted[1], abs=0.08)
    assert counted[2] == 1 == pytest.approx(expected[2], abs=1e-4)


@pytest.mark.usefixtures("soft")
def test_a_new_rule_is_searched_beside_the_others_by_its_own_fields() -> None:
    number = {"type": "float", "low": 0.1, "high": 1.0}
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60, "windows": 8},
        "dimensions": {
            "rule": {"type": "categorical", "choices": ["tolerance", "soft"]},
            "mse_tol": number,
            "slope": number,
        },
    }
    study = validated(Study, tree, source="tiny.yaml")
    record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [draw(record.ask(), study.dimensions) for _ in range(20)]
    assert {tuple(settings) for settings in drawn} == {("rule", "mse_tol"), ("rule", "slope")}
    assert {study.rule(settings).rule for settings in drawn} == {"tolerance", "soft"}
    tree["dimensions"]["slope"] = {**number, "low": -0.1}  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"dimensions\.slope is -0\.1: .* above 0"):
        validated(Study, tree, source="tiny.yaml")
