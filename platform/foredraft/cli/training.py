"""The verbs that make models: `train target`, `train draft`, `import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from tyro.conf import Positional, UseAppendAction, arg, subcommand

import timer.checkpoint
import timer_xl.checkpoint
from foredraft import bank, data, train
from foredraft.cli.common import STDERR, Common, Draws, Result, Words, assignments, flat, say_line
from foredraft.cli.reading import ReadsData
from foredraft.errors import ConfigError
from foredraft.judge.examine import Examiner
from foredraft.settings.config import (
    Count,
    DraftKind,
    Factor,
    Machine,
    StageName,
    Training,
    validated,
)
from foredraft.settings.recipes import recipe
from speculation.forecaster import Architecture
from speculation.heads import HEADS, HIDDEN, HeadsConfig
from speculation.network import Network

Workers = Annotated[int, Field(ge=0, le=1024)]


@dataclass(frozen=True, kw_only=True)
class TrainTarget(ReadsData, Draws):
    """Train a target by a recipe.

    For example:

        foredraft train target --recipe demo
        foredraft train target --recipe etth1 --set model.d_model=1024 --set stages.0.epochs=5
        foredraft train target --recipe etth1 --workers 2
    """

    recipe: str
    """name of a recipe"""
    set: Words = ()
    """changes to the recipe, each field=value, such as stages.0.epochs=5"""
    workers: Workers = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        training = _changed(recipe(self.recipe), self.set, seed=self.seed, flags=self)
        return _train(training, kind="target", workers=self.workers, storage=self.storage)


@dataclass(frozen=True, kw_only=True)
class TrainDraft(ReadsData, Draws):
    """Train a draft of a target.

    For example:

        foredraft train draft --target 0fb0 --scale 0.7 --stages scratch --data ETTh1
        foredraft train draft --target 0fb0 --scale 0.7 --stages pretrain finetune distill \\
            --data eia930 ETTh1 ETTh1 --set stages.0.variates=7
        foredraft train draft --target 0fb0 --scale 0.7 --stages pretrain distill \\
            --data eia930:3,electricity:1 ETTh1 --patches-out 7
        foredraft train draft --target 0fb0 --depth 0.5 --width 1 --stages scratch --data ETTh1
        foredraft train draft --target 0fb0 --kind heads --data ETTh1
    """

    target: str
    """key, beginning of a key, or directory of a trained target"""
    kind: DraftKind = "model"
    """a smaller model; or heads: small networks on the target's own last hidden state, which cost a
    round nothing and are trained in minutes, the target frozen"""
    scale: Factor | None = None
    """of the target's layers, width and heads; a model needs it but where both of these are
    given:"""
    depth: Factor | None = None
    """of the target's layers alone; by default as --scale"""
    width: Factor | None = None
    """of the target's width, heads and feed-forward width alone; by default as --scale"""
    stages: UseAppendAction[tuple[tuple[StageName, ...], ...]] = ()
    """needed: in order; each starts from the one before. Of heads all are `heads`, by default"""
    data: Words = ()
    """needed, one word per stage: a data set, or several as name:weight,name:weight"""
    patches_out: Count | None = None
    """patches that one pass emits, by default 1; or how many heads there are, by default 7"""
    hidden: Count | None = None
    """width of the layer that the heads share; by default 512"""
    variance: bool = False
    """whether the draft has a log-variance head, trained by its likelihood"""
    set: Words = ()
    """changes to the training, each field=value, such as stages.0.epochs=5"""
    workers: Workers = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        self._check_sizes()
        names, words = [name for given in self.stages for name in given], flat(self.data)
        if self.kind == "heads" and not names:
            names = ["heads" for _ in words]
        if not names or len(names) != len(words):
            raise ConfigError(
                f"--data names {len(words)} data sets for the {len(names)} of --stages: "
                "name at least one stage, and one for each"
            )
        target = bank.find(self.target, kind="target", storage=self.storage).resolve()
        content = {
            "model": self._model(bank.open_model(target).config),
            "stages": [
                {"name": name, "data": _sources(word), "loss": "nll" if self.variance else "mse"}
                for name, word in zip(names, words, strict=True)
            ],
            "target": str(target),
        }
        training = validated(Training, content, source="train draft")
        training = _changed(training, self.set, seed=self.seed, flags=self)
        return _train(training, kind="draft", workers=self.workers, storage=self.storage)

    def _model(self, target: Architecture) -> Architecture:
        if self.kind == "heads":
            return HeadsConfig.of(
                target, patches_out=self.patches_out or HEADS, hidden=self.hidden or HIDDEN
            )
        return target.scaled(
            1.0 if self.scale is None else self.scale,  # which nothing follows then
            depth=self.depth,
            width=self.width,
            patches_out=self.patches_out or 1,
            variance=self.variance,
        )

    def _check_sizes(self) -> None:
        of_models = ("scale", "depth", "width", "variance")
        odd = of_models if self.kind == "heads" else ("hidden",)
        for name in odd:
            if getattr(self, name):
                raise ConfigError(
                    f"--{name} is {getattr(self, name)}: it has no effect where --kind is "
                    f"{self.kind}; leave it out"
                )
        if self.kind == "model":
            self._check_scale()

    def _check_scale(self) -> None:
        followed = self.depth is None or self.width is None
        if followed and self.scale is None:
            raise ConfigError(
                "--scale is missing: it says how large the draft is where not both --depth and "
                "--width do; 0.7 would do"
            )
        if not followed and self.scale is not None:
            raise ConfigError(
                f"--scale is {self.scale}: it has no effect where both --depth and --width are "
                "given; leave one of the three out"
            )


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a target or a draft."""

    kind: Annotated[TrainTarget, subcommand("target")] | Annotated[TrainDraft, subcommand("draft")]


@dataclass(frozen=True, kw_only=True)
class Import(Common):
    """Import a public checkpoint: OpenLTM's or STRIDE's Timer-XL, or THUML's Timer.

    How it was trained changes its forecasts, and the files do not tell: what is not said here is
    assumed, and the output says so.

    For example:

        foredraft import checkpoint.pth --as target
        foredraft import checkpoint.pth --context 2880 --activation gelu --flash-attention
        foredraft import checkpoint.pth --no-revin
        foredraft import timer-base-84m --family timer --as target
    """

    checkpoint: Positional[Path]
    """a Timer-XL's checkpoint.pth; of a Timer its directory, or the model.safetensors in it"""
    family: Literal["timer_xl", "timer"] = "timer_xl"
    kind: Annotated[Literal["target", "draft"], arg(aliases=("--as",))] = "target"
    """what it will be used as"""
    context: int | None = None
    """look-back in time steps: its --seq_len; by default 672, and 2880 of a Timer"""
    activation: Literal["relu", "gelu"] = "relu"
    """of a Timer-XL's feed-forward layers: its --activation"""
    revin: bool = True
    """whether a Timer-XL was trained with --use_norm; if not, it reads and answers in standardised
    units"""
    flash_attention: bool = False
    """whether a Timer-XL was trained with --flash_attention, which weighs the variate bias
    otherwise"""
    covariate: bool = False
    """whether a Timer-XL was trained with --covariate: such a model is refused"""

    def run(self) -> Result:
        """The imported model's key and place, and what was assumed of it.

        Raises:
            ConfigError: the model was trained with --covariate, or a flag has no effect.
        """
        model = self._timer() if self.family == "timer" else self._timer_xl()
        path = bank.add(model, kind=self.kind, storage=self.storage, source=self.checkpoint)
        look_back = f"{model.config.context} time steps (--context)"
        return {**_described(path), "assumed": {"context": look_back, **self._assumed()}}

    def _timer(self) -> Network:
        given = {
            "--activation": self.activation != "relu",
            "--no-revin": not self.revin,
            "--flash-attention": self.flash_attention,
            "--covariate": self.covariate,
        }
        for flag, is_given in given.items():
            if is_given:
                raise ConfigError(f"{flag} has no effect with --family timer: leave it out")
        if self.context is None:
            return timer.checkpoint.import_thuml(self.checkpoint)
        return timer.checkpoint.import_thuml(self.checkpoint, context=self.context)

    def _timer_xl(self) -> Network:
        if self.checkpoint.is_dir() or self.checkpoint.suffix == ".safetensors":
            what = "a directory" if self.checkpoint.is_dir() else "a safetensors file"
            raise ConfigError(
                f"{self.checkpoint} is {what}: a Timer-XL's checkpoint.pth is one file; THUML's "
                "Timer is imported with --family timer"
            )
        if self.covariate:
            raise ConfigError(
                f"{self.checkpoint}: a model trained with --covariate attends under another mask "
                "(its last variate alone sees the others), which Timer-XL here does not have; "
                "import one that was trained without it"
            )
        return timer_xl.checkpoint.import_openltm(
            self.checkpoint,
            context=672 if self.context is None else self.context,
            activation=self.activation,
            revin=self.revin,
            flash_attention=self.flash_attention,
        )

    def _assumed(self) -> dict[str, str]:
        """What the weights do not tell, in the words of the code that trained them."""
        if self.family == "timer":
            return {
                "policy": "none: a study or an evaluation says how it generates (deployed, as its "
                "code does by default, or growing, as that does with use_cache=False)"
            }
        return {
            "activation": f"{self.activation} (--activation)",
            "normalisation": "each window by itself, trained with --use_norm (else --no-revin)"
            if self.revin
            else "none, trained without --use_norm (--no-revin)",
            "attention": "trained with --flash_attention (--flash-attention)"
            if self.flash_attention
            else "trained without --flash_attention (else --flash-attention)",
            "covariates": "none, trained without --covariate",
        }


