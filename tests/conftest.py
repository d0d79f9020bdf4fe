"""Tiny models and series for the claims about decoding, and what all tests have about them."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from timer_xl import TimerXL, TimerXLConfig

TINY: dict[str, Any] = {
    "patch": 8,
    "context": 32,
    "d_model": 32,
    "n_heads": 4,
    "d_ff": 48,
    "n_layers": 2,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As tests are many and small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def a_folder_for_ray() -> Iterator[None]:
    """By which Ray knows what runs already: no cluster of someone else's on this machine is joined.

    Its sockets need a short path.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tempfile.mkdtemp(prefix="fd-", dir="/tmp")
        patch.setenv("RAY_TMPDIR", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TimerXL]:
    """A model of random weights, its variate biases too, in inference mode."""

    def build(seed: int = 0, **changes: Any) -> TimerXL:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = TimerXL(TimerXLConfig(**(TINY | changes)))
            for block in model.blocks:
                torch.nn.init.normal_(block.attention.bias_2H, std=2.0)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def make_near() -> Callable[..., TimerXL]:
    """A copy of a model whose weights were moved a little: a draft that is right at times."""

    def build(model: TimerXL, *, amount: float, seed: int = 1) -> TimerXL:
        near = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in near.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(amount * parameter.abs().mean() * noise)
        return near

    return build


@pytest.fixture(scope="session")
def make_series() -> Callable[..., Tensor]:
    """Series [batch, steps, variates] of scale about one; rows differ in period, level, noise."""

    def build(batch: int = 4, *, steps: int = 32, variates: int = 3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        time = torch.arange(steps)[None, :, None]
        shape = (batch, 1, variates)
        period = 4 + 20 * torch.rand(shape, generator=generator)
        phase = 6.3 * torch.rand(shape, generator=generator)
        noise = torch.randn(batch, steps, variates, generator=generator)
        loudness = 1.5 * torch.rand(shape, generator=generator)
        level = torch.randn(shape, generator=generator)
        return level + torch.sin(6.28 * time / period + phase) + loudness * noise

    return build


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Any]:
    """A trial of a study that came to the metrics given, to an error, or to nothing yet."""
    from foredraft.judge.timing import INTERVAL_PAIRS
    from foredraft.search import trial
    from speculation import Tolerance
    from speculation.cost import PassCosts

    costs = PassCosts((1,), (1.0,), ((1.0, 1.1),), ((0.0, 0.2),), (0.0,), (0.0,))
    defaults: dict[str, Any] = {
        **{"acceptance_rate": 0.8, "accept_length": 2.0, "predicted_speedup": 1.75},
        **{"mse": 0.4, "mae": 0.5, "mse_ratio": 1.0, "deviation": 0.01, "windows": 8},
    }
    draft = {
        "key": "d-0.5",
        "architecture": {"d_model": 128, "n_heads": 8, "d_ff": 256, "n_layers": 2},
        "parameters": 300_000,
        "errors": {"mse": 0.42, "mae": 0.52},
        "speedup": 3.0,
    }

    def build(number: int = 0, **changes: Any) -> trial.Trial:
        """`error`, `running`, `stopped`, `speedup` (measured), parts of the draft, or metrics."""
        about = {n: changes.pop(n) for n in ("settings", "source", "seconds") if n in changes}
        if changes.get("running") or changes.get("error"):
            return trial.Trial(number=number, error=changes.get("error"), **about)
        own = {"draft": draft | changes.pop("draft", {}), "stopped": changes.pop("stopped", None)}
        speedup, pairs = changes.pop("speedup", None), changes.pop("pairs", 20)
        seconds = {"target_s": 1.0, "speculation_s": 0.5, "pairs": pairs}
        seconds["doubt"] = changes.pop("doubt", None)
        ends = {"speedup_low": changes.pop("speedup_low", (speedup or 0) - 0.02)}
        ends |= {"speedup_high": changes.pop("speedup_high", (speedup or 0) + 0.03)}
        fresh = changes.pop("fresh", None)
        if pairs < INTERVAL_PAIRS:
            ends = dict.fromkeys(ends)
        outcome = {
            "target": changes.pop("target", {"mse": 0.4, "mae": 0.5}),
            "reference": changes.pop("reference", {"mse": 0.4, "mae": 0.5}),
            "prediction": changes.pop("prediction", None),
            "rule": changes.pop("rule", Tolerance(mse_tol=1.0)),
            "costs": costs,
            "judging_s": 1.0,
            "timing": {"cpu": {"speedup": speedup, **ends, **seconds}} if speedup else {},
            "fresh": {"cpu": {"speedup": fresh, **ends, **seconds}} if fresh else {},
            "test": changes.pop("test", None),
        }
        return trial.Trial(
            number=number,
            outcome=trial.Outcome(metrics=defaults | changes, **own, **outcome),
            **about,
        )

    return build


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """The directory of a study in a storage, with the trials given reported to its record."""
    import json

    import yaml

    from foredraft.search.searcher import open_record
    from foredraft.settings.config import validated
    from foredraft.settings.study import Study

    stage = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
    tree = {
        "target": "demo",
        "draft": {"stages": [stage]},
        "evaluation": {"data": stage["data"], "horizon": 336},
        "acceptance": {"rule": "gaussian", "bias": 2.0},
        "dimensions": {
            "scale": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
            "sigma": {"type": "float", "low": 0.01, "high": 10.0, "log": True},
            "lookahead": {"type": "int", "low": 1, "high": 3},
        },
    }
    target = {"key": "t-1f", "parameters": 1000, "patch": 96, "mse": 0.4, "mae": 0.5}

    def write(storage: Path, name: str, *trials: Any, **changes: Any) -> Path:
        directory = storage / "studies" / name
        directory.mkdir(parents=True, exist_ok=True)
        # A name that no study may have, as of a directory that was renamed.
        own = {**tree, "name": "renamed" if name.startswith("<") else name, **changes}
        (directory / "study.yaml").write_text(yaml.safe_dump(own))
        (directory / "references.json").write_text(json.dumps({"target": target}))
        record = open_record(validated(Study, own, source=name), directory)
        for trial in trials:
            report(record, trial)
        return directory

    def report(record: Any, trial: Any) -> None:
        import optuna

        from foredraft.search.record import TRIAL

        states = {
            "failed": "FAIL",
            "pruned": "PRUNED",
            "running": "RUNNING",
            "complete": "COMPLETE",
        }
        values = None
        if trial.state == "complete":
            metrics = trial.outcome.metrics
            values = [metrics.acceptance_rate, metrics.predicted_speedup, metrics.mse]
        attrs = {} if trial.state == "running" else {TRIAL: trial.model_dump_json()}
        record.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[states[trial.state]], values=values, user_attrs=attrs
            )
        )

    return write


