"""The coordinator of a trial: it gets a draft trained and judged, and reports.

It holds no CPU and no GPU of its own, so that any number of trials may wait for one device.
"""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from foredraft.cluster.tasks import HEAD, last_line
from foredraft.search.record import TRIAL, settings_of
from foredraft.search.trial import Trial
from foredraft.search.workshop import Job, Workshop

# Tune refuses a trial that asks for no resource at all.
COORDINATOR = {"cpu": 0, **HEAD}


class Coordinator(tune.Trainable):
    """One trial after another, in one process."""

    def setup(self, config: dict[str, Any], job: Job) -> None:  # type: ignore[override]
        """Called once per process."""
        self.job, self.workshop = job, Workshop(job)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial's number and settings."""
        self.number, self.settings = new_config["number"], new_config["settings"]
        self.front, self.trust = new_config["front"], new_config["trust"]
        return True

    def step(self) -> dict[str, Any]:
        """The trial, its error among it: a trial that fails does not end the study."""
        started = time.perf_counter()
        outcome, error = None, None
        try:
            outcome = self.workshop.outcome(self.settings, self.front, self.trust)
        except Exception as failure:
            error = last_line(failure)
        trial = Trial(
            number=self.number,
            settings=settings_of(self.job.study, self.settings),
            outcome=outcome,
            error=error,
            seconds=time.perf_counter() - started,
        )
        # Tune flattens nested results: the trial goes as text, its objectives also by themselves.
        row = trial.flat()
        objectives = {n: row[n] for n in self.job.study.objectives if row.get(n) is not None}
        return {**objectives, TRIAL: trial.model_dump_json(), "done": True}
