"""Claims about Timer's arithmetic: an imported checkpoint generates as its own code does.

`generate.py` beside this is that code, plainly; what it gave is committed (`expected.npz`).
`deployed` is `generate` with its cache, `growing` without, on six shapes; verifying many patches in
one pass is the same as stepping through them; a constant is followed by that constant.
"""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from speculation import (
    ContextPolicy,
    Gaussian,
    InvalidInput,
    Lossless,
    Tolerance,
    rollout,
    speculate,
)
from speculation.forecaster import Forecaster
from speculation.history import History
from timer import Timer, TimerConfig
from timer.checkpoint import import_thuml
from timer_xl import TimerXL

MakeSeries = Callable[..., Tensor]
THEIRS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generate.py"))))
EXPECTED = np.load(THEIRS.EXPECTED)
TINY = TimerConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
EVERY = ("deployed", "growing", "sliding", "cached")
WAYS: dict[str, Callable[[Timer], Forecaster]] = {
    "its forward": lambda model: model,
    "its engine": lambda model: model.engine(),
}

per_case = pytest.mark.parametrize("name", THEIRS.CASES)
per_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
per_policy = pytest.mark.parametrize("policy", EVERY)


def made(config: TimerConfig = TINY, *, seed: int = 0) -> Timer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Timer(config).eval()


def imported(name: str, folder: Path) -> Timer:
    case = THEIRS.CASES[name]
    save_file(THEIRS.random_state(case), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(case.config))
    return import_thuml(folder, context=case.context)


@per_case
@per_way
@pytest.mark.parametrize("policy", THEIRS.WAYS)
def test_an_imported_checkpoint_generates_as_its_own_code_does(
    name: str, way: Callable[[Timer], Forecaster], policy: str, tmp_path: Path
) -> None:
    case = THEIRS.CASES[name]
    forecast_BTC = rollout(
        way(imported(name, tmp_path)),
        THEIRS.random_context(case),
        horizon=case.horizon,
        policy=ContextPolicy(policy),  # type: ignore[arg-type]
    )
    expected_BTC = torch.from_numpy(EXPECTED[f"{name}, {policy}"]).float()
    torch.testing.assert_close(forecast_BTC, expected_BTC, atol=1e-5, rtol=0)


def test_the_two_ways_to_generate_are_two_and_neither_is_a_sliding_or_cached_window(
    tmp_path: Path,
) -> None:
    case = THEIRS.CASES["a cut horizon"]
    model, context_BTC = imported("a cut horizon", tmp_path), THEIRS.random_context(case)
    deployed, *others = (
        rollout(model, context_BTC, horizon=case.horizon, policy=ContextPolicy(kind))  # type: ignore[arg-type]
        for kind in EVERY
    )
    for other in others:
        assert torch.allclose(other[:, : case.patch], deployed[:, : case.patch], atol=1e-5)
        assert (other - deployed).abs().max() > 0.01
    growing, sliding, _ = others
    assert (growing - sliding).abs().max() > 0.01


def test_the_committed_values_are_those_of_the_plain_code() -> None:
    name = "a context of one patch"
    for policy in THEIRS.WAYS:
        again = THEIRS.expected(THEIRS.CASES[name], policy)
        np.testing.assert_allclose(EXPECTED[f"{name}, {policy}"], again.numpy(), atol=1e-9)


@per_policy
@per_way
@pytest.mark.parametrize("emit", ["target", "draft"])
@pytest.mark.parametrize("patches_out", [1, 3])
def test_where_nothing_or_all_is_accepted_for_its_worth_the_forecast_is_the_targets_own(
    make_series: MakeSeries,
    policy: str,
    way: Callable[[Timer], Forecaster],
    emit: str,
    patches_out: int,
) -> None:
    target = way(made().double())
    other = way(made(TINY.scaled(0.5, patches_out=patches_out), seed=1).double())
    context_BTC = make_series(3).double()
    how = {"horizon": 61, "policy": ContextPolicy(policy)}  # type: ignore[arg-type]
    alone_BTC = rollout(target, context_BTC, **how)
    for draft, tolerance, rate in ((other, 0.0, 0.0), (target, 1e-12, 1.0)):
        rule = Tolerance(mse_tol=tolerance, lookahead=3, emit=emit)  # type: ignore[arg-type]
        told = speculate(target, draft, context_BTC, acceptance=rule, **how)
        assert told.acceptance_rate == rate
        torch.testing.assert_close(told.forecast_BTC, alone_BTC, atol=1e-9, rtol=0)


