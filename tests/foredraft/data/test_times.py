"""Times are read as what they are, and their step is one of the calendar or of the clock.

- Every kind of step is recognised in two rows and in many, also where rows are absent; it is
  continued and counted as pandas' own offsets do it, in every zone and resolution.
- Times in texts, numbers and periods are read right, or refused in a line whose remedy works.
- Dates that read two ways are decided by even spacing, or refused with both readings.
- A zone that is named is kept; one that is given is applied, but for hours that it does not have.
"""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.time.stamps import stamps
from foredraft.data.time.steps import Gap, OffGrid, Step, gaps, infer

CLOCK = ["ms", "s", "30s", "min", "5min", "10min", "15min", "30min", "h", "90min", "3h", "6h"]
DAYS = ["D", "2D", "3D", "W-SUN", "W-FRI", "2W-MON"]
MONTHS = ["MS", "ME", "2ME", "QS-JAN", "QS-FEB", "QE-DEC", "QE-NOV", "QE-OCT"]
YEARS = ["YS-JAN", "YS-JUL", "YE-DEC", "YE-FEB", "2YE-DEC"]
BUSINESS = ["BME", "BMS"]
ZONES = [None, "UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kolkata"]
PLAIN = CLOCK + DAYS + MONTHS + YEARS
few = settings(max_examples=60, deadline=None, derandomize=True)
starts = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2040, 1, 1)).map(
    lambda time: pd.Timestamp(time).floor("min")
)


def grid(freq: str, start: pd.Timestamp, rows: int, *, zone: str | None = None) -> pd.DatetimeIndex:
    """Rows at every step from the first that is not before the start; by the zone's calendar."""
    if Step.of(freq).length is None:
        start = start.normalize()
    time = pd.date_range(start, periods=rows, freq=freq)
    if zone is None:
        return time
    if Step.of(freq).length is not None:
        return time.tz_localize("UTC").tz_convert(zone)
    local: pd.DatetimeIndex = time.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    assume(not local.isna().any())
    return local


def read(values, *, name: str = "date", **options) -> pd.DatetimeIndex | None:
    return stamps(pd.Series(values, name=name), reading=Reading(**options), label="a.csv: column")


# Steps


@few
@given(st.sampled_from(PLAIN), starts, st.integers(2, 60), st.sampled_from(ZONES))
def test_a_step_is_recognised_in_its_own_times(freq, start, rows, zone):
    assert infer(grid(freq, start, rows, zone=zone)) == Step.of(freq)


@pytest.mark.parametrize("rows", [2, 3, 4, 50])
@pytest.mark.parametrize("freq", PLAIN + BUSINESS)
def test_every_kind_of_step_is_recognised_from_two_rows_on(freq, rows):
    found = infer(pd.date_range("2020-01-06", periods=rows, freq=freq))
    assert found is not None
    assert found.name == freq


@few
@given(st.sampled_from(PLAIN), starts, st.sampled_from(ZONES), st.data())
def test_a_step_is_recognised_where_rows_are_absent(freq, start, zone, data):
    time = grid(freq, start, 60, zone=zone)
    absent = data.draw(st.sets(st.integers(1, 58), min_size=1, max_size=12))
    kept = time.delete(sorted(absent))
    assume(freq != "D" or not (kept.day_of_week < 5).all())
    assert infer(kept) == Step.of(freq)
    assert sum(gap.absent for gap in gaps(kept, Step.of(freq))) == len(absent)


@few
@given(starts, st.integers(7, 60))
def test_five_days_a_week_are_business_days(start, rows):
    time = pd.date_range(start.normalize(), periods=rows, freq="B")
    assert infer(time) == Step("B")
    assert infer(time.delete(3)) == Step("B")


def test_a_friday_and_a_monday_are_two_business_days():
    assert infer(pd.DatetimeIndex(["2024-03-01", "2024-03-04"])) == Step("B")
    assert infer(pd.date_range("2024-03-01", periods=3, freq="3D")) == Step("3D")


