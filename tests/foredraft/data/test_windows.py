"""Windows start where they may: within one series, not over a hole, every one of them once."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.data.windows import Windows, starts


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_starts_are_those_of_a_search_over_all_rows(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 25), min_size=1, max_size=5))
    ends = np.cumsum(lengths)
    lowest_S = ends - lengths
    ranges = []
    for low, end in zip(lowest_S.tolist(), ends.tolist(), strict=True):
        first = data.draw(st.integers(low, end))
        ranges.append((first, data.draw(st.integers(first, end))))
    before, length = data.draw(st.integers(0, 8)), data.draw(st.integers(1, 9))
    stride = data.draw(st.integers(1, 4))
    holes = data.draw(st.lists(st.booleans(), min_size=int(ends[-1]), max_size=int(ends[-1])))
    hole_T = np.array(holes, dtype=bool)
    found = starts(
        np.array(ranges), lowest_S, before=before, length=length, stride=stride, hole_T=hole_T
    )
    every: list[int] = []
    for low, (first, end) in zip(lowest_S.tolist(), ranges, strict=True):
        every += range(max(low, first - before), end - length + 1, stride)
    whole = [row for row in every if not hole_T[row : row + length].any()]
    assert found.rows_W.tolist() == whole
    assert found.cut == len(every) - len(whole)
    assert found.rows_W.dtype == np.int64


def test_a_series_without_a_window_is_counted() -> None:
    found = starts(np.array([[0, 5], [5, 7], [7, 20]]), np.array([0, 5, 7]), before=0, length=5)
    assert (found.short, found.cut) == (1, 0)
    assert found.rows_W.tolist() == [0, *range(7, 16)]


def test_observed_cells_are_cut_as_the_values_are() -> None:
    values_TC = torch.arange(60.0).reshape(20, 3)
    filled_TC = values_TC % 7 == 0
    windows = Windows(values_TC, torch.arange(15), 6, filled_TC)
    index_B = torch.tensor([4, 0, 9])
    assert torch.equal(windows.observed(index_B), windows.batch(index_B) % 7 != 0)
    drawn_BV = torch.tensor([[2, 0], [1, 1], [0, 2]])
    observed_BLV = windows.observed(index_B, variates=drawn_BV)
    assert torch.equal(observed_BLV, windows.batch(index_B, variates=drawn_BV) % 7 != 0)
    assert Windows(values_TC, torch.arange(15), 6).observed(index_B) is None
