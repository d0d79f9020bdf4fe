"""Claims about looking after the bank: what is needed is kept, what is not can go.

A study notes the drafts that it asks for, so that one whose database is elsewhere keeps them; one
that noted none and has not ended keeps all. Models are found by path and key or refused by name;
imported ones are told apart by every bit of their weights; damage is seen without reading weights.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from foredraft import bank, files
from foredraft.bank import claims, housekeeping, model_files, store
from foredraft.cli import main
from foredraft.errors import ConfigError
from speculation import checkpoint
from timer_xl import TimerXL, TimerXLConfig


def draft(storage: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    model = TimerXL(TimerXLConfig(patch=4, context=8, d_model=8, n_heads=1, d_ff=8, n_layers=1))
    return bank.add(model, kind="draft", storage=storage, source=Path("elsewhere.pth"))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Two drafts, of which a study names the first."""
    needed, _ = draft(tmp_path, seed=0), draft(tmp_path, seed=1)
    study = tmp_path / "studies" / "joint"
    study.mkdir(parents=True)
    (study / "study.db").write_bytes(b"...user_attr " + needed.name.encode())
    return tmp_path


def test_what_no_study_names_is_unused_and_the_rest_is_not(storage: Path) -> None:
    users = {line.key: line.used_by for line in housekeeping.listed(storage)}
    assert sorted(users.values()) == ["joint", "nobody"]
    (unused,) = housekeeping.unused(storage)
    assert users[unused.name] == "nobody"