@pytest.mark.parametrize(
    ("times", "name"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "ME"),
        (["2023-01-31", "2023-02-28", "2023-04-30"], "ME"),
        (["2020-02-29", "2021-02-28", "2022-02-28"], "YE-FEB"),
        (["2024-01-31", "2024-02-01", "2024-02-02"], "D"),
        (["2024-01-31 23:00", "2024-02-29 23:00", "2024-03-31 23:00"], "ME"),
        (["2024-01-15", "2024-01-31", "2024-02-15", "2024-02-29"], "SME-15"),
    ],
)
def test_month_ends_are_the_calendars(times, name):
    assert infer(pd.DatetimeIndex(times)) == Step(name)


@pytest.mark.parametrize(
    "times",
    [
        [
            "2024-01-01 00:00:07",
            "2024-01-01 00:31:00",
            "2024-01-01 02:11:59",
            "2024-01-01 02:12:31",
        ],
        ["2024-01-01", "2024-01-03", "2024-01-06", "2024-01-11"],
        ["2024-01-01"],
        [],
    ],
)
def test_uneven_times_have_no_step(times):
    assert infer(pd.DatetimeIndex(times)) is None


@few
@given(
    st.sampled_from(PLAIN + BUSINESS + ["B"]),
    starts,
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_the_times_after_are_those_of_pandas(freq, start, rows, count):
    time = grid(freq, start, rows + count)
    after = Step.of(freq).after(time[rows - 1], count)
    assert list(after) == list(time[rows:])


def test_month_ends_stay_month_ends_and_business_days_skip_the_weekend():
    months = Step("ME").after(pd.Timestamp("2019-12-31"), 3)
    assert list(months.strftime("%Y-%m-%d")) == ["2020-01-31", "2020-02-29", "2020-03-31"]
    assert Step("ME").after(pd.Timestamp("2019-12-31"), 241)[-1] == pd.Timestamp("2040-01-31")
    days = Step("B").after(pd.Timestamp("2024-03-01"), 4)
    assert list(days.day_name()) == ["Monday", "Tuesday", "Wednesday", "Thursday"]


@pytest.mark.parametrize(
    ("zone", "last"),
    [
        ("Europe/Berlin", "2024-03-30 22:00"),
        ("Europe/Berlin", "2024-10-26 22:00"),
        ("America/New_York", "2024-03-09 22:00"),
        ("America/New_York", "2024-11-02 22:00"),
    ],
)
def test_hours_are_hours_and_midnight_is_midnight_through_a_change_of_the_clock(zone, last):
    at = pd.Timestamp(last, tz=zone)
    hours = Step("h").after(at, 24)
    assert (np.diff(hours.asi8) == np.diff(hours.asi8)[0]).all()
    assert str(hours.tz) == zone
    assert len(set(hours.strftime("%z"))) == 2
    midnights = pd.DatetimeIndex([at.normalize()]).append(Step("D").after(at.normalize(), 5))
    assert set(midnights.hour) == {0}
    assert infer(midnights) == Step("D")
    assert list(Step("D").places(midnights)) == list(range(6))


def test_a_midnight_that_the_clocks_skip_is_the_first_moment_of_its_day():
    after = Step("D").after(pd.Timestamp("2018-11-03", tz="America/Sao_Paulo"), 2)
    assert [str(time) for time in after] == [
        "2018-11-04 01:00:00-02:00",
        "2018-11-05 00:00:00-02:00",
    ]


@few
@given(st.sampled_from(PLAIN + BUSINESS + ["B"]), starts, st.sets(st.integers(0, 80), min_size=1))
def test_places_count_steps_from_the_first_row(freq, start, rows):
    places = np.array(sorted(rows))
    time = grid(freq, start, 81)[places]
    assert (Step.of(freq).places(time) == places - places[0]).all()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("freq", ["15min", "h", "D", "B", "ME", "W-FRI"])
def test_every_resolution_of_pandas_counts_alike(freq, unit):
    time = pd.date_range("2020-01-31", periods=20, freq=freq).as_unit(unit).delete(7)
    assert infer(time) == Step.of(freq)
    assert gaps(time, Step.of(freq)) == [Gap(7, 1)]
    assert Step.of(freq).after(time[-1], 1)[0] > time[-1]


def test_times_before_and_after_the_reach_of_nanoseconds_count_too():
    time = pd.DatetimeIndex(np.array(["1066-12-31", "1067-12-31", "1069-12-31"], "datetime64[s]"))
    assert infer(time) == Step("YE-DEC")
    assert gaps(time, Step("YE-DEC")) == [Gap(2, 1)]


@pytest.mark.parametrize(
    ("freq", "stray"),
    [("h", "2024-01-01 02:30"), ("ME", "2024-02-28"), ("B", "2024-03-02"), ("W-FRI", "2024-02-01")],
)
def test_a_stamp_between_two_steps_is_named_by_its_row(freq, stray):
    first = pd.date_range("2024-01-01", periods=1, freq=freq)[0]
    with pytest.raises(OffGrid, match="row 2 ") as refusal:
        Step(freq).places(pd.DatetimeIndex([first, pd.Timestamp(stray)]))
    assert refusal.value.row == 1


@pytest.mark.parametrize(
    ("once", "name"),
    [
        *{"H": "h", "T": "min", "15T": "15min", "M": "ME", "Q": "QE-DEC", "A": "YE-DEC"}.items(),
        *{"24h": "D", "60min": "h", "W": "W-SUN", "Q-MAR": "QE-MAR"}.items(),
    ],
)
def test_a_step_goes_by_one_name(once, name):
    assert Step.of(once).name == name


@pytest.mark.parametrize("text", ["hourly", "", "-h", "0h", "fortnight"])
def test_a_step_that_pandas_does_not_know_is_refused(text):
    with pytest.raises(DataError, match="write it like h, 15min"):
        Step.of(text)


def test_steps_are_alike_where_they_are_one_stretch_of_time():
    for one, other in (("MS", "ME"), ("W-FRI", "W-MON"), ("7D", "W-SUN"), ("QS-JAN", "QE-DEC")):
        assert Step.of(one).alike(Step.of(other))
    for one, other in (("B", "D"), ("h", "2h"), ("ME", "QE-DEC"), ("24h", "23h"), ("D", "W")):
        assert not Step.of(one).alike(Step.of(other))


@pytest.mark.parametrize(
    ("freq", "rows"),
    [
        *{"h": 24, "15min": 96, "min": 1440, "6h": 4, "5h": 1, "ms": 1}.items(),
        *{"D": 7, "B": 5, "W-FRI": 52, "7D": 52, "MS": 12, "ME": 12}.items(),
        *{"QE-DEC": 4, "QS-JAN": 4, "YE-DEC": 1, "YS-JAN": 1}.items(),
    ],
)
def test_a_season_is_a_day_a_week_or_a_year(freq, rows):
    assert Step.of(freq).season == rows


# Times as they are written


@pytest.mark.parametrize(
    ("values", "name", "first", "step"),
    [
        (["1949-01", "1949-02"], "Month", "1949-01-01", "MS"),
        (["1949/01", "1949/02"], "x", "1949-01-01", "MS"),
        (["1949M01", "1949M02"], "x", "1949-01-01", "MS"),
        (["01/1949", "02/1949"], "x", "1949-01-01", "MS"),
        (["Jan 1949", "Feb 1949"], "x", "1949-01-01", "MS"),
        (["1998 Q1", "1998 Q2"], "x", "1998-01-01", "QS-JAN"),
        (["1998Q1", "1998Q2"], "x", "1998-01-01", "QS-JAN"),
        (["1998-Q1", "1998-Q2"], "x", "1998-01-01", "QS-JAN"),
        (["Q1 1998", "Q2 1998"], "x", "1998-01-01", "QS-JAN"),
        (["2024-W05", "2024-W06"], "x", "2024-01-29", "W-MON"),
        (["2024W05", "2024W06"], "x", "2024-01-29", "W-MON"),
        (["2020-W53", "2021-W01"], "x", "2020-12-28", "W-MON"),
        (["1949", "1950"], "Year", "1949-01-01", "YS-JAN"),
        ([1949, 1950, 1951], "Year", "1949-01-01", "YS-JAN"),
        ([201312, 201401], "date", "2013-12-01", "MS"),
        ([20231231, 20240101], "date", "2023-12-31", "D"),
        (["20231231", "20240101"], "date", "2023-12-31", "D"),
        ([45292 + i / 24 for i in range(99)], "date", "2024-01-01", "h"),
        (["31-Jan-2024", "01-Feb-2024"], "x", "2024-01-31", "D"),
        (["Jan 31, 2024 1:00 PM", "Jan 31, 2024 2:00 PM"], "x", "2024-01-31 13:00", "h"),
        (["31/12/99", "01/01/00"], "x", "1999-12-31", "D"),
        (["2024/1/31 1:00", "2024/1/31 2:00"], "x", "2024-01-31 01:00", "h"),
        (["2024-01-31 1:00", "2024-01-31 2:00"], "x", "2024-01-31 01:00", "h"),
    ],
)
def test_times_are_read_as_they_are_written(values, name, first, step):
    time = read(values, name=name)
    assert time is not None
    assert time.tz is None
    assert time[0] == pd.Timestamp(first)
    assert infer(time) == Step(step)


@pytest.mark.parametrize(("factor", "name"), [(1, "ts"), (1000, "open_time"), (10**6, "timestamp")])
def test_epochs_are_times_in_utc_where_the_name_says_so(factor, name):
    values = [(1704067200 + 3600 * row) * factor for row in range(4)]
    time = read(values, name=name)
    assert time is not None
    assert list(time) == list(pd.date_range("2024-01-01", periods=4, freq="h", tz="UTC"))
    assert read(values, name="volume") is None
    asked = read(values, name="volume", time="volume")
    assert asked is not None
    assert list(asked) == list(time)
    told = read(values, name=name, timezone="Europe/Berlin")
    assert told is not None
    assert list(told) == list(time)
    assert str(told[0]) == "2024-01-01 01:00:00+01:00"


@pytest.mark.parametrize("values", [[1, 2, 3], [0.1, 0.2, 0.7], ["a", "b"], ["12", "13"]])
def test_what_is_no_time_is_none(values):
    assert read(values, name="x") is None


def test_periods_dates_and_categories_are_times():
    months = pd.period_range("2024-01", periods=3, freq="M")
    days = pd.date_range("2024-01-01", periods=3, freq="D")
    for values in (
        months,
        pd.Series(months).astype(object),
        pd.Categorical(["2024-01", "2024-02"]),
    ):
        assert infer(read(values)) == Step("MS")
    assert list(read([day.date() for day in days])) == list(days)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["00:01:00", "00:02:00"], "row 1: '00:01:00' is a clock time without a day"),
        (["9:30 AM", "9:31 AM"], "row 1: '9:30 AM' is a clock time without a day"),
        (["2024-01-01", None], "row 2: has no time"),
        (["2024-01-01", "soon"], "row 2: 'soon' does not read as a time"),
        (["2024-01-01", "2024-13-01"], "row 2: '2024-13-01' does not read as a time"),
        (["2024-W05", "2024-W53"], "row 2: '2024-W53' does not read as a time"),
        (["2024Q1", "2024Q5"], "row 2: '2024Q5' does not read as a time"),
        (["1-01", "1-02"], "row 1: '1-01' does not read as a time"),
        (["13/01/2024", "01/14/2024"], "reads only with the day first and row 2"),
        (["2024-03-31T01:00Z", "2024-03-31T03:00"], "row 2: '2024-03-31T03:00' names no zone"),
    ],
)
def test_a_row_that_is_no_time_is_refused_with_its_place(values, says):
    with pytest.raises(DataError, match=says) as refusal:
        read(values)
    assert "\n" not in str(refusal.value)


