"""Claims about heads: a draft that reads nothing, and that its target verifies as any other.

Where nothing is accepted the forecast is the target's own, whatever the heads say; untrained heads
say its last patch again; a sample does not know who is decoded beside it; the first round proposes
nothing; heads that are believed are the draft alone; and what does not fit is refused in one line.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speculation import (
    Acceptance,
    ContextPolicy,
    InvalidInput,
    Lossless,
    Tolerance,
    cost,
    rollout,
    speculate,
)
from speculation.decode import Pair, recite
from speculation.forecaster import Forecaster
from speculation.heads import Heads, HeadsConfig, State, by_itself
from speculation.rules.acceptance import Round
from timer_xl import TimerXL

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]
PATCH = 8

POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "renormed": ContextPolicy("cached", renorm_every=3),
}
per_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
READERS: dict[str, Callable[[Make], Forecaster]] = {
    "network": lambda make: make().double(),
    "engine": lambda make: make().double().engine(),
    "folded": lambda make: make(n_layers=1).double().engine(),
    "variance": lambda make: make(variance=True).double().engine(),
}
per_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


def heads_of(target: Forecaster, *, count: int = 4, weight: float = 0.3, seed: int = 0) -> Heads:
    """Heads whose weights are drawn; of weight 0 they are as they begin."""
    generator = torch.Generator().manual_seed(seed)
    heads = Heads(HeadsConfig.of(target.config, patches_out=count, hidden=16))
    for parameter in heads.parameters():
        parameter.data = weight * torch.randn(parameter.shape, generator=generator)
    return heads.double().eval()


@per_policy
@per_reader
@pytest.mark.parametrize(("count", "lookahead"), [(4, 4), (7, 3), (1, 1)])
def test_where_nothing_is_accepted_the_forecast_is_the_targets_own(
    make_model: Make,
    make_series: MakeSeries,
    reader: Callable[[Make], Forecaster],
    policy: ContextPolicy,
    count: int,
    lookahead: int,
) -> None:
    target, context = reader(make_model), make_series().double()
    rule = Tolerance(mse_tol=0.0, lookahead=lookahead)
    made = speculate(
        target,
        heads_of(target, count=count),
        context,
        horizon=61,
        acceptance=rule,
        policy=policy,
    )
    alone = rollout(target, context, horizon=61, policy=policy)
    assert made.accepted == 0 < made.proposed
    assert torch.allclose(made.forecast_BTC, alone, atol=1e-5, rtol=0)


@per_policy
@per_reader
def test_untrained_heads_propose_the_newest_patch_again(
    make_model: Make,
    make_series: MakeSeries,
    reader: Callable[[Make], Forecaster],
    policy: ContextPolicy,
) -> None:
    target, context = reader(make_model), make_series().double()
    pair = Pair(
        target,
        Heads(HeadsConfig.of(target.config, patches_out=3)).double().eval(),
        context,
        patches=8,
        acceptance=Tolerance(mse_tol=0.0, lookahead=3),
        policy=policy,
    )
    with torch.no_grad():
        _play(pair, 0)
        pair.begin_round()
        proposal, _ = pair.propose(2)
    newest = pair.history.emitted_BNCP[:, pair.history.context_patches, None]
    assert torch.equal(proposal, newest.expand_as(proposal))


def _play(pair: Pair, count: int) -> None:
    limit_B = pair.begin_round().clamp_max(count)
    proposal, drafted = pair.propose(count)
    pair.accept(proposal, drafted, pair.verify(count), limit_B=limit_B)


@pytest.fixture
def forced_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forced acceptance that each proposal's own digits decide, and not its place in a batch."""

    def forces(of: Round, forced: float) -> Tensor:
        return (1e3 * of.proposal_BKCP.mean((2, 3))).round().remainder(10) < 10 * forced

    monkeypatch.setattr(Acceptance, "_forces", staticmethod(forces))


@pytest.mark.usefixtures("forced_by_content")
@per_policy
@per_reader
@pytest.mark.parametrize("emit", ["target", "draft"])
def test_a_samples_forecast_does_not_depend_on_its_batch(
    make_model: Make,
    make_series: MakeSeries,
    reader: Callable[[Make], Forecaster],
    policy: ContextPolicy,
    emit: str,
) -> None:
    target, context = reader(make_model), make_series(6).double()
    rule = Tolerance(mse_tol=0.0, lookahead=4, forced=0.7, emit=emit)  # type: ignore[arg-type]
    heads = heads_of(target, weight=0.15)

    def made(rows: Tensor) -> tuple[Tensor, Tensor]:
        one = speculate(target, heads, rows, horizon=93, acceptance=rule, policy=policy)
        return one.forecast_BTC, one.accepted_B

    together, accepted_B = made(context)
    alone, accepted = (
        torch.cat(part) for part in zip(*(made(row[None]) for row in context), strict=True)
    )
    assert len(accepted_B.unique()) > 1, "samples advance alike: nothing is shown"
    assert torch.equal(accepted, accepted_B)
    assert torch.allclose(together, alone, atol=1e-9, rtol=0)


@per_policy
def test_the_first_round_proposes_nothing_and_a_perfect_draft_needs_no_other_rounds(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy
) -> None:
    target, context = make_model().engine(), make_series()
    made = speculate(
        target,
        heads_of(target).float(),
        context,
        horizon=9 * PATCH,
        acceptance=Tolerance(mse_tol=0.0, lookahead=4, forced=1.0),
        policy=policy,
    )
    # Of nine patches the target gives the first; an anchor ends a round, as does the horizon.
    expected = {0: [0, 1, 0, 1, 0, 1], 3: [0, 1, 1, 2, 0, 0]}
    batch = len(context)
    assert made.accept_lengths.tolist() == [batch * n for n in expected[policy.renorm_every]]


