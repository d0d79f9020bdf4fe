"""Complete trainings of targets, by name: each recipe is a function that returns its training.

training = RECIPES["etth1"]()
"""

from __future__ import annotations

from collections.abc import Callable

from foredraft.settings.config import Stage, StageName, Training, named
from timer import TimerConfig
from timer_xl import TimerXLConfig


def electricity(name: StageName, *, epochs: int, windows: int, lr: float) -> Stage:
    """A stage on the hourly demand of 54 balancing authorities, seven of them in a window."""
    return Stage(
        name=name,
        data="eia930",
        epochs=epochs,
        windows_per_epoch=windows,
        lr=lr,
        variates=7,
        validation_windows=256,
    )


def etth1() -> Training:
    """The published ETTh1 model at half its width: one layer, trained in minutes on two cores.

    ETTh1's 8,640 training rows are soon known by heart: hence the electricity demand of other
    places first, then one epoch of it (LOG.md tells what else was tried). In fp32, for the same
    reason as `demo`.
    """
    return Training(
        model=TimerXLConfig(d_model=512, n_heads=8, d_ff=2048, n_layers=1),
        stages=(
            electricity("pretrain", epochs=4, windows=6400, lr=5e-4),
            Stage(name="finetune", data="ETTh1", epochs=1, lr=1e-4, dropout=0.2),
        ),
        dtype="fp32",
    )


def etth1_deep() -> Training:
    """A deep ETTh1 target: four layers, where a draft has depth to save.

    In fp32, for the same reason as `demo`.
    """
    return Training(
        model=TimerXLConfig(d_model=256, n_heads=8, d_ff=1024, n_layers=4),
        stages=(
            electricity("pretrain", epochs=2, windows=6400, lr=5e-4),
            Stage(name="finetune", data="ETTh1", epochs=1, lr=1e-4, dropout=0.3),
        ),
        dtype="fp32",
    )


def eia930_deep() -> Training:
    """A deep target on the hourly demand of 54 balancing authorities: four layers.

    In fp32, for the same reason as `demo`.
    """
    return Training(
        model=TimerXLConfig(d_model=256, n_heads=8, d_ff=1024, n_layers=4),
        stages=(electricity("scratch", epochs=4, windows=6400, lr=5e-4),),
        dtype="fp32",
    )


def zeroshot() -> Training:
    """A univariate target of Timer's architecture that never saw what it will forecast.

    Pretrained on hourly electricity demand and on generated load: what a public checkpoint is to
    its users, in minutes. In fp32, for the same reason as `demo`.
    """
    return Training(
        model=TimerConfig(context=672, d_model=256, d_ff=1024, n_layers=4),
        stages=(
            Stage(
                name="scratch",
                data={"eia930": 3, "synthetic-load": 1},
                judge="eia930",
                epochs=4,
                windows_per_epoch=12800,
                batch=64,
                lr=1e-3,
                variates=1,
                validation_windows=512,
            ),
        ),
        dtype="fp32",
    )


def demo() -> Training:
    """A small univariate target on generated data, trained in half a minute.

    In fp32, as few laptops multiply bf16 and the others are seven times slower at it (LOG.md).
    """
    return Training(
        model=TimerConfig(patch=24, context=336, d_model=128, n_heads=4, d_ff=256, n_layers=4),
        stages=(
            Stage(
                name="pretrain",
                data="synthetic-load",
                epochs=2,
                windows_per_epoch=12800,
                batch=64,
                lr=2e-3,
                variates=1,
                validation_windows=64,
            ),
            Stage(
                name="finetune",
                data="synthetic-etth",
                epochs=1,
                windows_per_epoch=6400,
                batch=64,
                lr=5e-4,
                variates=1,
                validation_windows=64,
            ),
        ),
        dtype="fp32",
    )


RECIPES: dict[str, Callable[[], Training]] = {
    "demo": demo,
    "etth1": etth1,
    "etth1-deep": etth1_deep,
    "eia930-deep": eia930_deep,
    "zeroshot": zeroshot,
}
"""Complete trainings of targets, by name."""


def recipe(name: str) -> Training:
    """The training that a recipe's name stands for.

    Raises:
        ConfigError: there is no such recipe.
    """
    return named(RECIPES, name, what="recipe")
