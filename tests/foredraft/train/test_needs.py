"""Claims about what a training asks before it starts, and how it ends where it went wrong.

Whatever would stop its last stage stops it before its first; holes are filled where a stage says
so; numbers without an end are refused, and a loss that became one ends the training in one line.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foredraft import bank, cli, data, train
from foredraft.errors import ConfigError
from foredraft.judge.examine import Examiner
from foredraft.search import plan
from foredraft.settings.config import Evaluation, Machine, Stage, Training, validated
from timer_xl import TimerXLConfig

DATA = "synthetic-etth:rows=600"
MODEL = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=32, n_layers=1)
ALONE = Machine(cpus=1, use_gpu=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stage(**changes: object) -> Stage:
    settings = {"name": "scratch", "data": DATA, "epochs": 1, "windows_per_epoch": 32, "lr": 1e-3}
    return Stage.model_validate(settings | changes)


def training(*stages: Stage, **changes: Any) -> Training:
    settings: dict[str, Any] = {"model": MODEL, "dtype": "fp32"} | changes
    return Training(stages=stages or (stage(),), **settings)


def table(path: Path, *, rows: int = 600, step: str = "h", holes: tuple[int, ...] = ()) -> Path:
    """A file of two noisy waves."""
    row_T = np.arange(rows)
    noise_TC = np.random.default_rng(0).normal(0, 0.1, (rows, 2))
    waves_TC = np.stack([np.sin(row_T / 4), np.cos(row_T / 6)], axis=1) + noise_TC
    frame = pd.DataFrame(waves_TC, columns=["one", "two"])
    frame.insert(0, "time", pd.date_range("2024-01-01", periods=rows, freq=step))
    frame.loc[list(holes), "two"] = np.nan
    frame.to_csv(path, index=False)
    return path


def refused(wanted: Training, run: Path, *, workers: int = 1) -> str:
    """The line in which a training is refused, without a checkpoint of any epoch."""
    local = train.LocalRun(run)
    local.world_size = workers
    with pytest.raises((ConfigError, data.DataError)) as error:
        train.train(wanted, run=local)
    assert list(run.iterdir()) == [], "something was trained"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_last_stage_whose_training_rows_are_too_few_stops_the_first(tmp_path: Path) -> None:
    short = stage(data="synthetic-etth:rows=40")
    assert "train has 28 rows" in refused(training(stage(), short), tmp_path / "run")


def test_a_last_stage_whose_validation_rows_are_too_few_stops_the_first(tmp_path: Path) -> None:
    short = stage(data="synthetic-etth:rows=70")
    assert "validation has 7 rows" in refused(training(stage(), short), tmp_path / "run")


def test_a_model_that_emits_more_patches_needs_more_rows(tmp_path: Path) -> None:
    enough = stage(data="synthetic-etth:rows=100")
    wide = MODEL.scaled(1.0, patches_out=2)
    assert "horizon 16" in refused(training(stage(), enough, model=wide), tmp_path / "wide")
    train.train(training(enough), run=train.LocalRun(tmp_path / "run"))


def test_only_the_sets_that_judge_need_rows_of_validation(tmp_path: Path) -> None:
    mixed = {DATA: 1, "synthetic-load:rows=70,variates=7": 1}
    judged = stage(data=mixed, judge=DATA, variates=2)
    train.train(training(judged), run=train.LocalRun(tmp_path / "run"))
    assert "validation has 7" in refused(training(stage(data=mixed, variates=2)), tmp_path / "all")


def test_a_batch_of_the_last_stage_that_workers_cannot_share_stops_the_first(
    tmp_path: Path,
) -> None:
    for batch in (33, 6):
        odd = stage(name="finetune", batch=batch, accumulate=2)
        told = refused(training(stage(), odd), tmp_path / str(batch), workers=2)
        assert f"batch of stage finetune is {batch}: it must be a multiple of the 2 workers" in told


def test_a_dry_run_refuses_what_a_training_would(tmp_path: Path) -> None:
    target = bank.obtain(training(), kind="target", storage=tmp_path, machine=ALONE)
    short = training(stage(), stage(data="synthetic-etth:rows=70"), target=str(target))
    with pytest.raises(data.DataError, match="validation has 7 rows"):
        plan._line(short, kind="draft", storage=tmp_path, machine=ALONE)


def test_hourly_and_daily_data_are_no_one_stage(tmp_path: Path) -> None:
    hourly = table(tmp_path / "hourly.csv")
    daily = table(tmp_path / "daily.csv", step="D")
    mixed = {str(hourly): 1, DATA: 1, str(daily): 1}
    told = refused(training(stage(), stage(data=mixed)), tmp_path / "run")
    assert "data of stage scratch mixes steps of time" in told
    assert str(daily) in told
    assert DATA in told
    apart = training(stage(data=str(hourly)), stage(data=str(daily)))
    assert len(train.train(apart, run=train.LocalRun(tmp_path / "apart")).curve) == 2


# Holes.


def test_holes_are_refused_with_the_setting_of_the_stage_that_would_fill_them(
    tmp_path: Path,
) -> None:
    holed = stage(data=str(table(tmp_path / "holed.csv", holes=(100, 101))))
    told = refused(training(stage(), holed), tmp_path / "run")
    assert "2 of 1200 cells are missing" in told
    assert told.endswith("fill them with stages.1.missing=interpolate")
    with pytest.raises(data.DataError, match=r"stages\.0\.missing=interpolate"):
        bank.key_of(training(holed), machine=ALONE)


def test_a_stage_fills_holes_where_it_says_so_in_training_judging_and_examining(
    tmp_path: Path,
) -> None:
    path = table(tmp_path / "holed.csv", holes=(100, 450, 455))
    filling = stage(data=str(path), missing="interpolate")
    target = bank.obtain(training(filling), kind="target", storage=tmp_path, machine=ALONE)
    wanted = training(
        filling,
        stage(name="distill", data=str(path), missing="interpolate"),
        target=str(target),
    )
    draft = bank.obtain(
        wanted, kind="draft", storage=tmp_path, machine=ALONE, examine=Examiner.of(wanted)
    )
    metrics = bank.open_model(draft).metrics
    assert math.isfinite(metrics["validation_loss"])
    assert metrics["accept_length"] >= 1
    assert (
        plan._line(wanted, kind="draft", storage=tmp_path / "other", machine=ALONE)["training_s"]
        > 0
    )


def test_missing_says_what_would_do() -> None:
    with pytest.raises(ValueError, match="'refuse', 'skip', 'interpolate' or 'seasonal'"):
        stage(missing="drop")
    assert stage().missing == Evaluation(data=DATA).missing == "refuse"


# Numbers without an end.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", math.inf),
        ("lr", math.nan),
        ("clip_norm", math.inf),
        ("weight_decay", math.inf),
    ],
)
def test_a_setting_without_an_end_is_refused_by_its_name(field: str, value: object) -> None:
    content = training().model_dump(mode="json")
    content["stages"][0][field] = value
    with pytest.raises(ConfigError, match=rf"stages\.0\.{field}.* finite number"):
        validated(Training, content, source="--set")


def test_a_weight_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        stage(data={DATA: math.inf})


@pytest.mark.parametrize("field", ["epochs", "batch", "windows_per_epoch", "patience"])
@pytest.mark.parametrize("value", [0, -3, 10**400])
def test_a_count_is_at_least_one_and_of_this_world(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        stage(**{field: value})


@pytest.mark.parametrize("seed", [-1, 2**31, 10**400])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        training(seed=seed)


def test_the_largest_seed_trains(tmp_path: Path) -> None:
    train.train(training(seed=2**31 - 1), run=train.LocalRun(tmp_path / "run"))


def test_a_training_that_diverges_ends_in_the_epoch_in_which_it_did(tmp_path: Path) -> None:
    wild = stage(name="finetune", lr=1e30, epochs=9)
    told: list[train.Row] = []
    with pytest.raises(train.Diverged) as ended:
        train.train(training(stage(), wild), run=train.LocalRun(tmp_path / "run"), log=told.append)
    assert str(ended.value).startswith("stages.1 (finetune): the loss is ")
    assert "in epoch 1: training has diverged; set lr (1e+30)" in str(ended.value)
    assert [row["stage"] for row in told] == ["scratch"]


def test_weights_that_are_lost_in_an_epochs_last_step_are_seen_by_its_validation(
    tmp_path: Path,
) -> None:
    # One step: the training loss is of the weights before it.
    with pytest.raises(train.Diverged, match="the loss is"):
        train.train(
            training(stage(lr=1e38, windows_per_epoch=32, batch=32)),
            run=train.LocalRun(tmp_path / "run"),
        )


def test_a_command_whose_training_diverges_says_so_in_one_line_and_is_no_mistake_of_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "model.d_model": 16,
        "model.n_heads": 2,
        "model.n_layers": 1,
        "stages.0.lr": 1e30,
        "stages.0.windows_per_epoch": 128,
        "stages.0.validation_windows": 16,
    }
    words = ["--set", *(f"{name}={value}" for name, value in changes.items())]
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "target", "--recipe", "demo", "--storage", str(tmp_path), *words])
    assert ended.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("foredraft: stages.0 (pretrain): the loss is ")


# Where another has trained the first stages meanwhile.


class DiesAfterOne(train.LocalRun):
    """A run whose process ends with its first checkpoint."""

    def save(self, state: train.State, *, row: train.Row) -> None:
        super().save(state, row=row)
        raise KeyboardInterrupt


def test_a_checkpoint_of_a_stage_that_the_bank_has_by_now_loses_no_epoch(tmp_path: Path) -> None:
    first, second = stage(epochs=2), stage(name="finetune", epochs=2)
    whole = training(first, second)
    with pytest.raises(KeyboardInterrupt):
        train.train(whole, run=DiesAfterOne(tmp_path / "run"))
    path = bank.obtain(training(first), kind="draft", storage=tmp_path, machine=ALONE)
    begun = train.Begun(1, path, bank.open_model(path).metrics["curve"])
    curve = train.train(whole, run=train.LocalRun(tmp_path / "run"), begun=begun).curve
    assert [row["number"] for row in curve] == [1, 2, 3, 4]
    assert json.dumps(curve[:2]) == json.dumps(begun.curve)
