"""Claims about the numbers of a training, each against arithmetic done here by hand.

Which rows are learnt from and which judge; the unit of every loss; the learning rate, clipping and
weight decay of every step; what an epoch draws; when a stage stops and which weights it leaves.
The data are a random walk: a window's shape tells its row, even after it was normalised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from foredraft import train
from foredraft.settings.config import Stage, Training
from foredraft.train import losses
from foredraft.train.learner import Learner
from foredraft.train.lessons import Lesson
from speculation.normalisation import REVIN_EPSILON, Prediction
from timer_xl import TimerXL, TimerXLConfig
from timer_xl.model import Dropout

ROWS, VARIATES = 400, 2
TRAIN, VALIDATION, TEST = (0, 280), (280, 320), (320, 400)
CONTEXT, PATCH = 32, 8
WINDOW = CONTEXT + PATCH
TRAIN_STARTS = range(TRAIN[0], TRAIN[1] - WINDOW + 1)
VALIDATION_STARTS = range(VALIDATION[0] - CONTEXT, VALIDATION[1] - WINDOW + 1)
MODEL = TimerXLConfig(
    patch=PATCH, context=CONTEXT, d_model=32, n_heads=4, d_ff=32, n_layers=1, dropout=0.0
)
STILL = 1e-30  # a learning rate at which no weight moves


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A file of two random walks, far apart in level and spread."""
    path = tmp_path / "walk.csv"
    lines = ["first,second", *(f"{a:.6f},{b:.6f}" for a, b in walk())]
    path.write_text("\n".join(lines) + "\n")
    return path


def walk() -> np.ndarray:
    steps_TC = np.random.default_rng(5).normal(size=(ROWS, VARIATES))
    return np.asarray(steps_TC.cumsum(axis=0) * np.array([1.0, 30.0]) + np.array([0.0, 1000.0]))


def standardised() -> Tensor:
    """The walks in deviations of the training rows from their mean: [T, C]."""
    values_TC = walk()
    learnt_TC = values_TC[slice(*TRAIN)]
    return torch.from_numpy((values_TC - learnt_TC.mean(axis=0)) / learnt_TC.std(axis=0)).float()


