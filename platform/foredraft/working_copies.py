"""A bucket's working copy on this machine: where it lies, and which version each of its files is.

root = working_copy("s3://team/runs")
place_of(root / "drafts" / "1f").address    # s3://team/runs
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

from foredraft import files
from foredraft.errors import ConfigError

SCHEME = "s3://"
# A working copy's name: its beginning, what joins the parts of the address, and their letters.
_MARK, _JOINT, _PART = "foredraft-s3", "+", re.compile(r"[A-Za-z0-9._=-]+")
VERSIONS = ".versions"
"""Of a working copy: the folder that tells which version of the bucket's each file is."""


class Place(NamedTuple):
    """A path in a working copy."""

    root: Path
    """of the copy"""
    address: str
    """of the storage, s3://bucket/prefix"""
    name: str
    """of the path in it; empty for the storage itself"""


class Version(NamedTuple):
    """What a file was when it was fetched or kept last."""

    e_tag: str
    mtime_ns: int
    size: int
    writer: str
    """the process that keeps the file; empty where it was fetched"""

    def is_of(self, file: Path) -> bool:
        """Whether the file is what it was then."""
        state = file.stat()
        return (self.mtime_ns, self.size) == (state.st_mtime_ns, state.st_size)


def is_address(text: str | Path) -> bool:
    """Whether this names a bucket; also as a path, of which `//` became `/`."""
    return str(text).startswith((SCHEME, SCHEME[:-1]))


def located(path: Path) -> Path:
    """Where on this machine an address of a storage, or of something in a study of one, lies.

    Any other path is where it says.
    """
    if not is_address(path):
        return path
    storage, studies, rest = str(path).partition("/studies/")
    return working_copy(storage) / studies.strip("/") / rest


def working_copy(address: str) -> Path:
    """The folder of this machine that stands for `s3://bucket/prefix`, and what lies below it.

    Raises:
        ConfigError: the address names no bucket.
    """
    parts = [part for part in address.removeprefix(SCHEME[:-1]).split("/") if part]
    if not parts or not all(map(_PART.fullmatch, parts)):
        raise ConfigError(
            f"storage {address} names no bucket: give s3://BUCKET/PREFIX, of letters, digits and "
            ". _ = - alone"
        )
    return files.cache_folder() / "buckets" / _JOINT.join((_MARK, *parts))


def place_of(path: Path) -> Place | None:
    """Where in which working copy a path lies; None of one in none."""
    parts = path.absolute().parts
    for at, part in enumerate(parts):
        if part.startswith(_MARK + _JOINT):
            address = SCHEME + part.split(_JOINT, 1)[1].replace(_JOINT, "/")
            return Place(Path(*parts[: at + 1]), address, "/".join(parts[at + 1 :]))
    return None


def name_of(place: Place, file: Path) -> str:
    """The name in the bucket of a file of the working copy."""
    return file.relative_to(place.root).as_posix()


def version_file(place: Place, file: Path) -> Path:
    """Where it is noted which version of the bucket's a file is."""
    return place.root / VERSIONS / file.relative_to(place.root)


def version_of(place: Place, file: Path) -> Version | None:
    """What the file was when it was fetched or kept last; None where it never was."""
    try:
        return Version(*json.loads(version_file(place, file).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_version(place: Place, file: Path, version: Version) -> None:
    """Nothing; notes which version of the bucket's a file is."""
    files.atomic_write(version_file(place, file), json.dumps(version))


def this_process() -> str:
    """This process, which no later one of the same number is."""
    return f"{platform.node()}:{os.getpid()}:{_began(os.getpid())}"


def runs(writer: str) -> bool:
    """Whether that process runs; of another machine's, with which a home is shared, it is assumed.

    Nobody's runs never.
    """
    if not writer:
        return False
    host, pid, began = writer.rsplit(":", 2)
    return host != platform.node() or _began(int(pid)) == began != ""


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none, or no telling."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
