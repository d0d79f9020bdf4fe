"""Claims about the page on how well a study searched."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from foredraft.report import hypervolume
from foredraft.search.record import Standing, Times
from foredraft.search.trial import Trial


def written(folder: Path, covered: list[float], **settings: Any) -> Path:
    folder.mkdir(parents=True)
    tree = {"name": folder.name, "sampler": "tpe", "dimensions": {"sigma": 1}, **settings}
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    pd.DataFrame({"hypervolume": covered}).to_parquet(folder / "trials.parquet")
    return folder


def info_of(study_dir: Path) -> hypervolume.HypervolumeInfo:
    path = study_dir / "trials.parquet"
    volumes = pd.read_parquet(path)["hypervolume"] if path.is_file() else []
    standings = tuple(
        Standing(Trial(number=number), True, True, None, volume)
        for number, volume in enumerate(volumes)
    )
    return hypervolume.hypervolume_info(study_dir, standings, times={})


def test_only_studies_of_the_same_search_are_drawn_beside_a_study(tmp_path: Path) -> None:
    own = written(tmp_path / "own", [0.0, 0.5])
    written(tmp_path / "chance", [0.1, 0.2, 0.3], sampler="random", seed=4)
    written(tmp_path / "other", [9.0], dimensions={"bias": 1})
    info = info_of(own)
    assert [line.label for line in info.studies] == ["own (tpe)", "chance (random)"]
    assert [line.own for line in info.studies] == [True, False]


def test_studies_are_compared_after_as_many_trials_as_both_have(tmp_path: Path) -> None:
    own = written(tmp_path / "own", [0.0, 0.5])
    written(tmp_path / "chance", [0.1, 0.2, 0.3], sampler="random")
    sentence = hypervolume.sentence(info_of(own))
    assert sentence == "own (tpe) covers 0.5000 after 2 trials; chance (random) 0.2000 after 2."


def test_a_study_without_trials_has_no_such_page(tmp_path: Path) -> None:
    own = written(tmp_path / "own", [])
    assert not info_of(own).studies


def test_a_neighbour_whose_file_is_broken_is_left_out(tmp_path: Path) -> None:
    own = written(tmp_path / "own", [0.0, 0.5])
    (written(tmp_path / "chance", [0.1]) / "study.yaml").write_text("")
    assert [line.label for line in info_of(own).studies] == ["own (tpe)"]


def test_hypervolume_is_told_over_seconds_where_every_report_has_its_time(tmp_path: Path) -> None:
    own, start = written(tmp_path / "own", [0.0, 0.5]), datetime(2026, 1, 1)
    standings = [Standing(Trial(number=n), True, True, None, v) for n, v in ((0, 0.2), (1, 0.5))]
    # The second trial ended first.
    times = {n: Times(start, start + timedelta(seconds=s)) for n, s in ((0, 30), (1, 20))}
    info = hypervolume.hypervolume_info(own, standings, times=times)
    assert info.studies[0].seconds == (30.0, 20.0)
    over_seconds = hypervolume.hypervolume_figure(info).data[1]
    assert (list(over_seconds.x), list(over_seconds.y)) == ([20.0, 30.0], [0.5, 0.5])
    part = hypervolume.hypervolume_info(own, standings, times={0: times[0]})
    assert part.studies[0].seconds == ()
