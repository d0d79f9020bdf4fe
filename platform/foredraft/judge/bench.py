"""How fast decoding is: target alone, speculation, and the common loop, in turn on one machine.

    plan = BenchPlan(scales=(0.7,), batches=(1,), dtypes=("bf16",), acceptances=(0.9,))
    rows = bench(plan, random_subject("t2", plan), device=torch.device("cpu"), scales=plan.scales)

Every row of the grid calibrates the passes, predicts, and then times target alone and speculation
in interleaved pairs on the same contexts. With random weights and a forced acceptance it measures
the engine apart from any training. Nothing here imports Ray.
"""

from __future__ import annotations

import itertools
import runpy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from foredraft.errors import ConfigError
from foredraft.judge import timing
from foredraft.judge.evaluate import EvaluationWindows, cast
from foredraft.judge.memory import peak_mib
from foredraft.settings.config import Count, DraftKind, Evaluation, Positive, Seed, Settings
from foredraft.settings.rules import Rule
from speculation import (
    Acceptance,
    ContextPolicy,
    Plan,
    Speculation,
    Tolerance,
    cost,
    families,
    rollout,
    speculate,
)
from speculation.decode import Pair
from speculation.forecaster import Architecture, Forecaster
from speculation.heads import Heads, HeadsConfig
from speculation.network import Network
from timer import TimerConfig
from timer_xl import TimerXL, TimerXLConfig

PRESETS: dict[str, Architecture] = {
    "t1": TimerXLConfig(n_layers=1, d_model=512, n_heads=8, d_ff=2048),
    "t2": TimerXLConfig(n_layers=8, d_model=1024, n_heads=16, d_ff=4096),
    "t4": TimerXLConfig(n_layers=4, d_model=512, n_heads=8, d_ff=2048),
    "timer-base": TimerConfig(),
}
VARIATES = {"timer-base": 1}
"""By preset; 7 of the others."""
REFERENCE = Path(__file__).parents[3] / "benchmarks" / "reference_rolling.py"

Row = dict[str, Any]
COLUMNS = (
    *("dtype", "batch", "horizon", "scale", "lookahead", "acceptance", "speedup, 95 %"),
    *("predicted", "target s", "draft / verify / accept", "rounds by patches emitted"),
    *("peak MiB", "loop"),
)


class BenchPlan(Settings):
    """What a benchmark measures: every combination of what is listed, one after the other."""

    policy: ContextPolicy = ContextPolicy("cached")
    batches: tuple[Count, ...] = (1, 16, 64)
    horizons: tuple[Count, ...] = (720,)
    """time steps"""
    dtypes: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)
    threads: tuple[Count, ...] = ()
    """of PyTorch; none for as many as there are"""
    scales: tuple[Positive, ...] = (0.7,)
    """of the target, for drafts of random weights"""
    lookaheads: tuple[Count, ...] = (7,)
    draft_kind: DraftKind = "model"
    """of drafts of random weights: a smaller model, or heads on the target's own state"""
    patches_out: Count = 7
    """patches that one pass of a draft of random weights emits; or how many heads there are"""
    acceptances: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """acceptance rates to force; none to leave it to the rule"""
    rule: Rule = Tolerance(mse_tol=0.01)
    """where no acceptance is forced"""
    adapt: bool = False
    """whether each round's lookahead is chosen as decoding goes"""
    int8: bool = False
    """whether the draft's weights are quantised to 8 bits"""
    reference: bool = False
    """whether the common rolling loop is timed too"""
    pairs: Count = 20
    seconds: Positive = 60.0
    """after which a row of the grid begins no further pair, but for the first three"""
    seed: Seed = 0
    """of random weights, of what they forecast, and of acceptances"""


class Cell(NamedTuple):
    """One combination of the grid."""

    threads: int
    dtype: Literal["fp32", "bf16"]
    scale: float | None
    batch: int
    horizon: int
    lookahead: int
    acceptance: float | None


class Models(NamedTuple):
    """A pair as it decodes, and the target as it was trained."""

    plain: Network
    target: Forecaster
    draft: Forecaster


class Subject(NamedTuple):
    """Whom to measure: how a pair is made for a scale, and the contexts that it forecasts."""

    make: Callable[[float | None], tuple[Network, Network]]
    contexts_WTC: Tensor


