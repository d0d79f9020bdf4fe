"""Claims about batches: a sample's forecast is its own, whoever is decoded beside it.

Some two hundred random configurations in double precision, so that no verdict hangs on rounding:
one or two layers, drafts that roll and one-pass drafts, each policy, both ways to emit, lookaheads
up to twice the context, tolerances and forced acceptances under which samples advance unequally.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from speculation import Acceptance, ContextPolicy, Speculation, Tolerance, speculate
from speculation.rules.acceptance import Round
from timer_xl import Engine, TimerXL

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]
PATCH = 4
TINY = {"patch": PATCH, "d_model": 16, "n_heads": 2, "d_ff": 16}
SEEDS = range(64)


class Case(NamedTuple):
    """A pair, what it is asked for, and how proposals are judged."""

    target: Engine
    draft: Engine
    context_BTC: Tensor
    horizon: int
    rule: Acceptance
    policy: ContextPolicy

    def decode(self, rows: Tensor) -> Speculation:
        return speculate(
            self.target,
            self.draft,
            self.context_BTC[rows],
            horizon=self.horizon,
            acceptance=self.rule,
            policy=self.policy,
        )


def random_case(seed: int, kind: str, make_model: Make, make_near: Make, make: MakeSeries) -> Case:
    draw = random.Random(f"{kind} {seed}")
    size, patches_out = draw.randint(1, 4), draw.choice([1, 1, 2, 3, 7])
    shape: dict[str, Any] = TINY | {"context": size * PATCH, "revin": draw.random() < 0.8}
    target = make_model(seed, **shape, n_layers=draw.choice([1, 1, 2]))
    if patches_out == 1 and draw.random() < 0.5:
        draft = make_near(target, amount=draw.choice([0.1, 0.5]))
    else:
        shape |= {"patches_out": patches_out, "n_layers": draw.choice([1, 1, 2])}
        draft = make_model(seed + 1, **shape)
    policies = {
        "sliding": ContextPolicy(),
        "cached": ContextPolicy("cached"),
        "renormed": ContextPolicy("cached", renorm_every=draw.randint(2, 5)),
    }
    return Case(
        Engine(target.double()),
        Engine(draft.double()),
        make(
            draw.randint(2, 4), steps=size * PATCH, variates=draw.randint(1, 3), seed=seed
        ).double(),
        draw.randint(1, 12 * PATCH),
        Tolerance(
            mse_tol=10 ** draw.uniform(-2, 0.7),
            lookahead=draw.randint(1, 2 * size + 1),
            emit=draw.choice(["target", "draft"]),  # type: ignore[arg-type]
            forced=draw.choice([None, 0.7]),
        ),
        policies[kind],
    )


@pytest.fixture
def forced_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forced acceptance that each proposal's own digits decide, and not its place in a batch."""

    def forces(of: Round, forced: float) -> Tensor:
        return (1e3 * of.proposal_BKCP.mean((2, 3))).round().remainder(10) < 10 * forced

    monkeypatch.setattr(Acceptance, "_forces", staticmethod(forces))


@pytest.mark.usefixtures("forced_by_content")
@pytest.mark.parametrize("kind", ["sliding", "cached", "renormed"])
def test_a_samples_forecast_does_not_depend_on_its_batch(
    make_model: Make, make_near: Make, make_series: MakeSeries, kind: str
) -> None:
    unequal, wrong = 0, []
    for seed in SEEDS:
        case = random_case(seed, kind, make_model, make_near, make_series)
        everyone = torch.arange(len(case.context_BTC))
        together = case.decode(everyone)
        alone = [case.decode(row[None]) for row in everyone]
        joined = torch.cat([one.forecast_BTC for one in alone])
        counts = torch.stack([one.accept_lengths for one in alone])
        unequal += len(counts.unique(dim=0)) > 1
        same_counts = torch.equal(counts.sum(0), together.accept_lengths)
        if not (same_counts and torch.allclose(joined, together.forecast_BTC, atol=1e-9, rtol=0)):
            wrong.append(seed)
    assert not wrong
    assert unequal > len(SEEDS) / 3


@pytest.mark.usefixtures("forced_by_content")
def test_a_one_layer_model_that_slides_forecasts_as_if_it_encoded_every_window_anew(
    make_model: Make, make_near: Make, make_series: MakeSeries
) -> None:
    folded, wrong = 0, []
    for seed in SEEDS:
        case = random_case(seed, "sliding", make_model, make_near, make_series)
        everyone = torch.arange(len(case.context_BTC))
        ours = case.decode(everyone).forecast_BTC
        folded += sum(engine.fold is not None for engine in (case.target, case.draft))
        case.target.fold = case.draft.fold = None
        if not torch.allclose(ours, case.decode(everyone).forecast_BTC, atol=1e-9, rtol=0):
            wrong.append(seed)
    assert not wrong
    assert folded > len(SEEDS) / 2
