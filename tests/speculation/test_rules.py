"""Claims about the acceptance rules: one contract for all, closed forms, and exactness."""

import itertools
import json
import math
import pickle
import re
from dataclasses import asdict, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from speculation import Acceptance, Gaussian, InvalidInput, Lossless, Tolerance, rule_from
from speculation.distribution import Normal
from speculation.rules import RULES, Verdict

BATCH, PROPOSALS, VARIATES, PATCH = 6, 4, 3, 5
SAMPLING: dict[str, Any] = {"propose": "sample", "emit": "draft"}

EXAMPLES = {
    "tolerance": Tolerance(mse_tol=0.3),
    "tolerance_draft": Tolerance(mse_tol=0.3, emit="draft"),
    "tolerance_quorum": Tolerance(mse_tol=0.3, scope="variate", quorum=0.5),
    "gaussian_mean": Gaussian(sigma=0.4, bias=1.0),
    "gaussian_mean_draft": Gaussian(sigma=0.4, bias=1.0, emit="draft"),
    "gaussian_sample": Gaussian(sigma=0.8, bias=1.0, **SAMPLING),
    "gaussian_sample_tol": Gaussian(sigma=0.8, bias=1.0, mse_tol=0.4, **SAMPLING),
    "gaussian_quorum": Gaussian(sigma=0.4, bias=1.0, scope="variate", quorum=1 / 3),
    "lossless": Lossless(sigma=0.8),
}
MEAN_RULES = {name: rule for name, rule in EXAMPLES.items() if rule.needs != "samples"}
DRAWLESS_RULES = {name: rule for name, rule in EXAMPLES.items() if rule.needs == "means"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sigma_of(rule: Acceptance) -> float:
    return getattr(rule, "sigma", 1.0)


class Case:
    """One round: what the draft and the target expect, and what is proposed."""

    def __init__(self, rule: Acceptance, *, apart: float = 0.5, own_deviations: bool = False):
        generator = seeded(11)
        shape = (BATCH, PROPOSALS + 1, VARIATES, PATCH)
        self.rule = rule
        self.unit = 0.5 + torch.rand(BATCH, PROPOSALS + 1, VARIATES, 1, generator=generator)
        mean = torch.randn(shape, generator=generator)
        deviation = (sigma_of(rule) * self.unit).expand(shape)
        self.target = Normal(mean, deviation)
        # The farther down the batch and the lookahead, the farther is the draft from the target.
        grade = torch.linspace(0, 2, BATCH)[:, None] * torch.linspace(0.5, 1.5, PROPOSALS)
        noise = torch.randn(mean[:, 1:].shape, generator=generator)
        off = apart * grade[..., None, None] * noise * self.unit[:, 1:]
        factor = 0.8 if own_deviations else 1.0
        self.draft = Normal(mean[:, :-1] + off, factor * deviation[:, :-1])
        self.same_deviation = not own_deviations
        sampled = self.draft.sample(generator)
        self.proposal = self.draft.mean if rule.needs != "samples" else sampled
        self.limit = torch.tensor([4, 4, 3, 2, 4, 1])

    def judged(
        self, *, rows: slice = slice(None), seed: int = 5, limit: int | None = None
    ) -> Verdict:
        limit_B = self.limit if limit is None else torch.full_like(self.limit, limit)
        return self.rule.verdict(
            self.proposal[rows],
            draft=Normal(self.draft.mean[rows], self.draft.deviation[rows]),
            target=Normal(self.target.mean[rows], self.target.deviation[rows]),
            unit_BMC1=self.unit[rows],
            limit_B=limit_B[rows],
            same_deviation=self.same_deviation,
            generator=seeded(seed),
        )


@pytest.fixture(params=EXAMPLES.values(), ids=EXAMPLES)
def rule(request: pytest.FixtureRequest) -> Acceptance:
    return request.param


@pytest.mark.parametrize("rule", MEAN_RULES.values(), ids=MEAN_RULES)
def test_knowing_that_deviations_agree_changes_no_verdict_on_a_proposed_mean(
    rule: Acceptance,
) -> None:
    case = Case(rule)
    known = [case.judged(seed=seed) for seed in range(20)]
    case.same_deviation = False
    assert all(
        torch.equal(a, b)
        for seed, one in enumerate(known)
        for a, b in zip(one, case.judged(seed=seed), strict=True)
    )


def test_every_rule_that_there_is_is_held_to_the_contract() -> None:
    assert {type(rule) for rule in EXAMPLES.values()} == set(RULES.values())


class TestEveryRule:
    """The contract that each rule keeps."""

    @pytest.mark.parametrize("own_deviations", [False, True])
    def test_verdicts_are_finite_of_the_right_shape_and_within_the_limit(
        self, rule: Acceptance, own_deviations: bool
    ) -> None:
        case = Case(rule, own_deviations=own_deviations)
        for seed in range(20):
            verdict = case.judged(seed=seed)
            assert verdict.emitted_BMCP.shape == case.target.mean.shape
            assert torch.isfinite(verdict.emitted_BMCP).all()
            assert verdict.accepted_B.dtype == torch.int64
            assert torch.all((verdict.accepted_B >= 0) & (verdict.accepted_B <= case.limit))

    def test_a_draft_that_is_the_target_is_always_accepted(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        for seed in range(20):
            assert torch.equal(case.judged(seed=seed).accepted_B, case.limit)

    def test_a_draft_that_is_far_off_is_never_accepted(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        case.proposal = case.proposal + 50.0
        case.draft = Normal(case.draft.mean + 50.0, case.draft.deviation)
        assert case.judged().accepted_B.sum() == 0

    def test_a_limit_of_nothing_accepts_nothing(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        verdict = case.judged(limit=0)
        assert verdict.accepted_B.sum() == 0
        if rule.needs != "samples":
            assert torch.equal(verdict.emitted_BMCP[:, 0], case.target.mean[:, 0])

    def test_the_first_rejection_ends_the_prefix(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        moved = torch.zeros(PROPOSALS)[:, None, None]
        moved[1] = 50.0
        case.proposal = case.proposal + moved
        case.draft = Normal(case.draft.mean + moved, case.draft.deviation)
        assert torch.equal(case.judged(limit=PROPOSALS).accepted_B, torch.ones(BATCH).long())

    @pytest.mark.parametrize("rule", MEAN_RULES.values(), ids=MEAN_RULES)
    def test_a_position_that_is_not_accepted_carries_the_targets_mean(
        self, rule: Acceptance
    ) -> None:
        case = Case(rule)
        verdict = case.judged()
        assert 0 < verdict.accepted_B.sum() < case.limit.sum()
        rows = torch.arange(BATCH)
        assert torch.equal(
            verdict.emitted_BMCP[rows, verdict.accepted_B],
            case.target.mean[rows, verdict.accepted_B],
        )

    def test_an_accepted_position_carries_what_the_rule_emits(self, rule: Acceptance) -> None:
        case = Case(rule)
        verdict = case.judged()
        assert verdict.accepted_B.sum() > 0
        source = case.proposal if rule.emits_draft else case.target.mean
        for row, accepted in enumerate(verdict.accepted_B.tolist()):
            assert torch.equal(verdict.emitted_BMCP[row, :accepted], source[row, :accepted])

    def test_the_same_seed_gives_the_same_verdict(self, rule: Acceptance) -> None:
        case = Case(rule)
        ours, theirs = case.judged(seed=9), case.judged(seed=9)
        assert torch.equal(ours.accepted_B, theirs.accepted_B)
        assert torch.equal(ours.emitted_BMCP, theirs.emitted_BMCP)

    @pytest.mark.parametrize("rule", DRAWLESS_RULES.values(), ids=DRAWLESS_RULES)
    def test_the_rows_of_a_rule_that_draws_nothing_are_judged_alone(self, rule: Acceptance) -> None:
        case = Case(rule)
        together = case.judged()
        for row in range(BATCH):
            alone = case.judged(rows=slice(row, row + 1))
            assert torch.equal(alone.accepted_B[0], together.accepted_B[row])
            assert torch.equal(alone.emitted_BMCP[0], together.emitted_BMCP[row])

    def test_the_units_of_the_data_do_not_matter(self, rule: Acceptance) -> None:
        case, other = Case(rule), Case(rule)
        other.unit = 8.0 * other.unit
        other.proposal = 8.0 * other.proposal
        other.draft = Normal(*(8.0 * part for part in other.draft))
        other.target = Normal(*(8.0 * part for part in other.target))
        ours, theirs = case.judged(), other.judged()
        assert torch.equal(ours.accepted_B, theirs.accepted_B)
        assert torch.allclose(8.0 * ours.emitted_BMCP, theirs.emitted_BMCP, rtol=1e-4, atol=1e-4)


def simulated(
    rule: Acceptance, *, mse: float, variates: int, steps: int, draws: int = 40_000, seed: int = 0
) -> float:
    """How often the rule accepts a proposal whose mean is at a mean squared distance of `mse`."""
    generator, unit = seeded(seed), 2.5
    shape = (draws, 1, variates, steps)
    direction = torch.randn(shape[1:], generator=generator)
    apart = unit * math.sqrt(mse) * direction / direction.square().mean().sqrt()
    deviation = torch.full(shape, unit * sigma_of(rule))
    draft = Normal(7.0 + apart.expand(shape), deviation)
    target = Normal(torch.full((draws, 2, *shape[2:]), 7.0), deviation.expand(-1, 2, -1, -1))
    verdict = rule.verdict(
        draft.mean if rule.needs != "samples" else draft.sample(generator),
        draft=draft,
        target=target,
        unit_BMC1=torch.full((draws, 2, variates, 1), unit),
        limit_B=torch.ones(draws, dtype=torch.int64),
        same_deviation=True,
        generator=generator,
    )
    return verdict.accepted_B.double().mean().item()


CLOSED_FORMS = {
    "mean": Gaussian(sigma=0.5, bias=1.0),
    "mean_strict": Gaussian(sigma=0.7, bias=1 / 3),
    "mean_tolerant": Gaussian(sigma=0.5, bias=0.8, mse_tol=0.3),
    "sample": Gaussian(sigma=0.6, bias=1.0, **SAMPLING),
    "sample_strict": Gaussian(sigma=0.6, bias=1 / 3, **SAMPLING),
    "sample_lenient": Gaussian(sigma=0.6, bias=3.0, **SAMPLING),
    "sample_tolerant": Gaussian(sigma=0.6, bias=1 / 3, mse_tol=0.45, **SAMPLING),
    "tolerance": Tolerance(mse_tol=0.3),
    "lossless": Lossless(sigma=0.6),
    "forced": Tolerance(mse_tol=0.0, forced=0.7),
}


def integrated(
    distance: Tensor, dimensions: int, *, bias: float, most: float, points: int
) -> Tensor:
    """How probably a sample is accepted, summed over its noise along the line between the means."""
    z = torch.linspace(-8, 8, points).double()
    weight = torch.exp(-0.5 * z.square())
    apart = distance[:, None]
    by_ratio = torch.exp(math.log(bias) - apart * (z + apart / 2)).clamp_max(1.0)
    left = most - (apart + z).square()
    if others := dimensions - 1:
        freedom = torch.full_like(left, others / 2)
        by_tolerance = torch.special.gammainc(freedom, left.clamp_min(0) / 2)
    else:
        by_tolerance = (left >= 0).double()
    return (1 - (1 - by_ratio) * (1 - by_tolerance)) @ weight / weight.sum()


class TestClosedForm:
    @pytest.mark.parametrize("rule", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
    @pytest.mark.parametrize("mse", [0.02, 0.15, 0.6])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 4)], ids=str)
    def test_the_predicted_acceptance_is_the_simulated_one(
        self, rule: Acceptance, mse: float, shape: tuple[int, int]
    ) -> None:
        predicted = rule.probability(
            torch.tensor(mse, dtype=torch.float64), dimensions=shape[0] * shape[1]
        )
        happened = simulated(rule, mse=mse, variates=shape[0], steps=shape[1])
        assert predicted.item() == pytest.approx(happened, abs=0.01)

    @pytest.mark.parametrize(("dimensions", "points"), [(1, 80_001), (3, 20_001), (96, 801)])
    @pytest.mark.parametrize("bias", [1 / 3, 0.999, 3.0])
    def test_a_sample_within_a_tolerance_is_as_likely_as_the_integral_over_its_noise_tells(
        self, dimensions: int, points: int, bias: float
    ) -> None:
        for sigma, mse_tol in itertools.product((0.3, 1.0), (0.0, 0.1, 1.0)):
            reach = math.sqrt(dimensions * mse_tol) / sigma + 8
            distance = torch.linspace(0, 1, 24).double().square() * reach
            rule = Gaussian(sigma=sigma, bias=bias, mse_tol=mse_tol, **SAMPLING)
            told = rule.chance((distance * sigma).square() / dimensions, dimensions=dimensions)
            most = dimensions * mse_tol / sigma**2
            theory = integrated(distance, dimensions, bias=bias, most=most, points=points)
            assert torch.allclose(told, theory, rtol=0, atol=1e-4)

    def test_lossless_accepts_twice_the_normal_tail_at_half_the_distance(self) -> None:
        rule = Lossless(sigma=0.5)
        mse = torch.tensor([0.0, 1e-4, 0.01, 0.1, 1.0], dtype=torch.float64)
        distance = (mse * 24).sqrt() / 0.5
        theory = 2 * torch.special.ndtr(-distance / 2)
        assert torch.allclose(rule.probability(mse, dimensions=24), theory, atol=1e-4)

    @pytest.mark.parametrize("rule", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
    def test_a_draft_farther_off_is_never_accepted_more_often(self, rule: Acceptance) -> None:
        mse = torch.linspace(0, 3, 200)
        probability = rule.probability(mse, dimensions=12)
        assert probability.shape == mse.shape
        assert torch.all((probability >= 0) & (probability <= 1))
        assert torch.all(probability.diff() <= 1e-6)

    @pytest.mark.parametrize("mse", [0.1, 5.0, 49.0])
    def test_the_lenient_setting_of_the_original_study_accepts_every_mean(self, mse: float) -> None:
        rule = Gaussian(sigma=10, bias=100, mse_tol=50)
        assert simulated(rule, mse=mse, variates=7, steps=96, draws=200) == 1.0
        assert rule.probability(torch.tensor(mse), dimensions=672) == 1.0

    def test_the_lenient_setting_of_the_original_study_accepts_every_sample_near_the_target(
        self,
    ) -> None:
        rule = Gaussian(sigma=10, bias=100, mse_tol=50, **SAMPLING)
        assert simulated(rule, mse=0.3, variates=1, steps=96, draws=10_000) == 1.0
        predicted = rule.probability(torch.tensor(0.3), dimensions=96)
        assert predicted.item() == pytest.approx(1.0, abs=1e-5)

    def test_a_quorum_of_independent_variates_is_the_binomial_tail(self) -> None:
        rule = Gaussian(sigma=0.5, bias=1.0, scope="variate", quorum=0.5)
        mse_C = torch.full((2, 4), -2 * 0.5**2 * math.log(0.3), dtype=torch.float64)
        assert rule.probability(mse_C, dimensions=8) == pytest.approx(0.3)
        tail = 1 - 0.7**4 - 4 * 0.3 * 0.7**3
        assert rule.patch_probability(mse_C, steps=8).tolist() == pytest.approx([tail, tail])

    @pytest.mark.parametrize("rule", EXAMPLES.values(), ids=EXAMPLES)
    def test_a_forced_acceptance_is_of_the_patch_whatever_the_rule(self, rule: Acceptance) -> None:
        forced = replace(rule, forced=0.7)
        assert (
            forced.patch_probability(torch.zeros(2, 3), steps=5).tolist()
            == [pytest.approx(0.7)] * 2
        )
        rates = [Case(forced).judged(seed=seed, limit=1).accepted_B for seed in range(500)]
        assert torch.stack(rates).double().mean().item() == pytest.approx(0.7, abs=0.03)

    def test_a_quorum_asks_for_that_share_of_the_variates(self) -> None:
        mean = torch.zeros(4, 2, 3, 5)
        proposal = torch.zeros(4, 1, 3, 5)
        for row in range(4):
            proposal[row, 0, :row] = 1.0  # as many variates off as the row's number
        ones = torch.ones_like(mean)
        for quorum, least in ((1 / 3, 1), (0.5, 2), (2 / 3, 2), (1.0, 3)):
            rule = Tolerance(mse_tol=0.5, scope="variate", quorum=quorum)
            verdict = rule.verdict(
                proposal,
                draft=Normal(proposal, ones[:, :1]),
                target=Normal(mean, ones),
                unit_BMC1=torch.ones(4, 2, 1, 1),
                limit_B=torch.ones(4, dtype=torch.int64),
            )
            assert verdict.accepted_B.tolist() == [int(3 - off >= least) for off in range(4)]


DRAWS = 100_000
TARGET_MEAN = torch.tensor([0.3, -0.5])
DRAFT_MEAN = torch.tensor([1.1, 0.2])


def one_round(rule: Acceptance, *, unequal: bool, seed: int) -> tuple[Tensor, Tensor, float]:
    """What is emitted first [draws, 2], fresh draws of the target, and the acceptance rate."""
    generator = seeded(seed)
    target_deviation = torch.tensor([1.0, 1.0])
    draft_deviation = torch.tensor([0.7, 1.4]) if unequal else target_deviation

    def wide(values: Tensor, positions: int) -> Tensor:
        return values.expand(DRAWS, positions, 1, 2)

    draft = Normal(wide(DRAFT_MEAN, 1), wide(draft_deviation, 1))
    target = Normal(wide(TARGET_MEAN, 2), wide(target_deviation, 2))
    verdict = rule.verdict(
        draft.sample(generator),
        draft=draft,
        target=target,
        unit_BMC1=torch.ones(DRAWS, 2, 1, 1),
        limit_B=torch.ones(DRAWS, dtype=torch.int64),
        same_deviation=not unequal,
        generator=generator,
    )
    fresh = target.sample(seeded(seed + 1000))[:, 0, 0]
    return verdict.emitted_BMCP[:, 0, 0], fresh, verdict.accepted_B.double().mean().item()


def p_value(x: Tensor, y: Tensor) -> float:
    """That two samples [draws, dims] are of one distribution: means, covariances and tails.

    The smallest p of its z-tests, times their number (Bonferroni).
    """
    apart = DRAFT_MEAN - TARGET_MEAN if x.shape[1] == 2 else torch.ones(x.shape[1])
    centre, x, y, apart = y.double().mean(0), x.double(), y.double(), apart.double()

    def features(z: Tensor) -> Tensor:
        z = z - centre
        pairs = torch.triu_indices(z.shape[1], z.shape[1])
        along = z @ apart / apart.norm()
        tails = [along > 1, along > 2, along < -1, along < -2, *(z.abs() > 2).unbind(1)]
        products = z[:, pairs[0]] * z[:, pairs[1]]
        return torch.cat((z, products, torch.stack(tails, 1).double()), 1)

    ours, theirs = features(x), features(y)
    error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    z = (ours.mean(0) - theirs.mean(0)) / error
    p = 2 * torch.special.ndtr(-z.abs())
    return min(1.0, (p.min() * len(p)).item())


class TestLossless:
    rule = Lossless(sigma=1.0)
    redraw = Gaussian(sigma=1.0, bias=1.0, **SAMPLING)

    @pytest.mark.parametrize("unequal", [False, True], ids=["reflection", "residual"])
    def test_its_output_is_distributed_as_the_targets_own_samples(self, unequal: bool) -> None:
        emitted, fresh, rate = one_round(self.rule, unequal=unequal, seed=21)
        assert 0.3 < rate < 0.9
        assert p_value(emitted, fresh) > 0.01

    @pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
    def test_drawing_a_rejected_proposal_anew_is_not_lossless(self, unequal: bool) -> None:
        """What rule `gaussian` does at bias 1; the same test tells it from the target."""
        emitted, fresh, rate = one_round(self.redraw, unequal=unequal, seed=21)
        assert 0.3 < rate < 0.9
        assert p_value(emitted, fresh) < 1e-6

    def test_the_reflection_and_the_residual_accept_as_often(self) -> None:
        """Both are maximal couplings: acceptance is one less the total variation."""
        _, _, equal = one_round(self.rule, unequal=False, seed=4)
        distance = (DRAFT_MEAN - TARGET_MEAN).norm().item()
        assert equal == pytest.approx(math.erfc(distance / 2 / math.sqrt(2)), abs=0.006)

    def test_what_is_accepted_is_the_proposal_and_nothing_else_is(self) -> None:
        case = Case(EXAMPLES["lossless"])
        verdict = case.judged()
        same_BK = (verdict.emitted_BMCP[:, :-1] == case.proposal).all(-1).all(-1)
        for row, accepted in enumerate(verdict.accepted_B.tolist()):
            assert same_BK[row, :accepted].all()
            if accepted < case.limit[row]:
                assert not same_BK[row, accepted]


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("rule", {"rule": "strict"}),
        ("mse_tol", {"rule": "tolerance"}),
        ("sigma", {"rule": "gaussian", "bias": 1.0}),
        ("bias", {"rule": "gaussian", "sigma": 1.0}),
        ("sigma", {"rule": "lossless", **SAMPLING}),
        ("sigma", {"rule": "tolerance", "mse_tol": 0.1, "sigma": 1.0}),
        ("bias", {"rule": "tolerance", "mse_tol": 0.1, "bias": 1.0}),
        ("bias", {"rule": "lossless", "sigma": 1.0, "bias": 2.0, **SAMPLING}),
        ("mse_tol", {"rule": "lossless", "sigma": 1.0, "mse_tol": 0.1, **SAMPLING}),
        ("mse_tol", {"rule": "tolerance", "mse_tol": -0.1}),
        ("mse_tol", {"rule": "tolerance", "mse_tol": float("nan")}),
        ("sigma", {"rule": "gaussian", "sigma": -1.0, "bias": 1.0}),
        ("sigma", {"rule": "gaussian", "sigma": 0.0, "bias": 1.0}),
        ("bias", {"rule": "gaussian", "sigma": 1.0, "bias": 0.0}),
        ("bias", {"rule": "gaussian", "sigma": 1.0, "bias": float("inf")}),
        ("lookahead", {"rule": "tolerance", "mse_tol": 0.1, "lookahead": 0}),
        ("propose", {"rule": "lossless", "sigma": 1.0, "propose": "mean"}),
        ("propose", {"rule": "tolerance", "mse_tol": 0.1, **SAMPLING}),
        ("propose", {"rule": "gaussian", "sigma": 1.0, "bias": 1.0, "propose": "median"}),
        ("emit", {"rule": "gaussian", "sigma": 1.0, "bias": 1.0, "propose": "sample"}),
        ("emit", {"rule": "tolerance", "mse_tol": 0.1, "emit": "both"}),
        ("scope", {"rule": "lossless", "sigma": 1.0, "scope": "variate", "quorum": 1, **SAMPLING}),
        ("scope", {"rule": "tolerance", "mse_tol": 0.1, "scope": "patch"}),
        ("forced", {"rule": "tolerance", "mse_tol": 0.1, "forced": 1.5}),
        ("quorum", {"rule": "tolerance", "mse_tol": 0.1, "quorum": 0.5}),
        ("quorum", {"rule": "tolerance", "mse_tol": 0.1, "scope": "variate"}),
        ("quorum", {"rule": "tolerance", "mse_tol": 0.1, "scope": "variate", "quorum": 0.0}),
        ("quorum", {"rule": "tolerance", "mse_tol": 0.1, "scope": "variate", "quorum": 1.1}),
    ],
)
def test_a_setting_that_is_missing_impossible_or_without_effect_is_refused_by_name(
    field: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match=rf"^{field} [^\n]*$"):
        rule_from(settings)


@pytest.mark.parametrize("rule", EXAMPLES.values(), ids=EXAMPLES)
def test_a_rule_is_its_own_fields_and_comes_back_from_them(rule: Acceptance) -> None:
    fields = asdict(rule)
    assert RULES[fields["rule"]] is type(rule)
    assert ("sigma" in fields) == (rule.rule != "tolerance")
    assert rule_from(fields) == rule == rule_from(json.loads(json.dumps(fields)))


def test_what_a_rule_has_no_use_for_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="sigma"):
        Tolerance(mse_tol=0.1, sigma=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="bias"):
        Lossless(sigma=0.1, bias=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="mse_tol"):
        Tolerance()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="abstract"):
        Acceptance(rule="tolerance")  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"rule": "tolerance", "mse_tol": 0.3, "propose": "mean"}, Tolerance(mse_tol=0.3)),
        ({"mse_tol": 0.3}, Tolerance(mse_tol=0.3)),
        ({"rule": "gaussian", "sigma": 1, "bias": 2, "mse_tol": None}, Gaussian(sigma=1, bias=2)),
        ({"rule": "lossless", "sigma": 1.0, **SAMPLING, "scope": "joint"}, Lossless(sigma=1.0)),
    ],
)
def test_nulls_and_what_the_rule_does_anyway_are_read_as_nothing(
    fields: dict[str, Any], rule: Acceptance
) -> None:
    """As version 0.1 wrote every rule."""
    unused = dict.fromkeys(("sigma", "bias", "mse_tol", "quorum", "forced"))
    needed = {name: value for name, value in unused.items() if name not in fields}
    assert rule_from({**needed, **fields}) == rule


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("lookahead", 2.5, "a whole number"),
        ("lookahead", True, "a whole number"),
        ("adapt", "False", "true or false"),
        ("adapt", 1, "true or false"),
        ("sigma", "0.5", "a number"),
        ("sigma", True, "a number"),
        ("sigma", 10**400, "finite"),
        ("quorum", "most", "a number or null"),
        ("scope", None, "one of joint, variate"),
        ("lookahed", 3, "did you mean lookahead?"),
        ("warp", 3, "known are rule, lookahead"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_would_do(
    name: str, value: Any, wanted: str
) -> None:
    fields = {"rule": "gaussian", "sigma": 0.5, "bias": 1.0, name: value}
    with pytest.raises(InvalidInput, match=rf"^{name} is [^\n]*{re.escape(wanted)}") as refusal:
        rule_from(fields)
    assert len(str(refusal.value)) < 200
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


def test_two_rules_cannot_go_by_one_name() -> None:
    with pytest.raises(TypeError, match="'tolerance' is there already"):

        class Another(Tolerance):
            rule: Literal["tolerance"] = "tolerance"
