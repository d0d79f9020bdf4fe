"""Rolling a forecast out: by the target alone (`rollout`), or by draft and target (`speculate`).

    forecast_BTC = rollout(target, context_BTC, horizon=720)
    speculation = speculate(target, draft, context_BTC, horizon=720, acceptance=rule)

Both run under every context policy that their models know. The draft writes its proposals past the
end of the history, the target predicts after every prefix of them in a single pass, and the history
keeps what was accepted and the patch after it. Samples advance unequally; those that are done leave
the batch. A round waits for the device once: to learn how many patches were accepted.

Shapes: B batch, T time steps, C variates, N patches, P patch length, K proposed patches,
M = K + 1 predictions of the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from speculation.distribution import Normal, Outlook
from speculation.errors import InvalidInput
from speculation.forecaster import Context, Forecaster
from speculation.heads import Heads, HeadsContext, State, check_beside
from speculation.history import History, Place, alike, earlier, lowest
from speculation.plan import Lookahead, Plan
from speculation.policy import ContextPolicy
from speculation.rules import Acceptance


@torch.no_grad()
def rollout(
    model: Forecaster,
    context_BTC: Tensor,
    *,
    horizon: int,
    policy: ContextPolicy | None = None,
) -> Tensor:
    """The forecast [B, horizon, C] of one model alone, in the units of the context.

    A horizon that is no multiple of the patch is cut at the end. A one-pass model emits
    `patches_out` patches a step, but never past an anchor.

    Raises:
        InvalidInput: the context's length is not the model's, or the horizon is below 1.
    """
    policy = policy or ContextPolicy()
    patches = _num_patches(model, context_BTC, horizon)
    forecast_BNCP = torch.cat([x.mean for x in _unrolled(model, context_BTC, patches, policy)], 1)
    return _steps(forecast_BNCP, horizon)


class Recital(NamedTuple):
    """A rollout, each patch beside what its model had in mind: what heads learn from."""

    patches_BNCP: Tensor
    """in the units of the context"""
    hidden_BNCD: Tensor
    """the state from which each patch was read"""
    unit_BNC1: Tensor
    """the length of the units in which it was read"""


@torch.no_grad()
def recite(
    model: Forecaster, context_BTC: Tensor, *, patches: int, policy: ContextPolicy | None = None
) -> Recital:
    """The rollout of a target, `patches` patches, with its last hidden states.

    Raises:
        InvalidInput: the context's length is not the model's, or its family shows no such states.
    """
    _num_patches(model, context_BTC, model.config.patch * patches)
    outlooks = list(_unrolled(model, context_BTC, patches, policy))
    states = [State.of(outlook) for outlook in outlooks]
    return Recital(
        torch.cat([outlook.mean for outlook in outlooks], 1),
        torch.cat([state.hidden_BMCD for state in states], 1),
        torch.cat([state.read_unit for state in states], 1),
    )


def _unrolled(
    model: Forecaster, context_BTC: Tensor, patches: int, policy: ContextPolicy | None
) -> Iterator[Outlook]:
    """The outlooks of a model that goes on by itself, their means cut to what is emitted."""
    policy = policy or ContextPolicy()
    history = History(
        _precise(context_BTC, model),
        patch=model.config.patch,
        room=patches,
        keep_proposals=False,
    )
    context = model.open(history, policy, room=patches)
    done = 0
    while done < patches:
        context.begin_round()
        outlook = context.predict(ahead=0, last=1)
        count = min(model.config.patches_out, lowest(_room(done, patches, policy)))
        history.commit(outlook.mean[:, :count], count)
        done += count
        yield outlook._replace(mean=outlook.mean[:, :count])


class Round(NamedTuple):
    """What one round came to for the samples that were still in the batch, on the host."""

    row_B: Tensor
    """their places in the batch as it began"""
    limit_B: Tensor
    """patches proposed"""
    accepted_B: Tensor


class Speculation(NamedTuple):
    """A speculative forecast, and the counts of how it came about."""

    forecast_BTC: Tensor
    """[B, horizon, C], in the units of the context"""
    proposed_B: Tensor
    """int64 [B]: patches proposed for each sample, over its rounds"""
    accepted_B: Tensor
    """int64 [B]: patches accepted"""
    accept_lengths: Tensor
    """int64 [lookahead + 2]: rounds of a sample by patches emitted (accepted + 1)"""
    tested_K: Tensor
    """int64 [lookahead]: rounds in which the i-th proposal was judged, all before it accepted"""
    passed_K: Tensor
    """int64 [lookahead]: of these, the rounds in which it was accepted"""
    rounds: tuple[Round, ...]
    """in order"""

    @property
    def passes(self) -> int:
        """Passes of the target over the batch."""
        return len(self.rounds)

    @property
    def accepted_BN(self) -> Tensor:
        """bool [B, N], which patches of the forecast are proposals that were accepted.

        The others are the target's own: each round ends with one.
        """
        emitted = int((self.accept_lengths * torch.arange(len(self.accept_lengths))).sum())
        patches = emitted // len(self.accepted_B)  # of each sample, as all reach the horizon
        accepted_BN = torch.zeros(len(self.accepted_B), patches, dtype=torch.bool)
        position_N, first_B = torch.arange(patches), torch.zeros_like(self.accepted_B)
        for row_A, _, accepted_A in self.rounds:
            first_A1 = first_B[row_A, None]
            last_A1 = first_A1 + accepted_A[:, None]
            accepted_BN[row_A] |= (position_N >= first_A1) & (position_N < last_A1)
            first_B[row_A] += accepted_A + 1
        return accepted_BN

    @property
    def proposed(self) -> int:
        """Patches proposed, over samples and rounds."""
        return int(self.proposed_B.sum())

    @property
    def accepted(self) -> int:
        """Patches accepted, over samples and rounds."""
        return int(self.accepted_B.sum())

    @property
    def acceptance_rate(self) -> float:
        """Accepted / proposed patches; 0 where nothing could be proposed."""
        return self.accepted / self.proposed if self.proposed else 0.0


@torch.no_grad()
def speculate(
    target: Forecaster,
    draft: Forecaster,
    context_BTC: Tensor,
    *,
    horizon: int,
    acceptance: Acceptance,
    policy: ContextPolicy | None = None,
    plan: Plan | None = None,
    generator: torch.Generator | None = None,
) -> Speculation:
    """The forecast of draft and target together (Leviathan et al., 2211.17192, on patches).

    Each round the draft proposes up to `acceptance.lookahead` patches, the target predicts after
    every prefix of them in one pass, and each sample keeps its longest accepted prefix and the
    patch after it, which that same pass already holds. A rule that adapts needs a `plan`; where
    that expects no lookahead to pay, the target goes alone. Heads for a draft propose from what the
    target has read: the first round is a step of the target, without proposals.

    Raises:
        InvalidInput: models of different patch or context, a target that emits several patches, a
            context of another length, a horizon below 1, a rule that adapts without a plan, heads
            that are fewer than the lookahead, or heads of another target's width.
    """
    patches = _num_patches(target, context_BTC, horizon)
    chooser = _chooser(acceptance, plan, policy, patches=patches, batch=len(context_BTC))
    if chooser and acceptance.needs != "samples" and not chooser.choose(chooser.room_B):
        return _alone(target, context_BTC, horizon=horizon, policy=policy, acceptance=acceptance)
    pair = Pair(
        target,
        draft,
        context_BTC,
        patches=patches,
        acceptance=acceptance,
        policy=policy,
        generator=generator,
    )
    rounds: list[Round] = []
    history = pair.history
    forecast_BNCP = history.emitted_BNCP[:, history.context_patches :][:, :patches].clone()
    row_B = torch.arange(len(context_BTC))
    while len(row_B):
        limit_B = pair.begin_round()
        if chooser:
            limit_B = limit_B.clamp_max(chooser.choose(limit_B + 1))
        proposal, drafted = pair.propose(int(limit_B.max()))
        outlook = pair.verify(proposal.shape[1])
        accepted_B = pair.accept(proposal, drafted, outlook, limit_B=limit_B)
        rounds.append(Round(row_B, limit_B, accepted_B))
        if chooser:
            chooser.observe(limit_B, accepted_B)
        done_B = history.emitted_B >= patches
        if bool(done_B.any()):
            # Found on the host: an index by truth values would wait for the device to count them.
            done = torch.nonzero(done_B).flatten()
            theirs, ours = (
                x.to(forecast_BNCP.device, non_blocking=True) for x in (done, row_B[done])
            )
            rows = history.emitted_BNCP[:, history.context_patches :][:, :patches]
            forecast_BNCP.index_copy_(0, ours, rows.index_select(0, theirs))
            rest = torch.nonzero(~done_B).flatten()
            row_B = row_B[rest]
            if len(rest):
                for part in (pair, chooser) if chooser else (pair,):
                    part.select(rest)
    forecast_BTC = _steps(forecast_BNCP, horizon)
    return _speculation(forecast_BTC, rounds, lookahead=acceptance.lookahead)


def _chooser(
    acceptance: Acceptance,
    plan: Plan | None,
    policy: ContextPolicy | None,
    *,
    patches: int,
    batch: int,
) -> Lookahead | None:
    """What chooses each round's lookahead, for a rule that adapts."""
    if not acceptance.adapt:
        if plan is not None:
            raise InvalidInput("plan is given: it has no effect where adapt is false")
        return None
    if plan is None:
        raise InvalidInput(
            "adapt is true: it needs a plan, of costs and pass rates measured before"
        )
    renorm_every = policy.renorm_every if policy else 0
    pays, _ = plan.best(patches=patches, renorm_every=renorm_every, batch=batch)
    return Lookahead(
        plan,
        room_B=torch.full((batch,), min(patches, renorm_every or patches)),
        longest=acceptance.lookahead if pays else 0,
    )


