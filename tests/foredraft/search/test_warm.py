"""Claims about a study that starts from an earlier one.

Values are taken over only where both studies judged alike: the same drafts, rules, yardstick,
budget and machine. Else the earlier front is tried anew. How the first searched is no matter; what
is taken is taken once, stands under the new study's budget, and carries nothing of another sampler.
A first study that is at work, has come to nothing or is the new one itself is refused. Nothing
needs Ray's cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from foredraft import files, provenance
from foredraft.bank import claims
from foredraft.documents import yaml_text
from foredraft.errors import ConfigError
from foredraft.search import record, warm
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study

MakeTrial = Callable[..., Trial]
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
SIGMA = {"type": "float", "low": 0.1, "high": 1.0}


def study(name: str = "first", **changes: Any) -> Study:
    tree = {
        "name": name,
        "target": {"model": MODEL, "stages": [STAGE]},
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": SIGMA},
    }
    return validated(Study, tree | changes, source=name)


def directory_of(what: Study, storage: Path, **facts: Any) -> Path:
    """The directory of a study that begins on this machine, facts of it changed."""
    directory = storage / "studies" / what.name
    directory.mkdir(parents=True, exist_ok=True)
    files.atomic_write(directory / "study.yaml", yaml_text(what.model_dump(mode="json")))
    told = json.dumps({**provenance.collect(), **facts})
    files.atomic_write(directory / "provenance.json", told)
    return directory


def searched(what: Study, storage: Path, *trials: Trial, **facts: Any) -> OptunaSearcher:
    """A study that was interrupted after these trials."""
    directory = directory_of(what, storage, **facts)
    searcher = OptunaSearcher(what, open_record(what, directory))
    for trial in trials:
        asked = searcher.suggest(str(trial.number))
        settings = record.settings_of(what, asked["settings"])
        text = trial.model_copy(update={"settings": settings}).model_dump_json()
        searcher.on_trial_complete(str(trial.number), {record.TRIAL: text})
    return searcher


def second(storage: Path, **changes: Any) -> tuple[Study, optuna.Study]:
    """A study that is to start from the first, and its record."""
    what = study("second", **{"warm_start": "first"} | changes)
    return what, open_record(what, directory_of(what, storage))


def taken(what: Study, kept: optuna.Study) -> list[Trial]:
    return [t for t in record.trials_of(kept.get_trials(), study=what) if t.outcome]


def waiting(kept: optuna.Study) -> list[dict[str, Any]]:
    """The settings that are to be tried."""
    found = kept.get_trials(states=(TrialState.WAITING,))
    return [trial.system_attrs["fixed_params"] for trial in found]


# What is compared


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stop_early": False},
        {"sampler": "random"},
        {"sampler": "nsgaii"},
        {"seed": 7},
        {"trials": 99, "startup_trials": 3, "confirm_pairs": 8, "confirm_windows": 4},
        {"first": [{"sigma": 0.5}]},
        {"machine": {"concurrency": 2}},
        {"machine": {"device": "cpu"}},
    ],
    ids=str,
)
def test_values_are_taken_over_however_the_first_searched(
    tmp_path: Path, make_trial: MakeTrial, changes: dict[str, Any]
) -> None:
    searched(study(), tmp_path, make_trial(0))
    what, kept = second(tmp_path, **changes)
    assert warm.start(what, kept, storage=tmp_path) == "starting from 1 trial of first"
    assert [trial.source for trial in taken(what, kept)] == ["first"]
    assert not record.own(taken(what, kept))
    assert not waiting(kept)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", {"model": {**MODEL, "d_ff": 48}, "stages": [STAGE]}),
        ("draft", {"stages": [STAGE], "seed": 3}),
        ("evaluation", {"data": STAGE["data"], "horizon": 48}),
        ("reference", {"kind": "cached"}),
        ("acceptance", {"rule": "gaussian", "bias": 3.0}),
        ("dimensions", {"sigma": SIGMA | {"high": 1.5}}),
        ("objectives", ["predicted_speedup", "mse"]),
        ("budget", 1.05),
        ("machine", {"use_gpu": True}),
        ("machine", {"cpus": 1}),
        ("machine", {"workers": 2}),
    ],
)
def test_where_the_first_judged_otherwise_its_front_is_tried_anew(
    tmp_path: Path, make_trial: MakeTrial, field: str, value: Any
) -> None:
    searcher = searched(study(), tmp_path, make_trial(0), make_trial(1, predicted_speedup=0.5))
    what, kept = second(tmp_path, **{field: value})
    said = warm.start(what, kept, storage=tmp_path)
    assert f"1 point of first's front, to be judged anew, as {field} differs" in said
    assert not taken(what, kept)
    best = searcher.record.get_trials()[0].params["sigma"]
    assert waiting(kept) == [{"sigma": pytest.approx(best)}]
    assert OptunaSearcher(what, kept).suggest("next")["settings"]["sigma"] == pytest.approx(best)


@pytest.mark.parametrize("fact", ["cpu", "num_cpus", "cuda"])
def test_values_of_another_machine_are_judged_anew(
    tmp_path: Path, make_trial: MakeTrial, fact: str
) -> None:
    searched(study(), tmp_path, make_trial(0), **{fact: "another"})
    what, kept = second(tmp_path)
    assert "another machine" in warm.start(what, kept, storage=tmp_path)
    assert not taken(what, kept)


def test_a_machine_that_no_file_tells_of_is_like_no_other(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(), tmp_path, make_trial(0))
    what, kept = second(tmp_path)
    for name in ("first", "second"):
        (tmp_path / "studies" / name / "provenance.json").unlink()
    assert "another machine" in warm.start(what, kept, storage=tmp_path)
    assert not taken(what, kept)


def test_values_of_another_kind_of_device_are_judged_anew(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(machine={"device": "cuda"}), tmp_path, make_trial(0))
    what, kept = second(tmp_path, machine={"device": "cpu"})
    assert "as it ran on cuda" in warm.start(what, kept, storage=tmp_path)


# What is taken


def test_a_trial_that_is_taken_over_stands_under_the_budget_of_the_study_that_takes_it(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    trials = [make_trial(0, mse_ratio=1.03), make_trial(1, mse_ratio=1.04, stopped="budget")]
    first = searched(study(budget=1.05), tmp_path, *trials)
    (tmp_path / "studies" / "first" / "study.db").replace(tmp_path / "kept.db")
    # The same trials, as a study of another budget had stored them.
    stored = first.record.get_trials()
    directory_of(study(budget=1.01), tmp_path)
    (tmp_path / "kept.db").replace(tmp_path / "studies" / "first" / "study.db")
    what, kept = second(tmp_path, budget=1.01)
    warm.start(what, kept, storage=tmp_path)
    assert [t.constraints["mse_ratio"] for t in stored] == pytest.approx([-0.02, -0.01])
    assert [t.constraints["mse_ratio"] for t in kept.get_trials()] == pytest.approx([0.02, 0.03])
    assert not kept.best_trials


def test_what_was_stopped_is_taken_and_what_failed_or_still_runs_is_not(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    unknown = {"mse": None, "mse_ratio": None, "windows": 0}
    trials = [make_trial(0, error="gone"), make_trial(1, stopped="front", **unknown), make_trial(2)]
    searched(study(), tmp_path, *trials).suggest("running")
    what, kept = second(tmp_path)
    assert "2 trials" in warm.start(what, kept, storage=tmp_path)
    states = [trial.state for trial in kept.get_trials()]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE]
    assert [trial.number for trial in taken(what, kept)] == [0, 1]
    assert [trial.state for trial in taken(what, kept)] == ["pruned", "complete"]
    before = open_record(study(), tmp_path / "studies" / "first").get_trials()
    assert [t.values for t in kept.get_trials()] == [before[1].values, before[2].values]
    assert [t.params for t in kept.get_trials()] == [before[1].params, before[2].params]
    # A number is the record's own, whatever it was in the first study.
    assert OptunaSearcher(what, kept).suggest("next")["number"] == 2


def test_a_start_that_was_interrupted_takes_the_rest_and_nothing_twice(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(study(), tmp_path, *(make_trial(number) for number in range(3)))
    what, kept = second(tmp_path)
    add = kept.add_trial

    def dies(trial: optuna.trial.FrozenTrial) -> None:
        if len(kept.get_trials()) == 2:
            raise KeyboardInterrupt
        add(trial)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kept, "add_trial", dies)
        warm.start(what, kept, storage=tmp_path)
    assert len(taken(what, kept)) == 2
    for _ in range(2):
        assert "from 3 trials" in warm.start(what, kept, storage=tmp_path)
        assert len(taken(what, kept)) == 3


def test_settings_that_are_to_be_tried_are_enqueued_once(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(), tmp_path, make_trial(0), make_trial(1, mse=0.3, predicted_speedup=1.0))
    what, kept = second(tmp_path, budget=1.05)
    for _ in range(2):
        assert "2 points" in warm.start(what, kept, storage=tmp_path)
        assert len(waiting(kept)) == 2


def test_a_third_study_takes_what_the_second_took_and_found(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(), tmp_path, make_trial(0), make_trial(1))
    what, kept = second(tmp_path)
    warm.start(what, kept, storage=tmp_path)
    searcher = OptunaSearcher(what, kept)
    searcher.suggest("own")
    searcher.on_trial_complete("own", {record.TRIAL: make_trial(2).model_dump_json()})
    third = study("third", warm_start="second")
    kept = open_record(third, directory_of(third, tmp_path))
    assert warm.start(third, kept, storage=tmp_path) == "starting from 3 trials of second"
    assert [trial.source for trial in taken(third, kept)] == ["second"] * 3


def test_the_population_of_another_sampler_is_none_of_the_new_ones(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    genetic = study(sampler="nsgaii", startup_trials=4)
    trials = [make_trial(n, mse=0.4 - 0.01 * n) for n in range(9)]
    searcher = searched(genetic, tmp_path, *trials)
    assert any(
        "generation" in name for t in searcher.record.get_trials() for name in t.system_attrs
    )
    what, kept = second(tmp_path, sampler="nsgaii", startup_trials=4)
    warm.start(what, kept, storage=tmp_path)
    assert len(kept.get_trials()) == 9
    assert not [n for t in kept.get_trials() for n in t.system_attrs if "generation" in n]
    assert 0.1 <= OptunaSearcher(what, kept).suggest("next")["settings"]["sigma"] <= 1.0


def test_taking_changes_nothing_of_the_first_study(tmp_path: Path, make_trial: MakeTrial) -> None:
    searched(study(), tmp_path, make_trial(0))
    folder = tmp_path / "studies" / "first"

    def now() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = now()
    warm.start(*second(tmp_path), storage=tmp_path)
    assert now() == before


def test_what_the_new_dimensions_never_have_is_left_to_the_sampler(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    wide = {"sigma": SIGMA, "lookahead": {"type": "int", "low": 1, "high": 2}}
    searched(study(dimensions=wide), tmp_path, make_trial(0))
    narrow = {"sigma": SIGMA, "lookahead": {"type": "int", "low": 3, "high": 4}}
    what, kept = second(tmp_path, dimensions=narrow)
    warm.start(what, kept, storage=tmp_path)
    assert [set(settings) for settings in waiting(kept)] == [{"sigma"}]


def test_a_front_that_the_new_dimensions_do_not_reach_is_refused(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(), tmp_path, make_trial(0))
    what, kept = second(tmp_path, dimensions={"sigma": {"type": "float", "low": 2, "high": 3}})
    with pytest.raises(ConfigError, match="no setting of its front is in the dimensions"):
        warm.start(what, kept, storage=tmp_path)
    assert not waiting(kept)


# Which studies can be started from


def test_a_first_study_that_is_at_work_is_refused(tmp_path: Path, make_trial: MakeTrial) -> None:
    searched(study(), tmp_path, make_trial(0))
    what, kept = second(tmp_path)
    with (
        claims.held(tmp_path / "claims" / "study-first"),
        pytest.raises(ConfigError, match=r"study-first is at work .* wait for it, or end it"),
    ):
        warm.start(what, kept, storage=tmp_path)
    assert not kept.get_trials()


def test_a_first_study_that_was_interrupted_has_a_front_all_the_same(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    searched(study(), tmp_path, make_trial(0))
    assert not (tmp_path / "studies" / "first" / "front.json").exists()
    what, kept = second(tmp_path, budget=1.05)
    assert "1 point of" in warm.start(what, kept, storage=tmp_path)


@pytest.mark.parametrize("budget", [1.01, 1.05])
def test_a_first_study_that_came_to_nothing_is_refused(
    tmp_path: Path, make_trial: MakeTrial, budget: float
) -> None:
    searched(study(), tmp_path, make_trial(0, error="gone")).suggest("running")
    what, kept = second(tmp_path, budget=budget)
    with pytest.raises(ConfigError, match="no trial that was judged to its end"):
        warm.start(what, kept, storage=tmp_path)


@pytest.mark.parametrize(("name", "problem"), [("second", "itself"), ("never", "no such study")])
def test_a_study_that_cannot_be_started_from_is_refused_by_its_name(
    tmp_path: Path, name: str, problem: str
) -> None:
    what, kept = second(tmp_path, warm_start=name)
    with pytest.raises(ConfigError, match=f"warm_start is '{name}'.*{problem}"):
        warm.start(what, kept, storage=tmp_path)
    assert not (tmp_path / "studies" / "never").exists()


def test_two_studies_in_one_database_know_each_other_though_no_file_tells_the_password(
    tmp_path: Path,
) -> None:
    url = "postgresql://team:hunter2@host/optuna"
    directory = directory_of(study(database="postgresql://team:***@host/optuna"), tmp_path)
    assert warm._read(directory, beside=study("second", database=url)).database == url
    other = study("second", database="postgresql://team:hunter2@elsewhere/optuna")
    assert warm._read(directory, beside=other).database == "postgresql://team:***@host/optuna"
