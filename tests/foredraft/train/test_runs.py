"""Claims about where a training runs: its checkpoints, its device, what it says and logs.

- The newest checkpoints are kept and the oldest go; what is read back is what was saved.
- A GPU is used where there is one, or where it is asked for; asked for in vain it is refused.
- bf16 on a processor that does not multiply it is told once; fp32 is not.
- TensorBoard gets every number of a row under the stage's name.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from foredraft import train
from foredraft.errors import ConfigError
from foredraft.settings.config import Machine, Training
from foredraft.train import board, loop, runs
from timer_xl import TimerXLConfig

MODEL = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=16, n_layers=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def training(**changes: Any) -> Training:
    stage = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1, "windows": 64}
    return Training.model_validate({"model": MODEL, "stages": [stage]} | changes)


def row(number: int) -> dict[str, Any]:
    return {"stage": "scratch", "number": number}


def test_the_newest_checkpoints_are_kept_and_the_last_is_read_back(tmp_path: Path) -> None:
    run = runs.LocalRun(tmp_path / "new" / "work")
    assert run.resume() is None
    for number in range(1, runs.KEPT + 4):
        run.save({"curve": [row(n) for n in range(number)]}, row=row(number))  # type: ignore[typeddict-item]
    kept = sorted(path.name for path in run.directory.iterdir())
    last = runs.KEPT + 3
    assert kept == [f"checkpoint-{n:06d}.pt" for n in range(last - runs.KEPT + 1, last + 1)]
    state = runs.LocalRun(run.directory).resume()
    assert state is not None
    assert len(state["curve"]) == last


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    run = runs.LocalRun(tmp_path)
    for number in (1, 2):
        run.save({"curve": [row(n) for n in range(number)]}, row=row(number))  # type: ignore[typeddict-item]
    newest = tmp_path / "checkpoint-000002.pt"
    newest.write_bytes(newest.read_bytes()[:40])
    state = run.resume()
    assert state is not None
    assert len(state["curve"]) == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_used_where_there_is_one_unless_it_is_said(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert runs.device_of(Machine()).type == ("cuda" if there else "cpu")
    assert runs.device_of(Machine(use_gpu=False)).type == "cpu"


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"machine\.use_gpu is true: no CUDA device"):
        runs.device_of(Machine(use_gpu=True))
    with pytest.raises(ConfigError, match=r"machine\.device is cuda: no CUDA .* set it to cpu"):
        runs.device_of(Machine(device="cuda"))


def test_what_a_study_settled_outweighs_what_this_process_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runs.device_of(Machine(device="cpu")).type == "cpu"
    assert runs.kind_of_device(Machine(device="cuda", use_gpu=False)) == "cuda"


@pytest.mark.parametrize(
    ("dtype", "fast", "told"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)]
)
def test_bf16_on_a_processor_without_it_is_told_once(
    dtype: str,
    fast: bool,
    told: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loop, "multiplies_bf16", lambda device: fast)
    train.train(training(dtype=dtype), run=runs.LocalRun(tmp_path / "work"))
    assert capsys.readouterr().err.count("does not multiply: fp32") == told


def test_a_gpu_multiplies_bf16_whatever_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.multiplies_bf16(torch.device("cuda"))


def test_tensorboard_reads_back_every_number_under_its_stage(tmp_path: Path) -> None:
    log = board.tensorboard(tmp_path / "events", training())
    trained = train.train(training(), run=runs.LocalRun(tmp_path / "work"), log=log)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    (told,) = trained.curve
    names = {f"scratch/{name}" for name in board.SCALARS & told.keys()}
    assert set(events.Tags()["scalars"]) == names
    assert len(names) > 3
    (loss,) = events.Scalars("scratch/validation_loss")
    assert loss.value == pytest.approx(told["validation_loss"], rel=1e-6)
    assert loss.step == told["number"]


def test_a_training_shows_its_settings_beside_its_last_losses(tmp_path: Path) -> None:
    board.tensorboard(tmp_path / "events", training())(
        {"stage": "scratch", "number": 1, "train_loss": 0.5, "validation_loss": 0.6}
    )
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    told = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(told).session_start_info.hparams
    assert settings["d_model"].number_value == training().model.d_model
    assert settings["stages"].string_value == "scratch"
    assert settings["scratch.lr"].number_value == pytest.approx(training().stages[0].lr)
    told = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = HParamsPluginData.FromString(told).experiment.metric_infos
    assert [one.name.tag for one in metrics] == [
        "scratch/train_loss",
        "scratch/validation_loss",
    ]


def test_the_speed_of_a_training_is_windows_over_its_seconds(tmp_path: Path) -> None:
    began = time.perf_counter()
    (told,) = train.train(training(dtype="fp32"), run=runs.LocalRun(tmp_path / "work")).curve
    assert told["samples_per_s"] > 64 / (time.perf_counter() - began)
