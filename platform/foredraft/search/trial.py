"""A trial: the coordinator that gets a draft trained and judged, and reports.

It holds no CPU and no GPU of its own, so that any number of trials may wait for one device.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune

from foredraft import bank, provenance
from foredraft.bank import housekeeping
from foredraft.search import judging
from foredraft.search.machines import HEAD, claims
from foredraft.search.record import ROW
from foredraft.settings.config import Evaluation, Training
from foredraft.settings.study import Study
from speculation.forecaster import Architecture

# Tune refuses a trial that asks for no resource at all.
COORDINATOR = {"cpu": 0, **HEAD}
ARCHITECTURE = ("d_model", "n_heads", "d_ff", "n_layers", "patches_out")
LISTS = ("accept_lengths", "pass_rates")


class Job(NamedTuple):
    """What all trials of a study share."""

    study: Study
    storage: Path
    target: Path
    architecture: Architecture
    """of the target"""
    once: Any
    """a handle of `Once`"""


class Coordinator(tune.Trainable):
    """One trial after another, in one process."""

    def setup(self, config: dict[str, Any], job: Job) -> None:  # type: ignore[override]
        """Called once per process."""
        self.job = job
        self.benches: dict[str, Any] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial's settings."""
        self.settings, self.front = new_config["settings"], new_config["front"]
        return True

    def step(self) -> dict[str, Any]:
        """The trial's row, or its error: a trial that fails does not end the study."""
        started = time.perf_counter()
        try:
            row = self._judge()
        except Exception as error:
            row = {"error": _said(error)}
        row["seconds"] = time.perf_counter() - started
        # Tune flattens nested results: the row goes as text, its objectives also by themselves.
        told = {name: row[name] for name in self.job.study.objectives if name in row}
        return {**told, ROW: json.dumps(row), "done": True}

    def _judge(self) -> dict[str, Any]:
        study, job = self.job.study, self.job
        training = study.draft_training(job.architecture, self.settings, path=job.target)
        evaluation, rule = study.judged_on(self.settings), study.rule(self.settings)
        path = self._obtain(training)
        bench = self._bench(evaluation)
        prepared: judging.Prepared = self._once(
            f"prepared {path.name} {provenance.digest(evaluation)}",
            judging.prepare,
            *(study, evaluation, path, bench),
            alone=True,
        )
        judged: judging.Judged = self._once(
            f"judged {path.name} {provenance.digest([evaluation, rule])}",
            judging.judge,
            *(study, evaluation, path, rule, bench, prepared, self.front),
        )
        return {
            **_row(judged),
            "draft_key": path.name,
            "draft_mse": prepared.accuracy.mse,
            "draft_mae": prepared.accuracy.mae,
            "target_mse": prepared.target_accuracy.mse,
            "target_mae": prepared.target_accuracy.mae,
            "draft_speedup_alone": prepared.speedup_alone,
            "costs": json.dumps(asdict(prepared.costs)),
            "rule": json.dumps(asdict(rule)),
            **{name: getattr(training.model, name, None) for name in ARCHITECTURE},
            "parameters": training.model.num_parameters,
        }

    def _obtain(self, training: Training) -> Path:
        """The draft, trained by a task of its own if nobody has it."""
        storage, machine = self.job.storage, self.job.study.machine
        path = bank.directory_of(training, kind="draft", storage=storage, machine=machine)
        housekeeping.note(path.name, study=storage / "studies" / self.job.study.name)
        if not bank.is_whole(path):
            arguments = (training, "draft", storage, machine, None)
            self._once(path.name, judging.train_model, *arguments, training=True)
        return path

    def _bench(self, evaluation: Evaluation) -> Any:
        """The bench of a context policy, in Ray's object store."""
        key = f"bench {provenance.digest(evaluation)}"
        if key not in self.benches:
            arguments = (evaluation, self.job.target, self.job.study.machine)
            self.benches[key] = ray.put(self._once(key, judging.open_bench, *arguments))
        return self.benches[key]

    def _once(
        self, key: str, work: Any, *arguments: Any, training: bool = False, alone: bool = False
    ) -> Any:
        need = claims(self.job.study.machine, training=training, alone=alone)
        return ray.get(self.job.once.get.remote(key, work, arguments, need))


def _row(judged: judging.Judged) -> dict[str, Any]:
    """Flat and JSON-able; what a closed form does not tell is not there."""
    counted = judged.row._asdict()
    numbers = {
        **{name: value for name, value in counted.items() if name not in LISTS},
        "predicted_speedup": judged.predicted_speedup,
    }
    odd = [name for name, value in numbers.items() if not math.isfinite(value)]
    if odd and judged.windows:
        raise ValueError(f"{odd[0]} is {numbers[odd[0]]}: the pair does not forecast")
    return {
        **{name: value for name, value in numbers.items() if name not in odd},
        "lists": json.dumps({name: counted[name] for name in LISTS}),
        "windows": judged.windows,
        "judging_s": judged.seconds,
        "stopped": judged.stopped,
        "plan": json.dumps(asdict(judged.plan)) if judged.plan else None,
    }


def _said(error: Exception) -> str:
    """The last line of an error: Ray's begin with the traceback of the worker."""
    return str(error).strip().rsplit("\n", 1)[-1] or repr(error)
