"""Claims about the ladder of draft quality: what it tells, what it trains, what its page says.

Its errors are those on the rows of its split, by hand; what could not be judged is not trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foredraft import bank, cli, data
from foredraft.judge import progression
from foredraft.report import ladder as ladder_page
from foredraft.settings.config import Evaluation, Machine, Stage, Training
from foredraft.settings.ladders import LADDERS, Ladder, Rung, ladder_of
from speculation import checkpoint, rollout
from timer_xl import TimerXLConfig

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=12, context=48, d_model=32, n_heads=2, d_ff=64)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of three rungs over a tiny target."""
    storage = tmp_path_factory.mktemp("ladder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(storage / "cache"))
        return climb(storage)


def stage(name: str, **changes: object) -> Stage:
    settings = {"data": DATA, "epochs": 1, "windows_per_epoch": 320, "lr": 2e-3}
    return Stage.model_validate({"name": name} | settings | changes)


def climb(storage: Path) -> Path:
    machine = Machine(cpus=1, use_gpu=False)
    target = bank.obtain(
        Training(model=MODEL, stages=(stage("scratch"),)),
        kind="target",
        storage=storage,
        machine=machine,
    )
    chain = (stage("scratch"), stage("distill", windows=300, epochs=2))
    ladder = Ladder(
        name="tiny",
        target=target.name,
        rungs=(
            Rung(name="from scratch", scales=(0.5,), stages=chain[:1]),
            Rung(name="distilled", scales=(0.5,), stages=chain),
            Rung(name="best of two", scales=(0.75, 1.0), stages=chain[:1], patches_out=2),
            Rung(
                name="heads",
                kind="heads",
                stages=(stage("heads", windows=300, epochs=2),),
                patches_out=3,
            ),
        ),
        evaluation=Evaluation(data=DATA, split="test", horizon=48, windows=8),
        pairs=3,
    )
    return progression.climb(ladder, storage=storage, machine=machine, say=lambda text: None)


def rows(directory: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = ladder_page.read_ladder(directory)["rows"]
    return found


def test_every_rung_is_told_with_its_target_and_without(climbed: Path) -> None:
    assert [(row["rung"], row["way"]) for row in rows(climbed)] == [
        ("target", "target"),
        ("season 24", "seasonal naive"),
        *(
            (rung, way)
            for rung in ("from scratch", "distilled", "best of two", "heads")
            for way in ("speculation", "draft alone")
        ),
    ]


def test_one_patch_ahead_speculation_is_the_target_itself(climbed: Path) -> None:
    target, _, *others = rows(climbed)
    for row in others:
        if row["way"] == "speculation":
            assert row["near_mse"] == pytest.approx(target["near_mse"], rel=1e-5)


def test_the_lenient_rule_of_the_study_accepts_whatever_the_strict_one_does(climbed: Path) -> None:
    for row in rows(climbed)[2::2]:
        assert row["acceptance_lenient"] == 1.0
        assert row["acceptance_strict"] <= row["acceptance_lenient"]  # type: ignore[operator]


def test_the_errors_of_a_ladder_are_those_on_the_rows_of_its_split(climbed: Path) -> None:
    told, *_ = rows(climbed)
    path = bank.find(str(told["key"]), kind="target", storage=climbed.parents[1])
    dataset = data.load(DATA)
    first, end = dataset.splits["test"]
    learnt_TC = dataset.values_TC[slice(*dataset.splits["train"])].astype(np.float64)
    values_TC = (dataset.values_TC - learnt_TC.mean(axis=0)) / learnt_TC.std(axis=0)
    for horizon, name in ((12, "near"), (48, "far")):
        starts = [first + (end - first - horizon) * number // 7 for number in range(8)]
        contexts, truths = (
            torch.from_numpy(np.stack([values_TC[a:b] for a, b in parts])).float()
            for parts in (
                [(start - 48, start) for start in starts],
                [(start, start + horizon) for start in starts],
            )
        )
        forecast = rollout(checkpoint.load(path), contexts, horizon=horizon)
        assert told[f"{name}_horizon"] == horizon
        assert told[f"{name}_mse"] == pytest.approx(
            float((forecast - truths).square().mean()), rel=1e-4
        )
        assert told[f"{name}_mae"] == pytest.approx(
            float((forecast - truths).abs().mean()), rel=1e-4
        )


def test_a_draft_alone_is_told_with_its_own_errors_beside_the_targets(climbed: Path) -> None:
    target, _, *others = rows(climbed)
    for speculation, alone in zip(others[::2], others[1::2], strict=True):
        assert alone["mse_ratio"] == pytest.approx(alone["far_mse"] / target["far_mse"])  # type: ignore[operator]
        assert speculation["mse_ratio"] == pytest.approx(
            speculation["far_mse"] / target["far_mse"]  # type: ignore[operator]
        )
        assert alone["deviation"] > speculation["deviation"] >= 0  # type: ignore[operator]
        for row in (alone, speculation):
            ratio = row["deviation"] / target["far_mse"]  # type: ignore[operator]
            assert row["deviation_ratio"] == pytest.approx(ratio)
        # The first patch of heads alone is the target's own.
        same = alone["near_mse"] == pytest.approx(target["near_mse"], rel=1e-6)
        assert same == (alone["rung"] == "heads")
        assert alone["key"] == speculation["key"]


def test_of_several_scales_the_one_is_shown_that_is_accepted_most_on_validation(
    climbed: Path,
) -> None:
    shown = next(row for row in rows(climbed) if row["rung"] == "best of two")
    storage = climbed.parents[1]
    trained = [bank.open_model(path) for path in bank.models("draft", storage=storage)]
    rivals = [m for m in trained if m.config.patches_out == 2]
    assert len(rivals) == 2
    best = max(rivals, key=lambda model: model.metrics["acceptance_rate"])
    chosen = next(model for model in rivals if model.key == shown["key"])
    assert chosen.metrics["acceptance_rate"] == best.metrics["acceptance_rate"]


def test_the_page_holds_every_rung_and_loads_nothing(climbed: Path) -> None:
    text = ladder_page.write_page(climbed).read_text()
    for name in ("from scratch", "distilled", "best of two", "draft alone"):
        assert name in text
    assert 'src="http' not in text


def test_the_report_of_a_study_with_the_ladders_target_holds_the_ladder(climbed: Path) -> None:
    key = str(rows(climbed)[0]["key"])
    storage = climbed.parents[1]
    assert len(ladder_page.ladders_of(key, storage=storage)) == 1
    assert ladder_page.ladders_of("another", storage=storage) == []


def info(**changes: Any) -> ladder_page.LadderInfo:
    step = {
        "strict": 0.9,
        "lenient": 1.0,
        "error": 0.4,
        "error_alone": 0.5,
        "speed": 1.5,
        "low": 1.4,
        "high": 1.6,
        "speed_alone": 3.0,
    }
    first = ladder_page.Step(name="scratch", **(step | {"strict": 0.1}))
    last = ladder_page.Step(**({"name": "distilled"} | step | changes))
    return ladder_page.LadderInfo((first, last), target_error=0.4, horizon=720)


def said(**changes: float) -> str:
    return " ".join(ladder_page.ladder_sentences(info(**changes)))


def test_a_draft_as_good_as_its_target_makes_the_ladder_say_that_speculation_is_pointless() -> None:
    assert "speculation is pointless" in said(error_alone=0.4)
    assert "best of all distilled (mse 0.400 against 0.400" in said(error_alone=0.4)


def test_a_target_that_loses_to_seasonal_naive_is_named_first() -> None:
    first = ladder_page.ladder_sentences(info()._replace(naive_error=0.39))[0]
    assert "(mse 0.400) is no better than seasonal naive (0.390)" in first
    for error in (0.41, None):
        told = ladder_page.ladder_sentences(info()._replace(naive_error=error))
        assert not any("naive" in sentence for sentence in told)


def test_a_target_that_no_draft_reaches_earns_its_cost() -> None:
    assert "it earns its cost" in said()


def test_a_speedup_whose_interval_reaches_down_to_one_is_not_claimed() -> None:
    slow = ladder_page.LadderInfo(
        tuple(step._replace(low=0.9) for step in info().steps), target_error=0.4, horizon=720
    )
    assert "No rung is established to be faster" in " ".join(ladder_page.ladder_sentences(slow))
    assert "Speculation is fastest with" in said()


def test_a_rung_is_named_the_fastest_only_where_its_interval_proves_it() -> None:
    lucky, sure = info(name="lucky", speed=1.5, low=0.9), info(name="sure", speed=1.2, low=1.1)
    both = ladder_page.LadderInfo((lucky.steps[1], sure.steps[1]), target_error=0.4, horizon=720)
    assert "fastest with sure: 1.20" in " ".join(ladder_page.ladder_sentences(both))


def test_the_figure_draws_every_rung_in_every_panel() -> None:
    figure = ladder_page.ladder_figure(info())
    assert all(list(trace.y) == ["scratch", "distilled"] for trace in figure.data)
    assert len({trace.xaxis for trace in figure.data}) == 3


@pytest.mark.parametrize("name", sorted(LADDERS))
def test_a_named_ladder_is_complete_and_survives_json(name: str) -> None:
    ladder = ladder_of(name)
    assert Ladder.model_validate(json.loads(ladder.model_dump_json())) == ladder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--windows", "0"], "--windows is 0"),
        (["--windows", "-3"], "--windows is -3"),
        (["--seed", "-1"], "seed is -1"),
        (["--target", "nowhere"], "'nowhere' is no trained target"),
    ],
)
def test_a_ladder_that_could_not_be_judged_is_refused_before_anything_is_trained(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["progression", "--recipe", "demo", "--storage", str(tmp_path / "runs"), *words]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "runs").exists()


def tiny(**changes: Any) -> Ladder:
    rung = Rung(name="only", scales=(0.5,), stages=(stage("scratch"),))
    evaluation = Evaluation(data=DATA, split="test", horizon=48, windows=8)
    content = {"name": "tiny", "target": "demo", "rungs": (rung,), "evaluation": evaluation}
    return Ladder(**(content | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": Evaluation(data=DATA, split="test", horizon=300)}, "horizon 300"),
        ({"evaluation": Evaluation(data="nothing.csv")}, "nothing.csv does not exist"),
        (
            {"rungs": (Rung(name="bad", scales=(0.5, 0.01), stages=(stage("scratch"),)),)},
            "scale is 0.01",
        ),
        (
            {
                "rungs": (
                    Rung(
                        name="short",
                        scales=(0.5,),
                        stages=(stage("scratch", data="synthetic-etth:rows=300"),),
                        patches_out=7,
                    ),
                )
            },
            "train has 210 rows",
        ),
    ],
)
def test_a_rung_that_would_fail_stops_the_ladder_before_its_target_is_trained(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    told: list[str] = []
    with pytest.raises(ValueError, match=said):
        progression.climb(
            tiny(**changes), storage=tmp_path / "runs", machine=Machine(cpus=1), say=told.append
        )
    assert told == []
    assert not (tmp_path / "runs").exists()


def test_a_ladder_takes_another_target_number_of_windows_and_seed() -> None:
    own, changed = ladder_of("demo"), ladder_of("demo", target="0fb0", windows=5, seed=3)
    assert (changed.target, changed.evaluation.windows, changed.seed) == ("0fb0", 5, 3)
    evaluation = own.evaluation.model_copy(update={"windows": 5})
    assert own == changed.model_copy(
        update={"target": own.target, "evaluation": own.evaluation, "seed": own.seed}
    )
    assert changed.evaluation == evaluation


def test_a_ladder_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="ladder 'nothing' does not exist; there are: demo"):
        ladder_of("nothing")
