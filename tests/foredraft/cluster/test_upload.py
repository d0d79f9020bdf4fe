"""Claims about what a submitted job takes along: code and study, and nothing that is large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foredraft.cluster import upload
from foredraft.errors import ConfigError


def write(path: Path, size: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("mine.yaml", "platform/foredraft/cli.py", "small.csv"):
        write(tmp_path / name)
    return tmp_path


def test_results_history_and_environments_stay_here_and_are_told(root: Path) -> None:
    write(root / "runs" / "drafts" / "model.safetensors")
    write(root / ".git" / "objects" / "aa")
    write(root / "env" / "pyvenv.cfg")
    write(root / "env" / "bin" / "python")
    write(root / "deep" / "__pycache__" / "a.pyc")
    sent = upload.of(root, storage=root / "runs")
    assert (sent.files, sent.bytes) == (3, 30)
    assert sent.left_out == {
        ".git": "history",
        "deep/__pycache__": "cache",
        "env": "environment",
        "runs": "results",
    }
    assert "3 files" in sent.in_words
    assert "runs (results)" in sent.in_words


def test_a_large_file_is_taken_for_data_and_told_with_its_size(root: Path) -> None:
    write(root / "data" / "all.parquet", upload.LARGE_B + 1)
    sent = upload.of(root, storage=root / "runs")
    assert sent.files == 3
    assert sent.left_out == {"data/all.parquet": "10 MB"}


def test_what_git_ignores_stays_here(root: Path) -> None:
    (root / ".gitignore").write_text("*.csv\n")
    assert upload.of(root, storage=root / "runs").files == 3  # with .gitignore, without small.csv


def test_more_than_ray_takes_is_refused_and_the_largest_are_named(root: Path) -> None:
    for number in range(11):
        write(root / f"part-{number}.bin", upload.LARGE_B)
    with pytest.raises(ConfigError, match=r"115 MB, over 105 MB \(largest: part-.*\.rayignore"):
        upload.of(root, storage=root / "runs")


def test_a_broken_link_is_no_trouble(root: Path) -> None:
    os.symlink(root / "none", root / "link")
    assert upload.of(root, storage=root / "runs").files == 3
