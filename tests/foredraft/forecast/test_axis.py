"""Claims about when a forecast begins and what it may start from.

- It goes on by the calendar of the data: month ends, business days, local midnights; the zone of
  the data comes back, in CSV and in Parquet.
- A recipe is for one stretch of time: data of another are refused, business days for days too.
  Recipes of before, which named steps as they were named then, are still read.
- A context without an even step, or with a hole that was not filled, is refused with the place and
  the count.
- `at` forecasts from any row of the data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foredraft import data, forecast
from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.forecast import forecaster
from foredraft.forecast.context import Reads, context_of
from speculation import Tolerance

ROWS = 60


def recipe(storage: Path, *, step: str | None = "h") -> Path:
    choice = {
        "target": {"path": "../../targets/one"},
        "draft": {"path": "../../drafts/one"},
        "acceptance": asdict(Tolerance(mse_tol=0.0, lookahead=2)),
        "evaluation": {"data": "known.csv", "horizon": 24},
        "plan": None,
        "reads": reads(None).model_dump(mode="json") | {"step": step},
    }
    path = storage / "studies" / "mine" / "best.json"
    path.write_text(json.dumps(choice))
    return path


def reads(step: str | None = "h") -> Reads:
    return Reads(patch=8, context=32, step=step, variates=(), mean=(), deviation=())


def values(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(0).normal(10.0, 2.0, size=rows)


def written(time: Any, name: str = "mine.csv") -> str:
    table = pd.DataFrame({"date": time, "load": values(len(time))})
    if name.endswith(".csv"):
        table.to_csv(name, index=False)
    else:
        table.to_parquet(name, index=False)
    return name


def forecast_of(storage: Path, source: str, *, step: str | None, **more: Any) -> pd.DataFrame:
    out = Path("out.parquet")
    forecast.write_forecast(recipe(storage, step=step), source, out=out, **more)
    return pd.read_parquet(out)


@pytest.mark.parametrize(
    ("freq", "start", "first"),
    [
        ("ME", "2015-01-31", ["2020-01-31", "2020-02-29", "2020-03-31"]),
        ("MS", "2015-01-01", ["2020-01-01", "2020-02-01", "2020-03-01"]),
        ("QE-DEC", "2005-03-31", ["2020-03-31", "2020-06-30", "2020-09-30"]),
        ("QS-JAN", "2005-01-01", ["2020-01-01", "2020-04-01", "2020-07-01"]),
        ("YE-DEC", "1960-12-31", ["2020-12-31", "2021-12-31", "2022-12-31"]),
        ("W-FRI", "2018-11-09", ["2020-01-03", "2020-01-10", "2020-01-17"]),
        ("B", "2024-01-01", ["2024-03-25", "2024-03-26", "2024-03-27"]),
        ("15min", "2024-01-01", ["2024-01-01 15:00", "2024-01-01 15:15", "2024-01-01 15:30"]),
    ],
)
def test_a_forecast_goes_on_by_the_calendar(storage, freq, start, first):
    time = pd.date_range(start, periods=ROWS, freq=freq)
    made = forecast_of(storage, written(time), step=freq, horizon=40)
    assert list(made["time"][:3]) == list(pd.DatetimeIndex(first))
    assert list(made["time"]) == list(pd.date_range(time[0], periods=ROWS + 40, freq=freq)[ROWS:])


def test_business_days_have_no_saturday(storage):
    source = written(pd.date_range("2024-01-01", periods=ROWS, freq="B"))
    assert set(forecast_of(storage, source, step="B")["time"].dt.day_of_week) == set(range(5))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_the_zone_of_the_data_comes_back_through_a_change_of_the_clocks(storage, zone, suffix):
    change = {"America/New_York": "2024-11-02"}.get(zone, "2024-10-26")
    time = pd.date_range(end=f"{change} 20:00", periods=ROWS, freq="h", tz=zone)
    after = pd.date_range(time[0], periods=ROWS + 24, freq="h")[ROWS:]
    source = written(time, f"mine.{suffix}")
    out = Path(f"out.{suffix}")
    reading = data.Reading(timezone=zone)  # a file of text shows one offset only
    forecast.write_forecast(recipe(storage), source, out=out, reading=reading)
    if suffix == "csv":
        assert list(pd.read_csv(out)["time"]) == [str(stamp) for stamp in after]
    else:
        made = pd.read_parquet(out)["time"]
        assert list(made) == list(after)
        assert str(made.dt.tz) == zone


def test_naive_times_stay_naive(storage):
    source = written(pd.date_range("2024-10-26", periods=ROWS, freq="h"))
    assert forecast_of(storage, source, step="h")["time"].dt.tz is None


def test_local_days_go_on_at_midnight_through_a_change_of_the_clocks(storage):
    time = pd.date_range(end="2024-03-29", periods=ROWS, freq="D", tz="Europe/Berlin")
    made = forecast_of(storage, written(time, "mine.parquet"), step="D")
    assert set(made["time"].dt.hour) == {0}
    assert made["time"].iloc[0] == pd.Timestamp("2024-03-30", tz="Europe/Berlin")


def test_rows_without_times_are_numbered(storage):
    pd.DataFrame({"load": values()}).to_csv("mine.csv", index=False)
    assert list(forecast_of(storage, "mine.csv", step="h")["time"]) == list(range(1, 25))


@pytest.mark.parametrize(
    ("recipes", "datas"), [("B", "D"), ("D", "B"), ("h", "15min"), ("ME", "W-FRI"), ("24h", "B")]
)
def test_another_stretch_of_time_is_refused(storage, recipes, datas):
    source = written(pd.date_range("2020-01-01", periods=ROWS, freq=datas))
    with pytest.raises(data.DataError, match=f"a row every {datas}: .* of .*; resample"):
        forecast_of(storage, source, step=recipes)


@pytest.mark.parametrize(
    ("recipes", "datas"),
    [
        *[("24h", "D"), ("168h", "W-FRI"), ("60min", "h"), ("H", "h")],
        *[("MS", "ME"), ("M", "MS"), ("W-SUN", "W-WED"), (None, "h")],
    ],
)
def test_recipes_of_before_and_of_another_anchor_are_read(storage, recipes, datas):
    source = written(pd.date_range("2020-01-01", periods=ROWS, freq=datas))
    assert len(forecast_of(storage, source, step=recipes)) == 24


def test_a_recipe_of_no_known_step_is_refused(storage, capsys):
    source = written(pd.date_range("2020-01-01", periods=ROWS, freq="h"))
    words = ["forecast", "--recipe", str(recipe(storage, step="soon")), "--data", source]
    with pytest.raises(SystemExit):
        main([*words, "--out", "o.csv"])
    assert "reads.step is 'soon'" in capsys.readouterr().err


def test_times_that_keep_no_step_are_refused(storage):
    ahead = np.random.default_rng(0).integers(1, 5000, size=ROWS).cumsum()
    source = written(pd.Timestamp("2024-01-01") + pd.to_timedelta(ahead, unit="s"))
    with pytest.raises(data.DataError, match=r"keep no step.*resample"):
        forecast_of(storage, source, step=None)


def gappy(absent: slice) -> data.Dataset:
    """A data set whose times have a hole, as one that goes by its rows may have."""
    time = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    dataset = data.load(written(time))
    kept = np.delete(np.arange(ROWS), absent)
    return replace(dataset, values_TC=dataset.values_TC[kept], time=time[kept])


def test_a_context_with_absent_rows_is_refused_with_their_place_and_number():
    with pytest.raises(data.MissingCells) as refusal:
        context_of(gappy(slice(40, 43)), reads(), source="mine.csv")
    assert "3 rows are absent (a row every h)" in str(refusal.value)
    assert "before row 41 (2024-01-02 19:00:00)" in str(refusal.value)
    assert "--missing interpolate" in str(refusal.value)


def test_rows_that_are_absent_before_the_context_do_not_matter():
    assert context_of(gappy(slice(3, 6)), reads(), source="mine.csv").values_TC.shape == (32, 1)


def test_missing_cells_that_were_left_are_refused_in_the_context_only():
    dataset = data.load(written(pd.date_range("2024-01-01", periods=ROWS, freq="h")))
    holes_TC = np.array(dataset.values_TC)
    holes_TC[[2, 50, 51]] = np.nan
    with pytest.raises(data.MissingCells, match=r"2 cells of the context .* 'load', row 51 "):
        context_of(replace(dataset, values_TC=holes_TC), reads(), source="mine.csv")
    holes_TC[50:52] = 1.0
    context_of(replace(dataset, values_TC=holes_TC), reads(), source="mine.csv")


def test_the_result_tells_what_was_filled_in_the_context():
    dataset = data.load(written(pd.date_range("2024-01-01", periods=ROWS, freq="h")))
    filled_TC = np.zeros(dataset.values_TC.shape, dtype=bool)
    filled_TC[[1, 40, 45]] = True
    context = context_of(replace(dataset, filled_TC=filled_TC), reads(), source="mine.csv")
    assert (context.filled, context.filled_rows) == (2, 2)


# From another row


def test_at_forecasts_as_if_the_data_ended_there(storage):
    time = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    whole = forecast_of(storage, written(time), step="h", at="2024-01-02 15:00")
    cut = pd.read_csv("mine.csv").iloc[:40]
    cut.to_csv("cut.csv", index=False)
    pd.testing.assert_frame_equal(whole, forecast_of(storage, "cut.csv", step="h"))
    assert whole["time"].iloc[0] == pd.Timestamp("2024-01-02 16:00")


def test_at_is_of_the_datas_zone_where_it_names_none(storage):
    time = pd.date_range("2024-01-01", periods=ROWS, freq="h", tz="Asia/Tokyo")
    source = written(time, "mine.parquet")
    local = forecast_of(storage, source, step="h", at="2024-01-02 15:00")
    utc = forecast_of(storage, source, step="h", at="2024-01-02 06:00Z")
    pd.testing.assert_frame_equal(local, utc)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2024-01-02 15:30", "no row of mine.csv is at that time: it has rows from 2024-01-01"),
        ("soon", "which is no time of the data: write it like 2024-01-03 11:00:00"),
        ("2024-01-02 15:00Z", "write it like the data's own times"),
    ],
)
def test_a_time_of_no_row_is_refused(storage, at, said):
    source = written(pd.date_range("2024-01-01", periods=ROWS, freq="h"))
    with pytest.raises(ConfigError, match=said):
        forecast_of(storage, source, step="h", at=at)


def test_a_time_too_early_for_a_context_is_refused(storage):
    source = written(pd.date_range("2024-01-01", periods=ROWS, freq="h"))
    with pytest.raises(data.DataError, match="has 6 rows up to 2024-01-01 05:00: the model reads"):
        forecast_of(storage, source, step="h", at="2024-01-01 05:00")


def test_the_flags_of_reading_reach_the_data(storage, capsys, monkeypatch):
    time = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    table = pd.DataFrame({"id": np.arange(ROWS), "when": time.strftime("%d/%m/%Y")})
    table.assign(a=values(), b=values()[::-1], c=1.5).to_csv("odd.txt", sep=";", decimal=",")
    words = ["forecast", "--recipe", str(recipe(storage, step="D")), "--data", "odd.txt"]
    words += ["--sep", ";", "--decimal", ",", "--time", "when", "--dayfirst"]
    words += ["--columns", "b", "a", "--timezone", "Europe/Berlin", "--at", "2024-02-20", "--json"]
    main([*words, "--out", "out.csv"])
    told = json.loads(capsys.readouterr().out)
    assert (told["variates"], told["step"], told["filled"]) == (2, "D", 0)
    assert told["last"] == "2024-02-20 00:00:00+01:00"
    made = pd.read_csv("out.csv")
    assert list(made["variate"].unique()) == ["b", "a"]
    assert made["time"].iloc[0] == "2024-02-21 00:00:00+01:00"
    monkeypatch.setattr(forecaster, "_forecasts", lambda *_: pytest.fail("forecast was computed"))
    with pytest.raises(SystemExit):
        main([*words, "--monthfirst", "--out", "out.csv"])
    assert "--dayfirst and --monthfirst are both given" in capsys.readouterr().err
