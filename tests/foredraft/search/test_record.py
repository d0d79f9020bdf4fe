"""Claims about a study's record: front and choice, what is stored; reading it changes nothing.

It needs no Ray, and refuses the trials of another version.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foredraft.errors import ConfigError
from foredraft.search import curves, record
from foredraft.search.record import Record
from foredraft.search.references import Target
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study
from speculation import Gaussian, Plan
from speculation.cost import PassCosts

MakeTrial = Callable[..., Trial]
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
TARGET = Target(key="t", parameters=1000, patch=12, mse=0.4, mae=0.5)


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
    }
    return validated(Study, tree | changes, source="tiny")


def record_of(*trials: Trial, **changes: Any) -> Record:
    return Record(study(**changes), trials, TARGET)


def stored(folder: Path, *trials: Trial) -> Path:
    """A study's directory after these trials were reported and one more was asked for."""
    folder.mkdir()
    searcher = OptunaSearcher(study(), open_record(study(), folder))
    for trial in trials:
        searcher.suggest(str(trial.number))
        searcher.on_trial_complete(str(trial.number), {record.TRIAL: trial.model_dump_json()})
    searcher.suggest("running")
    return folder


# Front and choice


def test_the_front_is_that_of_the_trials_within_the_budget(make_trial: MakeTrial) -> None:
    found = record_of(
        make_trial(0, predicted_speedup=2.0),
        make_trial(1, predicted_speedup=9.0, mse_ratio=1.5),
        make_trial(2, predicted_speedup=1.0),
        make_trial(3, predicted_speedup=1.0, mse=0.3),
        make_trial(4, predicted_speedup=9.0, stopped="front"),
    )
    assert [point.trial.number for point in found.front] == [0, 3]


def test_a_point_may_be_chosen_only_where_it_keeps_every_bound(make_trial: MakeTrial) -> None:
    trials = (
        make_trial(0, speedup=1.5, predicted_speedup=1.5, deviation=0.004),
        make_trial(1, speedup=1.9, predicted_speedup=1.9, deviation=0.0041),  # .01025 of .4
        make_trial(2, speedup=1.8, predicted_speedup=1.8, deviation=0.001, mse_ratio=1.02),
    )
    chosen = {
        name: record_of(*trials, budget=budget).choice
        for name, budget in {
            "both": {"mse_ratio": 1.01, "deviation_ratio": 0.01},
            "near": {"deviation_ratio": 0.01},
            "accurate": 1.01,
        }.items()
    }
    numbers = {name: point.trial.number for name, point in chosen.items() if point}
    assert numbers == {"both": 0, "near": 2, "accurate": 1}
    none = record_of(*trials, budget={"mse_ratio": 1.01, "deviation_ratio": 0.001})
    assert none.why_alone == (
        "none of 3 complete trials kept the budget (mse ratio at most 1.01 and deviation ratio at "
        "most 0.001)"
    )


def test_where_the_deviation_alone_is_bounded_the_nearest_of_the_fastest_is_chosen(
    make_trial: MakeTrial,
) -> None:
    fast = {"speedup": 1.9, "speedup_low": 1.8}
    found = record_of(
        make_trial(0, predicted_speedup=1.9, mse=0.3, mse_ratio=0.8, deviation=0.003, **fast),
        make_trial(1, predicted_speedup=2.0, mse_ratio=1.0, deviation=0.001, **fast),
        budget={"deviation_ratio": 0.01},
        objectives=["predicted_speedup", "mse", "deviation_ratio"],
    )
    assert found.choice
    assert found.choice.trial.number == 1


def test_the_choice_is_the_most_accurate_of_those_as_fast_as_the_fastest(
    make_trial: MakeTrial,
) -> None:
    fast = {"speedup": 1.9, "speedup_low": 1.8}
    found = record_of(
        make_trial(0, predicted_speedup=1.9, speedup=1.5, mse=0.36, mse_ratio=0.9),
        make_trial(1, predicted_speedup=2.1, mse=0.4, mse_ratio=1.0, **fast),
        make_trial(2, predicted_speedup=2.0, speedup=1.78, mse=0.38, mse_ratio=0.95),
        make_trial(3, predicted_speedup=2.0, speedup=9.9, mse_ratio=1.5),
    )
    assert found.choice
    assert found.choice.trial.number == 2


