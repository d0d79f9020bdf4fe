"""Claims about the command line: one line and exit code 2 for a user's mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from foredraft.cli import main

DEMO = Path(__file__).parents[2] / "search_spaces" / "demo.yaml"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("a,b\n", "bad.csv"),
        ("a,b\n1,2\n3,oops\n", "oops"),
    ],
)
def test_a_file_that_cannot_be_data_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, said: str
) -> None:
    path = written(tmp_path, "bad.csv", content)
    assert said in refusal(capsys, "data", "check", path)


def train_target(capsys: pytest.CaptureFixture[str], *changes: str) -> str:
    return refusal(capsys, "train", "target", "--recipe", "demo", "--set", *changes)


def test_a_file_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "absent.csv" in train_target(capsys, "stages.0.data=absent.csv")


def test_missing_values_are_refused_with_their_count(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, "holes.csv", "a,b\n" + "1,2\n" * 900 + "1,\n" + "1,2\n" * 900)
    assert "interpolate" in train_target(capsys, f"stages.0.data={path}")


def test_a_series_shorter_than_one_window_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, "short.csv", "a,b\n" + "1,2\n3,4\n" * 20)
    assert "too few" in train_target(capsys, f"stages.0.data={path}")


def test_a_patch_that_does_not_divide_the_context_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = train_target(capsys, "model.patch=100")
    assert "100" in said
    assert "context 168" in said


def test_a_field_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "stages.7.lr" in train_target(capsys, "stages.7.lr=1")


def test_a_recipe_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "train", "target", "--recipe", "nothing")
    assert "demo" in said


def test_an_unknown_key_in_a_study_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, "odd.yaml", DEMO.read_text() + "\nbudgte: 1.02\n")
    assert "did you mean budget" in refusal(capsys, "search", path)


def test_a_study_file_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "absent.yaml" in refusal(capsys, "search", "absent.yaml")


def test_a_study_whose_name_exists_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "studies" / "demo").mkdir(parents=True)
    assert "--replace" in refusal(capsys, "search", str(DEMO))


def test_a_checkpoint_of_another_shape_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save({"embedding.weight": torch.zeros(8, 4)}, tmp_path / "checkpoint.pth")
    assert "checkpoint.pth" in refusal(capsys, "import", str(tmp_path / "checkpoint.pth"))


def test_a_target_that_was_never_trained_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--scale", "0.7", "--stages", "scratch", "--data", "synthetic-etth")
    assert "abc" in refusal(capsys, "train", "draft", "--target", "abc", *arguments)


def test_json_is_the_last_line_of_standard_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pd.DataFrame({"a": range(50), "b": range(50)}).to_csv(tmp_path / "good.csv", index=False)
    main(["data", "check", str(tmp_path / "good.csv"), "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 50
