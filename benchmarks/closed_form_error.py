"""How far the closed form is from decoding, and how many rules it tells in a second.

    foredraft search search_spaces/demo.yaml --storage runs      # trains target and drafts
    python benchmarks/closed_form_error.py search_spaces/demo.yaml --rules 60 --seeds 4

For each draft of the study that is in the bank: random rules of the study's space, each decoded on
the study's windows by several seeds. Quantiles of the differences are over rules.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import optuna
import torch
from torch import Tensor

from foredraft import bank
from foredraft.judge import closed_form, courses, evaluate
from foredraft.search import rulebook
from foredraft.search.driver import target_of
from foredraft.search.samplers import draw
from foredraft.settings.config import Machine, Training
from foredraft.settings.study import Study, read_study
from speculation import Acceptance, checkpoint
from speculation.forecaster import Forecaster

QUANTILES = (0.5, 0.9, 0.95, 1.0)
MANY = 2000


def main() -> None:
    """One line per draft."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    parser.add_argument("--rules", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    study, machine = read_study(arguments.study), Machine(device="cpu")
    found = target_of(study, arguments.storage)
    if isinstance(found, Training):
        found = bank.directory_of(found, kind="target", storage=arguments.storage, machine=machine)
    target = _ready(found, study)
    rules = _random(study, arguments.rules, seed=0)
    for training in study.drafts_of(target.config, path=found):
        path = bank.directory_of(training, kind="draft", storage=arguments.storage, machine=machine)
        if bank.is_whole(path):
            print(_line(study, target, _ready(path, study), rules, seeds=arguments.seeds))


def _ready(path: Path, study: Study) -> Forecaster:
    return evaluate.ready(checkpoint.load(path), study.evaluation, torch.device("cpu"))


def _random(study: Study, count: int, *, seed: int) -> list[Acceptance]:
    """Rules as a random search draws them, of those that emit the target's patches."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    rules = (study.rule(draw(record.ask(), study.dimensions)) for _ in range(100 * count))
    return [rule for rule in rules if not rule.emits_draft and not rule.adapt][:count]


def _line(
    study: Study, target: Forecaster, draft: Forecaster, rules: list[Acceptance], *, seeds: int
) -> str:
    evaluation, patch = study.evaluation, target.config.patch
    windows = evaluate.draw_windows(evaluation, target.config)
    alone_WHC = evaluate.forecast_alone(target, windows, evaluation=evaluation)
    probes, many = rulebook.spread(study, emits_draft=False), _random(study, MANY, seed=1)
    began = time.perf_counter()
    known = courses.grow(target, draft, windows, alone_WHC, probes=probes, evaluation=evaluation)
    grown = time.perf_counter()
    closed_form.expect(known, many, steps=patch)
    walked = time.perf_counter()
    expected = closed_form.expect(known, rules, steps=patch)
    acceptance_QS, mse_QS = torch.empty(2, len(rules), seeds, dtype=torch.float64)
    decoding = time.perf_counter()
    for index, rule in enumerate(rules):
        for seed in range(seeds):
            row = evaluate.judge_pair(
                target,
                draft,
                rule,
                windows,
                evaluation=evaluation,
                alone_WHC=alone_WHC,
                seed=seed,
            )
            acceptance_QS[index, seed], mse_QS[index, seed] = row.acceptance_rate, row.mse
    decode_s = (time.perf_counter() - decoding) / acceptance_QS.numel()
    one = acceptance_QS[:, 0] - expected.acceptance_rate_Q
    mean = acceptance_QS.mean(1) - expected.acceptance_rate_Q
    return (
        f"{draft.config.num_parameters:,} parameters: {len(known.place_R)} rounds played in "
        f"{grown - began:.1f} s; {MANY / (walked - grown):.0f} rules a second; one decoded in "
        f"{decode_s:.2f} s\n  acceptance, one seed {_told(one)}; mean of {seeds} {_told(mean)}; "
        f"mse, relative {_told(mse_QS.mean(1) / expected.mse_Q - 1)}"
    )


def _told(differences: Tensor) -> str:
    """Quantiles of the sizes of some differences."""
    values = differences.abs().quantile(torch.tensor(QUANTILES, dtype=torch.float64))
    return " / ".join(f"{value:.4f}" for value in values.tolist())


if __name__ == "__main__":
    main()
