"""What a rule would accept, from cached means alone: no decoding, a millisecond a rule.

    distances = draft_distances(target, draft, windows, lookahead=7, evaluation=evaluation)
    row = expected_row(distances, rule, steps=96)

How far the draft's proposals are from the target's means does not depend on the rule. They are
measured once per draft along the target's own forecast; any rule's acceptance then follows in
closed form. What is left out is that a forecast which accepted proposals drifts from the target's
own, so this serves to leave out what is hopeless and not to judge what is good.

Shapes: W windows, S starts in the horizon, K proposals, C variates, P patch length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft.judge.evaluate import EvaluationWindows, PairRow
from foredraft.settings.config import Evaluation
from speculation import Acceptance, Tolerance, cost
from speculation.decode import Pair
from speculation.forecaster import Forecaster


@torch.no_grad()
def draft_distances(
    target: Forecaster,
    draft: Forecaster,
    windows: EvaluationWindows,
    *,
    lookahead: int,
    evaluation: Evaluation,
) -> Tensor:
    """Mean squared distances [W, S, K, C] of proposals to the target's means, in its units.

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
        acceptance=Tolerance(mse_tol=0.0, lookahead=lookahead),
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


def expected_row(distances_WSKC: Tensor, rule: Acceptance, *, steps: int) -> PairRow:
    """The row that `judge_pair` would give, as far as closed forms go: errors are not numbers.

    Args:
        distances_WSKC: as `draft_distances` gives them, of at least the rule's lookahead.
        rule: the acceptance rule.
        steps: time steps of a patch.
    """
    apart_WSKC = distances_WSKC[:, :, : rule.lookahead]
    room_S = (~apart_WSKC[0, :, :, 0].isnan()).sum(1)
    accepted_WSK = rule.patch_probability(apart_WSKC.nan_to_num(), steps=steps)
    walk = _walk(accepted_WSK.double(), [*room_S.tolist(), 0])
    return PairRow(
        acceptance_rate=float(walk.passed_K.sum()) / walk.proposed if walk.proposed else 0.0,
        accept_length=(1 + apart_WSKC.shape[1]) * len(apart_WSKC) / walk.rounds,
        accept_lengths=[],
        pass_rates=cost.pass_rates(walk.tested_K, walk.passed_K),
        mse=math.nan,
        mae=math.nan,
        mse_ratio=math.nan,
        deviation=math.nan,
    )


class _Walk(NamedTuple):
    """What is to be expected of the forecasts of all windows together."""

    rounds: float
    proposed: float
    tested_K: Tensor
    passed_K: Tensor


def _walk(accepted_WSK: Tensor, room: list[int]) -> _Walk:
    """The expectation over all forecasts: a round that accepts k patches moves one by k + 1.

    Args:
        accepted_WSK: how probably each proposal alone is accepted.
        room: proposals that a round may make at each of the horizon's patches.
    """
    windows, starts, lookahead = accepted_WSK.shape
    at_WN = torch.zeros(windows, starts + 2, dtype=torch.float64)
    at_WN[:, 0] = 1.0
    tested_K, passed_K = (torch.zeros(lookahead, dtype=torch.float64) for _ in range(2))
    for start, limit in enumerate(room):
        alive_W = at_WN[:, start].clone()
        for k in range(limit):
            passed_W = alive_W * accepted_WSK[:, start, k]
            tested_K[k] += alive_W.sum()
            passed_K[k] += passed_W.sum()
            at_WN[:, start + k + 1] += alive_W - passed_W
            alive_W = passed_W
        at_WN[:, start + limit + 1] += alive_W
    rounds_N = at_WN[:, : len(room)].sum(0)
    proposed = float(rounds_N @ torch.tensor(room).double())
    return _Walk(float(rounds_N.sum()), proposed, tested_K, passed_K)
