"""Claims about versions: code that makes other weights or other answers says so by a number.

Keys hold numbers that the code states (`VERSION` of timer_xl, foredraft.data, foredraft.train and
foredraft.train.teacher), not its text, so that a comment retrains nobody's drafts. Here a tiny
training of each kind, and a target's answers, are compared with `trained.json`: by a few figures
and loosely, as processors sum in different orders. Where they differ and no number was raised, a
bank would hand out stale models. So it would where a default changes, as keys
leave out what is as it is by default. After a number was raised, this writes the file anew:

    .venv/bin/python tests/foredraft/bank/test_versions.py
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import timer_xl
from foredraft import bank, data, train
from foredraft.settings.config import Machine, Stage, Training
from foredraft.train import teacher
from speculation import checkpoint
from timer_xl import TimerXLConfig

RECORD = Path(__file__).with_name("trained.json")
TOLERANCE = 2e-4
"""Relative. Older instruction sets and two threads are off by 2e-6 at most, a rotary base of 500
instead of 10,000 by 3e-3."""

DATA = "synthetic-etth:rows=1200"
MODEL = TimerXLConfig(patch=8, context=64, d_model=16, n_heads=2, d_ff=32, dropout=0.2)
ROOMS = {"timer_xl": timer_xl, "data": data, "train": train, "teacher": teacher}


def versions() -> dict[str, int]:
    return {name: room.VERSION for name, room in ROOMS.items()}


def stage(name: str, **changes: object) -> Stage:
    settings = {"data": DATA, "epochs": 2, "windows_per_epoch": 256, "validation_windows": 64}
    tight = {"name": name, "lr": 3e-3, "warmup": 0.3, "weight_decay": 0.1, "clip_norm": 0.5}
    return Stage.model_validate(settings | tight | changes)


def trained(folder: Path) -> dict[str, dict[str, float]]:
    """Figures of a training of each kind, and of a target's answers."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    target = Training(model=MODEL, stages=(stage("scratch"),), dtype="fp32")
    scratch = train.train(target, run=train.LocalRun(folder / "scratch"))
    (folder / "target").mkdir()
    checkpoint.save(scratch.model, folder / "target")
    tuned = target.model_copy(update={"stages": (stage("pretrain", variates=3), stage("finetune"))})
    distill = stage("distill", windows=256, rollouts=2, dropout=0.1)
    taught = target.model_copy(update={"stages": (distill,), "target": str(folder / "target")})
    likely = target.model_copy(
        update={
            "model": dataclasses.replace(MODEL, variance=True, activation="gelu", patches_out=2),
            "stages": (stage("scratch", loss="nll", epochs=1),),
        }
    )
    figures = {"scratch": figures_of(scratch)}
    for name, training in (("finetune", tuned), ("distill", taught), ("likelihood", likely)):
        figures[name] = figures_of(train.train(training, run=train.LocalRun(folder / name)))
    files = (folder / "cache").glob(f"foredraft/answers/*/{teacher.FILE}")
    # By their size: their folders are named by the bytes of the weights, down to the last bit.
    files = sorted(files, key=lambda file: file.stat().st_size)
    answers = np.concatenate([np.load(file).ravel() for file in files])
    return figures | {"answers": spread(answers.astype(np.float64))}


def figures_of(result: train.Trained) -> dict[str, float]:
    """A training in a few numbers: its losses, and what the model says of a fixed context."""
    time_T = torch.arange(MODEL.context, dtype=torch.float32)
    x_BNCP = torch.stack([torch.sin(time_T / period) for period in (3.0, 7.0, 20.0)])
    x_BNCP = x_BNCP.unflatten(1, (-1, MODEL.patch)).transpose(0, 1)[None]
    with torch.no_grad():
        said = result.model(x_BNCP).mean.double().numpy()
    weights = torch.cat([w.flatten().double() for w in result.model.state_dict().values()])
    losses = {
        f"{name} {number}": float(row[name])
        for number, row in enumerate(result.curve)
        for name in ("train_loss", "validation_loss")
    }
    return {**losses, "weights": float(weights.square().mean().sqrt()), **spread(said)}


def spread(values: np.ndarray) -> dict[str, float]:
    """Size, and one number in which the place of every value counts."""
    weights = np.cos(np.arange(values.size) + 0.5).reshape(values.shape)
    size = math.sqrt(float((values**2).mean()))
    return {"size": size, "pattern": 2 * size + float((values * weights).mean())}


def differing(ours: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    return [
        f"{kind} {name}: {value:.6g} where {kept[kind][name]:.6g} is kept"
        for kind, figures in ours.items()
        for name, value in figures.items()
        if not math.isclose(value, kept[kind][name], rel_tol=TOLERANCE)
    ]


@pytest.fixture
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", "set by `trained`, put back after the test")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_what_makes_other_weights_or_answers_has_raised_a_version(tmp_path: Path) -> None:
    record = json.loads(RECORD.read_text())
    again = "then write trained.json anew: .venv/bin/python tests/foredraft/bank/test_versions.py"
    assert versions() == record["versions"], f"a version was raised: {again}"
    assert not (found := differing(trained(tmp_path), record["figures"])), (
        f"the same training makes other weights, and the bank would not notice. If that is meant, "
        f"raise VERSION in the room that changed ({', '.join(ROOMS)}), {again}\n" + "\n".join(found)
    )


def test_a_default_that_changed_has_raised_a_version() -> None:
    kept, now = json.loads(RECORD.read_text())["defaults"], defaults()
    changed = [
        f"{name}.{field} is {now[name].get(field)!r}, and was {value!r}"
        for name, fields in kept.items()
        for field, value in fields.items()
        if now[name].get(field) != value
    ]
    assert not changed, f"raise VERSION, then write trained.json anew: {changed}"


def test_a_key_leaves_out_what_is_as_it_is_by_default(tmp_path: Path) -> None:
    plain = Training(model=MODEL, stages=(stage("scratch"),))
    stated = plain.model_copy(update={"seed": 1, "dtype": "fp32"})
    facts = [bank.facts_of(t, machine=Machine(use_gpu=False)) for t in (plain, stated)]
    assert facts[0]["training"] == {}
    assert facts[1]["training"] == {"seed": 1, "dtype": "fp32"}
    assert "revin" not in facts[0]["model"]
    assert "missing" not in facts[0]["stages"][0]


def defaults() -> dict[str, dict[str, Any]]:
    """What a setting is where nothing is said, of all that keys are made of."""
    settings = {
        kind.__name__: {n: f.get_default(call_default_factory=True) for n, f in fields.items()}
        for kind, fields in ((k, k.model_fields) for k in (Training, Stage))
    }
    settings["TimerXLConfig"] = {f.name: f.default for f in dataclasses.fields(TimerXLConfig)}
    return json.loads(json.dumps(settings, default=str))


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "versions": versions(),
            "defaults": defaults(),
            "figures": trained(Path(folder)),
        }
    RECORD.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