@pytest.fixture(scope="session")
def keep_example() -> Callable[..., Any]:
    """The windows of a study that `write_study` wrote, kept with what a trial forecasts of them."""
    from types import SimpleNamespace

    import yaml

    from foredraft.judge.evaluate import EvaluationWindows
    from foredraft.search import examples
    from foredraft.search.references import evaluation_of
    from foredraft.settings.config import validated
    from foredraft.settings.study import Study

    def keep(directory: Path, trial: Any) -> Tensor:
        """What the target forecasts, [9, 336, 7]; the trial is 0.5 above it."""
        tree = yaml.safe_load((directory / "study.yaml").read_text())
        evaluation = evaluation_of(trial, validated(Study, tree, source="tiny"))
        target_WHC = torch.arange(9.0)[:, None, None] + torch.arange(7.0).expand(336, 7)
        windows = EvaluationWindows(torch.zeros(9, 384, 7), target_WHC + 1)
        accepted_WN = (torch.arange(4) % 2 == 0).expand(9, 4)
        run = SimpleNamespace(forecast_BTC=target_WHC + 0.5, accepted_BN=accepted_WN)
        folder, outcome = directory / examples.FOLDER, trial.outcome
        examples.keep_windows(folder, evaluation, windows, target_WHC, patch=96)
        examples.keep_forecasts(folder, evaluation, outcome.draft.key, outcome.rule, [run])
        return target_WHC

    return keep
