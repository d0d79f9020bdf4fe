"""Claims about the report: what it says of a study, and that it says it of any study.

A study that runs or was stopped is told as far as it has come; like is compared with like.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from foredraft import report
from foredraft.errors import ConfigError
from foredraft.report import directory, figures, information, page, study_report, tables
from foredraft.search import record
from foredraft.search.searcher import OptunaSearcher, open_record
from foredraft.settings.config import validated
from foredraft.settings.study import Study

SCALES = (0.5, 0.6, 0.7, 0.8, 0.9)
TARGET = {"key": "t-1f", "parameters": 1_240_000, "n_layers": 4, "d_model": 256, "n_heads": 8}


def cost(scale: float) -> float:
    """A step of the draft over a step of the target."""
    return 0.02 + 0.7 * scale**1.7


def speed(acceptance: float, lookahead: int, scale: float) -> float:
    return sum(acceptance**n for n in range(lookahead + 1)) / (1 + lookahead * cost(scale))


REFERENCES: dict[str, Any] = {
    "target": {**TARGET, "d_ff": 512, "mse": 0.3712, "mae": 0.3986, "step_s": 0.0061},
    "drafts": [
        {
            "key": f"d-{scale}",
            "scale": scale,
            "parameters": int(1_240_000 * scale**2.4),
            "mse": 0.3712 * (1.16 - 0.14 * scale),
            "mae": 0.3986 * (1.1 - 0.09 * scale),
            "speedup_alone": 1 / (0.12 + 0.85 * scale),
        }
        for scale in SCALES
    ],
    "ceiling": [
        {"acceptance": a / 20, "speedup": max(speed(a / 20, k, SCALES[0]) for k in range(1, 7))}
        for a in range(21)
    ],
    "horizon": 336,
    "patch": 96,
    "batch": 1,
    "budget": 1.01,
}


def make_trials(count: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame([make_trial(number, rng) for number in range(count)]).pipe(mark_front)


def make_trial(number: int, rng: np.random.Generator) -> dict[str, Any]:
    scale = float(rng.choice(SCALES))
    rule = str(rng.choice(["gaussian", "tolerance", "lossless"], p=[0.5, 0.35, 0.15]))
    lenience = 0.0 if rule == "lossless" else float(rng.uniform())
    lookahead = int(rng.integers(1, 7))
    acceptance = min(0.99, 0.22 + 0.35 * scale + 0.4 * lenience + float(rng.normal(0, 0.04)))
    predicted = speed(acceptance, lookahead, scale)
    length = predicted * (1 + lookahead * cost(scale))
    ratio = 1 + 0.035 * lenience**2 * (1.2 - scale) + float(rng.normal(0, 0.001))
    state = "failed" if number in (11, 40) else "pruned" if number % 9 == 4 else "complete"
    done = state == "complete"
    return {
        "number": number,
        "state": state,
        "error": "Traceback\n  ...\nMemoryError: <4 GiB>" if state == "failed" else None,
        "settings.scale": scale,
        "settings.rule": rule,
        "settings.sigma": float(10 ** (2 * lenience - 1.5)) if rule == "gaussian" else None,
        "settings.bias": float(10 ** (2 * lenience)) if rule == "gaussian" else None,
        "settings.mse_tol": float(10 ** (2.5 * lenience - 2)) if rule == "tolerance" else None,
        "settings.lookahead": lookahead,
        "settings.emit": "target",
        "settings.context_policy": "sliding",
        "draft_key": f"d-{scale}",
        "d_model": int(256 * scale) // 8 * 8,
        "n_heads": 8,
        "d_ff": int(512 * scale),
        "n_layers": max(1, round(4 * scale)),
        "parameters": int(1_240_000 * scale**2.4),
        "acceptance_rate": acceptance if done else None,
        "accept_length": length if done else None,
        "predicted_speedup": predicted if done else None,
        "mse": 0.3712 * ratio if done else None,
        "mae": 0.3986 * ratio if done else None,
        "mse_ratio": ratio if done else None,
        "deviation": 0.004 * lenience if done else None,
        "seconds": float(rng.uniform(8, 60)),
        "feasible": done and ratio <= REFERENCES["budget"],
    }


def mark_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Mark those that no feasible trial beats in all three objectives, and "measure" them."""
    rng = np.random.default_rng(8)
    able = trials[trials["feasible"]]
    gains = able[["acceptance_rate", "predicted_speedup"]].assign(e=-able["mse_ratio"]).to_numpy()
    beaten = [bool(((gains >= one).all(1) & (gains > one).any(1)).any()) for one in gains]
    front = able.index[~np.array(beaten, dtype=bool)]
    trials["on_front"] = trials.index.isin(front)
    measured = trials["predicted_speedup"] * rng.normal(0.98, 0.02, len(trials))
    trials["speedup"] = measured.where(trials["on_front"])
    trials["speedup_low"] = trials["speedup"] - 0.02
    trials["speedup_high"] = trials["speedup"] + 0.03
    return trials


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
def trials() -> pd.DataFrame:
    return make_trials()


