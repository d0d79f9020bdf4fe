"""What a target says about windows: computed once, kept on disk, mapped ever after.

    asking = Asking(digest=file_digest(weights), ahead=7, policy=ContextPolicy())
    answers = ask(target, windows, variates_WV=None, source=dataset.digest, asking=asking,
                  about="target 0fb0 about ETTh1")
    answers.patches(index_B)        # after every prefix of a window, then its rollout

The answers about one window are what the target says after each proper prefix of its context, then
the patches of its own rollout. They are kept in the window's own units as float16, off by at
most a two-thousandth of themselves, in a folder named by a digest of all that they depend on. What
float16 cannot hold, beyond 65,504 units, is no answer to learn from: such a target is refused.

Shapes: W windows, B batch, T time steps, C variates, V variates drawn, N patches of a context,
F answers, P patch length.
"""

from __future__ import annotations

import math
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foredraft import data, files, provenance
from foredraft.errors import ConfigError
from speculation import ContextPolicy, checkpoint, families, rollout
from speculation.forecaster import Architecture, Forecaster
from speculation.network import Network

# The answers do not depend on how many windows are asked about together.
BATCH = 64
FILE = "answers.npy"

VERSION = 1
"""Of the answers: raise it when the same target would answer the same windows differently. What
was learnt from them is then learnt anew."""


class Asking(NamedTuple):
    """How a target is asked, and who it is."""

    digest: str
    """of the target: its architecture and weights"""
    ahead: int
    """patches of the rollout that are kept"""
    policy: ContextPolicy


class Answers:
    """What the target says about each window, memory-mapped."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            # As for the data itself: a read-only map, about which torch warns.
            warnings.simplefilter("ignore", UserWarning)
            self.answers_WFCP = torch.from_numpy(np.load(path, mmap_mode="r"))

    def patches(self, index_B: Tensor) -> Tensor:
        """The answers [B, F, C, P] about those windows, float32, in the units of the windows."""
        return self.answers_WFCP[index_B].float()


def ask(
    target: Network,
    windows: data.Windows,
    *,
    variates_WV: Tensor | None,
    source: str,
    asking: Asking,
    about: str,
) -> Answers:
    """The target's answers about all of `windows`, from the cache if it was asked before.

    The size of what will be written is said on standard error before it is.

    Args:
        target: on the device where it is to answer.
        windows: whose contexts are put to it.
        variates_WV: variates of each window; None for all.
        source: digest of the data set.
        asking: how to ask.
        about: which target is asked about which data set, as a user knows them.

    Raises:
        ConfigError: the answers do not fit on the disk, or one of them is no number to learn from.
    """
    facts = facts_of(target, windows, variates_WV=variates_WV, source=source, asking=asking)
    shape = _shape(target.config, windows, variates_WV, ahead=asking.ahead)

    def write(folder: Path) -> None:
        _write(folder / FILE, target, windows, variates_WV, shape=shape, asking=asking, about=about)

    folder = kept(facts, write, windows=len(windows), num_bytes=2 * math.prod(shape))
    return Answers(folder / FILE)


def facts_of(
    target: Network,
    windows: data.Windows,
    *,
    variates_WV: Tensor | None,
    source: str,
    asking: Asking,
) -> dict[str, Any]:
    """All that a target's answers about some windows depend on."""
    return {
        **asking._asdict(),
        "architecture": target.config,  # the weights do not tell activation, positions and revin
        "source": source,
        "starts": windows.starts_W.tolist(),
        "variates": None if variates_WV is None else variates_WV.tolist(),
        "versions": [families.family_of(target.config.family).version, data.VERSION, VERSION],
    }


