"""Claims about `foredraft submit`: a job runs the code of who submits it, and ends with its code.

The cluster is a real head on loopback that asks for a token.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pandas as pd
import pytest
import yaml
from ray.job_submission import JobStatus

from foredraft.cli.command import main
from foredraft.cluster import jobs

ROOT = Path(__file__).parents[3]
TOKEN = "0123456789abcdef0123456789abcdef"


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["submit", *words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give the verb after --"),
        (("--", "submit", "--", "search", "a.yaml"), "a job that submits a job"),
        (("--", "sarch", "a.yaml"), "sarch"),
        (("--attach", "raysubmit_1", "--", "data", "list"), "give no verb"),
        (
            ("--", "evaluate", "--data", "postgresql://me:hunter2@host/x"),
            "every user of the cluster would see",
        ),
        *(
            (("--", *words), "every user of the cluster would see")
            for words in (
                ("search", "a.yaml", "--token", "hunter2"),
                ("search", "a.yaml", "--name", "Bearer hunter2.abc"),
                ("search", "https://0123456789abcdefhunter2abcdef@host/a.yaml"),
                ("train", "target", "--recipe", "demo", "--set", "api_token=hunter2"),
                ("train", "target", "--recipe", "demo", "--set", "data=s3://K:hunter2@b/x.csv"),
                ("evaluate", "--data", "postgresql://host/x?user=me&password=hunter2"),
            )
        ),
    ],
)
def test_what_would_fail_there_or_tell_a_secret_is_refused_here(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, *words)
    assert told in line
    assert "hunter2" not in line


def test_an_address_at_which_nobody_answers_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    line = refusal(capsys, "--address", address, "--", "data", "list")
    assert "keep `ray dashboard cluster.yaml` open" in line


class Running(NamedTuple):
    """A cluster, and what a user of it has."""

    clone: Path
    storage: Path
    environment: dict[str, str]
    session: Path
    """where Ray keeps what it runs, and its logs"""


PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7PLANTED",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/planted",
    "DATABASE_URL": "postgresql://host/optuna?user=team&password=query-planted",
    "HF_TOKEN": "hf_plantedplantedplanted",
    "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer bearer.planted.abc",
    "PGPASSWORD": "pg-password-planted",
    "SENTRY_DSN": "https://0123456789abcdefplanted0abcdef@sentry.example/1",
}
"""What a user's environment and the head's may hold; none of it is anything to foredraft."""
REMOTE = "https://ghp_plantedplantedplantedplanted@github.com/team/clone.git"
PGPASS = "host:5432:optuna:team:pgpass-planted"
SECRETS = {
    *(text.rpartition("=")[2].removeprefix("Bearer ") for text in PLANTED.values()),
    *("0123456789abcdefplanted0abcdef", "ghp_plantedplantedplantedplanted", "pgpass-planted"),
    *("s3cret-of-the-team", TOKEN),
}
"""The last two are used: the end of the password of the study's database, which has a slash in it
and is written as it is and encoded, and the token of the cluster."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("user")
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text(TOKEN)
    (folder / ".ray" / "auth_token").chmod(0o644)  # a fault, for the doctor to find
    clone = folder / "clone"
    for part in ("platform", "models", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, clone / part, ignore=ignored)
    init = clone / "platform" / "foredraft" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "9.'))
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        port, dashboard = one.getsockname()[1], two.getsockname()[1]
    # It runs with whatever foredraft is installed; the clone's has another version.
    (folder / ".pgpass").write_text(PGPASS)
    for words in (("init", "-q"), ("remote", "add", "origin", REMOTE)):
        subprocess.run(["git", *words], cwd=clone, check=True)
    head = (
        os.environ
        | PLANTED
        | {
            "FOREDRAFT_STORAGE": str(folder / "storage"),
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
            "RAY_TMPDIR": f"/tmp/fd-{port}",  # Ray's sockets need a short path
        }
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--num-cpus=2", "--disable-usage-stats", f"--port={port}"),
            f"--dashboard-port={dashboard}",
        ],
        env=head,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    user = {name: value for name, value in head.items() if name != "RAY_AUTH_MODE"} | {
        "PYTHONPATH": f"{clone / 'platform'}:{clone / 'models'}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    try:
        _wait_for(dashboard)
        yield Running(clone, folder / "storage", user, Path(head["RAY_TMPDIR"]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(head["RAY_TMPDIR"], ignore_errors=True)


def _wait_for(port: int) -> None:
    for _ in range(240):
        if _listens(f"127.0.0.1:{port}"):
            return
        time.sleep(0.5)
    raise AssertionError("the head's dashboard did not come up")


def submit(cluster: Running, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foredraft", "submit", *words],
        env=cluster.environment | changes,
        cwd=cluster.clone,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )


def test_a_job_runs_the_code_that_was_sent_and_ends_with_its_exit_code(cluster: Running) -> None:
    done = submit(cluster, "--", "doctor")
    assert "uploading" in done.stderr
    assert "foredraft submit --attach raysubmit_" in done.stderr
    assert "ok    foredraft version: 9." in done.stderr, done.stderr
    assert "FAULT token: " in done.stderr
    assert "FAILED" in done.stdout
    assert done.returncode == 2


def interrupted(cluster: Running, *words: str, when: str, answer: str) -> tuple[int, str, str]:
    """Code, outcome and what was told of a `submit` whose user presses Ctrl-C and answers."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "foredraft", "submit", *words],
        env=cluster.environment,
        cwd=cluster.clone,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    assert process.stderr
    told = ""
    for line in process.stderr:
        told += line
        if when in line:
            break
    process.send_signal(signal.SIGINT)
    os.write(ours, f"{answer}\n".encode())
    outcome, rest = process.communicate(timeout=120)
    os.close(ours)
    return process.returncode, outcome, told + rest


def test_ctrl_c_asks_whether_to_stop_the_job_or_to_leave_it_alone(cluster: Running) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{free.getsockname()[1]}"
    endless = ("dashboard", "--port", page.partition(":")[2])
    code, _, told = interrupted(cluster, "--", *endless, when=page, answer="")
    assert code == 130, told
    assert "left alone, and it goes on; to come back to it: foredraft submit --attach" in told
    (job,) = set(re.findall(r"raysubmit_\w+", told))
    assert _listens(page)
    code, outcome, told = interrupted(cluster, "--attach", job, when=page, answer="s")
    assert code == 130, told
    assert "STOPPED" in outcome
    assert not _listens(page)


class Tunnel:
    """What `ray dashboard` is to a user: a port of this machine that leads to the cluster's."""

    def __init__(self, port: int) -> None:
        self.port, self.server = port, socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.ends = [self.server]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                self.ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_tunnel_that_breaks_ends_the_following_and_not_the_job(cluster: Running) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{free.getsockname()[1]}"
    tunnel = Tunnel(int(cluster.environment["RAY_API_SERVER_ADDRESS"].rpartition(":")[2]))
    words = ("--address", tunnel.address, "--", "dashboard", "--port", page.partition(":")[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "foredraft", "submit", *words],
        env=cluster.environment,
        cwd=cluster.clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if page in line:
            break
    tunnel.cut()
    last = process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith(
        f"foredraft: nobody answers at {tunnel.address} any more; the job goes on"
    )
    assert f" --address {tunnel.address}`" in last
    assert _listens(page)
    (job,) = re.findall(r"raysubmit_\w+", last)
    interrupted(cluster, "--attach", job, when=page, answer="s")
    assert not _listens(page)


@pytest.fixture(scope="module")
def databases(request: pytest.FixtureRequest) -> tuple[str | None, str | None]:
    """A real PostgreSQL's address, its password as it is and encoded; None where there is none."""
    try:
        server = request.getfixturevalue("postgres")
    except pytest.skip.Exception:
        return None, None
    return server.address(), server.url


@pytest.mark.timeout(400)
def test_a_study_that_is_stopped_says_how_it_goes_on_ends_in_a_report_and_tells_no_secret(
    cluster: Running, databases: tuple[str | None, str | None]
) -> None:
    search = ("search", "mine.yaml", "--name", "stopped", "--sampler", "random")
    words = ("--", *search, "--trials")
    smoke = yaml.safe_load((ROOT / "search_spaces" / "smoke.yaml").read_text())
    mine = cluster.clone / "mine.yaml"
    mine.write_text(yaml.safe_dump(smoke | {"database": databases[0]}))
    code, outcome, told = interrupted(cluster, *words, "100", when="trial 2/100", answer="s")
    assert code == 130, told
    assert "STOPPED" in outcome
    assert "stopping; what was reported is kept" in told
    assert "study 'stopped' was interrupted: --resume goes on with it" in told
    assert told.count("trial 2/100") == 1, "what was told already is not told again"
    # A trial or two may have been reported without having been told.
    trials = str(max(int(number) for number in re.findall(r"trial (\d+)/100", told)) + 3)
    mine.write_text(yaml.safe_dump(smoke | {"database": databases[1]}))
    done = submit(cluster, *words, trials, "--resume")
    assert done.returncode == 0, done.stderr
    study = cluster.storage / "studies" / "stopped"
    assert "stopped" in (study / "report.html").read_text()
    kept = json.loads((study / "trials.json").read_text())
    assert [trial["number"] for trial in kept] == list(range(int(trials)))
    _check_origin(study, *search, "--trials", trials, "--resume")
    models = [*cluster.storage.glob("targets/*"), *cluster.storage.glob("drafts/*")]
    assert len(models) >= 2
    for model in models:
        _check_origin(model, *search)
    _check_secrets(cluster, told, outcome, done.stderr, done.stdout)


def _check_origin(folder: Path, *words: str) -> None:
    """What lies there was made by the submitted command, by the code that was sent."""
    made = json.loads((folder / "provenance.json").read_text())
    assert made["versions"]["foredraft"].startswith("9.")
    assert made["command"][1 : 1 + len(words)] == list(words)
    assert made["submitted"]["command"][: 1 + len(words)] == ["foredraft", *words]


def _check_secrets(cluster: Running, *told: str) -> None:
    """No secret is in what was printed, in what the cluster tells of its jobs, or in any file."""
    jobs = subprocess.run(
        [sys.executable, "-c", JOBS],
        env=cluster.environment | {"RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert jobs.count("raysubmit_") > 2
    assert '"command": ["foredraft", "search", "mine.yaml"' in jobs.replace("\\", "")
    assert [secret for secret in SECRETS if secret in "\n".join((*told, jobs))] == []
    files = [path for place in (cluster.storage, cluster.session) for path in place.rglob("*")]
    found = [
        (path, secret)
        for path in files
        if path.is_file()
        for content in [_content(path)]
        for secret in SECRETS
        if secret.encode() in content
    ]
    # The user's own file goes as it is.
    own = [one for one in found if one[0].name == "mine.yaml"]
    assert [one for one in found if one not in own] == []
    assert own or "database: null" in (cluster.clone / "mine.yaml").read_text()
    assert not [path for path in files if path.name == ".git"]


JOBS = """
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient()
for job in client.list_jobs():
    print(job, client.get_job_logs(job.submission_id) if job.submission_id else "")
"""


def _content(path: Path) -> bytes:
    """What a file holds, as it is read."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_csv().encode()
    return path.read_bytes()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_who_has_not_the_token_is_refused_in_one_line(cluster: Running, tmp_path: Path) -> None:
    for changes in ({"HOME": str(tmp_path)}, {"RAY_AUTH_TOKEN": TOKEN[::-1]}):
        done = submit(cluster, "--", "data", "list", **changes)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "did not accept the token" in line


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("SUCCEEDED", 0, jobs.Outcome("SUCCEEDED", 0, "it says")),
        ("FAILED", 2, jobs.Outcome("FAILED", 2, None)),
        ("FAILED", -9, jobs.Outcome("FAILED", 1, "it says")),
        ("FAILED", None, jobs.Outcome("FAILED", 1, "it says")),
        ("STOPPED", None, jobs.Outcome("STOPPED", 130, "it says")),
    ],
)
def test_a_job_that_did_not_end_by_itself_is_told_by_what_ray_says_of_it(
    monkeypatch: pytest.MonkeyPatch, status: str, code: int | None, outcome: jobs.Outcome
) -> None:
    info = SimpleNamespace(status=JobStatus(status), driver_exit_code=code, message="it says")
    client = SimpleNamespace(get_job_info=lambda _: info)
    monkeypatch.setattr(jobs, "JobSubmissionClient", lambda _: client)
    assert jobs.Jobs("http://127.0.0.1:1").outcome("job") == outcome
