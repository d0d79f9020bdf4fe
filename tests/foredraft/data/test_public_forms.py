"""Public files of forecasters, small and of the same form: read right, or refused with a remedy
that works when it is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables.table import Table, read


def written(folder: Path, name: str, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path: Path, **reading: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, reading=Reading(**reading))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def holds(
    table: Table, *, first: str | None, second: str | None, columns: dict[str, list[float]]
) -> None:
    """Times of the first two rows, names, and every value."""
    assert table.variates == tuple(columns)
    if first is None:
        assert table.time is None
    else:
        assert table.time is not None
        told = [stamp.tz_localize(None) for stamp in table.time[:2]]
        assert told == [pd.Timestamp(first), pd.Timestamp(second)]
    level_C = 0 if table.level_C is None else table.level_C
    wanted = np.array(list(columns.values()), dtype=float).T
    np.testing.assert_allclose(table.values_TC + level_C, wanted, rtol=1e-6)


# Plain, by months and dates


def test_air_passengers_has_months_and_a_name_with_a_hash(tmp_path: Path) -> None:
    text = "Month,#Passengers\n1949-01,112\n1949-02,118\n1949-03,132\n1949-04,129\n"
    table = read(written(tmp_path, "AirPassengers.csv", text))
    columns = {"#Passengers": [112.0, 118, 132, 129]}
    holds(table, first="1949-01-01", second="1949-02-01", columns=columns)


def test_sunspots_quotes_names_and_months(tmp_path: Path) -> None:
    text = '"Month","Sunspots"\n"1749-01",58.0\n"1749-02",62.6\n"1749-03",70.0\n'
    table = read(written(tmp_path, "monthly-sunspots.csv", text))
    holds(table, first="1749-01-01", second="1749-02-01", columns={"Sunspots": [58, 62.6, 70]})


def test_daily_temperatures_are_dates_and_numbers(tmp_path: Path) -> None:
    text = '"Date","Temp"\n"1981-01-01",20.7\n"1981-01-02",17.9\n"1981-01-03",18.8\n'
    table = read(written(tmp_path, "daily-min-temperatures.csv", text))
    holds(table, first="1981-01-01", second="1981-01-02", columns={"Temp": [20.7, 17.9, 18.8]})


def test_a_question_mark_before_a_temperature_is_read_by_na(tmp_path: Path) -> None:
    text = "Date,Temp\n1981-01-01,20.7\n1981-01-02,?0.2\n1981-01-03,?0.8\n1981-01-04,18\n"
    path = written(tmp_path, "temperatures.csv", text)
    message = refusal(path)
    assert "row 2: '?0.2' is not a number" in message
    assert "--na '?0.2'" in message
    table = read(path, reading=Reading(na=("?0.2", "?0.8")))
    assert np.isnan(table.values_TC[:, 0]).tolist() == [False, True, True, False]


def test_yahoo_s_prices_are_dates_and_six_columns(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n"
        "2024-01-02,187.1,188.4,183.9,185.6,184.9,82488700\n"
        "2024-01-03,184.2,185.9,183.4,184.3,183.5,58414500\n"
    )
    table = read(written(tmp_path, "AAPL.csv", text))
    assert table.variates == ("Open", "High", "Low", "Close", "Adj Close", "Volume")
    np.testing.assert_array_equal(table.values_TC[:, 5], np.float32([82488700, 58414500]))


def test_the_fed_s_point_for_a_missing_value_is_read_by_na(tmp_path: Path) -> None:
    path = written(tmp_path, "DGS10.csv", "DATE,DGS10\n2024-01-01,.\n2024-01-02,3.95\n")
    assert "row 1: '.' is not a number; say --na ." in refusal(path)
    table = read(path, reading=Reading(na=(".",)))
    assert np.isnan(table.values_TC[0, 0])
    assert table.values_TC[1, 0] == np.float32(3.95)


def test_ett_and_electricity_are_read_as_they_are(tmp_path: Path) -> None:
    ett = "date,HUFL,OT\n2016-07-01 00:00:00,5.827,30.531\n2016-07-01 01:00:00,5.693,27.787\n"
    columns = {"HUFL": [5.827, 5.693], "OT": [30.531, 27.787]}
    table = read(written(tmp_path, "ETTh9.csv", ett))
    holds(table, first="2016-07-01 00:00", second="2016-07-01 01:00", columns=columns)
    ecl = "date,0,1,OT\n2016-07-01 02:00:00,14,69,1\n2016-07-01 03:00:00,18,92,2\n"
    table = read(written(tmp_path, "electricity9.csv", ecl))
    assert table.variates == ("0", "1", "OT")


def test_weather_has_degree_signs_of_latin_1(tmp_path: Path) -> None:
    text = (
        "date,T (\u00b0C),SWDR (W/m\u00b2)\n2020-01-01 00:10:00,0.71,0\n2020-01-01 00:20:00,0.7,1\n"
    )
    table = read(written(tmp_path, "weather9.csv", text, encoding="latin-1"))
    assert table.variates == ("T (\u00b0C)", "SWDR (W/m\u00b2)")
    np.testing.assert_array_equal(table.values_TC[:, 0], np.float32([0.71, 0.7]))


# Without a header


def test_exchange_rates_in_a_text_need_no_header(tmp_path: Path) -> None:
    table = read(written(tmp_path, "exchange.txt", "0.785500,1.611000\n0.781800,1.610000\n"))
    columns = {"0": [0.7855, 0.7818], "1": [1.611, 1.61]}
    holds(table, first=None, second=None, columns=columns)


def test_longley_without_a_header_is_read_as_a_text(tmp_path: Path) -> None:
    text = "60323,83.0,234289,1947\n61122,88.5,259426,1948\n60171,88.2,258054,1949\n"
    path = written(tmp_path, "longley.csv", text)
    message = refusal(path)
    assert "its header '60323,83.0,234289,1947' is a row of data" in message
    assert "save it as .txt" in message
    table = read(path.rename(tmp_path / "longley.txt"))
    assert table.values_TC[:, 1].tolist() == [83.0, 88.5, np.float32(88.2)]


def test_an_exchange_s_dump_of_times_and_prices_is_known_to_have_no_header(tmp_path: Path) -> None:
    text = "2024-01-02 09:30,187.15\n2024-01-02 09:31,187.20\n2024-01-02 09:32,187.10\n"
    table = read(written(tmp_path, "dump.csv", text))
    columns = {"1": [187.15, 187.2, 187.1]}
    holds(table, first="2024-01-02 09:30", second="2024-01-02 09:31", columns=columns)


def test_mauna_loa_has_comments_above_and_white_space_between(tmp_path: Path) -> None:
    text = (
        "# CO2 at Mauna Loa, monthly\n#   decimal    average\n#\n"
        "1958.2027   315.71   314.44\n1958.2877   317.45   315.16\n1958.3699   317.51   314.69\n"
    )
    table = read(written(tmp_path, "co2_mm_mlo.txt", text))
    np.testing.assert_array_equal(table.values_TC[:, 1], np.float32([315.71, 317.45, 317.51]))


def test_mauna_loa_as_csv_has_comments_and_year_and_month_apart(tmp_path: Path) -> None:
    text = "# CO2, NOAA\n# x, y\nyear,month,average\n1958,3,315.71\n1958,4,317.45\n1958,5,317.5\n"
    table = read(written(tmp_path, "co2_mm_mlo.csv", text))
    columns = {"average": [315.71, 317.45, 317.5]}
    holds(table, first="1958-03-01", second="1958-04-01", columns=columns)


# Semicolons and decimal commas


def test_air_quality_ends_its_lines_in_separators_and_parts_date_from_clock(tmp_path: Path) -> None:
    text = (
        "Date;Time;CO(GT);PT08.S1(CO);;\r\n10/03/2004;18.00.00;2,6;1360;;\r\n"
        "10/03/2004;19.00.00;2;1292;;\r\n13/03/2004;20.00.00;-200;1402;;\r\n"
    )
    path = written(tmp_path, "AirQualityUCI.csv", text)
    table = read(path, reading=Reading(dayfirst=True))
    columns = {"CO(GT)": [2.6, 2, -200], "PT08.S1(CO)": [1360.0, 1292, 1402]}
    holds(table, first="2004-03-10 18:00", second="2004-03-10 19:00", columns=columns)
    holed = read(path, reading=Reading(dayfirst=True, na=("-200",)))
    assert np.isnan(holed.values_TC).sum() == 1


def test_household_power_has_question_marks_that_na_reads(tmp_path: Path) -> None:
    text = (
        "Date;Time;Global_active_power;Voltage\n16/12/2006;17:24:00;4.216;234.840\n"
        "16/12/2006;17:25:00;?;233.630\n16/12/2006;17:26:00;0.360;?\n"
    )
    path = written(tmp_path, "household_power_consumption.txt", text)
    message = refusal(path, dayfirst=True)
    assert "column 'Global_active_power', row 2: '?' is not a number; say --na '?'" in message
    table = read(path, reading=Reading(dayfirst=True, na=("?",)))
    assert table.variates == ("Global_active_power", "Voltage")
    np.testing.assert_array_equal(table.values_TC[:, 0], np.float32([4.216, np.nan, 0.36]))
    assert str(table.time[2]) == "2006-12-16 17:26:00"


def test_smard_has_two_times_and_german_thousands(tmp_path: Path) -> None:
    text = (
        "\ufeffDatum von;Datum bis;Netzlast [MWh] Berechnete Aufl\u00f6sungen\n"
        "31.01.2020 00:00;31.01.2020 01:00;48.324,25\n31.01.2020 01:00;31.01.2020 02:00;950,5\n"
        "31.01.2020 02:00;31.01.2020 03:00;1.046\n"
    )
    path = written(tmp_path, "Realisierter_Stromverbrauch.csv", text)
    message = refusal(path, dayfirst=True)
    assert "column 'Datum bis' holds times" in message
    assert "--ignore 'Datum bis'" in message
    table = read(path, reading=Reading(dayfirst=True, ignore=("Datum bis",)))
    np.testing.assert_array_equal(table.values_TC[:, 0], np.float32([48324.25, 950.5, 1046]))
    assert str(table.time[1]) == "2020-01-31 01:00:00"


def test_the_clients_of_2011_to_2014_have_a_nameless_time_and_decimal_commas(
    tmp_path: Path,
) -> None:
    text = (
        '"";"MT_001";"MT_002"\n"2011-01-01 00:15:00";0;1,26903553299492\n'
        '"2011-01-01 00:30:00";3,80710659898477;22,7596017069701\n'
    )
    table = read(written(tmp_path, "LD2011_2014.txt", text))
    columns = {"MT_001": [0, 3.80710659898477], "MT_002": [1.26903553299492, 22.7596017069701]}
    holds(table, first="2011-01-01 00:15", second="2011-01-01 00:30", columns=columns)


def test_a_french_export_in_latin_1_has_spaces_between_thousands(tmp_path: Path) -> None:
    text = (
        "Date;Consommation (MW) d\u00e9clar\u00e9e\n2024-01-15;56 789,5\n2024-01-16;1\u00a0234,25\n"
    )
    table = read(written(tmp_path, "eco2mix.csv", text, encoding="cp1252"))
    np.testing.assert_array_equal(table.values_TC[:, 0], np.float32([56789.5, 1234.25]))


def test_entso_e_tells_intervals_of_which_the_start_is_the_time(tmp_path: Path) -> None:
    text = (
        '"MTU (CET/CEST)","Actual Total Load [MW] - DE"\n'
        '"2020-01-01 00:00 - 2020-01-01 01:00","43862"\n'
        '"2020-01-01 01:00 - 2020-01-01 02:00","42431"\n'
        '"2020-01-01 02:00 - 2020-01-01 03:00","-"\n'
    )
    path = written(tmp_path, "Total Load.csv", text)
    assert "row 3: '-' is not a number; say --na=-" in refusal(path)
    table = read(path, reading=Reading(na=("-",)))
    columns = {"Actual Total Load [MW] - DE": [43862, 42431, np.nan]}
    holds(table, first="2020-01-01 00:00", second="2020-01-01 01:00", columns=columns)


def test_jena_writes_its_days_first_with_dots(tmp_path: Path) -> None:
    text = (
        'Date Time,"p (mbar)","wv (m/s)"\n'
        "01.01.2009 00:10:00,996.52,1.03\n01.01.2009 00:20:00,996.57,0.72\n"
    )
    path = written(tmp_path, "jena_climate.csv", text)
    columns = {"p (mbar)": [996.52, 996.57], "wv (m/s)": [1.03, 0.72]}
    table = read(path, reading=Reading(dayfirst=True))
    holds(table, first="2009-01-01 00:10", second="2009-01-01 00:20", columns=columns)


def test_nixtla_s_m4_is_long_format_whose_times_count(tmp_path: Path) -> None:
    text = "unique_id,ds,y\nH1,1,605.0\nH1,2,586.0\nH2,1,3124.0\nH2,2,2990.0\n"
    table = read(written(tmp_path, "m4-hourly.csv", text))
    assert table.variates == ("H1", "H2")
    assert table.values_TC.tolist() == [[605.0, 3124.0], [586.0, 2990.0]]


# Counters, epochs and times apart


def test_beijing_counts_rows_and_parts_its_time_and_has_a_column_of_text(tmp_path: Path) -> None:
    text = (
        "No,year,month,day,hour,pm2.5,cbwd\n1,2010,1,1,0,NA,NW\n2,2010,1,1,1,129,cv\n"
        "3,2010,1,1,2,148,NW\n"
    )
    path = written(tmp_path, "PRSA_data.csv", text)
    assert "--ignore No" in refusal(path)
    message = refusal(path, ignore=("No",))
    assert "column 'cbwd', row 1: 'NW' is not a number" in message
    assert "--ignore cbwd" in message
    table = read(path, reading=Reading(ignore=("No", "cbwd")))
    assert table.variates == ("pm2.5",)
    assert str(table.time[2]) == "2010-01-01 02:00:00"
    np.testing.assert_array_equal(table.values_TC[:, 0], np.float32([np.nan, 129, 148]))


def test_klines_open_in_milliseconds_and_close_in_a_column_to_be_ignored(tmp_path: Path) -> None:
    text = "open_time,open,close,close_time\n" + "".join(
        f"{1704067200000 + 60000 * i},{42283.58 + i},{42298.62 - i},{1704067259999 + 60000 * i}\n"
        for i in range(4)
    )
    path = written(tmp_path, "BTCUSDT-1m.csv", text)
    assert "--ignore close_time" in refusal(path)
    table = read(path, reading=Reading(ignore=("close_time",)))
    columns = {"open": [42283.58 + i for i in range(4)], "close": [42298.62 - i for i in range(4)]}
    holds(table, first="2024-01-01 00:00", second="2024-01-01 00:01", columns=columns)


def test_macroeconomic_data_have_year_and_quarter_apart(tmp_path: Path) -> None:
    text = "year,quarter,realgdp\n1959,1,2710.349\n1959,2,2778.801\n1959,3,2775.488\n"
    table = read(written(tmp_path, "macrodata.csv", text))
    columns = {"realgdp": [2710.349, 2778.801, 2775.488]}
    holds(table, first="1959-01-01", second="1959-04-01", columns=columns)


def test_yearly_sunspots_have_a_year_as_their_time(tmp_path: Path) -> None:
    table = read(written(tmp_path, "sunspots.csv", "YEAR,SUNACTIVITY\n1700,5\n1701,11\n1702,16\n"))
    holds(table, first="1700-01-01", second="1701-01-01", columns={"SUNACTIVITY": [5, 11, 16]})


def test_excel_serials_in_a_first_column_are_no_variate(tmp_path: Path) -> None:
    path = written(tmp_path, "serial.csv", "day,load\n45292,5\n45293,9\n45294,7\n")
    assert "column 'day' rises by one step" in refusal(path)
    assert read(path, reading=Reading(ignore=("day",))).variates == ("load",)
    assert read(path, reading=Reading(time="none")).variates == ("day", "load")


# Rows that are series


@pytest.mark.parametrize("header", ["V1,V2,V3,V4", "id,2020-01-01,2020-01-02,2020-01-03"])
def test_a_series_per_row_is_read_when_it_is_transposed(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, "Hourly-train.csv", f"{header}\nH1,605,586,586\nH2,3124,2990,2862\n")
    assert "transpose it" in refusal(path)
    pd.read_csv(path, index_col=0).T.to_csv(path, index=False)
    table = read(path)
    assert table.variates == ("H1", "H2")
    np.testing.assert_array_equal(table.values_TC[:, 1], [3124, 2990, 2862])