def test_the_choice_stays_when_it_is_timed_once_more_and_that_figure_is_told(
    make_trial: MakeTrial,
) -> None:
    other = make_trial(0, predicted_speedup=3.0, speedup=1.8)
    lucky = {"predicted_speedup": 2.0, "mse": 0.3, "speedup": 1.9}
    for fresh in (None, 1.6):
        found = record_of(other, make_trial(1, fresh=fresh, **lucky))
        assert found.choice
        assert found.choice.trial.number == 1
        assert found.choice.outcome.speedup == 1.9
        assert found.choice.outcome.told
        assert found.choice.outcome.told.speedup == (fresh or 1.9)


def test_what_cannot_be_true_is_never_chosen_and_throws_no_other_off_the_front(
    make_trial: MakeTrial,
) -> None:
    absurd = make_trial(0, predicted_speedup=2.1, mse=0.41, speedup=12.5, doubt="no")
    found = record_of(absurd, make_trial(1, predicted_speedup=1.9, speedup=1.8))
    assert found.choice
    assert found.choice.trial.number == 1
    assert [point.standing.confirmed for point in found.front] == [None, True]
    assert found.front[0].outcome.speedup == 2.1
    better = make_trial(2, predicted_speedup=2.0, mse=0.3, speedup=12.5, doubt="no")
    assert record_of(better, make_trial(3, predicted_speedup=1.9)).choice is None


def test_what_was_measured_is_chosen_before_what_is_only_predicted(make_trial: MakeTrial) -> None:
    found = record_of(
        make_trial(0, predicted_speedup=3.0),
        make_trial(1, predicted_speedup=2.0, mse=0.3, speedup=1.9),
    )
    assert found.choice
    assert found.choice.trial.number == 1


def test_a_point_that_fell_off_the_front_is_never_its_knee(make_trial: MakeTrial) -> None:
    exact = make_trial(0, acceptance_rate=1.0, predicted_speedup=1.0, speedup=1.0)
    fast = make_trial(1, acceptance_rate=0.5, predicted_speedup=2.0, speedup=2.0, mse=0.5)
    middle = {"acceptance_rate": 0.9, "predicted_speedup": 1.9, "mse": 0.41}
    knee = record_of(exact, fast, make_trial(2, speedup=1.9, **middle)).knee
    assert knee
    assert knee.trial.number == 2
    fallen = record_of(exact, fast, make_trial(2, speedup=0.9, **middle))
    assert [point.standing.confirmed for point in fallen.front] == [True, True, False]
    assert fallen.knee
    assert fallen.knee.trial.number != 2


def test_drafts_alone_are_held_against_the_target_under_the_reference_policy(
    make_trial: MakeTrial,
) -> None:
    cached = {"settings": {"context_policy": "cached", "renorm_every": 0, "scale": 0.5}}
    found = record_of(
        make_trial(0, target={"mse": 0.5, "mae": 0.5}),
        make_trial(1, target={"mse": 0.8, "mae": 0.6}, **cached),
        make_trial(2, error="gone"),
    )
    references = found.references
    assert references
    assert {n: e.mse for n, e in references.target.policies.items()} == {
        "sliding": 0.5,
        "cached": 0.8,
    }
    ratios = {draft.policy: draft.mse_ratio for draft in references.drafts}
    # Whatever a policy costs the target itself, it does not make a draft look better.
    assert ratios == pytest.approx({"sliding": 0.42 / 0.4, "cached": 0.42 / 0.4})
    assert references.ceiling[-1].speedup > references.ceiling[0].speedup
    assert Record(study(), found.trials).references is None


def test_a_draft_alone_is_known_by_the_factors_that_made_it(make_trial: MakeTrial) -> None:
    found = record_of(make_trial(0, settings={"scale": None, "depth": 0.25, "width": 1.0}))
    assert found.references
    (draft,) = found.references.drafts
    assert (draft.scale, draft.depth, draft.width) == (None, 0.25, 1.0)