def test_patches_accepted_under_deployed_are_what_the_next_pass_reads(
    make_series: MakeSeries,
) -> None:
    """All is accepted, so that between the target's own patches stand the draft's."""
    target, draft, patch = made().double(), made(seed=1).double(), TINY.patch
    context_BTC, policy = make_series(2).double(), ContextPolicy("deployed")
    told = speculate(
        target,
        draft,
        context_BTC,
        horizon=6 * patch,
        policy=policy,
        acceptance=Tolerance(mse_tol=1e9, lookahead=2, emit="draft"),
    )
    x_BNCP = torch.cat((context_BTC, told.forecast_BTC), 1).unflatten(1, (-1, patch)).mT
    size = TINY.context_patches
    units = [TINY.normalisation(x_BNCP[:, :size])] * size
    units += [TINY.normalisation(x_BNCP[:, i : i + 1]) for i in range(size, x_BNCP.shape[1])]
    for model, places in ((draft, (0, 1, 3, 4)), (target, (2, 5))):
        read = torch.cat([u.apply(x_BNCP[:, i : i + 1]) for i, u in enumerate(units)], 1)
        with torch.no_grad():
            after = model(read).mean
        for place in places:
            end = size + place
            follows = units[end - 1].invert(after[:, end - 1 : end])
            torch.testing.assert_close(x_BNCP[:, end : end + 1], follows, atol=1e-9, rtol=0)


@per_policy
def test_samples_that_come_unequally_far_are_forecast_as_each_is_alone(
    make_series: MakeSeries, policy: str
) -> None:
    target, context_BTC, unequal = made().double(), make_series(5).double(), 0
    one_pass = made(TINY.scaled(0.5, patches_out=2), seed=2).double()
    for draft, tolerance in itertools.product((made(seed=1).double(), one_pass), (0.4, 0.6, 1.0)):
        together, *alone = (
            speculate(
                target,
                draft,
                rows,
                horizon=61,
                policy=ContextPolicy(policy),  # type: ignore[arg-type]
                acceptance=Tolerance(mse_tol=tolerance, lookahead=3),
            )
            for rows in (context_BTC, *context_BTC.split(1))
        )
        unequal += len({tuple(one.accept_lengths.tolist()) for one in alone}) > 1
        joined = torch.cat([one.forecast_BTC for one in alone])
        torch.testing.assert_close(together.forecast_BTC, joined, atol=1e-9, rtol=0)
    assert unequal > 1


def test_distances_are_told_in_the_contexts_deviation_however_flat_a_patch_is(
    make_series: MakeSeries,
) -> None:
    context_BTC = make_series(2)
    history = History(context_BTC, patch=TINY.patch, room=3, keep_proposals=False)
    context = made().open(history, ContextPolicy("deployed"), room=3)
    history.write_ahead(torch.ones(2, 3, 3, TINY.patch), ahead=0)
    with torch.no_grad():
        outlook = context.predict(ahead=3, last=4)
    wanted = context_BTC.std(1)[:, None, :, None].expand(2, 4, 3, 1)
    torch.testing.assert_close(outlook.unit.expand(2, 4, 3, 1), wanted)
    flat = torch.ones(2, 3, 3, TINY.patch)
    torch.testing.assert_close(outlook.mean[:, 1:], flat, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rule", [Gaussian(sigma=0.5, bias=2.0), Lossless(sigma=0.5, lookahead=2)])
def test_a_rule_that_draws_decodes_under_deployed(
    make_series: MakeSeries, rule: Gaussian | Lossless
) -> None:
    told = speculate(
        made(),
        made(TINY.scaled(0.5, patches_out=3)),
        make_series(),
        horizon=61,
        acceptance=rule,
        policy=ContextPolicy("deployed"),
        generator=torch.Generator().manual_seed(0),
    )
    assert told.forecast_BTC.isfinite().all()
    assert 0 < told.acceptance_rate <= 1


@per_policy
@pytest.mark.parametrize("level", [0.0, 0.1, -3.7])
def test_a_constant_window_is_followed_by_that_constant(policy: str, level: float) -> None:
    context_BTC = torch.full((2, 32, 2), level)
    forecast_BTC = rollout(made(), context_BTC, horizon=40, policy=ContextPolicy(policy))  # type: ignore[arg-type]
    torch.testing.assert_close(
        forecast_BTC, torch.full_like(forecast_BTC, level), atol=1e-4, rtol=0
    )


def test_a_variate_is_forecast_as_if_it_were_alone(make_series: MakeSeries) -> None:
    context_BTC, policy = make_series(2, variates=3), ContextPolicy("deployed")
    together = rollout(made(), context_BTC, horizon=40, policy=policy)
    alone = [rollout(made(), one, horizon=40, policy=policy) for one in context_BTC.split(1, -1)]
    torch.testing.assert_close(together, torch.cat(alone, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", [lambda model: model, lambda model: model.engine()])
@pytest.mark.parametrize("kind", ["deployed", "growing"])
def test_a_policy_that_a_family_does_not_know_is_refused_in_one_line(
    make_model: Callable[..., TimerXL], make_series: MakeSeries, way: Callable, kind: str
) -> None:
    line = f"context policy is '{kind}': the family timer_xl .* one of sliding, cached would do"
    with pytest.raises(InvalidInput, match=line):
        rollout(way(make_model()), make_series(), horizon=8, policy=ContextPolicy(kind))  # type: ignore[arg-type]


def test_policies_but_cached_have_no_anchors_and_one_that_is_unknown_names_the_others() -> None:
    for kind in ("sliding", "growing", "deployed"):
        with pytest.raises(InvalidInput, match=f"renorm_every is 4: '{kind}' .*; set 0"):
            ContextPolicy(kind, 4)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="'deploid': one of sliding, cached, deployed, growing"):
        ContextPolicy("deploid")  # type: ignore[arg-type]