# Day first or month first


@few
@given(
    starts,
    st.integers(30, 300),
    st.sampled_from(["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d-%m-%y %H:%M"])
    | st.sampled_from(["%m/%d/%Y %I:%M %p", "%d/%m/%YT%H:%M"]),
)
def test_even_spacing_tells_the_day_from_the_month(start, rows, pattern):
    assume(1970 <= start.year <= 2030)
    start = start.replace(day=1, minute=0, hour=0)
    time = pd.date_range(start, periods=rows, freq="h")
    ours = read(list(time.strftime(pattern)))
    assert ours is not None
    assert list(ours) == list(time)


def test_a_hole_does_not_hide_which_reading_is_even():
    time = pd.date_range("2024-02-01", periods=200, freq="h").delete([50, 51, 99])
    assert list(read(list(time.strftime("%d/%m/%Y %H:%M")))) == list(time)


def test_dates_that_are_even_both_ways_are_refused_with_an_option_that_reads_them():
    texts = list(pd.date_range("2024-01-01", periods=12).strftime("%d/%m/%Y"))
    with pytest.raises(DataError, match=r"2 January 2024 or 1 February 2024.*evenly.*--dayfirst"):
        read(texts)
    assert infer(read(texts, dayfirst=True)) == Step("D")
    assert infer(read(texts, dayfirst=False)) == Step("MS")


