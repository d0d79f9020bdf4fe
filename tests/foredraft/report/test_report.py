"""Claims about the report: what it says of a study, and that it says it of any study.

A study that runs or was stopped is told as far as it has come; like is compared with like.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from foredraft import report
from foredraft.errors import ConfigError
from foredraft.report import axes, curves, dots, look, page, sections, study_report, summary, tables
from foredraft.report.study_files import read_study_files
from foredraft.search.record import TRIAL, Record
from foredraft.search.references import Naive, Target
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study

MakeTrial = Callable[..., Trial]
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9)
MSE, MAE = 0.3712, 0.3986
TARGET = Target(
    **{"key": "t-1f", "parameters": 1_240_000, "patch": 96, "mse": MSE, "mae": MAE},
    **{"n_layers": 4, "d_model": 256, "n_heads": 8, "d_ff": 512, "patches_out": 1},
)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
TREE: dict[str, Any] = {
    "name": "joint",
    "target": "etth1",
    "draft": {"stages": [STAGE]},
    "evaluation": {"data": STAGE["data"], "horizon": 336},
    "acceptance": {"rule": "gaussian", "bias": 2.0},
    "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
    "budget": 1.01,
}


def cost(scale: float) -> float:
    """A step of the draft over a step of the target."""
    return 0.02 + 0.7 * scale**1.7


def speed(acceptance: float, lookahead: int, scale: float) -> float:
    return sum(acceptance**n for n in range(lookahead + 1)) / (1 + lookahead * cost(scale))


def make_drafts() -> dict[float, dict[str, Any]]:
    return {
        scale: {
            "key": f"d-{scale}",
            "architecture": {
                "d_model": int(256 * scale) // 8 * 8,
                "n_heads": 8,
                "d_ff": int(512 * scale),
                "n_layers": max(1, round(4 * scale)),
            },
            "parameters": int(1_240_000 * scale**2.4),
            "errors": {"mse": MSE * (1.16 - 0.14 * scale), "mae": MAE * (1.1 - 0.09 * scale)},
            "speedup": 1 / (0.12 + 0.85 * scale),
        }
        for scale in SCALES
    }


def some_trial(number: int, rng: np.random.Generator, make_trial: MakeTrial) -> Trial:
    scale = float(rng.choice(SCALES))
    rule = str(rng.choice(["gaussian", "tolerance", "lossless"], p=[0.5, 0.35, 0.15]))
    lenience = 0.0 if rule == "lossless" else float(rng.uniform())
    lookahead = int(rng.integers(1, 7))
    acceptance = min(0.99, 0.22 + 0.35 * scale + 0.4 * lenience + float(rng.normal(0, 0.04)))
    predicted = speed(acceptance, lookahead, scale)
    ratio = 1 + 0.035 * lenience**2 * (1.2 - scale) + float(rng.normal(0, 0.001))
    settings = {
        "scale": scale,
        "rule": rule,
        "sigma": float(10 ** (2 * lenience - 1.5)) if rule == "gaussian" else None,
        "bias": float(10 ** (2 * lenience)) if rule == "gaussian" else None,
        "mse_tol": float(10 ** (2.5 * lenience - 2)) if rule == "tolerance" else None,
        "lookahead": lookahead,
        "emit": "target",
        "context_policy": "sliding",
        "renorm_every": 0,
    }
    about = {"settings": settings, "seconds": float(rng.uniform(8, 60))}
    if number in (11, 40):
        error = "Traceback\n  ...\nMemoryError: <4 GiB>"
        return make_trial(number, error=error, **about)
    return make_trial(
        number,
        draft=make_drafts()[scale],
        target={"mse": MSE, "mae": MAE},
        reference={"mse": MSE, "mae": MAE},
        stopped="front" if number % 9 == 4 else None,
        acceptance_rate=acceptance,
        accept_length=predicted * (1 + lookahead * cost(scale)),
        predicted_speedup=predicted,
        mse=MSE * ratio,
        mae=MAE * ratio,
        mse_ratio=ratio,
        deviation=0.004 * lenience,
        **about,
    )


def record_of(trials: Sequence[Trial], **changes: Any) -> Record:
    return Record(validated(Study, TREE | changes, source="joint"), tuple(trials), TARGET)


def changed(trials: Sequence[Trial], **outcome: Any) -> list[Trial]:
    """The trials, what they came to changed."""
    return [
        t.model_copy(update={"outcome": t.outcome.model_copy(update=outcome)}) if t.outcome else t
        for t in trials
    ]


def with_settings(
    trials: Sequence[Trial], change: Callable[[Trial], dict[str, Any]]
) -> list[Trial]:
    return [t.model_copy(update={"settings": t.settings | change(t)}) for t in trials]


@pytest.fixture
def trials(make_trial: MakeTrial) -> list[Trial]:
    """Ninety trials; those of the front were measured."""
    rng = np.random.default_rng(7)
    found = {n: some_trial(n, rng, make_trial) for n in range(90)}
    rng = np.random.default_rng(8)
    for point in record_of(list(found.values())).front:
        predicted = point.outcome.metrics.predicted_speedup
        timed = make_trial(speedup=predicted * float(rng.normal(0.98, 0.02))).outcome
        assert timed
        (found[point.trial.number],) = changed([point.trial], timing=timed.timing)
    return list(found.values())


@pytest.fixture
def joint(trials: list[Trial]) -> Record:
    return record_of(trials)


def unmeasured(trials: Sequence[Trial]) -> list[Trial]:
    return changed(trials, timing={})


def make_curves() -> pd.DataFrame:
    rng = np.random.default_rng(9)
    trainings = [("target", "target", "scratch", 0.30, 12)]
    for scale in SCALES:
        trainings.append((f"draft {scale:.2f}x", "draft", "scratch", 0.38 - 0.07 * scale, 10))
        trainings.append((f"draft {scale:.2f}x", "draft", "distill", 0.12 - 0.08 * scale, 6))
    return pd.DataFrame(
        {
            "label": label,
            "kind": kind,
            "stage": stage,
            "epoch": epoch,
            "train_loss": floor * (1 + np.exp(-epoch / 2)) + rng.normal(0, 0.002),
            "validation_loss": floor * (1.12 + np.exp(-epoch / 2)) + rng.normal(0, 0.002),
            "learning_rate": 1e-4,
            "seconds": 3.1,
        }
        for label, kind, stage, floor, epochs in trainings
        for epoch in range(1, epochs + 1)
    )


@pytest.fixture
def study_dir(tmp_path: Path, trials: list[Trial]) -> Path:
    folder = tmp_path / "studies" / "joint"
    folder.mkdir(parents=True)
    made = {"time_utc": "2025-03-01T10:22:00+00:00", "versions": {"torch": "2.6.0"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(TREE))
    write_trials(folder, trials)
    make_curves().to_parquet(folder / "curves.parquet")
    (folder / "references.json").write_text(json.dumps({"target": TARGET.model_dump()}))
    (folder / "provenance.json").write_text(json.dumps(made))
    return folder


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    text = json.dumps([trial.model_dump(mode="json") for trial in trials])
    (folder / "trials.json").write_text(text)


def reading_of(record: Record) -> tuple[str, ...]:
    """Both paragraphs."""
    info = summary.summary_info(record)
    return (*info.reading, *info.notes)


def of_two_policies(make_trial: MakeTrial) -> Record:
    """A study that compares context policies: one of them costs a tenth by itself."""
    errors = {"sliding": (0.5, 0.51), "cached": (0.55, 0.5)}
    record = record_of(
        [
            make_trial(
                number,
                settings={"scale": 0.5, "context_policy": policy, "renorm_every": 0},
                target={"mse": target, "mae": 0.4},
                reference={"mse": 0.5, "mae": 0.4},
                draft={"errors": {"mse": draft, "mae": 0.4}, "speedup": 3.0},
            )
            for number, (policy, (target, draft)) in enumerate(errors.items())
        ]
    )
    return replace(record, target=TARGET.model_copy(update={"mse": 0.5}))


def text_of(html: str) -> str:
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", without)


# The front


def test_every_complete_trial_is_a_dot_and_no_other(joint: Record) -> None:
    complete = [trial.number for trial in joint.trials if trial.state == "complete"]
    assert [dot.number for dot in dots.front_info(joint).dots] == complete


def test_no_trial_of_the_front_beats_the_staircase(joint: Record) -> None:
    info = dots.front_info(joint)
    assert info.front
    for dot in info.dots:
        if dot.on_front:
            assert any(x >= dot.acceptance and y >= dot.predicted for x, y in info.front)


def test_the_staircase_never_rises_with_acceptance() -> None:
    stairs = dots.staircase([(0.5, 2.0), (0.6, 1.0), (0.7, 1.5), (0.7, 1.2), (0.9, 1.1)])
    assert stairs == ((0.5, 2.0), (0.7, 1.5), (0.9, 1.1))


def test_a_trial_over_the_budget_is_no_step_of_the_front(joint: Record) -> None:
    info = dots.front_info(joint)
    assert any(not dot.feasible for dot in info.dots)
    kept = {(dot.acceptance, dot.predicted) for dot in info.dots if dot.feasible}
    assert set(info.front) <= kept


def test_the_front_is_still_drawn_where_no_trial_kept_the_budget(trials: list[Trial]) -> None:
    assert dots.front_info(record_of(trials, budget=0.5)).front


def test_hovering_a_trial_tells_all_its_settings_and_metrics(joint: Record) -> None:
    info = dots.front_info(joint)
    dot = next(dot for dot in info.dots if dot.on_front and "gaussian" in dot.hover[-1])
    for name in ("scale", "rule", "sigma", "bias", "lookahead", "emit"):
        assert name in dot.hover[-1]
    assert "mse_tol" not in dot.hover[-1]
    for place, label in enumerate(tables.CELLS, start=2):
        told = tables.CELLS[label](next(p for p in joint.front if p.trial.number == dot.number))
        assert dot.hover[place] == told
        assert label.replace(" ", "\u00a0") in tables.HOVER


def test_a_trial_that_was_stopped_early_is_drawn_where_the_closed_form_puts_it(
    joint: Record,
) -> None:
    info = dots.front_info(joint)
    stopped = [trial for trial in joint.trials if trial.state == "pruned"]
    assert [dot.number for dot in info.stopped] == [trial.number for trial in stopped]
    assert not any(dot.feasible or dot.on_front for dot in info.stopped)
    assert "stopped early" in info.stopped[0].hover[1]


def test_only_the_fastest_and_the_slowest_draft_are_labelled(joint: Record) -> None:
    drafts = dots.draft_marks(joint.references)
    assert [draft.scale for draft in drafts if draft.labelled] == [0.5, 0.9]
    assert drafts[0].mse_ratio == pytest.approx(1.09)


# Accuracy, curves, settings


def test_errors_that_differ_widely_are_shown_on_a_logarithmic_axis(
    trials: list[Trial], make_trial: MakeTrial
) -> None:
    wide = record_of([*trials, make_trial(90, mse_ratio=50.0)])
    assert not dots.ratio_info(record_of(trials), "mse_ratio").log
    assert dots.ratio_info(wide, "mse_ratio").log


def test_a_deviation_of_nothing_has_a_place_on_a_logarithmic_axis_and_the_bound_its_line(
    make_trial: MakeTrial,
) -> None:
    trials = make_trial(0, deviation=0.0), make_trial(1, deviation=0.2)
    info = dots.ratio_info(record_of(trials, budget={"deviation_ratio": 0.01}), "deviation_ratio")
    assert info.log
    assert info.places(info.dots) == [dots.NEAREST, pytest.approx(0.5)]
    assert info.bound == 0.01
    assert not info.drafts  # of which it was never counted
    assert dots.ratio_info(record_of(trials), "deviation_ratio").bound is None
    names = [axis.name for axis in axes.settings_info(record_of(trials).complete).axes]
    assert names == ["deviation_ratio"]


def test_a_draft_alone_is_told_with_its_deviation_over_the_targets_error(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(0, settings={"scale": 0.5}, draft={"deviation": 0.006})
    references = record_of([trial]).references
    assert references
    table = tables.drafts_table(references)
    place = table.columns.index("deviation ratio")
    assert [row[place] for row in table.rows] == ["0.0000", "0.0150"]
    assert dots.draft_marks(references)[0].deviation_ratio == pytest.approx(0.015)


def test_losses_of_different_stages_never_share_a_panel() -> None:
    info = curves.curves_info(make_curves())
    titles = [panel.title for panel in info.panels]
    assert titles == ["Target: from scratch", "Drafts: from scratch", "Drafts: distillation"]
    assert [curve.scale for curve in info.panels[1].curves] == list(SCALES)


def test_what_has_no_scale_has_one_colour_whatever_stands_beside_it() -> None:
    alone, mixed = look.paint([None, None]), look.paint([0.5, None])
    assert set(alone["color"]) == {mixed["color"][1]}  # type: ignore[call-overload, index]
    assert alone["coloraxis"] == mixed["coloraxis"]


def test_drafts_without_a_scale_have_a_colour_each() -> None:
    names = {f"draft {scale:.2f}x": f"draft depth {scale:.2f}, width 0.50" for scale in SCALES}
    info = curves.curves_info(make_curves().replace({"label": names}))
    assert {curve.scale for panel in info.panels for curve in panel.curves} == {None}
    traces = curves.curves_figure(info).data
    colours = {trace.name: trace.line.color for trace in traces}
    assert len(set(colours.values())) == len(SCALES) + 1


def test_two_trainings_of_one_label_are_two_curves() -> None:
    frame = make_curves()
    info = curves.curves_info(pd.concat([frame, frame]))
    assert [len(panel.curves) for panel in info.panels] == [2, 10, 10]
    assert all(list(c.epochs) == sorted(set(c.epochs)) for p in info.panels for c in p.curves)


def test_a_setting_that_never_varies_or_never_applies_has_no_axis(trials: list[Trial]) -> None:
    same = with_settings(trials, lambda trial: {"lookahead": 4, "mse_tol": None})
    names = {axis.name for axis in axes.settings_info(record_of(same).complete).axes}
    assert "settings.scale" in names
    assert not names & {"settings.lookahead", "settings.mse_tol"}


def test_a_setting_that_does_not_apply_stands_below_its_axis(joint: Record) -> None:
    info = axes.settings_info(joint.complete)
    (sigma,) = [axis for axis in info.axes if axis.name == "settings.sigma"]
    assert None in sigma.values
    (drawn,) = [
        one for one in axes.settings_figure(info).data[0].dimensions if one.label == sigma.label
    ]
    assert drawn.ticktext[0] == "not used"
    assert min(drawn["values"]) == drawn.tickvals[0] == drawn.range[0]


def test_every_setting_that_a_study_searched_has_an_axis(trials: list[Trial]) -> None:
    searched: dict[str, list[Any]] = {
        "stages": ["scratch", "distilled"],
        "context_policy": ["sliding", "cached"],
        "renorm_every": [0, 4],
        "scope": ["joint", "variate"],
        "quorum": [0.5, 0.75],
        "adapt": [True, False],
        "yet_unknown": [1, 2],
    }
    varied = with_settings(
        trials, lambda trial: {n: values[trial.number % 2] for n, values in searched.items()}
    )
    varied[3] = varied[3].model_copy(update={"settings": varied[3].settings | {"adapt": None}})
    info = axes.settings_info(
        Record(validated(Study, TREE, source="joint"), tuple(varied)).complete
    )
    found = {axis.name.removeprefix("settings."): axis for axis in info.axes}
    assert set(searched) <= set(found)
    assert found["adapt"].categories == ("False", "True")
    assert None in found["adapt"].values
    assert len(axes.settings_figure(info).data[0].dimensions) == len(info.axes)


def test_whatever_its_policy_a_draft_alone_is_held_against_the_same_target(
    make_trial: MakeTrial,
) -> None:
    references = of_two_policies(make_trial).references
    assert references
    ratios = {draft.policy: draft.mse_ratio for draft in dots.draft_marks(references)}
    assert ratios == pytest.approx({"sliding": 0.51 / 0.5, "cached": 0.5 / 0.5})
    shown = {row[0]: row[5] for row in tables.drafts_table(references).rows}
    assert shown == {
        "target, sliding": "1.000",
        "target, cached": "1.100",
        "draft 0.50, sliding": "1.020",
        "draft 0.50, cached": "1.000",
    }


def test_what_a_policy_costs_by_itself_is_said_where_policies_are_compared(
    joint: Record, make_trial: MakeTrial
) -> None:
    reading = reading_of(of_two_policies(make_trial))
    (sentence,) = [sentence for sentence in reading if "by itself" in sentence]
    assert "under sliding" in sentence
    assert "cached 10.0 %" in sentence
    assert any("0.50× draft alone under cached gives 1.000 times" in line for line in reading)
    assert not any("by itself" in sentence for sentence in reading_of(joint))


# Words


def test_a_study_most_of_whose_trials_failed_says_so_with_the_commonest_error(
    joint: Record, make_trial: MakeTrial
) -> None:
    assert not any("failed" in sentence for sentence in reading_of(joint))
    hopeless = [
        t if t.number % 3 == 0 else make_trial(t.number, error="my.csv is gone")
        for t in joint.trials
    ]
    assert any(
        re.search(r"\(\d+ of 90\), most often with: my.csv is gone", sentence)
        for sentence in reading_of(record_of(hopeless))
    )


def test_the_recommended_trial_is_the_one_the_study_chose(joint: Record) -> None:
    best = summary.summary_info(joint).best
    assert joint.choice
    assert best
    assert best.number == joint.choice.trial.number
    assert f"by trial {best.number}" in reading_of(joint)[0]


def test_a_running_study_prefers_what_was_measured_to_what_was_predicted(joint: Record) -> None:
    best = summary.summary_info(joint).best
    assert best
    fastest = max(p.outcome.measured.speedup for p in joint.front if p.outcome.measured)
    assert best.measured
    assert best.high
    assert best.measured <= fastest <= best.high + 0.02  # the intervals of these trials overlap


def test_a_prediction_is_never_told_as_a_measurement(trials: list[Trial]) -> None:
    reading = reading_of(record_of(unmeasured(trials)))
    assert "predicted" in reading[0]
    assert reading[3] == "No speedup has been measured yet."


def test_a_study_without_gain_says_so_plainly(trials: list[Trial], make_trial: MakeTrial) -> None:
    slow = record_of([make_trial(0, predicted_speedup=0.9, speedup=0.88)])
    inexact = record_of(trials, budget=0.5)
    for record, why in (
        (slow, "measured at 0.88x"),
        (inexact, "kept the budget (mse ratio at most 0.5)"),
    ):
        info = summary.summary_info(record)
        assert info.best is None
        assert "should run the target alone: " in info.reading[0]
        assert why in info.reading[0]
        assert "target alone recommended" in study_report.tiles(info)[0].note


def test_too_few_pairs_are_told_as_such_instead_of_an_interval(make_trial: MakeTrial) -> None:
    for pairs, words in ((3, "3 pairs, too few"), (20, "95 % interval 1.48 to 1.53")):
        info = summary.summary_info(record_of([make_trial(0, speedup=1.5, pairs=pairs)]))
        assert words in study_report.tiles(info)[0].note
    (dot,) = dots.dots_of(record_of([make_trial(0, speedup=1.5, pairs=3)]))
    assert "1.50× (3 pairs)" in dot.hover
    assert (dot.low, dot.high) == (None, None)


def test_accuracy_and_acceptance_are_told_with_their_intervals(make_trial: MakeTrial) -> None:
    ends = {"acceptance_interval": (0.71, 0.88), "mse_ratio_interval": (0.991, 1.008)}
    record = record_of([make_trial(0, **ends), make_trial(1, predicted_speedup=3.0, mse=0.5)])
    first, second = (dict(zip(*row, strict=True)) for row in front_rows(record))
    assert (first["accepted"], first["mse ratio"]) == (
        "80.0 % [71.0, 88.0]",
        "1.000 [0.991, 1.008]",
    )
    assert (second["accepted"], second["mse ratio"]) == ("80.0 %", "1.000")
    assert "80.0 % [71.0, 88.0]" in dots.dots_of(record)[0].hover


def front_rows(record: Record) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    table = tables.front_table(record)
    return [(table.columns, row) for row in table.rows]


def test_what_cannot_be_true_is_told_with_its_reason_and_not_drawn(make_trial: MakeTrial) -> None:
    why = "its 3 pairs are 68% of their median apart, over 50%"
    absurd = make_trial(0, predicted_speedup=2.1, mse=0.5, speedup=12.5, pairs=3, doubt=why)
    record = record_of([absurd, make_trial(1, speedup=1.7)])
    assert any("Trial 0 cannot be chosen" in line and why in line for line in reading_of(record))
    assert "12.50× (3 pairs), not believed" in tables.front_table(record).rows[0]
    assert dots.dots_of(record)[0].measured is None


def test_a_gain_within_the_noise_is_no_gain(make_trial: MakeTrial) -> None:
    noisy = record_of([make_trial(0, speedup=1.5, speedup_low=0.97)])
    assert noisy.choice is None
    assert "no gain is established" in reading_of(noisy)[0]


def test_the_tiles_count_what_did_not_complete(joint: Record) -> None:
    shown = {tile.label: tile for tile in study_report.tiles(summary.summary_info(joint))}
    assert shown["Trials complete"].value == str(len(joint.complete))
    assert "2 failed" in shown["Trials complete"].note
    assert shown["Drafts trained"].value == "5"


# Tables


def test_the_front_table_marks_the_recommended_trial(joint: Record) -> None:
    table = tables.front_table(joint)
    assert table.best is not None
    assert joint.choice
    assert table.rows[table.best][0] == str(joint.choice.trial.number)
    assert "emit target" in table.note


def test_every_column_of_the_front_holds_its_own_value(make_trial: MakeTrial) -> None:
    test = {"acceptance_rate": 0.7, "mse": 0.5, "mse_ratio": 1.05, "differs": True}
    trial = make_trial(7, settings={"scale": 0.5}, speedup=1.5, test=test)
    table = tables.front_table(record_of([trial]))
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "trial": "7",
        "scale": "0.50",
        "settings": "",
        "draft": "2×128, 8 heads, ff 256",
        "parameters": "300 k",
        "accepted": "80.0 %",
        "accept length": "2.00",
        "predicted": "1.75×",
        "measured": "1.50× [1.48, 1.53]",
        "mse": "0.4000",
        "mse ratio": "1.000",
        "on test": "1.050 (differs)",
        "deviation ratio": "0.0250",
    }


def shaped(trials: Sequence[Trial]) -> list[Trial]:
    """The trials as those of a study over depth and width."""
    return with_settings(
        trials, lambda trial: {"scale": None, "depth": 0.25, "width": trial.settings["scale"]}
    )


def test_a_front_over_depth_and_width_names_what_differs_and_has_no_column_of_scales(
    trials: list[Trial],
) -> None:
    table = tables.front_table(record_of(shaped(trials)))
    assert "scale" not in table.columns
    assert "depth 0.25" in table.note
    texts = [row[table.columns.index("settings")] for row in table.rows]
    assert all(text.startswith("width 0.") for text in texts)


def test_a_draft_without_a_scale_is_named_by_its_depth_and_width(
    trials: list[Trial], make_trial: MakeTrial
) -> None:
    references = record_of(shaped(trials)).references
    assert references
    named = [row[0] for row in tables.drafts_table(references).rows[1:]]
    assert named == [f"draft depth 0.25, width {scale:.2f}" for scale in reversed(SCALES)]
    assert [mark.size for mark in dots.draft_marks(references)] == [
        f"depth 0.25, width {scale:.2f}" for scale in SCALES
    ]
    both = make_trial(0, settings={"scale": 0.5, "depth": 0.25})
    failed = make_trial(1, error="gone", settings={"scale": 0.5, "depth": 0.25})
    mixed = record_of([both, failed])
    assert [mark.size for mark in dots.draft_marks(mixed.references)] == ["0.50×, depth 0.25"]
    assert tables.failures_table(mixed.trials).rows == (("1", "0.50", "0.25", "gone"),)


def test_a_report_of_a_study_over_depth_and_width_is_written_whole(
    study_dir: Path, trials: list[Trial]
) -> None:
    write_trials(study_dir, shaped(trials))
    html = report.write_report(study_dir).read_text()
    assert "draft width" in html
    assert "depth 0.25, width 0.50" in html


def test_the_target_heads_the_table_of_models(joint: Record) -> None:
    assert joint.references
    rows = tables.drafts_table(joint.references).rows
    assert rows[0][:3] == ("target", "1.24 M", "4×256, 8 heads, ff 512")
    assert len(rows) == 1 + len(SCALES)


def test_a_failed_trial_is_shown_with_its_error(joint: Record) -> None:
    table = tables.failures_table(joint.trials)
    assert [row[0] for row in table.rows] == ["11", "40"]
    assert "MemoryError: &lt;4 GiB&gt;" in page.table_html(table)


# The page


def test_the_report_is_one_file_that_asks_nothing_of_the_network(study_dir: Path) -> None:
    path = report.write_report(study_dir)
    assert path == study_dir / "report.html"
    html = path.read_text()
    assert html.count("plotly.js v") == 1
    assert "default-src 'none'" in html
    assert not re.search(r"<(link|img|iframe)\b|<script[^>]+src=", html.split("<script>")[0])


def test_the_report_holds_every_section(study_dir: Path) -> None:
    text = text_of(report.write_report(study_dir).read_text())
    for title in (
        "Acceptance against speedup",
        "Accuracy against speedup",
        "Fidelity against speedup",
        "Which settings pay",
        "How the models were trained",
        "The front",
        "Target and drafts, each alone",
        "Failed trials",
        "Record",
    ):
        assert title in text
    assert "recommended one: the least mse ratio of the measured points" in text
    front = read_study_files(study_dir).record.front
    assert text.count("foredraft evaluate --target") == len(front) > 1
    assert f"--draft {front[0].outcome.draft.key}" in text


def test_what_the_best_trial_forecasts_is_in_the_report_where_it_is_kept(
    study_dir: Path, keep_example: Callable[..., Any]
) -> None:
    before = study_report.report_html(read_study_files(study_dir))
    assert "forecasts</h2>" not in before
    best = read_study_files(study_dir).record.favourite
    assert best
    keep_example(study_dir, best.trial)
    (section,) = sections.forecast_sections(read_study_files(study_dir))
    assert section.title == f"What trial {best.trial.number} forecasts"
    assert [note.text for note in section.figure.layout.annotations] == [
        *("<b>HUFL, window 1 of 9</b>", "<b>HUFL, window 9 of 9</b>"),
        *("<b>OT, window 1 of 9</b>", "<b>OT, window 9 of 9</b>"),
    ]
    assert f"{section.title}</h2>" in study_report.report_html(read_study_files(study_dir))


def test_no_password_reaches_the_report(study_dir: Path) -> None:
    shared = TREE | {"database": "postgresql://team:s3cret@localhost:1/studies"}
    (study_dir / "study.yaml").write_text(yaml.safe_dump(shared))
    html = report.write_report(study_dir).read_text()
    assert "postgresql://team:***@localhost" in html
    assert "s3cret" not in html


def test_markup_in_a_name_or_a_setting_is_shown_not_run(
    study_dir: Path, trials: list[Trial]
) -> None:
    script = {"emit": "</script><script>alert(1)</script>"}
    write_trials(study_dir, with_settings(trials, lambda trial: script))
    evil = study_dir.rename(study_dir.parent / "<b>joint")
    html = report.write_report(evil).read_text()
    assert "<script>alert" not in html
    assert "<b>joint" not in html


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda trials: [], id="no trials"),
        pytest.param(
            lambda trials: [t for t in trials if t.state != "complete"], id="none complete"
        ),
        pytest.param(lambda trials: trials[:1], id="one trial"),
        pytest.param(unmeasured, id="none measured"),
        pytest.param(
            lambda trials: [t.model_copy(update={"settings": {}}) for t in trials], id="no settings"
        ),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_study_that_is_not_finished_still_has_a_report(
    study_dir: Path, trials: list[Trial], cut: Any, alone: bool
) -> None:
    write_trials(study_dir, cut(trials))
    for name in ("references.json", "curves.parquet", "provenance.json"):
        if alone:
            (study_dir / name).unlink()
    assert "</html>" in report.write_report(study_dir).read_text()


def test_a_study_that_has_only_begun_has_a_report(study_dir: Path) -> None:
    (study_dir / "trials.json").unlink()
    assert "No trial has been completed yet." in report.write_report(study_dir).read_text()


def begun(folder: Path, *trials: Trial) -> Path:
    """A study that was stopped after these were reported, and one more trial was asked for."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(TREE | {"budget": 1.5}))
    (folder / "references.json").write_text(json.dumps({"target": TARGET.model_dump()}))
    study = validated(Study, TREE | {"budget": 1.5}, source="begun")
    searcher = OptunaSearcher(study, open_record(study, folder))
    for trial in trials:
        searcher.suggest(str(trial.number))
        searcher.on_trial_complete(str(trial.number), {TRIAL: trial.model_dump_json()})
    searcher.suggest("running")
    return folder


