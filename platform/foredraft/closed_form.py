"""What a rule would accept, from cached means alone: no decoding, a millisecond a rule.

    distances = draft_distances(target, draft, windows, lookahead=7, evaluation=evaluation)
    row = expected_row(distances, rule, patches=8, steps=96)

How far the draft's proposals are from the target's means does not depend on the rule. They are
measured once per draft along the target's own forecast; any rule's acceptance then follows in
closed form. What is left out is that a forecast which accepted proposals drifts from the target's
own, so this serves to leave out what is hopeless and not to judge what is good.

Shapes: W windows, S starts in the horizon, K proposals, C variates, P patch length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foredraft.config import Evaluation
from foredraft.evaluate import EvaluationWindows, PairRow
from timer_xl import Acceptance, Engine, cost
from timer_xl.acceptance import acceptance_probability
from timer_xl.decode import Pair


@torch.no_grad()
def draft_distances(
    target: Engine,
    draft: Engine,
    windows: EvaluationWindows,
    *,
    lookahead: int,
    evaluation: Evaluation,
) -> Tensor:
    """Mean squared distances [W, S, K, C] of proposals to the target's means, in RevIN units.

    Not a number where the horizon or an anchor leaves no room for a proposal.
    """
    patches = -(-evaluation.horizon // target.config.patch)
    context_BTC = windows.context_WTC.to(target.device)
    # The rule is not asked: the target's own next patch is what follows each start.
    pair = Pair(
        target,
        draft,
        context_BTC,
        patches=patches,
        acceptance=Acceptance(mse_tol=0.0, lookahead=lookahead),
        policy=evaluation.policy,
    )
    shape = (len(context_BTC), patches - 1, lookahead, context_BTC.shape[2])
    distances_WSKC = torch.full(shape, math.nan)
    for start in range(patches - 1):
        count = int(pair.begin_round().max())
        proposal_BKCP, _ = pair.propose(count)
        outlook = pair.judging.predict(ahead=count, last=count + 1)
        apart = (proposal_BKCP - outlook.mean[:, :count]) / outlook.unit[:, :count]
        distances_WSKC[:, start, :count] = apart.square().mean(3).float().cpu()
        for context in (pair.judging, pair.drafting):
            context.keep(pair.history.end)
        pair.history.commit(outlook.mean, 1)
    return distances_WSKC


def expected_row(
    distances_WSKC: Tensor,
    rule: Acceptance,
    *,
    patches: int,
    steps: int,
    renorm_every: int = 0,
) -> PairRow:
    """The row that `judge_pair` would give, as far as closed forms go: errors are not numbers.

    Args:
        distances_WSKC: as `draft_distances` gives them, of at least the rule's lookahead.
        rule: the acceptance rule.
        patches: of the horizon.
        steps: time steps of a patch.
        renorm_every: patches between anchors.
    """
    lookahead = min(rule.lookahead, distances_WSKC.shape[2])
    accepted_WSK = _probabilities(distances_WSKC[:, :, :lookahead], rule, steps=steps)
    rates = _pass_rates(accepted_WSK)
    expected = {"lookahead": lookahead, "patches": patches, "renorm_every": renorm_every}
    rounds = cost.speculation_seconds(_counting(lookahead, by_proposal=False), rates, **expected)
    proposed = cost.speculation_seconds(_counting(lookahead, by_proposal=True), rates, **expected)
    return PairRow(
        acceptance_rate=(patches - rounds) / proposed if proposed else 0.0,
        accept_length=patches / rounds,
        accept_lengths=[],
        pass_rates=rates,
        mse=math.nan,
        mae=math.nan,
        mse_ratio=math.nan,
        deviation=math.nan,
    )


def _probabilities(distances_WSKC: Tensor, rule: Acceptance, *, steps: int) -> Tensor:
    """How probably each proposal alone is accepted, [W, S, K]."""
    if rule.scope == "joint":
        variates = distances_WSKC.shape[3]
        joint_WSK = distances_WSKC.mean(3)
        return acceptance_probability(rule, joint_WSK, dimensions=steps * variates)
    each_WSKC = acceptance_probability(rule, distances_WSKC, dimensions=steps)
    return _at_least(each_WSKC, math.ceil((rule.quorum or 1.0) * each_WSKC.shape[3] - 1e-9))


def _at_least(each_WSKC: Tensor, needed: int) -> Tensor:
    """Probability that at least `needed` of the independent variates accept."""
    counts = [torch.ones_like(each_WSKC[..., 0])]  # by how many have accepted so far
    for p in each_WSKC.unbind(-1):
        stay = [c * (1 - p) for c in counts] + [torch.zeros_like(p)]
        rise = [torch.zeros_like(p)] + [c * p for c in counts]
        counts = [a + b for a, b in zip(stay, rise, strict=True)]
    return torch.stack(counts[needed:]).sum(0)


def _pass_rates(accepted_WSK: Tensor) -> list[float]:
    """Per position, how often a proposal is accepted when all before it were."""
    known_WSK = ~accepted_WSK.isnan()
    accepted_WSK = accepted_WSK.nan_to_num().double()
    alive_WSK = torch.ones_like(accepted_WSK)
    alive_WSK[..., 1:] = accepted_WSK[..., :-1].cumprod(-1)
    alive_WSK = alive_WSK * known_WSK
    return cost.pass_rates(alive_WSK.sum((0, 1)), (alive_WSK * accepted_WSK).sum((0, 1)))


def _counting(lookahead: int, *, by_proposal: bool) -> cost.PassCosts:
    """Costs under which a forecast's expected seconds are its rounds, or its proposals."""
    price = tuple(float(k) if by_proposal else 1.0 for k in range(lookahead + 1))
    free = (0.0,) * (lookahead + 1)
    return cost.PassCosts((1,), (0.0,), (price,), (free,), (0.0,), (0.0,))
