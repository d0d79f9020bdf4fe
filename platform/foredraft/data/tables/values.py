"""A column's cells as numbers, or one line about the cell that is none and what would read it.

Shapes: T rows (time steps). Rows in messages are counted from 1 and leave out the header.
"""

from __future__ import annotations

import re
import shlex
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from foredraft.data.cells import is_number
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables.dialect import decimal_of, reads_both_ways

SWALLOWED = 1e-3
"""Largest error of float32, in deviations of the column, that is let pass."""

_SPACES = " \u00a0\u202f\u2009"
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufeff": None})
_UNITS = ("%", "$", "\u20ac", "\u00a3", "\u00a5")
_ABSENT = ("?", "-", "--", "---", ".", "..", "*", "n.a.", "missing", "none", "unknown", "x", "#")


class Narrowed(NamedTuple):
    """A column in single precision: true value = values + level."""

    values_T: np.ndarray
    """float32; NaN where missing"""
    level: float
    """0 unless float32 would swallow the variation"""


def option(name: str, value: str) -> str:
    """An option as it is typed into a shell."""
    quoted = shlex.quote(value)
    return f"--{name}={quoted}" if value.startswith("-") else f"--{name} {quoted}"


def narrowed(values_T: np.ndarray, *, label: str) -> Narrowed:
    """The column in float32, less its level where float32 cannot tell its values apart.

    Raises:
        DataError: a value that is infinite in float32.
    """
    with np.errstate(over="ignore"):
        narrow_T = values_T.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(narrow_T))
    if infinite.size:
        raise DataError(
            f"{label}, row {infinite[0] + 1}: {values_T[infinite[0]]} is infinite as float32; "
            "leave the cell empty if the value is unknown, or rescale the column"
        )
    error_T = np.abs(narrow_T - values_T)
    error = np.nanmax(error_T, initial=0.0)
    if error == 0 or np.nanmin(values_T) == np.nanmax(values_T):
        return Narrowed(narrow_T, 0.0)
    if error <= SWALLOWED * np.nanstd(values_T):
        return Narrowed(narrow_T, 0.0)
    level = float(np.nanmedian(values_T))
    return Narrowed((values_T - level).astype(np.float32), level)


