"""How soon the dashboard shows a study of many trials, and what it holds in memory.

    .venv/bin/python benchmarks/dashboard.py study --trials 1000 --storage /tmp/many
    .venv/bin/python benchmarks/dashboard.py measure --storage /tmp/many --minutes 30

`study` writes a study of made-up trials through the record's own writer: nothing is trained.
`measure` opens it in Chromium and reports more trials, the last line being its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from foredraft import files
from foredraft.search.record import TRIAL
from foredraft.search.samplers import distribution_of
from foredraft.search.searcher import SHOWN, open_record
from foredraft.search.trial import Trial
from foredraft.search.watch import Watch
from foredraft.settings.config import validated
from foredraft.settings.study import OBJECTIVES, Study
from speculation import rule_from
from speculation.cost import PassCosts

BEGAN = datetime(2026, 11, 29, 8, 0)
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9)
STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
DISTILLED = [STAGE, {"name": "distill", "data": "synthetic-etth:rows=1200"}]
TARGET_MSE, TARGET_MAE = 0.3712, 0.3986
TARGET = {
    **{"key": "0fb04a7c19e2d6b8", "parameters": 1_240_000, "patch": 96},
    **{"n_layers": 4, "d_model": 256, "n_heads": 8, "d_ff": 512, "patches_out": 1},
    **{"mse": TARGET_MSE, "mae": TARGET_MAE},
    "naive": {"mse": 0.61, "mae": 0.55, "season": 24, "mase": 1.0},
}
TREE: dict[str, Any] = {
    "target": "etth1",
    "draft": {"plans": {"scratch": [STAGE], "distilled": DISTILLED}},
    "evaluation": {"data": STAGE["data"], "horizon": 672},
    "dimensions": {
        "scale": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
        "stages": {"type": "categorical", "choices": ["scratch", "distilled"]},
        "rule": {"type": "categorical", "choices": ["gaussian", "tolerance"]},
        "sigma": {"type": "float", "low": 0.02, "high": 10.0, "log": True},
        "bias": {"type": "float", "low": 1.0, "high": 100.0, "log": True},
        "mse_tol": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
        "lookahead": {"type": "int", "low": 1, "high": 6},
        "scope": {"type": "categorical", "choices": ["joint", "variate"]},
        "quorum": {
            "type": "float",
            "low": 0.5,
            "high": 1.0,
            "step": 0.1,
            "when": {"scope": "variate"},
        },
    },
    "objectives": ["acceptance_rate", "predicted_speedup", "mse", "deviation_ratio"],
    "budget": {"mse_ratio": 1.01, "deviation_ratio": 0.02},
}


def study_of(name: str, trials: int) -> Study:
    """The study that the made-up trials are of."""
    return validated(Study, {**TREE, "name": name, "trials": trials}, source=name)


def settings_of(rng: np.random.Generator) -> dict[str, Any]:
    """What a sampler might draw."""
    rule = str(rng.choice(["gaussian", "tolerance"]))
    drawn: dict[str, Any] = {
        "scale": float(rng.choice(SCALES)),
        "stages": str(rng.choice(["scratch", "distilled"])),
        "rule": rule,
    }
    if rule == "gaussian":
        drawn["sigma"] = float(10 ** rng.uniform(-1.69, 1))
        drawn["bias"] = float(10 ** rng.uniform(0, 2))
    drawn["mse_tol"] = float(10 ** rng.uniform(-3, 0))
    drawn["lookahead"] = int(rng.integers(1, 7))
    drawn["scope"] = str(rng.choice(["joint", "variate"]))
    if drawn["scope"] == "variate":
        drawn["quorum"] = float(rng.choice([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
    return drawn


def trial_of(number: int, drawn: dict[str, Any], rng: np.random.Generator) -> Trial:
    """A trial as a worker might report it: every fiftieth fails, every ninth is stopped early."""
    about = {"number": number, "settings": drawn, "seconds": float(rng.uniform(8, 60))}
    if number % 50 == 11:
        return Trial(**about, error="Traceback\n  ...\ntorch.OutOfMemoryError: <4 GiB>")
    scale, lookahead = drawn["scale"], drawn["lookahead"]
    loose = float(np.clip((np.log10(drawn["mse_tol"]) + 3) / 3 + rng.normal(0, 0.03), 0, 1))
    good = 0.08 if drawn["stages"] == "distilled" else 0.0
    accepted = min(0.99, 0.25 + 0.3 * scale + good + 0.35 * loose + float(rng.normal(0, 0.03)))
    cost = 0.02 + 0.6 * scale**1.7
    emitted = sum(accepted**n for n in range(lookahead + 1))
    ratio = 1 + 0.03 * loose**2 * (1.2 - scale) + float(rng.normal(0, 0.001))
    stopped = "front" if number % 9 == 4 else None
    lengths = [0, *(int(40 * accepted ** max(0, k - 1) + 3) for k in range(1, lookahead + 2))]
    costs = PassCosts(
        (1,),
        (0.011,),
        (tuple(0.011 * (1 + 0.04 * k) for k in range(7)),),
        (tuple(0.011 * cost * k for k in range(7)),),
        (0.0,),
        (0.0,),
    )
    return Trial(
        **about,
        outcome={
            "draft": {
                "key": f"{int(scale * 10)}{drawn['stages'][:1] == 's':d}d2c9b3e4f51a7c",
                "architecture": {
                    **{"d_model": int(256 * scale) // 8 * 8, "n_heads": 8, "patches_out": 1},
                    **{"d_ff": int(512 * scale), "n_layers": max(1, round(4 * scale))},
                },
                "parameters": int(1_240_000 * scale**2.4),
                "errors": {"mse": TARGET_MSE * (1.16 - 0.14 * scale), "mae": TARGET_MAE * 1.04},
                "speedup": 1 / (0.12 + 0.85 * scale),
                "deviation": TARGET_MSE * (0.16 - 0.14 * scale),
            },
            "target": {"mse": TARGET_MSE, "mae": TARGET_MAE},
            "reference": {"mse": TARGET_MSE, "mae": TARGET_MAE},
            "rule": rule_from({k: v for k, v in drawn.items() if k not in ("scale", "stages")}),
            "costs": costs,
            "judging_s": float(rng.uniform(2, 8)),
            "stopped": stopped,
            "metrics": {
                "acceptance_rate": accepted,
                "accept_length": emitted,
                "accept_lengths": tuple(lengths),
                "pass_rates": tuple(min(1.0, accepted * 0.98**k) for k in range(lookahead)),
                "mse": None if stopped else TARGET_MSE * ratio,
                "mae": None if stopped else TARGET_MAE * ratio,
                "mse_ratio": None if stopped else ratio,
                "deviation": None if stopped else TARGET_MSE * 0.05 * loose,
                "predicted_speedup": emitted / (1 + 0.04 * lookahead + lookahead * cost),
                "windows": 0 if stopped else 64,
            },
        },
    )


def report(record: optuna.Study, study: Study, trial: Trial) -> None:
    """Put a trial into the record, as a driver does."""
    drawn = {name: trial.settings[name] for name in study.dimensions if name in trial.settings}
    outcome = trial.outcome
    values = None
    if outcome and not outcome.stopped:
        values = [outcome.objective(name) for name in study.objectives]
    row = trial.flat()
    frozen = optuna.trial.create_trial(
        state={
            "complete": optuna.trial.TrialState.COMPLETE,
            "pruned": optuna.trial.TrialState.PRUNED,
            "failed": optuna.trial.TrialState.FAIL,
        }[trial.state],
        values=values,
        params=drawn,
        distributions={name: distribution_of(study.dimensions[name]) for name in drawn},
        user_attrs={
            TRIAL: trial.model_dump_json(),
            **{name: row[name] for name in SHOWN if row.get(name) is not None},
        },
    )
    # As if two trials had always been under way.
    began = BEGAN + timedelta(seconds=17 * trial.number)
    frozen.datetime_start, frozen.datetime_complete = began, began + timedelta(seconds=34)
    record.add_trial(frozen)


def write_study(storage: Path, name: str, trials: int, *, seed: int = 0) -> Path:
    """The directory of a study that still runs, with so many trials reported."""
    directory = storage / "studies" / name
    directory.mkdir(parents=True)
    tree = {**TREE, "name": name, "trials": trials + 20}
    files.atomic_write(directory / "study.yaml", yaml.safe_dump(tree, sort_keys=False))
    files.atomic_write(directory / "references.json", json.dumps({"target": TARGET}))
    study = study_of(name, trials)
    record = open_record(study, directory)
    assert set(study.objectives) <= set(OBJECTIVES)
    rng = np.random.default_rng(seed)
    for number in range(trials):
        report(record, study, trial_of(number, settings_of(rng), rng))
    return directory


def measure(directory: Path, *, minutes: float) -> dict[str, Any]:
    """Seconds until a browser has drawn the front, and a trial that is reported; memory in MB.

    The server is a process of its own, as `foredraft dashboard` is; it polls for `minutes`.
    """
    storage, name = directory.parents[1], directory.name
    study = Watch(directory).study()
    command = [sys.executable, "-m", "foredraft", "dashboard", "--storage", str(storage)]
    server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    browser = chromium()
    try:
        paints = []
        for _ in range(4):
            start = time.perf_counter()
            browser.get(f"{url}?study={name}")
            _until(browser, "return document.querySelectorAll('#front .point').length > 0")
            paints.append(time.perf_counter() - start)
        record, rng = open_record(study, directory), np.random.default_rng(9)
        count = len(Watch(directory).record().complete)
        updates, memory = [], [_megabytes(server.pid)]
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end or len(updates) < 5:
            trial, count = trial_of(100_000, settings_of(rng), rng), count + 1
            start = time.perf_counter()
            report(record, study, trial)
            _until(browser, f"return {SHOWN_DOTS} === {count}")
            updates.append(time.perf_counter() - start)
            time.sleep(20 if len(updates) >= 5 else 1)
            memory.append(_megabytes(server.pid))
    finally:
        browser.quit()
        server.send_signal(signal.SIGINT)
        server.wait()
    return {
        "first_paint_cold_s": round(paints[0], 2),
        "first_paint_s": round(statistics.median(paints[1:]), 2),
        "report_to_drawn_s": round(statistics.median(updates), 2),
        "reported": len(updates),
        "memory_mb": [round(memory[0]), round(memory[-1]), round(max(memory))],
        "minutes": minutes,
    }


SHOWN_DOTS = """document.querySelector('#front .js-plotly-plot').data
    .filter((t) => (t.name || '').endsWith('the budget') && Array.isArray(t.customdata))
    .reduce((sum, t) => sum + t.customdata.length, 0)"""


def chromium() -> Any:
    """A browser without a window."""
    from selenium import webdriver

    driver = shutil.which("chromedriver")  # a name alone is looked for in this directory only
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1200"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def _until(browser: Any, script: str) -> None:
    end = time.monotonic() + 120
    while not browser.execute_script(script):
        if time.monotonic() > end:
            raise TimeoutError(script)
        time.sleep(0.02)


def _megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


def main() -> None:
    """Write a study, or measure one that was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["study", "measure"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--name", default="many")
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()
    if given.what == "study":
        print(write_study(given.storage, given.name, given.trials), file=sys.stderr)
    else:
        directory = given.storage / "studies" / given.name
        print(json.dumps(measure(directory, minutes=given.minutes)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