def test_dates_that_are_even_neither_way_are_refused():
    with pytest.raises(DataError, match="unevenly spaced both ways"):
        read(["01/02/2024", "03/05/2024", "04/04/2024", "06/09/2024", "12/10/2024"])


# Zones


@few
@given(st.sampled_from(["Europe/Berlin", "America/New_York", "Europe/London"]), starts)
def test_offsets_that_change_with_the_clocks_name_their_zone(zone, start):
    assume(start.year >= 2008)
    time = pd.date_range(start.floor("h"), periods=360, freq="25h", tz="UTC").tz_convert(zone)
    ours = read([str(stamp) for stamp in time])
    assert ours is not None
    assert list(ours.strftime("%c %z")) == list(time.strftime("%c %z"))
    assert infer(ours) == Step("25h")


def test_one_offset_is_kept_and_a_zone_of_the_table_too():
    fixed = read(["2024-03-31T01:00+05:30", "2024-03-31T02:00+05:30"])
    assert fixed is not None
    assert str(fixed[0]) == "2024-03-31 01:00:00+05:30"
    tokyo = pd.date_range("2024", periods=2, tz="Asia/Tokyo")
    assert list(read(tokyo)) == list(tokyo)
    assert str(read(tokyo).tz) == "Asia/Tokyo"