def test_drafts_are_told_apart_in_a_figure_by_what_differs_between_them(
    make_trial: MakeTrial,
) -> None:
    def labels(*settings: dict[str, Any]) -> list[str]:
        return curves.labels_of(settings)

    assert labels({"scale": 0.5, "depth": 0.25}, {"scale": 0.7, "depth": 0.25}) == [
        "draft 0.50x",
        "draft 0.70x",
    ]
    assert labels({"scale": 0.5, "depth": 0.25}, {"scale": 0.5, "depth": 1.0}) == [
        "draft 0.50x, depth 0.25",
        "draft 0.50x, depth 1.00",
    ]
    both = [{"scale": None, "depth": 0.5, "width": width, "patches_out": 4} for width in (0.5, 1.0)]
    assert labels(*both, {"scale": 0.7, "patches_out": 1}) == [
        "draft depth 0.50, width 0.50, 4 a pass",
        "draft depth 0.50, width 1.00, 4 a pass",
        "draft 0.70x, 1 a pass",
    ]


# One trial


@pytest.mark.parametrize(
    ("draft", "drawn", "told"),
    [
        ({}, {}, {"scale": 0.7}),
        ({"scale": 0.5}, {"depth": 0.25}, {"scale": 0.5, "depth": 0.25}),
        ({"depth": 0.25}, {"scale": 0.6}, {"scale": 0.6, "depth": 0.25}),
        ({"depth": 0.25}, {"width": 0.5}, {"scale": None, "depth": 0.25, "width": 0.5}),
        (
            {},
            {"scale": 0.6, "depth": 0.25, "width": 0.5},
            {"scale": None, "depth": 0.25, "width": 0.5},
        ),
        ({"scale": 0.5}, {"width": None}, {"scale": 0.5, "width": None}),
    ],
)
def test_a_trial_tells_the_factors_that_made_its_draft_and_no_scale_that_nothing_follows(
    draft: dict[str, Any], drawn: dict[str, Any], told: dict[str, Any]
) -> None:
    plan = study(draft={"stages": [STAGE], **draft})
    settings = record.settings_of(plan, {"sigma": 0.5, **drawn})
    assert {n: settings[n] for n in ("scale", "depth", "width") if n in settings} == told
    assert settings["sigma"] == 0.5


def test_a_trial_that_was_stored_is_read_as_the_same(make_trial: MakeTrial) -> None:
    costs = PassCosts((1,), (1.0,), ((1.0, 1.1),), ((0.0, 0.2),), (0.0,), (0.0,))
    rule = Gaussian(sigma=0.3, bias=2.0, adapt=True)
    test = {"acceptance_rate": 0.5, "mse": 0.4, "mse_ratio": 1.0, "differs": False}
    trial = make_trial(3, rule=rule, speedup=1.5, test=test, settings={"adapt": True, "scale": 1.0})
    assert trial.outcome
    adapting = trial.outcome.model_copy(update={"plan": Plan(costs, (0.5,))})
    for one in (
        trial.model_copy(update={"outcome": adapting}),
        make_trial(4, stopped="front", windows=0, mse=None, mse_ratio=None),
        make_trial(5, error="gone"),
        make_trial(6, running=True),
    ):
        read = Trial.read(json.loads(one.model_dump_json()), study="tiny")
        assert read == one
        assert read.state == one.state
        assert [type(v) for v in read.settings.values()] == [type(v) for v in one.settings.values()]


def test_a_trial_is_complete_stopped_failed_or_running_and_nothing_between(
    make_trial: MakeTrial,
) -> None:
    assert make_trial().state == "complete"
    assert make_trial(stopped="budget").state == "pruned"
    assert make_trial(error="gone").state == "failed"
    assert make_trial(running=True).state == "running"
    with pytest.raises(ValueError, match="comes to one of them"):
        Trial(number=0, outcome=make_trial().outcome, error="gone")
    with pytest.raises(ValueError, match="a trial that was not stopped has all of them"):
        make_trial(mse_ratio=None)
    with pytest.raises(ValueError, match="finite"):
        make_trial(mse=float("nan"))


def test_a_row_of_the_table_holds_numbers_and_words_and_no_json(make_trial: MakeTrial) -> None:
    trial = make_trial(settings={"sigma": 0.5}, speedup=1.5, acceptance_interval=(0.7, 0.9))
    (standing,) = record_of(trial).standings
    row = standing.flat()
    assert row["settings.sigma"] == 0.5
    assert (row["mse"], row["speedup"], row["draft_key"]) == (0.4, 1.5, "d-0.5")
    assert (row["acceptance_rate_low"], row["acceptance_rate_high"]) == (0.7, 0.9)
    assert row["mse_ratio_low"] is None
    assert (row["state"], row["feasible"], row["on_front"]) == ("complete", True, True)
    assert not [value for value in row.values() if isinstance(value, dict)]
    assert not [value for value in row.values() if isinstance(value, str) and "{" in value]