def numbers(
    column: pd.Series, *, decimal: str | None = None, reading: Reading, label: str
) -> np.ndarray:
    """The column as float64 with NaN for missing cells.

    Args:
        decimal: the decimal sign of the file; None: the column's own cells must tell.

    Raises:
        DataError: row and value of the first cell that is no number, and what would read it.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        raise DataError(f"{label} holds times, no numbers; leave it out with {_ignore(column)}")
    if types.is_numeric_dtype(column):
        values_T = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values_T = _of_objects(column, decimal=decimal, reading=reading, label=label)
    absent = [float(text) for text in reading.na if is_number(text) and "," not in text]
    return np.where(np.isin(values_T, absent), np.nan, values_T) if absent else values_T


def _ignore(column: pd.Series) -> str:
    return option("ignore", str(column.name))


def _of_objects(
    column: pd.Series, *, decimal: str | None, reading: Reading, label: str
) -> np.ndarray:
    present = column.dropna()
    nested = next((v for v in present if isinstance(v, list | dict | tuple | np.ndarray)), None)
    if nested is not None:
        raise DataError(
            f"{label} holds lists in its cells; write one row per time, or leave it out with "
            f"{_ignore(column)}"
        )
    if decimal != "," or not present.map(lambda value: isinstance(value, str)).any():
        try:
            parsed = pd.to_numeric(column, errors="coerce")
        except OverflowError:  # a whole number beyond every float, which as text reads as infinite
            parsed = pd.to_numeric(column.astype(str), errors="coerce")
        if not (parsed.isna() & column.notna()).any():
            return parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    return _of_texts(column, decimal=decimal, reading=reading, label=label)


def _of_texts(
    column: pd.Series, *, decimal: str | None, reading: Reading, label: str
) -> np.ndarray:
    """Numbers by the strict patterns of one decimal sign, whatever groups their thousands."""
    values = column.astype(object).to_numpy()
    texts = [v.translate(_SIGNS).strip() if isinstance(v, str) else "" for v in values]
    is_text = np.array([isinstance(v, str) for v in values])
    texts = _without_unit(texts, is_text=is_text)
    absent = {text.strip() for text in reading.na}
    is_text &= np.array([text not in absent for text in texts])
    sign = reading.decimal or decimal or _own_decimal(values, texts, is_text=is_text, label=label)
    pattern = _pattern(sign)
    found_T = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if is_text[row]:
            if pattern.fullmatch(texts[row]) is None:
                trouble = f"{label}, row {row + 1}: {value!r} is not a number"
                raise DataError(f"{trouble}; {_remedy(column, texts, row=row, sign=sign)}")
            found_T[row] = float(_plain(texts[row], sign=sign))
        elif not isinstance(value, str) and not pd.isna(value):
            if not isinstance(value, int | float | Decimal | np.number):
                trouble = f"{label}, row {row + 1}: {value!s} is not a number"
                raise DataError(f"{trouble}; leave the column out with {_ignore(column)}")
            found_T[row] = float(value)
    return found_T


def _without_unit(texts: list[str], *, is_text: np.ndarray) -> list[str]:
    """The texts without the sign of percent or currency that each of them carries."""
    ours = [text for text, yes in zip(texts, is_text, strict=True) if yes]
    if not is_text.any():
        return texts
    for unit in _UNITS:
        if all(text.endswith(unit) for text in ours):
            return [text.removesuffix(unit).rstrip(_SPACES) for text in texts]
        if all(text.lstrip("+-").startswith(unit) for text in ours):
            return [text.replace(unit, "", 1).strip(_SPACES) for text in texts]
    return texts


def _own_decimal(values: np.ndarray, texts: list[str], *, is_text: np.ndarray, label: str) -> str:
    """The decimal sign that the column's own cells show; raises where they read both ways."""
    ours = [text for text, yes in zip(texts, is_text, strict=True) if yes]
    numbers = [str(v) for v in values if isinstance(v, float) and not float(v).is_integer()]
    sign = decimal_of([*ours, *(v for v in numbers if v != "nan")])
    if sign is not None:
        return sign
    for row in np.flatnonzero(is_text):
        text = texts[row]
        if "," in text and reads_both_ways(text):
            raise DataError(
                f"{label}, row {row + 1}: {values[row]!r} reads as {text.replace(',', '.')} "
                f"(--decimal ,) and as {text.replace(',', '')} (--decimal .); say which"
            )
    return "."


def _pattern(sign: str) -> re.Pattern[str]:
    """A number by one decimal sign; groups of three digits apart by the other, or by a space."""
    point = re.escape(sign)
    group = "." if sign == "," else ","
    apart = f"[{re.escape(group)}'\u2019{_SPACES}]"
    grouped = rf"\d{{1,3}}(?P<apart>{apart})\d{{3}}(?:(?P=apart)\d{{3}})*"
    return re.compile(rf"[+-]?(?:(?:{grouped}|\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")


def _plain(text: str, *, sign: str) -> str:
    kept = re.sub(rf"[^\d{re.escape(sign)}eE+-]", "", text)
    return kept.replace(",", ".")


def _remedy(column: pd.Series, texts: list[str], *, row: int, sign: str) -> str:
    """What would read the cell, or do without it; it works when it is followed."""
    text, other = texts[row], "," if sign == "." else "."
    others = [t for t in texts if t]
    leave = f"leave the column out with {_ignore(column)}"
    if all(_pattern(other).fullmatch(t) for t in others):
        return f"say {option('decimal', other)}, or {leave}"
    good = sum(_pattern(sign).fullmatch(t) is not None for t in set(others))
    stands_for_none = text.lower() in _ABSENT or (good > 0 and not is_number(text))
    if stands_for_none and good:
        missing = option("na", str(column.iloc[row]).strip())
        return f"say {missing} if it stands for a missing value, or {leave}"
    return f"correct the cell, or {leave}" if good else leave
