"""Claims about judging a pair: the models stay as they are, and a rule is judged as it is used."""

import copy

import pytest
import torch
from torch import Tensor

from foredraft.data.spacing import evenly_spaced
from foredraft.judge import evaluate
from foredraft.settings.config import Evaluation
from speculation import Plan, Speculation, Tolerance, speculate
from speculation.cost import PassCosts
from timer_xl import TimerXL, TimerXLConfig

TINY = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
CPU = torch.device("cpu")


def tiny_model(seed: int = 0) -> TimerXL:
    torch.manual_seed(seed)
    return TimerXL(TINY).eval()


def moved(model: TimerXL, amount: float) -> TimerXL:
    near, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in near.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(amount * weight.abs().mean() * noise)
    return near


def walks(count: int, *, steps: int, seed: int = 0) -> Tensor:
    """Random walks, half of them loud at the end: some are easier to draft than others."""
    generator = torch.Generator().manual_seed(seed)
    steps_WTC = torch.randn(count, steps, 2, generator=generator)
    steps_WTC[::2] *= torch.linspace(0, 3, steps)[:, None]
    return steps_WTC.cumsum(1)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_is_made_ready_stays_as_it_is(training: bool) -> None:
    """So it may be in training, or be made ready in another precision afterwards."""
    model = tiny_model().train(training)
    before = copy.deepcopy(model.state_dict())
    engine = evaluate.ready(model, Evaluation(data="-", dtype="bf16"), CPU)
    assert engine.dtype == torch.bfloat16
    assert model.training is training
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])
    model(torch.zeros(1, 4, 2, 8)).mean.sum().backward()
    assert model.head.weight.grad is not None


def test_a_model_that_is_made_ready_is_rounded_to_the_type_that_was_asked_for() -> None:
    model = tiny_model()
    half = evaluate.cast(model, device=CPU, dtype=torch.bfloat16)
    for name, weight in model.state_dict().items():
        assert torch.equal(half.state_dict()[name], weight.bfloat16())
    assert half.config == model.config
    same = evaluate.cast(model, device=CPU, dtype=torch.float32)
    assert same.head.weight.data_ptr() == model.head.weight.data_ptr()


def test_a_rule_that_adapts_is_judged_at_the_batch_at_which_it_is_used() -> None:
    """Its lookahead is one for the whole batch; any other rule decodes many at once."""
    target = evaluate.ready(tiny_model(), Evaluation(data="-"), CPU)
    draft = evaluate.ready(moved(tiny_model(), 0.1), Evaluation(data="-"), CPU)
    series_WTC = walks(24, steps=32 + 160)
    windows = evaluate.EvaluationWindows(series_WTC[:, :32], series_WTC[:, 32:])
    lookaheads = range(9)
    costs = PassCosts(
        batches=(1,),
        step_s=(1.0,),
        verify_s=(tuple(1 + 0.1 * index for index in lookaheads),),
        draft_s=(tuple(0.1 * index for index in lookaheads),),
        step_anchor_s=(0.0,),
        round_anchor_s=(0.0,),
    )
    plan = Plan(costs, (0.8,) * 8)
    rule = Tolerance(mse_tol=0.03, lookahead=8, adapt=True)

    def judged(batch: int) -> evaluate.PairRow:
        evaluation = Evaluation(data="-", horizon=160, batch=batch)
        alone_WHC = evaluate.forecast_alone(target, windows, evaluation=evaluation)
        return evaluate.judge_pair(
            target, draft, rule, windows, evaluation=evaluation, alone_WHC=alone_WHC, plan=plan
        )

    def used(batch: int) -> list[Speculation]:
        return [
            speculate(target, draft, context_BTC, horizon=160, acceptance=rule, plan=plan)
            for context_BTC in windows.context_WTC.split(batch)
        ]

    lengths = {}
    for batch in (1, 6, 24):
        expected = torch.stack([one.accept_lengths for one in used(batch)]).sum(0).tolist()
        lengths[batch] = judged(batch).accept_lengths
        assert lengths[batch] == expected
    assert lengths[1] != lengths[24]


@pytest.mark.parametrize("total", [2**24 + 1, 20_000_000, 3_000_000_000])
@pytest.mark.parametrize("count", [1, 2, 64, 1_000])
def test_windows_are_spaced_evenly_however_many_there_are(total: int, count: int) -> None:
    index = evenly_spaced(total, count=count)
    assert index[0] == 0
    if count > 1:
        assert index[-1] == total - 1
        gaps = index.diff()
        assert int(gaps.max() - gaps.min()) <= 1


def test_windows_are_the_ones_that_they_have_always_been() -> None:
    for total in (1, 2, 9, 64, 2173, 8377, 100_000, 2**24):
        for count in (1, 2, 8, 32, 64, 256):
            if count <= total:
                index = evenly_spaced(total, count=count)
                assert torch.equal(index, torch.linspace(0, total - 1, count).long())
                assert len(index.unique()) == count