def _train(training: Training, *, kind: bank.Kind, workers: int, storage: Path) -> Result:
    machine = machine_of(workers)
    for sets in train.checked(training, workers=max(1, workers)):
        for note in (note for dataset in sets.values() for note in data.notes(dataset)):
            say_line(note)
    path = bank.obtain(
        training,
        kind=kind,
        storage=storage.resolve(),
        machine=machine,
        log=say_epoch,
        examine=Examiner.of(training),
    )
    return _described(path)


def machine_of(workers: int) -> Machine:
    """What a training may use: with workers the cluster's devices, which is joined; else this one.

    Raises:
        ConfigError: the cluster is out of reach, or has no room for so many workers.
    """
    machine = Machine(workers=workers)
    if not workers:
        return machine
    from foredraft.cluster import allotment, joining

    joining.connect()
    return allotment.of_cluster(machine, say=say_line).machine


def _described(path: Path) -> Result:
    model = bank.open_model(path)
    figures = {k: v for k, v in model.metrics.items() if k not in ("curve", "kind")}
    return {"key": model.key, "path": str(path), **figures}


def _sources(word: str) -> str | dict[str, Any]:
    """The data sets of a stage: a name or path, or `name:weight,name:weight`.

    A generator's own settings (`synthetic-load:rows=2000,seed=3`) are no weights.
    """
    parts = [part.rpartition(":") for part in word.split(",")]
    if not all(name and weight.replace(".", "", 1).isdecimal() for name, _, weight in parts):
        return word
    return {name: float(weight) for name, _, weight in parts}


