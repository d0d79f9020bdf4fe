"""Heads: a draft that is no model, on the target's own last hidden state.

    heads = Heads(HeadsConfig.of(target.config, patches_out=7)).eval()
    speculation = speculate(target, heads, context_BTC, horizon=720, acceptance=rule)
    forecast_BTC = rollout(by_itself(heads, target=target), context_BTC, horizon=720)

A pass of the target leaves a hidden state after every prefix: what its next patch is read from.
Heads read from it by how much each of the K patches after that one differs from it (Medusa, Cai et
al., 2401.10774, on patches). They share their first layer: with one of its own each, seven heads
cost as much as a whole target of one layer. So a round costs its verifying pass and nothing beside
it: nothing is encoded by a draft. The price is a first round without proposals, as nothing was read
before it.

Shapes: B batch, A samples kept, N positions, M prefixes, C variates, D width of a hidden state,
K heads, P patch length, Q = K * P.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, NoReturn, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speculation.distribution import Outlook
from speculation.errors import InvalidInput
from speculation.families import Family, register
from speculation.forecaster import Architecture, Context, Forecaster
from speculation.history import History, Place, alike, read_at
from speculation.linear import PackedLinear
from speculation.network import Network
from speculation.normalisation import Normalisation, Prediction
from speculation.policy import ContextPolicy, PolicyKind

VERSION = 1
"""Of their arithmetic: raised when the same weights would propose something else."""
HEADS = 7
"""How many there are, by default."""
HIDDEN = 512
"""Width of the layer that the heads share, by default."""


@dataclass(frozen=True)
class HeadsConfig:
    """The architecture of a target's heads.

    Raises:
        InvalidInput: names the field, its value and what would do.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, no field
    family: ClassVar[str] = "heads"
    variance: ClassVar[bool] = False

    patch: int
    """time steps per patch, as the target's"""
    context: int
    """time steps of look-back of the target"""
    reads: int
    """width of the target's last hidden state"""
    units: str
    """in what the target reads and answers"""
    patches_out: int = HEADS
    """heads: patches proposed after the one that the target gives"""
    hidden: int = HIDDEN
    """width of the layer that they share"""

    def __post_init__(self) -> None:
        for name in ("patch", "context", "reads", "patches_out", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}: it must be at least 1")

    @classmethod
    def of(
        cls, target: Architecture, *, patches_out: int = HEADS, hidden: int = HIDDEN
    ) -> HeadsConfig:
        """The architecture of a target's heads.

        Raises:
            InvalidInput: the target's family shows no hidden state, or a number is below 1.
        """
        return cls(
            patch=target.patch,
            context=target.context,
            reads=width_of(target),
            units=target.units,
            patches_out=patches_out,
            hidden=hidden,
        )

    @property
    def context_patches(self) -> int:
        """Patches in one context window of the target."""
        return self.context // self.patch

    @property
    def policies(self) -> tuple[PolicyKind, ...]:
        """All: what is read, and how, is the target's affair."""
        return get_args(PolicyKind)

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, by arithmetic alone."""
        out = self.patches_out * self.patch
        return (self.reads + 1) * self.hidden + (self.hidden + 1) * out

    def scaled(
        self,
        scale: float,
        *,
        patches_out: int = 1,
        variance: bool = False,
        depth: float | None = None,
        width: float | None = None,
    ) -> HeadsConfig:
        """Nothing: heads are no target.

        Raises:
            InvalidInput: always.
        """
        _refuse_alone()

    def normalisation(self, window_BNCP: Tensor) -> Normalisation:
        """Nothing: the units are those in which the target reads.

        Raises:
            InvalidInput: always.
        """
        _refuse_alone()


class State(NamedTuple):
    """What a pass of a target leaves for its heads, after each of its M prefixes."""

    hidden_BMCD: Tensor
    read_unit: Tensor
    """[B, 1 or M, C, 1], the length of the units in which it was read, and heads answer"""
    unit: Tensor
    """[B, 1 or M, C, 1], that of the units in which distances are told"""

    @classmethod
    def of(cls, outlook: Outlook) -> State:
        """The state of a target's outlook.

        Raises:
            InvalidInput: its family shows none.
        """
        if outlook.hidden is None:
            raise InvalidInput("heads read the target's last hidden state: its family shows none")
        read_unit = outlook.unit if outlook.read_unit is None else outlook.read_unit
        return cls(outlook.hidden, read_unit, outlook.unit)

    def at(self, prefix: Place) -> State:
        """That after one prefix of each sample."""
        return State(*(x if x.shape[1] == 1 else read_at(x, prefix, 1) for x in self))

    def select(self, index_A: Tensor) -> State:
        """That of the samples `index_A` of the batch."""
        return State(*(x[index_A.to(x.device, non_blocking=True)] for x in self))


class Heads(Network):
    """A target's heads: a layer that they share, then one layer each."""

    _packed: tuple[PackedLinear, PackedLinear] | None = None

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config: HeadsConfig = config
        self.trunk = nn.Linear(config.reads, config.hidden)
        self.out = nn.Linear(config.hidden, config.patches_out * config.patch)
        # Untrained they say the target's patch again.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BNCP: Tensor, *, last: int | None = None) -> Prediction:
        """By how much the K patches after the target's differ from it, in its units [B, N, C, Q].

        Args:
            x_BNCP: hidden states [B, N, C, D] in the place of patches.
            last: number of positions to answer for.
        """
        hidden_BNCD = x_BNCP if last is None else x_BNCP[:, -last:]
        hidden_BNCD = hidden_BNCD.to(self.dtype)
        if self._packed is None:
            apart = self.out(F.gelu(self.trunk(hidden_BNCD)))
        else:
            trunk, out = self._packed
            apart = out(trunk(hidden_BNCD))
        return Prediction(apart.to(self.precision), None)

    def engine(self, *, int8: bool = False) -> Heads:
        """The same heads, on a CPU with weights laid out for it; they share all that can be.

        Raises:
            InvalidInput: 8 bits are asked for, and the heads are not on a CPU.
        """
        if self.device.type != "cpu" and not int8:
            return self
        packed = copy.copy(self)
        trunk, out = ((x.weight.detach(), x.bias.detach()) for x in (self.trunk, self.out))
        packed._packed = (
            PackedLinear(*trunk, activation="gelu", int8=int8),
            PackedLinear(*out, int8=int8),
        )
        return packed

    def proposals(self, state: State, *, after_B1CP: Tensor) -> Tensor:
        """The K patches after `after`, [B, K, C, P], in the data's units.

        Args:
            state: of one prefix, from which the target read that patch.
            after_B1CP: the patch, in the data's units.
        """
        apart = self(state.hidden_BMCD).mean.unflatten(-1, (-1, self.config.patch))
        return after_B1CP + state.read_unit * apart.squeeze(1).transpose(1, 2)

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """Nothing: heads read no history by themselves.

        Raises:
            InvalidInput: always.
        """
        _refuse_alone()


