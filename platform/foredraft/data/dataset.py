"""A data set: its rows, their scale and splits, and the windows that are cut from them.

    dataset = load("load.csv")
    windows = dataset.windows("train", context=672, horizon=96)
    values_TC = dataset.rows(0, 24)

Shapes: T rows (time steps) of a data set, L time steps of a window, C variates, S series of a panel
(1 where variates stand side by side).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from foredraft.data import scale, store
from foredraft.data.errors import DataError
from foredraft.data.tables.long import Series, bounds_of
from foredraft.data.time.steps import Step
from foredraft.data.windows import Windows, starts


@dataclass(frozen=True, eq=False)
class Dataset:
    """One multivariate series, or a panel of series; its splits and the scale of its training.

    To send one to another process, send its source and load it there: the cache makes that cheap.
    """

    name: str
    """registry name or file stem"""
    values_TC: np.ndarray
    """float32, memory-mapped read-only, in the file's own units less the level; of a panel the
    series one below the other, C being 1"""
    variates: tuple[str, ...]
    """of a panel the names of its series"""
    time: pd.DatetimeIndex | None
    """in the file's zone, if it names one"""
    step: Step | None
    """from row to row; None without times"""
    digest: str
    """SHA-256 of the source file, or of a generator's name, parameters and version"""
    identity: str
    """the digest, and what else the values depend on: how the file was read and its holes filled"""
    ranges: dict[str, np.ndarray]
    """train, validation and test as half-open ranges of rows, int64 [S, 2]"""
    mean_C: np.ndarray
    """float64, of the training split, in the file's own units; of a panel for each series"""
    deviation_C: np.ndarray
    """float64, population deviation of the training split; 1 where a variate is constant there"""
    level_C: np.ndarray
    """float64, true value = values + level; 0 unless float32 would swallow the variation"""
    filled: int
    """missing cells that were filled"""
    filled_TC: np.ndarray | None = field(repr=False)
    """bool, which; None: none of them"""
    absent: int
    """rows that the file has not, and that were put in"""
    hole_T: np.ndarray | None = field(repr=False)
    """bool, rows of which a cell is missing still; None: none of them"""
    series: tuple[Series, ...] = field(repr=False)
    """of a panel, with their rows"""
    folder: Path = field(repr=False)
    """where the parsed form is cached"""

    @property
    def zone(self) -> str | None:
        """In which the times are told; None where the file names none."""
        return None if self.time is None or self.time.tz is None else str(self.time.tz)

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """Train, validation and test as half-open ranges of rows.

        Of a panel, whose series are split one by one, the rows are counted split by split.
        """
        if not self.series:
            ranges = {split: ranges_S2[0].tolist() for split, ranges_S2 in self.ranges.items()}
            return {split: (first, end) for split, (first, end) in ranges.items()}
        sizes = [int(np.diff(ranges_S2).sum()) for ranges_S2 in self.ranges.values()]
        ends = np.cumsum(sizes).tolist()
        return {s: (e - size, e) for s, size, e in zip(self.ranges, sizes, ends, strict=True)}

    @property
    def bounds(self) -> np.ndarray:
        """First row and end of each series, int64 [S, 2]."""
        return bounds_of(self.series, len(self.values_TC))

    def rows(self, first: int, end: int) -> np.ndarray:
        """float64 [end - first, C], those rows in the data's own units."""
        level = self.level_C
        if self.series:
            owner_N = np.searchsorted(self.bounds[:, 1], np.arange(first, end), side="right")
            level = level[owner_N, None]
        return self.values_TC[first:end].astype(np.float64) + level

    def standardised(self) -> Tensor:
        """float32 [T, C], (values - mean) / deviation; computed once, then memory-mapped."""
        name = f"standardised-{scale.range_name(self.ranges['train'])}"
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            scale.standardise(
                self.values_TC,
                mean_C=self.mean_C - self.level_C,
                deviation_C=self.deviation_C,
                end_S=self.bounds[:, 1],
                path=path,
            )
        return store.mapped(np.load(path, mmap_mode="r"))

    def windows(self, split: str, *, context: int, horizon: int, stride: int = 1) -> Windows:
        """Every `stride`-th window whose forecast lies in the split; none that touches a hole.

        As in Informer and OpenLTM: a training window lies wholly in its split; the context of a
        validation or test window may reach back into the rows before it. Windows of a panel lie
        each in one series; a series that is too short for one has none.

        Raises:
            DataError: the split is too short for one window, no window is without a hole, nothing
                in the split was observed, or a number makes no sense.
        """
        if split not in self.ranges:
            raise DataError(f"split {split!r} is none of {', '.join(self.ranges)}")
        for name, value in (("context", context), ("horizon", horizon), ("stride", stride)):
            if value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        found = starts(
            self.ranges[split],
            self.bounds[:, 0],
            before=0 if split == "train" else context,
            length=context + horizon,
            stride=stride,
            hole_T=self.hole_T,
        )
        if not len(found.rows_W):
            what = f"one window of context {context} + horizon {horizon}"
            raise DataError(f"{self.name}: {self._too_few(split, found.cut, what)}")
        self._refuse_unobserved(split)
        return Windows(
            self.standardised(),
            torch.from_numpy(found.rows_W),
            context + horizon,
            None if self.filled_TC is None else store.mapped(self.filled_TC),
        )

    def _too_few(self, split: str, cut: int, what: str) -> str:
        """Why a split has no window, and what to do."""
        if cut:
            return (
                f"each of the {cut} windows of {split} touches a row with a missing value, none is "
                f"left for {what}; shorten one of them, or fill with --missing interpolate"
            )
        ranges_S2 = self.ranges[split]
        if self.series:
            longest = int(np.diff(ranges_S2).max())
            return (
                f"{split} has at most {longest} rows of a series ({len(self.series)} series), too "
                f"few for {what}; shorten one of them"
            )
        first, end = ranges_S2[0].tolist()
        return (
            f"{split} has {end - first} rows (from row {first}), too few for {what}; shorten one "
            "of them"
        )

    def _refuse_unobserved(self, split: str) -> None:
        """Nothing; raises where every cell of a split was filled: there is no truth in it."""
        if self.filled_TC is None:
            return
        for first, end in self.ranges[split].tolist():
            if first < end and not self.filled_TC[first:end].all():
                return
        raise DataError(
            f"{self.name}: every value of {split} was missing and filled; nothing was observed "
            "there to learn from or to judge by"
        )
