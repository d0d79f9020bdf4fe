"""What is loaded is what the file holds, split and scaled as published; bad files say why."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import data, files
from foredraft.data import (
    DATASETS,
    DataError,
    catalogue,
    check,
    describe,
    fetch,
    generators,
    load,
    loading,
    registry,
    scale,
    store,
)
from foredraft.data.reading import Reading

# As it is before the tests move house.
REAL_FOLDER = data.data_folder().resolve()
REAL = {name: REAL_FOLDER / DATASETS[name].file for name in ("ETTh1", "eia930")}


def needs(name: str) -> pytest.MarkDecorator:
    absent = not REAL[name].is_file()
    return pytest.mark.skipif(absent, reason=f"{REAL[name].name} is not in $FOREDRAFT_DATA")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREDRAFT_DATA", str(REAL_FOLDER))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_data(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("FOREDRAFT_DATA", str(folder))
    return folder


def frame(rows: int = 50, variates: int = 3, *, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(10, 3, (rows, variates))
    table = pd.DataFrame(values, columns=[f"v{i}" for i in range(variates)])
    table.insert(0, "date", pd.date_range("2024-01-01", periods=rows, freq="h"))
    return table


def csv(path: Path, table: pd.DataFrame) -> str:
    table.to_csv(path, index=False)
    return str(path)


def publish(monkeypatch, name: str, table: pd.DataFrame, *, folder: Path) -> str:
    """A file of that data set's name, as if it had been published so."""
    source = csv(folder / DATASETS[name].file, table)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(sha256=digest))
    return source


