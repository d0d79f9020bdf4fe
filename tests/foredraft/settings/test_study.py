"""Claims about studies before they run: how they are read, what is refused, what settings become.

A file may lie where the command runs or beside the study; a mistake in it is told in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from foredraft import bank
from foredraft.errors import ConfigError
from foredraft.search.searcher import draw
from foredraft.settings.config import Machine, validated
from foredraft.settings.dimensions import ChoiceDimension, Searched, combinations
from foredraft.settings.study import Study, read_study
from speculation import Gaussian
from timer_xl import TimerXLConfig

SPACES = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
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


FIXED_FOR_ONE_RULE: dict[str, Any] = {
    "acceptance": {"bias": 2.0},
    "dimensions": {"rule": RULE, "mse_tol": TOLERANCE, "sigma": SIGMA},
}


def test_there_are_search_spaces() -> None:
    """The claims about all of them would hold of none."""
    assert {"demo", "smoke"} < {path.stem for path in SPACES}


@pytest.mark.parametrize("asked", ["smoke", "smoke.yaml", "search_spaces/smoke.yaml"])
def test_a_search_space_goes_by_its_name_where_there_is_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_study(Path(asked)).name == "smoke"
    mine = tmp_path / asked
    mine.parent.mkdir(exist_ok=True)
    mine.write_text(yaml.safe_dump(study(name="mine")))
    assert read_study(Path(asked)).name == "mine"


@pytest.mark.parametrize("asked", ["smok", "mine/smoke.yaml", "/smoke.yaml", "smoke.yml"])
def test_a_study_that_is_nowhere_is_told_with_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^{asked} does not exist: .* demo, .* smoke, zero"):
        read_study(Path(asked))


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
        (FIXED_FOR_ONE_RULE, "acceptance.bias is 2.0: it has no effect under rule 'tolerance'"),
        ({"seed": -1}, "seed is -1"),
        ({"draft": {"stages": [STAGE], "seed": 1.5}}, "draft.seed is 1.5"),
        ({"dimensions": {"sigma": {**SIGMA, "when": {"rule": "gaussian"}}}}, "name a dimension"),
        (
            {
                "dimensions": {
                    "sigma": {**SIGMA, "when": {"scale": 0.5}},
                    "scale": {**SCALE, "when": {"sigma": 0.5}},
                }
            },
            "waits for itself",
        ),
        ({"acceptance": {"rule": "gaussian", "bias": "1e3"}}, "acceptance.bias is '1e3'"),
        ({"acceptance": {"rule": "gaussian", "bias": 2.0, "lookahead": 2.5}}, "lookahead is 2.5"),
        ({"acceptance": {"rule": "gaussian", "bias": 2.0, "adapt": "False"}}, "adapt is 'False'"),
        ({"acceptance": {"rule": "gaussian", "bias": 2.0, "lookahed": 2}}, "mean lookahead"),
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


def choice(*values: Any, **more: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(values), **more}


@pytest.mark.parametrize(
    ("dimensions", "fixed", "said"),
    [
        ({"sigma": {"type": "float", "low": 0.0, "high": 1.0}}, {}, "sigma is 0.0: .* above 0"),
        ({"bias": {"type": "float", "low": -1.0, "high": 1.0}}, {}, "bias is -1.0: .* above 0"),
        ({"lookahead": {"type": "int", "low": 0, "high": 4}}, {}, "lookahead is 0: .* at least 1"),
        ({"lookahead": {"type": "float", "low": 1, "high": 4}}, {}, "lookahead is 1.0: .* whole"),
        ({"adapt": choice("False", True)}, {}, "adapt is 'False': it must be true or false"),
        ({"forced": choice(None, 1.5)}, {}, "forced is 1.5: .* at most 1"),
        ({"rule": choice("tolerance", "strict")}, {}, "rule is 'strict': one of tolerance, gauss"),
        ({"mse_tol": TOLERANCE, "propose": choice("mean", "sample")}, {}, "emit is 'target'"),
        ({"propose": choice("mean", "sample"), "emit": choice("draft", "target")}, {}, "emit is"),
        ({"scope": choice("joint", "variate")}, {}, "quorum is None: it goes with scope"),
        ({"scope": choice("joint", "variate")}, {"quorum": 0.5}, "quorum is 0.5: it goes with"),
        (
            {
                "scope": choice("joint", "variate"),
                "quorum": {"type": "float", "low": 0.5, "high": 1.0},
            },
            {},
            "quorum is 0.5: it goes with scope 'variate'",
        ),
        (
            {"scale": SCALE, "sigma": {**SIGMA, "when": {"scale": 0.5}}},
            {},
            "sigma is missing: rule 'gaussian' needs it",
        ),
        (
            {"rule": RULE, "mse_tol": TOLERANCE, "bias": {**SIGMA, "when": {"rule": "tolerance"}}},
            {},
            "bias is 0.1: it has no effect under rule 'tolerance'",
        ),
        (
            {"rule": choice("tolerance", "lossless"), "mse_tol": TOLERANCE, "bias": SIGMA},
            {},
            "bias is 0.1: it has no effect under rule 'tolerance'",
        ),
        (
            {
                "rule": choice("gaussian", "lossless"),
                "bias": SIGMA,
                "propose": choice("mean", when={"rule": "lossless"}),
            },
            {},
            "propose is 'mean': under rule 'lossless' it is always 'sample'",
        ),
    ],
)
def test_whatever_a_dimension_may_draw_is_held_against_the_rules_own_fields(
    dimensions: dict[str, Any], fixed: dict[str, Any], said: str
) -> None:
    given = {"rule": "gaussian", "sigma": 0.5, "bias": 2.0, **fixed}
    acceptance = {name: value for name, value in given.items() if name not in dimensions}
    if "rule" in dimensions:
        acceptance.pop("bias", None)
        dimensions = {"sigma": SIGMA, **dimensions}
        acceptance.pop("sigma", None)
    with pytest.raises(ConfigError, match=rf"^tiny.yaml: (dimensions|acceptance)\.{said}") as it:
        read(acceptance=acceptance, dimensions=dimensions)
    assert "\n" not in str(it.value)


def test_a_chain_of_conditions_is_walked_and_not_multiplied_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, active = [], Searched.is_active
    monkeypatch.setattr(
        Searched, "is_active", lambda self, settings: asked.append(1) or active(self, settings)
    )
    names = [f"d{i}" for i in range(13)]
    chain = {
        name: ChoiceDimension(type="categorical", choices=[0, 1, 2], when=when)
        for name, when in zip(names, [{}, *({n: [0, 1]} for n in names)], strict=False)
    }
    drawn = list(combinations(chain, lambda _, dimension: dimension.ends, only=(names[-1],)))
    assert drawn == [{names[-1]: 0}, {names[-1]: 1}, {names[-1]: 2}, {}]
    assert len(asked) < 10 * len(names)


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


def by_rule(**when: Any) -> Study:
    bias = {"type": "float", "low": 1.0, "high": 9.0}
    return read(
        acceptance={},
        dimensions={
            "rule": RULE,
            "mse_tol": TOLERANCE,
            "sigma": {**SIGMA, **when},
            "bias": {**bias, **when},
        },
    )


def test_a_rules_own_dimension_is_drawn_beside_the_rules_that_have_it_and_never_else() -> None:
    space = by_rule()
    record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [draw(record.ask(), space.dimensions) for _ in range(20)]
    assert {settings["rule"] for settings in drawn} == {"tolerance", "gaussian"}
    for settings in drawn:
        assert ("sigma" in settings) == (settings["rule"] == "gaussian")
        assert space.rule(settings).rule == settings["rule"]


def test_a_condition_that_says_what_the_rules_say_themselves_changes_nothing() -> None:
    assert by_rule() == by_rule(when={"rule": "gaussian"}) == by_rule(when={"rule": ["gaussian"]})
    assert by_rule().dimensions["mse_tol"].when == {}


def test_a_study_that_still_writes_what_a_rule_always_does_searches_the_same() -> None:
    written = {
        "propose": choice("sample", when={"rule": "lossless"}),
        "emit": choice("draft", when={"rule": "lossless"}),
    }
    shorter: dict[str, Any] = {"rule": choice("tolerance", "lossless"), "mse_tol": TOLERANCE}
    shorter |= {"sigma": SIGMA, "lookahead": {"type": "int", "low": 1, "high": 4}}
    rules = []
    for dimensions in (shorter, {**shorter, **written}):
        space = read(acceptance={}, dimensions=dimensions)
        record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        rules.append([space.rule(draw(record.ask(), space.dimensions)) for _ in range(20)])
    assert rules[0] == rules[1]
    assert {rule.rule for rule in rules[0]} == {"tolerance", "lossless"}


def test_a_rules_own_dimension_may_be_searched_beside_fewer_rules_than_have_it() -> None:
    tolerance = {**TOLERANCE, "when": {"rule": "tolerance"}}
    dimensions = {"rule": RULE, "mse_tol": tolerance, "sigma": SIGMA, "bias": SIGMA}
    space = read(acceptance={}, dimensions=dimensions)
    assert space.rule({"rule": "gaussian", "sigma": 1.0, "bias": 1.0}) == Gaussian(
        sigma=1.0, bias=1.0
    )


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


def test_plans_cannot_depend_on_another_dimension() -> None:
    """Every draft has to be trained somehow."""
    stages = {"type": "categorical", "choices": ["p", "q"], "when": {"scale": 0.5}}
    with pytest.raises(ConfigError, match=r"stages\.when has no use"):
        read(
            draft={"plans": {"p": [STAGE], "q": [STAGE]}},
            dimensions={"scale": SCALE, "sigma": SIGMA, "stages": stages},
        )


@pytest.mark.parametrize("parent", ["stages", "rule"])
def test_drafts_that_no_trial_can_ask_for_are_not_counted(parent: str) -> None:
    values = {"stages": "long", "rule": "gaussian"}
    patches = {"type": "categorical", "choices": [1, 2, 4], "when": {parent: values[parent]}}
    plans = {"short": [STAGE], "long": [{**STAGE, "epochs": 5}]}
    sigma, bias = SIGMA, {"type": "float", "low": 1.0, "high": 9.0}
    space = read(
        acceptance={},
        draft={"plans": plans},
        dimensions={
            "patches_out": patches,
            "stages": {"type": "categorical", "choices": ["short", "long"]},
            "rule": RULE,
            "mse_tol": TOLERANCE,
            "sigma": {**sigma, "when": {"rule": "gaussian"}},
            "bias": {**bias, "when": {"rule": "gaussian"}},
        },
    )
    count = {"stages": 1 + 3, "rule": 2 * 3}
    assert len(space.drafts_of(TimerXLConfig(**MODEL), path=HERE)) == count[parent]


def test_sorting_the_keys_of_a_study_changes_nothing_that_can_be_drawn(tmp_path: Path) -> None:
    for path in SPACES:
        space = read_study(path)
        (tmp_path / path.name).write_text(yaml.safe_dump(space.model_dump(mode="json")))
        sorted_space = read_study(tmp_path / path.name)
        assert sorted_space == space
        record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(10):
            sorted_space.rule(draw(record.ask(), sorted_space.dimensions))


def test_numbers_that_yaml_reads_as_words_are_numbers(tmp_path: Path) -> None:
    text = yaml.safe_dump(study(acceptance={"rule": "tolerance"}, dimensions={"scale": SCALE}))
    (tmp_path / "tiny.yaml").write_text(text.replace("rule: tolerance", "mse_tol: 1e-3"))
    assert read_study(tmp_path / "tiny.yaml").acceptance == {"mse_tol": 0.001}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: a\ntrials: 3\nname: b\n", "name is given twice, in line 1 and again in line 3"),
        (b"draft:\n  seed: 1\n  seed: 1\n", "seed is given twice, in line 2 and again in line 3"),
        ("name: a\n# Etüde\n".encode("latin-1"), "not UTF-8: byte 0xfc in line 2"),
        (b"name: a\ndraft:\n\tseed: 1\n", "line 3; indent with spaces"),
        (b"", "is empty: a study has at least a name; write it anew"),
        (b"name: a\ndraft: {seed: 1, sta", "is not YAML: .* line 2"),
        (b"- name\n", "holds a list, no mapping"),
        (b"name: a\x07\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line_that_names_the_place(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "spoilt.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refusal:
        read_study(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_mapping_may_override_what_it_merges(tmp_path: Path) -> None:
    text = yaml.safe_dump(study(draft={"stages": ["HERE"]}))
    merged = f"{{<<: &b {{name: scratch, data: {STAGE['data']}, epochs: 2}}, epochs: 3}}"
    (tmp_path / "tiny.yaml").write_text(text.replace("HERE", merged))
    assert read_study(tmp_path / "tiny.yaml").draft.stages[0].epochs == 3


def series(path: Path) -> Path:
    time = pd.date_range("2024-01-01", periods=400, freq="h")
    frame = pd.DataFrame({"date": time, "a": range(400), "b": [5.0, 7.0] * 200})
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def test_files_are_looked_for_where_the_command_runs_and_then_beside_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    mine, beside, both = here / "mine.csv", there / "beside.csv", "both.csv"
    for path in (mine, beside, here / both, there / both):
        series(path)
    names = {"mine.csv": 1.0, "beside.csv": 2.0, "ETTh1": 3.0, STAGE["data"]: 4.0}
    stage = {**STAGE, "data": names, "judge": "beside.csv"}
    tree = study(
        target={"model": MODEL, "stages": [{**STAGE, "data": "beside.csv"}]},
        draft={"plans": {"p": [stage], "q": [{**STAGE, "data": both}]}},
        dimensions={"stages": {"type": "categorical", "choices": ["p", "q"]}, "sigma": SIGMA},
        evaluation={"data": "mine.csv", "horizon": 60},
    )
    (there / "tiny.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(here)
    found = read_study(Path("../there/tiny.yaml").resolve())
    places = [str(mine), str(beside), "ETTh1", STAGE["data"]]
    assert found.draft.plans["p"][0].data == dict(zip(places, [1.0, 2.0, 3.0, 4.0], strict=True))
    assert found.draft.plans["p"][0].judge == str(beside)
    assert found.draft.plans["q"][0].data == str(here / both)
    assert found.evaluation.data == str(mine)
    assert found.target.stages[0].data == str(beside)  # type: ignore[union-attr]
    monkeypatch.chdir("/")
    assert found.located(Path.cwd()) == found


def test_a_folder_of_parts_is_looked_for_as_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "my.csv")
    (tmp_path / "parts").mkdir()
    pd.read_csv(tmp_path / "my.csv").to_parquet(tmp_path / "parts" / "0.parquet")
    tree = study(evaluation={"data": "parts", "horizon": 24})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir("/")
    assert read_study(tmp_path / "tiny.yaml").evaluation.data == str(tmp_path / "parts")


def test_a_target_may_be_named_by_a_relative_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "runs" / "targets" / "0f"
    directory.mkdir(parents=True)
    (directory / "COMPLETE").touch()
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(study(target="runs/targets/0f")))
    monkeypatch.chdir(tmp_path)
    assert read_study(Path("tiny.yaml")).target == str(directory)


def test_the_path_of_the_data_is_no_part_of_what_a_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "my.csv")
    monkeypatch.chdir(tmp_path)
    stage = {**STAGE, "data": {"my.csv": 1.0, STAGE["data"]: 2.0}, "judge": "my.csv"}
    relative = read(draft={"stages": [stage]})
    absolute = relative.located(tmp_path)
    target = TimerXLConfig(**MODEL)
    keys = [
        [
            bank.key_of(training, machine=Machine())
            for training in space.drafts_of(target, path=HERE)
        ]
        for space in (relative, absolute)
    ]
    assert relative != absolute
    assert keys[0] == keys[1]
