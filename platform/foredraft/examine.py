"""What a draft is worth to its target while it trains: acceptance, accept length, speedup.

    trained = train(training, run=run, examine=Examiner.of(training))

The figures are those of `evaluate`, over a few windows of the validation split: acceptance under
the default rule, and the speedup that the cost model predicts. The passes that it needs are timed
once, since their cost depends on the architecture alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from foredraft import evaluate
from foredraft.config import Evaluation, Training
from foredraft.train import Row
from timer_xl import Acceptance, ContextPolicy, TimerXL, checkpoint, cost

# The rule of every figure that names none: distances in RevIN units.
DEFAULT_TOLERANCE = 0.01
PATCHES = 8
WINDOWS = 32


def default_rule(patches_out: int) -> Acceptance:
    """The strict rule: the target's own means within a tolerance, proposals as the draft emits."""
    return Acceptance(mse_tol=DEFAULT_TOLERANCE, lookahead=max(4, patches_out))


@dataclass
class Examiner:
    """Examines the drafts of one training; what it needs is opened where it first examines."""

    training: Training
    target: Path

    @classmethod
    def of(cls, training: Training) -> Examiner | None:
        """The examiner of a draft's training; None for a target's."""
        return cls(training, Path(training.target)) if training.target else None

    def __call__(self, draft: TimerXL) -> Row:
        """Acceptance rate, accept length and predicted speedup of the draft as it is by now."""
        target = self._target.to(draft.device)
        row = evaluate.judge_pair(
            target,
            draft,
            self.rule,
            self._windows,
            evaluation=self.evaluation,
            alone_WHC=self._alone_WHC,
        )
        if self._costs is None:
            self._costs = evaluate.calibrate(
                target,
                draft,
                self._windows,
                lookahead=self.rule.lookahead,
                evaluation=self.evaluation,
            )
        return {
            "acceptance_rate": row.acceptance_rate,
            "accept_length": row.accept_length,
            "predicted_speedup": evaluate.predict(
                row,
                self._costs,
                rule=self.rule,
                evaluation=self.evaluation,
                patch=draft.config.patch,
            ),
        }

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens the target for itself.
        return {"training": self.training, "target": self.target}

    @property
    def rule(self) -> Acceptance:
        """The rule under which the draft is examined."""
        return default_rule(self.training.model.patches_out)

    @property
    def evaluation(self) -> Evaluation:
        """On what it is examined: what judges the last stage, as far ahead as a round reaches."""
        last = self.training.stages[-1]
        return Evaluation(
            data=last.judges[0],
            split="validation",
            horizon=PATCHES * self.training.model.patch,
            windows=WINDOWS,
            policy=last.policy or ContextPolicy(),
        )

    _costs: cost.PassCosts | None = None

    @cached_property
    def _target(self) -> TimerXL:
        return checkpoint.load(self.target)

    @cached_property
    def _windows(self) -> evaluate.EvaluationWindows:
        return evaluate.draw_windows(self.evaluation, self.training.model)

    @cached_property
    def _alone_WHC(self) -> torch.Tensor:
        return evaluate.forecast_alone(self._target, self._windows, evaluation=self.evaluation)