def random_subject(preset: str, plan: BenchPlan) -> Subject:
    """A preset's target and drafts with random weights, on random walks.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}: one of {', '.join(PRESETS)} would do")
    config = PRESETS[preset]

    def make(scale: float | None) -> tuple[Network, Network]:
        torch.manual_seed(plan.seed)
        target = families.build(config)
        if plan.draft_kind == "heads":
            return target, Heads(HeadsConfig.of(config, patches_out=plan.patches_out))
        return target, families.build(config.scaled(scale or 1.0, patches_out=plan.patches_out))

    generator = torch.Generator().manual_seed(plan.seed)
    shape = (max(plan.batches), config.context, VARIATES.get(preset, 7))
    steps = torch.randn(shape, generator=generator)
    return Subject(make, steps.cumsum(1) * 0.1)


def bench(
    plan: BenchPlan,
    subject: Subject,
    *,
    device: torch.device,
    scales: tuple[float | None, ...],
    say: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """One row per combination of the plan's grid.

    Args:
        plan: the grid.
        subject: whom to measure.
        device: where.
        scales: of the drafts; (None,) for the one draft that there is.
        say: called with each row as it is measured.

    Raises:
        ConfigError: the reference loop is asked for and is not there.
    """
    rows, models, made_for = [], None, None
    costs, calibrated_for = None, None
    threads = plan.threads or (torch.get_num_threads(),)
    for cell in _grid(plan, scales, threads=threads):
        torch.set_num_threads(cell.threads)
        if models is None or made_for != (cell.dtype, cell.scale):
            made_for = (cell.dtype, cell.scale)
            models = _ready(*subject.make(cell.scale), dtype=cell.dtype, plan=plan, device=device)
        run = _run(plan, cell, models, subject.contexts_WTC)
        if costs is None or calibrated_for != cell[:-1]:  # acceptance changes no pass
            costs, calibrated_for = run.costs(), cell[:-1]
        rows.append(_measure(plan, cell, run, costs))
        say(rows[-1])
    return rows


def _grid(
    plan: BenchPlan, scales: tuple[float | None, ...], *, threads: tuple[int, ...]
) -> Iterator[Cell]:
    """Cells in an order that makes each pair of models once."""
    axes = (
        threads,
        plan.dtypes,
        scales,
        plan.batches,
        plan.horizons,
        plan.lookaheads,
        plan.acceptances or (None,),
    )
    return itertools.starmap(Cell, itertools.product(*axes))


def _ready(
    target: Network, draft: Network, *, dtype: str, plan: BenchPlan, device: torch.device
) -> Models:
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    target, draft = (cast(model, device=device, dtype=kind).eval() for model in (target, draft))
    return Models(target, target.engine(), draft.engine(int8=plan.int8))


def _run(plan: BenchPlan, cell: Cell, models: Models, contexts_WTC: Tensor) -> _Run:
    repeats = -(-cell.batch // len(contexts_WTC))
    return _Run(
        models,
        contexts_WTC.repeat(repeats, 1, 1)[: cell.batch].to(models.target.device),
        _rule(plan, cell),
        Evaluation(
            data="-", horizon=cell.horizon, batch=cell.batch, policy=plan.policy, dtype=cell.dtype
        ),
        plan.seed,
    )


def _measure(plan: BenchPlan, cell: Cell, run: _Run, costs: cost.PassCosts) -> Row:
    models, rule, policy = run.models, run.rule, plan.policy
    if cell.acceptance:
        rates = [cell.acceptance] * rule.lookahead
    else:
        one = run.speculation()
        rates = cost.pass_rates(one.tested_K, one.passed_K)
    chances = Plan(costs, tuple(rates[: costs.lookahead]))
    patches = -(-cell.horizon // models.target.config.patch)
    horizon = {"patches": patches, "renorm_every": policy.renorm_every, "batch": cell.batch}
    best, predicted = chances.best(**horizon)
    if plan.adapt:
        run = run._replace(rule=replace(rule, adapt=True), plan=chances)
    else:
        best = min(rule.lookahead, chances.longest)
        predicted = cost.predicted_speedup(costs, chances.pass_rates, lookahead=best, **horizon)
    speculations: dict[int, Speculation] = {}  # by pair: what was run to warm up is run again
    runs: list[Callable[[int], object]] = [
        run.alone,
        lambda index: speculations.update({index: run.speculation(index)}),
    ]
    if plan.reference:
        runs.append(_reference(models.plain, run))
    alone_s, together_s, *reference_s = timing.interleaved(
        runs, pairs=plan.pairs, device=models.target.device, at_most_s=plan.seconds
    )
    counted = [speculations[index] for index in range(len(together_s))]
    speedup = timing.ratio(alone_s, together_s)
    stages = run.stage_seconds(best, patches=patches)
    row = {
        **cell._asdict(),
        "lookahead": best,
        "patches_out": models.draft.config.patches_out,
        "draft_kind": "heads" if isinstance(models.draft, Heads) else "model",
        "context_policy": policy.kind,
        "renorm_every": policy.renorm_every,
        "adapt": plan.adapt,
        "draft": {
            name: getattr(models.draft.config, name, None)
            for name in ("d_model", "n_heads", "d_ff", "n_layers", "hidden", "num_parameters")
        },
        "acceptance_rate": _acceptance_rate(counted),
        "accept_lengths": torch.stack([s.accept_lengths for s in counted]).sum(0).tolist(),
        "speedup": speedup.median,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "predicted_speedup": predicted,
        "pairs": len(alone_s),
        "target_s": statistics.median(alone_s),
        "speculation_s": statistics.median(together_s),
        **{f"{name}_s": seconds for name, seconds in stages._asdict().items()},
        "draft_cost": costs.draft_s[-1][-1] / costs.step_s[-1],
        "verify_cost": costs.verify_s[-1][-1] / costs.step_s[-1],
        "peak_mib": peak_mib(lambda: run.speculation(), models.target.device),
    }
    if reference_s:
        distance = timing.ratio(reference_s[0], alone_s)
        row |= {
            "reference_ratio": distance.median,
            "reference_low": distance.low,
            "reference_high": distance.high,
            "reference_s": statistics.median(reference_s[0]),
        }
    return row


def _acceptance_rate(speculations: list[Speculation]) -> float | None:
    """Accepted / proposed patches; None where nothing was proposed."""
    proposed = sum(one.proposed for one in speculations)
    return sum(one.accepted for one in speculations) / proposed if proposed else None


def _rule(plan: BenchPlan, cell: Cell) -> Acceptance:
    return replace(plan.rule, lookahead=cell.lookahead, forced=cell.acceptance)


class _Run(NamedTuple):
    """One pair on one batch of contexts: what is timed."""

    models: Models
    context_BTC: Tensor
    rule: Acceptance
    evaluation: Evaluation
    seed: int
    plan: Plan | None = None

    def costs(self) -> cost.PassCosts:
        """The passes of this pair, calibrated."""
        return timing.calibrate(
            self.models.target,
            self.models.draft,
            EvaluationWindows(self.context_BTC, self.context_BTC),
            lookahead=self.rule.lookahead,
            evaluation=self.evaluation,
        )

    def alone(self, index: int = 0) -> Tensor:
        """The target's own forecast."""
        return rollout(
            self.models.target,
            self.context_BTC,
            horizon=self.evaluation.horizon,
            policy=self.evaluation.policy,
        )

    def speculation(self, index: int = 0) -> Speculation:
        """The speculative forecast; each pair draws its own acceptances."""
        return speculate(
            self.models.target,
            self.models.draft,
            self.context_BTC,
            horizon=self.evaluation.horizon,
            acceptance=self.rule,
            policy=self.evaluation.policy,
            plan=self.plan,
            generator=self._lots(index),
        )

    def _lots(self, index: int = 0) -> torch.Generator:
        return torch.Generator(device=self.context_BTC.device).manual_seed(self.seed + index)

    @torch.no_grad()
    def stage_seconds(self, lookahead: int, *, patches: int) -> timing.StageSeconds:
        """Seconds of a forecast's stages at a fixed lookahead, the clock read between them."""
        pair = Pair(
            self.models.target,
            self.models.draft,
            self.context_BTC,
            patches=patches,
            acceptance=self.rule,
            policy=self.evaluation.policy,
            generator=self._lots(),
        )
        rounds = []
        while len(pair.history.read_BNCP):
            rounds.append(timing.play_round(pair, lookahead))
            pair.select(torch.nonzero(pair.history.emitted_B < patches).flatten())
        return timing.StageSeconds(*(sum(stage) for stage in zip(*rounds, strict=True)))


