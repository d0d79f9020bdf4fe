"""How good a search is: the volume that its front covers, by trials and by seconds, beside others.

    foredraft search search_spaces/demo.yaml --storage runs      # trains target and drafts
    python benchmarks/search_quality.py search_spaces/demo.yaml --trials 60 --seeds 3

Every sampler asks for settings as it does in a study, and gets what decoding them came to. All
drafts have to be in the bank; a search is charged the seconds of training that the bank's records
tell when it first asks for a draft, of preparing it and of decoding as they are measured here, and
its own. Once only, and by one calibration, each draft is prepared and each setting decoded.

The exhaustive front: all rules of every draft in closed form, and 200 decoded that lie evenly along
the front of all within the budget, beside all that any search decoded. A study's own noise is in
it, as it is in the searches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch

from foredraft import bank, provenance, train
from foredraft.cluster.allotment import allot
from foredraft.cluster.node_types import NodeType
from foredraft.search import front, gain, judging, samplers
from foredraft.search.driver import target_of
from foredraft.search.nested import Asked, Nested, Prospect, key_of
from foredraft.search.stopping import Residuals
from foredraft.search.trial import Metrics, Trial
from foredraft.search.workshop import Job, Workshop
from foredraft.settings.config import Evaluation, Machine, Training
from foredraft.settings.study import Study, read_study

ALONG = 200
"""Rules decoded along the exhaustive front."""


class Here(Workshop):
    """A workshop that does its work in this process, and knows what everything took."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.made: dict[str, Any] = {}
        self.took: defaultdict[str, float] = defaultdict(float)
        self.trials: list[Trial] = []

    def _baseline(self, evaluation: Evaluation) -> tuple[Any, judging.Baseline]:
        key = f"baseline {evaluation.policy}"
        if key not in self.made:
            self.made[key] = judging.open_baseline(self.job.study, evaluation, self.job.target)
        return self.made[key], self.made[key]

    def _once(self, key: str, work: Any, *arguments: Any, **needs: bool) -> Any:
        if key not in self.made:
            began = time.perf_counter()
            self.made[key] = work(*arguments)
            self.took[key] = time.perf_counter() - began
        return self.made[key]

    def expected(self, trial: Trial) -> Metrics:
        """What the closed form told of a trial that was decoded."""
        study, settings = self.job.study, trial.settings
        path, evaluation = self.place_of(self.training(settings)), study.judged_on(settings)
        parts = provenance.digest([evaluation, study.rule(settings)])
        told: Metrics = self.made[f"judged {path.name} {parts}"].prediction
        return told


class Inline(Nested):
    """A nested search that prepares a draft before it goes on."""

    def __init__(self, job: Job, shop: Here) -> None:
        super().__init__(job, at_once=1)
        self.workshop = shop

    def _prepare(self, prospect: Prospect) -> None:
        prospect.inner = self.workshop.inner(prospect.settings)


class Run(NamedTuple):
    """A search: the volume after each trial, and the seconds until then."""

    volumes: list[float]
    seconds: list[float]


class Clock:
    """What a search has cost until now: each piece of work once, when it is first asked for."""

    def __init__(self, shop: Here) -> None:
        self.shop, self.own_s = shop, 0.0
        self.paths: set[Path] = set()
        self.keys: set[str] = set()

    @property
    def seconds(self) -> float:
        """Of training, preparing, decoding and the search itself."""
        training = sum(bank.open_model(path).metrics["seconds"] for path in self.paths)
        return training + self.own_s + sum(self.shop.took[key] for key in self.keys)

    def ask_for(self, path: Path, key: str) -> None:
        """A draft was asked for, and what begins with `key` was done with it."""
        self.paths.add(path)
        self.keys |= {k for k in self.shop.took if k.startswith(f"{key} {path.name}")}


