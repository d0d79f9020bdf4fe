"""What all acceptance rules have in common, and the table of them by name.

    verdict = rule.verdict(proposal, draft=draft, target=target, unit_BMC1=unit, limit_B=limit)

A rule sees the draft's K proposals and the target's prediction after each prefix of them, and
answers how many of them to keep, and what to emit in their place. Tensors in, tensors out; nothing
waits for the device (but for `lossless` with unequal variances, see there).

Shapes: B batch, K proposals, M = K + 1 target predictions, C variates, P patch length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from speculation.distribution import Normal, Outlook
from speculation.rules.fields import InvalidField, Range, fields_of

Needs = Literal["means", "deviations", "samples"]
"""What a rule asks of an outlook: its means, how far off they may be, or draws as well."""

RULES: dict[str, type[Acceptance]] = {}
"""The rules by name; a rule enters itself where its class is written."""


class Pair(NamedTuple):
    """Two fields of a rule of which not every two values go together."""

    first: str
    second: str
    problem: Callable[[Any, Any], str | None]
    """what is wrong with the second value beside the first, or None"""

    def check(self, first: Any, second: Any) -> None:
        """Nothing, where the two values go together.

        Raises:
            InvalidInput: names the second field.
        """
        if problem := self.problem(first, second):
            raise InvalidField(self.second, problem)


class Round(NamedTuple):
    """What a rule judges: the proposals of one round."""

    proposal_BKCP: Tensor
    draft: Normal
    """what was proposed from, [B, K, C, P]"""
    target: Normal
    """what the target expects after each prefix, [B, K + 1, C, P]"""
    verified: Normal
    """of it, the part in the proposals' places, [B, K, C, P]"""
    unit_BKC1: Tensor
    """length of one of the target's units in the proposals' places"""
    same_deviation: bool
    """the two distributions are known to differ in their means alone"""
    generator: torch.Generator | None


class Verdict(NamedTuple):
    """What a round keeps."""

    accepted_B: Tensor
    """int64, proposals kept: the longest accepted prefix"""
    emitted_BMCP: Tensor
    """of which the first accepted + 1 patches are the round's"""