@pytest.fixture
def best(trials: pd.DataFrame) -> dict[str, Any]:
    pick = trials.loc[trials["speedup"].idxmax()]
    return {"number": int(pick["number"]), "rule": "The fastest measured one within the budget."}


@pytest.fixture
def study_dir(tmp_path: Path, trials: pd.DataFrame, best: dict[str, Any]) -> Path:
    folder = tmp_path / "studies" / "joint"
    folder.mkdir(parents=True)
    resolved = {"target": {"recipe": "etth1"}, "storage": "postgresql://team:s3cret@db/studies"}
    made = {"time_utc": "2025-03-01T10:22:00+00:00", "versions": {"torch": "2.6.0"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(resolved))
    trials.to_parquet(folder / "trials.parquet")
    make_curves().to_parquet(folder / "curves.parquet")
    (folder / "best.json").write_text(json.dumps(best))
    (folder / "references.json").write_text(json.dumps(REFERENCES))
    (folder / "provenance.json").write_text(json.dumps(made))
    return folder


def front_of(trials: pd.DataFrame) -> information.FrontInfo:
    return information.front_info(trials, references=REFERENCES)


def summary_of(
    trials: pd.DataFrame, *, best: dict[str, Any] | None = None, **references: Any
) -> information.Summary:
    known = {**REFERENCES, **references}
    return information.summary_info(trials, references=known, best=best or {})


def of_two_policies() -> dict[str, Any]:
    """References of a study that compares context policies: one of them costs a tenth by itself."""
    target = {
        **REFERENCES["target"],
        "mse": 0.5,
        "policies": {"sliding": {"mse": 0.5, "mae": 0.4}, "cached": {"mse": 0.55, "mae": 0.42}},
    }
    draft = {"key": "d", "scale": 0.5, "parameters": 1, "speedup_alone": 3.0}
    drafts = [
        {**draft, "policy": "sliding", "mse": 0.51},
        {**draft, "policy": "cached", "mse": 0.5},
    ]
    return {**REFERENCES, "target": target, "drafts": drafts}


def drafts_as_exact_as(ratio: float, *, speedup: float) -> list[dict[str, Any]]:
    mse = REFERENCES["target"]["mse"] * ratio
    return [{"key": "d", "scale": 0.5, "parameters": 1, "mse": mse, "speedup_alone": speedup}]


def text_of(html: str) -> str:
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", without)


# The front


def test_every_complete_trial_is_a_point_and_no_other(trials: pd.DataFrame) -> None:
    complete = trials.loc[trials["state"] == "complete", "number"]
    assert [point.number for point in front_of(trials).points] == complete.tolist()


def test_no_trial_of_the_front_beats_the_staircase(trials: pd.DataFrame) -> None:
    info = front_of(trials)
    assert info.front
    for point in info.points:
        if point.on_front:
            assert any(x >= point.acceptance and y >= point.predicted for x, y in info.front)


def test_the_staircase_never_rises_with_acceptance() -> None:
    stairs = information.staircase([(0.5, 2.0), (0.6, 1.0), (0.7, 1.5), (0.7, 1.2), (0.9, 1.1)])
    assert stairs == ((0.5, 2.0), (0.7, 1.5), (0.9, 1.1))


def test_a_trial_over_the_budget_is_no_step_of_the_front(trials: pd.DataFrame) -> None:
    trials["on_front"] = trials["state"] == "complete"
    kept = {(p.acceptance, p.predicted) for p in front_of(trials).points if p.feasible}
    assert set(front_of(trials).front) <= kept


def test_the_front_is_still_drawn_where_no_trial_kept_the_budget(trials: pd.DataFrame) -> None:
    trials["feasible"] = False
    assert front_of(trials).front


def test_measured_speedups_lie_within_their_interval(trials: pd.DataFrame) -> None:
    measured = [point for point in front_of(trials).points if point.measured is not None]
    assert len(measured) == trials["on_front"].sum()
    assert all(p.low <= p.measured <= p.high for p in measured)  # type: ignore[operator]


def test_hovering_a_trial_tells_all_its_settings_and_metrics(trials: pd.DataFrame) -> None:
    point = next(p for p in front_of(trials).points if p.on_front and "gaussian" in p.hover)
    for name in (
        "scale",
        "rule",
        "sigma",
        "bias",
        "lookahead",
        "emit",
        "mse\u00a0ratio",
        "measured",
    ):
        assert name in point.hover
    assert "mse_tol" not in point.hover


def test_only_the_fastest_and_the_slowest_draft_are_labelled() -> None:
    drafts = information.drafts_info(REFERENCES)
    assert [draft.scale for draft in drafts if draft.labelled] == [0.5, 0.9]
    assert drafts[0].mse_ratio == pytest.approx(1.09)


# Accuracy, curves, settings


def test_errors_that_differ_widely_are_shown_on_a_logarithmic_axis(trials: pd.DataFrame) -> None:
    assert not information.accuracy_info(trials, references=REFERENCES).log
    trials.loc[0, "mse_ratio"] = 50.0
    assert information.accuracy_info(trials, references=REFERENCES).log


def test_an_error_that_is_not_finite_is_not_drawn(trials: pd.DataFrame) -> None:
    trials.loc[0, "mse_ratio"] = np.inf
    info = information.accuracy_info(trials, references=REFERENCES)
    assert 0 not in [point.number for point in info.points]


def test_losses_of_different_stages_never_share_a_panel() -> None:
    info = information.curves_info(make_curves())
    titles = [panel.title for panel in info.panels]
    assert titles == ["Target: from scratch", "Drafts: from scratch", "Drafts: distillation"]
    assert [curve.scale for curve in info.panels[1].curves] == list(SCALES)


def test_two_trainings_of_one_label_are_two_curves() -> None:
    curves = make_curves()
    info = information.curves_info(pd.concat([curves, curves]))
    assert [len(panel.curves) for panel in info.panels] == [2, 10, 10]
    assert all(list(c.epochs) == sorted(set(c.epochs)) for p in info.panels for c in p.curves)


def test_a_setting_that_never_varies_or_never_applies_has_no_axis(trials: pd.DataFrame) -> None:
    trials["settings.lookahead"], trials["settings.mse_tol"] = 4, None
    names = {axis.name for axis in information.settings_info(trials).axes}
    assert "settings.scale" in names
    assert not names & {"settings.lookahead", "settings.mse_tol"}


def test_a_setting_that_does_not_apply_stands_below_its_axis(trials: pd.DataFrame) -> None:
    info = information.settings_info(trials)
    (sigma,) = [axis for axis in info.axes if axis.name == "settings.sigma"]
    assert None in sigma.values
    (drawn,) = [
        one for one in figures.settings_figure(info).data[0].dimensions if one.label == sigma.label
    ]
    assert drawn.ticktext[0] == "not used"
    assert min(drawn["values"]) == drawn.tickvals[0] == drawn.range[0]


def test_every_setting_that_a_study_searched_has_an_axis(trials: pd.DataFrame) -> None:
    searched = {
        "stages": ["scratch", "distilled"],
        "context_policy": ["sliding", "cached"],
        "renorm_every": [0, 4],
        "scope": ["joint", "variate"],
        "quorum": [0.5, 0.75],
        "adapt": [True, False],
        "yet_unknown": [1, 2],
    }
    for name, values in searched.items():
        trials[f"settings.{name}"] = [values[number % 2] for number in trials["number"]]
    # Where a trial has none, a column of truth values holds objects.
    trials["settings.adapt"] = trials["settings.adapt"].astype(object)
    trials.loc[3, "settings.adapt"] = None
    info = information.settings_info(trials)
    axes = {axis.name.removeprefix("settings."): axis for axis in info.axes}
    assert set(searched) <= set(axes)
    assert axes["adapt"].categories == ("False", "True")
    assert None in axes["adapt"].values
    assert len(figures.settings_figure(info).data[0].dimensions) == len(info.axes)


def test_a_draft_alone_is_compared_with_the_target_under_the_same_policy(
    trials: pd.DataFrame,
) -> None:
    ratios = {d.policy: d.mse_ratio for d in information.drafts_info(of_two_policies())}
    assert ratios == pytest.approx({"sliding": 0.51 / 0.5, "cached": 0.5 / 0.55})
    rows = tables.drafts_table(trials, references=of_two_policies()).rows
    told = {row[0]: row[5] for row in rows}
    assert told == {
        "target, sliding": "1.000",
        "target, cached": "1.000",
        "draft 0.50, sliding": "1.020",
        "draft 0.50, cached": "0.909",
    }


def test_what_a_policy_costs_by_itself_is_said_where_policies_are_compared(
    trials: pd.DataFrame,
) -> None:
    references = of_two_policies()
    reading = information.summary_info(trials, references=references, best={}).reading
    (said,) = [sentence for sentence in reading if "by itself" in sentence]
    assert "under sliding" in said
    assert "cached 10.0 %" in said
    assert any("draft alone, under cached, is as accurate" in sentence for sentence in reading)
    one = information.summary_info(trials, references=REFERENCES, best={}).reading
    assert not any("by itself" in sentence for sentence in one)


# Words


def test_a_study_most_of_whose_trials_failed_says_so_with_the_commonest_error(
    trials: pd.DataFrame,
) -> None:
    assert not any("failed" in sentence for sentence in summary_of(trials).reading)
    trials.loc[trials["number"] % 3 > 0, ["state", "error"]] = ["failed", "my.csv is gone"]
    assert any(
        re.search(r"\(\d+ of 90\), most often with: my.csv is gone", sentence)
        for sentence in summary_of(trials).reading
    )


def test_the_recommended_trial_is_the_one_the_study_chose(
    trials: pd.DataFrame, best: dict[str, Any]
) -> None:
    summary = summary_of(trials, best=best)
    assert summary.best is not None
    assert summary.best.number == best["number"]
    assert f"Trial {best['number']} forecasts" in summary.reading[0]


def test_a_running_study_prefers_what_was_measured_to_what_was_predicted(
    trials: pd.DataFrame,
) -> None:
    best = summary_of(trials).best
    assert best is not None
    assert best.measured == trials.loc[trials["feasible"], "speedup"].max()


def test_a_prediction_is_never_told_as_a_measurement(trials: pd.DataFrame) -> None:
    reading = summary_of(trials.drop(columns=["speedup", "speedup_low", "speedup_high"])).reading
    assert "predicted" in reading[0]
    assert reading[1] == "No speedup has been measured yet."


def test_a_study_without_gain_says_so_plainly(trials: pd.DataFrame) -> None:
    slow = trials.assign(predicted_speedup=0.9, speedup=0.88)
    plain = "No trial was faster than the target alone within the accuracy budget."
    assert summary_of(slow).reading[0] == plain
    inexact = summary_of(trials.assign(feasible=False))
    assert inexact.best is None
    assert inexact.reading[0] == plain


def test_too_few_pairs_are_told_as_a_range(trials: pd.DataFrame) -> None:
    few, enough = trials.assign(pairs=3), trials.assign(pairs=20)
    for frame, said in ((few, "range of 3 pairs"), (enough, "95 % interval")):
        assert said in study_report.tiles(summary_of(frame))[0].note
    point = next(p for p in front_of(few).points if p.measured)
    assert "range\u00a0of\u00a03\u00a0pairs" in point.hover


def test_a_gain_within_the_noise_is_called_not_established(trials: pd.DataFrame) -> None:
    trials["speedup_low"] = 0.97
    assert any("not established" in sentence for sentence in summary_of(trials).reading)


@pytest.mark.parametrize(
    ("ratio", "speedup", "verdict"),
    [
        (0.99, 1.8, "speculation is pointless"),
        (0.99, 1.1, "could take its place"),
        (0.99, 0.9, None),
        (1.005, 1.8, "faster still"),
        (1.005, 1.1, None),
        (1.2, 1.8, None),
    ],
)
def test_a_draft_that_would_do_alone_is_named(
    trials: pd.DataFrame, ratio: float, speedup: float, verdict: str | None
) -> None:
    drafts = drafts_as_exact_as(ratio, speedup=speedup)
    reading = " ".join(summary_of(trials, drafts=drafts).reading)
    assert ("draft alone" in reading) is (verdict is not None)
    assert verdict is None or verdict in reading


def test_the_tiles_count_what_did_not_complete(trials: pd.DataFrame) -> None:
    shown = {tile.label: tile for tile in study_report.tiles(summary_of(trials))}
    assert shown["Trials complete"].value == str((trials["state"] == "complete").sum())
    assert "2 failed" in shown["Trials complete"].note
    assert shown["Drafts trained"].value == "5"


# Tables


def test_the_front_table_marks_the_recommended_trial(
    trials: pd.DataFrame, best: dict[str, Any]
) -> None:
    table = tables.front_table(trials, best=best)
    assert table.best is not None
    assert table.rows[table.best][0] == str(best["number"])
    assert "emit target" in table.note


def test_sizes_are_whole_numbers_even_where_a_trial_lacks_them(
    trials: pd.DataFrame, best: dict[str, Any]
) -> None:
    trials.loc[11, ["d_model", "n_heads", "d_ff", "n_layers"]] = np.nan
    drafts = {row[3] for row in tables.front_table(trials, best=best).rows}
    assert "2×128, 8 heads, ff 256" in drafts


def test_the_target_heads_the_table_of_models(trials: pd.DataFrame) -> None:
    rows = tables.drafts_table(trials, references=REFERENCES).rows
    assert rows[0][:2] == ("target", "1.24 M")
    assert len(rows) == 1 + len(SCALES)


def test_a_failed_trial_is_shown_with_its_error(trials: pd.DataFrame) -> None:
    table = tables.failures_table(trials)
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
        "Which settings pay",
        "How the models were trained",
        "The front",
        "Target and drafts, each alone",
        "Failed trials",
        "Record",
    ):
        assert title in text
    assert "The fastest measured one within the budget." in text