def test_a_study_that_runs_or_was_stopped_is_reported_as_far_as_it_has_come(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    worse = make_trial(1, predicted_speedup=1.25, mse=0.5)
    over = make_trial(2, predicted_speedup=9.0, mse_ratio=2.0)
    trials = make_trial(0), worse, over, make_trial(3, error="gone")
    folder = begun(tmp_path / "studies" / "begun", *trials)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    html = report.write_report(folder).read_text()
    text = text_of(html)
    assert "at a predicted 1.75×" in text
    assert "by trial 0" in text
    assert "No speedup has been measured yet." in text
    assert "2 within the budget, 1 failed" in text
    assert "target of 1.24 M parameters" in text
    assert "Target and drafts, each alone" in text
    assert "theoretical ceiling" in html
    assert {path: path.read_bytes() for path in before} == before
    assert [p.trial.number for p in read_study_files(folder).record.front] == [0]


def test_what_a_finished_study_measured_outlives_its_storage(
    study_dir: Path, trials: list[Trial]
) -> None:
    assert len(read_study_files(study_dir).record.trials) == 90
    folder = begun(study_dir.parent / "begun", *trials[:1])
    write_trials(folder, trials)
    assert read_study_files(folder).record.trials == tuple(trials)


def test_a_study_of_another_version_is_refused_in_one_line(study_dir: Path) -> None:
    (study_dir / "trials.json").rename(study_dir / "trials.parquet")
    with pytest.raises(ConfigError, match=r"study 'joint' .* --replace") as refusal:
        report.write_report(study_dir)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["references.json", "trials.json", "study.yaml"])
