"""A row that is absent is a row of missing cells, in the step of its times.

Holes are refused with place and count, left so that no window touches one, or filled; what was
filled counts neither in the scale nor as truth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import bank, train
from foredraft.data import DataError, Reading, holes, load
from foredraft.data.tables.long import Series
from foredraft.data.tables.table import Table
from foredraft.data.time.steps import Step
from foredraft.judge import evaluate
from foredraft.settings.config import Evaluation, Machine, Stage, Training
from foredraft.train import losses
from foredraft.train.lessons import Lesson, Lessons
from speculation.normalisation import Prediction
from timer_xl import TimerXLConfig

STEPS = ["h", "15min", "D", "B", "W-FRI", "MS", "ME", "QE-DEC", "YE-DEC", "2h"]
CONFIG = TimerXLConfig(patch=4, context=16, d_model=16, n_heads=2, d_ff=32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def line(rows: int = 60, step: str = "h") -> pd.DataFrame:
    """A straight line and a daily wave."""
    number = np.arange(rows, dtype=float)
    return pd.DataFrame(
        {
            "date": pd.date_range("2024-01-01", periods=rows, freq=step),
            "line": 3 * number,
            "wave": 10 + np.sin(number / 24 * 2 * np.pi) + 0.01 * np.cos(number * 1.7),
        }
    )


def kept(path: Path, table: pd.DataFrame) -> str:
    table.to_csv(path, index=False)
    return str(path)


def complaint(source: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Absent rows


@pytest.mark.parametrize("step", STEPS)
def test_absent_rows_are_refused_with_place_and_count_in_steps_of_the_file(
    tmp_path: Path, step: str
) -> None:
    table = line(step=step)
    source = kept(tmp_path / "ours.csv", table.drop(index=[20, 21, 40]))
    message = complaint(source)
    assert f"3 rows are absent (a row every {Step.of(step).name})" in message
    assert f"the first 2 of them after row 20 ({table['date'][19]})" in message
    assert "--missing interpolate" in message


@pytest.mark.parametrize("step", STEPS)
def test_absent_rows_are_put_in_at_their_times_and_counted(tmp_path: Path, step: str) -> None:
    table = line(step=step)
    source = kept(tmp_path / "ours.csv", table.drop(index=[20, 21, 40]))
    ours = load(source, missing="interpolate")
    assert list(ours.time) == list(table["date"])
    assert (ours.absent, ours.filled) == (3, 6)
    kept_T = np.delete(np.arange(60), [20, 21, 40])
    np.testing.assert_array_equal(ours.values_TC[kept_T], table.iloc[kept_T, 1:].to_numpy("f4"))
    if Step.of(step).length is not None or step == "D":  # linear in time, of which months vary
        np.testing.assert_allclose(ours.values_TC[:, 0], table["line"], rtol=1e-6)
    assert np.flatnonzero(ours.filled_TC[:, 0]).tolist() == [20, 21, 40]


def test_twelve_hours_that_are_missing_are_not_closed_up(tmp_path: Path) -> None:
    table = line(rows=240)
    source = kept(tmp_path / "ours.csv", table.drop(index=range(200, 212)))
    ours = load(source, missing="seasonal")
    assert ours.values_TC.shape == (240, 2)
    error = np.abs(ours.values_TC[:, 1] - table["wave"])
    assert error.max() < 0.05  # closed up, the wave would be off by half a day: 2.0


def test_zoned_times_that_are_put_in_keep_the_zone_through_the_change_of_the_clock(
    tmp_path: Path,
) -> None:
    table = line(rows=60)
    zoned = pd.date_range("2024-03-30 12:00", periods=60, freq="h", tz="Europe/Berlin")
    table["date"] = zoned
    table.drop(index=range(10, 16)).reset_index(drop=True).to_parquet(tmp_path / "ours.parquet")
    ours = load(str(tmp_path / "ours.parquet"), missing="interpolate")
    assert list(ours.time) == list(zoned)
    assert (ours.zone, ours.absent) == ("Europe/Berlin", 6)


def test_a_change_of_the_clock_is_no_absent_row(tmp_path: Path) -> None:
    table = line(rows=400, step="h")
    table["date"] = pd.date_range("2024-03-20", periods=400, freq="h", tz="Europe/Berlin")
    table.to_parquet(tmp_path / "hours.parquet")
    assert load(str(tmp_path / "hours.parquet")).absent == 0
    days = line(rows=400, step="D")
    days["date"] = pd.date_range("2024-01-01", periods=400, freq="D", tz="Europe/Berlin")
    days.to_parquet(tmp_path / "days.parquet")
    assert load(str(tmp_path / "days.parquet")).step == Step("D")


def test_weekends_of_a_five_day_week_are_not_absent_and_a_holiday_is(tmp_path: Path) -> None:
    table = line(rows=60, step="B")
    assert load(kept(tmp_path / "whole.csv", table)).step == Step("B")
    assert "1 row is absent (a row every B)" in complaint(
        kept(tmp_path / "holiday.csv", table.drop(index=30))
    )


def test_a_time_far_away_is_taken_for_a_mistake_whatever_is_done_about_holes(
    tmp_path: Path,
) -> None:
    table = line()
    table.loc[59, "date"] = pd.Timestamp("2124-01-01")
    source = kept(tmp_path / "ours.csv", table)
    for missing in ("refuse", "skip", "interpolate"):
        message = complaint(source, missing=missing)
        assert "row 60 (2124-01-01 00:00:00) is 876," in message
        assert "correct the time" in message


def test_times_that_keep_no_step_are_refused_and_both_remedies_work(tmp_path: Path) -> None:
    table = line()
    rng = np.random.default_rng(0)
    table["date"] += pd.to_timedelta(rng.integers(0, 3000, len(table)), unit="s")
    source = kept(tmp_path / "ours.csv", table)
    message = complaint(source, missing="interpolate")
    assert "the times keep no step" in message
    assert "row 2 is" in message or "row 3 is" in message
    assert "resample" in message
    assert "--time none" in message
    by_rows = load(source, reading=Reading(time="none"))
    assert (by_rows.time, by_rows.step) == (None, None)
    np.testing.assert_array_equal(by_rows.values_TC, table.iloc[:, 1:].to_numpy("f4"))
    even = table.set_index("date").resample("h").mean().reset_index()
    assert load(kept(tmp_path / "even.csv", even), missing="interpolate").step == Step("h")


def test_a_step_that_is_said_is_the_one_that_rows_must_keep(tmp_path: Path) -> None:
    table = line(rows=60).iloc[::2]
    source = kept(tmp_path / "ours.csv", table)
    assert load(source).step == Step("2h")
    hourly = load(source, missing="interpolate", reading=Reading(step="h"))
    assert (hourly.step, hourly.absent, len(hourly.values_TC)) == (Step("h"), 29, 59)
    assert "lies between two steps of 4h" in complaint(source, reading=Reading(step="4h"))


def test_times_that_repeat_or_go_back_are_refused_before_holes(tmp_path: Path) -> None:
    table = line().drop(index=[30, 31])
    twice = pd.concat([table.iloc[:10], table.iloc[9:]])
    assert "row 11 (2024-01-01 09:00:00) repeats the time of row 10" in complaint(
        kept(tmp_path / "twice.csv", twice), missing="interpolate"
    )
    back = pd.concat([table.iloc[20:], table.iloc[:20]])
    assert "goes back behind" in complaint(kept(tmp_path / "back.csv", back), missing="skip")


# What is done about holes


def holed(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table.loc[[100, 101], "line"] = np.nan
    table.loc[[5, 150], "wave"] = np.nan
    return table


def test_every_way_but_refusing_reads_what_refusing_refuses(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", holed(line(rows=240)))
    message = complaint(source)
    assert "4 of 480 cells are missing, the first in column 'wave', row 6" in message
    for missing, filled in (("skip", 0), ("interpolate", 4), ("seasonal", 4)):
        ours = load(source, missing=missing)
        assert (ours.filled, ours.absent) == (filled, 0)
    assert complaint(source) == message


def test_seasonal_takes_the_same_hour_of_the_neighbouring_days(tmp_path: Path) -> None:
    table = line(rows=240)
    table["wave"] = np.arange(240) % 24 + 100.0 * (np.arange(240) // 24)
    holes_T = [*range(100, 112), 5, 239]
    source = kept(tmp_path / "ours.csv", table.assign(wave=table["wave"].drop(index=holes_T)))
    wave_T = load(source, missing="seasonal").values_TC[:, 1]
    # Between two days the mean of both, at an edge the only neighbour there is.
    assert wave_T[100:112].tolist() == table["wave"][100:112].tolist()
    assert wave_T[5] == 105.0
    assert wave_T[239] == 823.0


def test_seasonal_is_linear_where_no_season_has_a_value(tmp_path: Path) -> None:
    table = line(rows=240)
    table.loc[table.index % 24 == 7, "line"] = np.nan
    ours = load(kept(tmp_path / "ours.csv", table), missing="seasonal")
    np.testing.assert_allclose(ours.values_TC[:, 0], 3 * np.arange(240), rtol=1e-5)


@pytest.mark.parametrize(("step", "season"), [("D", 7), ("ME", 12), ("B", 5), ("15min", 96)])
def test_the_season_is_that_of_the_step(tmp_path: Path, step: str, season: int) -> None:
    rows = 6 * season
    table = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows, freq=step)})
    table["v"] = np.arange(rows) % season + 1.0
    ours = load(
        kept(tmp_path / "ours.csv", table.drop(index=range(2 * season, 3 * season - 1))),
        missing="seasonal",
    )
    assert ours.values_TC[:, 0].tolist() == table["v"].tolist()


def test_seasonal_without_a_step_is_refused_and_a_step_cures_it(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", holed(line(rows=240)).drop(columns="date"))
    assert "say --step" in complaint(source, missing="seasonal")
    assert load(source, missing="seasonal", reading=Reading(step="h")).filled == 4


@pytest.mark.parametrize("missing", ["refuse", "skip", "interpolate", "seasonal"])
def test_a_column_without_any_value_is_refused_in_every_way(tmp_path: Path, missing: str) -> None:
    source = kept(tmp_path / "ours.csv", line().assign(empty=np.nan))
    assert "column 'empty' holds no value at all" in complaint(source, missing=missing)
    assert load(source, missing=missing, reading=Reading(ignore=("empty",))).filled == 0


def test_a_first_row_that_is_missing_takes_the_first_value(tmp_path: Path) -> None:
    table = line()
    table.loc[0, "line"] = np.nan
    assert load(kept(tmp_path / "ours.csv", table), missing="interpolate").values_TC[0, 0] == 3.0


def test_series_of_a_panel_are_not_filled_from_one_another() -> None:
    values = np.array([[1.0], [2.0], [np.nan], [50.0], [np.nan], [70.0]], dtype=np.float32)
    table = Table(values, ("a", "b"), None, series=(Series("a", 0, 3), Series("b", 3, 6)))
    made = holes.settled(table, missing="interpolate", reading=Reading(), label="ours")
    assert made.values_TC[:, 0].tolist() == [1.0, 2.0, 2.0, 50.0, 60.0, 70.0]
    assert made.filled == 2


# No window touches a hole


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_skipping_leaves_exactly_the_windows_without_a_hole(tmp_path: Path, split: str) -> None:
    table = holed(line(rows=240)).drop(index=[190, 191, 215])
    source = kept(tmp_path / "ours.csv", table)
    ours, whole = load(source, missing="skip"), load(source, missing="interpolate")
    windows = ours.windows(split, context=8, horizon=4)
    every = whole.windows(split, context=8, horizon=4).starts_W.tolist()
    bad = [5, 100, 101, 150, 190, 191, 215]
    wanted = [row for row in every if not any(row <= hole < row + 12 for hole in bad)]
    assert windows.starts_W.tolist() == wanted
    assert len(wanted) < len(every)
    assert windows.batch(torch.arange(len(windows))).isfinite().all()
    assert windows.observed(torch.arange(2)) is None


def test_the_scale_is_that_of_what_was_observed(tmp_path: Path) -> None:
    table = holed(line(rows=240)).drop(index=range(30, 40))
    source = kept(tmp_path / "ours.csv", table)
    observed = table.iloc[: 168 - 10, 1:]
    for missing in ("skip", "interpolate", "seasonal"):
        ours = load(source, missing=missing)
        assert ours.splits["train"] == (0, 168)
        np.testing.assert_allclose(ours.mean_C, observed.mean(), rtol=1e-6)
        np.testing.assert_allclose(ours.deviation_C, observed.std(ddof=0), rtol=1e-6)


def test_where_every_window_touches_a_hole_the_count_is_told(tmp_path: Path) -> None:
    table = line(rows=240)
    table.loc[::10, "line"] = np.nan
    ours = load(kept(tmp_path / "ours.csv", table), missing="skip")
    with pytest.raises(DataError, match="each of the 157 windows of train touches a row with"):
        ours.windows("train", context=8, horizon=4)
    assert len(ours.windows("train", context=6, horizon=3)) == 16


def test_a_variate_without_a_value_in_training_is_refused_and_its_remedy_works(
    tmp_path: Path,
) -> None:
    table = line(rows=240)
    table.loc[:170, "line"] = np.nan
    source = kept(tmp_path / "ours.csv", table)
    message = complaint(source, missing="interpolate")
    assert "column 'line' has no value in the training rows 1 to 168" in message
    assert load(source, reading=Reading(ignore=("line",))).variates == ("wave",)


# Filled cells are no truth


def test_errors_are_those_of_what_was_observed() -> None:
    forecast = torch.tensor([[[1.0], [5.0]], [[2.0], [2.0]]])
    truth = torch.zeros_like(forecast)
    observed = torch.tensor([[[True], [False]], [[True], [True]]])
    assert evaluate.accuracy(forecast, truth, observed).mse == pytest.approx(3.0)
    assert evaluate.accuracy(forecast, truth).mse == pytest.approx(34 / 4)


def test_windows_know_which_of_their_truth_was_filled_and_judge_without_it(tmp_path: Path) -> None:
    table = line(rows=400)
    source = kept(tmp_path / "ours.csv", table.drop(index=range(340, 350)))
    every = {"data": source, "split": "test", "windows": 1000}
    evaluation = Evaluation(**every, horizon=8, missing="interpolate")
    windows = evaluate.draw_windows(evaluation, CONFIG)
    starts = load(source, missing="interpolate").windows("test", context=16, horizon=8).starts_W
    rows_WH = starts[:, None] + 16 + torch.arange(8)
    filled_WH = (rows_WH >= 340) & (rows_WH < 350)
    assert torch.equal(windows.observed_WHC, ~filled_WH[:, :, None].expand(-1, -1, 2))
    wrong_WHC = windows.truth_WHC + 100 * filled_WH[:, :, None]
    assert windows.errors_of(wrong_WHC).mse == 0.0
    few = windows.at(torch.tensor([3, 1]))
    assert torch.equal(few.observed_WHC, windows.observed_WHC[[3, 1]])


def test_a_split_of_which_nothing_was_observed_is_refused(tmp_path: Path) -> None:
    table = line(rows=400)
    table.loc[320:, ["line", "wave"]] = np.nan
    ours = load(kept(tmp_path / "ours.csv", table), missing="interpolate")
    with pytest.raises(DataError, match="every value of test was missing and filled"):
        ours.windows("test", context=16, horizon=8)
    assert len(ours.windows("validation", context=16, horizon=8))


def test_windows_that_forecast_only_what_was_filled_are_refused(tmp_path: Path) -> None:
    table = line(rows=400)
    table.loc[320:390, ["line", "wave"]] = np.nan
    source = kept(tmp_path / "ours.csv", table)
    few = Evaluation(data=source, split="test", horizon=8, missing="interpolate", windows=1)
    with pytest.raises(DataError, match="no truth to judge by; judge on more windows"):
        evaluate.draw_windows(few, CONFIG)
    more = few.model_copy(update={"windows": 50})
    assert evaluate.draw_windows(more, CONFIG).observed_WHC.any()


LOSSES: dict[str, Callable[[Prediction, Lesson], torch.Tensor]] = losses.LOSSES


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_knows_what_stands_in_a_filled_cell(name: str) -> None:
    mean = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(0))
    prediction = Prediction(mean, torch.zeros_like(mean))
    observed = torch.rand(mean.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    unit = torch.ones(2, 1, 1, 1)
    lesson = Lesson(mean, torch.zeros_like(mean), unit, observed)
    other = lesson._replace(y_BMCQ=torch.where(observed, 0.0, 7.0))
    assert torch.equal(LOSSES[name](prediction, lesson), LOSSES[name](prediction, other))
    cells = prediction.mean[observed]
    if name == "mse":
        torch.testing.assert_close(LOSSES[name](prediction, lesson), cells.square().mean())
    every = lesson._replace(observed_BMCQ=torch.ones_like(observed))
    told = lesson._replace(observed_BMCQ=None)
    torch.testing.assert_close(LOSSES[name](prediction, every), LOSSES[name](prediction, told))
    nothing = lesson._replace(observed_BMCQ=torch.zeros_like(observed))
    assert LOSSES[name](prediction, nothing) == 0


def test_lessons_say_which_of_what_follows_was_filled(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", line(rows=400).drop(index=range(100, 110)))
    stage = Stage(name="scratch", data=source, missing="interpolate")
    dataset = load(source, missing="interpolate")
    lessons = Lessons(stage, CONFIG, {source: dataset}, split="train", seed=1, taught=None)
    draw = next(iter(lessons.every_window(batch=120)))
    lesson = lessons.lesson(draw, device=torch.device("cpu"))
    starts = lessons.sources[0].windows.starts_W[draw.index_B]
    rows = starts[:, None, None] + 4 * torch.arange(1, 5)[:, None] + torch.arange(4)
    filled = ((rows >= 100) & (rows < 110))[:, :, None].expand_as(lesson.y_BMCQ)
    assert torch.equal(lesson.observed_BMCQ, ~filled)


def test_a_training_is_the_same_whatever_the_holes_are_filled_with_but_for_its_contexts(
    tmp_path: Path,
) -> None:
    source = kept(tmp_path / "ours.csv", line(rows=400).drop(index=range(100, 110)))
    keys = []
    for missing in ("interpolate", "seasonal", "skip"):
        stage = Stage(name="scratch", data=source, missing=missing, epochs=1, batch=32)
        training = Training(model=CONFIG, stages=(stage,), dtype="fp32")
        made = train.train(training, run=train.LocalRun(tmp_path / missing))
        assert np.isfinite(made.curve[-1]["validation_loss"])
        keys.append(bank.key_of(training, machine=Machine(use_gpu=False)))
    assert len(set(keys)) == 3


def test_one_file_filled_in_two_ways_is_not_one_to_the_answers_of_a_target(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", holed(line(rows=240)))
    ways = [load(source, missing=missing) for missing in ("skip", "interpolate", "seasonal")]
    assert len({ours.digest for ours in ways}) == 1
    assert len({ours.identity for ours in ways}) == 3
    whole = kept(tmp_path / "whole.csv", line(rows=240))
    assert load(whole).identity == load(whole).digest == load(whole, missing="interpolate").identity