@dataclass(frozen=True, kw_only=True)
class Acceptance(ABC):
    """One acceptance rule with its parameters; distances are in the target's units.

    A rule is a subclass with a `rule` of its own. It adds its fields, and says what it accepts,
    what it emits, and how often it would accept in closed form.

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    always: ClassVar[Mapping[str, str]] = {}
    """fields of other rules that have but this value here, and are none of this rule's"""
    pairs: ClassVar[tuple[Pair, ...]] = ()
    """fields whose values depend on each other"""

    rule: str
    """its name, by which a configuration tells the rules apart"""
    lookahead: Annotated[int, Range(at_least=1)] = 4
    """patches K that the draft proposes in a round, at most"""
    adapt: bool = False
    """whether each round's lookahead is chosen by cost and each sample's acceptance so far"""
    forced: Annotated[float | None, Range(at_least=0, at_most=1)] = None
    """accept each proposal with this probability, from 0 to 1, whatever the rule says: to measure
    decoding apart from any draft's quality"""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name := vars(cls).get("rule"):
            if name in RULES:
                raise TypeError(f"rule '{name}' is there already: give {cls.__name__} another name")
            RULES[name] = cls

    def __post_init__(self) -> None:
        for name, field in fields_of(type(self)).items():
            field.check(name, getattr(self, name))
        for pair in self.pairs:
            pair.check(getattr(self, pair.first), getattr(self, pair.second))

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the rule asks of an outlook: a draft proposes samples, or else its means."""

    @property
    @abstractmethod
    def emits_draft(self) -> bool:
        """Whether an accepted patch stays as the draft proposed it; else it is the target's."""

    @abstractmethod
    def accepts(self, of: Round) -> Tensor:
        """Whether each proposal alone would be accepted, bool [B, K]."""

    @abstractmethod
    def emits(self, of: Round, alike_BK: Tensor, kept_BK: Tensor) -> Tensor:
        """What stands at each place if the round ends there or goes on, [B, K + 1, C, P].

        Args:
            of: the round.
            alike_BK: proposals that would be accepted, each alone.
            kept_BK: of these, the ones that are kept: up to the first that is not.
        """

    @abstractmethod
    def chance(self, mse: Tensor, *, dimensions: int) -> Tensor:
        """Probability that one proposal is accepted, as `probability` gives it, if none is forced.

        Args:
            mse: mean squared distance of the draft's mean to the target's, in its units, any shape.
            dimensions: time steps times variates that are judged together.
        """

    def normal(self, outlook: Outlook) -> Normal:
        """What the rule takes an outlook for."""
        return outlook.normal()

    def verdict(
        self,
        proposal_BKCP: Tensor,
        *,
        draft: Normal,
        target: Normal,
        unit_BMC1: Tensor,
        limit_B: Tensor,
        same_deviation: bool = False,
        generator: torch.Generator | None = None,
    ) -> Verdict:
        """How many proposals of each sample are kept, and the patches to emit.

        Args:
            proposal_BKCP: what the draft proposed.
            draft: the distribution that it proposed from, [B, K, C, P].
            target: the target's after each prefix, [B, K + 1, C, P].
            unit_BMC1: length of one of the target's units at each target position.
            limit_B: proposals that may be kept, per sample (horizon, anchor, own lookahead).
            same_deviation: the two distributions are known to differ in their means alone.
            generator: source of randomness of the rules that draw.
        """
        proposals = proposal_BKCP.shape[1]
        verified, unit_BKC1 = target.part(slice(proposals)), unit_BMC1[:, :proposals]
        of = Round(proposal_BKCP, draft, target, verified, unit_BKC1, same_deviation, generator)
        alike_BK = self.accepts(of) if self.forced is None else self._forces(of, self.forced)
        tested_BK = torch.arange(proposals, device=limit_B.device) < limit_B[:, None]
        kept_BK = (alike_BK & tested_BK).cumprod(dim=1).bool()
        return Verdict(kept_BK.sum(1), self.emits(of, alike_BK, kept_BK))

    def probability(self, mse: Tensor, *, dimensions: int) -> Tensor:
        """Probability that one proposal is accepted, in closed form, without decoding.

        For equal variances, and for what is judged together: a patch, or one variate of it.

        Args:
            mse: mean squared distance of the draft's mean to the target's, in its units, any shape.
            dimensions: time steps times variates that are judged together.
        """
        if self.forced is not None:
            return torch.full_like(mse, self.forced)
        return self.chance(mse, dimensions=dimensions)

    def patch_probability(self, mse_C: Tensor, *, steps: int) -> Tensor:
        """Probability that a whole patch is accepted, in closed form, without decoding.

        Args:
            mse_C: as of `probability`, by variate in the last dimension, which the result lacks.
            steps: time steps of a patch.
        """
        return self.probability(mse_C.mean(-1), dimensions=steps * mse_C.shape[-1])

    @staticmethod
    def _forces(of: Round, forced: float) -> Tensor:
        """Whether each proposal is accepted, where chance alone decides, bool [B, K]."""
        shape, device = of.proposal_BKCP.shape[:2], of.proposal_BKCP.device
        return torch.rand(shape, generator=of.generator, device=device) < forced


def followed_by_the_targets(of: Round, replacement: Tensor, taken_BK: Tensor) -> Tensor:
    """The proposals where they are taken and else `replacement`, then a draw of the target's own.

    The last place has no proposal: [B, K + 1, C, P].
    """
    proposals = of.proposal_BKCP.shape[1]
    return torch.cat(
        (
            torch.where(taken_BK[..., None, None], of.proposal_BKCP, replacement),
            of.target.part(slice(proposals, None)).sample(of.generator),
        ),
        dim=1,
    )