@pytest.mark.parametrize("end", ["Z", " UTC", " GMT", "+00:00", "+0000", "+00"])
def test_utc_is_named_in_many_ways(end):
    time = read([f"2024-01-01 00:00{end}", f"2024-01-01 01:00{end}"])
    assert time is not None
    assert list(time) == list(pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC"))


@few
@given(st.sampled_from(["Europe/Berlin", "America/New_York"]), st.integers(0, 8700))
def test_local_hours_are_the_hours_of_the_zone_that_is_given(zone, hour):
    time = pd.date_range("2024-01-01", periods=48, freq="h", tz="UTC") + pd.Timedelta(hour, "h")
    time = time.tz_convert(zone)
    ours = read([stamp.strftime("%Y-%m-%d %H:%M") for stamp in time], timezone=zone)
    assert ours is not None
    assert list(ours) == list(time)


def test_an_hour_that_the_zone_does_not_have_is_refused_and_the_standard_time_reads_it():
    texts = ["2024-03-31 01:00", "2024-03-31 02:00", "2024-03-31 03:00"]
    with pytest.raises(DataError, match=r"row 2: .* does not exist in Europe/Berlin.*Etc/GMT-1"):
        read(texts, timezone="Europe/Berlin")
    assert infer(read(texts, timezone="Etc/GMT-1")) == Step("h")


def test_an_hour_that_the_zone_has_twice_is_refused_unless_the_rows_show_which():
    once = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    with pytest.raises(DataError, match=r"row 2: .* is twice in Europe/Berlin"):
        read(once, timezone="Europe/Berlin")
    both = [*once[:2], *once[1:]]
    assert infer(read(both, timezone="Europe/Berlin")) == Step("h")
    offsets = ["2024-10-27T01:00+02:00", "2024-10-27T02:00+02:00", "2024-10-27T03:00+01:00"]
    assert gaps(read(offsets), Step("h")) == [Gap(2, 1)]


def test_a_zone_that_is_none_is_refused():
    with pytest.raises(DataError, match="--timezone is 'Moon/Base'"):
        read(["2024-01-01", "2024-01-02"], timezone="Moon/Base")