def test_a_file_that_was_left_half_written_is_named(study_dir: Path, name: str) -> None:
    (study_dir / name).write_text("")
    with pytest.raises(ConfigError, match=rf"{name} is empty: ") as refusal:
        report.write_report(study_dir)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("naive_mse", "named"), [(0.1, True), (9.0, False)])
def test_a_target_that_loses_to_seasonal_naive_is_named_in_the_first_paragraph(
    joint: Record, naive_mse: float, named: bool
) -> None:
    naive = Naive(mse=naive_mse, mae=0.3, season=24)
    record = replace(joint, target=TARGET.model_copy(update={"naive": naive}))
    told = [line for line in reading_of(record) if "seasonal naive" in line]
    assert len(told) == named
    if named:
        assert "0.1" in told[0]
        assert "season 24" in told[0]
        assert "train a better target" in told[0]
    assert record.references
    rows = {row[0]: row[3:5] for row in tables.drafts_table(record.references).rows}
    assert rows["seasonal naive, season 24"] == (f"{naive_mse:.4f}", "0.3000")


def test_a_study_of_before_seasonal_naive_was_measured_has_a_report_without_it(
    joint: Record,
) -> None:
    assert joint.target
    assert joint.target.naive is None
    assert not any("naive" in line for line in reading_of(joint))
    assert joint.references
    assert not any("naive" in row[0] for row in tables.drafts_table(joint.references).rows)


def test_two_ladders_are_two_figures() -> None:
    row = dict.fromkeys(("near_mse", "near_mae", "far_mse", "far_mae", "speedup"), 0.5) | {
        **dict.fromkeys(("key", "rung", "way"), "target"),
        **dict.fromkeys(("d_model", "n_heads", "d_ff", "n_layers", "patches_out"), 1),
        **{"parameters": 1000, "near_horizon": 96, "far_horizon": 720},
        **{"acceptance_strict": 0.5, "acceptance_lenient": 0.9},
        **{"speedup_low": 0.4, "speedup_high": 0.6},
    }
    rows = [row | {"way": way} for way in ("target", "speculation", "draft alone")]
    ladders = [{"ladder": {"name": name}, "rows": rows} for name in ("a", "b")]
    html = "".join(study_report.all_ladder_sections(ladders))
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 2
    assert ids == re.findall(r'data-plot="([^"]+)"', html)


def test_a_directory_without_a_study_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        report.write_report(tmp_path)