def windows(starts: range | list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contexts in RevIN units, what follows each of their patches, means and deviations."""
    values_TC = standardised()
    window_WLC = torch.stack([values_TC[start : start + WINDOW] for start in starts])
    context_WLC = window_WLC[:, :CONTEXT]
    mean_W1C = context_WLC.mean(dim=1, keepdim=True)
    variance_W1C = (context_WLC - mean_W1C).square().mean(dim=1, keepdim=True)
    deviation_W1C = (variance_W1C + REVIN_EPSILON).sqrt()
    units_WLC = (window_WLC - mean_W1C) / deviation_W1C
    patches_WNPC = units_WLC.unflatten(1, (-1, PATCH))
    x_WNCP = patches_WNPC[:, :-1].transpose(2, 3)
    y_WNCP = patches_WNPC[:, 1:].transpose(2, 3)
    return x_WNCP, y_WNCP, mean_W1C, deviation_W1C


def stage(series: Path | str, **changes: object) -> Stage:
    settings = {"name": "scratch", "data": str(series), "epochs": 1, "lr": STILL, "batch": 1}
    return Stage.model_validate(settings | changes)


def trained(
    *stages: Stage, run: Path, model: TimerXLConfig = MODEL, examine: train.Examine | None = None
) -> train.Trained:
    wanted = Training(model=model, stages=stages, dtype="fp32")
    return train.train(wanted, run=train.LocalRun(run), examine=examine)


def mean_squared_error(model: TimerXL, starts: range | list[int]) -> float:
    """On standardised data, after every patch of every window."""
    x, y, _, deviation_W1C = windows(starts)
    with torch.no_grad():
        error_WNCP = model(x).mean - y
    return float((error_WNCP * deviation_W1C[..., None]).square().mean())


# Which rows, and in which unit.


def test_a_validation_loss_is_the_error_on_standardised_data_of_every_validation_window(
    series: Path, tmp_path: Path
) -> None:
    made = trained(stage(series, batch=7), run=tmp_path / "run")
    wanted = mean_squared_error(made.model, VALIDATION_STARTS)
    assert made.curve[0]["validation_loss"] == pytest.approx(wanted, rel=1e-4)


def test_a_training_loss_is_the_error_on_standardised_data_of_every_training_window(
    series: Path, tmp_path: Path
) -> None:
    made = trained(stage(series), run=tmp_path / "run")
    wanted = mean_squared_error(made.model, TRAIN_STARTS)
    assert made.curve[0]["train_loss"] == pytest.approx(wanted, rel=1e-4)


def test_few_validation_windows_are_the_first_the_last_and_evenly_between(
    series: Path, tmp_path: Path
) -> None:
    made = trained(stage(series, validation_windows=3), run=tmp_path / "run")
    wanted = mean_squared_error(made.model, [248, 264, 280])
    assert made.curve[0]["validation_loss"] == pytest.approx(wanted, rel=1e-4)


def test_a_likelihood_is_counted_in_revin_units_and_weighted_by_half_its_variance(
    series: Path, tmp_path: Path
) -> None:
    model = dataclasses.replace(MODEL, variance=True)
    made = trained(stage(series, loss="nll", batch=7), run=tmp_path / "run", model=model)
    x, y, *_ = windows(VALIDATION_STARTS)
    with torch.no_grad():
        mean, log_variance, _ = made.model(x)
    deviation = (log_variance / 2).exp()
    plain = -Normal(mean, deviation).log_prob(y) - 0.5 * math.log(2 * math.pi)
    row = made.curve[0]
    assert row["validation_loss"] == pytest.approx(float((plain * deviation).mean()), rel=1e-4)
    z = (y - mean) / deviation
    assert row["squared_z"] == pytest.approx(float(z.square().mean()), rel=1e-4)
    assert row["within_deviation"] == pytest.approx(float((z.abs() <= 1).double().mean()))


def test_a_model_without_a_variance_tells_no_calibration(series: Path, tmp_path: Path) -> None:
    row = trained(stage(series, windows_per_epoch=4), run=tmp_path / "run").curve[0]
    assert not {"squared_z", "within_deviation"} & row.keys()


# The losses by numbers that fit on a page.


def lesson(observed: list[float], *, unit: float) -> Lesson:
    cells = torch.tensor(observed)[None, None, None]
    return Lesson(torch.zeros_like(cells), cells, torch.full((1, 1, 1, 1), unit))


def prediction(mean: list[float], variance: list[float] | None = None) -> Prediction:
    log_variance = None if variance is None else torch.tensor(variance).log()[None, None, None]
    return Prediction(torch.tensor(mean)[None, None, None], log_variance)


def test_a_squared_error_counts_in_the_unit_of_its_lesson() -> None:
    # Errors of 1 and 3 RevIN units, each of them 2 long: (2^2 + 6^2) / 2.
    assert float(losses.mse(prediction([1.0, 5.0]), lesson([0.0, 2.0], unit=2.0))) == 20.0


def test_a_likelihood_does_not_ask_for_the_unit_of_its_lesson() -> None:
    said = prediction([1.0, 5.0], [4.0, 0.25])
    # Half of log 4 and 1/4, times 2; half of log 1/4 and 9 / (1/4), times 1/2.
    wanted = ((math.log(4) + 0.25) / 2 * 2 + (math.log(0.25) + 36) / 2 * 0.5) / 2
    for unit in (1.0, 2.0):
        loss = losses.nll(said, lesson([0.0, 2.0], unit=unit))
        assert float(loss) == pytest.approx(wanted, rel=1e-6)


def test_a_variance_below_the_floor_counts_as_the_floor() -> None:
    floor = losses.VARIANCE_FLOOR
    tiny, least = (
        float(losses.nll(prediction([0.1], [v]), lesson([0.0], unit=1.0)))
        for v in (floor / 100, floor)
    )
    assert tiny == pytest.approx(least)
    more = float(losses.nll(prediction([0.1], [floor * 4]), lesson([0.0], unit=1.0)))
    assert more != pytest.approx(least)


def test_calibration_sums_squared_deviations_and_counts_those_within_one() -> None:
    said = prediction([0.0, 1.0, 2.0, 1.0], [1.0, 4.0, 1.0, 1.0])
    sums = losses.calibration(said, lesson([0.0, 0.0, 0.0, 0.0], unit=5.0))
    # z is 0, 1/2, 2 and 1, and one deviation exactly is within.
    assert sums.tolist() == pytest.approx([5.25, 3.0])
    assert losses.calibration(prediction([9.0]), lesson([0.0], unit=1.0)).tolist() == [0.0, 0.0]


# What every step does.


class Step(NamedTuple):
    lr: float
    weight_decay: float
    gradient: Tensor


@pytest.fixture
def steps() -> Iterator[list[Step]]:
    """Every step of an optimiser, as it is about to be taken."""
    taken: list[Step] = []

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        assert isinstance(optimizer, torch.optim.AdamW)
        (group,) = optimizer.param_groups
        gradients = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        taken.append(Step(group["lr"], group["weight_decay"], torch.cat(gradients)))

    handle = register_optimizer_step_pre_hook(record)
    yield taken
    handle.remove()


def test_the_learning_rate_warms_up_then_follows_a_cosine_over_all_epochs_of_the_stage(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    taught = stage(series, lr=1e-3, warmup=0.2, epochs=2, windows_per_epoch=40, batch=4)
    curve = trained(taught, run=tmp_path / "run").curve
    rising = [0.2, 0.4, 0.6, 0.8]
    falling = [0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    assert [step.lr for step in steps] == pytest.approx([1e-3 * f for f in rising + falling])
    assert falling[0] == 1.0
    assert falling[8] == pytest.approx(0.5)
    # An epoch's row has the rate of the step that comes next.
    assert curve[0]["learning_rate"] == pytest.approx(steps[10].lr)
    assert curve[1]["learning_rate"] == pytest.approx(0.0, abs=1e-12)


def test_without_warmup_the_first_step_has_the_whole_learning_rate(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    trained(stage(series, lr=1e-3, warmup=0.0, windows_per_epoch=4), run=tmp_path / "run")
    wanted = [0.5 * (1 + math.cos(math.pi * step / 4)) * 1e-3 for step in range(4)]
    assert [step.lr for step in steps] == pytest.approx(wanted)


def test_each_stage_begins_its_own_schedule(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    short = {"windows_per_epoch": 2, "warmup": 0.0}
    trained(stage(series, lr=1e-3, **short), stage(series, lr=1e-4, **short), run=tmp_path / "run")
    assert [step.lr for step in steps] == pytest.approx([1e-3, 5e-4, 1e-4, 5e-5])


def test_a_gradient_is_scaled_to_its_largest_norm_and_left_alone_below(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    for clip_norm in (1e9, 1e-3):
        trained(
            stage(series, clip_norm=clip_norm, windows_per_epoch=1),
            run=tmp_path / str(clip_norm),
        )
    free, clipped = (step.gradient for step in steps)
    assert float(free.norm()) > 0.1
    assert float(clipped.norm()) == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped * free.norm() / 1e-3, free, rtol=1e-3, atol=1e-5)


def test_a_step_has_the_gradient_of_its_own_batch_alone(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    made = trained(stage(series, clip_norm=1e9, batch=len(TRAIN_STARTS)), run=tmp_path / "run")
    x, y, _, deviation_W1C = windows(TRAIN_STARTS)
    model = made.model.train()
    ((model(x).mean - y) * deviation_W1C[..., None]).square().mean().backward()
    by_hand = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(steps[0].gradient, by_hand, rtol=1e-3, atol=1e-4)


def test_no_step_remembers_the_gradient_of_the_one_before(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    # All windows in every batch: without a memory all gradients are one.
    everything = stage(series, clip_norm=1e9, batch=len(TRAIN_STARTS), epochs=2)
    trained(everything, run=tmp_path / "run")
    torch.testing.assert_close(steps[0].gradient, steps[1].gradient, rtol=1e-3, atol=1e-4)


def test_a_batch_in_parts_has_the_gradient_and_the_loss_of_the_whole_batch(
    series: Path, tmp_path: Path, steps: list[Step]
) -> None:
    curves = [
        trained(
            stage(series, clip_norm=1e9, batch=8, windows_per_epoch=8, accumulate=parts),
            run=tmp_path / str(parts),
        ).curve
        for parts in (1, 4)
    ]
    whole, parts = (step.gradient for step in steps)
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)
    assert curves[0][0]["train_loss"] == pytest.approx(curves[1][0]["train_loss"], rel=1e-5)


def test_weight_decay_is_the_stages_own(series: Path, tmp_path: Path, steps: list[Step]) -> None:
    short = {"windows_per_epoch": 1}
    decaying = stage(series, weight_decay=0.25, **short)
    trained(decaying, stage(series, **short), run=tmp_path / "run")
    assert [step.weight_decay for step in steps] == [0.25, 0.0]


# What every pass sees.


class Pass(NamedTuple):
    learning: bool
    starts: list[int]
    variates: list[int]
    """of the first token column of each window"""
    dropout: set[float]


@pytest.fixture
def passes() -> Iterator[list[Pass]]:
    """Every pass of a model, told by the rows that it was given."""
    everything = range(ROWS - WINDOW + 1)
    known_WNCP, *_ = windows(everything)
    seen: list[Pass] = []

    def record(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not isinstance(module, TimerXL):
            return
        first_BD = given[0][:, :, 0].flatten(1)
        table_KD = known_WNCP.transpose(1, 2).flatten(2).flatten(0, 1)
        distance_BK = torch.cdist(first_BD, table_KD)
        assert float(distance_BK.min(dim=1).values.max()) < 1e-2
        nearest_B = distance_BK.argmin(dim=1)
        seen.append(
            Pass(
                module.training,
                (nearest_B // VARIATES).tolist(),
                (nearest_B % VARIATES).tolist(),
                {m.probability for m in module.modules() if isinstance(m, Dropout)},
            )
        )

    handle = register_module_forward_pre_hook(record)
    yield seen
    handle.remove()


def starts(passes: list[Pass], *, learning: bool) -> list[int]:
    return [start for p in passes if p.learning == learning for start in p.starts]


def test_an_epoch_draws_as_many_windows_as_it_was_told_to_from_training_rows_alone(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    trained(stage(series, epochs=2, windows_per_epoch=64, batch=8), run=tmp_path / "run")
    drawn = starts(passes, learning=True)
    assert len(drawn) == 2 * 64
    first, second = drawn[:64], drawn[64:]
    assert len(set(first)) == len(set(second)) == 64, "a window came twice"
    assert set(drawn) <= set(TRAIN_STARTS)
    assert first != second
    assert set(first) != set(second)
    assert max(drawn) - min(drawn) > 200, "they come from all over the training rows"


def test_without_a_number_an_epoch_draws_every_training_window_in_whole_batches(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    trained(stage(series, epochs=2, batch=8), run=tmp_path / "run")
    drawn = starts(passes, learning=True)
    each = len(TRAIN_STARTS) // 8 * 8
    assert len(drawn) == 2 * each
    assert set(drawn) == set(TRAIN_STARTS)
    assert len(set(drawn[:each])) == each


def test_after_every_epoch_each_validation_window_is_read_once_and_no_other(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    trained(stage(series, epochs=2, windows_per_epoch=8, batch=8), run=tmp_path / "run")
    read = starts(passes, learning=False)
    assert sorted(read[: len(VALIDATION_STARTS)]) == list(VALIDATION_STARTS)
    assert sorted(read) == sorted([*VALIDATION_STARTS, *VALIDATION_STARTS])


def test_a_stage_of_few_windows_learns_from_the_first_the_last_and_evenly_between(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    trained(stage(series, windows=5), run=tmp_path / "run")
    assert sorted(starts(passes, learning=True)) == [0, 60, 120, 180, 240]
    assert len(starts(passes, learning=False)) == len(VALIDATION_STARTS)


def test_an_order_of_windows_is_that_of_its_seed(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    orders = []
    for seed in (0, 0, 1):
        passes.clear()
        wanted = Training(
            model=MODEL, stages=(stage(series, windows_per_epoch=32),), dtype="fp32", seed=seed
        )
        train.train(wanted, run=train.LocalRun(tmp_path / f"{len(orders)}"))
        orders.append(starts(passes, learning=True))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_univariate_stage_sees_each_variate_about_as_often(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    trained(stage(series, variates=1, batch=8), run=tmp_path / "run")
    drawn = [variate for p in passes if p.learning for variate in p.variates]
    assert 0.35 < sum(drawn) / len(drawn) < 0.65


def test_each_stage_has_its_own_dropout_or_the_models(
    series: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    short = {"windows_per_epoch": 1}
    trained(
        stage(series, dropout=0.5, **short),
        stage(series, **short),
        stage(series, dropout=0.0, **short),
        run=tmp_path / "run",
        model=dataclasses.replace(MODEL, dropout=0.25),
    )
    assert [p.dropout for p in passes if p.learning] == [{0.5}, {0.25}, {0.0}]


# When a stage stops, and what it leaves.


@pytest.fixture
def judged_as(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation losses that the epochs to come are given, in order."""
    given: list[float] = []
    monkeypatch.setattr(Learner, "_validate", lambda learner: {"validation_loss": given.pop(0)})
    return given


class Remembers:
    """An examination that keeps the weights of every epoch."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def __call__(self, draft: TimerXL) -> train.Row:
        assert not draft.training
        self.weights.append(weights_of(draft))
        return {}


def weights_of(model: TimerXL) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def test_a_stage_ends_once_so_many_epochs_in_a_row_were_not_better_and_leaves_the_best(
    series: Path, tmp_path: Path, judged_as: list[float]
) -> None:
    judged_as += [5.0, 4.0, 6.0, 3.0, 7.0, 3.0, 1.0]
    remembers = Remembers()
    taught = stage(series, lr=1e-3, epochs=7, patience=2, windows_per_epoch=2)
    made = trained(taught, run=tmp_path / "run", examine=remembers)
    assert [row["validation_loss"] for row in made.curve] == [5.0, 4.0, 6.0, 3.0, 7.0, 3.0]
    assert torch.equal(weights_of(made.model), remembers.weights[3])
    assert not torch.equal(remembers.weights[3], remembers.weights[5])


def test_the_next_stage_starts_from_the_best_weights_of_the_one_before(
    series: Path, tmp_path: Path, judged_as: list[float]
) -> None:
    judged_as += [2.0, 1.0, 3.0, 9.0]
    remembers = Remembers()
    short = {"windows_per_epoch": 2}
    made = trained(
        stage(series, lr=1e-3, epochs=3, patience=9, **short),
        stage(series, **short),
        run=tmp_path / "run",
        examine=remembers,
    )
    assert torch.equal(remembers.weights[3], remembers.weights[1])
    assert not torch.equal(remembers.weights[3], remembers.weights[2])
    # A stage that was worse than the last of the one before leaves its own best all the same.
    assert torch.equal(weights_of(made.model), remembers.weights[3])


def test_the_rows_of_a_curve_are_numbered_through_and_each_stage_counts_its_epochs(
    series: Path, tmp_path: Path
) -> None:
    short = {"windows_per_epoch": 2}
    curve = trained(
        stage(series, epochs=2, name="pretrain", **short),
        stage(series, epochs=1, name="finetune", **short),
        run=tmp_path / "run",
    ).curve
    told = [(row["number"], row["stage"], row["epoch"], row["epochs"]) for row in curve]
    assert told == [(1, "pretrain", 1, 2), (2, "pretrain", 2, 2), (3, "finetune", 1, 1)]
    for row in curve:
        assert row["seconds"] > 0
        assert row["samples_per_s"] > 0
