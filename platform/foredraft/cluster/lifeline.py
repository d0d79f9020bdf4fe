"""Whether the cluster that was joined is still there: its head, this node, and all the others.

    with lifeline.held(lost=end, say=print):
        work()

Ray itself waits a minute for a head that has gone, and then ends the process in words of its own.
Of another node that is out of reach it knows within a minute, and tells those who wait for work
there only when their own connection is found dead: by default after seven.
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
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.core.generated.common_pb2 import NodeDeathInfo  # type: ignore[attr-defined]

LOOK_S = 6.0
"""Seconds between two looks: of each the node's log has a line."""
LOST_S = 30.0
"""Seconds without an answer after which a cluster is given up: Ray gives it up after 60."""
ASKED_TO_GO = frozenset(
    NodeDeathInfo.Reason.Value(name) for name in ("EXPECTED_TERMINATION", "AUTOSCALER_DRAIN_IDLE")
)
"""What Ray calls the end of a node that did not go by accident, nor was taken away."""


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


def patience() -> float:
    """Seconds after which Ray gives up work that it waits for on a node that is out of reach."""
    milliseconds: int = Config.grpc_client_keepalive_time_ms() + (
        Config.grpc_client_keepalive_timeout_ms()
    )
    return milliseconds / 1000


@contextlib.contextmanager
def held(*, lost: Callable[[str], None], say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, each of the two is told, in a thread of its own, what has gone.

    Args:
        lost: told that the head, or Ray on this machine, has not answered for a while.
        say: told of each other node that went without being asked to, and what that means.
    """
    ended = threading.Event()
    # Two, as Ray may have no answer for a minute about its nodes.
    for watch, tell in ((_watch_head, lost), (_watch_nodes, say)):
        threading.Thread(target=watch, args=(ended, tell), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch_head(ended: threading.Event, lost: Callable[[str], None]) -> None:
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


def _watch_nodes(ended: threading.Event, say: Callable[[str], None]) -> None:
    alive: set[str] = set()
    while not ended.wait(LOOK_S):
        try:
            nodes = ray.nodes()
        except ray.exceptions.RayError:  # the head is out of reach: not for this one to say
            continue
        for node in nodes:
            left = node["NodeID"] in alive and not node["Alive"]
            if left and node["DeathReason"] not in ASKED_TO_GO:
                say(
                    f"node {node['NodeName']} is gone: what it was at work on begins again "
                    f"elsewhere when Ray gives it up, within {patience():.0f} s"
                )
        alive = {node["NodeID"] for node in nodes if node["Alive"]}


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
