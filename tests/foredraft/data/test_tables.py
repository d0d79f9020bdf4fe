"""Which columns are the time, variates, or neither; what cells read as numbers; a refusal names
row, column and an option, and following it works; no level swallows a variation."""

from __future__ import annotations

import datetime
import decimal
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables.table import Table, read

HOURS = pd.date_range("2024-01-01", periods=6, freq="h")
NOISE = [5.0, 9.5, 4.25, 8.0, 7.5, 3.0]


def csv(folder: Path, columns: dict[str, object], *, dated: bool = True, sep: str = ",") -> Path:
    table = pd.DataFrame(columns)
    if dated:
        table.insert(0, "date", HOURS[: len(table)])
    path = folder / "ours.csv"
    table.to_csv(path, index=False, sep=sep)
    return path


def refusal(path: Path, **reading: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, reading=Reading(**reading))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def followed(path: Path, message: str, *, option: str) -> Table:
    """The table by the option as the message writes it for a shell."""
    words = shlex.split(message[message.index(f"--{option}") :])
    value = words[0].partition("=")[2] if "=" in words[0] else words[1]
    value = value.removesuffix(",").removesuffix(";") if option != "decimal" else value[:1]
    many = option in ("ignore", "na", "columns")
    return read(path, reading=Reading(**{option: (value,) if many else value}))


def column(path: Path, **reading: object) -> list[float]:
    return read(path, reading=Reading(**reading)).values_TC[:, 0].tolist()


# Counters and times that are no variates


@pytest.mark.parametrize(
    "counter",
    [
        range(6),
        range(1, 7),
        range(100, 106),
        range(45292, 45298),
        range(10, 70, 10),
        [45292 + i / 24 for i in range(6)],
        [1704067200 + 3600 * i for i in range(6)],
    ],
)
@pytest.mark.parametrize("name", ["id", "x", "", "Unnamed: 0"])
def test_a_first_column_that_rises_by_one_step_is_no_variate(
    tmp_path: Path, counter: list[float], name: str
) -> None:
    path = csv(tmp_path, {name: counter, "load": NOISE}, dated=False)
    message = refusal(path)
    shown = name or "Unnamed: 0"
    assert f"column {shown!r} rises by one step from row to row" in message
    assert followed(path, message, option="ignore").variates == ("load",)
    assert read(path, reading=Reading(time="none")).variates == (shown, "load")


@pytest.mark.parametrize("name", ["No", "id", "ID", "row_id", "index", "obs.", "#", "close_time"])
def test_a_later_column_that_counts_and_says_so_is_no_variate(tmp_path: Path, name: str) -> None:
    path = csv(tmp_path, {"load": NOISE, name: range(1, 7)})
    message = refusal(path)
    assert f"column {name!r} rises by one step" in message
    assert followed(path, message, option="ignore").variates == ("load",)
    chosen = Reading(columns=("load", name))
    assert read(path, reading=chosen).variates == ("load", name)


@pytest.mark.parametrize("values", [[6, 5, 4, 3, 2, 1], [1, 2, 3, 5, 6, 7], [0, 0, 1, 1, 2, 2]])
def test_a_first_column_that_falls_rests_or_jumps_is_a_variate(
    tmp_path: Path, values: list[int]
) -> None:
    assert column(csv(tmp_path, {"a": values, "b": NOISE}, dated=False)) == values


def test_a_ramp_of_another_name_behind_the_time_is_a_variate(tmp_path: Path) -> None:
    assert read(csv(tmp_path, {"load": NOISE, "trend": range(6)})).variates == ("load", "trend")


@pytest.mark.parametrize("name", ["ts", "timestamp", "epoch", "open_time", "unix"])
@pytest.mark.parametrize("factor", [1, 1000, 10**6])
def test_an_epoch_whose_name_says_so_is_the_time(tmp_path: Path, name: str, factor: int) -> None:
    epochs = [(1704067200 + 3600 * i) * factor for i in range(6)]
    made = read(csv(tmp_path, {name: epochs, "load": NOISE}, dated=False))
    assert made.variates == ("load",)
    assert made.time is not None
    assert [t.tz_localize(None) for t in made.time] == list(HOURS)


