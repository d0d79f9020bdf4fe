"""Claims about choosing the lookahead: what pays is proposed, what does not is left alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from speculation import ContextPolicy, Plan, Tolerance, rollout, speculate
from speculation.cost import PassCosts, predicted_speedup
from speculation.plan import Lookahead
from timer_xl import TimerXL

Make = Callable[..., TimerXL]
MakeSeries = Callable[..., Tensor]


def costs(*, draft: float, verify: float, lookahead: int = 7) -> PassCosts:
    """One-pass draft: `draft` target steps a round; each patch more to verify costs `verify`."""
    steps = range(lookahead + 1)
    return PassCosts(
        batches=(1,),
        step_s=(1.0,),
        verify_s=(tuple(1.0 + verify * k for k in steps),),
        draft_s=(tuple(draft if k else 0.0 for k in steps),),
        step_anchor_s=(0.0,),
        round_anchor_s=(0.0,),
    )


CHEAP, DEAR = costs(draft=0.2, verify=0.05), costs(draft=1.2, verify=0.9)


def test_the_best_lookahead_is_the_one_of_the_highest_predicted_speedup() -> None:
    plan = Plan(costs(draft=0.3, verify=0.25), (0.8,) * 7)
    best, speedup = plan.best(patches=15)
    every = [
        predicted_speedup(plan.costs, plan.pass_rates, lookahead=k, patches=15) for k in range(1, 8)
    ]
    assert speedup == max(every) == every[best - 1]
    assert 1 < best < 7


@pytest.mark.parametrize("plan", [Plan(DEAR, (1.0,) * 7), Plan(CHEAP, (0.05,) * 7)])
def test_where_nothing_pays_no_lookahead_is_best(plan: Plan) -> None:
    assert plan.best(patches=15) == (0, 1.0)


def test_a_sample_that_is_accepted_less_is_given_a_shorter_lookahead() -> None:
    plan = Plan(costs(draft=0.2, verify=0.2), (0.9,) * 7)
    chooser, room = Lookahead(plan, room_B=torch.tensor([100]), longest=7), torch.tensor([100])
    lengths = [chooser.choose(room)]
    for _ in range(12):
        chooser.observe(torch.tensor([lengths[-1]]), torch.tensor([0]))
        lengths.append(chooser.choose(room))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 2
    assert lengths[-1] == 0


def test_a_lookahead_is_never_longer_than_what_is_left() -> None:
    chooser = Lookahead(Plan(CHEAP, (1.0,) * 7), room_B=torch.tensor([4, 2]), longest=7)
    assert chooser.choose(torch.tensor([4, 2])) == 3
    assert chooser.choose(torch.tensor([1, 1])) == 0


def test_samples_that_leave_take_their_record_along() -> None:
    plan = Plan(costs(draft=0.2, verify=0.2), (0.7,) * 7)
    both = Lookahead(plan, room_B=torch.tensor([9, 9]), longest=7)
    both.observe(torch.tensor([7, 7]), torch.tensor([0, 7]))
    both.select(torch.tensor([1]))
    alone = Lookahead(plan, room_B=torch.tensor([9]), longest=7)
    alone.observe(torch.tensor([7]), torch.tensor([7]))
    assert both.choose(torch.tensor([9])) == alone.choose(torch.tensor([9]))


@pytest.mark.parametrize("policy", [ContextPolicy(), ContextPolicy("cached", renorm_every=3)])
@pytest.mark.parametrize(
    "plan", [Plan(costs(draft=0.5, verify=0.3), (0.9,) * 7), Plan(DEAR, (0.9,) * 7)]
)
def test_an_adapting_draft_that_is_never_accepted_changes_nothing(
    make_model: Make, make_series: MakeSeries, policy: ContextPolicy, plan: Plan
) -> None:
    target, draft, context = make_model(), make_model(seed=5), make_series(4)
    rule = Tolerance(mse_tol=0.0, lookahead=7, adapt=True)
    ours = speculate(target, draft, context, horizon=120, acceptance=rule, policy=policy, plan=plan)
    alone = rollout(target, context, horizon=120, policy=policy)
    assert torch.allclose(ours.forecast_BTC, alone, atol=1e-5)
    assert int(ours.accept_lengths[1]) == 4 * 15
    fixed = speculate(
        target, draft, context, horizon=120, acceptance=replace(rule, adapt=False), policy=policy
    )
    assert ours.proposed < fixed.proposed


def test_a_plan_that_pays_proposes_and_one_that_does_not_leaves_the_target_alone(
    make_model: Make, make_series: MakeSeries
) -> None:
    target, context = make_model(), make_series()
    rule = Tolerance(mse_tol=1e-6, lookahead=5, adapt=True)
    pays, not_worth = (
        speculate(target, target, context, horizon=96, acceptance=rule, plan=Plan(c, (1.0,) * 7))
        for c in (CHEAP, DEAR)
    )
    assert pays.acceptance_rate == 1.0
    assert pays.passes == 2
    assert not_worth.proposed == 0
    assert not_worth.passes == 12
    assert torch.allclose(pays.forecast_BTC, not_worth.forecast_BTC, atol=1e-5)


@pytest.mark.parametrize(("adapt", "plan"), [(True, None), (False, Plan(CHEAP, (0.5,)))])
def test_a_plan_goes_with_a_rule_that_adapts_and_only_with_one(
    make_model: Make, make_series: MakeSeries, adapt: bool, plan: Plan | None
) -> None:
    model, rule = make_model(), Tolerance(mse_tol=0.1, adapt=adapt)
    with pytest.raises(ValueError, match="plan"):
        speculate(model, model, make_series(), horizon=16, acceptance=rule, plan=plan)
