"""What a pair's passes cost on a device: measured once, and kept on the storage.

    calibration = of_pair(target, draft, windows, target_key=..., draft_key=..., lookahead=7,
                          evaluation=evaluation, storage=Path("runs"))
    speedup = predict(row, calibration.costs, rule=rule, evaluation=evaluation, patch=96)

Two measurements of the same passes differ by some per cent, and those of two devices by factors:
whoever compares predictions takes all of them from one calibration per pair. A kept one is used
for as long as pair, work, device and PyTorch are the same, so that a study that goes on, or runs on
two kinds of device, stays on one scale each. To have it measured anew, delete its file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from foredraft import files, provenance
from foredraft.bank import claims
from foredraft.documents import read_json
from foredraft.errors import ConfigError
from foredraft.judge import timing
from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Count, Evaluation, Positive, Settings, validated
from speculation import ContextPolicy, cost
from speculation.forecaster import Architecture, Forecaster

VERSION: Literal[1] = 1
"""Raised where a pass comes to cost something else, or is timed in another way."""
REMEDY = "delete it, and it is measured anew"
TRIES = 3
"""Beside other load six steps may take less than one did: that is no cost, and is timed again."""


class Work(Settings):
    """What is timed: all that the seconds of a pair depend on, but for who computes."""

    target: str
    """its key"""
    draft: str
    architectures: str
    """digest of both: a model from elsewhere may have any name"""
    policy: ContextPolicy
    batch: Count
    horizon: Count
    """time steps of a forecast; it counts where each model is timed alone"""
    lookahead: Count
    """patches that a round proposes, at most, as far as the horizon has room for them"""
    variates: Count
    dtype: Literal["fp32", "bf16"]

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        *,
        target: tuple[str, Architecture],
        draft: tuple[str, Architecture],
        lookahead: int,
        variates: int,
    ) -> Work:
        """What is timed for an evaluation; each model by its key and its architecture."""
        models = [target[1], draft[1]]
        return cls(
            target=target[0],
            draft=draft[0],
            architectures=provenance.digest([[model.family, model] for model in models]),
            policy=evaluation.policy,
            batch=evaluation.batch,
            horizon=evaluation.horizon,
            lookahead=room_for(lookahead, evaluation, patch=target[1].patch),
            variates=variates,
            dtype=evaluation.dtype,
        )


class Device(Settings):
    """Who computes."""

    kind: Literal["cpu", "cuda"]
    name: str
    """as the processor or the GPU names itself"""
    threads: Count | None = None
    """of PyTorch; None of a GPU"""

    @classmethod
    def here(cls, device: torch.device) -> Device:
        """A device of this process, as it is set now."""
        if device.type == "cuda":
            return cls(kind="cuda", name=torch.cuda.get_device_name(device))
        return cls(kind="cpu", name=provenance.cpu_model(), threads=torch.get_num_threads())

    @property
    def words(self) -> str:
        """The device as one says it."""
        if self.threads is None:
            return self.name
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class Key(Settings):
    """What a calibration is kept by: equal keys, one scale."""

    work: Work
    device: Device
    pytorch: str
    """version"""
    version: Literal[1] = VERSION

    @classmethod
    def here(cls, work: Work, device: torch.device) -> Key:
        """The key of some work on a device of this process."""
        return cls(work=work, device=Device.here(device), pytorch=str(torch.__version__))


class Prices(NamedTuple):
    """What is measured of a pair."""

    costs: cost.PassCosts
    speedup_alone: float
    """seconds of the target over seconds of the draft, each alone"""


class Calibration(Settings):
    """What a pair's passes cost on a device, and when and with what that was measured."""

    key: Key
    costs: cost.PassCosts
    speedup_alone: Positive
    """seconds of the target over seconds of the draft, each alone"""
    seconds: float
    """that measuring took"""
    device: str
    """in words"""
    host: str
    time_utc: str
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_every_pass(self) -> Calibration:
        """One more than the lookahead for each batch size, none of them free of cost."""
        costs, passes = self.costs, self.key.work.lookahead + 1
        columns = (costs.step_s, costs.verify_s, costs.draft_s)
        anchors = (costs.step_anchor_s, costs.round_anchor_s)
        if not costs.batches or any(len(c) != len(costs.batches) for c in (*columns, *anchors)):
            raise ValueError("costs do not have one column for each of their batches")
        if any(len(column) != passes for column in (*costs.verify_s, *costs.draft_s)):
            raise ValueError(f"costs do not have the {passes} passes of their lookahead")
        if not _takes_time(costs):
            raise ValueError("costs have a pass that takes no time")
        return self