def kept(facts: Any, write: Callable[[Path], None], *, windows: int, num_bytes: int) -> Path:
    """The folder of what depends on such facts alone, written now if nobody has.

    Args:
        facts: by whose digest it is found.
        write: makes its files in an empty folder.
        windows: about which the target is asked.
        num_bytes: that will be written; said on standard error before they are.

    Raises:
        ConfigError: they do not fit on the disk.
    """
    folder = files.cache_folder() / "answers" / provenance.digest(facts)
    if files.is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of several workers on this machine one asks; the others wait and find the answers.
    with files.locked(files.cache_folder()):
        if not files.is_complete(folder):
            _announce(windows, num_bytes, folder=folder)
            with files.atomic_directory(folder) as part:
                write(part)
    return folder


def digest_of(target: Path) -> str:
    """16 hex digits of who a target is: its architecture and its weights, wherever they lie."""
    files = (target / checkpoint.CONFIG, target / checkpoint.WEIGHTS)
    return provenance.digest([provenance.file_digest(file) for file in files])


def _shape(
    config: Architecture, windows: data.Windows, variates_WV: Tensor | None, *, ahead: int
) -> tuple[int, int, int, int]:
    variates = windows.values_TC.shape[1] if variates_WV is None else variates_WV.shape[1]
    return len(windows), config.context_patches - 1 + ahead, variates, config.patch


def _announce(windows: int, size: int, *, folder: Path) -> None:
    """Say how much will be written; refuse what does not fit."""
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise ConfigError(
            f"the target's answers about {windows} windows take {size / 1e6:,.0f} MB, and "
            f"{folder.parent} has {free / 1e6:,.0f} MB left: set `windows` of the stage lower, "
            "or XDG_CACHE_HOME to a folder with room"
        )
    print(
        f"asking the target about {windows} windows: {size / 1e6:,.0f} MB in {folder}",
        file=sys.stderr,
    )


def _write(
    path: Path,
    target: Network,
    windows: data.Windows,
    variates_WV: Tensor | None,
    *,
    shape: tuple[int, int, int, int],
    asking: Asking,
    about: str,
) -> None:
    engine = target.eval().engine()
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for index_B in torch.arange(len(windows)).split(BATCH):
            variates_BV = None if variates_WV is None else variates_WV[index_B]
            window_BTC = windows.batch(index_B, variates=variates_BV)
            context_BTC = window_BTC[:, : target.config.context].to(target.device)
            answers_BFCP = _answer(target, engine, context_BTC, asking=asking).cpu().half()
            refuse_endless(answers_BFCP, windows.starts_W[index_B], about=about)
            file.write(answers_BFCP.numpy().astype("<f2").tobytes())


def refuse_endless(answers_BFCP: Tensor, starts_B: Tensor, *, about: str) -> None:
    """Nothing; raises at the first window whose answers float16 cannot hold."""
    told_B = answers_BFCP.isfinite().flatten(1).all(1)
    if not told_B.all():
        first = int(starts_B[told_B.logical_not()][0])
        raise ConfigError(
            f"{about}: its answers about the window from row {first} run away (not finite, or "
            f"beyond {torch.finfo(torch.half).max:,.0f} of its units): nothing can be learnt from "
            "them; train the target better, or set `rollouts` of the stage lower"
        )


@torch.no_grad()
def _answer(target: Network, engine: Forecaster, context_BTC: Tensor, *, asking: Asking) -> Tensor:
    """What follows each proper prefix, then the rollout: [B, N - 1 + ahead, C, P], normalised."""
    patch = target.config.patch
    x_BNCP = context_BTC.unflatten(1, (-1, patch)).transpose(2, 3)
    normalisation = target.config.normalisation(x_BNCP)
    after_BNCP = target(normalisation.apply(x_BNCP)).mean
    rolled_BTC = rollout(engine, context_BTC, horizon=asking.ahead * patch, policy=asking.policy)
    rolled_BFCP = normalisation.apply(rolled_BTC.unflatten(1, (-1, patch)).transpose(2, 3))
    return torch.cat((after_BNCP[:, :-1], rolled_BFCP), dim=1)