def main() -> None:
    """One line per sampler and seed, and the exhaustive front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samplers", default="nested,random,tpe")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    judging.threads = lambda machine: machine
    job = job_of(read_study(arguments.study), arguments.storage.resolve())
    shop, found = Here(job), {}
    for sampler in arguments.samplers.split(","):
        for seed in range(arguments.seeds):
            run = _search(job, shop, sampler, seed=seed, trials=arguments.trials)
            found[f"{sampler} {seed}"] = run._asdict()
            print(f"{sampler} {seed}: {_at(run, 20)}, {_at(run, arguments.trials)}", flush=True)
    volume, count, seconds = _exhaustive(job, shop)
    print(f"exhaustive: {volume:.4f} of {count} decoded in {seconds:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps({**found, "exhaustive": volume}))


def job_of(study: Study, storage: Path) -> Job:
    """What a workshop of that study works on, in this process and with no trial stopped."""
    machine = Machine(device="cpu", cpus=train.use_threads(study.machine.cpus))
    study = study.model_copy(update={"machine": machine, "stop_early": False})
    target = target_of(study, storage)
    if isinstance(target, Training):
        target = bank.directory_of(target, kind="target", storage=storage, machine=machine)
    here = allot(machine, [NodeType("here", machine.cpus or 1, 0, None, 1)])
    return Job(study, storage, target, bank.open_model(target).config, here, None)


def _search(job: Job, shop: Here, sampler: str, *, seed: int, trials: int) -> Run:
    study = job.study.model_copy(update={"seed": seed})
    record = optuna.create_study(
        directions=["maximize" if sign > 0 else "minimize" for sign in _signs(study)],
        sampler=samplers.sampler_of(study.model_copy(update={"sampler": sampler}), seed=seed),
    )
    nested = Inline(job._replace(study=study), shop) if sampler == "nested" else None
    clock, ended, seconds = Clock(shop), [], []
    for settings in study.first:
        record.enqueue_trial(settings)
    while len(ended) < trials:
        began = time.perf_counter()
        waiting = record.get_trials(states=(optuna.trial.TrialState.WAITING,))
        if nested and not waiting:
            before = sum(shop.took.values())
            begun = [Asked(key_of(one.settings), one) for one in ended]
            wanted = nested.next(begun, left=trials - len(ended))
            began += sum(shop.took.values()) - before
            for prospect in nested.prospects:
                if prospect.inner is not None:
                    clock.ask_for(prospect.path, "prepared")
                    clock.ask_for(prospect.path, "rules of")
            if wanted is None:
                if nested.exhausted:
                    break
                continue
            if wanted:
                record.enqueue_trial(wanted)
        asked = record.ask()
        drawn = samplers.draw(asked, study.dimensions)
        clock.own_s += time.perf_counter() - began
        trial = decoded(shop, drawn, len(ended), ended)
        path = shop.place_of(shop.training(drawn))
        clock.ask_for(path, "prepared")
        clock.own_s += trial.outcome.judging_s
        _tell(record, asked, trial, study)
        ended.append(trial)
        seconds.append(clock.seconds)
    return Run(front.hypervolumes(ended, budget=study.budget), seconds)


def decoded(shop: Here, settings: dict[str, Any], number: int, ended: list[Trial]) -> Trial:
    """The trial of these settings, as a study that ended those before has it."""
    outcome = shop.outcome(settings, [], Residuals.of(ended).trust)
    shop.trials.append(Trial(number=number, settings=settings, outcome=outcome))
    return shop.trials[-1]


def _tell(record: optuna.Study, asked: optuna.Trial, trial: Trial, study: Study) -> None:
    for name, left in study.budget.room(trial.outcome.ratios).items():
        asked.set_constraint(name, -left)
    record.tell(asked, [trial.outcome.objective(name) for name in study.objectives])


def _signs(study: Study) -> Iterator[int]:
    from foredraft.settings.study import OBJECTIVES

    return (1 if OBJECTIVES[name] == "max" else -1 for name in study.objectives)


def _at(run: Run, count: int) -> str:
    index = min(count, len(run.volumes)) - 1
    return f"{run.volumes[index]:.4f} after {index + 1} trials and {run.seconds[index]:.0f} s"


def _exhaustive(job: Job, shop: Here) -> tuple[float, int, float]:
    """The volume of all that was decoded and of what is along the front, how many, and seconds."""
    began = time.perf_counter()
    inners = [shop.inner(prospect.settings) for prospect in Inline(job, shop).prospects]
    settings = [one for inner in inners for one in inner.settings]
    goals_ND = torch.cat([inner.goals_ND for inner in inners])
    within_N = (torch.cat([inner.room_NB for inner in inners]) >= 0).all(1).nonzero()[:, 0]
    front_N = within_N[gain.front_of(goals_ND[within_N])]
    for index in front_N[gain.spread_along(goals_ND[front_N], ALONG)].tolist():
        decoded(shop, settings[index], len(shop.trials), [])
    volume = front.hypervolumes(shop.trials, budget=job.study.budget)[-1]
    return volume, len(shop.trials), time.perf_counter() - began


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
