"""How many points of the true front a study's early stop would have thrown away.

    foredraft search search_spaces/demo.yaml --storage runs      # trains target and drafts
    python benchmarks/stopped_early.py search_spaces/demo.yaml --searches 8

Random searches, every trial decoded: those that the study would have stopped on what it knew then
are held against the front of all. Drafts that are not in the bank are trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import optuna
from search_quality import Here, decoded, job_of

from foredraft.search import front, judging, samplers
from foredraft.search.stopping import Residuals, why_stop
from foredraft.search.trial import Trial
from foredraft.settings.study import read_study


def main() -> None:
    """One line per search, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--searches", type=int, default=8)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    judging.threads = lambda machine: machine
    job = job_of(read_study(arguments.study), arguments.storage.resolve())
    shop = Here(job)
    trials, sums = arguments.trials or job.study.trials, [0, 0, 0]
    for seed in range(arguments.searches):
        found = _search(shop, seed=seed, trials=trials)
        sums = [a + b for a, b in zip(sums, found, strict=True)]
        print(f"seed {seed}: {_told(found)}", flush=True)
    print(f"all: {_told(sums)}")


def _search(shop: Here, *, seed: int, trials: int) -> tuple[int, int, int]:
    """Trials that would have been stopped, points of the true front, and those that are both."""
    study = shop.job.study
    record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    ended: list[Trial] = []
    went_on: list[Trial] = []
    for number in range(trials):
        trial = decoded(shop, samplers.draw(record.ask(), study.dimensions), number, went_on)
        ended.append(trial)
        if not _stopped(shop, trial, went_on):
            went_on.append(trial)
    within = [one for one in ended if one.is_within(study.budget)]
    kept = front.on_front([front.goals(one.outcome, study.objectives) for one in within])
    true = [one for one, on_it in zip(within, kept, strict=True) if on_it]
    return len(ended) - len(went_on), len(true), sum(one not in went_on for one in true)


def _stopped(shop: Here, trial: Trial, before: list[Trial]) -> bool:
    study, outcome = shop.job.study, trial.outcome
    within = [one for one in before if one.is_within(study.budget)]
    points = [front.goals(one.outcome, study.objectives) for one in within]
    best = [point for point, on_it in zip(points, front.on_front(points), strict=True) if on_it]
    reason = why_stop(
        shop.expected(trial),
        study.model_copy(update={"stop_early": True}),
        best,
        slack=Residuals.of(before).slack,
        reference_mse=outcome.reference.mse,
    )
    return reason is not None


def _told(counts: Sequence[int]) -> str:
    return "would be stopped {}, on the true front {}, both {}".format(*counts)


if __name__ == "__main__":
    main()
