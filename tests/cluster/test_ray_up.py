"""Claims about `ray up cluster.local.yaml`: machines reached by SSH become a cluster, and go again.

Two machines of the test's own: namespaces of this one with their own network, processes, home and
/tmp, an SSH server in each, and the user in a third network. It needs root, and skips without.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
NETWORK = "10.213.0"
USER, HEAD, WORKER = (f"{NETWORK}.{n}" for n in (1, 10, 11))
PROGRAMS = ("unshare", "nsenter", "ip", "mount", "rsync", "ssh", "ssh-keygen")
SSHD = "/usr/sbin/sshd"
KEYGEN = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f")
TOKEN = "0123456789abcdef0123456789abcdef"
# A machine: its own home and /tmp, and nothing of this machine's processes to be seen or ended.
MACHINE = """
set -e
mount --bind "$1/home" /home
mount --bind "$1/passwd" /etc/passwd
mount --bind "$2" /mnt
mount --bind "$1/tmp" /tmp
ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
mount -t tmpfs none /run
mkdir /run/sshd
exec /usr/sbin/sshd -D -e -f /home/sshd_config
"""


def _cannot() -> str | None:
    """Why this machine cannot hold others, or None."""
    if os.getuid() != 0:
        return "not root"
    hidden = [
        path for path in (ROOT, sys.prefix) if str(path).startswith(("/home", "/mnt", "/tmp"))
    ]
    if hidden:
        return f"{hidden[0]} lies where such a machine has its own"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or not Path(SSHD).is_file():
        return f"no {', '.join([*missing, 'sshd'][:1])}"
    tried = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    network = "ip link add one type veth peer name two && ip link add three type bridge"
    done = subprocess.run([*tried, "sh", "-c", network], capture_output=True, check=False)
    return "no namespaces" if done.returncode else None


class Machines(NamedTuple):
    """A user's machine, and two others that it reaches by SSH."""

    folder: Path
    network: int
    """process whose network is the user's"""
    hosts: dict[str, int]
    """process that is the parent of all of a machine's others, by address"""

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The command as its user types it."""
        return subprocess.run(
            self.words(*command),
            env=self.environment,
            cwd=self.folder / "clone",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def words(self, *command: str) -> list[str]:
        """The command in the user's network."""
        return ["nsenter", f"--net=/proc/{self.network}/ns/net", *command]

    @property
    def environment(self) -> dict[str, str]:
        """What the user has: a home with a key and a token, and the clone."""
        clone = self.folder / "clone"
        return os.environ | {
            "HOME": str(self.folder / "user"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{clone / 'platform'}:{clone / 'models'}",
        }

    def plug(self, address: str, state: str) -> None:
        """The machine's network is cut, or mended."""
        number = list(self.hosts).index(address)
        _in_network(self.network, f"ip link set port{number} {state}")

    def processes(self, address: str) -> list[str]:
        """The command lines of a machine's processes of Ray and foredraft."""
        inside = ("nsenter", f"--target={self.hosts[address]}", "--pid", "--mount")
        listed = subprocess.run(
            [*inside, "ps", "-wweo", "stat=,args="],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        alive = [line.split(maxsplit=1) for line in listed.splitlines()]
        words = ("ray::", "raylet", "gcs_server", "ray/_private", "ray/dashboard", "foredraft")
        return [
            line[1]
            for line in alive
            if len(line) > 1 and line[0][0] != "Z" and any(word in line[1] for word in words)
        ]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if why := _cannot():
        pytest.skip(f"machines of its own need root, namespaces, sshd and rsync here: {why}")
    for part in ("platform", "models", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / "clone" / part, ignore=ignored)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    (tmp_path / "user" / ".ray").mkdir(parents=True)
    (tmp_path / "user" / ".ray" / "auth_token").write_text(TOKEN)
    (tmp_path / "user" / ".ray" / "auth_token").chmod(0o600)
    shared = tmp_path / "shared"
    (shared / "foredraft").mkdir(parents=True)
    key = tmp_path / "user" / "key"
    subprocess.run([*KEYGEN, str(key)], check=True)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(_started("unshare", "--net", "sleep", "infinity"))
        _in_network(
            network,
            "ip link set lo up; ip link add bridge type bridge; "
            f"ip address add {USER}/24 dev bridge; ip link set bridge up",
        )
        hosts = {}
        for number, address in enumerate((HEAD, WORKER)):
            machine = stack.enter_context(
                _machine(tmp_path / f"host{number}", shared=shared, key=key)
            )
            _in_network(
                network,
                f"ip link add port{number} type veth peer name eth0 netns {machine}; "
                f"ip link set port{number} master bridge; ip link set port{number} up",
            )
            # Ray asks the route to the world for a machine's own address.
            _in_network(
                machine,
                f"ip address add {address}/24 dev eth0; ip link set eth0 up; "
                f"ip route add default via {USER}",
            )
            hosts[address] = machine
        yield Machines(tmp_path, network, hosts)


@contextlib.contextmanager
def _machine(folder: Path, *, shared: Path, key: Path) -> Iterator[int]:
    """A machine with an SSH server; whatever runs there ends with it."""
    home = folder / "home"
    for name in (home / ".ssh", folder / "tmp"):
        name.mkdir(parents=True)
    for name in (".bashrc", ".profile"):
        shutil.copy(Path("/etc/skel") / name, home / name)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
    subprocess.run([*KEYGEN, str(home / "host_key")], check=True)
    # Not /root, as this Python may lie there.
    users = Path("/etc/passwd").read_text()
    (folder / "passwd").write_text(re.sub(r"(?m)^(root:.*:)/root:", r"\1/home:", users))
    (home / "sshd_config").write_text(
        "HostKey /home/host_key\nPermitRootLogin prohibit-password\nStrictModes no\n"
        "PidFile none\nUsePAM no\nMaxSessions 50\nMaxStartups 50\n"
        "Subsystem sftp internal-sftp\n"
    )
    alone = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
    with _started(*alone, "sh", "-c", MACHINE, "sh", str(folder), str(shared)) as outside:
        yield _child_of(outside)


@contextlib.contextmanager
def _started(*command: str) -> Iterator[int]:
    """A process that has a network of its own."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    network, ours = Path(f"/proc/{process.pid}/ns/net"), Path("/proc/self/ns/net").readlink()
    try:
        _wait_for(lambda: network.readlink() != ours, "no network of its own")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _child_of(process: int) -> int:
    """The first process that one has begun."""
    children = Path(f"/proc/{process}/task/{process}/children")
    _wait_for(lambda: bool(children.read_text().split()), "a machine did not come up")
    return int(children.read_text().split()[0])


def _in_network(process: int, script: str) -> None:
    command = ["nsenter", f"--net=/proc/{process}/ns/net", "sh", "-ec", script]
    subprocess.run(command, check=True, capture_output=True)


def _wait_for(condition: Callable[[], bool], what: str, *, patience: float = 60) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def configuration(folder: Path) -> dict[str, Any]:
    """cluster.local.yaml with what its user must change; Python is here already."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "user" / "key")}
    config |= {"cluster_name": f"foredraft-{os.getpid()}", "min_workers": 1, "max_workers": 1}
    commands = [c for c in config["setup_commands"] if "uv" not in c]
    assert len(commands) == len(config["setup_commands"]) - 3
    config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/.foredraft", *commands]
    return config


def study_whose_worker_is_cut_off(machines: Machines) -> str:
    """What a study says of which the worker loses its network at work; it ends all the same.

    Ray would wait for seven minutes without what cluster.local.yaml exports.
    """
    tree = yaml.safe_load((ROOT / "search_spaces" / "smoke.yaml").read_text())
    tree["draft"]["stages"][0] |= {"epochs": 2, "windows_per_epoch": 4096}
    tree["dimensions"]["patches_out"] = {"type": "int", "low": 1, "high": 4}
    tree |= {"name": "cut", "trials": 4, "sampler": "random", "confirm_pairs": 1}
    # All of a machine for each training: the first two trials' drafts are trained side by side.
    tree["machine"] = {"concurrency": 2, "cpus": 2}
    (machines.folder / "clone" / "cut.yaml").write_text(yaml.safe_dump(tree))
    with ThreadPoolExecutor() as pool:
        search = ("foredraft", "submit", "--", "search", "cut.yaml")
        study = pool.submit(machines.run, *search, timeout=600)
        trains = lambda: any("train_model" in p for p in machines.processes(WORKER))  # noqa: E731
        _wait_for(
            lambda: trains() or study.done(), "nothing was trained on the worker", patience=240
        )
        machines.plug(WORKER, "down")
        done = study.result()
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.timeout(900)
def test_machines_become_a_cluster_run_a_study_and_are_left_as_they_were(
    machines: Machines,
) -> None:
    written = machines.folder / "clone" / "mine.yaml"
    written.write_text(yaml.safe_dump(configuration(machines.folder)))
    up = machines.run("ray", "up", "--yes", "mine.yaml")
    assert up.returncode == 0, up.stdout + up.stderr
    tunnel = subprocess.Popen(
        machines.words("ray", "dashboard", "mine.yaml"),
        env=machines.environment,
        cwd=written.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        joined = lambda: any("/raylet/raylet" in p for p in machines.processes(WORKER))  # noqa: E731
        _wait_for(joined, "no worker joined", patience=120)
        looks = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8265"]
        _wait_for(lambda: machines.run(*looks).returncode == 0, "no tunnel to the dashboard")
        told = study_whose_worker_is_cut_off(machines)
        assert "2 nodes" in told
        assert re.search(rf"node {WORKER} is gone: .* within 40 s", told), told
        study = machines.folder / "shared" / "foredraft" / "studies" / "cut"
        assert list(pd.read_parquet(study / "trials.parquet")["state"]) == ["complete"] * 4
        assert (study / "report.html").is_file()
        machines.plug(WORKER, "up")  # whose Ray learns that it was given up, and ends
    finally:
        tunnel.terminate()
        tunnel.wait()
    down = machines.run("ray", "down", "--yes", "mine.yaml")
    assert down.returncode == 0, down.stdout + down.stderr
    # A worker ends when it has looked for the head in vain.
    _wait_for(
        lambda: not any(machines.processes(address) for address in machines.hosts),
        "something was left behind",
        patience=150,
    )
