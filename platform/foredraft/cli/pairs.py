"""The verbs about one draft beside its target: `evaluate` and `bench`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foredraft import bank, train
from foredraft.cli.common import STDERR, Draws, Result, Words, rule_of
from foredraft.cli.reading import ReadsData
from foredraft.errors import ConfigError
from foredraft.judge import evaluate, timing, yardstick
from foredraft.settings.config import Count, Evaluation, Machine, Positive, validated
from speculation import ContextPolicy, checkpoint
from speculation.forecaster import Architecture
from speculation.heads import by_itself
from speculation.policy import PolicyKind

if TYPE_CHECKING:
    from foredraft.judge.bench import BenchPlan, Subject


@dataclass(frozen=True, kw_only=True)
class Evaluate(ReadsData, Draws):
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
    horizon: Count = 720
    windows: Count | None = 64
    """windows of the split, evenly spaced; None for every one"""
    batch: Count = 1
    """forecasts decoded together when timed"""
    variates: Count | None = None
    """variates forecast together, each window having the next so many; by default all"""
    context_policy: PolicyKind | None = None
    """by default the target's own: sliding of a Timer-XL, deployed of a Timer"""
    renorm_every: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    acceptance: Words = ()
    """fields of the acceptance rule, each field=value; by default rule=tolerance mse_tol=0.01"""
    pairs: Count = 20
    """timed pairs of target alone and speculation"""
    season: Count | None = None
    """rows that seasonal naive repeats; by default a day of hours, a week of days, a year of
    months"""

    def run(self) -> Result:
        """The metrics of the pair, and of each model alone."""
        rule = rule_of(self.acceptance)
        if rule.adapt:
            raise ConfigError("--acceptance adapt=true: what it gains is told by bench --adapt")
        self._evaluation("sliding")  # what is asked for is checked before anything is looked for
        train.use_threads(None)
        device = train.device_of(Machine())
        models = [
            checkpoint.load(path) for path in _found(self.target, self.draft, storage=self.storage)
        ]
        evaluation = self._evaluation(models[0].config.policies[0])
        target, draft = (evaluate.ready(model, evaluation, device) for model in models)
        windows = evaluate.draw_windows(evaluation, target.config)
        season = yardstick.season_of(evaluation, target.config)
        unit_C = yardstick.unit_of(evaluation, season=season)
        with STDERR.status("forecasting"):
            alone, by_draft = (
                evaluate.forecast_alone(model, windows, evaluation=evaluation)
                for model in (target, by_itself(draft, target=target))
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
            ).timing
        told = {
            name: {
                **windows.errors_of(forecast_WHC)._asdict(),
                "mase": yardstick.mase(forecast_WHC, windows, unit_C=unit_C),
            }
            for name, forecast_WHC in (("target", alone), ("draft", by_draft))
        }
        naive = yardstick.seasonal_naive(windows, season=season, unit_C=unit_C)
        return {
            **row._asdict(),
            **measured._asdict(),
            "windows": len(windows.truth_WHC),
            **told,
            "seasonal_naive": naive._asdict(),
        }

    def _evaluation(self, own: PolicyKind) -> Evaluation:
        """What is asked for, of a target whose own policy that is."""
        policy = ContextPolicy(self.context_policy or own, self.renorm_every)
        return Evaluation(
            data=self.data,
            split=self.split,
            horizon=self.horizon,
            windows=self.windows,
            batch=self.batch,
            variates=self.variates,
            policy=policy,
            dtype=self.dtype,
            missing=self.missing,
            reading=self.reading,
            season=self.season,
        )