def test_a_second_column_of_times_is_refused_and_may_be_taken_as_the_time(tmp_path: Path) -> None:
    path = csv(tmp_path, {"until": HOURS + pd.Timedelta("1h"), "load": NOISE})
    message = refusal(path)
    assert followed(path, message, option="ignore").variates == ("load",)
    chosen = Reading(time="until", ignore=("date",))
    made = read(path, reading=chosen)
    assert str(made.time[0]) == "2024-01-01 01:00:00"


def test_a_time_that_is_not_first_is_named_by_time(tmp_path: Path) -> None:
    path = csv(tmp_path, {"load": NOISE, "when": HOURS}, dated=False)
    made = followed(path, refusal(path), option="time")
    assert made.variates == ("load",)
    assert [str(t) for t in made.time] == [str(t) for t in HOURS]


@pytest.mark.parametrize("parts", [["year", "month", "day", "hour"], ["Year", "Month", "Day"]])
def test_a_time_in_parts_is_joined(tmp_path: Path, parts: list[str]) -> None:
    days = pd.date_range("2023-12-30", periods=6, freq="h" if len(parts) == 4 else "D")
    columns: dict[str, object] = {name: getattr(days, name.lower()) for name in parts}
    made = read(csv(tmp_path, columns | {"load": NOISE}, dated=False))
    assert made.variates == ("load",)
    assert [str(t) for t in made.time] == [str(t) for t in days]


def test_a_time_in_parts_that_is_none_names_its_row(tmp_path: Path) -> None:
    columns = {"year": [2024] * 3, "month": [1, 2, 13], "load": NOISE[:3]}
    path = csv(tmp_path, columns, dated=False)
    assert "columns year, month, row 3: 2024, 13 is no time" in refusal(path)


@pytest.mark.parametrize("clock", ["%H:%M", "%H:%M:%S", "%H.%M.%S"])
def test_a_date_and_a_clock_in_two_columns_are_one_time(tmp_path: Path, clock: str) -> None:
    columns = {"Date": HOURS.strftime("%Y-%m-%d"), "Time": HOURS.strftime(clock), "load": NOISE}
    made = read(csv(tmp_path, columns, dated=False))
    assert made.variates == ("load",)
    assert [str(t) for t in made.time] == [str(t) for t in HOURS]


def test_a_date_and_an_hour_in_two_columns_are_one_time(tmp_path: Path) -> None:
    columns = {"date": HOURS.strftime("%Y-%m-%d"), "hour": HOURS.hour, "load": NOISE}
    made = read(csv(tmp_path, columns, dated=False))
    assert [str(t) for t in made.time] == [str(t) for t in HOURS]


# Which columns


def test_variates_are_those_that_are_named_in_that_order(tmp_path: Path) -> None:
    path = csv(tmp_path, {"a": NOISE, "note": list("uvwxyz"), "b": NOISE[::-1]})
    assert read(path, reading=Reading(columns=("b", "a"))).variates == ("b", "a")
    assert column(path, columns=("b",)) == NOISE[::-1]
    assert read(path, reading=Reading(ignore=("note",))).variates == ("a", "b")


@pytest.mark.parametrize("field", ["time", "columns", "ignore"])
@pytest.mark.parametrize(
    ("asked", "hint"),
    [("Lood", "did you mean 'load'"), ("LOAD", "did you mean 'load'"), ("q", "it has date, load")],
)
def test_a_name_that_no_column_has_is_refused_with_the_closest(
    tmp_path: Path, field: str, asked: str, hint: str
) -> None:
    path = csv(tmp_path, {"load": NOISE})
    value = asked if field == "time" else (asked,)
    message = refusal(path, **{field: value})
    assert f"no column is named {asked!r} (--{field})" in message
    assert hint in message


def test_the_time_is_no_variate_even_when_it_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, {"load": NOISE})
    assert "column 'date' is the time" in refusal(path, columns=("date", "load"))


