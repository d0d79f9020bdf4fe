"""Claims about the acceptance rules: one contract for all, closed forms, and exactness."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from speculation import Acceptance, acceptance_probability
from speculation.distribution import Gaussian
from speculation.rules import Verdict, judge

BATCH, PROPOSALS, VARIATES, PATCH = 6, 4, 3, 5
SAMPLING: dict[str, Any] = {"propose": "sample", "emit": "draft"}

RULES = {
    "tolerance": Acceptance("tolerance", mse_tol=0.3),
    "tolerance_draft": Acceptance("tolerance", mse_tol=0.3, emit="draft"),
    "tolerance_quorum": Acceptance("tolerance", mse_tol=0.3, scope="variate", quorum=0.5),
    "gaussian_mean": Acceptance("gaussian", sigma=0.4, bias=1.0),
    "gaussian_mean_draft": Acceptance("gaussian", sigma=0.4, bias=1.0, emit="draft"),
    "gaussian_sample": Acceptance("gaussian", sigma=0.8, bias=1.0, **SAMPLING),
    "gaussian_sample_tol": Acceptance("gaussian", sigma=0.8, bias=1.0, mse_tol=0.4, **SAMPLING),
    "gaussian_quorum": Acceptance("gaussian", sigma=0.4, bias=1.0, scope="variate", quorum=1 / 3),
    "lossless": Acceptance("lossless", sigma=0.8, **SAMPLING),
}
MEAN_RULES = {name: rule for name, rule in RULES.items() if rule.propose == "mean"}
DRAWLESS_RULES = {name: rule for name, rule in RULES.items() if rule.rule == "tolerance"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Case:
    """One round: what the draft and the target expect, and what is proposed."""

    def __init__(self, rule: Acceptance, *, apart: float = 0.5, own_deviations: bool = False):
        generator = seeded(11)
        shape = (BATCH, PROPOSALS + 1, VARIATES, PATCH)
        self.rule = rule
        self.unit = 0.5 + torch.rand(BATCH, PROPOSALS + 1, VARIATES, 1, generator=generator)
        mean = torch.randn(shape, generator=generator)
        sigma = 1.0 if rule.sigma is None else rule.sigma
        deviation = (sigma * self.unit).expand(shape)
        self.target = Gaussian(mean, deviation)
        # The farther down the batch and the lookahead, the farther is the draft from the target.
        grade = torch.linspace(0, 2, BATCH)[:, None] * torch.linspace(0.5, 1.5, PROPOSALS)
        noise = torch.randn(mean[:, 1:].shape, generator=generator)
        off = apart * grade[..., None, None] * noise * self.unit[:, 1:]
        factor = 0.8 if own_deviations else 1.0
        self.draft = Gaussian(mean[:, :-1] + off, factor * deviation[:, :-1])
        self.same_deviation = not own_deviations
        sampled = self.draft.sample(generator)
        self.proposal = self.draft.mean if rule.propose == "mean" else sampled
        self.limit = torch.tensor([4, 4, 3, 2, 4, 1])

    def judged(
        self, *, rows: slice = slice(None), seed: int = 5, limit: int | None = None
    ) -> Verdict:
        limit_B = self.limit if limit is None else torch.full_like(self.limit, limit)
        return judge(
            self.rule,
            self.proposal[rows],
            draft=Gaussian(self.draft.mean[rows], self.draft.deviation[rows]),
            target=Gaussian(self.target.mean[rows], self.target.deviation[rows]),
            unit_BMC1=self.unit[rows],
            limit_B=limit_B[rows],
            same_deviation=self.same_deviation,
            generator=seeded(seed),
        )


@pytest.fixture(params=RULES.values(), ids=RULES)
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
        case.draft = Gaussian(case.draft.mean + 50.0, case.draft.deviation)
        assert case.judged().accepted_B.sum() == 0

    def test_a_limit_of_nothing_accepts_nothing(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        verdict = case.judged(limit=0)
        assert verdict.accepted_B.sum() == 0
        if rule.propose == "mean":
            assert torch.equal(verdict.emitted_BMCP[:, 0], case.target.mean[:, 0])

    def test_the_first_rejection_ends_the_prefix(self, rule: Acceptance) -> None:
        case = Case(rule, apart=0.0)
        moved = torch.zeros(PROPOSALS)[:, None, None]
        moved[1] = 50.0
        case.proposal = case.proposal + moved
        case.draft = Gaussian(case.draft.mean + moved, case.draft.deviation)
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
        source = case.proposal if rule.emit == "draft" else case.target.mean
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
        other.draft = Gaussian(*(8.0 * part for part in other.draft))
        other.target = Gaussian(*(8.0 * part for part in other.target))
        ours, theirs = case.judged(), other.judged()
        assert torch.equal(ours.accepted_B, theirs.accepted_B)
        assert torch.allclose(8.0 * ours.emitted_BMCP, theirs.emitted_BMCP, rtol=1e-4, atol=1e-4)


def simulated(
    rule: Acceptance, *, mse: float, variates: int, steps: int, draws: int = 40_000, seed: int = 0
) -> float:
    """How often `judge` accepts a proposal whose mean is at a mean squared distance of `mse`."""
    generator, unit = seeded(seed), 2.5
    shape = (draws, 1, variates, steps)
    direction = torch.randn(shape[1:], generator=generator)
    apart = unit * math.sqrt(mse) * direction / direction.square().mean().sqrt()
    deviation = torch.full(shape, unit * (1.0 if rule.sigma is None else rule.sigma))
    draft = Gaussian(7.0 + apart.expand(shape), deviation)
    target = Gaussian(torch.full((draws, 2, *shape[2:]), 7.0), deviation.expand(-1, 2, -1, -1))
    verdict = judge(
        rule,
        draft.mean if rule.propose == "mean" else draft.sample(generator),
        draft=draft,
        target=target,
        unit_BMC1=torch.full((draws, 2, variates, 1), unit),
        limit_B=torch.ones(draws, dtype=torch.int64),
        same_deviation=True,
        generator=generator,
    )
    return verdict.accepted_B.double().mean().item()


CLOSED_FORMS = {
    "mean": Acceptance("gaussian", sigma=0.5, bias=1.0),
    "mean_strict": Acceptance("gaussian", sigma=0.7, bias=1 / 3),
    "mean_tolerant": Acceptance("gaussian", sigma=0.5, bias=0.8, mse_tol=0.3),
    "sample": Acceptance("gaussian", sigma=0.6, bias=1.0, **SAMPLING),
    "sample_strict": Acceptance("gaussian", sigma=0.6, bias=1 / 3, **SAMPLING),
    "sample_lenient": Acceptance("gaussian", sigma=0.6, bias=3.0, **SAMPLING),
    "sample_tolerant": Acceptance("gaussian", sigma=0.6, bias=1 / 3, mse_tol=0.45, **SAMPLING),
    "tolerance": Acceptance("tolerance", mse_tol=0.3),
    "lossless": Acceptance("lossless", sigma=0.6, **SAMPLING),
    "forced": Acceptance("tolerance", mse_tol=0.0, forced=0.7),
}


class TestClosedForm:
    @pytest.mark.parametrize("rule", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
    @pytest.mark.parametrize("mse", [0.02, 0.15, 0.6])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 4)], ids=str)
    def test_the_predicted_acceptance_is_the_simulated_one(
        self, rule: Acceptance, mse: float, shape: tuple[int, int]
    ) -> None:
        predicted = acceptance_probability(
            rule, torch.tensor(mse, dtype=torch.float64), dimensions=shape[0] * shape[1]
        )
        happened = simulated(rule, mse=mse, variates=shape[0], steps=shape[1])
        assert predicted.item() == pytest.approx(happened, abs=0.01)

    def test_lossless_accepts_twice_the_normal_tail_at_half_the_distance(self) -> None:
        rule = Acceptance("lossless", sigma=0.5, **SAMPLING)
        mse = torch.tensor([0.0, 1e-4, 0.01, 0.1, 1.0], dtype=torch.float64)
        distance = (mse * 24).sqrt() / 0.5
        theory = 2 * torch.special.ndtr(-distance / 2)
        assert torch.allclose(acceptance_probability(rule, mse, dimensions=24), theory, atol=1e-4)

    @pytest.mark.parametrize("rule", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
    def test_a_draft_farther_off_is_never_accepted_more_often(self, rule: Acceptance) -> None:
        mse = torch.linspace(0, 3, 200)
        probability = acceptance_probability(rule, mse, dimensions=12)
        assert probability.shape == mse.shape
        assert torch.all((probability >= 0) & (probability <= 1))
        assert torch.all(probability.diff() <= 1e-6)

    @pytest.mark.parametrize("mse", [0.1, 5.0, 49.0])
    def test_the_lenient_setting_of_the_original_study_accepts_every_mean(self, mse: float) -> None:
        rule = Acceptance("gaussian", sigma=10, bias=100, mse_tol=50)
        assert simulated(rule, mse=mse, variates=7, steps=96, draws=200) == 1.0
        assert acceptance_probability(rule, torch.tensor(mse), dimensions=672) == 1.0

    def test_the_lenient_setting_of_the_original_study_accepts_every_sample_near_the_target(
        self,
    ) -> None:
        rule = Acceptance("gaussian", sigma=10, bias=100, mse_tol=50, **SAMPLING)
        assert simulated(rule, mse=0.3, variates=1, steps=96, draws=10_000) == 1.0
        predicted = acceptance_probability(rule, torch.tensor(0.3), dimensions=96)
        assert predicted.item() == pytest.approx(1.0, abs=1e-5)

    def test_a_quorum_asks_for_that_share_of_the_variates(self) -> None:
        mean = torch.zeros(4, 2, 3, 5)
        proposal = torch.zeros(4, 1, 3, 5)
        for row in range(4):
            proposal[row, 0, :row] = 1.0  # as many variates off as the row's number
        ones = torch.ones_like(mean)
        for quorum, least in ((1 / 3, 1), (0.5, 2), (2 / 3, 2), (1.0, 3)):
            verdict = judge(
                Acceptance("tolerance", mse_tol=0.5, scope="variate", quorum=quorum),
                proposal,
                draft=Gaussian(proposal, ones[:, :1]),
                target=Gaussian(mean, ones),
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

    draft = Gaussian(wide(DRAFT_MEAN, 1), wide(draft_deviation, 1))
    target = Gaussian(wide(TARGET_MEAN, 2), wide(target_deviation, 2))
    verdict = judge(
        rule,
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
    rule = Acceptance("lossless", sigma=1.0, **SAMPLING)
    redraw = Acceptance("gaussian", sigma=1.0, bias=1.0, **SAMPLING)

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
        case = Case(RULES["lossless"])
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
        ("propose", {"rule": "lossless", "sigma": 1.0}),
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
    with pytest.raises(ValueError, match=rf"\b{field}\b[^\n]*$"):
        Acceptance(**settings)