def _alone(
    target: Forecaster,
    context_BTC: Tensor,
    *,
    horizon: int,
    policy: ContextPolicy | None,
    acceptance: Acceptance,
) -> Speculation:
    """The target's own forecast, counted as rounds without proposals."""
    none_B = torch.zeros(len(context_BTC), dtype=torch.int64)
    every = Round(torch.arange(len(context_BTC)), none_B, none_B)
    return _speculation(
        rollout(target, context_BTC, horizon=horizon, policy=policy),
        [every] * _num_patches(target, context_BTC, horizon),
        lookahead=acceptance.lookahead,
    )


class Pair:
    """Draft and target over one history; a round begins, proposes, verifies and accepts."""

    def __init__(
        self,
        target: Forecaster,
        draft: Forecaster,
        context_BTC: Tensor,
        *,
        patches: int,
        acceptance: Acceptance,
        policy: ContextPolicy | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        _check_pair(target, draft, lookahead=acceptance.lookahead)
        self.target, self.draft = target, draft
        self.patches, self.acceptance, self.generator = patches, acceptance, generator
        self.policy = policy or ContextPolicy()
        room = patches + acceptance.lookahead
        self.history = History(
            _precise(context_BTC, target, draft),
            patch=target.config.patch,
            room=room,
            keep_proposals=self.policy.keeps and not acceptance.emits_draft,
        )
        self.judging = target.open(self.history, self.policy, room=room)
        # Heads read nothing: they hear what the target makes of every prefix.
        self.hearing = HeadsContext(draft, self.history) if isinstance(draft, Heads) else None
        self.drafting: Context = self.hearing or draft.open(self.history, self.policy, room=room)
        # A one-pass draft proposes in the units of one window, the target judges each in its own.
        # Heads do too, and where a window is anchored they still have those of the one before.
        same_units = self.policy.keeps or draft.config.patches_out == 1
        if self.hearing:
            same_units = self.policy.keeps and not self.policy.renorm_every
        same_units = same_units and target.config.units == draft.config.units
        self.same_deviation = same_units and not (target.config.variance or draft.config.variance)

    def begin_round(self) -> Tensor:
        """Patches that each sample may propose: the target gives one more by itself."""
        self.judging.begin_round()
        self.drafting.begin_round()
        if self.hearing and not self.hearing.has_heard:
            return torch.zeros_like(self.history.emitted_B)
        room_B = torch.as_tensor(_room(self.history.emitted_B, self.patches, self.policy))
        return (room_B - 1).clamp_max(self.acceptance.lookahead)

    def propose(self, count: int) -> tuple[Tensor, Normal]:
        """The draft's next `count` patches [B, count, C, P], and what they were drawn from."""
        history, patches_out = self.history, self.draft.config.patches_out
        batch, _, variates, patch = history.read_BNCP.shape
        empty = history.read_BNCP.new_empty(batch, 0, variates, patch)
        proposals, means, deviations = [empty], [empty], [empty]
        for ahead in range(0, count, patches_out):
            take = min(patches_out, count - ahead)
            outlook = self.drafting.predict(ahead=ahead, last=1)
            drafted = self.acceptance.normal(outlook).part(slice(take))
            sampled = self.acceptance.needs == "samples"
            proposal = drafted.sample(self.generator) if sampled else drafted.mean
            history.write_ahead(proposal, ahead=ahead)
            proposals.append(proposal)
            means.append(drafted.mean)
            deviations.append(drafted.deviation)
        return torch.cat(proposals, 1), Normal(torch.cat(means, 1), torch.cat(deviations, 1))

    def verify(self, proposed: int) -> Outlook:
        """What the target expects after every prefix of the proposals, in one pass."""
        outlook = self.judging.predict(ahead=proposed, last=proposed + 1)
        if self.hearing:
            self.hearing.hear(outlook)
        return outlook

    def accept(
        self, proposal_BKCP: Tensor, drafted: Normal, outlook: Outlook, *, limit_B: Tensor
    ) -> Tensor:
        """Patches accepted per sample, on the host; they and the next one are in the history."""
        verdict = self.acceptance.verdict(
            proposal_BKCP,
            draft=drafted,
            target=self.acceptance.normal(outlook),
            unit_BMC1=outlook.unit,
            limit_B=limit_B.to(proposal_BKCP.device, non_blocking=True),
            same_deviation=self.same_deviation,
            generator=self.generator,
        )
        accepted_B = verdict.accepted_B.cpu()  # the round's one wait for the device
        accepted = alike(accepted_B)
        for context in (self.judging, self.drafting):
            context.keep(self.history.end + accepted)
        self.history.commit(verdict.emitted_BMCP, accepted + 1)
        return accepted_B

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        for part in (self.history, self.judging, self.drafting):
            part.select(index_A)


def _speculation(forecast_BTC: Tensor, rounds: Sequence[Round], *, lookahead: int) -> Speculation:
    """The forecast with its counts: how many each sample proposed and had accepted, by round."""
    row_R, limit_R, accepted_R = (torch.cat(parts) for parts in zip(*rounds, strict=True))
    none_B = torch.zeros(len(forecast_BTC), dtype=torch.int64)
    position_K = torch.arange(lookahead)
    reached_RK = (accepted_R[:, None] >= position_K) & (limit_R[:, None] > position_K)
    return Speculation(
        forecast_BTC,
        proposed_B=none_B.index_add(0, row_R, limit_R),
        accepted_B=none_B.index_add(0, row_R, accepted_R),
        accept_lengths=torch.bincount(accepted_R + 1, minlength=lookahead + 2),
        tested_K=reached_RK.sum(0),
        passed_K=(accepted_R[:, None] > position_K).sum(0),
        rounds=tuple(rounds),
    )


def _room(emitted: Place, patches: int, policy: ContextPolicy) -> Place:
    """Patches that may be emitted before the horizon's end or the next anchor."""
    left = patches - emitted
    if not policy.renorm_every:
        return left
    return earlier(left, policy.renorm_every - emitted % policy.renorm_every)


def _precise(context_BTC: Tensor, *models: Forecaster) -> Tensor:
    """The context in the finest of its own precision and the models'."""
    dtype = context_BTC.dtype
    for model in models:
        dtype = torch.promote_types(dtype, model.precision)
    return context_BTC.to(dtype)


def _num_patches(model: Forecaster, context_BTC: Tensor, horizon: int) -> int:
    if context_BTC.shape[1] != model.config.context:
        raise InvalidInput(
            f"context has {context_BTC.shape[1]} steps: this model reads {model.config.context}"
        )
    if horizon < 1:
        raise InvalidInput(f"horizon is {horizon}: it must be at least 1")
    return -(-horizon // model.config.patch)


def _check_pair(target: Forecaster, draft: Forecaster, *, lookahead: int) -> None:
    for name in ("patch", "context"):
        ours, theirs = getattr(target.config, name), getattr(draft.config, name)
        if ours != theirs:
            raise InvalidInput(f"{name} of the draft is {theirs}: the target's is {ours}")
    if target.config.patches_out != 1:
        raise InvalidInput(
            f"patches_out of the target is {target.config.patches_out}: a target emits 1"
        )
    if isinstance(draft, Heads):
        check_beside(draft.config, target.config, lookahead=lookahead)


def _steps(patches_BNCP: Tensor, horizon: int) -> Tensor:
    """Patches as time steps [B, horizon, C]."""
    return patches_BNCP.transpose(2, 3).flatten(1, 2)[:, :horizon]
