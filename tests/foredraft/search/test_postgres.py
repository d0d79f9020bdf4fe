"""Claims about a study whose record is in a real PostgreSQL: it ends there, and is watched there.

Its password is in the study's address, and nowhere else that anybody reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
import yaml

from foredraft.cli import main
from foredraft.errors import ConfigError
from foredraft.search import record
from foredraft.search.watch import Watch
from foredraft.settings.study import read_study

PLANTED = b"s3cret-of-the-team"


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Any,
    ray_cluster: None,
    tiny_tree: Callable[..., dict[str, Any]],
) -> Path:
    """The directory of a study that has run by its command line, on a real Ray."""
    folder = tmp_path_factory.mktemp("team")
    tree = tiny_tree(name="shared", database=postgres.url)
    (folder / "shared.yaml").write_text(yaml.safe_dump(tree))
    main(["search", str(folder / "shared.yaml"), "--storage", str(folder / "runs")])
    return folder / "runs" / "studies" / "shared"


def test_every_trial_is_in_the_database_and_none_in_a_file_beside_it(
    ended: Path, postgres: Any
) -> None:
    held = optuna.load_study(study_name="shared", storage=postgres.url).get_trials()
    assert [one.state.name for one in held] == ["COMPLETE", "COMPLETE"]
    assert not (ended / record.DATABASE_FILE).exists()
    assert (ended / "report.html").is_file()


def test_the_password_is_in_nothing_that_is_kept_or_logged(
    ended: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    yaml_file = ended.parents[2] / "shared.yaml"
    assert PLANTED in yaml_file.read_bytes()
    main(["search", str(yaml_file), "--storage", str(ended.parents[1]), "--dry-run"])
    main(["report", "shared", "--storage", str(ended.parents[1])])
    shown = capfd.readouterr()
    assert PLANTED.decode() not in shown.out + shown.err
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[union-attr]
    kept = [*ended.parents[1].rglob("*"), *(session / "logs").rglob("*")]
    files = [path for path in kept if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if PLANTED in path.read_bytes()] == []


def test_a_watched_study_is_there_again_when_its_database_is(
    ended: Path, postgres: Any, tmp_path: Path
) -> None:
    # As a colleague sees it, whose own settings name the address in full.
    directory = tmp_path / "shared"
    directory.mkdir()
    tree = yaml.safe_load((ended / "study.yaml").read_text())
    assert "***" in tree["database"]
    (directory / "study.yaml").write_text(yaml.safe_dump({**tree, "database": postgres.url}))
    (directory / "references.json").write_text((ended / "references.json").read_text())
    watch = Watch(directory)
    before = watch.mark
    assert len(watch.record().trials) == 2
    postgres.stop()
    try:
        assert watch.mark != before
        with pytest.raises(ConfigError, match="cannot be read") as refused:
            watch.record()
        assert PLANTED.decode() not in str(refused.value)
    finally:
        postgres.start()
    assert watch.mark == before
    assert len(watch.record().trials) == 2
    watch.close()


def test_a_study_in_a_database_goes_on_where_it_was(
    ended: Path, postgres: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = ended.parents[2] / "shared.yaml"
    tree = yaml.safe_load(yaml_file.read_text())
    yaml_file.write_text(yaml.safe_dump({**tree, "trials": 3}))
    assert read_study(yaml_file).trials == 3
    main(["search", str(yaml_file), "--storage", str(ended.parents[1]), "--resume"])
    trials = json.loads((ended / record.TRIALS_FILE).read_text())
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert "postgresql" not in capsys.readouterr().err


def test_a_study_of_another_storage_is_not_touched_through_its_database(
    ended: Path, postgres: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", str(ended.parents[2] / "shared.yaml"), "--storage", str(tmp_path)]
    before = optuna.load_study(study_name="shared", storage=postgres.url).get_trials()
    for flags in ([], ["--replace"], ["--resume"]):
        with pytest.raises(SystemExit) as refused:
            main([*words, *flags])
        assert refused.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "holds a study 'shared' that was begun from another storage" in line
    assert optuna.load_study(study_name="shared", storage=postgres.url).get_trials() == before
