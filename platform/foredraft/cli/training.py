"""The verbs that make models: `train target`, `train draft`, `import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, subcommand

from foredraft import drafts, train
from foredraft.cli.common import STDERR, Common, Result, assignment
from foredraft.config import ConfigError, Machine, Training, validated
from foredraft.examine import Examiner
from foredraft.recipes import recipe
from timer_xl import checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainTarget(Common):
    """Train a target by a recipe.

    For example:

        foredraft train target --recipe demo
        foredraft train target --recipe etth1 --set model.d_model=1024 --set stages.0.epochs=5
        foredraft train target --recipe etth1 --workers 2
    """

    recipe: str
    """name of a recipe"""
    set: tuple[str, ...] = ()
    """changes to the recipe, each field=value"""
    workers: int = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        training = _changed(recipe(self.recipe), self.set, seed=self.seed)
        return _train(training, kind="target", workers=self.workers, storage=self.storage)


@dataclass(frozen=True, kw_only=True)
class TrainDraft(Common):
    """Train a draft of a target.

    For example:

        foredraft train draft --target 0fb0 --scale 0.7 --stages scratch --data ETTh1
        foredraft train draft --target 0fb0 --scale 0.7 --stages pretrain finetune distill \\
            --data eia930 ETTh1 ETTh1 --set stages.0.variates=7
        foredraft train draft --target 0fb0 --scale 0.7 --stages pretrain distill \\
            --data eia930:3,electricity:1 ETTh1 --patches-out 7
    """

    target: str
    """key, beginning of a key, or directory of a trained target"""
    scale: float
    """of the target's width, heads and layers"""
    stages: tuple[Literal["scratch", "pretrain", "finetune", "distill"], ...]
    """in order; each starts from the one before"""
    data: tuple[str, ...]
    """one word per stage: a data set, or several as name:weight,name:weight"""
    patches_out: int = 1
    """patches that one pass emits"""
    variance: bool = False
    """whether the draft has a log-variance head, trained by its likelihood"""
    set: tuple[str, ...] = ()
    """changes to the training, each field=value, such as stages.0.epochs=5"""
    workers: int = 0
    """processes under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """The trained model's key, place and figures."""
        if len(self.stages) != len(self.data):
            raise ConfigError(
                f"data names {len(self.data)} sets for {len(self.stages)} stages: one per stage"
            )
        target = drafts.find(self.target, kind="target", storage=self.storage).resolve()
        stages = zip(self.stages, self.data, strict=True)
        content = {
            "model": drafts.open_model(target).config.scaled(
                self.scale, patches_out=self.patches_out, variance=self.variance
            ),
            "stages": [
                {"name": name, "data": _sources(word), "loss": "nll" if self.variance else "mse"}
                for name, word in stages
            ],
            "target": str(target),
        }
        training = validated(Training, content, source="train draft")
        training = _changed(training, self.set, seed=self.seed)
        return _train(training, kind="draft", workers=self.workers, storage=self.storage)


@dataclass(frozen=True, kw_only=True)
class TrainVerb:
    """Train a target or a draft."""

    kind: Annotated[TrainTarget, subcommand("target")] | Annotated[TrainDraft, subcommand("draft")]

    @property
    def json(self) -> bool:
        """As the chosen kind has it."""
        return self.kind.json

    def run(self) -> Result:
        """What the chosen training gives."""
        return self.kind.run()


@dataclass(frozen=True, kw_only=True)
class Import(Common):
    """Import an OpenLTM or STRIDE Timer-XL checkpoint.pth.

    For example:

        foredraft import checkpoint.pth --kind target
    """

    checkpoint: Positional[Path]
    kind: Literal["target", "draft"] = "target"
    """what it will be used as"""
    context: int = 672
    """look-back in time steps: the weights do not tell it"""
    activation: Literal["relu", "gelu"] = "relu"
    """of the feed-forward layers: the weights do not tell it"""

    def run(self) -> Result:
        """The imported model's key, place and architecture."""
        model = checkpoint.import_openltm(
            self.checkpoint, context=self.context, activation=self.activation
        )
        path = drafts.add(model, kind=self.kind, storage=self.storage, source=self.checkpoint)
        return _described(path)


def _train(training: Training, *, kind: drafts.Kind, workers: int, storage: Path) -> Result:
    machine = Machine(workers=workers)
    if workers:
        from foredraft import search

        search.connect()
    path = drafts.obtain(
        training,
        kind=kind,
        storage=storage.resolve(),
        machine=machine,
        log=say_epoch,
        examine=Examiner.of(training),
    )
    return _described(path)


def _described(path: Path) -> Result:
    model = drafts.open_model(path)
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


def _changed(training: Training, changes: tuple[str, ...], *, seed: int | None) -> Training:
    """The training with fields set by `a.b=value`."""
    tree: dict[str, Any] = training.model_dump(mode="json")
    if seed is not None:
        tree["seed"] = seed
    for change in changes:
        path, value = assignment(change)
        *parents, last = path.split(".")
        branch: Any = tree
        try:
            for part in parents:
                branch = branch[int(part) if isinstance(branch, list) else part]
            branch[int(last) if isinstance(branch, list) else last] = value
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ConfigError(f"--set {change}: {path} does not exist") from error
    return validated(Training, tree, source="--set")
