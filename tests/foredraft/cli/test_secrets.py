"""Claims about secrets that stand where a mistake is told: the line names the place alone.

What is kept of a study whose database has a password: tests/foredraft/search/test_postgres.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from foredraft.cli import main

ROOT = Path(__file__).parents[3]
SMOKE = str(ROOT / "search_spaces" / "smoke.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ("search", SMOKE, "--storage", "s3://KEY:hunter2@bucket/x"),
        ("search", SMOKE, "--storage", "s3://bucket/x?secret_key=hunter2"),
        ("search", SMOKE, "--name", "token=hunter2"),
        ("search", "https://me:hunter2@host/study.yaml"),
        ("search", "https://ghp_hunter2hunter2hunter2hunter2@host/study.yaml"),
        ("evaluate", "--target", "ssh://a:hunter2@h", "--draft", "x", "--data", "synthetic-etth"),
        ("forecast", "--recipe", "s3://K:hunter2@b/best.json", "--data", "x.csv", "--out", "y.csv"),
        ("data", "check", "s3://K:hun/ter2@bucket/series.csv"),
        ("report", "s3://K:hunter2@bucket/x"),
        ("train", "target", "--recipe", "demo", "--set", "stages.0.data=s3://K:hunter2@b/x.csv"),
    ],
)
def test_a_mistake_is_told_without_the_secret_in_it(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert "***" in told.err
    assert not any(part in told.out + told.err for part in ("hunter2", "ter2"))


@pytest.mark.parametrize(
    "database",
    [
        "postgresql+psycopg://team:hun/ter2@127.0.0.1:1/optuna",
        "postgresql+psycopg://127.0.0.1:1/optuna?user=team&password=hunter2",
        "oracle://team:hunter2@host/optuna",
        "nothing://:hunter2@host",
    ],
)
def test_a_database_out_of_reach_is_told_before_anything_is_begun(
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(Path(SMOKE).read_text())
    Path("mine.yaml").write_text(yaml.safe_dump(tree | {"database": database}))
    with pytest.raises(SystemExit) as ended:
        main(["search", "mine.yaml"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foredraft: database {database.partition(':')[0]}:")
    assert not any(part in line for part in ("hunter2", "ter2"))
    assert not list(Path().glob("runs/*/*"))
