"""Claims about `data check`, and about what is told before a model learns.

- Absent rows and missing cells are counted with their places, whatever would be done about them.
- A code for a missing value, an outlier, a dead meter, a constant and a high level are told; a
  night's zero and a calm series are not.
- A remedy that is told works.
- It ends with 2 exactly where `load` would refuse the file, read with the same flags.
- It says whether a recipe, or a target, can read the data.
- Before a training each data set is told of once, and only what is odd.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foredraft import data
from foredraft.cli import main
from foredraft.data import oddities
from foredraft.data.quality import check

ROWS = 1200


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def frame(**columns: Any) -> pd.DataFrame:
    """Hours of a calm load, and the columns given."""
    row = np.arange(ROWS)
    noise = np.random.default_rng(0).normal(size=ROWS)
    load = 1000 + 100 * np.sin(row / 24 * 6.283) + 10 * noise
    table = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=ROWS, freq="h"), "load": load}
    )
    return table.assign(**columns)


def written(tmp_path: Path, table: pd.DataFrame) -> str:
    table.to_csv(tmp_path / "mine.csv", index=False)
    return str(tmp_path / "mine.csv")


def code(*words: str) -> int:
    """With which `foredraft data` ends."""
    try:
        main(["data", *words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def told(report: dict[str, Any]) -> list[str]:
    return [f"{one['level']}: {one['what']}; {one['remedy']}" for one in report["findings"]]


def test_a_calm_series_has_nothing_to_be_told(tmp_path: Path) -> None:
    report = check(written(tmp_path, frame()))
    assert told(report) == ["ok: no row is absent, no cell is missing; "]
    assert report["usable"]
    assert (report["step"], report["season"], report["zone"]) == ("h", 24, None)
    assert report["borders"]["test"] == ["2024-02-10 00:00:00", "2024-02-19 23:00:00"]
    load = frame().load.to_numpy()[:840]
    naive = np.abs(load[24:] - load[:-24]).mean() / load.std()
    assert report["seasonal_naive"] == pytest.approx(naive, rel=1e-4)


def test_absent_rows_are_counted_with_the_place_of_the_longest_gap(tmp_path: Path) -> None:
    table = frame().drop(index=[5, *range(100, 112)])
    report = check(written(tmp_path, table))
    assert (report["absent"], report["gaps"]) == (13, 2)
    assert report["longest_gap"] == {"rows": 12, "after": "2024-01-05 03:00:00"}
    assert not report["usable"]
    assert "refused: 13 rows are absent in 2 gaps, the longest of 12" in told(report)[0]
    assert check(written(tmp_path, table), missing="interpolate")["usable"]


@pytest.mark.parametrize("missing", ["refuse", "skip", "interpolate", "seasonal"])
@pytest.mark.parametrize(
    "kind", ["whole", "absent", "missing", "late", "late series", "no time", "repeats", "uneven"]
)
def test_it_ends_with_2_exactly_where_a_file_read_so_is_refused(
    tmp_path: Path, kind: str, missing: Any
) -> None:
    table = frame(b=1.0 + np.arange(ROWS) % 7)
    if kind == "absent":
        table = table.drop(index=[7, 8])
    elif kind in ("missing", "no time"):
        table.loc[[8, 9], "b"] = np.nan
    elif kind == "late":
        table.loc[:1000, "b"] = np.nan
    elif kind == "late series":
        table.loc[:1000, "b"] = np.nan
        table = table.melt("date", var_name="unique_id", value_name="y").iloc[:-1]
    elif kind == "repeats":
        table.loc[9, "date"] = table.loc[8, "date"]
    elif kind == "uneven":
        table["date"] += pd.to_timedelta(np.arange(ROWS) ** 2, unit="s")
    if kind == "no time":
        table = table.drop(columns="date")
    path = written(tmp_path, table)
    try:
        data.load(path, missing=missing)
        expected = 0
    except data.DataError:
        expected = 2
    assert code("check", path, "--missing", missing) == expected


def test_most_of_the_missing_cells_are_in_a_variate_that_is_named(tmp_path: Path) -> None:
    table = frame(b=1.0 + np.arange(ROWS) % 7)
    table.loc[3, "load"] = table.loc[20:29, "b"] = np.nan
    report = check(written(tmp_path, table), missing="interpolate")
    assert report["most_missing"] == "b"
    (note,) = told(report)
    assert note == (
        "note: 11 cells are missing, the first in load, row 4, most of them in b; "
        "they are filled linearly in time"
    )


def test_a_split_without_a_row_is_told(tmp_path: Path) -> None:
    (note,) = [n for n in told(check(written(tmp_path, frame().head(4)))) if "no row;" in n]
    assert note == "note: test has no row; add rows"


def test_filled_cells_do_not_calm_the_unit_of_mase(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(size=ROWS)
    table = frame(load=noise)
    expected = check(written(tmp_path, table))["seasonal_naive"]
    table.loc[100:399, "load"] = np.nan
    report = check(written(tmp_path, table), missing="interpolate")
    assert report["seasonal_naive"] == pytest.approx(expected, rel=0.1)


def test_missing_cells_are_counted_with_the_first_place(tmp_path: Path) -> None:
    table = frame(b=1.0 + np.arange(ROWS) % 7)
    table.loc[[8, 9], "b"] = np.nan
    report = check(written(tmp_path, table))
    assert (report["missing"], report["first_missing"]) == (2, {"column": "b", "row": 9})
    assert not report["usable"]
    with pytest.raises(data.MissingCells):
        data.load(written(tmp_path, table))


@pytest.mark.parametrize("code", [-9999.0, 0.0, 99999.0])
def test_a_code_for_a_missing_value_is_told_and_its_remedy_reads_it_as_one(
    tmp_path: Path, code: float, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame()
    table.loc[[10, 200, 300, 777], "load"] = code
    path = written(tmp_path, table)
    (note,) = [line for line in told(check(path)) if "again and again" in line]
    assert f"load {code:g} (4 times)" in note
    flags = shlex.split(note.rsplit(": ", 1)[1].rstrip("; "))
    main(["data", "check", path, "--missing", "interpolate", *flags, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == 4
    assert not any("again and again" in line for line in told(report))


def test_zeros_of_the_night_are_no_code(tmp_path: Path) -> None:
    sun = np.maximum(0, np.sin(np.arange(ROWS) / 24 * 6.283)) * 800
    assert not any("again" in line for line in told(check(written(tmp_path, frame(sun=sun)))))


def test_values_far_beyond_all_others_are_counted_with_the_place_of_the_farthest(
    tmp_path: Path,
) -> None:
    table = frame()
    table.loc[[10, 700], "load"] = [90_000.0, -50_000.0]
    far = "load 2 (90000 at 2024-01-01 10:00:00)"
    assert f"note: values far beyond all others: {far}; " in told(check(written(tmp_path, table)))
    numbered = written(tmp_path, table.drop(columns="date"))
    assert "load 2 (90000 at row 11)" in told(check(numbered))[-1]


def test_a_dead_meter_is_told_and_a_short_rest_is_not(tmp_path: Path) -> None:
    dead, rests = np.random.default_rng(1).normal(size=(2, ROWS))
    dead[300:400], rests[300:340] = 0.5, 0.5
    (note,) = [
        line
        for line in told(check(written(tmp_path, frame(dead=dead, rests=rests))))
        if "without any change" in line
    ]
    assert "dead 100 (from 2024-01-13 12:00:00)" in note
    assert "rests" not in note


def test_a_constant_and_a_level_that_single_precision_swallows_are_told(tmp_path: Path) -> None:
    high = 1e9 + np.random.default_rng(2).normal(size=ROWS)
    report = check(written(tmp_path, frame(flat=3.0, high=high)))
    assert report["constant"] == ["flat"]
    assert any("constant: flat" in line for line in told(report))
    assert any("swallow the variation: high" in line for line in told(report))


def test_of_many_variates_five_are_named(tmp_path: Path) -> None:
    table = frame(**{f"c{index}": 1.0 for index in range(9)})
    (note,) = [line for line in told(check(written(tmp_path, table))) if "constant" in line]
    assert "c0, c1, c2, c3, c4 and 4 more" in note


def test_the_report_for_a_person_fits_on_a_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame(flat=1.0)
    table.loc[[10, 700], "load"] = [90_000.0, np.nan]
    assert code("check", written(tmp_path, table.drop(index=[50]))) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("mine.csv: 1,199 rows of 2 variates, a row every h")
    assert len(lines) < 12
    starts = [line.split(maxsplit=1)[0] for line in lines[1:]]
    assert starts[:2] == ["format", "time"]
    assert starts[-2:] == ["splits", "naive"]
    assert set(starts[2:-2]) == {"refused", "note"}


def test_it_says_whether_a_target_finds_windows_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ["--storage", str(tmp_path / "runs")]
    small = ["model.context=48", "model.patch=12", "model.d_model=16", "model.n_heads=2"]
    small += ["model.d_ff=16", "model.n_layers=1"]
    stages = [f"stages.{n}.{field}" for n in (0, 1) for field in ("epochs=1", "windows=32")]
    changes = [word for change in (*small, *stages) for word in ("--set", change)]
    main(["train", "target", "--recipe", "demo", *changes, *storage, "--json"])
    key = json.loads(capsys.readouterr().out)["key"]
    path = written(tmp_path, frame())
    main(["data", "check", path, "--for", key, *storage, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert told(report)[-1] == f"ok: target {key} has 781 training windows in it; "
    frame().head(60).to_csv(tmp_path / "short.csv", index=False)
    assert code("check", str(tmp_path / "short.csv"), "--for", key, *storage, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert not report["usable"]
    assert f"refused: not for {key}: short: train has 42 rows" in told(report)[-1]


def test_for_a_recipe_that_is_not_there_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", written(tmp_path, frame()), "--for", "best.json"])
    assert ended.value.code == 2
    assert "recipe best.json is no file" in capsys.readouterr().err


def test_a_data_set_is_told_of_once_in_a_process(tmp_path: Path) -> None:
    dataset = data.load(written(tmp_path, frame(flat=1.0)))
    assert data.notes(dataset) == ["mine: constant: flat; they say nothing (--ignore flat)"]
    assert data.notes(dataset) == []


def test_filled_cells_are_told_and_are_no_oddity_themselves(tmp_path: Path) -> None:
    table = frame()
    table.loc[400:499, "load"] = np.nan
    dataset = data.load(written(tmp_path, table), missing="interpolate")
    notes = [finding.told() for finding in oddities.oddities(dataset)]
    assert notes == ["100 cells (8.33%) were missing and are filled"]


def test_a_panel_is_looked_at_series_by_series(tmp_path: Path) -> None:
    parts = [
        frame(unique_id=name).iloc[first:].rename(columns={"date": "ds", "load": "y"})
        for name, first in (("a", 0), ("b", 30), ("dead", 60))
    ]
    table = pd.concat(parts)[["unique_id", "ds", "y"]]
    table.loc[table.unique_id == "dead", "y"] = 7.0
    report = check(written(tmp_path, table))
    assert (report["series"], report["rows"]) == (3, 3 * ROWS - 90)
    assert report["constant"] == ["dead"]
