"""Claims about the command line: what it takes, and how it ends.

- A user's mistake is one line with exit code 2 that names the flag, its value and what would do;
  a fault of ours is a traceback.
- Of words that are given several times all count, and none twice.
- Rows are printed as aligned columns under a header.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from foredraft import bank, train
from foredraft.cli import main
from foredraft.cli.common import flat, table
from foredraft.cli.reading import ReadsData
from foredraft.cli.training import _changed
from foredraft.errors import ConfigError
from foredraft.settings.recipes import recipe

DEMO = Path(__file__).parents[3] / "search_spaces" / "demo.yaml"


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
    assert "context 336" in said


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
    study = tmp_path / "runs" / "studies" / "demo"
    study.mkdir(parents=True)
    (study / "trials.parquet").touch()
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
    pd.DataFrame({"a": [5, 7] * 25, "b": range(50)}).to_csv(tmp_path / "good.csv", index=False)
    main(["data", "check", str(tmp_path / "good.csv"), "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 50


PAIR = ("--target", "a", "--draft", "b", "--data", "synthetic-etth")
DRAFT = ("train", "draft", "--target", "a", "--scale", "0.5")
SIZED = ("train", "draft", "--target", "a", "--stages", "scratch", "--data", "x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", *PAIR, "--horizon", "0"), "--horizon is 0"),
        (("evaluate", *PAIR, "--windows", "-1"), "--windows is -1"),
        (("evaluate", *PAIR, "--batch", "0"), "--batch is 0"),
        (("evaluate", *PAIR, "--pairs", "0"), "--pairs is 0"),
        (("evaluate", *PAIR, "--horizon", "9" * 400), "--horizon is 999"),
        (("evaluate", *PAIR, "--horizon", "soon"), "--horizon"),
        (("evaluate", *PAIR, "--seed", "-1"), "--seed is -1"),
        (("evaluate", *PAIR, "--renorm-every", "3"), "renorm_every is 3"),
        (("evaluate", *PAIR, "--acceptance", "mse_tol=1", "lookahead=0"), "lookahead is 0"),
        (("evaluate", *PAIR, "--acceptance", "rull=gaussian"), "did you mean rule"),
        (("evaluate", *PAIR, "--acceptance", "mse_tol=1", "adapt=true"), "bench --adapt"),
        (("bench", *PAIR, "--pairs", "0"), "--pairs is 0"),
        (("bench", *PAIR, "--batch", "1,0"), "batches.1 is '0'"),
        (("bench", *PAIR, "--seconds", "-1"), "--seconds is -1"),
        (("bench", *PAIR, "--scale", "0.5"), "--scale has no effect beside --target"),
        (("bench", *PAIR, "--draft-kind", "heads"), "--draft-kind has no effect"),
        (("bench", "--preset", "t1", *PAIR[4:]), "--data has no effect beside --preset"),
        (("bench", "--preset", "t1", "--missing", "skip"), "--missing has no effect"),
        (("drafts", "list", "--seed", "3"), "--seed 3"),
        (
            ("forecast", "--recipe", "none", "--data", "x", "--out", "o.csv"),
            "study 'none' does not",
        ),
        (("progression", "--recipe", "demo", "--windows", "-3"), "--windows is -3"),
        (("progression", "--recipe", "demo", "--workers", "-1"), "--workers is -1"),
        (("search", str(DEMO), "--trials", "0"), "--trials is 0"),
        ((*DRAFT, "--stages", "scratch"), "--data names 0 data sets for the 1 of --stages"),
        ((*DRAFT[:-1], "2", "--stages", "scratch", "--data", "x"), "--scale is 2"),
        ((*SIZED, "--depth", "0.5", "--width", "0"), "--width is 0"),
        ((*SIZED, "--scale", "0.5", "--depth", "-1"), "--depth is -1"),
        ((*SIZED, "--scale", "0.5", "--depth", "inf"), "--depth is inf"),
        ((*SIZED, "--depth", "0.5"), "--scale is missing"),
        (
            (*SIZED, "--scale", "0.5", "--depth", "0.5", "--width", "1"),
            "--scale is 0.5: it has no effect",
        ),
        (("train", "target", "--recipe", "demo", "--workers", "-1"), "--workers is -1"),
        (("data", "list", "foo"), "'foo' has no effect"),
        (("data",), "foredraft data --help"),
        (("data", "lisst"), "lisst"),
        (("train",), "{target, draft}"),
        (("train", "target"), "--recipe"),
        (("train", "target", "--recipe", "demo", "--horizon", "3"), "--horizon"),
        ((), "{data, train,"),
        (("dta", "list"), "Available subcommands: data"),
        (("drafts", "list", "--storage", "mistyped"), "--storage is mistyped, which does not"),
        (("drafts", "list", "--storage", "file"), "--storage is file, which is a file"),
        (("drafts", "list", "--storage", "gs://bucket/x"), "only a directory or s3://BUCKET"),
        (("train", "target", "--recipe", "demo", "--storage", "file/x"), "file/x"),
    ],
)
def test_a_mistaken_flag_is_named_with_its_value(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    written(tmp_path, "file", "")
    assert said in refusal(capsys, *words)


def test_drafts_of_a_storage_that_nobody_has_used_yet_are_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["drafts", "list"])
    assert capsys.readouterr().out.split() == ["drafts", "none"]


def test_all_words_of_a_repeated_flag_count() -> None:
    words = (("stages.0.epochs=7", "model.dropout=0.2"), ("stages.1.epochs=3",))
    assert flat(words) == ("stages.0.epochs=7", "model.dropout=0.2", "stages.1.epochs=3")
    training = _changed(recipe("demo"), words, seed=None, flags=ReadsData())
    assert [stage.epochs for stage in training.stages] == [7, 3]
    assert training.model.dropout == 0.2


def test_the_helps_own_example_of_a_repeated_flag_changes_both_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def obtain(training: object, **_: object) -> Path:
        asked.append(training)
        raise ConfigError("asked")

    monkeypatch.setattr(bank, "obtain", obtain)
    monkeypatch.setattr(train, "checked", lambda *_, **__: [])  # its data need not be there
    words = [
        "train",
        "target",
        "--recipe",
        "etth1",
        "--set",
        "model.d_model=1024",
        "--set",
        "stages.0.epochs=5",
    ]
    with pytest.raises(SystemExit):
        main(words)
    (training,) = asked
    assert (training.model.d_model, training.stages[0].epochs) == (1024, 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("stages.0.epochs=1", "stages.0.epochs=2"), "stages.0.epochs is set twice, to 1 and to 2"),
        (("stages.0.epochs=1", "--set", "stages.0.epochs=2"), "set twice"),
        (('stages.0={"name":"scratch"}', "stages.0.epochs=2"), "is a part of stages.0"),
        (("seed=1", "--seed", "2"), "--seed 2 and --set seed=1"),
        (("stages.0.epochs",), "write field=value"),
        (("stages.0.lr=Infinity",), "stages.0.lr is inf"),
    ],
)
def test_a_field_that_is_set_twice_or_to_nonsense_is_refused(
    capsys: pytest.CaptureFixture[str], changes: tuple[str, ...], said: str
) -> None:
    assert said in train_target(capsys, *changes)


def test_an_acceptance_field_that_is_set_twice_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--acceptance", "rule=gaussian", "--acceptance", "rule=tolerance")
    assert "rule is set twice" in refusal(capsys, "evaluate", *PAIR, *words)


def test_a_fault_of_ours_is_no_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Path:
        raise FileNotFoundError(2, "No such file or directory", "/opt/elsewhere/part.py")

    monkeypatch.setattr(bank, "obtain", broken)
    with pytest.raises(FileNotFoundError):
        main(["train", "target", "--recipe", "demo"])


def test_an_interruption_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(bank, "obtain", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", "target", "--recipe", "demo"])
    assert ended.value.code == 130


def test_rows_are_aligned_columns_under_a_header() -> None:
    rows = [
        {"key": "a", "parameters": 12345, "loss": None, "curve": [{"epoch": 1}]},
        {"key": "longer", "parameters": 7, "loss": 0.25, "curve": []},
    ]
    assert list(table(rows)) == [
        "key     parameters  loss",
        "a            12345  none",
        "longer           7  0.25",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("packed.csv", b"\x1f\x8b\x08rest", "packed.csv is damaged"),
        ("packed.csv.gz", b"\x1f\x8b\x08rest", "is damaged"),
        ("packed.csv", b"PK\x03\x04rest", "is damaged"),
        ("broken.parquet", b"PAR1rest", "is no readable parquet file; write it anew"),
        ("long.csv", b"a,b\n1,2\n" + b"9" * 400 + b",2\n", "row 2: inf is infinite as float32"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, those before it 2"),
        ("quote.csv", b'a,b\n1,"2\n3,4\n', "quotation mark in row 1 is never closed"),
    ],
)
def test_a_file_of_another_format_is_named_with_a_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    line = refusal(capsys, "data", "check", name)
    assert said in line
    assert name in line


def test_a_parquet_file_with_a_name_twice_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    index = pd.date_range("2024-01-01", periods=50, freq="h", name="date")
    pd.DataFrame({"date": 1.0, "b": 2.0}, index=index).to_parquet(tmp_path / "same.parquet")
    assert "index and a column are both named 'date'" in refusal(
        capsys, "data", "check", "same.parquet"
    )
