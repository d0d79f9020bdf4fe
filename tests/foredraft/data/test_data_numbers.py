"""Which rows are read, and in what unit: claims on data whose every value names its row and column.

A split's rows, its first and last window, what the scaler sees and what it gives, the variates
that are drawn: all of it by arithmetic on the file, none by the code under test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from foredraft import data
from foredraft.data import DATASETS, Dataset, load, scale

CONTEXT, HORIZON = 12, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(path: Path, columns: dict[str, np.ndarray]) -> str:
    """A file of these columns behind hours, as a first column that counts is no variate."""
    table = pd.DataFrame(columns)
    table.insert(0, "date", pd.date_range("2024-01-01", periods=len(table), freq="h"))
    table.to_csv(path, index=False)
    return str(path)


def counting(path: Path, *, rows: int = 100, variates: int = 3) -> str:
    """A file in which a value is its row + 1000 times its column."""
    values = np.arange(rows)[:, None] + 1000 * np.arange(variates)
    return written(path, {f"v{i}": values[:, i] for i in range(variates)})


@pytest.fixture
def counted(tmp_path: Path) -> Dataset:
    return load(counting(tmp_path / "counted.csv"))


def rows_of(values_BLC: Tensor, *, train_rows: int = 70) -> np.ndarray:
    """Rows [B, L] that standardised values of variate 0 come from."""
    mean, deviation = (train_rows - 1) / 2, np.sqrt((train_rows**2 - 1) / 12)
    rows = values_BLC[..., 0].double().numpy() * deviation + mean
    np.testing.assert_allclose(rows, rows.round(), atol=1e-3)
    return rows.round().astype(int)


# Borders


def test_a_series_is_split_70_10_20_by_default_and_the_remainder_is_validation(
    tmp_path: Path,
) -> None:
    for rows, train, validation in [(100, 70, 80), (17, 11, 14), (1203, 842, 963)]:
        made = load(counting(tmp_path / f"rows{rows}.csv", rows=rows))
        assert made.splits == {
            "train": (0, train),
            "validation": (train, validation),
            "test": (validation, rows),
        }


def test_etth1_is_split_in_months_of_30_days_and_its_last_rows_are_nobody_s(
    tmp_path: Path,
) -> None:
    made = load(counting(tmp_path / "ETTh1.csv", rows=17420, variates=7))
    assert made.splits == {
        "train": (0, 8640),
        "validation": (8640, 11520),
        "test": (11520, 14400),
    }
    assert made.mean_C[0] == 4319.5
    test = made.windows("test", context=672, horizon=96)
    ends = test.batch(torch.tensor([0, len(test) - 1]))[:, [0, -1]]
    assert rows_of(ends, train_rows=8640).tolist() == [[10848, 11615], [13632, 14399]]


@pytest.mark.parametrize(("name", "per_hour"), [("ETTh1", 1), ("ETTh2", 1), ("ETTm1", 4)])
def test_the_published_borders_of_ett_are_12_4_and_4_months(name: str, per_hour: int) -> None:
    assert DATASETS[name].split_rows == (8640 * per_hour, 2880 * per_hour, 2880 * per_hour)
    assert DATASETS[name].rows == 17420 * per_hour


def test_the_published_sizes_are_those_of_the_benchmarks() -> None:
    sizes = {name: (entry.rows, entry.variates) for name, entry in DATASETS.items()}
    assert sizes == {
        "ETTh1": (17420, 7),
        "ETTh2": (17420, 7),
        "ETTm1": (69680, 7),
        "ETTm2": (69680, 7),
        "electricity": (26304, 321),
        "weather": (52696, 21),
        "traffic": (17544, 862),
        "exchange": (7588, 8),
        "solar": (52560, 137),
        "eia930": (43848, 54),
    }
    published = {name for name, entry in DATASETS.items() if entry.split_rows}
    assert published == {"ETTh1", "ETTh2", "ETTm1", "ETTm2"}


# Windows


@pytest.mark.parametrize(
    ("split", "stride", "count", "first", "last"),
    [
        # 70 training rows hold 54 windows of 17; contexts of the others reach 12 rows back.
        ("train", 1, 54, 0, 53),
        ("validation", 1, 6, 58, 63),
        ("test", 1, 16, 68, 83),
        ("train", 4, 14, 0, 52),
        ("validation", 4, 2, 58, 62),
        ("test", 4, 4, 68, 80),
    ],
)
def test_the_windows_of_a_split_are_these_rows(
    counted: Dataset, split: str, stride: int, count: int, first: int, last: int
) -> None:
    windows = counted.windows(split, context=CONTEXT, horizon=HORIZON, stride=stride)
    rows = rows_of(windows.batch(torch.arange(len(windows))))
    assert len(rows) == count
    assert rows[:, 0].tolist() == list(range(first, last + 1, stride))
    assert (rows == rows[:, :1] + np.arange(CONTEXT + HORIZON)).all()


def test_no_forecast_of_a_split_lies_in_another_and_every_row_of_a_split_is_forecast(
    counted: Dataset,
) -> None:
    for split, wanted in {"train": (12, 70), "validation": (70, 80), "test": (80, 100)}.items():
        windows = counted.windows(split, context=CONTEXT, horizon=HORIZON)
        rows = rows_of(windows.batch(torch.arange(len(windows))))
        assert set(rows[:, CONTEXT:].flat) == set(range(*wanted))


def test_no_training_window_sees_a_row_past_the_training_split(counted: Dataset) -> None:
    windows = counted.windows("train", context=CONTEXT, horizon=HORIZON)
    assert rows_of(windows.batch(torch.arange(len(windows)))).max() == 69


def test_a_context_longer_than_the_training_split_starts_at_row_0(counted: Dataset) -> None:
    windows = counted.windows("validation", context=75, horizon=5)
    assert windows.starts_W.tolist() == [0]


def test_one_row_less_than_a_window_is_too_few_and_one_window_is_enough(counted: Dataset) -> None:
    assert len(counted.windows("train", context=60, horizon=10)) == 1
    assert len(counted.windows("test", context=CONTEXT, horizon=20)) == 1
    with pytest.raises(data.DataError, match=r"train has 70 rows \(from row 0\)"):
        counted.windows("train", context=60, horizon=11)
    with pytest.raises(data.DataError, match=r"test has 20 rows \(from row 80\)"):
        counted.windows("test", context=CONTEXT, horizon=21)
    assert len(counted.windows("train", context=1, horizon=1)) == 69


def test_the_variates_that_are_drawn_are_those_of_the_index_in_its_order(tmp_path: Path) -> None:
    values = np.array([[row * (column + 1) for column in range(4)] for row in range(100)])
    columns = dict(zip("abcd", values.T, strict=True))
    made = load(written(tmp_path / "steep.csv", columns))
    windows = made.windows("train", context=CONTEXT, horizon=HORIZON)
    draw_BV = torch.tensor([[3, 1], [0, 2]])
    drawn_BLV = windows.batch(torch.tensor([7, 20]), variates=draw_BV).double().numpy()
    for sample, start in enumerate((7, 20)):
        for place, column in enumerate(draw_BV[sample].tolist()):
            in_units = drawn_BLV[sample, :, place] * made.deviation_C[column]
            in_units = in_units + made.mean_C[column]
            wanted = (start + np.arange(17)) * (column + 1)
            np.testing.assert_allclose(in_units, wanted, atol=1e-3)


# Scale


def test_the_scale_is_mean_and_population_deviation_of_the_training_rows_alone(
    counted: Dataset,
) -> None:
    np.testing.assert_allclose(counted.mean_C, [34.5, 1034.5, 2034.5], rtol=1e-13)
    np.testing.assert_allclose(counted.deviation_C, np.sqrt((70**2 - 1) / 12), rtol=1e-13)


@pytest.mark.parametrize("cells", [2**22, 7])
def test_the_scale_is_summed_in_double_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(scale, "CHUNK_CELLS", cells)
    values = 2.0**23 + np.arange(10000)  # each exact in float32, their sum is not
    made = load(written(tmp_path / "far.csv", {"v0": values}))
    np.testing.assert_allclose(made.mean_C, 2.0**23 + 6999 / 2, rtol=1e-14)
    np.testing.assert_allclose(made.deviation_C, np.sqrt((7000**2 - 1) / 12), rtol=1e-9)


def test_a_variate_that_is_constant_in_training_has_deviation_1_and_keeps_its_unit(
    tmp_path: Path,
) -> None:
    flat = np.where(np.arange(100) < 70, 0.1, 3.1)
    almost = np.where(np.arange(100) == 69, 0.2, 0.1)
    pd.DataFrame({"flat": flat, "almost": almost}).to_csv(tmp_path / "flat.csv", index=False)
    made = load(str(tmp_path / "flat.csv"))
    assert made.deviation_C[0] == 1.0
    assert made.deviation_C[1] < 0.1
    np.testing.assert_allclose(made.standardised()[70:, 0], 3.0, rtol=1e-6)


def test_a_variate_that_is_constant_in_every_chunk_but_not_over_them_is_not_constant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "CHUNK_CELLS", 35)
    steps = {"up": np.arange(100) // 35, "down": 5 - np.arange(100) // 35}
    pd.DataFrame({name: values.astype(float) for name, values in steps.items()}).to_csv(
        tmp_path / "steps.csv", index=False
    )
    made = load(str(tmp_path / "steps.csv"))
    np.testing.assert_allclose(made.deviation_C, [0.5, 0.5], rtol=1e-13)


@pytest.mark.parametrize("cells", [2**22, 7])
def test_standardised_is_value_minus_mean_by_deviation_rounded_once_to_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(scale, "CHUNK_CELLS", cells)
    made = load(counting(tmp_path / "counted.csv"))
    values = np.arange(100.0)[:, None] + 1000.0 * np.arange(3)
    mean, deviation = np.array([34.5, 1034.5, 2034.5]), np.sqrt((70**2 - 1) / 12)
    standardised_TC = made.standardised()
    assert standardised_TC.dtype == torch.float32
    wanted = ((values - mean) / deviation).astype(np.float32)
    np.testing.assert_array_max_ulp(standardised_TC.numpy(), wanted, maxulp=1)


def test_a_second_loading_has_the_scale_and_the_rows_of_the_first(tmp_path: Path) -> None:
    source = counting(tmp_path / "counted.csv")
    first = load(source)
    first_TC = first.standardised().clone()
    again = load(source)
    assert (again.mean_C == first.mean_C).all()
    assert (again.deviation_C == first.deviation_C).all()
    assert torch.equal(again.standardised(), first_TC)


def test_the_scale_of_other_splits_is_that_of_their_own_training_rows(tmp_path: Path) -> None:
    source = counting(tmp_path / "counted.csv")
    load(source).standardised()
    half = load(source, splits=(0.5, 0.25))
    assert half.splits == {"train": (0, 50), "validation": (50, 75), "test": (75, 100)}
    np.testing.assert_allclose(half.mean_C, [24.5, 1024.5, 2024.5], rtol=1e-13)
    np.testing.assert_allclose(half.deviation_C, np.sqrt((50**2 - 1) / 12), rtol=1e-13)
    rows = rows_of(half.standardised()[None], train_rows=50)
    assert rows.tolist() == [list(range(100))]
