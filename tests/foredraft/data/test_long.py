"""A table in long format is its series, whatever its columns are called and however they lie.

Series that begin and end together are the variates of one table; others are a panel, each split and
scaled by itself, its windows within one series. Nothing grows beyond the rows that there are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import bank, data, train
from foredraft.data import DataError, Dataset, Reading, load
from foredraft.judge import evaluate
from foredraft.settings.config import Evaluation, Machine, Stage, Training
from timer_xl import TimerXLConfig

LENGTHS = {"north": 120, "south": 90, "west": 61}
BEGINS = {"north": "2024-01-01", "south": "2024-01-03", "west": "2023-12-25"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shared(rows: int = 40, names: tuple[str, ...] = ("b", "a", "c")) -> pd.DataFrame:
    """Series that share their times, of values that tell series and row."""
    hours = pd.date_range("2024-01-01", periods=rows, freq="h")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": hours, "y": 100.0 * index + np.arange(rows)})
        for index, name in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True)


def unequal(scale: float = 1.0) -> pd.DataFrame:
    """Series of other lengths, levels and beginnings."""
    rng = np.random.default_rng(0)
    parts = []
    for index, (name, rows) in enumerate(LENGTHS.items()):
        hours = pd.date_range(BEGINS[name], periods=rows, freq="h")
        wave = np.sin(np.arange(rows) / 24 * 2 * np.pi) + 0.1 * rng.normal(size=rows)
        values = scale * (10.0**index) * (wave + 3)
        parts.append(pd.DataFrame({"unique_id": name, "ds": hours, "y": values}))
    return pd.concat(parts, ignore_index=True)


def kept(path: Path, table: pd.DataFrame) -> str:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return str(path)


def complaint(source: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def is_shared(ours: Dataset, rows: int = 40) -> None:
    assert ours.variates == ("b", "a", "c")
    assert ours.series == ()
    np.testing.assert_array_equal(
        ours.values_TC, np.arange(rows)[:, None] + np.array([0.0, 100.0, 200.0])
    )


# Which tables are long


@pytest.mark.parametrize(
    "names",
    [
        ("unique_id", "ds", "y"),
        ("item_id", "timestamp", "target"),
        ("id", "date", "value"),
        ("symbol", "Date", "Close"),
        ("Series", "time", "load"),
        ("ts_id", "datetime", "0"),
        ("meter_id", "hour of reading", "kWh"),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_long_format_is_read_by_any_names_in_any_order(
    tmp_path: Path, names: tuple[str, ...], order: tuple[int, ...]
) -> None:
    table = shared().set_axis(names, axis=1)
    table = table[[names[place] for place in order]]
    ours = load(kept(tmp_path / "ours.csv", table))
    is_shared(ours)
    assert ours.step.name == "h"
    assert list(ours.time) == list(pd.date_range("2024-01-01", periods=40, freq="h"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_series_may_be_numbers(tmp_path: Path, suffix: str) -> None:
    table = shared()
    table["unique_id"] = table["unique_id"].map({"b": 7, "a": 3, "c": 11})
    ours = load(kept(tmp_path / f"ours.{suffix}", table))
    assert ours.variates == ("7", "3", "11")
    assert ours.values_TC[0].tolist() == [0.0, 100.0, 200.0]


def test_rows_may_lie_in_any_order(tmp_path: Path) -> None:
    first = shared().iloc[[0, 40, 80]]  # which come first name the order of the variates
    rest = shared().drop(first.index).sample(frac=1, random_state=0)
    is_shared(load(kept(tmp_path / "ours.csv", pd.concat([first, rest]))))
    by_time = shared().sort_values("ds", kind="stable")
    is_shared(load(kept(tmp_path / "sorted.csv", by_time)))


@pytest.mark.parametrize("names", [["item_id", "timestamp"], ["store", "day"], [None, None]])
def test_a_multi_index_of_parquet_is_long_format(tmp_path: Path, names: list[str]) -> None:
    table = shared().set_index(["unique_id", "ds"])
    table.index.names = names
    is_shared(load(kept(tmp_path / "ours.parquet", table)))


def test_series_in_a_dictionary_of_arrow_are_read(tmp_path: Path) -> None:
    table = shared().astype({"unique_id": "category"})
    is_shared(load(kept(tmp_path / "ours.parquet", table)))


def test_two_columns_may_name_a_series_together(tmp_path: Path) -> None:
    table = pd.concat(
        [shared(names=("x", "y")).assign(store=store) for store in (1, 2)], ignore_index=True
    )
    table["y"] = np.arange(len(table), dtype=float)
    table = table.set_axis(["item", "date", "sales", "store"], axis=1)
    ours = load(kept(tmp_path / "ours.csv", table[["date", "store", "item", "sales"]]))
    assert ours.variates == ("1/x", "1/y", "2/x", "2/y")
    assert ours.values_TC[0].tolist() == [0.0, 40.0, 80.0, 120.0]


def test_one_series_alone_is_one_variate(tmp_path: Path) -> None:
    ours = load(kept(tmp_path / "ours.csv", shared(names=("only",))))
    assert ours.variates == ("only",)
    assert ours.values_TC[:, 0].tolist() == list(range(40))


def test_several_columns_of_values_are_series_each(tmp_path: Path) -> None:
    table = shared().assign(wind=lambda t: -t["y"])
    source = kept(tmp_path / "ours.csv", table)
    ours = load(source)
    assert ours.variates == ("b/y", "a/y", "c/y", "b/wind", "a/wind", "c/wind")
    assert ours.values_TC[3].tolist() == [3.0, 103.0, 203.0, -3.0, -103.0, -203.0]
    one = load(source, reading=Reading(columns=("wind",)))
    assert one.variates == ("b", "a", "c")
    assert one.values_TC[3].tolist() == [-3.0, -103.0, -203.0]
    assert load(source, reading=Reading(ignore=("wind",))).variates == ("b", "a", "c")


def test_series_are_chosen_by_their_names(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", shared())
    ours = load(source, reading=Reading(columns=("c", "b")))
    assert ours.variates == ("c", "b")
    assert ours.values_TC[1].tolist() == [201.0, 1.0]
    message = complaint(source, reading=Reading(columns=("d",)))
    assert "'d', which is no series of column 'unique_id'; it has b, a, c" in message


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"date": pd.date_range("2024", periods=9, freq="h"), "id": 1.5, "b": 2.0}),
        pd.DataFrame({"date": pd.date_range("2024", periods=9), "store": range(9, 0, -1), "b": 2}),
    ],
)
def test_a_wide_table_is_not_taken_for_long_format(tmp_path: Path, table: pd.DataFrame) -> None:
    ours = load(kept(tmp_path / "ours.csv", table))
    assert len(ours.variates) == 2
    assert len(ours.values_TC) == 9


def test_a_date_and_a_clock_are_no_series(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=48, freq="h")
    table = pd.DataFrame({"date": hours.strftime("%Y-%m-%d"), "clock": hours.strftime("%H:%M")})
    ours = load(kept(tmp_path / "ours.csv", table.assign(a=1.5, b=2.0)))
    assert ours.variates == ("a", "b")


def test_a_time_that_stands_twice_for_a_series_is_refused_with_both_rows(tmp_path: Path) -> None:
    table = shared()
    table = pd.concat([table, table.iloc[[41]]], ignore_index=True)
    message = complaint(kept(tmp_path / "ours.csv", table))
    assert "rows 42 and 121 are both series 'a' at the same time" in message
    assert load(kept(tmp_path / "kept.csv", table.drop(index=120))).variates == ("b", "a", "c")


@pytest.mark.parametrize("column", ["unique_id", "ds"])
def test_a_row_without_series_or_time_is_refused(tmp_path: Path, column: str) -> None:
    table = shared()
    table.loc[4, column] = None
    assert f"column '{column}', row 5" in complaint(kept(tmp_path / "ours.csv", table))


def test_zones_of_long_format_are_kept(tmp_path: Path) -> None:
    table = shared()
    table["ds"] = table["ds"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    ours = load(kept(tmp_path / "ours.parquet", table))
    assert ours.zone == "Europe/Berlin"
    assert str(ours.time[0]) == "2024-01-01 01:00:00+01:00"


# Side by side, or one below the other


def test_a_hole_in_a_series_that_shares_the_grid_is_a_missing_cell(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", shared().drop(index=45))
    assert "1 of 120 cells are missing, the first in column 'a', row 6" in complaint(source)
    ours = load(source, missing="interpolate")
    is_shared(ours)
    assert (ours.filled, ours.absent) == (1, 0)


def test_series_of_other_extent_are_a_panel_of_as_many_rows_as_the_file(tmp_path: Path) -> None:
    table = unequal()
    ours = load(kept(tmp_path / "ours.csv", table.sample(frac=1, random_state=1)))
    assert ours.values_TC.shape == (sum(LENGTHS.values()), 1)
    assert sorted(ours.variates) == sorted(LENGTHS)
    for one in ours.series:
        wanted = table[table["unique_id"] == one.name]
        assert one.end - one.first == LENGTHS[one.name]
        np.testing.assert_allclose(ours.values_TC[one.first : one.end, 0], wanted["y"], rtol=1e-6)
        assert list(ours.time[one.first : one.end]) == list(wanted["ds"])


def test_a_panel_of_a_million_empty_places_takes_the_room_of_its_rows(tmp_path: Path) -> None:
    # Side by side these would be 300 x 18,000 cells, of which one in 300 is there.
    parts = [
        pd.DataFrame(
            {"unique_id": f"s{i}", "ds": pd.date_range(day, periods=60, freq="h"), "y": range(60)}
        )
        for i, day in enumerate(pd.date_range("2020-01-01", periods=300, freq="60h"))
    ]
    ours = load(kept(tmp_path / "ours.parquet", pd.concat(parts, ignore_index=True)))
    assert ours.values_TC.shape == (18_000, 1)
    files = sum(file.stat().st_size for file in ours.folder.iterdir())
    assert files < 400_000


def test_the_digest_of_a_panel_covers_every_series(tmp_path: Path) -> None:
    table = unequal()
    first = load(kept(tmp_path / "ours.csv", table))
    table.loc[len(table) - 1, "y"] += 1
    assert load(kept(tmp_path / "ours.csv", table)).digest != first.digest


def test_times_that_count_are_ordered_and_their_holes_are_missing(tmp_path: Path) -> None:
    table = unequal()
    table["ds"] = table.groupby("unique_id").cumcount() + 1
    source = kept(tmp_path / "ours.csv", table.sample(frac=1, random_state=1))
    ours = load(source)
    assert (ours.time, ours.step) == (None, None)
    assert [one.end - one.first for one in ours.series] == [LENGTHS[n] for n in ours.variates]
    holed = kept(tmp_path / "holed.csv", table.drop(index=[5, 6]))
    assert "2 of 271 cells are missing, the first in series 'north', row 6" in complaint(holed)
    assert load(holed, missing="interpolate").filled == 2


def test_a_count_that_leaps_is_taken_for_a_mistake(tmp_path: Path) -> None:
    table = unequal()
    table["ds"] = table.groupby("unique_id").cumcount() + 1
    table.loc[119, "ds"] = 10**9
    assert "series 'north' counts 1,000,000,000 steps in 120 rows" in complaint(
        kept(tmp_path / "ours.csv", table)
    )


def test_absent_rows_of_one_series_are_refused_by_its_name_or_filled_in_it(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", unequal().drop(index=[130, 131]))
    message = complaint(source)
    assert "2 rows are absent (a row every h)" in message
    assert "the first 2 of them in series 'south' after row 10 (2024-01-03 09:00:00)" in message
    ours = load(source, missing="interpolate")
    assert (ours.filled, ours.absent) == (2, 2)
    assert [one.end - one.first for one in ours.series] == list(LENGTHS.values())
    south = ours.series[1]
    assert str(ours.time[south.first + 10]) == "2024-01-03 10:00:00"


def test_a_series_without_any_value_is_refused_by_its_name(tmp_path: Path) -> None:
    table = unequal()
    table.loc[table["unique_id"] == "south", "y"] = np.nan
    source = kept(tmp_path / "ours.csv", table)
    assert "series 'south' holds no value" in complaint(source, missing="interpolate")


# Splits, scale, windows


def test_each_series_is_split_and_standardised_by_itself(tmp_path: Path) -> None:
    ours = load(kept(tmp_path / "ours.csv", unequal()))
    scaled_T1 = ours.standardised()
    for index, one in enumerate(ours.series):
        rows = one.end - one.first
        edges = [ranges_S2[index].tolist() for ranges_S2 in ours.ranges.values()]
        train_rows, test_rows = int(0.7 * rows), int(0.2 * rows)
        border = one.end - test_rows
        first = one.first + train_rows
        assert edges == [[one.first, first], [first, border], [border, one.end]]
        of_training = scaled_T1[one.first : first, 0]
        assert abs(float(of_training.mean())) < 1e-5
        assert float(of_training.std(correction=0)) == pytest.approx(1, abs=1e-5)
    back_T = ours.rows(0, len(ours.values_TC))
    owner_T = np.repeat(np.arange(3), list(LENGTHS.values()))
    again_T = scaled_T1[:, 0].numpy() * ours.deviation_C[owner_T] + ours.mean_C[owner_T]
    np.testing.assert_allclose(again_T, back_T[:, 0], rtol=1e-5)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("stride", [1, 3])
def test_no_window_crosses_a_border_between_series_and_none_is_left_out(
    tmp_path: Path, split: str, stride: int
) -> None:
    ours = load(kept(tmp_path / "ours.csv", unequal()))
    context, horizon = 10, 5
    windows = ours.windows(split, context=context, horizon=horizon, stride=stride)
    wanted: list[int] = []
    for one, (first, end) in zip(ours.series, ours.ranges[split].tolist(), strict=True):
        low = first if split == "train" else max(one.first, first - context)
        wanted += range(low, end - context - horizon + 1, stride)
    assert windows.starts_W.tolist() == wanted
    assert windows.batch(torch.arange(len(windows))).shape == (len(wanted), 15, 1)


def test_series_too_short_for_a_window_are_left_out_and_all_of_them_refused(tmp_path: Path) -> None:
    ours = load(kept(tmp_path / "ours.csv", unequal()))
    assert [int(n) for n in np.diff(ours.ranges["train"]).ravel()] == [84, 62, 42]
    windows = ours.windows("train", context=40, horizon=10)
    assert len(windows) == (84 - 50 + 1) + (62 - 50 + 1)
    with pytest.raises(DataError, match=r"train has at most 84 rows of a series \(3 series\)"):
        ours.windows("train", context=80, horizon=10)


def test_a_level_beyond_single_precision_is_taken_off_each_series_alone(tmp_path: Path) -> None:
    table = unequal()
    high = table["unique_id"] == "south"
    table.loc[high, "y"] += 1e9
    ours = load(kept(tmp_path / "ours.parquet", table))
    assert (ours.level_C != 0).tolist() == [False, True, False]
    south = ours.series[1]
    np.testing.assert_allclose(
        ours.rows(south.first, south.end)[:, 0], table.loc[high, "y"], rtol=1e-12
    )


# A training


def test_the_key_of_a_training_covers_every_series_of_its_panel(tmp_path: Path) -> None:
    source = tmp_path / "ours.csv"

    def key() -> str:
        stage = Stage(name="scratch", data=kept(source, table))
        config = TimerXLConfig(patch=4, context=16, d_model=16, n_heads=2, d_ff=32)
        training = Training(model=config, stages=(stage,))
        return bank.key_of(training, machine=Machine(use_gpu=False))

    table = unequal()
    first = key()
    assert key() == first
    table.loc[150, "y"] += 1
    assert key() != first


def test_a_model_is_trained_and_judged_on_a_panel_of_unequal_series(tmp_path: Path) -> None:
    source = kept(tmp_path / "ours.csv", unequal())
    config = TimerXLConfig(patch=4, context=16, d_model=16, n_heads=2, d_ff=32)
    stage = Stage(name="scratch", data=source, epochs=25, batch=16, lr=3e-3, variates=2)
    training = Training(model=config, stages=(stage,), dtype="fp32")
    sets = train.checked(training, workers=1)
    assert set(sets[0]) == {source}
    made = train.train(training, run=train.LocalRun(tmp_path / "run"))
    losses = [row["train_loss"] for row in made.curve]
    assert losses[-1] < losses[0]
    evaluation = Evaluation(data=source, split="test", horizon=8, dtype="fp32")
    windows = evaluate.draw_windows(evaluation, config)
    rows = [int(n) for n in np.diff(data.load(source).ranges["test"]).ravel()]
    assert len(windows.truth_WHC) == sum(n - 8 + 1 for n in rows)
    model = evaluate.ready(made.model, evaluation, train.device_of(Machine(use_gpu=False)))
    forecast_WHC = evaluate.forecast_alone(model, windows, evaluation=evaluation)
    assert forecast_WHC.shape == windows.truth_WHC.shape
    assert windows.errors_of(forecast_WHC).mse < float(windows.truth_WHC.square().mean())
