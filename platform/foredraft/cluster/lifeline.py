"""Whether the cluster that was joined is still there: its head, and the node that one works on.

    with lifeline.held(lost=end):       # called where either has not answered for a while
        work()

Ray itself waits a minute for a head that has gone, and then ends the process in words of its own;
and what a lost node was asked for may never come.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import ray
from ray._private import worker

LOOK_S = 6.0
"""Seconds between two looks: of each the node's log has a line."""
LOST_S = 30.0
"""Seconds without an answer after which a cluster is given up: Ray gives it up after 60."""


def cut() -> str | None:
    """What of the cluster does not answer now, in words; None where all that is asked does."""
    node = worker._global_node  # None of a client from afar, which has neither
    if node is None or not ray.is_initialized():
        return None
    host, _, port = node.gcs_address.rpartition(":")
    if not _listens(functools.partial(socket.create_connection, (host.strip("[]"), int(port)))):
        return f"the head of the cluster at {node.gcs_address} does not answer any more"
    if not _listens(functools.partial(_connected, node.raylet_socket_name)):
        return f"Ray's process on {node.node_ip_address}, which this command joined, has ended"
    return None


@contextlib.contextmanager
def held(*, lost: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, `lost` is called where the cluster has not answered for a while.

    Args:
        lost: told what does not answer, in a thread of its own.
    """
    ended = threading.Event()

    def look() -> None:
        since, missed = time.monotonic(), 0
        while not ended.wait(LOOK_S):
            what = cut()
            if what is None:
                since, missed = time.monotonic(), 0
                continue
            missed += 1
            # More than one look, as this process may have stood still.
            if missed > 2 and time.monotonic() - since > LOST_S and not ended.is_set():
                lost(what)
                return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _listens(connect: Callable[..., socket.socket]) -> bool:
    try:
        connect(timeout=LOOK_S).close()
    except OSError:
        return False
    return True


def _connected(path: str, *, timeout: float) -> socket.socket:
    """A connection to a process of this machine."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
