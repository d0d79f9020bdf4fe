"""Claims about seasonal naive, the forecast that costs nothing.

- It repeats the last season of the context, as often as the horizon is long.
- Its errors are on the windows and in the units of every other error.
- MASE divides by what it errs by in training; what was filled counts nowhere.
- The season is the step's own, or the one that is given; without either the last row is repeated.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foredraft import data
from foredraft.judge import evaluate, yardstick
from foredraft.settings.config import Evaluation
from timer_xl import TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=48, d_model=16, n_heads=2, d_ff=16, n_layers=1)


@pytest.fixture
def waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two variates of period 24 on a slope, of which one is noisy; with and without times."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = np.arange(1000)
    noise = np.random.default_rng(0).normal(size=1000)
    table = pd.DataFrame({"a": np.sin(row / 24 * 6.283), "b": np.cos(row / 24 * 6.283) + noise})
    table.to_csv(tmp_path / "bare.csv", index=False)
    for step in ("h", "D", "15min"):
        table.assign(date=pd.date_range("2024-01-01", periods=1000, freq=step))[
            ["date", "a", "b"]
        ].to_csv(tmp_path / f"{step}.csv", index=False)
    return tmp_path


def test_the_last_season_is_said_again_and_again() -> None:
    context_WTC = torch.arange(12.0).reshape(1, 6, 2)
    said = yardstick.repeated(context_WTC, horizon=5, season=2)
    assert said[0, :, 0].tolist() == [8, 10, 8, 10, 8]
    assert said[0, :, 1].tolist() == [9, 11, 9, 11, 9]
    assert yardstick.repeated(context_WTC, horizon=3, season=1)[0, :, 0].tolist() == [10, 10, 10]


@pytest.mark.parametrize(("season", "given"), [(24, None), (7, 7), (1, 1), (48, 48)])
def test_its_errors_are_those_of_the_rows_one_season_before(
    waves: Path, season: int, given: int | None
) -> None:
    evaluation = Evaluation(
        data=str(waves / "h.csv"), horizon=30, windows=5, split="test", season=given
    )
    windows = evaluate.draw_windows(evaluation, CONFIG)
    naive = yardstick.seasonal_naive(windows, season=yardstick.season_of(evaluation, CONFIG))
    dataset = data.load(evaluation.data)
    x_TC = ((dataset.values_TC - dataset.mean_C) / dataset.deviation_C).astype(np.float64)
    first, end = dataset.splits["test"]
    errors = []
    for start in np.linspace(first, end - 30, 5).astype(int):
        for ahead in range(30):
            back = season * (ahead // season + 1)
            errors.append(x_TC[start + ahead] - x_TC[start + ahead - back])
    assert naive.season == season
    assert naive.mse == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert naive.mae == pytest.approx(np.abs(errors).mean(), rel=1e-5)


@pytest.mark.parametrize(("file", "season"), [("h", 24), ("D", 7), ("15min", 1), ("bare", 1)])
def test_the_season_is_the_steps_own_if_the_context_holds_it(
    waves: Path, file: str, season: int
) -> None:
    evaluation = Evaluation(data=str(waves / f"{file}.csv"), horizon=24)
    assert yardstick.season_of(evaluation, CONFIG) == season


@pytest.mark.parametrize("season", [24, 7])
def test_mase_is_in_units_of_what_it_errs_by_in_training_variate_by_variate(
    waves: Path, season: int
) -> None:
    evaluation = Evaluation(
        data=str(waves / "h.csv"), horizon=30, windows=5, split="test", season=season
    )
    windows = evaluate.draw_windows(evaluation, CONFIG)
    unit_C = yardstick.unit_of(evaluation, season=season)
    naive = yardstick.seasonal_naive(windows, season=season, unit_C=unit_C)
    dataset = data.load(evaluation.data)
    learnt_TC = dataset.values_TC[slice(*dataset.splits["train"])].astype(np.float64)
    own_C = np.abs(learnt_TC[season:] - learnt_TC[:-season]).mean(axis=0)
    said_WHC = yardstick.repeated(windows.context_WTC, horizon=30, season=season)
    error_C = np.abs((said_WHC - windows.truth_WHC).double().numpy()).mean(axis=(0, 1))
    error_C *= dataset.deviation_C
    assert naive.mase == pytest.approx((error_C / own_C).mean(), rel=1e-4)
    perfect = yardstick.mase(windows.truth_WHC, windows, unit_C=unit_C)
    assert perfect == 0.0


def test_mase_of_variates_that_take_turns_is_the_mean_of_the_variates(waves: Path) -> None:
    asked = {"data": str(waves / "h.csv"), "horizon": 30, "windows": 5, "split": "test"}
    evaluation = Evaluation(**asked, variates=1)  # type: ignore[arg-type]
    windows = evaluate.draw_windows(evaluation, CONFIG)
    unit_C = yardstick.unit_of(evaluation, season=24)
    assert unit_C is not None
    said_WHC = yardstick.repeated(windows.context_WTC, horizon=30, season=24)
    error_W = (said_WHC - windows.truth_WHC).double().abs().mean((1, 2))
    variates = len(unit_C)
    own = [error_W[c::variates].mean() / unit_C[c] for c in range(variates)]
    naive = yardstick.seasonal_naive(windows, season=24, unit_C=unit_C)
    assert naive.mase == pytest.approx(float(sum(own)) / variates)


def test_what_was_filled_counts_neither_in_an_error_nor_in_its_unit(waves: Path) -> None:
    table = pd.read_csv(waves / "h.csv")
    table.loc[300:499, "b"] = np.nan
    table.loc[900:940, "b"] = np.nan
    table.to_csv(waves / "holes.csv", index=False)
    evaluation = Evaluation(
        data=str(waves / "holes.csv"),
        missing="interpolate",
        **{"horizon": 30, "windows": None, "split": "test"},
    )
    unit_C = yardstick.unit_of(evaluation, season=24)
    assert unit_C is not None
    dataset = data.load(evaluation.data, missing="interpolate")
    b_T = table.b.to_numpy()[: dataset.splits["train"][1]]
    own = np.nanmean(np.abs(b_T[24:] - b_T[:-24])) / dataset.deviation_C[1]
    assert float(unit_C[1]) == pytest.approx(own, rel=1e-5)
    windows = evaluate.draw_windows(evaluation, CONFIG)
    wrong_WHC = windows.truth_WHC.clone()
    assert windows.observed_WHC is not None
    wrong_WHC[~windows.observed_WHC] += 100
    assert yardstick.mase(wrong_WHC, windows, unit_C=unit_C) == 0.0


def test_a_variate_that_never_changes_has_no_part_in_mase(waves: Path) -> None:
    table = pd.read_csv(waves / "h.csv")
    table.assign(flat=1.0).to_csv(waves / "flat.csv", index=False)
    told = {}
    for name in ("h", "flat"):
        evaluation = Evaluation(
            data=str(waves / f"{name}.csv"), horizon=30, windows=5, split="test"
        )
        windows = evaluate.draw_windows(evaluation, CONFIG)
        unit_C = yardstick.unit_of(evaluation, season=24)
        told[name] = yardstick.seasonal_naive(windows, season=24, unit_C=unit_C).mase
    assert told["flat"] == pytest.approx(told["h"])


def test_a_season_that_is_longer_than_the_context_is_refused(waves: Path) -> None:
    evaluation = Evaluation(data=str(waves / "h.csv"), horizon=24, season=49)
    with pytest.raises(data.DataError, match="season is 49 rows: the context has 48"):
        yardstick.season_of(evaluation, CONFIG)
