"""Which rows are for training, for validation and for the test.

Shapes: S series of a panel, each of which is split by itself; 1 where variates stand side by side.
"""

from __future__ import annotations

import numpy as np

from foredraft.data.errors import DataError
from foredraft.data.registry import Published
from foredraft.data.tables.long import bounds_of
from foredraft.data.tables.table import Table

DEFAULT = (0.7, 0.2)  # train and test; validation is the rest between them, as in OpenLTM
NAMES = ("train", "validation", "test")


def split(
    table: Table,
    *,
    fractions: tuple[float, float] | None,
    entry: Published | None = None,
    label: str,
) -> dict[str, np.ndarray]:
    """The rows of each split, of a panel for each series; none of one too short to train on."""
    bounds = bounds_of(table.series, len(table.values_TC))
    rows_S = bounds[:, 1] - bounds[:, 0]
    if fractions is None and entry and entry.split_rows:
        sizes_3S = np.array(entry.split_rows)[:, None]
    else:
        for_train, for_test = fractions or DEFAULT
        if not (for_train > 0 and for_test >= 0 and for_train + for_test <= 1 + 1e-9):
            raise DataError(
                f"splits are {for_train} for train and {for_test} for test; they must be fractions "
                "of at most 1 in sum, train above 0"
            )
        train_S, test_S = (np.int64(share * rows_S) for share in (for_train, for_test))
        sizes_3S = np.stack((train_S, rows_S - train_S - test_S, test_S))
    if not sizes_3S[0].any():
        most = f"{rows_S[0]} rows" if not table.series else f"at most {rows_S.max()} rows a series"
        raise DataError(f"{label} has {most}, which leaves none to train on; add rows")
    sizes_3S = np.where(sizes_3S[0] > 0, sizes_3S, 0)
    ends_3S = bounds[:, 0] + np.cumsum(sizes_3S, axis=0)
    edges = zip(NAMES, ends_3S - sizes_3S, ends_3S, strict=True)
    return {split: np.stack((first_S, end_S), axis=1) for split, first_S, end_S in edges}


def with_a_scale(
    table: Table,
    ranges: dict[str, np.ndarray],
    mean_C: np.ndarray,
    deviation_C: np.ndarray,
    *,
    name: str,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The same; a series of which nothing was observed in training is left out of all splits.

    Raises:
        DataError: that is so of a variate, or of all series.
    """
    unknown_C = np.isnan(mean_C)
    if not unknown_C.any():
        return ranges, mean_C, deviation_C
    if not table.series or unknown_C.all():
        first, end = ranges["train"][0].tolist()
        column = table.variates[int(unknown_C.argmax())]
        raise DataError(
            f"{name}: column {column!r} has no value in the training rows {first + 1} to {end}; "
            f"leave it out (--ignore {column}), or cut the rows before its first value"
        )
    empty = {s: np.where(unknown_C[:, None], r[:, :1], r) for s, r in ranges.items()}
    return empty, np.where(unknown_C, 0.0, mean_C), np.where(unknown_C, 1.0, deviation_C)