def test_a_column_of_text_named_as_the_time_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, {"note": list("uvwxyz"), "load": NOISE}, dated=False)
    with pytest.raises(DataError, match="'note'"):
        read(path, reading=Reading(time="note"))


# Long format


# Cells


@pytest.mark.parametrize("token", ["?", "-", "--", ".", "*", "missing", "no data", "x", "offline"])
def test_what_stands_for_a_missing_value_is_read_by_na(tmp_path: Path, token: str) -> None:
    cells = [*map(str, NOISE)]
    cells[2] = token
    path = csv(tmp_path, {"load": cells})
    message = refusal(path)
    assert f"column 'load', row 3: {token!r} is not a number" in message
    made = followed(path, message, option="na")
    assert np.isnan(made.values_TC[:, 0]).tolist() == [False, False, True, False, False, False]
    assert made.values_TC[3, 0] == 8


@pytest.mark.parametrize("token", ["", "NA", "N/A", "NaN", "null", "#N/A", "None"])
def test_an_empty_cell_or_a_usual_word_for_it_is_missing(tmp_path: Path, token: str) -> None:
    cells = [*map(str, NOISE)]
    cells[1] = token
    assert np.isnan(column(csv(tmp_path, {"load": cells}))[1])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_number_that_stands_for_a_missing_value_is_read_by_na(
    tmp_path: Path, suffix: str
) -> None:
    table = pd.DataFrame({"date": HOURS, "load": [5, -999, 4, -999.0, 7, 3]})
    path = tmp_path / f"ours.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    assert np.isnan(column(path, na=("-999",))).sum() == 2
    assert np.isnan(column(path)).sum() == 0


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["1,234.5", "950", "12,000,000"], [1234.5, 950, 12e6]),
        (["1.234,5", "950", "12.000.000"], [1234.5, 950, 12e6]),
        (["1 234.5", "950", "12 000 000"], [1234.5, 950, 12e6]),
        (["1\u00a0234,5", "950", "12\u202f000"], [1234.5, 950, 12000]),
        (["1'234.5", "950", "12\u2019000"], [1234.5, 950, 12000]),
        (["1,5", "950", "0,25"], [1.5, 950, 0.25]),
        (["\u22125", "\u22120.5", "7"], [-5, -0.5, 7]),
        (["12%", "7.5 %", "-3%"], [12, 7.5, -3]),
        (["$5", "$1,234.50", "-$7"], [5, 1234.5, -7]),
        (["5 \u20ac", "1.234,50 \u20ac", "7,25 \u20ac"], [5, 1234.5, 7.25]),
        (["1,234,567", "2,000", "5"], [1234567, 2000, 5]),
        (["1.5e3", "\u22122e-1", "+7"], [1500, -0.2, 7]),
    ],
)
def test_a_cell_that_reads_one_way_only_is_read(
    tmp_path: Path, cells: list[str], wanted: list[float]
) -> None:
    made = column(csv(tmp_path, {"load": cells}))
    np.testing.assert_array_equal(made, np.float32(wanted))


@pytest.mark.parametrize(
    "cells",
    [
        ["12%", "5", "7"],
        ["$5", "5", "7"],
        ["1,23,4.5", "5", "7"],
        ["1.2M", "5", "7"],
        ["(5)", "5", "7"],
        ["1,5", "0.5", "7"],
        ["12,34.5", "5", "7"],
        ["5 kWh", "5", "7"],
    ],
)
def test_a_cell_that_no_pattern_reads_is_refused_by_row_and_column(
    tmp_path: Path, cells: list[str]
) -> None:
    path = csv(tmp_path, {"a": NOISE[:3], "load": cells})
    message = refusal(path)
    assert f"column 'load', row 1: {cells[0]!r} is not a number" in message
    assert followed(path, message, option="ignore").variates == ("a",)


@pytest.mark.parametrize("option", [",", "."])
def test_a_quoted_cell_that_reads_two_ways_is_refused_and_read_by_decimal(
    tmp_path: Path, option: str
) -> None:
    path = csv(tmp_path, {"load": ["1,234", "950", "2,500"]})
    message = refusal(path)
    assert "row 1: '1,234' reads as 1.234 (--decimal ,) and as 1234 (--decimal .)" in message
    wanted = {",": [1.234, 950, 2.5], ".": [1234, 950, 2500]}[option]
    np.testing.assert_array_equal(column(path, decimal=option), np.float32(wanted))