class HeadsContext:
    """What heads have of a history: the target's state where its newest patch was read."""

    def __init__(self, heads: Heads, history: History) -> None:
        heads.refuse_training()
        self.heads, self.history = heads, history
        self._heard: State | None = None
        """after every prefix of the newest pass"""
        self._state: State | None = None
        """that from which the newest patch was read"""

    @property
    def has_heard(self) -> bool:
        """Whether there is something to propose from."""
        return self._state is not None

    def hear(self, outlook: Outlook) -> None:
        """Take a pass of the target; `keep` says after which of its prefixes it goes on.

        Raises:
            InvalidInput: the target's family shows no hidden state.
        """
        self._heard = State.of(outlook)

    def begin_round(self) -> None:
        """The target anchors windows; the state stays that from which the newest patch was read."""

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """The K patches after the newest one."""
        assert self._state is not None
        assert (ahead, last) == (0, 1)
        newest_B1CP = self.history.patches(self.history.end - 1, 1)
        mean = self.heads.proposals(self._state, after_B1CP=newest_B1CP)
        return Outlook(mean, None, self._state.unit)

    def keep(self, valid: Place) -> None:
        """Remember the state after each sample's first `valid` patches, of the newest pass."""
        assert self._heard is not None
        self._state, self._heard = self._heard.at(alike(valid - self.history.end)), None

    def forget(self, count: int) -> None:
        """Nothing was encoded."""

    def select(self, index_A: Tensor) -> None:
        """Keep the samples `index_A` of the batch."""
        self._state = self._state and self._state.select(index_A)
        self._heard = self._heard and self._heard.select(index_A)


