"""Claims about speculation: it equals the target where it must, and its counts add up."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from speculation import (
    Acceptance,
    ContextPolicy,
    Gaussian,
    Lossless,
    Speculation,
    Tolerance,
    rollout,
    speculate,
)
from speculation.cost import PassCosts, speculation_seconds
from timer_xl import Engine, TimerXL

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]

POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "renormed": ContextPolicy("cached", renorm_every=3),
}
per_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
per_emit = pytest.mark.parametrize("emit", ["target", "draft"])
SAMPLING: dict[str, Any] = {"propose": "sample", "emit": "draft"}


class Shape(NamedTuple):
    """What a speculation is asked for."""

    horizon: int
    lookahead: int
    batch: int = 3
    variates: int = 2
    patches_out: int = 1
    layers: int = 2


SHAPES = [
    Shape(horizon=3, lookahead=4),
    Shape(horizon=8, lookahead=1),
    Shape(horizon=16, lookahead=1),
    Shape(horizon=61, lookahead=1, batch=1),
    Shape(horizon=61, lookahead=3),
    Shape(horizon=64, lookahead=3, batch=1, variates=1),
    Shape(horizon=40, lookahead=50),
    Shape(horizon=61, lookahead=3, patches_out=2),
    Shape(horizon=61, lookahead=4, patches_out=3),
    Shape(horizon=64, lookahead=7, patches_out=7),
    Shape(horizon=43, lookahead=2, batch=1, variates=1, patches_out=7),
    Shape(horizon=5, lookahead=3, patches_out=3),
    Shape(horizon=61, lookahead=3, layers=1),
    Shape(horizon=40, lookahead=50, layers=1),
    Shape(horizon=64, lookahead=7, batch=1, patches_out=7, layers=1),
]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))


class Naive:
    """Rule `tolerance`, one sample at a time, one uncached pass per prefix; counts add up."""

    def __init__(
        self, target: TimerXL, draft: TimerXL, rule: Acceptance, policy: ContextPolicy
    ) -> None:
        self.target, self.draft, self.rule, self.policy = target, draft, rule, policy
        self.patch, self.size = target.config.patch, target.config.context
        self.lengths: list[int] = []
        self.rounds: list[int] = []
        self.proposed: list[int] = []
        self.accepted: list[int] = []

    def forecast(self, context_TC: Tensor, *, horizon: int) -> Tensor:
        """The forecast [horizon, C] of one sample."""
        patches, done, anchor, rounds = -(-horizon // self.patch), 0, 0, 0
        every, tolerance = self.policy.renorm_every, self.rule.mse_tol or 0.0
        # What is read is what was emitted, but where the keys of accepted proposals are kept.
        keeps = self.policy.kind == "cached" and not self.rule.emits_draft
        read = emitted = context_TC
        self.proposed.append(0)
        self.accepted.append(0)
        while done < patches:
            if every and done and done % every == 0:
                read, anchor = emitted, len(emitted) - self.size
            room = min(patches - done, every - done % every if every else patches)
            limit = min(self.rule.lookahead, room - 1)
            proposals = self.proposals(read, limit, anchor)
            prefixes = [torch.cat((read, *proposals[:k])) for k in range(limit + 1)]
            verified = [self.expected(self.target, prefix, anchor) for prefix in prefixes]
            accepted = 0
            for proposal, (mean, unit) in zip(proposals, verified[:-1], strict=True):
                if ((proposal - mean) / unit).square().mean() > tolerance:
                    break
                accepted += 1
            means = [mean for mean, _ in verified]
            kept = proposals if self.rule.emits_draft else means
            emitted = torch.cat((emitted, *kept[:accepted], means[accepted]))
            read = torch.cat((read, *proposals[:accepted], means[accepted])) if keeps else emitted
            done, rounds = done + accepted + 1, rounds + 1
            self.proposed[-1] += limit
            self.accepted[-1] += accepted
            self.lengths.append(accepted + 1)
        self.rounds.append(rounds)
        return emitted[self.size : self.size + horizon]

    def proposals(self, read: Tensor, count: int, anchor: int) -> list[Tensor]:
        """The draft's next `count` patches, each [P, C]."""
        proposals: list[Tensor] = []
        while len(proposals) < count:
            mean, _ = self.expected(self.draft, torch.cat((read, *proposals)), anchor)
            proposals += list(mean.split(self.patch))
        return proposals[:count]

    @torch.no_grad()
    def expected(self, model: TimerXL, read: Tensor, anchor: int) -> tuple[Tensor, Tensor]:
        """What follows, [steps, C] in the data's units, and the length of one of its units."""
        first = len(read) - self.size if self.policy.kind == "sliding" else anchor
        window = read[first : first + self.size]
        unit = (window.var(0, keepdim=True, correction=0) + 1e-5).sqrt()
        mean = window.mean(0, keepdim=True)
        x_NCP = ((read[first:] - mean) / unit).unflatten(0, (-1, self.patch)).mT
        return model(x_NCP[None]).mean[0, -1].mT * unit + mean, unit