def test_a_column_of_words_is_left_out_by_ignore(tmp_path: Path) -> None:
    path = csv(tmp_path, {"load": NOISE, "wind dir": ["N", "NW", "N", "S", "S", "N"]})
    message = refusal(path)
    assert "--na" not in message
    assert "--ignore 'wind dir'" in message
    assert followed(path, message, option="ignore").variates == ("load",)


# Columns of Parquet


def parquet(folder: Path, values: object) -> Path:
    path = folder / "ours.parquet"
    pd.DataFrame({"date": HOURS[:3], "load": values}).to_parquet(path)
    return path


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["5", "7.5", "5"]),
        pd.Categorical([5, 7.5, 5]),
        [decimal.Decimal("5"), decimal.Decimal("7.5"), decimal.Decimal("5.0")],
        pd.array([5, 7.5, 5], dtype="Float64"),
        ["5", "7.5", "5"],
    ],
    ids=["dictionary of text", "dictionary", "decimals", "nullable", "text"],
)
def test_numbers_are_read_whatever_they_are_made_of(tmp_path: Path, values: object) -> None:
    assert column(parquet(tmp_path, values)) == [5, 7.5, 5]


def test_flags_are_0_and_1(tmp_path: Path) -> None:
    assert column(parquet(tmp_path, [True, False, True])) == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "trouble"),
    [
        ([[1.0, 2.0], [3.0], []], "holds lists in its cells"),
        ([{"a": 1}, {"a": 2}, {"a": 3}], "holds lists in its cells"),
        (pd.Categorical(["N", "S", "N"]), "'N' is not a number"),
        (pd.to_timedelta([1, 2, 3], unit="h"), "holds times"),
        ([datetime.date(2024, 1, d) for d in (1, 2, 3)], "holds times"),
    ],
    ids=["lists", "records", "words", "durations", "dates"],
)
def test_what_is_no_number_is_refused_in_one_line(
    tmp_path: Path, values: object, trouble: str
) -> None:
    message = refusal(parquet(tmp_path, values))
    assert "column 'load'" in message
    assert trouble in message
    assert "--ignore load" in message


# Levels


def test_a_level_that_would_swallow_the_variation_is_taken_off_in_double_precision(
    tmp_path: Path,
) -> None:
    far = 1.7e9 + np.array([0.25, 3.5, 1.125, 0.5, 2.75, 0.0])
    made = read(csv(tmp_path, {"load": NOISE, "far": far}))
    assert made.values_TC.dtype == np.float32
    assert len(np.unique(far.astype(np.float32))) == 1
    np.testing.assert_array_equal(made.values_TC.astype(np.float64)[:, 1] + made.level_C[1], far)
    assert made.level_C[0] == 0
    assert made.values_TC[:, 0].tolist() == NOISE


@pytest.mark.parametrize(
    "values",
    [
        [0.1] * 6,
        [1e9] * 6,
        [2.0**23 + i for i in (0, 3, 1, 5, 4, 2)],
        [1e6 + 0.1, 2e6, 3e6, 1e6, 4e6, 2e6],
        [np.nan] * 6,
        [np.nan, 1e9, np.nan, 1e9, 1e9, 1e9],
    ],
)
def test_a_level_that_swallows_nothing_is_left(tmp_path: Path, values: list[float]) -> None:
    made = read(csv(tmp_path, {"a": NOISE, "load": values}))
    assert made.level_C[1] == 0
    np.testing.assert_array_equal(made.values_TC[:, 1], np.float32(values))


def test_a_level_is_taken_off_around_missing_cells(tmp_path: Path) -> None:
    far = [1e12, np.nan, 1e12 + 3, 1e12 + 1, 1e12 + 2, np.nan]
    made = read(csv(tmp_path, {"load": far}))
    np.testing.assert_array_equal(made.values_TC[:, 0].astype(float) + made.level_C[0], far)
