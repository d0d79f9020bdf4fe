"""Joining Ray: the cluster that is there, or one of our own on this machine."""

from __future__ import annotations

import logging
import os
import socket
import time

import ray
from ray._private import ray_constants, services

from foredraft.errors import ConfigError
from foredraft.interruption import treat_as_ctrl_c

ANSWER_S = 20.0
"""Seconds for which a cluster's head is asked whether it is there."""


def connect() -> str | None:
    """Join the cluster that RAY_ADDRESS names or that runs here, or start Ray on this machine.

    A Ray of our own listens on loopback only, and so needs no token; a cluster's own settings
    are left as they are.

    Returns:
        The address of Ray's dashboard for a browser, or None where there is none.

    Raises:
        ConfigError: nobody answers at RAY_ADDRESS, or the cluster has another Ray or Python.
    """
    joined = ray.is_initialized()
    if not joined:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner comes even with verbose=0
        os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
        # Its snapshots hold every trial each time, and nothing is ever restored from them.
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
        # A process that waits for the next task has imported PyTorch, which takes seconds: on few
        # cores Ray would end it and start another.
        os.environ.setdefault("RAY_num_workers_soft_limit", "8")
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
        # Tune's own loggers cost 0.6 s a trial, and know nothing of stages or budgets.
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    address = None if joined else _address()
    try:
        context = ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
        )
    except ConnectionError as error:
        address = os.environ.get("RAY_ADDRESS", "auto")
        first_line = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"RAY_ADDRESS is {address}: {first_line}") from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise ConfigError(
            f"{' '.join(str(error).split())}; use one constraints.txt on all"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = True
        if not joined:
            treat_as_ctrl_c()
    url: str | None = context.dashboard_url
    if not url:
        return None
    return url if "://" in url else f"http://{url}"


def would_join() -> bool:
    """Whether there is a cluster that `connect` would join, rather than start Ray here."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS") or _noted())


def _noted() -> str | None:
    """The address of a cluster that was begun on this machine, if it still answers.

    Of one Ray keeps a note, also when it has died since.
    """
    noted: str | None = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    return noted if noted and _answers(noted) else None


def _address() -> str | None:
    """What Ray is to be told: `local` where no cluster is to be joined, else nothing."""
    if named := os.environ.get("RAY_ADDRESS"):
        _check_answers(named)
        return None
    if _noted():
        return None
    # A Ray of our own listens on loopback alone.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray read that as it was imported. Asking a name server for this machine's own address, as it
    # would do else, fails on a machine without a network, in two lines of its log.
    ray_constants.ENABLE_RAY_CLUSTER = False
    return "local"


def _answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _check_answers(address: str) -> None:
    """Nothing, where something listens there: Ray itself asks for a quarter of an hour."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # `auto`, `local`, or none at all
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ConfigError(
                    f"RAY_ADDRESS is {address}: nobody answers there "
                    f"({error.strerror or error}); start that cluster, or unset RAY_ADDRESS to "
                    "use this machine alone"
                ) from error
            time.sleep(1)


def cluster_in_words(dashboard: str | None) -> str:
    """Which cluster this is: where, how large, and the address of its dashboard."""
    address = ray.get_runtime_context().gcs_address
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (int(sum(node.get(name, 0) for node in there)) for name in ("CPU", "GPU"))
    where = f"Ray at {address}: {len(there)} node{'s' * (len(there) > 1)}, {cpus} CPUs, {gpus} GPUs"
    if not dashboard:
        return where
    return f"{where}; dashboard {dashboard}"