def say_epoch(row: train.Row) -> None:
    """Print an epoch: its losses, what the draft is worth by now, and the time that is left."""
    left = (row["epochs"] - row["epoch"]) * row["seconds"]
    worth = ""
    if "acceptance_rate" in row:
        worth = (
            f"accepts {row['acceptance_rate']:.1%}, length {row['accept_length']:.2f}, "
            f"predicted {row['predicted_speedup']:.2f}x, "
        )
    STDERR.print(
        f"{row['stage']} {row['epoch']}/{row['epochs']}: train {row['train_loss']:.4f}, "
        f"validation {row['validation_loss']:.4f}, {worth}{row['samples_per_s']:.0f} samples/s, "
        f"at most {left:.0f} s left",
        highlight=False,
        soft_wrap=True,
    )


def _changed(training: Training, changes: Words, *, seed: int | None, flags: ReadsData) -> Training:
    """The training with its seed, its way of reading data, and fields set by `a.b=value`.

    Raises:
        ConfigError: a field does not exist, is set twice, or has no use for its value.
    """
    tree: dict[str, Any] = training.model_dump(mode="json")
    if seed is not None:
        tree["seed"] = seed
    tree["stages"] = [stage | flags.given for stage in tree["stages"]]
    fields = dict(assignments(flat(changes), flag="--set"))
    _refuse_overlap(fields, seed=seed)
    for path, value in fields.items():
        *parents, last = path.split(".")
        branch: Any = tree
        try:
            for part in parents:
                branch = branch[int(part) if isinstance(branch, list) else part]
            branch[int(last) if isinstance(branch, list) else last] = value
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ConfigError(f"--set {path}: that field does not exist; correct it") from error
    return validated(Training, tree, source="--set")


def _refuse_overlap(fields: dict[str, Any], *, seed: int | None) -> None:
    """Nothing; raises where two settings are about one field, so that their order would matter."""
    for path in fields:
        for part in fields:
            if part.startswith(f"{path}."):
                raise ConfigError(f"--set {part} is a part of {path}, which is set too: keep one")
    if seed is not None and "seed" in fields:
        raise ConfigError(f"--seed {seed} and --set seed={fields['seed']}: keep one")
