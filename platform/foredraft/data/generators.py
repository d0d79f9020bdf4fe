"""Built-in series that need no file: structure enough to learn from, noise enough to be hard.

A generator is a pure function of its parameters and its seed; `version` is part of the data set's
digest, so a change here never passes for the old data.

    foredraft train target --recipe demo --set stages.0.data=synthetic-load
    load("synthetic-load:rows=2000,variates=4,seed=3")

Shapes: T time steps, C variates, F shared factors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

START = "2022-01-01"
HOURS_PER_YEAR = 8766
# Days of the year on which offices are closed and load looks like a Sunday's.
HOLIDAYS = (1, 6, 104, 107, 121, 145, 227, 276, 305, 359, 360, 365)


class Generated(NamedTuple):
    """Values in their own units, the variates' names and an hourly time index."""

    values_TC: np.ndarray
    variates: tuple[str, ...]
    time: pd.DatetimeIndex


class Generator(NamedTuple):
    """One built-in source: how to make it, its default size and what it is."""

    make: Callable[..., Generated]
    parameters: dict[str, int]
    num_variates: int
    version: int
    what: str


def synthetic_load(*, rows: int = 8760, variates: int = 24, seed: int = 0) -> Generated:
    """Hourly loads (MW) of `variates` areas that share weather, calendar and economy."""
    rng = np.random.default_rng([seed, 1])
    time = pd.date_range(START, periods=rows, freq="h")
    shape_TC = _daily_shape(time, mix_FC=rng.dirichlet([2.0, 1.5, 1.0], size=variates).T)
    weather_TC = 1 + _temperature_response(_temperatures(time, areas=variates, rng=rng), rng=rng)
    economy_T1 = _recursion(rng.normal(0, 0.006, (rows, 1)), keep=0.95)
    noise_TC = _recursion(rng.normal(0, 0.012, (rows, variates)), keep=0.8) + economy_T1
    level_TC = _level_shifts(rows, areas=variates, every=2500, size=0.06, rng=rng)
    scale_C = rng.lognormal(np.log(900), 0.8, variates)
    values_TC = scale_C * shape_TC * weather_TC * np.exp(noise_TC + level_TC)
    return Generated(values_TC, tuple(f"area_{i:02d}" for i in range(variates)), time)


def synthetic_etth(*, rows: int = 6000, seed: int = 0) -> Generated:
    """Seven hourly variates of a transformer: six loads that add up, and the oil they heat.

    Named as in ETT: useful and useless load, high = middle + low, and OT, the oil temperature,
    which follows the square of the load and the ambient air with a lag of hours.
    """
    rng = np.random.default_rng([seed, 2])
    time = pd.date_range(START, periods=rows, freq="h")
    shape_T2 = _daily_shape(time, mix_FC=np.array([[0.2, 0.7], [0.3, 0.2], [0.5, 0.1]]))
    drift_T2 = _level_shifts(rows, areas=2, every=1200, size=0.12, rng=rng)
    common_T1 = _recursion(rng.normal(0, 0.02, (rows, 1)), keep=0.9)
    noise_T2 = common_T1 + _recursion(rng.normal(0, 0.05, (rows, 2)), keep=0.7)
    useful_T2 = np.array([7.0, 3.0]) * shape_T2 * np.exp(drift_T2 + noise_T2)
    factor_T2 = np.array([0.24, 0.34]) + _recursion(rng.normal(0, 0.008, (rows, 2)), keep=0.97)
    useless_T2 = useful_T2 * factor_T2
    high_T2 = np.stack([useful_T2.sum(1), useless_T2.sum(1)], axis=1)
    high_T2 = high_T2 * 1.02 + rng.normal(0, 0.1, (rows, 2))
    air_T1 = _temperatures(time, areas=1, rng=rng)
    oil_T1 = 8 + 0.9 * air_T1 + _lagged(0.16 * high_T2[:, :1] ** 2, hours=4)
    oil_T1 += rng.normal(0, 0.25, (rows, 1))
    columns = [
        high_T2,
        useful_T2[:, :1],
        useless_T2[:, :1],
        useful_T2[:, 1:],
        useless_T2[:, 1:],
        oil_T1,
    ]
    names = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    return Generated(np.concatenate(columns, axis=1), names, time)


def _recursion(shock_TC: np.ndarray, *, keep: float) -> np.ndarray:
    """AR(1) noise: each row keeps the fraction `keep` of the one before and adds its shock."""
    state_TC = np.array(shock_TC, dtype=np.float64)
    # Row by row, all variates at once: 6 ms for a year; a convolution is not exact to the last bit.
    for row in range(1, len(state_TC)):
        state_TC[row] += keep * state_TC[row - 1]
    return state_TC