def complaint(source: str, **options: object) -> str:
    """The one line that loading the source ends in."""
    with pytest.raises(DataError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is loaded


def test_a_csv_holds_what_was_written(tmp_path):
    table = frame()
    ours = load(csv(tmp_path / "ours.csv", table))
    assert ours.name == "ours"
    assert ours.variates == ("v0", "v1", "v2")
    assert ours.values_TC.dtype == np.float32
    np.testing.assert_array_equal(ours.values_TC, table.iloc[:, 1:].to_numpy(np.float32))
    assert list(ours.time) == list(table["date"])
    assert ours.digest == hashlib.sha256((tmp_path / "ours.csv").read_bytes()).hexdigest()
    assert ours.filled == 0


def test_csv_and_parquet_of_one_table_are_one_series(tmp_path):
    table = frame().astype({"v0": "float32", "v1": "float32", "v2": "float32"})
    table.to_parquet(tmp_path / "plain.parquet")
    table.set_index("date").to_parquet(tmp_path / "indexed.parquet")
    wanted = load(csv(tmp_path / "ours.csv", table))
    for file in ("plain.parquet", "indexed.parquet"):
        ours = load(str(tmp_path / file))
        assert ours.variates == wanted.variates
        assert list(ours.time) == list(wanted.time)
        np.testing.assert_allclose(ours.values_TC, wanted.values_TC, rtol=1e-6)


def test_a_text_file_of_numbers_needs_no_header(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (20, 3)).astype(np.float32)
    np.savetxt(tmp_path / "sun.txt", values, delimiter=",")
    ours = load(str(tmp_path / "sun.txt"))
    np.testing.assert_array_equal(ours.values_TC, values)
    assert ours.time is None
    assert ours.variates == ("0", "1", "2")


@pytest.mark.parametrize("name", ["date", "Date", "timestamp", "when", ""])
@pytest.mark.parametrize("pattern", ["%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%SZ"])
def test_a_first_column_of_dates_is_the_time_whatever_its_name(tmp_path, name, pattern):
    table = frame()
    wanted = list(table["date"])
    table["date"] = table["date"].dt.strftime(pattern)
    ours = load(csv(tmp_path / "ours.csv", table.rename(columns={"date": name})))
    assert list(ours.time.tz_localize(None)) == wanted
    assert str(ours.time.tz) == ("UTC" if pattern.endswith("Z") else "None")
    assert ours.variates == ("v0", "v1", "v2")


def test_times_with_offsets_keep_their_zone_so_that_autumn_does_not_repeat(tmp_path):
    table = frame()
    wanted = pd.date_range("2024-10-26", periods=len(table), freq="h", tz="UTC")
    table["date"] = wanted.tz_convert("Europe/Berlin").map(lambda t: t.isoformat())
    ours = load(csv(tmp_path / "ours.csv", table))
    assert list(ours.time) == list(wanted)
    assert str(ours.time.tz) == "Europe/Berlin"


def test_a_table_without_times_is_all_variates(tmp_path):
    ours = load(csv(tmp_path / "ours.csv", frame().drop(columns="date")))
    assert ours.time is None
    assert len(ours.variates) == 3


def test_columns_named_by_numbers_are_variates_as_in_electricity(tmp_path):
    table = frame()
    table.columns = ["date", "0", "1", "OT"]
    assert load(csv(tmp_path / "ours.csv", table)).variates == ("0", "1", "OT")


# The cache


def test_values_are_mapped_read_only_and_a_second_load_does_not_parse(tmp_path, monkeypatch):
    source = csv(tmp_path / "ours.csv", frame())
    first = load(source)
    assert isinstance(first.values_TC, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        first.values_TC[0, 0] = 1

    def parsed_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(loading, "read", parsed_again)
    second = load(source)
    np.testing.assert_array_equal(first.values_TC, second.values_TC)
    np.testing.assert_array_equal(first.mean_C, second.mean_C)
    assert list(first.time) == list(second.time)


def test_a_changed_file_is_parsed_anew(tmp_path):
    before = load(csv(tmp_path / "ours.csv", frame(seed=0)))
    after = load(csv(tmp_path / "ours.csv", frame(seed=1)))
    assert before.digest != after.digest
    assert not np.array_equal(before.values_TC, after.values_TC)


def test_one_content_under_two_formats_is_not_confused(tmp_path):
    text = "0,1\n" + "3,4\n" * 20
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.txt").write_text(text)
    assert len(load(str(tmp_path / "a.csv")).values_TC) == 20
    assert len(load(str(tmp_path / "a.txt")).values_TC) == 21


def test_an_unfinished_cache_is_not_trusted(tmp_path):
    source = csv(tmp_path / "ours.csv", frame())
    first = load(source)
    (first.folder / "COMPLETE").unlink()
    (first.folder / "values.npy").write_bytes(b"half")
    np.testing.assert_array_equal(load(source).values_TC, frame().iloc[:, 1:].to_numpy("float32"))


def test_many_loads_at_once_agree(tmp_path):
    source = csv(tmp_path / "ours.csv", frame(rows=500))
    found = []

    def work() -> None:
        found.append(load(source).standardised().numpy().copy())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(found[0], other) for other in found)
    assert not list((tmp_path / "cache").rglob(".*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    assert "XDG_CACHE_HOME" in complaint(csv(tmp_path / "ours.csv", frame()))


def test_a_full_disk_says_what_to_set(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.np, "save", full)
    message = complaint(csv(tmp_path / "ours.csv", frame()))
    assert "No space left" in message
    assert "XDG_CACHE_HOME" in message


def test_a_read_only_data_folder_is_enough(no_data, monkeypatch):
    publish(monkeypatch, "exchange", frame(7588, 8), folder=no_data)
    no_data.chmod(0o500)
    assert load("exchange").values_TC.shape == (7588, 8)
    no_data.chmod(0o700)


# Splits, scale


def test_standardised_values_have_mean_0_and_deviation_1_on_the_training_split_only(tmp_path):
    table = frame(rows=200)
    table.loc[140:, "v1"] += 100
    ours = load(csv(tmp_path / "ours.csv", table))
    values_TC = ours.standardised()
    train_TC = values_TC[:140]
    assert values_TC.dtype == torch.float32
    assert train_TC.mean(0).abs().max() < 1e-5
    assert (train_TC.std(0, correction=0) - 1).abs().max() < 1e-5
    assert values_TC[140:, 1].mean() > 10


def test_standardising_is_undone_by_mean_and_deviation(tmp_path):
    ours = load(csv(tmp_path / "ours.csv", frame()))
    back_TC = ours.standardised().numpy() * ours.deviation_C + ours.mean_C
    np.testing.assert_allclose(back_TC, ours.values_TC, rtol=1e-5)


def test_chunks_do_not_change_scale_or_values(tmp_path, monkeypatch):
    source = csv(tmp_path / "ours.csv", frame(rows=333))
    whole = load(source)
    whole_TC = whole.standardised().clone()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(scale, "CHUNK_CELLS", 30)
    chunked = load(source)
    np.testing.assert_allclose(chunked.mean_C, whole.mean_C, rtol=1e-12)
    np.testing.assert_allclose(chunked.deviation_C, whole.deviation_C, rtol=1e-12)
    torch.testing.assert_close(chunked.standardised(), whole_TC)


def test_a_variate_that_is_constant_in_training_gets_deviation_1(tmp_path):
    table = frame().assign(v1=0.1)
    ours = load(csv(tmp_path / "ours.csv", table))
    assert ours.deviation_C[1] == 1
    assert ours.standardised()[:, 1].abs().max() < 1e-6
    assert ours.standardised().isfinite().all()


@pytest.mark.parametrize("rows", [10, 11, 49, 50, 99, 101])
@pytest.mark.parametrize("fractions", [None, (0.5, 0.25), (0.8, 0.2), (1.0, 0.0)])
def test_splits_cover_every_row_once_in_time_order(tmp_path, rows, fractions):
    ours = load(csv(tmp_path / "ours.csv", frame(rows)), splits=fractions)
    (a, b), (c, d), (e, f) = (ours.splits[s] for s in ("train", "validation", "test"))
    assert (a, b, d, f) == (0, c, e, rows)
    train, test = fractions or (0.7, 0.2)
    assert (b, f - e) == (int(train * rows), int(test * rows))


def test_other_splits_do_not_reuse_the_scale_of_the_first(tmp_path):
    source = csv(tmp_path / "ours.csv", frame())
    wide, narrow = load(source), load(source, splits=(0.2, 0.2))
    wide_TC, narrow_TC = wide.standardised(), narrow.standardised()
    assert not torch.equal(wide_TC, narrow_TC)
    torch.testing.assert_close(wide_TC, load(source).standardised())


@pytest.mark.parametrize("splits", [(0.0, 0.2), (0.9, 0.2), (-0.1, 0.2), (0.7, -0.1)])
def test_fractions_that_make_no_split_are_refused(tmp_path, splits):
    assert "fractions" in complaint(csv(tmp_path / "ours.csv", frame()), splits=splits)


def test_a_file_of_one_row_leaves_nothing_to_train_on(tmp_path):
    assert "1 rows" in complaint(csv(tmp_path / "ours.csv", frame(rows=1)))


# Windows


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(("context", "horizon", "stride"), [(8, 4, 1), (20, 5, 3), (1, 1, 7)])
def test_every_window_of_a_split_is_there_and_no_other(split, context, horizon, stride):
    made = load("synthetic-load:rows=200,variates=3")
    windows = made.windows(split, context=context, horizon=horizon, stride=stride)
    first, end = made.splits[split]
    wanted = [
        row
        for row in range(200)
        if row + (0 if split == "train" else context) >= first and row + context + horizon <= end
    ]
    assert windows.starts_W.tolist() == wanted[::stride]
    assert len(windows) == len(wanted[::stride])
    assert windows.starts_W.dtype == torch.int64


def test_a_batch_is_the_rows_of_its_windows_in_the_order_of_the_index():
    made = load("synthetic-load:rows=200,variates=3")
    windows = made.windows("validation", context=10, horizon=5)
    index_B = torch.tensor([3, 0, 3, len(windows) - 1])
    batch_BLC = windows.batch(index_B)
    assert batch_BLC.shape == (4, 15, 3)
    for sample_LC, start in zip(batch_BLC, windows.starts_W[index_B].tolist(), strict=True):
        assert torch.equal(sample_LC, windows.values_TC[start : start + 15])


def test_each_window_of_a_batch_keeps_the_variates_drawn_for_it():
    made = load("synthetic-load:rows=200,variates=5")
    windows = made.windows("train", context=10, horizon=5)
    index_B = torch.randint(len(windows), (6,))
    draw_BV = torch.randint(5, (6, 2))
    whole_BLC = windows.batch(index_B)
    drawn_BLV = windows.batch(index_B, variates=draw_BV)
    assert drawn_BLV.shape == (6, 15, 2)
    for sample in range(6):
        assert torch.equal(drawn_BLV[sample], whole_BLC[sample][:, draw_BV[sample]])


def test_a_batch_may_be_changed_without_changing_the_data():
    made = load("synthetic-load:rows=200,variates=3")
    windows = made.windows("train", context=10, horizon=5)
    batch_BLC = windows.batch(torch.tensor([0]))
    batch_BLC.zero_()
    assert windows.values_TC[:15].abs().sum() > 0


def test_a_split_too_short_for_one_window_names_the_numbers():
    made = load("synthetic-load:rows=200,variates=3")
    assert len(made.windows("validation", context=100, horizon=20)) == 1
    with pytest.raises(DataError, match=r"validation has 20 rows.*context 100 \+ horizon 21"):
        made.windows("validation", context=100, horizon=21)
    with pytest.raises(DataError, match=r"train has 140 rows.*context 100 \+ horizon 41"):
        made.windows("train", context=100, horizon=41)


@pytest.mark.parametrize("change", [{"context": 0}, {"horizon": -1}, {"stride": 0}])
def test_numbers_that_make_no_window_are_refused(change):
    made = load("synthetic-load:rows=200,variates=3")
    with pytest.raises(DataError, match=next(iter(change))):
        made.windows("train", **({"context": 8, "horizon": 4} | change))
    with pytest.raises(DataError, match="'valid' is none of train"):
        made.windows("valid", context=8, horizon=4)


# Bad input


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    message = complaint("gone.csv")
    assert "gone.csv does not exist" in message
    assert str(tmp_path) in message
    assert "is a folder" in complaint(str(tmp_path))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "txt"])
def test_an_empty_file_is_called_empty(tmp_path, suffix):
    (tmp_path / f"ours.{suffix}").touch()
    assert complaint(f"ours.{suffix}").endswith(f"ours.{suffix} is empty")


def test_a_header_without_rows_is_called_so(tmp_path):
    (tmp_path / "ours.csv").write_text("date,a,b\n")
    assert "header but no rows" in complaint("ours.csv")
    (tmp_path / "blank.csv").write_text("\n\n")
    assert "is empty" in complaint("blank.csv")


def test_a_file_of_times_only_is_refused(tmp_path):
    assert "time column only" in complaint(csv(tmp_path / "ours.csv", frame()[["date"]]))


@pytest.mark.parametrize("bad", ["closed", "?", "1,5"])
def test_text_among_values_names_column_row_and_value(tmp_path, bad):
    table = frame().astype({"v1": object})
    table.loc[6, "v1"] = bad
    message = complaint(csv(tmp_path / "ours.csv", table))
    assert f"column 'v1', row 7: '{bad}' is not a number" in message


def test_missing_cells_are_counted_and_the_first_is_named(tmp_path):
    table = frame()
    table.loc[30, "v0"] = np.nan
    table.loc[4:6, "v2"] = np.nan
    message = complaint(csv(tmp_path / "ours.csv", table))
    assert "4 of 150 cells are missing" in message
    assert "column 'v2', row 5" in message
    assert "--missing interpolate" in message


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("missing", ["refuse", "interpolate"])
def test_infinite_values_are_refused_even_where_missing_ones_are_filled(tmp_path, bad, missing):
    table = frame()
    table.loc[6, "v1"] = bad
    message = complaint(csv(tmp_path / "ours.csv", table), missing=missing)
    assert "column 'v1', row 7" in message
    assert "infinite" in message


@pytest.mark.parametrize(
    ("source", "closest"),
    [("etth1", "ETTh1"), ("electricty", "electricity"), ("synthetic-lod", "synthetic-load")],
)
def test_an_unknown_name_suggests_the_closest(source, closest):
    assert f"did you mean {closest}" in complaint(source)


def test_a_name_close_to_none_lists_them_all():
    message = complaint("zzz")
    assert all(name in message for name in (*DATASETS, *generators.GENERATORS))


def test_an_unsupported_suffix_names_the_supported(tmp_path):
    (tmp_path / "ours.xlsx").write_text("x")
    message = complaint("ours.xlsx")
    assert "'.xlsx'" in message
    assert ".csv, .parquet, .txt" in message


def test_times_out_of_order_name_both_rows(tmp_path):
    table = frame()
    table.loc[[10, 11], "date"] = table.loc[[11, 10], "date"].to_numpy()
    message = complaint(csv(tmp_path / "ours.csv", table))
    assert "row 12 (2024-01-01 10:00:00) goes back behind the time of row 11" in message
    assert "sort" in message


def test_a_repeated_time_names_both_rows(tmp_path):
    table = frame()
    table.loc[11, "date"] = table.loc[10, "date"]
    assert "row 12 (2024-01-01 10:00:00) repeats the time of row 11" in complaint(
        csv(tmp_path / "ours.csv", table)
    )


@pytest.mark.parametrize("bad", ["yesterday", None])
def test_a_date_that_does_not_read_names_its_row(tmp_path, bad):
    table = frame().astype({"date": str}).astype({"date": object})
    table.loc[6, "date"] = bad
    message = complaint(csv(tmp_path / "ours.csv", table))
    assert "column 'date', row 7" in message
    assert "2024-01-31 13:00" in message


def test_a_date_that_does_not_read_is_named_among_dates_of_another_habit(tmp_path):
    table = frame()
    table["date"] = table["date"].dt.strftime("%m/%d/%Y %H:%M").astype(object)
    table.loc[[6, 8], "date"] = "yesterday"
    assert "column 'date', row 7: 'yesterday'" in complaint(csv(tmp_path / "ours.csv", table))


def test_a_second_column_of_times_is_refused_by_name(tmp_path):
    frame().assign(v1=frame()["date"]).to_parquet(tmp_path / "ours.parquet")
    assert "column 'v1' holds times" in complaint("ours.parquet")


def test_a_time_column_of_numbers_is_not_guessed_at(tmp_path):
    table = frame()
    table["date"] = range(len(table))
    assert "column 'date' holds numbers" in complaint(csv(tmp_path / "ours.csv", table))


def test_an_index_written_by_pandas_does_not_become_a_variate(tmp_path):
    frame().drop(columns="date").to_csv(tmp_path / "ours.csv")
    assert "column 'Unnamed: 0' rises by one step" in complaint("ours.csv")


def test_files_of_another_dialect_are_refused_in_one_line(tmp_path):
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    assert "line 3 has 3 fields, those before it 2" in complaint("ragged.csv")
    for rows in ("1,2,3\n4,5,6\n", "1,2,3\n4,5,6\n9,5,6\n", "2024-01-01,2,3\n2024-01-02,5,6\n"):
        (tmp_path / "wider.csv").write_text("a,b\n" + rows)
        assert "more fields than the header" in complaint("wider.csv")
    (tmp_path / "fake.parquet").write_text("date,a\n")
    assert "fake.parquet is no readable parquet file; write it anew" in complaint("fake.parquet")


# Missing values


def test_interpolation_is_linear_in_time_and_nearest_at_the_edges(tmp_path):
    times = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 04:00"])
    later = pd.date_range("2024-01-01 05:00", periods=10, freq="h")
    table = pd.DataFrame({"date": times.append(later), "a": 8.0, "b": 5.0})
    table["a"] = [0.0, np.nan, 8.0] + [8.0] * 10
    table.loc[[0, 1, 12], "b"] = np.nan
    ours = load(csv(tmp_path / "ours.csv", table), missing="interpolate")
    # Four cells are missing, and two rows of two cells are absent.
    assert (ours.filled, ours.absent) == (8, 2)
    assert ours.values_TC[:5, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert (ours.values_TC[:, 1] == 5).all()


def test_interpolation_touches_missing_cells_only_and_recovers_a_line(tmp_path):
    table = pd.DataFrame({"a": np.arange(40.0), "b": frame(40)["v0"]})
    holes = table.copy()
    holes.loc[[3, 4, 5, 20], "a"] = np.nan
    ours = load(csv(tmp_path / "ours.csv", holes), missing="interpolate")
    np.testing.assert_allclose(ours.values_TC, table.to_numpy("float32"), rtol=1e-6)
    assert ours.filled == 4


def test_a_filled_cache_is_not_served_to_who_refuses(tmp_path):
    table = frame()
    table.loc[4, "v2"] = np.nan
    source = csv(tmp_path / "ours.csv", table)
    assert load(source, missing="interpolate").filled == 1
    assert load(source, missing="interpolate").filled == 1
    assert "1 of 150" in complaint(source)


def test_a_column_without_any_value_cannot_be_filled(tmp_path):
    table = frame().assign(v1=np.nan)
    message = complaint(csv(tmp_path / "ours.csv", table), missing="interpolate")
    assert "column 'v1' holds no value" in message


def test_a_misspelt_way_of_filling_is_refused(tmp_path):
    assert "'fill'" in complaint(csv(tmp_path / "ours.csv", frame()), missing="fill")


# Names


def test_the_cache_is_in_the_home_folder_unless_another_place_is_named(tmp_path, monkeypatch):
    assert files.cache_folder() == tmp_path / "cache" / "foredraft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_folder() == tmp_path / "home" / ".cache" / "foredraft"


def test_the_catalogue_tells_how_often_a_transformer_was_read():
    for name, step in {"ETTh1": "hourly", "ETTm1": "15 minutes"}.items():
        assert describe(name)["what"].endswith(step)


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    source = csv(tmp_path / "ours.csv", frame())
    monkeypatch.setattr(Path, "open", refused)
    assert complaint(source).endswith("ours.csv cannot be read: Permission denied")


@pytest.mark.parametrize("place", [".", "forecasting"])
def test_a_named_file_is_found_in_the_data_folder_and_one_below(no_data, place, monkeypatch):
    (no_data / place).mkdir(exist_ok=True)
    publish(monkeypatch, "exchange", frame(7588, 8), folder=no_data / place)
    assert load("exchange").name == "exchange"
    assert describe("exchange")["present"]


def test_a_named_file_that_is_absent_says_where_and_how_to_get_it(no_data):
    message = complaint("ETTh1")
    assert str(no_data) in message
    assert "foredraft data fetch ETTh1" in message
    assert "FOREDRAFT_DATA" in message
    assert "foredraft data fetch traffic" in complaint("traffic")
    assert "truggles" in complaint("eia930")


@pytest.mark.parametrize("name", list(DATASETS))
def test_another_file_under_a_published_name_is_refused(no_data, name):
    (no_data / DATASETS[name].file).write_bytes(b"date,OT\n2016-07-01,1\n")
    message = complaint(name)
    assert f"{DATASETS[name].file} is not the published file: its SHA-256" in message
    assert f"published is {DATASETS[name].sha256[:16]}" in message


def test_a_published_name_promises_its_rows_and_variates_too(no_data, monkeypatch):
    publish(monkeypatch, "exchange", frame(100, 8), folder=no_data)
    assert "100 rows of 8 variates, published are 7588 of 8" in complaint("exchange")
    assert load(str(no_data / "exchange_rate.csv")).values_TC.shape == (100, 8)


def test_a_path_to_a_benchmark_file_is_split_as_the_benchmark(no_data, monkeypatch):
    source = publish(monkeypatch, "ETTh2", frame(17420, 7), folder=no_data)
    by_path, by_name = load(source), load("ETTh2")
    assert by_path.splits == by_name.splits
    assert by_name.splits == {
        "train": (0, 8640),
        "validation": (8640, 11520),
        "test": (11520, 14400),
    }


def test_some_columns_of_a_benchmark_are_split_as_the_benchmark(no_data, monkeypatch):
    source = publish(monkeypatch, "ETTh2", frame(17420, 7), folder=no_data)
    whole = load("ETTh2")
    one = data.Reading(columns=whole.variates[2:3])
    for some in (load("ETTh2", reading=one), load(source, reading=one)):
        assert some.splits == whole.splits
        np.testing.assert_array_equal(some.values_TC, whole.values_TC[:, 2:3])
    assert check("ETTh2", reading=one)["variates"] == 1


def test_weather_may_repeat_a_time_because_the_published_file_does(no_data, monkeypatch):
    table = frame(52696, 21)
    table.loc[100, "date"] = table.loc[99, "date"]
    publish(monkeypatch, "weather", table, folder=no_data)
    assert load("weather").values_TC.shape == (52696, 21)
    assert check("weather")["rows"] == 52696


def test_electricity_is_read_as_published(no_data, monkeypatch):
    values = np.random.default_rng(0).integers(0, 900, (26304, 321))
    table = pd.DataFrame(values, columns=[*map(str, range(320)), "OT"])
    table.insert(0, "date", pd.date_range("2016-07-01 02:00", periods=26304, freq="h"))
    publish(monkeypatch, "electricity", table, folder=no_data)
    ours = load("electricity")
    assert ours.values_TC.shape == (26304, 321)
    assert [end - start for start, end in ours.splits.values()] == [18412, 2632, 5260]
    np.testing.assert_array_equal(ours.values_TC[::5000], values[::5000])


def test_the_catalogue_is_plain_and_complete(no_data):
    rows = catalogue()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == [*DATASETS, *generators.GENERATORS]
    assert {row["name"] for row in rows if row["present"]} == set(generators.GENERATORS)
    assert all(row["what"] and row["licence"] and row["rows"] > 0 for row in rows)


# Fetching


class Response(io.BytesIO):
    def __init__(self, content: bytes, *, announced: int | None = None) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content) if announced is None else announced)}