class Pair(NamedTuple):
    target: TimerXL
    draft: TimerXL
    context: Tensor


@pytest.fixture
def make_pair(make_model: Make, make_near: Make, make_series: MakeSeries) -> Callable[..., Pair]:
    """A target, a draft that is near it (a one-pass draft is a stranger), and a context."""

    def build(shape: Shape) -> Pair:
        target = make_model(n_layers=shape.layers)
        near = make_near(target, amount=0.5)
        stranger = make_model(seed=7, n_layers=1, patches_out=shape.patches_out)
        draft = near if shape.patches_out == 1 else stranger
        return Pair(target, draft, make_series(shape.batch, variates=shape.variates))

    return build


def splitting_tolerance(pair: Pair, shape: Shape, policy: ContextPolicy) -> float:
    """The mse_tol at which about half of what is proposed is accepted, by bisection."""
    low, high = -3.0, 1.0
    for _ in range(7):
        rule = Tolerance(lookahead=shape.lookahead, mse_tol=10 ** ((low + high) / 2))
        speculation = speculate(*pair, horizon=shape.horizon, acceptance=rule, policy=policy)
        if speculation.acceptance_rate < 0.5:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return 10**high


def check_counts(speculation: Speculation, *, batch: int, patches: int, lookahead: int) -> None:
    lengths = torch.arange(lookahead + 2)
    rounds = int(speculation.accept_lengths.sum())
    assert int((speculation.accept_lengths * lengths).sum()) == batch * patches
    assert speculation.accept_lengths[0] == 0
    assert speculation.accepted + rounds == batch * patches
    assert 0 <= speculation.accepted <= speculation.proposed
    assert speculation.passes <= patches
    assert speculation.passes <= rounds <= batch * speculation.passes
    assert speculation.accepted == int(speculation.passed_K.sum())
    assert torch.all(speculation.passed_K <= speculation.tested_K)
    assert torch.all(speculation.tested_K[1:] <= speculation.passed_K[:-1])
    assert int(speculation.tested_K[0]) <= rounds
    # A round of n patches passed n - 1 positions.
    reached = speculation.accept_lengths.flip(0).cumsum(0).flip(0)
    assert torch.equal(speculation.passed_K, reached[2:])


@per_policy
@per_emit
@per_shape
def test_a_draft_that_is_the_target_is_accepted_whole(
    make_pair: Callable[..., Pair], shape: Shape, policy: ContextPolicy, emit: Any
) -> None:
    if shape.patches_out > 1:
        shape = shape._replace(patches_out=1)
    target, _, context = make_pair(shape)
    rule = Tolerance(lookahead=shape.lookahead, mse_tol=1e-4, emit=emit)
    speculation = speculate(
        target, target, context, horizon=shape.horizon, acceptance=rule, policy=policy
    )
    alone = rollout(target, context, horizon=shape.horizon, policy=policy)
    assert speculation.accepted == speculation.proposed
    assert speculation.forecast_BTC.shape == (shape.batch, shape.horizon, shape.variates)
    assert torch.allclose(speculation.forecast_BTC, alone, atol=1e-5)