@dataclass(frozen=True, kw_only=True)
class Bench(ReadsData, Draws):
    """Time speculation against the target alone, in interleaved pairs over a grid.

    Lists are written with commas. For example:

        foredraft bench --preset t2 --random-weights --dtype bf16 --batch 1 --horizon 1440 \\
            --scale 0.5,0.7,0.9 --force-acceptance 0.9
        foredraft bench --preset t1 --random-weights --context-policy sliding \\
            --force-acceptance 0.9 --reference
        foredraft bench --preset t2 --random-weights --draft-kind heads --batch 1 \\
            --horizon 1440 --force-acceptance 1,0.9
        foredraft bench --target 0fb0 --draft 6812 --data ETTh1 --batch 1,16,64 --adapt
    """

    target: str | None = None
    """key or directory of a trained target, with --draft and --data"""
    draft: str | None = None
    data: str | None = None
    """whose test windows a trained pair forecasts"""
    variates: Count | None = None
    """of these data that are forecast together; by default all"""
    preset: Literal["t1", "t2", "t4", "timer-base"] | None = None
    """an architecture instead: t1 1 layer, d_model 512; t4 4 layers, 512; t2 8 layers, 1024;
    timer-base that of THUML's public Timer, univariate"""
    random_weights: bool = False
    """give the preset random weights; needs --force-acceptance"""
    draft_kind: Literal["model", "heads"] | None = None
    """of drafts of random weights: a smaller model, the default, or heads on the target's state"""
    scale: str | None = None
    """of such a model; by default 0.7"""
    patches_out: Count | None = None
    """patches that one pass of such a draft emits, or how many heads there are; by default 7"""
    lookahead: str = "7"
    force_acceptance: str | None = None
    """accept each proposal with this probability, whatever it is"""
    acceptance: Words = ()
    """fields of the acceptance rule, each field=value, where none is forced; by default
    rule=tolerance mse_tol=0.01"""
    batch: str = "1,16,64"
    horizon: str = "720"
    dtype: str = "fp32"
    """fp32, bf16, or both"""
    threads: str | None = None
    """by default as many as there are cores"""
    context_policy: PolicyKind | None = None
    """by default the one of the target's that keeps what it has read: cached of a Timer-XL,
    deployed of a Timer"""
    renorm_every: int = 0
    adapt: bool = False
    """choose each round's lookahead by cost and acceptance so far"""
    int8: bool = False
    """quantise the draft's weights to 8 bits (CPU)"""
    reference: bool = False
    """time the common rolling loop too"""
    pairs: Count = 20
    seconds: Positive = 60.0
    """after which a row begins no further pair, but for the first three"""

    def run(self) -> Result:
        """The device, the versions and one row per combination."""
        from foredraft import provenance
        from foredraft.judge import bench

        train.use_threads(None)
        device = train.device_of(Machine())
        self._check_given()
        plan = validated(bench.BenchPlan, self._grid(), source="bench")
        if self.context_policy is None:
            policy = ContextPolicy(self._keeping(), self.renorm_every)
            plan = plan.model_copy(update={"policy": policy})
        subject, scales = self._subject(plan)
        rows = bench.bench(plan, subject, device=device, scales=scales, say=_say_row)
        facts = provenance.collect()
        return {
            "device": facts["cuda"][0] if device.type == "cuda" else facts["cpu"],
            "versions": {"python": facts["python"], **facts["versions"]},
            "results": rows,
        }

    def show(self, result: Result) -> None:
        """Print the card: device, versions, and a line per row."""
        from foredraft.judge import bench

        versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("python", "torch"))
        print(f"{result['device']}, {versions}\n\n{bench.card(result['results'])}")

    def _grid(self) -> dict[str, Any]:
        lists = {
            "batches": self.batch,
            "horizons": self.horizon,
            "dtypes": self.dtype,
            "threads": self.threads,
            "scales": self.scale,
            "lookaheads": self.lookahead,
            "acceptances": self.force_acceptance,
        }
        names = ("draft_kind", "patches_out", "adapt", "int8", "reference", "pairs", "seconds")
        given = {name: getattr(self, name) for name in (*names, "seed")}
        return {
            **{name: value for name, value in given.items() if value is not None},
            **{name: text.split(",") for name, text in lists.items() if text},
            "policy": ContextPolicy(self.context_policy or "cached", self.renorm_every),
            "rule": rule_of(self.acceptance),
        }

    def _scales(self, plan: BenchPlan) -> tuple[float | None, ...]:
        if plan.draft_kind == "model":
            return plan.scales
        if self.scale is not None:
            raise ConfigError(f"--scale is {self.scale}: it has no effect on heads; leave it out")
        return (None,)

    def _check_given(self) -> None:
        """Nothing, where one pair is named, in one way.

        Raises:
            ConfigError: none is, or a flag has no effect on it.
        """
        if self.preset is None and None in (self.target, self.draft, self.data):
            raise ConfigError("bench needs --preset, or --target, --draft and --data")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        if self.preset:
            of_data = [field.name for field in dataclasses.fields(ReadsData)]
            beside, idle = "--preset", ["target", "draft", "data", "variates", *of_data]
        else:
            beside, idle = "--target", ["random_weights", "draft_kind", "scale", "patches_out"]
        for name in idle:
            if getattr(self, name) != defaults[name]:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} has no effect beside {beside}: leave one of them out")

    def _keeping(self) -> PolicyKind:
        """The target's first policy under which it keeps what it has read."""
        from foredraft.judge import bench

        if self.preset:
            config: Architecture = bench.PRESETS[self.preset]
        else:
            assert self.target is not None
            path = bank.find(self.target, kind="target", storage=self.storage)
            config = bank.open_model(path).config
        return next(kind for kind in config.policies if ContextPolicy(kind).keeps)

    def _subject(self, plan: BenchPlan) -> tuple[Subject, tuple[float | None, ...]]:
        from foredraft.judge import bench

        if self.preset:
            if not self.random_weights:
                raise ConfigError("preset has no trained weights: say --random-weights")
            if not plan.acceptances:
                raise ConfigError("random-weights need --force-acceptance: they agree on nothing")
            return bench.random_subject(self.preset, plan), self._scales(plan)
        assert self.target is not None
        assert self.draft is not None
        assert self.data is not None
        target, draft = (
            checkpoint.load(path) for path in _found(self.target, self.draft, storage=self.storage)
        )
        evaluation = Evaluation(
            data=self.data,
            split="test",
            horizon=max(plan.horizons),
            windows=max(plan.batches),
            variates=self.variates,
            missing=self.missing,
            reading=self.reading,
        )
        windows = evaluate.draw_windows(evaluation, target.config)
        return bench.Subject(lambda _: (target, draft), windows.context_WTC), (None,)


def _say_row(row: dict[str, Any]) -> None:
    from foredraft.judge import bench

    rate = "none" if row["acceptance_rate"] is None else f"{row['acceptance_rate']:.2f}"
    distance = f", {row['reference_ratio']:.1f}x the loop" if "reference_ratio" in row else ""
    heads = row["draft_kind"] == "heads"
    size = f"{row['patches_out']} heads" if heads else f"scale {row['scale']}"
    STDERR.print(
        f"{row['dtype']} batch {row['batch']} horizon {row['horizon']} {size} "
        f"lookahead {row['lookahead']} acceptance {rate}: "
        f"{bench.speedup_in_words(row)}, predicted {row['predicted_speedup']:.2f}x{distance}",
        highlight=False,
        soft_wrap=True,
    )


def _found(target: str, draft: str, *, storage: Path) -> tuple[Path, Path]:
    """The directories of a pair.

    Raises:
        ConfigError: one is not there, or the draft is another target's heads.
    """
    paths = (
        bank.find(target, kind="target", storage=storage),
        bank.find(draft, kind="draft", storage=storage),
    )
    bank.check_pair(*paths)
    return paths
