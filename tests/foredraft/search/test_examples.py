"""Claims about the windows that a study keeps to be looked at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from foredraft.judge.evaluate import EvaluationWindows
from foredraft.search import examples
from foredraft.settings.config import Evaluation
from speculation import Gaussian

EVALUATION = Evaluation(data="synthetic-etth:rows=1200", horizon=20)
RULE = Gaussian(sigma=0.3, bias=2.0)


def windows(count: int = 9, *, variates: int = 7) -> EvaluationWindows:
    truth_WHC = torch.randn(count, 20, variates, generator=torch.Generator().manual_seed(0))
    return EvaluationWindows(torch.zeros(count, 48, variates), truth_WHC)


def runs(forecast_WHC: torch.Tensor, patches: int = 2) -> Any:
    """Speculations of all windows, in two batches."""
    accepted_WN = torch.arange(len(forecast_WHC))[:, None] % 2 == torch.arange(patches) % 2
    parts = zip(forecast_WHC.split(5), accepted_WN.split(5), strict=True)
    return [SimpleNamespace(forecast_BTC=one, accepted_BN=two) for one, two in parts]


def kept(folder: Path, own: EvaluationWindows) -> examples.Example:
    reference_WHC = own.truth_WHC + 1
    examples.keep_windows(folder, EVALUATION, own, reference_WHC, patch=12)
    examples.keep_forecasts(folder, EVALUATION, "d", RULE, runs(own.truth_WHC + 2))
    found = examples.example(folder, EVALUATION, "d", RULE)
    assert found
    return found


def test_what_is_kept_is_found_again_by_evaluation_draft_and_rule(tmp_path: Path) -> None:
    own = windows()
    found = kept(tmp_path, own)
    assert found.windows == (0, 2, 5, 8)
    assert (found.of, found.patch) == (9, 12)
    assert found.variates == (("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"),) * 4
    assert found.context_WTC.shape == (4, 20, 7)
    chosen_WHC = own.truth_WHC[[0, 2, 5, 8]].numpy()
    for values, more in ((found.truth_WHC, 0), (found.target_WHC, 1), (found.forecast_WHC, 2)):
        np.testing.assert_allclose(values, chosen_WHC + more, atol=3e-3)
    assert found.accepted_WN.tolist() == [[True, False]] * 2 + [[False, True], [True, False]]
    other = EVALUATION.model_copy(update={"horizon": 24})
    assert examples.example(tmp_path, other, "d", RULE) is None
    assert examples.example(tmp_path, EVALUATION, "e", RULE) is None
    assert examples.example(tmp_path, EVALUATION, "d", Gaussian(sigma=0.4, bias=2.0)) is None


def test_variates_that_take_turns_are_named_window_by_window(tmp_path: Path) -> None:
    own = windows(variates=2)
    found = kept(tmp_path, own._replace(variates_WV=torch.arange(18).unflatten(0, (9, 2)) % 7))
    assert found.variates == (
        ("HUFL", "HULL"),
        ("LUFL", "LULL"),
        ("MULL", "LUFL"),
        ("MUFL", "MULL"),
    )


def test_what_was_filled_is_no_truth(tmp_path: Path) -> None:
    own = windows()
    observed_WHC = torch.ones_like(own.truth_WHC, dtype=torch.bool)
    observed_WHC[2, 3, 4] = False
    found = kept(tmp_path, own._replace(observed_WHC=observed_WHC))
    assert np.argwhere(np.isnan(found.truth_WHC)).tolist() == [[1, 3, 4]]


def test_a_file_that_is_damaged_is_none(tmp_path: Path) -> None:
    kept(tmp_path, windows())
    for path in tmp_path.glob("d-*"):
        path.write_bytes(path.read_bytes()[:100])
    assert examples.example(tmp_path, EVALUATION, "d", RULE) is None


@pytest.mark.parametrize("variates", [1, 7])
def test_no_window_is_kept_twice_where_there_are_few(tmp_path: Path, variates: int) -> None:
    own = windows(3, variates=variates)
    if variates == 1:
        own = own._replace(variates_WV=torch.zeros(3, 1, dtype=torch.int64))
    assert kept(tmp_path, own).windows == (0, 1, 2)
