"""A few windows of a study, kept to be looked at: the truth, and what target and trials forecast.

    keep_windows(folder, evaluation, windows, reference_WHC, patch=24)
    keep_forecasts(folder, evaluation, draft_key, rule, runs)
    found = example(folder, evaluation, draft_key, rule)

They lie in a folder of the study's directory: one file for what all trials under one context policy
share, and a small one for each rule of a draft that was decoded. In half precision, as they are for
the eye: no figure is computed from them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from foredraft import buckets, data, files, provenance
from foredraft.data.spacing import evenly_spaced
from foredraft.judge import evaluate
from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Evaluation
from foredraft.settings.rules import Rule
from speculation import Speculation

FOLDER = "examples"
WINDOWS = 4
"""Windows that are kept, evenly spaced over those that are judged."""
VARIATES = 8
"""Variates that are kept at most, evenly spaced too."""

Array = npt.NDArray[np.float32]


class Example(NamedTuple):
    """The kept windows of one trial, standardised by the training split."""

    windows: tuple[int, ...]
    """the place of each among those that were judged, from 0"""
    variates: tuple[tuple[str, ...], ...]
    """of each window"""
    of: int
    """windows that were judged"""
    patch: int
    """steps"""
    context_WTC: Array
    """what was read last"""
    truth_WHC: Array
    """NaN where nothing was observed"""
    target_WHC: Array
    """the target's own forecast, under the study's reference policy"""
    forecast_WHC: Array
    """by speculation"""
    accepted_WN: npt.NDArray[np.bool_]
    """which patches the draft proposed; the others are the target's own"""


def keep_windows(
    folder: Path,
    evaluation: Evaluation,
    windows: EvaluationWindows,
    reference_WHC: torch.Tensor,
    *,
    patch: int,
) -> None:
    """Nothing; afterwards the folder holds what all trials of that evaluation share."""
    window_W, variate_C = _kept(windows.truth_WHC)
    truth_WHC = windows.truth_WHC
    if windows.observed_WHC is not None:
        truth_WHC = truth_WHC.masked_fill(~windows.observed_WHC, torch.nan)
    dataset = data.load(evaluation.data, missing=evaluation.missing, reading=evaluation.reading)
    variates_WV = windows.variates_WV
    if variates_WV is None:
        variates_WV = torch.arange(len(dataset.variates)).expand(len(truth_WHC), -1)
    read = min(windows.context_WTC.shape[1], evaluation.horizon)
    _write(
        _windows_file(folder, evaluation),
        variates=np.array(dataset.variates, dtype=str)[variates_WV[window_W][:, variate_C]],
        windows=window_W.numpy(),
        of=np.array(len(truth_WHC)),
        patch=np.array(patch),
        context_WTC=_half(windows.context_WTC[:, -read:], window_W, variate_C),
        truth_WHC=_half(truth_WHC, window_W, variate_C),
        target_WHC=_half(reference_WHC, window_W, variate_C),
    )


def keep_forecasts(
    folder: Path, evaluation: Evaluation, draft: str, rule: Rule, runs: Sequence[Speculation]
) -> None:
    """Nothing; afterwards the folder holds what a rule of that draft made of the windows."""
    forecast_WHC = evaluate.forecasts_of(runs)
    window_W, variate_C = _kept(forecast_WHC)
    accepted_WN = torch.cat([run.accepted_BN for run in runs])
    _write(
        _forecasts_file(folder, evaluation, draft, rule),
        forecast_WHC=_half(forecast_WHC, window_W, variate_C),
        accepted_WN=accepted_WN[window_W].numpy(),
    )


def example(folder: Path, evaluation: Evaluation, draft: str, rule: Rule) -> Example | None:
    """What was kept of the rule of a draft; None where nothing was, or it cannot be read."""
    shared = _read(_windows_file(folder, evaluation))
    own = _read(_forecasts_file(folder, evaluation, draft, rule))
    if shared is None or own is None:
        return None
    return Example(
        variates=tuple(map(tuple, shared["variates"].tolist())),
        windows=tuple(shared["windows"].tolist()),
        of=int(shared["of"]),
        patch=int(shared["patch"]),
        context_WTC=shared["context_WTC"].astype(np.float32),
        truth_WHC=shared["truth_WHC"].astype(np.float32),
        target_WHC=shared["target_WHC"].astype(np.float32),
        forecast_WHC=own["forecast_WHC"].astype(np.float32),
        accepted_WN=own["accepted_WN"].astype(np.bool_),
    )


def _kept(values_WHC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The indices of the windows and of the variates that are kept."""
    windows, _, variates = values_WHC.shape
    return (
        evenly_spaced(windows, count=min(WINDOWS, windows)),
        evenly_spaced(variates, count=min(VARIATES, variates)),
    )


def _half(
    values_WTC: torch.Tensor, window_W: torch.Tensor, variate_C: torch.Tensor
) -> npt.NDArray[np.float16]:
    kept: npt.NDArray[np.float16] = values_WTC[window_W][:, :, variate_C].half().numpy()
    return kept


def _windows_file(folder: Path, evaluation: Evaluation) -> Path:
    return folder / f"windows-{provenance.digest(evaluation)}.npz"


def _forecasts_file(folder: Path, evaluation: Evaluation, draft: str, rule: Rule) -> Path:
    return folder / f"{draft}-{provenance.digest([evaluation, rule])}.npz"


def _write(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    with files.atomic_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    buckets.keep(path)


def _read(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