def test_what_is_expected_of_a_forecast_is_what_it_comes_to_where_all_is_accepted(
    make_model: Make, make_series: MakeSeries
) -> None:
    # A second a pass: seconds are passes.
    ones = (1.0,) * 5
    costs = cost.PassCosts((1,), (1.0,), (ones,), ((0.0,) * 5,), (0.0,), (0.0,), opens_alone=True)
    target, context = make_model().engine(), make_series(1)
    for patches in range(1, 14):
        for every in (0, 3, 4):
            made = speculate(
                target,
                heads_of(target).float(),
                context,
                horizon=patches * PATCH,
                acceptance=Tolerance(mse_tol=0.0, lookahead=4, forced=1.0),
                policy=ContextPolicy("cached", every),
            )
            expected = cost.speculation_seconds(
                costs, [1.0] * 4, lookahead=4, patches=patches, renorm_every=every
            )
            assert expected == made.passes


@per_policy
@per_reader
def test_heads_that_are_believed_give_the_forecast_in_which_all_is_accepted(
    make_model: Make,
    make_series: MakeSeries,
    reader: Callable[[Make], Forecaster],
    policy: ContextPolicy,
) -> None:
    # Alone they go on from a state of every fifth patch, and what they said stands.
    target, context = reader(make_model), make_series().double()
    heads = heads_of(target)
    alone = by_itself(heads, target=target)
    forecast = rollout(alone, context, horizon=5 * PATCH, policy=policy)
    first = rollout(target, context, horizon=PATCH, policy=policy)
    assert torch.allclose(forecast[:, :PATCH], first, atol=1e-9, rtol=0)
    told = recite(target, context, patches=1, policy=policy)
    state = State(told.hidden_BNCD, told.unit_BNC1, told.unit_BNC1)
    following = heads.proposals(state, after_B1CP=told.patches_BNCP)
    room = min(4, (policy.renorm_every or 5) - 1)
    said = following[:, :room].transpose(2, 3).flatten(1, 2)
    assert torch.allclose(forecast[:, PATCH : PATCH * (room + 1)], said, atol=1e-9, rtol=0)


def test_packed_heads_say_what_the_trained_ones_do(make_model: Make) -> None:
    heads = heads_of(make_model()).float()
    hidden = torch.randn(2, 1, 3, 32)
    with torch.no_grad():
        plain, packed, coarse = (
            one(hidden).mean for one in (heads, heads.engine(), heads.engine(int8=True))
        )
    assert torch.allclose(packed, plain, atol=1e-5)
    assert 1e-7 < float((coarse - plain).square().mean() / plain.var()) < 1e-2


def test_a_model_by_itself_is_itself(make_model: Make) -> None:
    draft = make_model(1)
    assert by_itself(draft, target=make_model()) is draft


@per_policy
@per_reader
def test_a_recital_is_the_rollout_and_what_its_last_layer_reads(
    make_model: Make,
    make_series: MakeSeries,
    reader: Callable[[Make], Forecaster],
    policy: ContextPolicy,
) -> None:
    target, context = reader(make_model), make_series().double()
    told = recite(target, context, patches=6, policy=policy)
    alone = rollout(target, context, horizon=6 * PATCH, policy=policy)
    assert torch.equal(told.patches_BNCP.transpose(2, 3).flatten(1, 2), alone)
    # The model's own head, applied to the states, differs from the patches by their levels alone.
    changes = {
        "n_layers": getattr(target.config, "n_layers", 2),
        "variance": target.config.variance,
    }
    read = make_model(**changes).double().head(told.hidden_BNCD) * told.unit_BNC1
    apart = told.patches_BNCP - read
    assert torch.allclose(apart, apart.mean(-1, keepdim=True).expand_as(apart), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "rule",
    [
        Lossless(sigma=0.5, lookahead=4),
        Tolerance(mse_tol=0.5, lookahead=4, scope="variate", quorum=0.5),
    ],
)
@per_policy
def test_every_rule_takes_heads_for_a_draft(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy, rule: Acceptance
) -> None:
    target, context = make_model().engine(), make_series()
    made = speculate(
        target, heads_of(target).float(), context, horizon=64, acceptance=rule, policy=policy
    )
    assert made.forecast_BTC.shape == (4, 64, 3)
    assert bool(made.forecast_BTC.isfinite().all())


def test_more_proposals_than_heads_are_refused(make_model: Make, make_series: MakeSeries) -> None:
    target = make_model()
    with pytest.raises(InvalidInput, match=r"lookahead is 5: there are 4 heads.*; 4 would do"):
        speculate(
            target,
            heads_of(target).float(),
            make_series(),
            horizon=64,
            acceptance=Tolerance(mse_tol=0.0, lookahead=5),
        )


def test_heads_of_another_width_or_unit_are_refused(
    make_model: Make, make_series: MakeSeries
) -> None:
    heads = heads_of(make_model()).float()
    for changes, message in (
        ({"d_model": 64}, "the heads read hidden states of 32: the target's have 64"),
        ({"revin": False}, "units of the heads are revin: the target's are data"),
        ({"patch": 4}, "patch of the draft is 8: the target's is 4"),
    ):
        with pytest.raises(InvalidInput, match=message):
            speculate(
                make_model(**changes),
                heads,
                make_series(),
                horizon=64,
                acceptance=Tolerance(mse_tol=0.0, lookahead=4),
            )


def test_heads_read_nothing_by_themselves(make_model: Make, make_series: MakeSeries) -> None:
    with pytest.raises(InvalidInput, match="heads read nothing by themselves"):
        rollout(heads_of(make_model()), make_series().double(), horizon=8)
