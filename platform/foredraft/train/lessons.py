"""What a stage learns from: windows drawn by index, and what should follow their patches.

    lessons = Lessons(stage, config, sets, split="train", seed=1, taught=None)
    for draw in lessons.epoch(0, batch=32, drawn=6400):
        lesson = lessons.lesson(draw, device=device)

Every batch is of one data set, so that sets of different widths mix: a data set gets its share of
the stage's steps by its weight. The order of windows, the variates drawn for each and the contexts
of a distillation follow from seed and epoch alone: they are the same for all workers, each of which
takes its share of every draw.

Shapes: B batch, W windows, T time steps, C variates, V variates drawn, N patches of a context,
M patches learnt from, P patch length, K patches emitted at once, Q = K * P.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foredraft import data
from foredraft.data.spacing import evenly_spaced
from foredraft.settings.config import Stage
from foredraft.train import needs, recitals, teacher
from speculation.forecaster import Architecture
from speculation.heads import HeadsConfig
from speculation.network import Network
from speculation.reading import last_reading


class Draw(NamedTuple):
    """Windows of one data set that are learnt from together."""

    source: int
    """index of the data set"""
    index_B: Tensor
    variates_BV: Tensor | None
    """variates of each window; None for all"""
    ahead: int | None = None
    """`distill`: patches of the target's rollout that have passed; None for the window itself and
    every prefix of it"""

    def parts(self, count: int) -> list[Draw]:
        """The draw in equal parts of neighbouring windows."""
        variates = [None] * count if self.variates_BV is None else self.variates_BV.chunk(count)
        return [
            self._replace(index_B=index_B, variates_BV=variates_BV)
            for index_B, variates_BV in zip(self.index_B.chunk(count), variates, strict=True)
        ]


class Lesson(NamedTuple):
    """Contexts, and what should follow each of their last M patches."""

    x_BNCP: Tensor
    """in the units of the model; of heads the target's hidden states, [B, N, C, D]"""
    y_BMCQ: Tensor
    """in the units of the model"""
    unit_B1C1: Tensor
    """the length of such a unit in the units in which errors count: those of the standardised
    data for what was observed; in distillation those in which acceptance counts them"""
    observed_BMCQ: Tensor | None = None
    """bool, where y was observed and not filled in the data; None: everywhere"""

    @property
    def told(self) -> bool:
        """Whether there is anything to learn from."""
        return self.observed_BMCQ is None or bool(self.observed_BMCQ.any())


class Source(NamedTuple):
    """One data set of a stage."""

    windows: data.Windows
    variates_WV: Tensor | None
    """variates of each window, where they do not change from epoch to epoch"""
    answers: teacher.Answers | None = None
    """the target's, in distillation"""
    recitals: recitals.Recitals | None = None
    """the target's, for heads"""

    @property
    def width(self) -> int:
        """Variates of the data set."""
        return self.windows.values_TC.shape[1]


class Teacher(NamedTuple):
    """A target that answers, and the digest of what it is."""

    target: Network
    digest: str
    """of its weights"""
    name: str
    """by which a user knows it"""


class Lessons:
    """The lessons of one stage on one split."""

    def __init__(
        self,
        stage: Stage,
        config: Architecture,
        sets: needs.Datasets,
        *,
        split: str,
        seed: int,
        taught: Teacher | None,
    ) -> None:
        self.stage, self.config, self.taught = stage, config, taught
        self.seed = seed
        self.names = tuple(stage.sources) if split == "train" else stage.judges
        limit = stage.windows
        if split != "train":
            limit = max(1, stage.validation_windows // len(self.names))
        self.sources = [self._open(name, sets[name], split, limit=limit) for name in self.names]
        self.kinds = _kinds(stage, config)

    def __len__(self) -> int:
        return sum(len(source.windows) for source in self.sources)

    def _open(self, name: str, dataset: data.Dataset, split: str, *, limit: int | None) -> Source:
        windows = needs.windows(dataset, split, self.config)
        if limit is not None and limit < len(windows):
            even = evenly_spaced(len(windows), count=limit)
            windows = dataclasses.replace(windows, starts_W=windows.starts_W[even])
        # Answers are kept per window, and a validation must be the same at every epoch.
        fixed = split != "train" or self.taught is not None
        generator = torch.Generator().manual_seed(0)
        width = windows.values_TC.shape[1]
        variates_WV = self._variates(len(windows), width, generator) if fixed else None
        if self.taught is None:
            return Source(windows, variates_WV)
        asked: Any = {
            "variates_WV": variates_WV,
            "source": dataset.identity,
            "about": f"target {self.taught.name} about {name}",
        }
        asking, target = self._asking(self.taught), self.taught.target
        if isinstance(self.config, HeadsConfig):
            heard = recitals.hear(target, windows, heads=self.config, asking=asking, **asked)
            return Source(windows, variates_WV, recitals=heard)
        return Source(windows, variates_WV, teacher.ask(target, windows, asking=asking, **asked))

    def _asking(self, taught: Teacher) -> teacher.Asking:
        assert self.stage.rollouts is not None
        assert self.stage.policy is not None
        ahead = self.stage.rollouts + self.config.patches_out
        if not isinstance(self.config, HeadsConfig):
            ahead -= 1
        return teacher.Asking(taught.digest, ahead, self.stage.policy)

    def epoch(self, number: int, *, batch: int, drawn: int | None) -> Iterator[Draw]:
        """The draws of one epoch, `batch` windows each; all workers see the same ones."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        steps = self.steps(batch=batch, drawn=drawn)
        order = torch.repeat_interleave(self._steps_per_source(number, steps))
        windows = [
            self._order(len(source.windows), int((order == index).sum()) * batch, generator)
            for index, source in enumerate(self.sources)
        ]
        for index in order[torch.randperm(steps, generator=generator)].tolist():
            index_B, windows[index] = windows[index].split((batch, len(windows[index]) - batch))
            source = self.sources[index]
            if source.variates_WV is not None:
                variates_BV: Tensor | None = source.variates_WV[index_B]
            else:
                variates_BV = self._variates(batch, source.width, generator)
            yield Draw(index, index_B, variates_BV, self._kind(generator))

    def steps(self, *, batch: int, drawn: int | None) -> int:
        """Optimiser steps of an epoch: whole batches of the windows that are drawn."""
        return max(1, (drawn or len(self)) // batch)

    def every_window(self, *, batch: int) -> Iterator[Draw]:
        """Each window once: what judges an epoch, the same at every epoch and for every batch.

        In a distillation each is judged in one of the contexts that are learnt from, and of every
        kind there are as many as are learnt.
        """
        kinds = torch.repeat_interleave(shared_out(self.kinds.values(), len(self)))
        mixed = kinds[torch.randperm(len(self), generator=torch.Generator().manual_seed(0))]
        sizes = [len(source.windows) for source in self.sources]
        for index, kind_W in enumerate(mixed.split(sizes)):
            variates_WV = self.sources[index].variates_WV
            for kind, ahead in enumerate(self.kinds):
                asked = (kind_W == kind).nonzero().flatten()
                for index_B in asked.split(batch) if len(asked) else ():
                    variates_BV = None if variates_WV is None else variates_WV[index_B]
                    yield Draw(index, index_B, variates_BV, ahead)

    def lesson(self, draw: Draw, *, device: torch.device) -> Lesson:
        """The contexts of a draw, and what should follow their patches."""
        source = self.sources[draw.source]
        if source.recitals is not None:
            hidden_BNCD, apart_BNCQ = (x.to(device) for x in source.recitals.of(draw.index_B))
            return Lesson(hidden_BNCD, apart_BNCQ, torch.ones_like(apart_BNCQ[:, :1, :, :1]))
        window_BTC = source.windows.batch(draw.index_B, variates=draw.variates_BV)
        window_BTC = window_BTC.to(device)
        if source.answers is None:
            observed_BTC = source.windows.observed(draw.index_B, variates=draw.variates_BV)
            return self._observed(window_BTC, observed_BTC)
        answers_BFCP = source.answers.patches(draw.index_B).to(device)
        return self._answered(window_BTC, answers_BFCP, ahead=draw.ahead)

    def _observed(self, window_BTC: Tensor, observed_BTC: Tensor | None) -> Lesson:
        """After every patch of the context, what came next."""
        patch, config = self.config.patch, self.config
        x_BNCP = window_BTC[:, : config.context].unflatten(1, (-1, patch)).transpose(2, 3)
        y_BNCQ = self._next(window_BTC)
        normalisation = self.config.normalisation(x_BNCP)
        return Lesson(
            normalisation.apply(x_BNCP),
            normalisation.apply(y_BNCQ),
            normalisation.deviation,
            None if observed_BTC is None else self._next(observed_BTC.to(window_BTC.device)),
        )

    def _next(self, window_BTC: Tensor) -> Tensor:
        """[B, N, C, Q], what follows every patch of the context."""
        patch = self.config.patch
        return window_BTC[:, patch:].unfold(1, self.config.patches_out * patch, patch)

    def _answered(self, window_BTC: Tensor, answers_BFCP: Tensor, *, ahead: int | None) -> Lesson:
        """After every prefix of a window, or after its rollout has passed, what the target says."""
        size = self.config.context_patches
        x_BNCP = window_BTC[:, : self.config.context]
        x_BNCP = x_BNCP.unflatten(1, (-1, self.config.patch)).transpose(2, 3)
        normalisation = self.config.normalisation(x_BNCP)
        x_BNCP = normalisation.apply(x_BNCP)
        if ahead is None:
            unit = torch.ones_like(normalisation.deviation)
            return Lesson(x_BNCP, answers_BFCP[:, :size], unit)
        assert self.stage.policy is not None
        history_BNCP = torch.cat((x_BNCP, answers_BFCP[:, size - 1 : size - 1 + ahead]), dim=1)
        first = size - 1 + ahead
        next_BKCP = answers_BFCP[:, first : first + self.config.patches_out]
        read = last_reading(history_BNCP, self.config, self.stage.policy)
        return Lesson(
            read.x_BNCP,
            read.units.apply(next_BKCP).transpose(1, 2).flatten(2)[:, None],
            read.units.deviation / read.unit,
        )

    def _kind(self, generator: torch.Generator) -> int | None:
        """Patches of the rollout that have passed in one step, drawn by the kinds' shares."""
        shares = torch.tensor(list(self.kinds.values()))
        return list(self.kinds)[int(torch.multinomial(shares, 1, generator=generator))]

    def _variates(self, count: int, width: int, generator: torch.Generator) -> Tensor | None:
        """Variates for each of `count` windows [count, V]; None where all are wanted."""
        wanted = self.stage.variates
        if wanted is None or wanted >= width:
            return None
        return torch.rand((count, width), generator=generator).argsort(dim=1)[:, :wanted]

    def _steps_per_source(self, epoch: int, steps: int) -> Tensor:
        """Steps of each data set in one epoch, int64; they sum to `steps`.

        Shares are those of all steps so far: a set whose weight is worth half a step per epoch has
        one in every other epoch.
        """
        weights = [self.stage.sources[name] for name in self.names]
        before, after = (shared_out(weights, number * steps) for number in (epoch, epoch + 1))
        return after - before

    def _order(self, windows: int, wanted: int, generator: torch.Generator) -> Tensor:
        """`wanted` windows, each as often as every other (give or take one), in random order."""
        rounds = -(-wanted // windows)
        orders = [torch.randperm(windows, generator=generator) for _ in range(max(1, rounds))]
        return torch.cat(orders)[:wanted]


def _kinds(stage: Stage, config: Architecture) -> dict[int | None, float]:
    """Kinds of context that are learnt from (`Draw.ahead`), each with its share of steps."""
    if stage.rollouts is None or stage.rolled is None:
        return {None: 1.0}
    # Of a rollout, which a one-pass head answers for, a window's prefixes have only one.
    itself = None if config.patches_out == 1 else 0
    shares: dict[int | None, float] = {itself: 1 - stage.rolled}
    for ahead in range(stage.rollouts):
        shares[ahead] = shares.get(ahead, 0.0) + stage.rolled / stage.rollouts
    return {ahead: share for ahead, share in shares.items() if share > 0}


def shared_out(weights: Iterable[float], count: int) -> Tensor:
    """How many of the first `count` turns each weight gets, int64; they sum to `count`.

    Each gets its share, rounded so that every weight has had a turn before one has more than its
    share, and that a turn once given stays given as `count` grows (the method of Adams).
    """
    weight_K = torch.tensor(list(weights), dtype=torch.float64)
    share_K = weight_K / weight_K.sum()
    turns = [
        torch.arange(math.ceil(share * count) + 1, dtype=torch.float64) / share
        for share in share_K.tolist()
    ]
    owner = torch.repeat_interleave(torch.tensor([len(times) for times in turns]))
    first = torch.cat(turns).argsort(stable=True)[:count]
    return torch.bincount(owner[first], minlength=len(turns))
