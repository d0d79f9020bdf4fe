"""A real Ray for the tests of a module; each ends its own, as another may start a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import pytest

SECRET = "hunter2/s3cret-of-the-team"
"""The password of the tests' own PostgreSQL."""


@pytest.fixture(autouse=True)
def quick_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of a few repeats: how fast anything is, no test asks."""
    from foredraft.judge import timing

    monkeypatch.setattr(timing, "CALIBRATION_S", 0.05)
    monkeypatch.setattr(timing, "WARM_UP_S", 0.02)


@pytest.fixture(scope="session")
def tiny_tree() -> Callable[..., dict[str, Any]]:
    """A study of one tiny draft on generated data, with what a test changes of it."""
    stage = {"name": "scratch", "data": "synthetic-etth:rows=1200", "epochs": 1, "lr": 0.003}
    architecture = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32}

    def tree(**changes: Any) -> dict[str, Any]:
        model = {**architecture, "n_layers": 1}
        return {
            "target": {"model": model, "stages": [stage], "dtype": "fp32"},
            "draft": {"stages": [{**stage, "windows_per_epoch": 64}], "dtype": "fp32"},
            "evaluation": {"data": stage["data"], "horizon": 60, "windows": 8},
            "acceptance": {"rule": "gaussian", "bias": 2.0},
            "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0, "log": True}},
            "trials": 2,
            "sampler": "random",
            "confirm_pairs": 1,
            "budget": 100.0,
            "machine": {"cpus": 1, "use_gpu": False},
        } | changes

    return tree


@pytest.fixture(scope="session")
def most_inside() -> Callable[..., int]:
    """How many of five threads are at most inside what only one may be in."""

    def most_inside(
        entered: Callable[[], AbstractContextManager[object]], *, rounds: int = 20
    ) -> int:
        inside, most = 0, 0

        def work() -> None:
            nonlocal inside, most
            for _ in range(rounds):
                with entered():
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.002)
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most

    return most_inside


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


S3_SERVER = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
app = DomainDispatcherApplication(create_backend_app)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=False)
"""


class Bucket(NamedTuple):
    """A bucket of S3's own interface, on this machine."""

    name: str
    port: int

    @property
    def address(self) -> str:
        return f"s3://{self.name}/runs"

    def objects(self) -> dict[str, bytes]:
        """What it holds, by name, asked of the server itself."""
        import boto3

        there = self._client(boto3)
        listed = there.list_objects_v2(Bucket=self.name).get("Contents", [])
        keys = [one["Key"] for one in listed]
        return {k: there.get_object(Bucket=self.name, Key=k)["Body"].read() for k in keys}

    def put(self, key: str, content: bytes) -> None:
        """Have an object, as another machine might have kept it."""
        import boto3

        self._client(boto3).put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Have no such object any more."""
        import boto3

        self._client(boto3).delete_object(Bucket=self.name, Key=key)

    def create(self) -> None:
        import boto3

        self._client(boto3).create_bucket(Bucket=self.name)

    def _client(self, boto3: Any) -> Any:
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that answers as S3 does.

    One request at a time: its conditional writes are atomic then, as those of S3 are.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", S3_SERVER, str(port)]
    with (tmp_path_factory.mktemp("s3") / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield port
    server.terminate()
    server.wait()


@pytest.fixture
def bucket(s3_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; working copies lie in a cache of the test's own."""
    from foredraft import buckets

    settings = {
        "AWS_ACCESS_KEY_ID": "the-tests",
        "AWS_SECRET_ACCESS_KEY": "no-secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_server}",
        "AWS_ALLOW_HTTP": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    made = Bucket(f"team-{uuid4().hex[:8]}", s3_server)
    made.create()
    yield made
    buckets._store.cache_clear()