def test_prune_only_names_until_it_is_told_to_remove(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["drafts", "prune", "--storage", str(storage), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told["unused"]) == 1
    assert told["bytes"] > 0
    assert len(housekeeping.listed(storage)) == 2
    main(["drafts", "prune", "--yes", "--storage", str(storage)])
    assert [line.used_by for line in housekeeping.listed(storage)] == ["joint"]


def test_what_a_dead_training_left_is_unused_and_what_is_being_trained_is_not(
    storage: Path,
) -> None:
    for key in ("dead", "living"):
        (storage / "training" / key).mkdir(parents=True)
        (storage / "training" / key / "checkpoint.pt").touch()
    (storage / "drafts" / ".half-0123").mkdir()
    with claims.held(storage / "claims" / "living"):
        names = {path.name for path in housekeeping.unused(storage)}
    assert {"dead", ".half-0123"} < names
    assert "living" not in names


def test_nothing_is_removed_while_a_study_is_at_work(storage: Path) -> None:
    with (
        claims.held(storage / "claims" / "study-joint"),
        pytest.raises(ConfigError, match="study-joint is at work"),
    ):
        housekeeping.remove(housekeeping.unused(storage), storage=storage)
    assert len(housekeeping.listed(storage)) == 2


def test_a_draft_is_shown_by_the_beginning_of_its_key(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = housekeeping.listed(storage)[0].key
    main(["drafts", "show", key[:6], "--storage", str(storage), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["key"] == key
    assert shown["provenance"]["imported"] == "elsewhere.pth"


POSTGRES = "name: pg\ndatabase: postgresql://team@host/optuna\n"


def test_what_an_interrupted_study_asked_for_is_kept_wherever_its_database_is(
    storage: Path,
) -> None:
    (unused,) = housekeeping.unused(storage)
    study = storage / "studies" / "pg"
    housekeeping.note(unused.name, study=study, settings={"scale": 0.5})
    (study / "study.yaml").write_text(POSTGRES)
    assert housekeeping.unused(storage) == []
    assert {line.used_by for line in housekeeping.listed(storage)} == {"joint", "pg"}


def test_a_study_that_noted_nothing_keeps_every_draft_until_it_ends_and_prune_says_why(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = storage / "studies" / "pg"
    study.mkdir()
    (study / "study.yaml").write_text(POSTGRES)
    main(["drafts", "prune", "--yes", "--storage", str(storage), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["unused"] == []
    assert "pg has not ended" in told["kept"]
    (study / "front.json").write_text("[]")
    assert len(housekeeping.unused(storage)) == 1
    main(["drafts", "prune", "--storage", str(storage), "--json"])
    assert "kept" not in json.loads(capsys.readouterr().out)


def test_a_study_with_a_database_of_its_own_keeps_only_what_it_names(storage: Path) -> None:
    (storage / "studies" / "joint" / "study.yaml").write_text("name: joint\ndatabase: null\n")
    assert len(housekeeping.unused(storage)) == 1


def test_models_of_equal_sums_are_imported_apart_each_with_its_own_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = TimerXL(TimerXLConfig(patch=4, context=8, d_model=8, n_heads=1, d_ff=8, n_layers=1))
    other = copy.deepcopy(one)
    with torch.no_grad():
        other.head.weight.copy_(one.head.weight.flip(0))
    paths = [
        bank.add(model, kind="target", storage=tmp_path, source=Path("a.pth"))
        for model in (one, other)
    ]
    assert paths[0] != paths[1]
    for path, model in zip(paths, (one, other), strict=True):
        assert torch.equal(checkpoint.load(path).head.weight, model.head.weight)


@pytest.mark.parametrize("reference", ["/mnt/typo/0fb0", "", "*", "../drafts", "~nobody/x"])
def test_what_means_no_model_is_refused_with_the_keys_there_are(
    storage: Path, reference: str
) -> None:
    key = housekeeping.listed(storage)[0].key
    for line in housekeeping.listed(storage)[1:]:
        housekeeping.remove([storage / "drafts" / line.key], storage=storage)
    with pytest.raises(ConfigError) as caught:
        bank.find(reference, kind="draft", storage=storage)
    assert key in str(caught.value) or "is missing" in str(caught.value)


def test_a_model_found_by_a_relative_path_has_an_absolute_one(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = housekeeping.listed(storage)[0].key
    monkeypatch.chdir(storage)
    for reference, there in ((f"drafts/{key}", "."), (key, "."), (key[:7], ".")):
        found = bank.find(reference, kind="draft", storage=Path(there))
        assert found == (storage / "drafts" / key).resolve()


def spoil(path: Path, name: str, content: bytes | None) -> None:
    file = path / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("COMPLETE", None, "COMPLETE is missing"),
        ("config.json", None, "config.json is missing"),
        ("config.json", b"", "config.json is empty"),
        ("config.json", b'{"patch": 4', "config.json is no whole JSON"),
        ("config.json", b'{"patches": 4}', "config.json is no model's configuration"),
        ("metrics.json", None, "metrics.json is missing"),
        ("metrics.json", b"", "metrics.json is empty"),
        ("metrics.json", b"[]", "metrics.json holds no metrics"),
        (WEIGHTS, None, "model.safetensors is missing"),
        (WEIGHTS, b"", "model.safetensors is damaged"),
        (WEIGHTS, b"\xff" * 2000, "model.safetensors is damaged"),
    ],
)
def test_a_directory_that_is_no_whole_model_is_named_with_its_file_and_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = draft(tmp_path, seed=0)
    spoil(path, name, content)
    for opening in (
        lambda: bank.open_model(path),
        lambda: bank.find(str(path), kind="draft", storage=tmp_path),
        lambda: bank.find(path.name, kind="draft", storage=tmp_path),
    ):
        with pytest.raises(ConfigError) as caught:
            opening()
        assert said in str(caught.value)
        assert str(caught.value).endswith(model_files.ANOTHER)
        assert "\n" not in str(caught.value)


def test_weights_that_are_cut_short_or_of_another_architecture_are_damaged(tmp_path: Path) -> None:
    path = draft(tmp_path, seed=0)
    whole = (path / WEIGHTS).read_bytes()
    assert bank.is_whole(path)
    (path / WEIGHTS).write_bytes(whole[:-4])
    assert not bank.is_whole(path)
    (path / WEIGHTS).write_bytes(whole)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "d_ff": 16}))
    with pytest.raises(ConfigError, match=r"holds [\d,]+ bytes of weights where config.json says"):
        bank.open_model(path)


def test_a_damaged_import_is_set_aside_said_and_imported_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draft(tmp_path, seed=0)
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-4])
    assert draft(tmp_path, seed=0) == path
    assert bank.is_whole(path)
    assert f"{path / WEIGHTS} is damaged" in capsys.readouterr().err
    (aside,) = (path.parent).glob(f".{path.name}-damaged-*")
    assert aside in housekeeping.unused(tmp_path)
    assert not files.is_complete(aside)


def test_the_list_of_drafts_survives_a_damaged_one(storage: Path) -> None:
    damaged = storage / "drafts" / housekeeping.listed(storage)[0].key
    (damaged / "metrics.json").write_text("")
    assert len(housekeeping.listed(storage)) == 1
    assert damaged in housekeeping.unused(storage)


def test_a_trainings_figures_are_those_of_its_last_stage_also_where_two_have_one_name() -> None:
    curve = [
        {
            "stage": "heads",
            "epoch": epoch,
            "validation_loss": loss,
            "seconds": 2.0,
            "samples_per_s": 5.0,
            "outside_share": 0.0,
        }
        for epoch, loss in ((1, 0.3), (2, 0.1), (1, 0.6), (2, 0.5))
    ]
    told = store._summary(curve)
    assert (told["validation_loss"], told["best_epoch"], told["seconds"]) == (0.5, 2, 8.0)
