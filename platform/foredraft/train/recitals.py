"""What a target has in mind while it rolls out: computed once, kept on disk, mapped ever after.

    heard = hear(target, windows, heads=config, variates_WV=None, source=dataset.digest,
                 asking=asking, about="target 0fb0 about ETTh1")
    hidden_BNCD, apart_BNCQ = heard.of(index_B)

Heads learn from it with the target frozen: at each of N patches of a rollout its last hidden state,
and by how much the K patches after it differ from that one, in the units in which the target read.
Kept as float16 beside the answers of `foredraft.train.teacher`: states are normed, and patches are
off by at most a two-thousandth of themselves.

Shapes: W windows, B batch, T time steps, C variates, N positions, K heads, F = N + K patches,
P patch length, D width of a hidden state, Q = K * P.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foredraft import data
from foredraft.train import teacher
from speculation.decode import recite
from speculation.heads import HeadsConfig, check_beside
from speculation.network import Network

PARTS = ("hidden", "patches", "units")


class Recitals:
    """A target's rollouts of some windows with its hidden states, memory-mapped."""

    def __init__(self, folder: Path, *, heads: int) -> None:
        self.heads = heads
        self.hidden_WNCD, self.patches_WFCP, self.units_WNC1 = (
            _mapped(folder / f"{part}.npy") for part in PARTS
        )

    def of(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Of those windows the hidden states [B, N, C, D], and what is to be read from them.

        That is by how much the K patches after each differ from it: [B, N, C, Q], in the units in
        which the target read there. Float32 both.
        """
        patches_BFCP = self.patches_WFCP[index_B].float()
        following = patches_BFCP[:, 1:].unfold(1, self.heads, 1)  # [B, N, C, P, K]
        apart = following - patches_BFCP[:, : following.shape[1], ..., None]
        apart_BNCQ = apart.transpose(3, 4).flatten(3) / self.units_WNC1[index_B].float()
        return self.hidden_WNCD[index_B].float(), apart_BNCQ


def _mapped(path: Path) -> Tensor:
    with warnings.catch_warnings():
        # As for the data itself: a read-only map, about which torch warns.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.load(path, mmap_mode="r"))


def hear(
    target: Network,
    windows: data.Windows,
    *,
    heads: HeadsConfig,
    variates_WV: Tensor | None,
    source: str,
    asking: teacher.Asking,
    about: str,
) -> Recitals:
    """The target's recitals of all of `windows`, from the cache if it was heard before.

    Args:
        target: on the device where it is to answer.
        windows: whose contexts are put to it.
        heads: that are to learn from it.
        variates_WV: variates of each window; None for all.
        source: digest of the data set.
        asking: how to ask; `ahead` is the patches of the rollout.
        about: which target is asked about which data set, as a user knows them.

    Raises:
        InvalidInput: the heads are another target's.
        ConfigError: the answers do not fit on the disk, or one of them is no number to learn from.
    """
    check_beside(heads, target.config, lookahead=1)
    facts = teacher.facts_of(target, windows, variates_WV=variates_WV, source=source, asking=asking)
    variates = windows.values_TC.shape[1] if variates_WV is None else variates_WV.shape[1]
    positions = asking.ahead - heads.patches_out
    shapes = (
        (len(windows), positions, variates, heads.reads),
        (len(windows), asking.ahead, variates, heads.patch),
        (len(windows), positions, variates, 1),
    )

    def write(folder: Path) -> None:
        arrays = [
            np.lib.format.open_memmap(folder / f"{part}.npy", "w+", dtype="<f2", shape=shape)
            for part, shape in zip(PARTS, shapes, strict=True)
        ]
        engine = target.eval().engine()
        for index_B in torch.arange(len(windows)).split(teacher.BATCH):
            variates_BV = None if variates_WV is None else variates_WV[index_B]
            window_BTC = windows.batch(index_B, variates=variates_BV)
            context_BTC = window_BTC[:, : target.config.context].to(target.device)
            told = recite(engine, context_BTC, patches=asking.ahead, policy=asking.policy)
            x_BNCP = context_BTC.unflatten(1, (-1, heads.patch)).transpose(2, 3)
            own = target.config.normalisation(x_BNCP)
            units = (told.unit_BNC1 / own.deviation).expand(-1, asking.ahead, -1, -1)
            parts = (
                told.hidden_BNCD[:, :positions],
                own.apply(told.patches_BNCP),
                units[:, :positions],
            )
            for array, part in zip(arrays, parts, strict=True):
                half = part.cpu().half()
                teacher.refuse_endless(half, windows.starts_W[index_B], about=about)
                array[index_B.numpy()] = half.numpy()
        for array in arrays:
            array.flush()

    num_bytes = 2 * sum(int(np.prod(shape)) for shape in shapes)
    facts = {"recited": facts, "positions": positions}
    folder = teacher.kept(facts, write, windows=len(windows), num_bytes=num_bytes)
    return Recitals(folder, heads=heads.patches_out)
