"""A real Ray for the tests of a module; each ends its own, as another may start a cluster."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

SECRET = "hunter2/s3cret-of-the-team"
"""The password of the tests' own PostgreSQL."""


@pytest.fixture(autouse=True)
def quick_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of a few repeats: how fast anything is, no test asks."""
    from foredraft.judge import timing

    monkeypatch.setattr(timing, "CALIBRATION_S", 0.05)
    monkeypatch.setattr(timing, "WARM_UP_S", 0.02)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    from foredraft.cluster import joining

    joining.connect()
    yield
    ray.shutdown()


class Postgres(NamedTuple):
    """A PostgreSQL of the tests' own, on this machine."""

    programs: Path
    folder: Path
    port: int
    user: str | None
    """who it runs as, where that is not ourselves"""

    @property
    def url(self) -> str:
        return self.address(quote(SECRET, safe=""))

    def address(self, password: str = SECRET) -> str:
        """Its URL with a password as one may write it: SQLAlchemy reads a slash in it too."""
        return f"postgresql+psycopg://team:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")

    def run(self, program: str, *words: str) -> None:
        command = [self.programs / program, "-D", self.folder / "data", *words]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        subprocess.run(command, user=self.user, cwd=self.folder, check=True, **quiet)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, where its programs are installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in [shutil.which("initdb")] if path
    ]
    if not found:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="foredraft-pg-"))
    # It refuses to run as root, and Debian has a user of its own for it.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    password = folder / "password"
    password.write_text(SECRET)
    if user:
        shutil.chown(password, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Postgres(found[-1].parent, folder, port, user)
    server.run("initdb", "-U", "team", "-A", "scram-sha-256", f"--pwfile={password}")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
