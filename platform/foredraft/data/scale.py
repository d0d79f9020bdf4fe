"""The scale of a data set: mean and deviation of its training rows, and what is scaled by them.

Shapes: T rows (time steps), C variates, S series of a panel (1 where variates stand side by side),
N rows of the ranges.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foredraft.data.store import writing
from foredraft.files import atomic_file, atomic_write

CHUNK_CELLS = 2**22  # 16 MiB of float32 at a time where a whole data set is passed over


def moments(
    values_TC: np.ndarray, *, ranges_S2: np.ndarray, filled_TC: np.ndarray | None, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of what was observed in those rows, kept once computed.

    Of each variate, or of each series of a panel; NaN where nothing was observed, and deviation 1
    where all values are one.
    """
    path = folder / f"moments-{range_name(ranges_S2)}.npy"
    if not path.is_file():
        if len(ranges_S2) == 1:
            found = _of_columns(values_TC, *ranges_S2[0].tolist(), filled_TC=filled_TC)
        else:
            found = _of_series(values_TC[:, 0], ranges_S2, filled_TC=filled_TC)
        buffer = io.BytesIO()
        np.save(buffer, np.stack(found))
        with writing(folder):
            atomic_write(path, buffer.getvalue())
    mean_C, deviation_C = np.load(path)
    return mean_C, deviation_C


def _of_columns(
    values_TC: np.ndarray, first: int, end: int, *, filled_TC: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Where a cell is missing or was filled, the others speak for the variate."""
    chunks = list(chunks_of(values_TC, first, end))

    def observed(rows: slice) -> np.ndarray:
        if filled_TC is None:
            return values_TC[rows]
        return np.where(filled_TC[rows], np.float32(np.nan), values_TC[rows])

    low_C = np.fmin.reduce([np.fmin.reduce(observed(c), axis=0) for c in chunks])
    high_C = np.fmax.reduce([np.fmax.reduce(observed(c), axis=0) for c in chunks])
    total, count_C = np.sum, np.array(end - first)
    mean_C = sum(total(observed(c), axis=0, dtype=np.float64) for c in chunks) / count_C
    if np.isnan(mean_C).any():
        total = np.nansum
        count_C = np.array(sum((~np.isnan(observed(c))).sum(axis=0) for c in chunks))
    with np.errstate(invalid="ignore"):  # a variate without any value there
        mean_C = sum(total(observed(c), axis=0, dtype=np.float64) for c in chunks) / count_C
        square_C = sum(total((observed(c) - mean_C) ** 2, axis=0) for c in chunks) / count_C
    # Not by deviation == 0: the mean of equal numbers may differ from them in the last bit.
    return mean_C, np.where(low_C == high_C, 1.0, np.sqrt(square_C))


def _of_series(
    values_T: np.ndarray, ranges_S2: np.ndarray, *, filled_TC: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    size_S = ranges_S2[:, 1] - ranges_S2[:, 0]
    owner_N = np.repeat(np.arange(len(ranges_S2)), size_S)
    row_N = np.arange(len(owner_N)) + np.repeat(
        ranges_S2[:, 0] - np.cumsum(size_S) + size_S, size_S
    )
    value_N = values_T[row_N].astype(np.float64)
    known_N = ~np.isnan(value_N)
    if filled_TC is not None:
        known_N &= ~filled_TC[row_N, 0]
    owner_N, value_N = owner_N[known_N], value_N[known_N]

    def summed(number_N: np.ndarray | None) -> np.ndarray:
        return np.bincount(owner_N, weights=number_N, minlength=len(ranges_S2))

    count_S = summed(None)
    with np.errstate(invalid="ignore"):
        mean_S = summed(value_N) / count_S
        square_S = summed((value_N - mean_S[owner_N]) ** 2) / count_S
    low_S, high_S = np.full(len(ranges_S2), np.inf), np.full(len(ranges_S2), -np.inf)
    np.minimum.at(low_S, owner_N, value_N)
    np.maximum.at(high_S, owner_N, value_N)
    return mean_S, np.where(low_S == high_S, 1.0, np.sqrt(square_S))


def standardise(
    values_TC: np.ndarray,
    *,
    mean_C: np.ndarray,
    deviation_C: np.ndarray,
    end_S: np.ndarray,
    path: Path,
) -> None:
    """Nothing; writes (values - mean) / deviation as float32.

    Of several series that end with the rows `end_S`, each is scaled by its own.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": values_TC.shape}
    # Not through a writable map: on a full disk that ends in a bus error.
    with writing(path.parent), atomic_file(path) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for rows in chunks_of(values_TC, 0, len(values_TC)):
            mean, deviation = mean_C, deviation_C
            if len(end_S) > 1:
                owner_N = np.searchsorted(end_S, np.arange(rows.start, rows.stop), side="right")
                mean, deviation = mean_C[owner_N, None], deviation_C[owner_N, None]
            scaled_TC = (values_TC[rows] - mean) / deviation
            file.write(scaled_TC.astype("<f4").tobytes())


def chunks_of(values_TC: np.ndarray, first: int, end: int) -> Iterator[slice]:
    """The rows from `first` to `end` in slices of about `CHUNK_CELLS`."""
    step = max(1, CHUNK_CELLS // values_TC.shape[1])
    for start in range(first, end, step):
        yield slice(start, min(start + step, end))


def range_name(ranges_S2: np.ndarray) -> str:
    """Ranges of rows as part of a file's name."""
    if len(ranges_S2) == 1:
        return f"{ranges_S2[0, 0]}-{ranges_S2[0, 1]}"
    return hashlib.sha256(ranges_S2.astype("<i8").tobytes()).hexdigest()[:16]
