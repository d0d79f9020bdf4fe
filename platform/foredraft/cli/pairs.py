"""The verbs about one draft beside its target: `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foredraft import drafts, evaluate, timing, train
from foredraft.cli.common import STDERR, Common, Result, rule_of
from foredraft.config import Evaluation, Machine
from timer_xl import ContextPolicy, checkpoint


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Accuracy, acceptance, deviation and measured speed of a draft beside its target.

    For example:

        foredraft evaluate --target 0fb0 --draft 6812 --data synthetic-etth --horizon 240
        foredraft evaluate --target 0fb0 --draft 6812 --data ETTh1 --acceptance rule=gaussian \\
            sigma=0.5 bias=2 lookahead=6
    """

    target: str
    draft: str
    data: str
    split: Literal["train", "validation", "test"] = "test"
    horizon: int = 720
    windows: int | None = 64
    """windows of the split, evenly spaced; None for every one"""
    batch: int = 1
    """forecasts decoded together when timed"""
    context_policy: Literal["sliding", "cached"] = "sliding"
    renorm_every: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    missing: Literal["refuse", "interpolate"] = "refuse"
    acceptance: tuple[str, ...] = ("rule=tolerance", "mse_tol=0.01")
    """fields of the acceptance rule, each field=value"""
    pairs: int = 20
    """timed pairs of target alone and speculation"""

    def run(self) -> Result:
        """The metrics of the pair, and of each model alone."""
        storage = self.storage
        rule = rule_of(self.acceptance)
        evaluation = Evaluation(
            data=self.data,
            split=self.split,
            horizon=self.horizon,
            windows=self.windows,
            batch=self.batch,
            policy=ContextPolicy(self.context_policy, self.renorm_every),
            dtype=self.dtype,
            missing=self.missing,
        )
        train.use_threads(None)
        device = train.device_of(Machine())
        target, draft = (
            evaluate.ready(
                checkpoint.load(drafts.find(reference, kind=kind, storage=storage)),
                evaluation,
                device,
            )
            for reference, kind in _kinds(self.target, self.draft)
        )
        windows = evaluate.draw_windows(evaluation, target.config)
        with STDERR.status("forecasting"):
            alone, by_draft = (
                evaluate.forecast_alone(model, windows, evaluation=evaluation)
                for model in (target, draft)
            )
            row = evaluate.judge_pair(
                target,
                draft,
                rule,
                windows,
                evaluation=evaluation,
                alone_WHC=alone,
                seed=self.seed or 0,
            )
            measured = timing.time_pairs(
                target, draft, rule, windows, evaluation=evaluation, pairs=self.pairs
            )
        return {
            **row._asdict(),
            **measured._asdict(),
            "windows": len(windows.truth_WHC),
            "target": evaluate.accuracy(alone, windows.truth_WHC)._asdict(),
            "draft": evaluate.accuracy(by_draft, windows.truth_WHC)._asdict(),
        }


def _kinds(target: str, draft: str) -> list[tuple[str, drafts.Kind]]:
    return [(target, "target"), (draft, "draft")]