@per_policy
@per_emit
@per_shape
def test_a_draft_that_is_never_accepted_changes_nothing(
    make_pair: Callable[..., Pair], shape: Shape, policy: ContextPolicy, emit: Any
) -> None:
    pair = make_pair(shape)
    rule = Tolerance(lookahead=shape.lookahead, mse_tol=0.0, emit=emit)
    speculation = speculate(*pair, horizon=shape.horizon, acceptance=rule, policy=policy)
    alone = rollout(pair.target, pair.context, horizon=shape.horizon, policy=policy)
    patches = -(-shape.horizon // 8)
    assert speculation.accepted == 0
    assert speculation.acceptance_rate == 0.0
    assert (speculation.proposed > 0) == (patches > 1)
    assert speculation.passes == patches
    assert torch.allclose(speculation.forecast_BTC, alone, atol=1e-5)


@per_policy
@per_emit
@per_shape
def test_a_batch_is_decoded_as_each_sample_alone_without_a_cache(
    make_pair: Callable[..., Pair], shape: Shape, policy: ContextPolicy, emit: Any
) -> None:
    """Forecast and counts, while about half of the proposals are accepted."""
    pair = make_pair(shape)
    patches = -(-shape.horizon // 8)
    mse_tol = splitting_tolerance(pair, shape, policy) if patches > 1 else 0.1
    rule = Tolerance(lookahead=shape.lookahead, mse_tol=mse_tol, emit=emit)
    ours = speculate(*pair, horizon=shape.horizon, acceptance=rule, policy=policy)
    naive = Naive(pair.target, pair.draft, rule, policy)
    forecast = torch.stack([naive.forecast(row, horizon=shape.horizon) for row in pair.context])
    assert torch.allclose(ours.forecast_BTC, forecast, atol=1e-5)
    histogram = torch.bincount(torch.tensor(naive.lengths), minlength=shape.lookahead + 2)
    assert torch.equal(ours.accept_lengths, histogram)
    assert ours.proposed_B.tolist() == naive.proposed
    assert ours.accepted_B.tolist() == naive.accepted
    assert ours.passes == max(naive.rounds)
    by_round = [[*[True] * (length - 1), False] for length in naive.lengths]
    origins = torch.tensor([accepted for one in by_round for accepted in one])
    assert torch.equal(ours.accepted_BN.flatten(), origins)
    check_counts(ours, batch=shape.batch, patches=patches, lookahead=shape.lookahead)


@per_policy
@per_emit
@pytest.mark.parametrize(("patches_out", "layers"), [(1, 2), (3, 2), (1, 1)])
def test_samples_that_accept_unequally_do_not_influence_each_other(
    make_pair: Callable[..., Pair],
    policy: ContextPolicy,
    emit: Any,
    patches_out: int,
    layers: int,
) -> None:
    shape = Shape(horizon=69, lookahead=4, batch=8, patches_out=patches_out, layers=layers)
    target, draft, context = pair = make_pair(shape)
    everyone = torch.arange(8)
    half = splitting_tolerance(pair, shape, policy)

    def decode(rows: Tensor) -> Speculation:
        return speculate(target, draft, context[rows], horizon=69, acceptance=rule, policy=policy)

    for factor in (1.0, 0.9, 1.1, 0.8):
        rule = Tolerance(lookahead=4, mse_tol=factor * half, emit=emit)
        alone = [decode(everyone[row : row + 1]) for row in everyone]
        if len({tuple(one.accept_lengths.tolist()) for one in alone}) > 1:
            break
    assert len({tuple(one.accept_lengths.tolist()) for one in alone}) > 1
    assert len({one.passes for one in alone}) > 1
    together = decode(everyone)
    shuffled = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    for parts in (alone, [decode(everyone[:3]), decode(everyone[3:])]):
        joined = torch.cat([part.forecast_BTC for part in parts])
        assert torch.allclose(joined, together.forecast_BTC, atol=1e-5)
        assert sum(part.accepted for part in parts) == together.accepted
        counts = torch.stack([part.accept_lengths for part in parts]).sum(0)
        assert torch.equal(counts, together.accept_lengths)
    mixed = decode(shuffled)
    assert torch.allclose(mixed.forecast_BTC, together.forecast_BTC[shuffled], atol=1e-5)
    assert torch.equal(mixed.accept_lengths, together.accept_lengths)


@per_emit
def test_a_one_pass_draft_may_look_further_ahead_than_its_context_is_long(
    make_model: Make, make_series: MakeSeries, emit: Any
) -> None:
    """Under `cached` one sample then lacks more keys than another has patches."""
    target, draft = make_model(), make_model(seed=6, n_layers=1, patches_out=7)
    rule = Tolerance(lookahead=7, mse_tol=1.22, emit=emit)

    def decode(rows: Tensor) -> Speculation:
        return speculate(
            target, draft, rows, horizon=128, acceptance=rule, policy=POLICIES["cached"]
        )

    contexts = make_series(6, variates=1)[:2]
    unlucky, lucky = (decode(row[None]) for row in contexts)
    assert lucky.accept_lengths[8] == 2
    assert unlucky.accept_lengths[2] == 8
    expected = torch.cat((unlucky.forecast_BTC, lucky.forecast_BTC))
    assert torch.allclose(decode(contexts).forecast_BTC, expected, atol=1e-5)


@per_policy
def test_what_is_emitted_for_an_accepted_patch_is_the_targets_mean_or_the_drafts_patch(
    make_pair: Callable[..., Pair], policy: ContextPolicy
) -> None:
    """A round of two: the first accepted whatever it is, the second the target's own."""
    pair = make_pair(Shape(horizon=16, lookahead=1))
    by_target, by_draft = (
        speculate(
            *pair,
            horizon=16,
            acceptance=Tolerance(lookahead=1, mse_tol=1e6, emit=emit),
            policy=policy,
        ).forecast_BTC
        for emit in ("target", "draft")
    )
    first_of_target, first_of_draft = (
        rollout(model, pair.context, horizon=8) for model in (pair.target, pair.draft)
    )
    assert torch.allclose(by_target[:, :8], first_of_target, atol=1e-5)
    assert torch.allclose(by_draft[:, :8], first_of_draft, atol=1e-5)
    # The pass that verified had read the draft's patch in both cases.
    assert torch.allclose(by_target[:, 8:], by_draft[:, 8:], atol=1e-5)
    assert (by_target - by_draft).abs().max() > 1e-2


RULES = {
    "tolerance": Tolerance(mse_tol=0.1, lookahead=3),
    "gaussian_mean": Gaussian(sigma=0.4, bias=1.0, lookahead=3),
    "gaussian_sample": Gaussian(sigma=0.8, bias=2.0, lookahead=3, **SAMPLING),
    "quorum": Gaussian(sigma=0.3, bias=1.0, lookahead=3, scope="variate", quorum=0.5),
    "lossless": Lossless(sigma=0.8, lookahead=3),
}
per_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@per_policy
@per_rule
@pytest.mark.parametrize("heads", [{}, {"variance": True}, {"patches_out": 2, "variance": True}])
def test_the_counts_add_up_under_every_rule(
    make_model: Make,
    make_series: MakeSeries,
    policy: ContextPolicy,
    rule: Acceptance,
    heads: dict[str, Any],
) -> None:
    target, draft = make_model(variance=bool(heads)), make_model(seed=2, **heads)
    generator = torch.Generator().manual_seed(0)
    ours = speculate(
        target,
        draft,
        make_series(6),
        horizon=70,
        acceptance=rule,
        policy=policy,
        generator=generator,
    )
    assert ours.forecast_BTC.shape == (6, 70, 3)
    assert torch.isfinite(ours.forecast_BTC).all()
    check_counts(ours, batch=6, patches=9, lookahead=3)


@per_policy
@per_rule
def test_a_seed_fixes_the_forecast(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy, rule: Acceptance
) -> None:
    target, draft, context = make_model(), make_model(seed=2), make_series()

    def forecast(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return speculate(
            target,
            draft,
            context,
            horizon=40,
            acceptance=rule,
            policy=policy,
            generator=generator,
        ).forecast_BTC

    assert torch.equal(forecast(1), forecast(1))
    if rule.needs == "samples":
        assert not torch.equal(forecast(1), forecast(2))


@per_policy
@per_rule
def test_a_draft_that_is_the_target_is_accepted_whole_under_every_rule(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy, rule: Acceptance
) -> None:
    target = make_model()
    ours = speculate(
        target,
        target,
        make_series(8),
        horizon=64,
        acceptance=rule,
        policy=policy,
        generator=torch.Generator().manual_seed(0),
    )
    assert ours.accepted == ours.proposed


@per_policy
@pytest.mark.parametrize("variance", [False, True], ids=["sigma", "variance"])
def test_a_lossless_forecast_is_distributed_as_the_targets_own_samples(
    make_model: Make, policy: ContextPolicy, variance: bool
) -> None:
    """All patches of a horizon together, not the first alone; rule `gaussian` fails the same test.

    z-tests of means, covariances and tails over the horizon, at 1 % together (Bonferroni).
    """
    tiny = {"patch": 2, "context": 6, "d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}
    target = make_model(seed=3, variance=variance, **tiny)
    draft = make_model(seed=4, variance=variance, **tiny)
    draws, sigma, horizon = 12_000, 0.7, 8
    context = torch.tensor([0.1, 0.9, -0.4, 0.3, 1.2, -0.8]).reshape(1, 6, 1).expand(draws, 6, 1)
    every = policy.renorm_every
    generator = torch.Generator().manual_seed(6)
    series, anchor = context, 0
    for done in range(4):
        if policy.kind == "sliding" or (every and done % every == 0):
            anchor = series.shape[1] - 6
        window = series[:, anchor : anchor + 6]
        unit = (window.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        mean = window.mean(1, keepdim=True)
        read = ((series[:, anchor:] - mean) / unit).unflatten(1, (-1, 2)).transpose(2, 3)
        with torch.no_grad():
            prediction = Engine(target)(read, last=1)
        deviation = torch.exp(0.5 * prediction.log_variance[:, -1].mT) if variance else sigma
        noise = torch.randn(draws, 2, 1, generator=generator)
        patch = prediction.mean[:, -1].mT * unit + mean + deviation * unit * noise
        series = torch.cat((series, patch), 1)
    own = series[:, 6:, 0]

    def speculated(rule: Acceptance) -> tuple[Tensor, float]:
        ours = speculate(
            target,
            draft,
            context,
            horizon=horizon,
            acceptance=rule,
            policy=policy,
            generator=torch.Generator().manual_seed(8),
        )
        return ours.forecast_BTC[:, :, 0], ours.acceptance_rate

    lossless, rate = speculated(Lossless(sigma=sigma, lookahead=2))
    assert 0.2 < rate < 0.9
    assert p_value(lossless, own) > 0.01
    redrawn, _ = speculated(Gaussian(sigma=sigma, bias=1, lookahead=2, **SAMPLING))
    assert p_value(redrawn, own) < 1e-4


def p_value(x: Tensor, y: Tensor) -> float:
    """That two samples [draws, dims] are of one distribution; see the claim above."""
    centre, spread = y.double().mean(0), y.double().std(0)
    pairs = torch.triu_indices(y.shape[1], y.shape[1])

    def features(z: Tensor) -> Tensor:
        z = (z.double() - centre) / spread
        tails = torch.cat((z > 1, z > 2, z < -1, z < -2), 1).double()
        return torch.cat((z, z[:, pairs[0]] * z[:, pairs[1]], tails), 1)

    ours, theirs = features(x), features(y)
    error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    z = ((ours.mean(0) - theirs.mean(0)) / error).abs()
    return min(1.0, len(z) * math.erfc(z.max().item() / math.sqrt(2)))


@per_policy
@pytest.mark.parametrize("patches", [1, 2, 7, 9])
@pytest.mark.parametrize("lookahead", [1, 3, 12])
def test_the_cost_model_counts_the_rounds_that_decoding_takes(
    make_model: Make,
    make_series: MakeSeries,
    policy: ContextPolicy,
    patches: int,
    lookahead: int,
) -> None:
    """With everything accepted, at a price of one per round and nothing else."""
    target = make_model()
    rule = Tolerance(mse_tol=1e-4, lookahead=lookahead)
    ours = speculate(
        target, target, make_series(2), horizon=8 * patches, acceptance=rule, policy=policy
    )
    free = (0.0,) * (lookahead + 1)
    costs = PassCosts(
        batches=(1,),
        step_s=(1.0,),
        verify_s=((1.0,) * (lookahead + 1),),
        draft_s=(free,),
        step_anchor_s=(0.0,),
        round_anchor_s=(0.0,),
    )
    seconds = speculation_seconds(
        costs,
        [1.0] * lookahead,
        lookahead=lookahead,
        patches=patches,
        renorm_every=policy.renorm_every,
    )
    assert seconds == pytest.approx(ours.passes)


@pytest.mark.parametrize(
    ("field", "of_target", "of_draft", "of_call"),
    [
        ("context has 24 steps", {}, {}, {"steps": 24}),
        ("context of the draft is 40", {}, {"context": 40}, {}),
        ("patch of the draft is 16", {}, {"patch": 16}, {}),
        ("patches_out of the target is 2", {"patches_out": 2}, {}, {}),
        ("horizon is 0", {}, {}, {"horizon": 0}),
        ("horizon is -8", {}, {}, {"horizon": -8}),
    ],
)
def test_a_pair_or_a_call_that_cannot_be_is_refused_by_field(
    make_model: Make,
    make_series: MakeSeries,
    field: str,
    of_target: dict[str, Any],
    of_draft: dict[str, Any],
    of_call: dict[str, int],
) -> None:
    target, draft = make_model(**of_target), make_model(**of_draft)
    context = make_series(steps=of_call.get("steps", 32))
    rule = Tolerance(mse_tol=0.1)
    with pytest.raises(ValueError, match=rf"^{field}[^\n]+$"):
        speculate(target, draft, context, horizon=of_call.get("horizon", 16), acceptance=rule)


@pytest.mark.parametrize(("field", "steps", "horizon"), [("context", 40, 8), ("horizon", 32, 0)])
def test_a_rollout_that_cannot_be_is_refused_by_field(
    make_model: Make, make_series: MakeSeries, field: str, steps: int, horizon: int
) -> None:
    with pytest.raises(ValueError, match=field):
        rollout(make_model(), make_series(steps=steps), horizon=horizon)