def _takes_time(costs: cost.PassCosts) -> bool:
    """Whether every pass of the target costs something."""
    return min(*costs.step_s, *(s for column in costs.verify_s for s in column)) > 0


def room_for(lookahead: int, evaluation: Evaluation, *, patch: int) -> int:
    """The patches that a round of the evaluation can propose: what is timed, at most."""
    patches = -(-evaluation.horizon // patch)
    return min(lookahead, max(1, patches - 1))


def of_pair(
    target: Forecaster,
    draft: Forecaster,
    windows: EvaluationWindows,
    *,
    target_key: str,
    draft_key: str,
    lookahead: int,
    evaluation: Evaluation,
    storage: Path,
) -> Calibration:
    """The kept calibration of a pair on the device that holds it, or one that is measured now.

    Wants an otherwise idle machine. Models as `evaluate.ready` gives them; `windows` are what they
    read, of which only the number of variates counts.

    Raises:
        ConfigError: the kept one cannot be read; names the file and the remedy.
        DiskFull: there is no room to keep it.
    """
    work = Work.of(
        evaluation,
        target=(target_key, target.config),
        draft=(draft_key, draft.config),
        lookahead=lookahead,
        variates=windows.context_WTC.shape[-1],
    )

    def measure() -> Prices:
        return Prices(
            timing.calibrate(target, draft, windows, lookahead=lookahead, evaluation=evaluation),
            timing.time_alone(target, draft, windows, evaluation=evaluation),
        )

    return obtain(Key.here(work, target.device), measure=measure, storage=storage)


def obtain(key: Key, *, measure: Callable[[], Prices], storage: Path) -> Calibration:
    """The kept calibration of a key; else what `measure` tells, which is kept from now on.

    Of several that ask for one at the same time, one measures and the others wait for it.

    Raises:
        ConfigError: the kept one cannot be read; names the file and the remedy.
        DiskFull: there is no room to keep it.
    """
    path = path_of(key, storage=storage)
    if not path.is_file():
        with claims.held(storage / "claims" / f"calibration-{path.stem}"):
            if not path.is_file():
                content = _measured(key, measure).model_dump_json(indent=2)
                files.atomic_write(path, content + "\n")
    calibration = read(path)
    if calibration.key != key:
        raise ConfigError(f"{path} is of another pair or device than its name says: {REMEDY}")
    return calibration


def _measured(key: Key, measure: Callable[[], Prices]) -> Calibration:
    began = time.perf_counter()
    for _ in range(TRIES):
        prices = measure()
        if _takes_time(prices.costs):
            break
    facts = provenance.collect()
    return Calibration(
        key=key,
        costs=prices.costs,
        speedup_alone=prices.speedup_alone,
        seconds=time.perf_counter() - began,
        device=key.device.words,
        **{name: facts[name] for name in ("host", "time_utc", "versions")},
    )


def path_of(key: Key, *, storage: Path) -> Path:
    """Where the calibration of a key is, or will be."""
    return storage / "calibrations" / f"{provenance.digest(key)}.json"


def read(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        ConfigError: it is missing, not whole or none; one line names it and the remedy.
    """
    content = read_json(path, remedy=REMEDY)
    try:
        return validated(Calibration, content, source=str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}: {REMEDY}") from error
