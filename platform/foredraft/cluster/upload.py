"""What a submitted job takes along: the working directory, without what a cluster has no use for.

    upload = of(Path.cwd(), storage=Path("runs"))
    upload.bytes, upload.left_out       # 412_330, {".git": "history", "runs": "results"}

Ray leaves out what `.gitignore` and `.rayignore` name; beyond that go results, environments, caches
and large files, each of which is told.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from ray._private.runtime_env import packaging

from foredraft.errors import ConfigError

LARGE_B = 10 * 2**20
"""Bytes from which a file is taken for data, which belong on the cluster's storage."""
MOST_B = 100 * 2**20
"""Bytes that Ray takes at most."""
KNOWN = {".git": "history", ".venv": "environment", "__pycache__": "cache"}


class Upload(NamedTuple):
    """What is sent, and what stays."""

    root: Path
    files: int
    bytes: int
    left_out: dict[str, str]
    """paths below the root, and what each of them is"""

    @property
    def in_words(self) -> str:
        """One line."""
        kept = ", ".join(f"{path} ({why})" for path, why in self.left_out.items())
        size = f"{self.files} files, {self.bytes / 1e6:.1f} MB of {self.root}"
        return f"uploading {size}; left out: {kept or 'nothing'}, and what .gitignore names"


def of(root: Path, *, storage: Path) -> Upload:
    """What of a directory is sent.

    Args:
        root: the job's working directory.
        storage: where results are here; they stay here.

    Raises:
        ConfigError: it is more than Ray takes; one line names the largest.
    """
    root = root.resolve()
    left_out = dict(_left_out(root, storage=storage.resolve()))
    sizes: dict[str, int] = {}

    def count(path: Path) -> None:
        if path.is_file():
            sizes[str(path.relative_to(root))] = path.stat().st_size

    quiet = logging.getLogger("ray.quiet")
    quiet.setLevel(logging.ERROR)  # of each .gitignore Ray tells on its way
    excluded = packaging._get_excludes(root, [f"/{path}" for path in left_out])
    packaging._dir_travel(root, [excluded], count, include_gitignore=True, logger=quiet)
    upload = Upload(root, len(sizes), sum(sizes.values()), left_out)
    if upload.bytes > MOST_B:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        raise ConfigError(
            f"the working directory {root} is {upload.bytes / 1e6:.0f} MB, over "
            f"{MOST_B / 1e6:.0f} MB (largest: {', '.join(largest)}): name what the job does not "
            "need in .rayignore, or submit from the directory of the study"
        )
    return upload


def _left_out(root: Path, *, storage: Path) -> list[tuple[str, str]]:
    """What is no part of a job, and why; what lies below it is not looked at."""
    found = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        for name in sorted(folders):
            path = here / name
            why = "results" if path == storage else KNOWN.get(name)
            if (path / "pyvenv.cfg").is_file():
                why = "environment"
            if why:
                found.append((path, why))
                folders.remove(name)
        large = [here / name for name in sorted(files) if _size(here / name) > LARGE_B]
        found += [(path, f"{_size(path) / 1e6:.0f} MB") for path in large]
    return [(str(path.relative_to(root)), why) for path, why in found]


def _size(path: Path) -> int:
    return path.lstat().st_size
