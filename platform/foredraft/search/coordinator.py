"""The coordinator of a trial: it gets a draft trained and judged, and reports.

It holds no CPU and no GPU of its own, so that any number of trials may wait for one device.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune

from foredraft import bank, provenance
from foredraft.bank import housekeeping
from foredraft.search import judging, stopping
from foredraft.search.machines import HEAD, needs
from foredraft.search.record import TRIAL, settings_of
from foredraft.search.stopping import Residuals
from foredraft.search.trial import Draft, Errors, Outcome, Sizes, Trial
from foredraft.settings.config import Evaluation, Training
from foredraft.settings.study import Study
from speculation.forecaster import Architecture

# Tune refuses a trial that asks for no resource at all.
COORDINATOR = {"cpu": 0, **HEAD}


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
        self.baselines: dict[str, tuple[Any, judging.Baseline]] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial's number and settings."""
        self.number, self.settings = new_config["number"], new_config["settings"]
        self.front, self.residuals = new_config["front"], Residuals(*new_config["residuals"])
        return True

    def step(self) -> dict[str, Any]:
        """The trial, its error among it: a trial that fails does not end the study."""
        started = time.perf_counter()
        outcome, error = None, None
        try:
            outcome = self._judge()
        except Exception as failure:
            error = _last_line(failure)
        trial = Trial(
            number=self.number,
            settings=settings_of(self.job.study, self.settings),
            outcome=outcome,
            error=error,
            seconds=time.perf_counter() - started,
        )
        # Tune flattens nested results: the trial goes as text, its objectives also by themselves.
        metrics = outcome.metrics.model_dump(exclude_none=True) if outcome else {}
        objectives = {n: metrics[n] for n in self.job.study.objectives if n in metrics}
        return {**objectives, TRIAL: trial.model_dump_json(), "done": True}

    def _judge(self) -> Outcome:
        study, job = self.job.study, self.job
        training = study.draft_training(job.architecture, self.settings, path=job.target)
        evaluation, rule = study.judged_on(self.settings), study.rule(self.settings)
        path = self._obtain(training)
        baseline, known = self._baseline(evaluation)
        prepared: judging.Prepared = self._once(
            f"prepared {path.name} {rule.emits_draft} {provenance.digest(evaluation)}",
            judging.prepare,
            *(study, evaluation, path, baseline, rule.emits_draft, job.storage),
            alone=True,
        )
        judged: judging.Assessment = self._once(
            f"judged {path.name} {provenance.digest([evaluation, rule])}",
            judging.judge,
            *(study, evaluation, path, rule, baseline, prepared, self.front, self.residuals.slack),
        )
        return Outcome(
            draft=Draft(
                key=path.name,
                architecture=Sizes.of(training.model),
                parameters=training.model.num_parameters,
                errors=Errors(**prepared.accuracy._asdict()),
                speedup=prepared.speedup_alone,
            ),
            target=Errors(**known.alone._asdict()),
            reference=Errors(**known.reference._asdict()),
            rule=rule,
            metrics=judged.metrics,
            costs=prepared.costs,
            plan=judged.plan,
            prediction=stopping.prediction_of(judged.prediction, self.residuals),
            stopped=judged.stopped,
            judging_s=judged.seconds,
        )

    def _obtain(self, training: Training) -> Path:
        """The draft, trained by a task of its own if nobody has it."""
        storage, machine = self.job.storage, self.job.study.machine
        path = bank.directory_of(training, kind="draft", storage=storage, machine=machine)
        housekeeping.note(path.name, study=storage / "studies" / self.job.study.name)
        if not bank.is_whole(path):
            arguments = (training, "draft", storage, machine, None)
            self._once(path.name, judging.train_model, *arguments, training=True)
        return path

    def _baseline(self, evaluation: Evaluation) -> tuple[Any, judging.Baseline]:
        """The baseline of a context policy: in Ray's object store, and here."""
        key = f"baseline {provenance.digest(evaluation)}"
        if key not in self.baselines:
            arguments = (self.job.study, evaluation, self.job.target)
            made: judging.Baseline = self._once(key, judging.open_baseline, *arguments)
            self.baselines[key] = ray.put(made), made
        return self.baselines[key]

    def _once(
        self, key: str, work: Any, *arguments: Any, training: bool = False, alone: bool = False
    ) -> Any:
        needed = needs(self.job.study.machine, training=training, alone=alone)
        return ray.get(self.job.once.get.remote(key, work, arguments, needed))


def _last_line(error: Exception) -> str:
    """The last line of an error: Ray's begin with the traceback of the worker."""
    return str(error).strip().rsplit("\n", 1)[-1] or repr(error)