def _lagged(drive_TC: np.ndarray, *, hours: float) -> np.ndarray:
    """The drive as a body of that time constant follows it, starting in equilibrium."""
    keep = float(np.exp(-1 / hours))
    start_C = drive_TC.mean(axis=0)
    followed_TC: np.ndarray = start_C + _recursion((1 - keep) * (drive_TC - start_C), keep=keep)
    return followed_TC


def _level_shifts(
    rows: int, *, areas: int, every: int, size: float, rng: np.random.Generator
) -> np.ndarray:
    """Log-level [T, C]: steps at random times, about one in `every` rows, that fade over months."""
    happens_TC = rng.random((rows, areas)) < 1 / every
    return _recursion(happens_TC * rng.normal(0, size, (rows, areas)), keep=1 - 1 / 4000)


def _temperatures(time: pd.DatetimeIndex, *, areas: int, rng: np.random.Generator) -> np.ndarray:
    """Degrees Celsius [T, C]: one year, day and weather for all, a little of its own per area."""
    hours_T = np.arange(len(time))
    year_T = -10 * np.cos(2 * np.pi * (hours_T / HOURS_PER_YEAR - 0.05))
    day_T = -4 * np.cos(2 * np.pi * (hours_T - 3) / 24)
    shared_T1 = _recursion(rng.normal(0, 0.45, (len(time), 1)), keep=0.985)
    local_TC = _recursion(rng.normal(0, 0.2, (len(time), areas)), keep=0.98)
    local_TC += rng.normal(0, 2.5, areas)
    celsius_TC: np.ndarray = 13 + (year_T + day_T)[:, None] + shared_T1 + local_TC
    return celsius_TC


def _temperature_response(celsius_TC: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Fraction of load added by heating below 15 and cooling above 21 degrees, half a day late."""
    areas = celsius_TC.shape[1]
    felt_TC = _lagged(celsius_TC, hours=6)
    heating_TC = np.logaddexp(0, 15 - felt_TC) * rng.uniform(0.002, 0.018, areas)
    cooling_TC = np.logaddexp(0, felt_TC - 21) * rng.uniform(0.005, 0.035, areas)
    added_TC: np.ndarray = heating_TC + cooling_TC
    return added_TC


def _daily_shape(time: pd.DatetimeIndex, *, mix_FC: np.ndarray) -> np.ndarray:
    """Load about 1 [T, C] from a mix of homes, offices and industry by hour and kind of day."""
    hour_T = time.hour.to_numpy()
    holiday_T = np.isin(time.day_of_year.to_numpy(), HOLIDAYS)
    weekday_T = np.where(holiday_T, 6, time.day_of_week.to_numpy())
    saturday_T, sunday_T = weekday_T == 5, weekday_T == 6
    free_T = saturday_T | sunday_T
    # People rise two hours later on free days; the evening peak stays where it is.
    homes_T = 0.7 + 0.35 * _bump(hour_T, at=np.where(free_T, 10, 8)) + 0.7 * _bump(hour_T, at=19.5)
    open_T = np.select([sunday_T, saturday_T], [0.15, 0.45], 1.0)
    offices_T = 0.6 + 0.9 * open_T * np.clip(1.6 - np.abs(hour_T - 13) / 4, 0, 1)
    shift_T = 0.12 * ((hour_T >= 6) & (hour_T < 22))
    industry_T = 0.9 + np.select([sunday_T, saturday_T], [-0.12, 0.5 * shift_T], shift_T)
    shape_TC: np.ndarray = np.stack([homes_T, offices_T, industry_T], axis=1) @ mix_FC
    return shape_TC


def _bump(hour_T: np.ndarray, *, at: np.ndarray | float) -> np.ndarray:
    """A smooth daily peak of height 1 and about four hours' width, periodic over the day."""
    height_T: np.ndarray = np.exp(3.5 * (np.cos(2 * np.pi * (hour_T - at) / 24) - 1))
    return height_T


GENERATORS = {
    "synthetic-load": Generator(
        make=synthetic_load,
        parameters={"rows": 8760, "variates": 24, "seed": 0},
        num_variates=24,
        version=1,
        what="24 related hourly loads: cycles, weather, holidays, level shifts, noise",
    ),
    "synthetic-etth": Generator(
        make=synthetic_etth,
        parameters={"rows": 6000, "seed": 0},
        num_variates=7,
        version=1,
        what="7 coupled hourly variates of a transformer: six loads and the oil they heat",
    ),
}