def test_no_password_reaches_the_report(study_dir: Path) -> None:
    assert "s3cret" not in report.write_report(study_dir).read_text()


def test_markup_in_a_name_or_a_setting_is_shown_not_run(study_dir: Path) -> None:
    trials = make_trials().assign(**{"settings.emit": "</script><script>alert(1)</script>"})
    trials.to_parquet(study_dir / "trials.parquet")
    evil = study_dir.rename(study_dir.parent / "<b>joint")
    html = report.write_report(evil).read_text()
    assert "<script>alert" not in html
    assert "<b>joint" not in html


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda t: t.iloc[:0], id="no trials"),
        pytest.param(lambda t: t[t["state"] != "complete"], id="none complete"),
        pytest.param(lambda t: t.iloc[:1], id="one trial"),
        pytest.param(lambda t: t.assign(feasible=False), id="none within the budget"),
        pytest.param(lambda t: t.assign(speedup=np.nan), id="none measured"),
        pytest.param(lambda t: t.drop(columns="settings.scale"), id="no scale"),
        pytest.param(lambda t: t.assign(on_front=False), id="no front"),
        pytest.param(lambda t: t[["number", "state"]], id="no columns but number and state"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_study_that_is_not_finished_still_has_a_report(
    study_dir: Path, trials: pd.DataFrame, cut: Any, alone: bool
) -> None:
    cut(trials).to_parquet(study_dir / "trials.parquet")
    for name in ("best.json", "references.json", "curves.parquet", "provenance.json"):
        if alone:
            (study_dir / name).unlink()
    assert "</html>" in report.write_report(study_dir).read_text()


def test_a_study_that_has_only_begun_has_a_report(study_dir: Path) -> None:
    (study_dir / "trials.parquet").unlink()
    assert "No trial has been completed yet." in report.write_report(study_dir).read_text()


def begun(folder: Path, *rows: dict[str, Any]) -> Path:
    """A study that was stopped after these rows were reported, and one trial was asked for."""
    stage = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
    tree = {
        "name": "begun",
        "target": "demo",
        "draft": {"stages": [stage]},
        "evaluation": {"data": stage["data"], "horizon": 60},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
        "budget": 1.5,
    }
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    study = validated(Study, tree, source="begun")
    searcher = OptunaSearcher(study, open_record(study, folder))
    for number, row in enumerate(rows):
        searcher.suggest(str(number))
        searcher.on_trial_complete(str(number), {record.ROW: json.dumps(row)})
    searcher.suggest("running")
    return folder


REPORTED = {
    **{"acceptance_rate": 0.8, "predicted_speedup": 1.75, "mse": 0.4, "mse_ratio": 1.0},
    **{"accept_length": 2.0, "stopped": None},
}


def test_a_study_that_runs_or_was_stopped_is_reported_as_far_as_it_has_come(
    tmp_path: Path,
) -> None:
    worse = {**REPORTED, "predicted_speedup": 1.25, "mse": 0.5}
    over = {**REPORTED, "predicted_speedup": 9.0, "mse_ratio": 2.0}
    folder = begun(tmp_path / "studies" / "begun", REPORTED, worse, over, {"error": "gone"})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    text = text_of(report.write_report(folder).read_text())
    assert "is predicted to forecast 1.75× as fast" in text
    assert "No speedup has been measured yet." in text
    assert "2 within the budget, 1 failed" in text
    assert {path: path.read_bytes() for path in before} == before
    trials = directory.read_study(folder).trials
    assert trials.loc[trials["on_front"], "number"].tolist() == [0]


def test_what_a_finished_study_measured_outlives_its_storage(study_dir: Path) -> None:
    folder = begun(study_dir.parent / "begun", REPORTED)
    make_trials().to_parquet(folder / "trials.parquet")
    assert len(directory.read_study(folder).trials) == 90


def test_a_storage_is_never_made_by_looking_for_it(tmp_path: Path) -> None:
    folder = begun(tmp_path / "begun")
    study = validated(Study, yaml.safe_load((folder / "study.yaml").read_text()), source="begun")
    (folder / "study.db").unlink()
    assert record.trials_of(study, folder) == []
    (folder / "study.db").touch()  # a driver that died in its first moment
    assert record.trials_of(study, folder) == []
    assert not (folder / "study.db").read_bytes()


@pytest.mark.parametrize("name", ["references.json", "best.json", "study.yaml"])
def test_a_file_that_was_left_half_written_is_named(study_dir: Path, name: str) -> None:
    (study_dir / name).write_text("")
    with pytest.raises(ConfigError, match=rf"{name} is empty: ") as refusal:
        report.write_report(study_dir)
    assert "\n" not in str(refusal.value)


def test_two_ladders_are_two_figures() -> None:
    row = dict.fromkeys(("near_mse", "near_mae", "far_mse", "far_mae", "speedup"), 0.5) | {
        **dict.fromkeys(("key", "rung", "way"), "target"),
        **dict.fromkeys(("d_model", "n_heads", "d_ff", "n_layers", "patches_out"), 1),
        **{"parameters": 1000, "near_horizon": 96, "far_horizon": 720},
        **{"acceptance_strict": 0.5, "acceptance_lenient": 0.9},
        **{"speedup_low": 0.4, "speedup_high": 0.6},
    }
    ladders = [{"ladder": {"name": name}, "rows": [row] * 3} for name in ("a", "b")]
    html = "".join(study_report.all_ladder_sections(ladders))
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 2
    assert ids == re.findall(r'data-plot="([^"]+)"', html)


def test_a_reference_that_is_not_a_number_counts_as_missing(study_dir: Path) -> None:
    drafts = drafts_as_exact_as(0.99, speedup=float("nan"))
    text = json.dumps({**REFERENCES, "drafts": drafts})
    assert "NaN" in text
    (study_dir / "references.json").write_text(text)
    assert information.drafts_info(directory.read_study(study_dir).references)[0].speedup is None
    assert "</html>" in report.write_report(study_dir).read_text()


def test_a_directory_without_a_study_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        report.write_report(tmp_path)
