"""What one node says of itself, for `foredraft doctor`; to be run on each of them."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import torch

from foredraft import buckets
from foredraft.cluster.nodes import appears

PACKAGES = ("foredraft", "ray", "torch", "optuna", "plotly", "pydantic", "safetensors")
"""Without which a node cannot work for a study; the first three must be the same everywhere."""
LISTENING = "0A"
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1 and ::1 as /proc/net/tcp has them."""


RAYS = (b"raylet", b"gcs_server", b"ray::", b"/ray/")
"""What the command lines of Ray's processes hold."""


class Node(NamedTuple):
    """What a node says."""

    name: str
    versions: dict[str, str]
    """of Python and of the packages that are there"""
    gpus: int
    """that PyTorch sees"""
    clock: float
    """seconds since 1970, as the node has them"""
    storage: str | None
    """what is wrong with the storage there, or None"""
    locks: bool
    """whether files on the storage can be locked"""
    storage_free: int
    """bytes"""
    temp_free: float
    """of the disk on which Ray works, as a fraction"""
    exposed: list[int]
    """ports of Ray on which others than this node may knock"""
    has_token: bool
    """whether Ray asks for one there"""


def examine(storage: Path, witness: str | None) -> Node:
    """What this node says of itself and of the storage.

    Args:
        storage: where a study would keep everything.
        witness: name of a file that another node has just written there; None where none has.
    """
    wrong, locks = _storage(storage, witness)
    there = next(path for path in (storage, *storage.absolute().parents) if path.exists())
    temp = shutil.disk_usage(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    return Node(
        name=platform.node(),
        versions={"python": platform.python_version(), **_versions()},
        gpus=torch.cuda.device_count(),
        clock=time.time(),
        storage=wrong,
        locks=locks,
        storage_free=shutil.disk_usage(there).free,
        temp_free=temp.free / temp.total,
        exposed=exposed_ports(),
        has_token=os.environ.get("RAY_AUTH_MODE") == "token",
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    # It may have come with a job, which no package index knows of.
    from foredraft import __version__

    return found | {"foredraft": __version__}


def _storage(storage: Path, witness: str | None) -> tuple[str | None, bool]:
    """What is wrong with it, or None; and whether it has locks."""
    mine = storage / f"doctor-{uuid4().hex[:8]}"
    try:
        if witness and not appears(storage / witness):
            return "does not show what another node wrote", True
        mine.write_text("seen")
        try:
            buckets.keep(mine)
            if mine.read_text() != "seen":
                return "does not give back what was written", True
            with mine.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return None, False
        finally:
            buckets.remove(mine)
    except buckets.OutOfReach as error:
        return str(error), True
    except OSError as error:
        return f"cannot be used ({error.strerror})", True
    return None, True


def exposed_ports() -> list[int]:
    """Ports on which Ray's processes of this user listen beyond loopback."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                address, _, port = words[1].partition(":")
                if words[3] == LISTENING and address not in LOOPBACK:
                    sockets[f"socket:[{words[9]}]"] = int(port, 16)
    return sorted({sockets[s] for s in _sockets_of_ray() if s in sockets})


def _sockets_of_ray() -> set[str]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = process.joinpath("cmdline").read_bytes()
            if any(name in words for name in RAYS):
                found |= {os.readlink(handle) for handle in process.joinpath("fd").iterdir()}
    return found
