"""Claims about forecasts of a panel, whose series begin and end when they do.

- Each series is forecast after its own end, under its own name, as if it were alone.
- A series shorter than the context is left out and counted; where all are, that is refused.
- A hole in a context is refused with the series that has it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foredraft import data, forecast
from foredraft.forecast.context import Reads, context_of, contexts_of
from speculation import Tolerance

READS = Reads(patch=8, context=32, step="h", variates=(), mean=(), deviation=())
LENGTHS = {"north": 90, "south": 60, "short": 31, "west": 45}


@pytest.fixture(scope="module")
def recipe(storage: Path) -> Path:
    choice = {
        "target": {"path": "../../targets/one"},
        "draft": {"path": "../../drafts/one"},
        "acceptance": asdict(Tolerance(mse_tol=0.0, lookahead=2)),
        "evaluation": {"data": "known.csv", "horizon": 24},
        "plan": None,
        "reads": READS.model_dump(mode="json"),
    }
    path = storage / "studies" / "mine" / "best.json"
    path.write_text(json.dumps(choice))
    return path


def series(name: str) -> pd.DataFrame:
    rows, begins = LENGTHS[name], pd.Timestamp("2024-03-01") + pd.Timedelta(len(name), "D")
    times = pd.date_range(begins, periods=rows, freq="h")
    rng = np.random.default_rng(rows)
    return pd.DataFrame({"unique_id": name, "ds": times, "y": rng.normal(rows, 2.0, rows)})


def panel(*names: str) -> pd.DataFrame:
    return pd.concat([series(name) for name in names or LENGTHS], ignore_index=True)


def written(table: pd.DataFrame, name: str = "mine.csv") -> str:
    table.to_csv(name, index=False)
    return name


def forecasts(recipe: Path, source: str, **options: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    told = forecast.write_forecast(recipe, source, out=Path("out.parquet"), **options)
    return told, pd.read_parquet("out.parquet")


def test_each_series_is_forecast_after_its_own_end_as_if_it_were_alone(recipe: Path) -> None:
    told, table = forecasts(recipe, written(panel()), horizon=20)
    assert (told["variates"], told["left_out"]) == (3, 1)
    assert table["variate"].unique().tolist() == ["north", "south", "west"]
    for name in ("north", "south", "west"):
        ours = table[table["variate"] == name].reset_index(drop=True)
        _, alone = forecasts(recipe, written(series(name), f"{name}.csv"), horizon=20)
        after = series(name)["ds"].iloc[-1] + pd.to_timedelta(np.arange(1, 21), "h")
        assert list(ours["time"]) == list(after)
        assert list(alone["time"]) == list(after)
        np.testing.assert_allclose(ours["mean"], alone["mean"], rtol=1e-4)


def test_a_panel_from_a_time_is_forecast_where_that_time_has_a_context(recipe: Path) -> None:
    # At that hour north has 41 rows, south 41, west 65 but only 45 of them are there.
    told, table = forecasts(recipe, written(panel()), horizon=8, at="2024-03-07 16:00")
    assert table["variate"].unique().tolist() == ["north", "south"]
    assert told["last"] == "2024-03-07 16:00:00"
    assert set(table["time"]) == set(pd.date_range("2024-03-07 17:00", periods=8, freq="h"))


def test_where_every_series_is_too_short_the_context_is_named() -> None:
    dataset = data.load(written(panel("short", "west").groupby("unique_id").head(31)))
    longer = READS.model_copy(update={"context": 40})
    with pytest.raises(data.DataError, match="none of its 2 series has the 40 rows"):
        contexts_of(dataset, longer, source="mine.csv")


def test_a_context_is_the_last_rows_of_its_series_in_its_own_units() -> None:
    table = panel()
    table.loc[table["unique_id"] == "south", "y"] += 1e9
    dataset = data.load(written(table))
    for context in contexts_of(dataset, READS, source="mine.csv"):
        (name,) = context.variates
        wanted = table.loc[table["unique_id"] == name, "y"].iloc[-32:]
        np.testing.assert_allclose(context.values_TC[:, 0], wanted, rtol=1e-9, atol=1e-4)


def test_a_hole_in_a_context_is_refused_with_its_series_and_filling_it_works() -> None:
    table = panel()
    source = written(table.drop(index=140))
    dataset = data.load(source, missing="skip")
    with pytest.raises(data.MissingCells, match=r"series 'south': 1 cells .* 'south', row 51"):
        contexts_of(dataset, READS, source=source)
    filled = data.load(source, missing="interpolate")
    contexts = contexts_of(filled, READS, source=source)
    assert [context.filled for context in contexts] == [0, 1, 0]


def test_a_unit_that_is_another_than_the_recipe_s_is_told_with_the_series() -> None:
    dataset = data.load(written(panel()))
    reads = READS.model_copy(
        update={"variates": ("south",), "mean": (60_000.0,), "deviation": (2000.0,)}
    )
    with pytest.raises(data.DataError, match="series 'south': south has mean"):
        contexts_of(dataset, reads, source="mine.csv")
    north = next(one for one in dataset.series if one.name == "north")
    assert context_of(dataset, reads, source="mine.csv", series=north).variates == ("north",)
