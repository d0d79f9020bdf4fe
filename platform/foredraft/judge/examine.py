"""What a draft is worth to its target while it trains: acceptance, accept length, speedup.

    trained = train(training, run=run, examine=Examiner.of(training))

The figures are those of `evaluate`, after a few contexts of the validation split: acceptance under
the default rule, and the speedup that the cost model predicts. None of them asks what really came
next, so that both models look further ahead than a short split has rows: whatever can be trained
can be examined. The passes are timed once, since their cost depends on the architecture alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foredraft import buckets
from foredraft.judge import evaluate, timing
from foredraft.settings.config import Evaluation, Training
from foredraft.train import EXAMINED, Row
from speculation import Acceptance, ContextPolicy, Tolerance, checkpoint, cost
from speculation.forecaster import Architecture, Forecaster
from speculation.heads import HeadsConfig
from speculation.network import Network

# The rule of every figure that names none: distances in the target's units.
DEFAULT_TOLERANCE = 0.01
# Patches that it proposes at least, where a draft that emits fewer a pass can go on.
ROLLED = 4
# How far ahead a draft is examined, and after how many contexts.
PATCHES = 8
WINDOWS = 32


def default_rule(draft: Architecture) -> Acceptance:
    """The strict rule: the target's own means within a tolerance, proposals as the draft emits."""
    shortest = 1 if isinstance(draft, HeadsConfig) else ROLLED
    lookahead = max(shortest, draft.patches_out)
    return Tolerance(mse_tol=DEFAULT_TOLERANCE, lookahead=lookahead)


class Bench(NamedTuple):
    """What a draft is examined beside; opened once for a training, where it runs."""

    target: Forecaster
    windows: evaluate.EvaluationWindows
    """their truth is not known, and no figure asks for it"""
    alone_WHC: torch.Tensor
    """the target's own forecasts"""
    costs: cost.PassCosts


@dataclass
class Examiner:
    """Examines the drafts of one training; opens what it needs where it first examines."""

    training: Training
    target: Path
    _bench: Bench | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, training: Training) -> Examiner | None:
        """The examiner of a draft's training; None for a target's."""
        return cls(training, Path(training.target)) if training.target else None

    def __call__(self, draft: Network) -> Row:
        """Acceptance rate, accept length and predicted speedup of the draft as it is by now."""
        engine = evaluate.ready(draft, self.evaluation, draft.device)
        self._bench = bench = self._bench or self._open(engine)
        row = evaluate.judge_pair(
            bench.target,
            engine,
            self.rule,
            bench.windows,
            evaluation=self.evaluation,
            alone_WHC=bench.alone_WHC,
        )
        speedup = evaluate.predict(
            row,
            bench.costs,
            rule=self.rule,
            evaluation=self.evaluation,
            patch=draft.config.patch,
        )
        figures = (row.acceptance_rate, row.accept_length, speedup)
        return dict(zip(EXAMINED, figures, strict=True))

    @property
    def rule(self) -> Acceptance:
        """The rule under which the draft is examined."""
        return default_rule(self.training.model)

    @property
    def evaluation(self) -> Evaluation:
        """On what it is examined: what judges the last stage, well beyond one round."""
        last = self.training.stages[-1]
        return Evaluation(
            data=last.judges[0],
            split="validation",
            horizon=PATCHES * self.training.model.patch,
            windows=WINDOWS,
            policy=last.policy or ContextPolicy(),
            missing=last.missing,
            reading=last.reading,
        )

    def _open(self, draft: Forecaster) -> Bench:
        weights = checkpoint.load(buckets.fetch(self.target))
        target = evaluate.ready(weights, self.evaluation, draft.device)
        windows = self._windows()
        alone_WHC = evaluate.forecast_alone(target, windows, evaluation=self.evaluation)
        return Bench(
            target=target,
            windows=evaluate.EvaluationWindows(
                windows.context_WTC, truth_WHC=torch.full_like(alone_WHC, torch.nan)
            ),
            alone_WHC=alone_WHC,
            costs=timing.calibrate(
                target,
                draft,
                windows,
                lookahead=self.rule.lookahead,
                evaluation=self.evaluation,
            ),
        )

    def _windows(self) -> evaluate.EvaluationWindows:
        """Contexts from all over the split, those of the stage's own validation windows."""
        model = self.training.model
        learnt = self.evaluation.model_copy(update={"horizon": model.patches_out * model.patch})
        return evaluate.draw_windows(learnt, model)

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens its own bench.
        return {"training": self.training, "target": self.target}
