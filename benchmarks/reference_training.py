"""How fast a Timer-XL trains: a plain DataLoader and fp32 loop, then this project's loop.

    python benchmarks/reference_training.py --data ETTh1 --steps 60 --rounds 3

The plain loop is what one would write first: a Dataset that cuts one window at a time, a DataLoader
that stacks them, fp32, PyTorch's own dropout (same probability), plain AdamW. Both loops train the
same architecture on the same data with the same batch and the same clipping of gradients; they take
turns, so that a machine that drifts spoils both alike. Speed is that of the whole epoch: windows,
passes and optimiser. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from foredraft import data, train
from foredraft.settings.config import Stage, Training
from foredraft.settings.recipes import RECIPES
from speculation.normalisation import Normalisation
from timer_xl import TimerXL, TimerXLConfig
from timer_xl.model import Dropout

BATCH = 32


class Windows(Dataset[Tensor]):
    """Context and the patch after it, one window at a time."""

    def __init__(self, name: str, config: TimerXLConfig) -> None:
        dataset = data.load(name)
        first, end = dataset.splits["train"]
        self.values_TC = dataset.standardised()[first:end].clone()
        self.length = config.context + config.patch

    def __len__(self) -> int:
        return len(self.values_TC) - self.length + 1

    def __getitem__(self, index: int) -> Tensor:
        return self.values_TC[index : index + self.length]


class PlainDropout(Dropout):
    """PyTorch's own, of the same probability."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` with some elements zero and the others scaled up; unchanged in evaluation."""
        return nn.functional.dropout(x, self.probability, self.training)


def plain_samples_per_s(name: str, config: TimerXLConfig, *, steps: int, workers: int) -> float:
    """Samples per second of the plain loop over `steps` steps."""
    model = TimerXL(config)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.__class__ = PlainDropout
    windows = Windows(name, config)
    chosen = Subset(windows, torch.randperm(len(windows))[: steps * BATCH].tolist())
    loader = DataLoader(chosen, batch_size=BATCH, shuffle=True, num_workers=workers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    model.train()
    started = time.perf_counter()
    for window_BTC in loader:
        patches = window_BTC.unflatten(1, (-1, config.patch)).transpose(2, 3)
        normalisation = Normalisation.of(patches[:, :-1])
        predicted = normalisation.invert(model(normalisation.apply(patches[:, :-1])).mean)
        loss = nn.functional.mse_loss(predicted, patches[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return steps * BATCH / (time.perf_counter() - started)


def our_row(name: str, config: TimerXLConfig, *, steps: int, compiled: bool) -> train.Row:
    """An epoch's row of this project's loop over `steps` steps, the second of its training."""
    stage = Stage(
        name="scratch",
        data=name,
        epochs=2,
        windows_per_epoch=steps * BATCH,
        batch=BATCH,
        validation_windows=BATCH,
    )
    training = Training(model=config, stages=(stage,), compile=compiled)
    with tempfile.TemporaryDirectory() as directory:
        return train.train(training, run=train.LocalRun(Path(directory))).curve[-1]


def main() -> None:
    """Measure, print, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ETTh1")
    parser.add_argument("--recipe", default="etth1", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--compile", action="store_true", help="this project's passes, compiled")
    options = parser.parse_args()
    train.use_threads(None)
    config = RECIPES[options.recipe]().model
    plain, ours, outside = [], [], []
    for _ in range(options.rounds):
        plain.append(
            plain_samples_per_s(options.data, config, steps=options.steps, workers=options.workers)
        )
        row = our_row(options.data, config, steps=options.steps, compiled=options.compile)
        ours.append(row["samples_per_s"])
        outside.append(row["outside_share"])
        print(f"plain {plain[-1]:.0f} samples/s, ours {ours[-1]:.0f}, outside {outside[-1]:.1%}")
    result = {
        "recipe": options.recipe,
        "threads": torch.get_num_threads(),
        "plain_samples_per_s": statistics.median(plain),
        "samples_per_s": statistics.median(ours),
        "ratio": statistics.median(b / a for a, b in zip(plain, ours, strict=True)),
        "outside_share": statistics.median(outside),
        "compile": options.compile,
    }
    print(json.dumps(result, separators=(",", ":")))


if __name__ == "__main__":
    main()