def _reference(model: Network, run: _Run) -> Callable[[int], object]:
    """The common rolling loop on the same contexts: `benchmarks/reference_rolling.py`."""
    if not isinstance(model, TimerXL):
        raise ConfigError(
            f"reference is true: the common rolling loop is a Timer-XL's, and the target is of the "
            f"family {model.config.family}; leave it out"
        )
    if not REFERENCE.is_file():
        raise ConfigError(f"reference needs {REFERENCE}: run it from a checkout of the repository")
    rolling_forecast = runpy.run_path(str(REFERENCE))["rolling_forecast"]
    return lambda _: rolling_forecast(model, run.context_BTC, horizon=run.evaluation.horizon)


def speedup_in_words(row: Row) -> str:
    """The measured speedup of a row, with its interval where it has one."""
    low, high = row["speedup_low"], row["speedup_high"]
    return timing.in_words(row["speedup"], low, high, pairs=row["pairs"])


def card(rows: list[Row]) -> str:
    """The rows as a table in Markdown, for people and for `benchmarks/`."""
    lines = [_table_line(COLUMNS), _table_line(["---"] * len(COLUMNS))]
    lines += [_table_line(_cells(row)) for row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    stages = [row[f"{name}_s"] for name in timing.StageSeconds._fields]
    shares = " / ".join(f"{stage / sum(stages):.0%}" for stage in stages)
    rate = row["acceptance_rate"]
    return [
        row["dtype"],
        str(row["batch"]),
        str(row["horizon"]),
        _size_in_words(row),
        str(row["lookahead"]),
        "nothing proposed" if rate is None else f"{rate:.2f}",
        speedup_in_words(row),
        f"{row['predicted_speedup']:.2f}x",
        f"{row['target_s']:.4f}",
        shares,
        " ".join(str(count) for count in row["accept_lengths"][1:]),
        f"{row['peak_mib']:.1f}",
        f"{row['reference_ratio']:.1f}x" if "reference_ratio" in row else "",
    ]


def _size_in_words(row: Row) -> str:
    if row["draft_kind"] == "heads":
        return f"{row['patches_out']} heads"
    return "own" if row["scale"] is None else f"{row['scale']:g}"


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