class Unverified:
    """A target whose heads are believed: K + 1 patches a pass, none of them verified."""

    def __init__(self, target: Forecaster, heads: Heads) -> None:
        check_beside(heads.config, target.config, lookahead=1)
        self.target, self.heads = target, heads
        patches_out = heads.config.patches_out + 1
        self.config = dataclasses.replace(heads.config, patches_out=patches_out)
        self.device, self.precision = target.device, target.precision

    def caches(self, policy: ContextPolicy) -> bool:
        """As the target does."""
        return self.target.caches(policy)

    def open(self, history: History, policy: ContextPolicy, *, room: int) -> Context:
        """The target's reading of a history, answered for by the heads too."""
        return UnverifiedContext(self.target.open(history, policy, room=room), self.heads)


class UnverifiedContext:
    """A target's reading, after which it gives one patch and its heads the next ones."""

    def __init__(self, reading: Context, heads: Heads) -> None:
        heads.refuse_training()
        self.reading, self.heads = reading, heads
        self.begin_round, self.forget = reading.begin_round, reading.forget
        self.keep, self.select = reading.keep, reading.select

    def predict(self, *, ahead: int, last: int) -> Outlook:
        """After the history and `ahead` patches past its end; `last` is 1."""
        assert last == 1
        own = self.reading.predict(ahead=ahead, last=1)
        following = self.heads.proposals(State.of(own), after_B1CP=own.mean)
        return Outlook(torch.cat((own.mean, following), 1), None, own.unit)


def by_itself(draft: Forecaster, *, target: Forecaster) -> Forecaster:
    """A draft without verification: a model alone, or heads whose target reads for them.

    Raises:
        InvalidInput: heads of another target's width.
    """
    return Unverified(target, draft) if isinstance(draft, Heads) else draft


def width_of(target: Architecture) -> int:
    """Width of the hidden state that a target shows beside its predictions: its `d_model`.

    Raises:
        InvalidInput: its family has none.
    """
    width: int | None = getattr(target, "d_model", None)
    if width is None:
        raise InvalidInput(
            f"heads read the target's last hidden state: the family {target.family} shows none; "
            "draft with a model"
        )
    return width


def check_beside(heads: HeadsConfig, target: Architecture, *, lookahead: int) -> None:
    """Nothing, where such heads can propose so many patches to such a target.

    Raises:
        InvalidInput: names what does not fit.
    """
    if lookahead > heads.patches_out:
        raise InvalidInput(
            f"lookahead is {lookahead}: there are {heads.patches_out} heads, and each proposes one "
            f"patch; {heads.patches_out} would do"
        )
    if heads.reads != width_of(target):
        raise InvalidInput(
            f"the heads read hidden states of {heads.reads}: the target's have {width_of(target)}; "
            "they are another target's"
        )
    if heads.units != target.units:
        raise InvalidInput(f"units of the heads are {heads.units}: the target's are {target.units}")


def _refuse_alone() -> NoReturn:
    raise InvalidInput("heads read nothing by themselves: they draft beside their own target")


FAMILY = register(Family(HeadsConfig.family, VERSION, HeadsConfig, Heads))
