"""TensorBoard's runs: scalars beside the settings that led to them.

log = tensorboard(Path("runs/tensorboard/draft-1f"), training)
log(row)                                     # after every epoch
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from foredraft.settings.config import Training
from foredraft.train.runs import Row
from speculation import families

EXAMINED = ("acceptance_rate", "accept_length", "predicted_speedup")
"""The figures of a draft that is examined after every epoch (`train.Examine`)."""

# What of an epoch's row goes to TensorBoard.
SCALARS = {
    *("train_loss", "validation_loss", "squared_z", "within_deviation", "learning_rate"),
    *("samples_per_s", "outside_share", *EXAMINED),
}


def tensorboard(directory: Path, training: Training) -> Callable[[Row], None]:
    """A log that writes every row's numbers as scalars, beside the training's settings."""
    writer = SummaryWriter(str(directory))
    losses = [f"{training.stages[-1].name}/{name}" for name in ("train_loss", "validation_loss")]
    write_settings(writer, _settings_of(training), metrics=losses)

    def log(row: Row) -> None:
        for name in SCALARS & row.keys():
            writer.add_scalar(f"{row['stage']}/{name}", row[name], row["number"])
        writer.flush()

    return log


def write_settings(
    writer: SummaryWriter, settings: Mapping[str, Any], *, metrics: Iterable[str]
) -> None:
    """Nothing; the run shows the settings as hyperparameters, beside the scalars named."""
    plain = {n: v if isinstance(v, bool | int | float) else str(v) for n, v in settings.items()}
    file_writer: Any = writer.file_writer
    # Not add_hparams: that opens a second run inside the first.
    for summary in hparams(plain, dict.fromkeys(metrics, None)):
        file_writer.add_summary(summary)


def _settings_of(training: Training) -> dict[str, Any]:
    """The architecture, and what was said of every stage under its name."""
    model = training.model
    settings = {"family": model.family, **families.fields_of(model)}
    settings |= {"dtype": training.dtype, "seed": training.seed}
    settings["stages"] = "+".join(stage.name for stage in training.stages)
    for stage in training.stages:
        changed = stage.model_fields_set | {"lr", "epochs", "batch"}
        fields = stage.model_dump(mode="json", include=changed - {"name"})
        settings |= {f"{stage.name}.{name}": value for name, value in fields.items()}
    return settings
