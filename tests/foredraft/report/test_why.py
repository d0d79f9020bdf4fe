"""Claims about why: importances of every searched setting, slices, scales, agreement, expense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foredraft.report import agreement, axes, curves, dots, expense, importance, slices
from foredraft.report.pictures import write_pictures
from foredraft.report.sections import sections_of
from foredraft.report.study_files import read_study_files
from foredraft.report.study_report import report_html
from foredraft.search.record import Record, Times
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study

MakeTrial = Callable[..., Trial]
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
TREE: dict[str, Any] = {
    "name": "why",
    "target": "demo",
    "draft": {"plans": {"plain": [STAGE], "longer": [{**STAGE, "epochs": 9}]}},
    "evaluation": {"data": STAGE["data"], "horizon": 336},
    "dimensions": {
        "scale": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
        "stages": {"type": "categorical", "choices": ["plain", "longer"]},
        "rule": {"type": "categorical", "choices": ["gaussian", "tolerance"]},
        "sigma": {"type": "float", "low": 0.01, "high": 10.0, "log": True},
        "bias": {"type": "float", "low": 1.0, "high": 10.0, "log": True},
        "mse_tol": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
        "lookahead": {"type": "int", "low": 1, "high": 3},
    },
}


@pytest.fixture
def record(make_trial: MakeTrial) -> Record:
    """Sixty trials: acceptance hangs on scale, speed on lookahead, and nothing on the rest."""
    rng, trials = np.random.default_rng(5), []
    for number in range(60):
        rule = str(rng.choice(["gaussian", "tolerance"]))
        settings = {
            "scale": round(float(rng.choice([0.5, 0.6, 0.7, 0.8, 0.9])), 10),
            "stages": str(rng.choice(["plain", "longer"])),
            "rule": rule,
            "sigma": float(10 ** rng.uniform(-2, 1)) if rule == "gaussian" else None,
            "bias": float(10 ** rng.uniform(0, 1)) if rule == "gaussian" else None,
            "mse_tol": float(10 ** rng.uniform(-2, 0)),
            "lookahead": int(rng.integers(1, 4)),
        }
        speed = 1 + 0.3 * settings["lookahead"] + float(rng.normal(0, 0.01))
        trials.append(
            make_trial(
                number,
                settings=settings,
                seconds=10.0 + number % 2,
                draft={"key": f"d-{settings['scale']}"},
                acceptance_rate=settings["scale"] + float(rng.normal(0, 0.005)),
                predicted_speedup=speed,
                speedup=0.9 * speed if number < 3 else None,
            )
        )
    return Record(validated(Study, TREE, source="why"), tuple(trials))


def test_each_objective_hangs_most_on_what_decides_it_and_no_setting_is_left_out(
    record: Record,
) -> None:
    info = importance.importance_info(record)
    assert info
    first = {one.objective: one.shares[0][0] for one in info.objectives}
    assert first["acceptance_rate"] == "scale"
    assert first["predicted_speedup"] == "lookahead"
    for one in info.objectives:
        assert {name for name, _ in one.shares} == set(TREE["dimensions"])
        assert sum(share for _, share in one.shares) == pytest.approx(1)
    assert "acceptance rate on draft scale" in importance.sentence(info)


def test_of_few_trials_nothing_is_said_to_matter(record: Record) -> None:
    few = Record(record.study, record.trials[: importance.FEWEST - 1])
    assert importance.importance_info(few) is None


def test_every_searched_setting_has_an_axis_and_a_slice(record: Record) -> None:
    settings = axes.settings_info(record.complete)
    cut = slices.slices_info(settings.points, settings.axes)
    assert {axis.name.removeprefix("settings.") for axis in cut.axes} == set(TREE["dimensions"])
    figure = slices.slices_figure(cut)
    # A trial of a rule that has no sigma and no bias has no dot in their panels.
    shown = [len(trace.x) for trace in figure.data]
    with_sigma = sum(trial.settings["sigma"] is not None for trial in record.trials)
    assert sorted(shown) == sorted([60, 60, 60, 60, 60, with_sigma, with_sigma])


def test_acceptance_is_told_by_scale_for_each_way_to_train(record: Record) -> None:
    info = slices.scale_info(record.complete)
    assert [line.stages for line in info.lines] == ["longer", "plain"]
    for line in info.lines:
        for scale, median in line.medians:
            assert median == pytest.approx(scale, abs=0.02)


def test_only_what_was_timed_is_held_against_its_prediction(record: Record) -> None:
    info = agreement.agreement_info(dots.dots_of(record))
    assert [dot.number for dot in info.dots] == [0, 1, 2]


def test_what_a_study_cost_is_told_by_draft_with_what_is_to_come(record: Record) -> None:
    start = datetime(2026, 1, 1)
    times = {n: Times(start, start + timedelta(seconds=5 * (n + 1))) for n in range(60)}
    study = record.study.model_copy(update={"trials": 90})
    info = expense.expense_info(Record(study, record.trials, None, times))
    spent = sum(one.training + one.judging for one in info.drafts)
    assert spent == pytest.approx(60 * 10.5)
    assert (info.ended, info.to_come, info.left_s) == (60, 30, pytest.approx(150))
    assert "at most 30 trials to come, about 2 min at this pace" in expense.sentence(info)


def test_acceptance_after_each_epoch_is_drawn_where_drafts_were_examined() -> None:
    import pandas as pd

    told = pd.DataFrame({"epoch": [1, 2], "train_loss": 0.4, "validation_loss": 0.5})
    told = told.assign(label="draft 0.50x", kind="draft", stage="distill")
    assert not curves.is_examined(curves.curves_info(told))
    info = curves.curves_info(told.assign(acceptance_rate=[0.2, 0.7]))
    assert curves.is_examined(info)
    (line,) = curves.acceptance_figure(info).data
    assert list(line.y) == [0.2, 0.7]


@pytest.fixture
def study_dir(tmp_path: Path, record: Record, write_study: Callable[..., Path]) -> Path:
    own = {name: value for name, value in TREE.items() if name != "name"}
    directory = write_study(tmp_path, "why", acceptance={}, **own)
    trials = [trial.model_dump(mode="json") for trial in record.trials]
    (directory / "trials.json").write_text(json.dumps(trials))
    return directory


def test_a_report_of_a_thousand_trials_is_under_six_megabytes(
    study_dir: Path, record: Record
) -> None:
    many = [
        record.trials[number % 60].model_copy(update={"number": number}).model_dump(mode="json")
        for number in range(1000)
    ]
    (study_dir / "trials.json").write_text(json.dumps(many))
    assert len(report_html(read_study_files(study_dir)).encode()) < 6_000_000


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on PATH")
def test_the_key_figures_are_written_as_pictures(study_dir: Path, tmp_path: Path) -> None:
    paths = write_pictures(read_study_files(study_dir), tmp_path / "figures")
    known = [section.name for section in sections_of(read_study_files(study_dir))]
    assert {path.stem for path in paths} >= {"front", "accuracy", "importance"}
    assert {path.stem for path in paths} <= set(known)
    for path in paths:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 10_000
