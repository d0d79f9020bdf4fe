"""What a pair's passes cost on a device: measured once, and kept on the storage.

    calibration = of_pair(target, draft, windows, target_key=..., draft_key=..., lookahead=7,
                          evaluation=evaluation, storage=Path("runs"))
    speedup = predict(row, calibration.costs, rule=rule, evaluation=evaluation, patch=96)

Two measurements of the same passes differ by some per cent, and those of two devices by factors:
whoever compares predictions takes all of them from one calibration per pair. A kept one is used
for as long as pair, work, device and PyTorch are the same, so that a study that goes on, or runs on
two kinds of device, stays on one scale each. To have it measured anew, delete its file.

Other load makes a pass slower, and nothing makes it faster than it is. So a kept one whose plain
step takes far longer than the same step takes now was measured beside other load: it is measured
anew, once it is found out, and replaced where the new one is steady. One that is faster than now
may well be true, and stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from foredraft import buckets, files, provenance
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
STEADY = 1.5
"""Largest factor between a plain step before a measurement and after it."""
APART = 2.0
"""Largest factor between a calibration and other seconds of the same passes. A clock that rises or
falls with the load makes 1.5; a second busy process on the same cores makes 2."""
_checked: set[Path] = set()
"""Calibrations that this process has held against the device as it is: once is enough."""


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
    steady: bool = True
    """whether a plain step took the same before and after; if not, it is measured anew when another
    process asks for it"""
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


class Timers(NamedTuple):
    """What times a pair on its device."""

    measure: Callable[[], Prices]
    """all of it"""
    step: Callable[[], float]
    """seconds of the target's plain step at the largest batch, as in `costs.step_s`: a moment"""


class _Try(NamedTuple):
    """A measurement, between two plain steps."""

    before_s: float
    prices: Prices
    after_s: float

    @property
    def unrest(self) -> float:
        """How far its steps are apart, in the largest factors allowed: up to 1 it is steady."""
        if not _takes_time(self.prices.costs):
            return math.inf
        around_s = self.before_s, self.after_s
        return max(
            apart(*around_s) / STEADY,
            apart(self.prices.costs.step_s[-1], min(around_s)) / APART,
        )


def apart(one: float, other: float) -> float:
    """How many times as long the longer of two durations is; infinite where one is none."""
    return max(one, other) / min(one, other) if min(one, other) > 0 else math.inf


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

    A kept one is measured anew where it cannot be true, as in `obtain`. Wants an
    otherwise idle machine. Models as `evaluate.ready` gives them; `windows` are what they read, of
    which only the number of variates counts.

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

    def step() -> float:
        return timing.time_step(target, windows, evaluation=evaluation)

    return obtain(Key.here(work, target.device), timers=Timers(measure, step), storage=storage)


def obtain(key: Key, *, timers: Timers, storage: Path) -> Calibration:
    """The kept calibration of a key; else what is measured now, which is kept from now on.

    A kept one is checked once by each process. One that was not steady, or whose step takes over
    `APART` times as long as it does now, gives way to a steady one. Of several that ask at the same
    time, one measures and the others wait for it.

    Raises:
        ConfigError: the kept one cannot be read; names the file and the remedy.
        DiskFull: there is no room to keep it.
    """
    path = path_of(key, storage=storage)
    kept = _kept(path, key)
    if kept is None or (path not in _checked and not _may_be_true(kept, timers)):
        with claims.held(storage / "claims" / f"calibration-{path.stem}"):
            if _kept(path, key) == kept:  # while this one waited, nobody else measured
                began = time.perf_counter()
                best = _steadiest(timers)
                if kept is None or best.unrest <= 1:
                    found = _calibration(key, best, seconds=time.perf_counter() - began)
                    files.atomic_write(path, found.model_dump_json(indent=2) + "\n")
                    buckets.keep(path)
    _checked.add(path)
    return _kept(path, key) or read(path)


def _kept(path: Path, key: Key) -> Calibration | None:
    """The calibration of the key, or None where there is none yet."""
    if not buckets.fetch(path).is_file():
        return None
    calibration = read(path)
    if calibration.key != key:
        raise ConfigError(f"{path} is of another pair or device than its name says: {REMEDY}")
    return calibration


def _may_be_true(kept: Calibration, timers: Timers) -> bool:
    return kept.steady and kept.costs.step_s[-1] <= APART * timers.step()


def _steadiest(timers: Timers) -> _Try:
    """The first of up to `TRIES` measurements that is steady, else the steadiest."""
    tried: list[_Try] = []
    while len(tried) < TRIES and not (tried and tried[-1].unrest <= 1):
        tried.append(_Try(timers.step(), timers.measure(), timers.step()))
    return min(tried, key=lambda one: one.unrest)


def _calibration(key: Key, best: _Try, *, seconds: float) -> Calibration:
    facts = provenance.collect()
    return Calibration(
        key=key,
        costs=best.prices.costs,
        speedup_alone=best.prices.speedup_alone,
        steady=best.unrest <= 1,
        seconds=seconds,
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
