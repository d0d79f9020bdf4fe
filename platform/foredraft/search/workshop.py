"""What trials, and the search itself, have made for them: drafts, baselines, pairs, whole fronts.

    shop = Workshop(job)
    outcome = shop.outcome({"scale": 0.7, "sigma": 0.3}, best, trust)
    inner = shop.inner({"scale": 0.7})

Each thing is made once in a study, by a task of its own with what it needs of a machine, whoever
asks for it first; the others wait. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray

from foredraft import bank, buckets, provenance
from foredraft.bank import housekeeping
from foredraft.cluster.allotment import Allotment
from foredraft.cluster.tasks import Share, result
from foredraft.search import enumeration, examples, front, judging, rulebook, stopping
from foredraft.search.record import settings_of
from foredraft.search.stopping import Slack, Trust
from foredraft.search.trial import Draft, Errors, Outcome, Sizes
from foredraft.settings.config import Evaluation, Training
from foredraft.settings.rules import Rule
from foredraft.settings.study import Study
from speculation.forecaster import Architecture


class Job(NamedTuple):
    """What all trials of a study share."""

    study: Study
    storage: Path
    target: Path
    architecture: Architecture
    """of the target"""
    allotment: Allotment
    once: Any
    """a handle of `Once`"""
    origin: provenance.Origin
    """the driver's command"""

    @property
    def looked_at(self) -> Path:
        """The folder that keeps a few windows, and what each trial makes of them."""
        return self.storage / "studies" / self.study.name / examples.FOLDER


class Workshop:
    """Asks for what a study needs, from whatever process of it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.baselines: dict[str, tuple[Any, judging.Baseline]] = {}

    def training(self, settings: Mapping[str, Any]) -> Training:
        """The training of the draft of a trial's settings."""
        job = self.job
        return job.study.draft_training(job.architecture, dict(settings), path=job.target)

    def draft(self, settings: Mapping[str, Any]) -> Path:
        """The draft of a trial's settings, trained by a task of its own if nobody has it."""
        storage, study, training = self.job.storage, self.job.study, self.training(settings)
        path = self.place_of(training)
        full = settings_of(study, dict(settings))
        housekeeping.note(path.name, study=storage / "studies" / study.name, settings=full)
        if not bank.is_whole(path):
            epochs = bank.epochs_file(storage, path.name)
            arguments = (training, "draft", storage, study.machine, self.job.origin, epochs)
            share = self.job.allotment.training
            self._once(path.name, judging.train_model, *arguments, share=share)
            buckets.remove(epochs)
        return path

    def place_of(self, training: Training) -> Path:
        """Where the draft is in the bank, or will be."""
        storage, machine = self.job.storage, self.job.study.machine
        return bank.directory_of(training, kind="draft", storage=storage, machine=machine)

    def baseline(self, evaluation: Evaluation) -> judging.Baseline:
        """What the target makes of the windows under the evaluation's context policy."""
        return self._baseline(evaluation)[1]

    def prepared(
        self, path: Path, evaluation: Evaluation, *, emits_draft: bool
    ) -> judging.Prepared:
        """What a draft costs and proposes under rules that emit its patches, or the target's."""
        reference, _ = self._baseline(evaluation)
        prepared: judging.Prepared = self._once(
            f"prepared {path.name} {emits_draft} {provenance.digest(evaluation)}",
            judging.prepare,
            *(self.job.study, evaluation, path, reference, emits_draft, self.job.storage),
            share=self.job.allotment.calibration[1],
        )
        return prepared

    def outcome(
        self, settings: dict[str, Any], best: Sequence[front.Goals], trust: Trust
    ) -> Outcome:
        """What a trial comes to.

        Args:
            settings: the trial's.
            best: the goals of the front when the trial began.
            trust: how wrong the closed form was so far.
        """
        study = self.job.study
        evaluation, rule = study.judged_on(settings), study.rule(settings)
        path, baseline = self.draft(settings), self.baseline(evaluation)
        model = self.training(settings).model
        prepared = self.prepared(path, evaluation, emits_draft=rule.emits_draft)
        judged = self._judged(path, evaluation, rule, prepared, best=best, slack=trust.slack)
        return Outcome(
            draft=Draft(
                key=path.name,
                architecture=Sizes.of(model),
                parameters=model.num_parameters,
                errors=Errors(**prepared.accuracy._asdict()),
                speedup=prepared.speedup_alone,
                deviation=prepared.deviation,
            ),
            target=Errors(**baseline.alone._asdict()),
            reference=Errors(**baseline.reference._asdict()),
            rule=rule,
            metrics=judged.metrics,
            costs=prepared.costs,
            plan=judged.plan,
            prediction=stopping.prediction_of(
                judged.prediction, trust, reference_mse=baseline.reference.mse
            ),
            stopped=judged.stopped,
            judging_s=judged.seconds,
        )

    def inner(self, settings: Mapping[str, Any]) -> enumeration.Inner:
        """All rules of one draft under one context policy, in closed form.

        Args:
            settings: those of the draft and of the policy.
        """
        study = self.job.study
        path, evaluation = self.draft(settings), study.judged_on(dict(settings))
        prepared = {
            emits_draft: self.prepared(path, evaluation, emits_draft=emits_draft)
            for emits_draft in rulebook.emissions(study)
        }
        reference, patch = self.baseline(evaluation).reference, self.job.architecture.patch
        inner: enumeration.Inner = self._once(
            f"rules of {path.name} {provenance.digest(evaluation)}",
            enumeration.enumerate_rules,
            *(enumeration.Terms(study, evaluation, reference, patch), settings, prepared),
        )
        return inner

    def _judged(
        self,
        path: Path,
        evaluation: Evaluation,
        rule: Rule,
        prepared: judging.Prepared,
        *,
        best: Sequence[front.Goals],
        slack: Slack | None,
    ) -> judging.Assessment:
        """What a rule makes of a pair."""
        reference, _ = self._baseline(evaluation)
        judged: judging.Assessment = self._once(
            f"judged {path.name} {provenance.digest([evaluation, rule])}",
            judging.judge,
            *(self.job.study, evaluation, path, rule, reference, prepared, best, slack),
            self.job.looked_at,
        )
        return judged

    def _baseline(self, evaluation: Evaluation) -> tuple[Any, judging.Baseline]:
        """The baseline of a context policy: in Ray's object store, and here."""
        key = f"baseline {provenance.digest(evaluation)}"
        if key not in self.baselines:
            arguments = (self.job.study, evaluation, self.job.target, self.job.looked_at)
            made: judging.Baseline = self._once(key, judging.open_baseline, *arguments)
            self.baselines[key] = ray.put(made), made
        return self.baselines[key]

    def _once(self, key: str, work: Any, *arguments: Any, share: Share | None = None) -> Any:
        """What the work gives, by default with the share of a node that judging has."""
        asked = share or self.job.allotment.judging
        return result(self.job.once.get.remote(key, work, arguments, asked))