# What is stored


def test_a_study_that_runs_is_read_as_far_as_it_has_come(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    folder = stored(tmp_path / "tiny", make_trial(0), make_trial(1, error="gone"))
    (folder / "references.json").write_text(json.dumps({"target": TARGET.model_dump()}))
    found = record.read(study(), folder)
    assert [trial.state for trial in found.trials] == ["complete", "failed", "running"]
    assert found.trials[2].settings["bias"] == 2.0
    assert "sigma" in found.trials[2].settings
    assert found.choice
    assert found.references
    assert found.references.target.mse == 0.4
    assert len(found.references.drafts) == 1


def test_reading_a_record_changes_no_byte_and_makes_no_file(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    folder = stored(tmp_path / "tiny", make_trial(0))

    def now() -> dict[Path, tuple[bytes, int]]:
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*")}

    before = now()
    assert len(record.read(study(), folder).trials) == 2
    assert now() == before
    (folder / "study.db").unlink()
    assert record.read(study(), folder).trials == ()
    assert not list(folder.iterdir())
    (folder / "study.db").touch()  # a driver that died in its first moment
    assert record.read(study(), folder).trials == ()
    assert not (folder / "study.db").read_bytes()


def test_the_signs_of_an_address_in_a_path_are_letters_like_others(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    (tmp_path / "runs#1 %41?").mkdir()
    folder = stored(tmp_path / "runs#1 %41?" / "tiny", make_trial(0))
    assert [trial.state for trial in record.read(study(), folder).trials] == ["complete", "running"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs#1 %41?"]


def test_what_was_still_to_be_tried_at_the_end_is_no_trial_and_hides_none_of_later(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    folder = stored(tmp_path / "tiny", make_trial(0), make_trial(1))
    open_record(study(), folder).enqueue_trial({"sigma": 0.5})
    left = [make_trial(1, running=True), make_trial(7, running=True)]
    written = [trial.model_dump(mode="json") for trial in (make_trial(0), *left)]
    (folder / "trials.json").write_text(json.dumps(written))
    found = {trial.number: trial.state for trial in record.read(study(), folder).trials}
    assert found == {0: "complete", 1: "complete", 2: "running", 7: "running"}


def test_two_stages_of_one_name_have_a_curve_each() -> None:
    rows = [
        {"stage": name, "epoch": epoch}
        for name, epoch in (("pretrain", 1), ("heads", 1), ("heads", 2), ("heads", 1))
    ]
    told = curves._curve(rows, label="draft", kind="draft")
    assert list(told["stage"]) == ["pretrain", "heads", "heads", "heads 2"]


def test_what_was_measured_at_the_end_is_kept_beside_trials_that_came_later(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    folder = stored(tmp_path / "tiny", make_trial(0), make_trial(1, mse=0.3))
    measured = make_trial(0, speedup=1.5)
    (folder / "trials.json").write_text(json.dumps([measured.model_dump(mode="json")]))
    found = record.read(study(), folder)
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert [bool(t.outcome and t.outcome.measured) for t in found.trials] == [True, False, False]


@pytest.mark.parametrize("kept", ["database", "table", "number"])
def test_the_trials_of_another_version_are_refused_in_one_line(
    tmp_path: Path, make_trial: MakeTrial, kept: str
) -> None:
    folder = stored(tmp_path / "tiny")
    if kept == "database":
        optuna_study = open_record(study(), folder)
        asked = optuna_study.ask()
        asked.set_user_attr("row", '{"lists": "{}"}')
    elif kept == "table":
        (folder / "trials.parquet").touch()
    else:
        newer = make_trial(0).model_dump(mode="json") | {"version": 99}
        (folder / "trials.json").write_text(json.dumps([newer]))
    with pytest.raises(ConfigError, match=r"study 'tiny' .* --replace") as refusal:
        record.read(study(), folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("module", ["foredraft.search.record", "foredraft.report"])
def test_a_record_and_a_report_need_no_ray(module: str) -> None:
    script = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr
