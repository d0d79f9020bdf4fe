"""What a stage learns from: windows drawn by index, and what should follow their patches.

    lessons = Lessons(stage, config, split="train", seed=1, asking=None)
    for draw in lessons.epoch(0, batch=32, drawn=6400):
        lesson = lessons.lesson(draw, device=device)

Every batch is of one data set, so that sets of different widths mix: a data set gets its share of
an epoch's steps by its weight. The order of windows, the variates drawn for each and the contexts
of a distillation follow from seed and epoch alone: they are the same for all workers, each of which
takes its share of every draw.

Shapes: B batch, W windows, T time steps, C variates, V variates drawn, N patches of a context,
M patches learnt from, P patch length, K patches emitted at once, Q = K * P.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft import data
from foredraft.config import Stage
from foredraft.train import teacher
from timer_xl import Normalisation, TimerXL, TimerXLConfig


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
    """RevIN units"""
    y_BMCQ: Tensor
    """RevIN units"""
    unit_B1C1: Tensor
    """the length of a RevIN unit in the units in which errors count: those of the standardised
    data for what was observed; in distillation 1, as acceptance counts them"""


class Source(NamedTuple):
    """One data set of a stage."""

    windows: data.Windows
    variates_WV: Tensor | None
    """variates of each window, where they do not change from epoch to epoch"""
    answers: teacher.Answers | None
    """the target's, in distillation"""

    @property
    def width(self) -> int:
        """Variates of the data set."""
        return self.windows.values_TC.shape[1]


class Teacher(NamedTuple):
    """A target that answers, and the digest of its weights."""

    target: TimerXL
    digest: str


class Lessons:
    """The lessons of one stage on one split."""

    def __init__(
        self,
        stage: Stage,
        config: TimerXLConfig,
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
        self.sources = [self._open(name, split, limit=limit) for name in self.names]

    def __len__(self) -> int:
        return sum(len(source.windows) for source in self.sources)

    def _open(self, name: str, split: str, *, limit: int | None) -> Source:
        dataset = data.load(name)
        windows = dataset.windows(
            split,
            context=self.config.context,
            horizon=self.config.patches_out * self.config.patch,
        )
        if limit is not None and limit < len(windows):
            even = torch.linspace(0, len(windows) - 1, limit).long()
            windows = dataclasses.replace(windows, starts_W=windows.starts_W[even])
        # Answers are kept per window, and a validation must be the same at every epoch.
        fixed = split != "train" or self.taught is not None
        generator = torch.Generator().manual_seed(0)
        width = windows.values_TC.shape[1]
        variates_WV = self._variates(len(windows), width, generator) if fixed else None
        answers = None
        if self.taught is not None:
            answers = teacher.ask(
                self.taught.target,
                windows,
                variates_WV=variates_WV,
                source=dataset.digest,
                asking=self._asking(self.taught),
            )
        return Source(windows, variates_WV, answers)

    def _asking(self, taught: Teacher) -> teacher.Asking:
        assert self.stage.rollouts is not None
        assert self.stage.policy is not None
        ahead = self.stage.rollouts + self.config.patches_out - 1
        return teacher.Asking(taught.digest, ahead, self.stage.policy)

    def epoch(self, number: int, *, batch: int, drawn: int | None) -> Iterator[Draw]:
        """The draws of one epoch, `batch` windows each; all workers see the same ones."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        steps = self.steps(batch=batch, drawn=drawn)
        order = torch.repeat_interleave(self._steps_per_source(steps))
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
            yield Draw(index, index_B, variates_BV, self._ahead(generator))

    def steps(self, *, batch: int, drawn: int | None) -> int:
        """Optimiser steps of an epoch: whole batches of the windows that are drawn."""
        return max(1, (drawn or len(self)) // batch)

    def every_window(self, *, batch: int) -> Iterator[Draw]:
        """Each window once, in order: what judges an epoch."""
        for index, source in enumerate(self.sources):
            for step, index_B in enumerate(torch.arange(len(source.windows)).split(batch)):
                variates_WV = source.variates_WV
                variates_BV = None if variates_WV is None else variates_WV[index_B]
                rollouts = self.stage.rollouts
                yield Draw(index, index_B, variates_BV, rollouts and step % rollouts)

    def lesson(self, draw: Draw, *, device: torch.device) -> Lesson:
        """The contexts of a draw, and what should follow their patches."""
        source = self.sources[draw.source]
        window_BTC = source.windows.batch(draw.index_B, variates=draw.variates_BV)
        window_BTC = window_BTC.to(device)
        if source.answers is None:
            return self._observed(window_BTC)
        answers_BFCP = source.answers.patches(draw.index_B).to(device)
        return self._answered(window_BTC, answers_BFCP, ahead=draw.ahead)

    def _observed(self, window_BTC: Tensor) -> Lesson:
        """After every patch of the context, what came next."""
        patch, config = self.config.patch, self.config
        x_BNCP = window_BTC[:, : config.context].unflatten(1, (-1, patch)).transpose(2, 3)
        y_BNCQ = window_BTC[:, patch:].unfold(1, config.patches_out * patch, patch)
        normalisation = Normalisation.of(x_BNCP)
        return Lesson(
            normalisation.apply(x_BNCP), normalisation.apply(y_BNCQ), normalisation.deviation
        )

    def _answered(self, window_BTC: Tensor, answers_BFCP: Tensor, *, ahead: int | None) -> Lesson:
        """After every prefix of a window, or after its rollout has passed, what the target says."""
        size = self.config.context_patches
        x_BNCP = window_BTC[:, : self.config.context]
        x_BNCP = x_BNCP.unflatten(1, (-1, self.config.patch)).transpose(2, 3)
        normalisation = Normalisation.of(x_BNCP)
        x_BNCP, unit = normalisation.apply(x_BNCP), torch.ones_like(normalisation.deviation)
        if ahead is None:
            return Lesson(x_BNCP, answers_BFCP[:, :size], unit)
        assert self.stage.policy is not None
        history_BNCP = torch.cat((x_BNCP, answers_BFCP[:, size - 1 : size - 1 + ahead]), dim=1)
        first = size - 1 + ahead
        next_BKCP = answers_BFCP[:, first : first + self.config.patches_out]
        # `sliding` anchors its window at every patch, `cached` every `renorm_every` patches.
        every = 1 if self.stage.policy.kind == "sliding" else self.stage.policy.renorm_every
        anchor = ahead - ahead % every if every else 0
        again = Normalisation.of(history_BNCP[:, anchor : anchor + size])
        return Lesson(
            again.apply(history_BNCP[:, anchor:]),
            again.apply(next_BKCP).transpose(1, 2).flatten(2)[:, None],
            unit,
        )

    def _ahead(self, generator: torch.Generator) -> int | None:
        """Patches of the rollout that have passed in one step of a distillation."""
        if self.stage.rollouts is None or self.stage.rolled is None:
            return None
        if float(torch.rand((), generator=generator)) >= self.stage.rolled:
            # Of a rollout, which a one-pass head answers for, a window's prefixes have only one.
            return None if self.config.patches_out == 1 else 0
        return int(torch.randint(self.stage.rollouts, (), generator=generator))

    def _variates(self, count: int, width: int, generator: torch.Generator) -> Tensor | None:
        """Variates for each of `count` windows [count, V]; None where all are wanted."""
        wanted = self.stage.variates
        if wanted is None or wanted >= width:
            return None
        return torch.rand((count, width), generator=generator).argsort(dim=1)[:, :wanted]

    def _steps_per_source(self, steps: int) -> Tensor:
        """Steps of each data set by its weight, int64; they sum to `steps`."""
        weights = [self.stage.sources[name] for name in self.names]
        ends = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        ends = (ends / ends[-1] * steps).round().long()
        return torch.diff(ends, prepend=ends.new_zeros(1))

    def _order(self, windows: int, wanted: int, generator: torch.Generator) -> Tensor:
        """`wanted` windows, each as often as every other (give or take one), in random order."""
        rounds = -(-wanted // windows)
        orders = [torch.randperm(windows, generator=generator) for _ in range(max(1, rounds))]
        return torch.cat(orders)[:wanted]