def serve(monkeypatch, response: object) -> list[str]:
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> object:
        asked.append(url)
        if isinstance(response, Exception):
            raise response
        return response

    monkeypatch.setattr(registry.urllib.request, "urlopen", urlopen)
    return asked


def refusal(name: str) -> str:
    with pytest.raises(DataError) as caught:
        fetch(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetching_verifies_what_came_and_does_not_ask_twice(no_data, monkeypatch):
    content = frame(17420, 7).to_csv(index=False).encode()
    entry = DATASETS["ETTh1"]._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(DATASETS, "ETTh1", entry)
    asked = serve(monkeypatch, Response(content))
    path = fetch("ETTh1")
    assert path.read_bytes() == content
    assert fetch("ETTh1") == path
    assert asked == [entry.url]
    assert load("ETTh1").values_TC.shape == (17420, 7)


@pytest.fixture
def site(tmp_path) -> Iterator[str]:
    """The address of a real server on this machine; it serves the folder `site`."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("name", ["ETTh2", "ETTm1", "ETTm2", "exchange"])
def test_a_set_that_a_server_gives_with_another_digest_is_refused(
    no_data, tmp_path, monkeypatch, site, name
):
    file = DATASETS[name].file
    csv(tmp_path / "site" / file, frame(DATASETS[name].rows, DATASETS[name].variates))
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(url=f"{site}/{file}"))
    message = refusal(name)
    assert f"{site}/{file} has changed: its SHA-256 is" in message
    assert f"published is {DATASETS[name].sha256[:16]}" in message
    assert list(no_data.iterdir()) == []


def test_a_set_that_a_server_gives_as_published_is_kept_and_read(
    no_data, tmp_path, monkeypatch, site
):
    publish(monkeypatch, "ETTm1", frame(69680, 7), folder=tmp_path / "site")
    entry = DATASETS["ETTm1"]._replace(url=f"{site}/ETTm1.csv")
    monkeypatch.setitem(DATASETS, "ETTm1", entry)
    assert fetch("ETTm1") == no_data / "ETTm1.csv"
    assert load("ETTm1").values_TC.shape == (69680, 7)


def test_a_page_that_a_server_does_not_have_is_said(no_data, monkeypatch, site):
    entry = DATASETS["ETTh1"]._replace(url=f"{site}/ETTh1.csv")
    monkeypatch.setitem(DATASETS, "ETTh1", entry)
    assert "could not be downloaded (HTTP Error 404" in refusal("ETTh1")


def test_fetching_unpacks_what_is_packed(no_data, monkeypatch):
    digest = hashlib.sha256(b"1,2\n").hexdigest()
    monkeypatch.setitem(DATASETS, "solar", DATASETS["solar"]._replace(sha256=digest))
    serve(monkeypatch, Response(gzip.compress(b"1,2\n")))
    assert fetch("solar").read_bytes() == b"1,2\n"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (urllib.error.URLError("offline"), "offline"),
        (TimeoutError("timed out"), "timed out"),
        (Response(b"<html>", announced=100), "6 of 100 bytes"),
        (Response(b"<html>"), "has changed"),
    ],
)
def test_a_fetch_that_fails_leaves_nothing_and_says_what_to_do(
    no_data, monkeypatch, response, reason
):
    serve(monkeypatch, response)
    message = refusal("ETTh1")
    assert reason in message
    assert f"save it as {no_data / 'ETTh1.csv'}" in message
    assert list(no_data.iterdir()) == []


def test_what_has_no_address_says_where_to_find_it(no_data):
    assert "truggles" in refusal("eia930")
    assert "made on the spot" in refusal("synthetic-load")
    assert "did you mean ETTm1" in refusal("ettm1")


# Checking


def test_a_check_reports_what_loading_would_refuse_or_hide(tmp_path):
    table = frame().assign(v1=3.0)
    table.loc[[4, 5], "v2"] = np.nan
    table = table.drop(index=[20, 21, 30]).reset_index(drop=True)
    report = check(csv(tmp_path / "ours.csv", table))
    assert json.loads(json.dumps(report)) == report
    assert (report["rows"], report["variates"]) == (47, 3)
    assert (report["missing"], report["first_missing"]) == (2, {"column": "v2", "row": 5})
    assert (report["step"], report["gaps"], report["absent"]) == ("h", 2, 3)
    assert (report["start"], report["end"]) == ("2024-01-01 00:00:00", "2024-01-03 01:00:00")
    assert report["constant"] == ["v1"]
    assert report["splits"] == {"train": 35, "validation": 5, "test": 10}  # of the full grid


def test_a_check_of_a_table_without_times_or_holes_says_so(tmp_path):
    report = check(csv(tmp_path / "ours.csv", frame().drop(columns="date")))
    assert report["step"] is report["start"] is report["first_missing"] is None
    assert report["missing"] == 0


def test_the_ett_sets_have_the_published_split_by_months_of_thirty_days():
    for name, per_hour in (("ETTh1", 1), ("ETTh2", 1), ("ETTm1", 4), ("ETTm2", 4)):
        month = 30 * 24 * per_hour
        assert DATASETS[name].split_rows == (12 * month, 4 * month, 4 * month)
        assert ("hourly" if per_hour == 1 else "15 minutes") in DATASETS[name].what


# Generators


@pytest.mark.parametrize("name", generators.GENERATORS)
def test_a_generator_is_quick_finite_and_as_large_as_described(name):
    start = time.perf_counter()
    made = load(name)
    assert time.perf_counter() - start < 10  # 0.2 s on an idle laptop
    row = describe(name)
    assert (
        made.values_TC.shape == (row["rows"], row["variates"]) == (len(made.time), row["variates"])
    )
    assert np.isfinite(made.values_TC).all()
    assert (made.values_TC.std(0) > 0).all()
    assert str(made.time[0]) == "2022-01-01 00:00:00"


@pytest.mark.parametrize("name", generators.GENERATORS)
def test_a_generator_repeats_itself_and_another_seed_does_not(name, tmp_path, monkeypatch):
    first = load(f"{name}:rows=300")
    other = load(f"{name}:rows=300,seed=1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    again = load(f"{name}:seed=0,rows=300")
    assert first.digest == again.digest != other.digest
    np.testing.assert_array_equal(first.values_TC, again.values_TC)
    assert not np.array_equal(first.values_TC, other.values_TC)


def test_a_new_version_of_a_generator_is_other_data(monkeypatch):
    before = load("synthetic-etth:rows=300")
    changed = generators.GENERATORS["synthetic-etth"]._replace(version=99)
    monkeypatch.setitem(generators.GENERATORS, "synthetic-etth", changed)
    assert load("synthetic-etth:rows=300").digest != before.digest


@pytest.mark.parametrize("setting", ["rows=0", "rows=many", "variates=0", "colour=3", "rows"])
def test_settings_that_a_generator_does_not_know_are_refused(setting):
    assert setting.partition("=")[0] in complaint(f"synthetic-load:{setting}")


@pytest.mark.parametrize(
    ("reading", "names"),
    [
        ({"columns": ("OT", "HUFL")}, ("OT", "HUFL")),
        ({"ignore": ("HULL", "MULL", "LULL")}, ("HUFL", "MUFL", "LUFL", "OT")),
        ({"columns": ("OT", "HUFL"), "ignore": ("MULL",)}, ("OT", "HUFL")),
    ],
)
def test_variates_of_a_generator_may_be_chosen_and_are_other_data(reading, names):
    whole = load("synthetic-etth:rows=300")
    some = load("synthetic-etth:rows=300", reading=Reading(**reading))
    assert some.variates == names
    at = [whole.variates.index(name) for name in names]
    np.testing.assert_array_equal(some.values_TC, whole.values_TC[:, at])
    assert some.digest == whole.digest
    assert some.identity != whole.identity
    assert load("synthetic-etth:rows=300", reading=Reading()).identity == whole.identity


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        ({"columns": ("ot",)}, "did you mean 'OT'"),
        ({"ignore": ("oil",)}, "--ignore"),
        ({"columns": ()}, "no variate is left"),
        ({"columns": ("OT",), "ignore": ("OT",)}, "--columns"),
    ],
)
def test_variates_that_a_generator_does_not_have_are_refused(reading, told):
    assert told in complaint("synthetic-etth:rows=300", reading=Reading(**reading))


def test_how_a_file_beside_it_is_written_leaves_generated_data_as_they_are():
    """A stage has one way of reading, and may learn from a file and a generator; so may flags."""
    written = Reading(sep=";", decimal=",", time="when", timezone="Europe/Berlin", na=("-",))
    plain, beside = (load("synthetic-etth:rows=300", reading=r) for r in (Reading(), written))
    assert beside.identity == plain.identity
    assert beside.variates == plain.variates


@pytest.mark.parametrize("name", generators.GENERATORS)
def test_generated_series_are_forecastable_but_not_trivial(name):
    made = load(name)
    values_TC = made.standardised()
    change_C = values_TC.var(0)
    naive_C = (values_TC[168:] - values_TC[:-168]).pow(2).mean(0)
    day_C = (values_TC[24:] - values_TC[:-24]).pow(2).mean(0)
    # Twice the variance is what two unrelated draws differ by; 0 would be a mere repetition.
    best_C = torch.minimum(naive_C, day_C) / change_C
    assert best_C.max() < 1.0
    assert best_C.min() > 0.02


def test_generated_areas_are_related():
    values_TC = load("synthetic-load").values_TC
    related = np.corrcoef(values_TC.T)[np.triu_indices(values_TC.shape[1], 1)]
    assert np.median(related) > 0.5
    assert related.max() < 0.999


def test_a_transformer_s_high_load_is_its_middle_and_low_and_its_oil_lags(tmp_path):
    made = load("synthetic-etth")
    high_T, middle_T, low_T, oil_T = (
        made.values_TC[:, made.variates.index(v)] for v in ("HUFL", "MUFL", "LUFL", "OT")
    )
    assert np.corrcoef(high_T, middle_T + low_T)[0, 1] > 0.95
    slow_T = oil_T - pd.Series(oil_T).rolling(48, center=True, min_periods=1).mean().to_numpy()
    follow = [np.corrcoef(high_T[: -lag or None] ** 2, slow_T[lag:])[0, 1] for lag in range(8)]
    assert 1 <= int(np.argmax(follow)) <= 6


def test_a_dataset_is_frozen():
    made = load("synthetic-etth:rows=300")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"


# Real data


@pytest.mark.real_data
@needs("ETTh1")
def test_etth1_has_the_windows_and_the_scale_of_the_published_benchmark():
    ett = load("ETTh1")
    counts = [len(ett.windows(split, context=672, horizon=96)) for split in ett.splits]
    assert counts == [8640 - 672 - 96 + 1, 2880 - 96 + 1, 2880 - 96 + 1]
    table = pd.read_csv(REAL["ETTh1"])
    train = table.iloc[:8640, 1:]
    np.testing.assert_allclose(ett.mean_C, train.mean(), rtol=1e-6)
    np.testing.assert_allclose(ett.deviation_C, train.std(ddof=0), rtol=1e-6)
    scaled = (table.iloc[:, 1:] - train.mean()) / train.std(ddof=0)
    np.testing.assert_allclose(ett.standardised().numpy(), scaled, atol=1e-5)


@pytest.mark.real_data
@needs("eia930")
def test_eia930_is_verified_whole_and_hourly():
    report = check("eia930")
    assert (report["rows"], report["variates"]) == (43848, 54)
    assert (report["missing"], report["gaps"], report["step"]) == (0, 0, "h")
    assert load("eia930").digest == DATASETS["eia930"].sha256
