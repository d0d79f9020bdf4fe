"""Claims about keys: all that weights depend on is in them, and nothing of where things lie.

Another version of the code, number of workers or kind of device is another key; a file or a target
that was moved is not. A damaged model is set aside and trained again; two trainers of one key do
each other no harm; a training that goes on from the bank keeps the whole curve.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

import timer_xl
from foredraft import bank, data, train
from foredraft.bank import store
from foredraft.data import loading, splits
from foredraft.settings.config import Machine, Stage, Training
from foredraft.train import teacher
from speculation import checkpoint, families
from timer_xl import TimerXL, TimerXLConfig

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=8, context=32, d_model=8, n_heads=1, d_ff=8)
ALONE = Machine(cpus=1, use_gpu=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def stage(**changes: object) -> Stage:
    settings = {"name": "scratch", "data": DATA, "epochs": 1, "windows_per_epoch": 32}
    return Stage.model_validate(settings | changes)


def training(*stages: Stage, target: Path | None = None) -> Training:
    return Training(
        model=MODEL,
        stages=stages or (stage(),),
        dtype="fp32",
        target=str(target) if target else None,
    )


def key(wanted: Training, machine: Machine = ALONE) -> str:
    return bank.key_of(wanted, machine=machine)


def a_target(folder: Path, *, seed: int = 0, config: TimerXLConfig = MODEL) -> Path:
    torch.manual_seed(seed)
    folder.mkdir()
    checkpoint.save(TimerXL(config), folder)
    return folder


@pytest.mark.parametrize("room", [data, train])
def test_another_version_of_any_room_is_another_key(
    room: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(training())
    monkeypatch.setattr(room, "VERSION", room.VERSION + 1)
    assert key(training()) != before


def raise_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the family state another version."""
    family = families.family_of(MODEL.family)
    raised = dataclasses.replace(family, version=family.version + 1)
    monkeypatch.setitem(families.REGISTERED, family.name, raised)


def test_another_version_of_the_family_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(training())
    raise_version(monkeypatch)
    assert key(training()) != before


def test_another_version_of_the_answers_is_another_key_of_what_learns_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = training(stage(name="distill"), target=a_target(tmp_path / "target"))
    before = key(taught), key(training())
    monkeypatch.setattr(teacher, "VERSION", teacher.VERSION + 1)
    assert key(taught) != before[0]
    assert key(training()) == before[1]


def test_workers_and_kind_of_device_are_in_the_key_and_threads_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = Machine(workers=2, use_gpu=False)
    gpu = Machine(use_gpu=True)
    assert len({key(training(), machine) for machine in (ALONE, two, gpu)}) == 3
    # One worker of Ray Train draws what this process draws.
    assert key(training(), Machine(workers=1, use_gpu=False)) == key(training())
    assert key(training(), Machine(cpus=7, use_gpu=False)) == key(training())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert key(training(), Machine()) == key(training(), gpu)


def test_a_target_is_in_the_key_by_what_it_is_and_not_by_where_it_lies(tmp_path: Path) -> None:
    here = a_target(tmp_path / "here")
    moved = shutil.copytree(here, tmp_path / "moved")
    other = a_target(tmp_path / "other", seed=1)
    reads = TimerXLConfig(**{**vars(MODEL), "activation": "gelu"})
    same_weights = a_target(tmp_path / "gelu", config=reads)
    assert (here / checkpoint.WEIGHTS).read_bytes() == (
        same_weights / checkpoint.WEIGHTS
    ).read_bytes()
    keys = [
        key(training(stage(name="distill"), target=path))
        for path in (here, moved, other, same_weights)
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    # One that does not teach has no part in the weights.
    assert key(training(target=here)) == key(training(target=other)) == key(training())


def test_a_data_set_is_in_the_key_by_what_it_holds_and_not_by_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"load": [float(i % 24) for i in range(400)]})
    for name in ("one.csv", "two.csv"):
        table.to_csv(tmp_path / name, index=False)
    (table + 1).to_csv(tmp_path / "other.csv", index=False)
    one, two, other = (
        key(training(stage(data=str(tmp_path / f"{name}.csv")))) for name in ("one", "two", "other")
    )
    assert one == two != other
    monkeypatch.chdir(tmp_path)
    assert key(training(stage(data="one.csv"))) == one
    # Another split of the same rows is another training.
    monkeypatch.setattr(splits, "DEFAULT", (0.6, 0.2))
    assert key(training(stage(data="one.csv"))) != one


def test_weights_and_judge_of_several_data_sets_are_in_the_key() -> None:
    sets = {DATA: 1.0, "synthetic-load:rows=1200": 1.0}
    first, second = sets
    ways = [
        stage(data=sets),
        stage(data={**sets, first: 2.0}),
        stage(data=sets, judge=first),
        stage(data=sets, judge=second),
    ]
    assert len({key(training(way)) for way in ways}) == len(ways)


def test_the_cache_of_a_data_set_is_made_again_by_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = data.load(DATA)
    first.standardised()
    monkeypatch.setattr(loading, "VERSION", data.VERSION + 1)
    again = data.load(DATA)
    assert again.folder != first.folder
    assert not list(again.folder.glob("standardised-*"))
    assert again.digest == first.digest


