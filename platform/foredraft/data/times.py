"""Columns that read as times. Rows in messages are counted from 1 and leave out the header."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.dialect import is_time
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading

_NAMED = ("date", "time", "timestamp", "datetime", "ds")
_EPOCH_WORDS = {"time", "timestamp", "ts", "epoch", "unix", "date", "datetime"}
_UNITS = {"s": (1e8, 1e10), "ms": (1e11, 1e13), "us": (1e14, 1e16), "ns": (1e17, 1e19)}


def stamps(column: pd.Series, *, reading: Reading, label: str) -> pd.DatetimeIndex | None:
    """The column's times, UTC without a zone; None where it is no time.

    Raises:
        DataError: a row that does not read as a time among others that do.
    """
    name = str(column.name).strip().lower()
    asked = reading.time == str(column.name)
    if isinstance(column.dtype, pd.PeriodDtype):
        return pd.DatetimeIndex(column.dt.to_timestamp())
    if types.is_numeric_dtype(column):
        return _of_numbers(column, named=asked or bool(_words(name) & _EPOCH_WORDS))
    present = column.dropna()
    if present.empty:
        return None
    dated = types.is_datetime64_any_dtype(column)
    if not (asked or name in _NAMED or dated or is_time(str(present.iloc[0]))):
        return None
    return _of_texts(column, label=label, dayfirst=reading.dayfirst)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name))


def _of_numbers(column: pd.Series, *, named: bool) -> pd.DatetimeIndex | None:
    if column.empty or column.isna().any():
        return None
    low, high = float(column.min()), float(column.max())
    if "year" in str(column.name).lower() and 1000 <= low <= high < 3000:
        return pd.DatetimeIndex(pd.to_datetime(column.astype(int).astype(str), format="%Y"))
    for unit, (least, most) in _UNITS.items():
        if named and least <= low <= high < most:
            return pd.DatetimeIndex(column.to_numpy(np.int64).astype(f"datetime64[{unit}]"))
    return None


def _of_texts(column: pd.Series, *, label: str, dayfirst: bool | None) -> pd.DatetimeIndex:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas says that it guesses a format
        time = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        if time.isna().any():
            guess = pd.to_datetime(column, utc=True, errors="coerce", dayfirst=bool(dayfirst))
            time = guess if guess.isna().sum() < time.isna().sum() else time
    bad = np.flatnonzero(time.isna())
    if bad.size:
        raise DataError(
            f"{label}, row {bad[0] + 1}: {column.iloc[bad[0]]!r} does not read as a time; "
            "write every row like 2024-01-31 13:00"
        )
    return pd.DatetimeIndex(time).tz_localize(None)