def test_answers_of_another_version_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = training(stage(name="distill", windows=16), target=a_target(tmp_path / "target"))
    for folder in ("one", "two", "three"):
        if folder == "three":
            raise_version(monkeypatch)
        train.train(taught, run=train.LocalRun(tmp_path / folder))
    asked = list((tmp_path / "cache" / "foredraft" / "answers").glob("*/answers.npy"))
    assert len(asked) == 4, "training and validation windows, of two versions"


def test_a_model_that_was_damaged_is_set_aside_and_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bank.obtain(training(), kind="draft", storage=tmp_path, machine=ALONE)
    weights = path / checkpoint.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert bank.obtain(training(), kind="draft", storage=tmp_path, machine=ALONE) == path
    assert weights.read_bytes() == whole
    said = capsys.readouterr().err
    assert f"{weights} is damaged" in said
    assert "set aside" in said
    assert bank.models("draft", storage=tmp_path) == [path]


def test_a_training_does_not_go_on_from_damaged_weights(tmp_path: Path) -> None:
    whole = training(stage(name="pretrain"), stage(name="finetune"))
    first = whole.model_copy(update={"stages": whole.stages[:1]})
    path = bank.obtain(first, kind="draft", storage=tmp_path, machine=ALONE)
    (path / checkpoint.WEIGHTS).write_bytes(b"")
    ended = bank.obtain(whole, kind="draft", storage=tmp_path, machine=ALONE)
    assert bank.open_model(ended).metrics["epochs"] == 2


def test_a_model_tells_of_what_it_was_made(tmp_path: Path) -> None:
    path = bank.obtain(training(), kind="draft", storage=tmp_path, machine=ALONE)
    made = json.loads((path / "provenance.json").read_text())["made_of"]
    assert made["stages"][0]["data"] == [data.load(DATA).digest]
    assert made["versions"] == {
        "timer_xl": timer_xl.VERSION,
        "data": data.VERSION,
        "train": train.VERSION,
    }


class DiesAfterOne(train.LocalRun):
    """A run whose process ends right after its first checkpoint."""

    def save(self, state: train.State, *, row: train.Row) -> None:
        super().save(state, row=row)
        raise KeyboardInterrupt


def test_a_curve_is_whole_where_a_neighbour_ended_the_stage_that_was_begun(tmp_path: Path) -> None:
    whole = training(stage(name="pretrain", epochs=3), stage(name="finetune", epochs=2))
    path = bank.directory_of(whole, kind="draft", storage=tmp_path, machine=ALONE)
    with pytest.raises(KeyboardInterrupt):
        train.train(whole, run=DiesAfterOne(tmp_path / "training" / path.name))
    first = whole.model_copy(update={"stages": whole.stages[:1]})
    bank.obtain(first, kind="draft", storage=tmp_path, machine=ALONE)
    bank.obtain(whole, kind="draft", storage=tmp_path, machine=ALONE)
    metrics = bank.open_model(path).metrics
    epochs = [(row["stage"], row["epoch"], row["number"]) for row in metrics["curve"]]
    assert epochs == [
        *(("pretrain", epoch, epoch) for epoch in (1, 2, 3)),
        *(("finetune", epoch, 3 + epoch) for epoch in (1, 2)),
    ]
    assert metrics["epochs"] == 5
    assert metrics["seconds"] == pytest.approx(sum(row["seconds"] for row in metrics["curve"]))


def test_two_who_train_the_same_may_save_side_by_side(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def save() -> None:
        run = train.LocalRun(tmp_path / "key")
        try:
            for count in range(60):
                run.save({"curve": [0] * (count + 1), "x": torch.zeros(10)}, row={})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == [
        "checkpoint-000059.pt",
        "checkpoint-000060.pt",
    ]


def test_a_run_goes_on_after_another_has_removed_the_folder(tmp_path: Path) -> None:
    run = train.LocalRun(tmp_path / "key")
    run.save({"curve": [1]}, row={})
    shutil.rmtree(tmp_path / "key")
    run.save({"curve": [1, 2]}, row={})
    resumed = run.resume()
    assert resumed is not None
    assert resumed["curve"] == [1, 2]


def test_a_checkpoint_is_written_again_where_the_folder_vanishes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train.LocalRun(tmp_path / "key")
    save, folders = torch.save, [tmp_path / "key"]

    def vanishing(state: object, file: object) -> None:
        save(state, file)
        if folders:
            shutil.rmtree(folders.pop())

    monkeypatch.setattr(torch, "save", vanishing)
    run.save({"curve": [1]}, row={})
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["checkpoint-000001.pt"]


def test_the_same_bytes_in_another_shape_or_type_are_other_weights() -> None:
    made = [
        torch.nn.ParameterDict({"w": torch.zeros(shape, dtype=dtype)})
        for shape, dtype in (
            ((2, 8), torch.float32),
            ((8, 2), torch.float32),
            ((4, 8), torch.bfloat16),
        )
    ]
    assert len({store._digest_of(weights) for weights in made}) == 3  # type: ignore[arg-type]
