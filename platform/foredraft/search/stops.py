"""Why a study stopped before its end, in one line: its disk, its cluster, its database.

with in_one_line(study, directory, begun=True):
    search()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy.exc

from foredraft import redaction
from foredraft.cluster import lifeline
from foredraft.search import disk
from foredraft.settings.study import Study, StudyStopped


@contextlib.contextmanager
def in_one_line(study: Study, directory: Path, *, begun: bool) -> Iterator[None]:
    """A block of a study: what goes wrong with disk, cluster or database is said with its remedy.

    Args:
        study: that is at work.
        directory: of it.
        begun: whether the directory was there, with the study in it.

    Raises:
        StudyStopped: one of the three is at fault; any other error goes on as it is.
    """
    try:
        yield
    except Exception as error:
        # What was said of one that had begun is not said again.
        is_said = isinstance(error, StudyStopped) and not begun
        fault = None if is_said else disk.fault(directory, error, begun=begun)
        if fault:
            raise _stopped(study, fault.what, fault.remedy, begun=begun) from error
        if not is_said and (what := lifeline.cut()):
            raise of_cluster(study, what, begun=begun) from error
        if begun and study.database and (why := _of_a_database(error)):
            what = f"database {redaction.redacted(study.database)}: {why}"
            raise _stopped(study, what, "bring it back") from error
        raise


def of_cluster(study: Study, what: str, *, begun: bool = True) -> StudyStopped:
    """The end of a study whose cluster has gone, of which `what` says how."""
    return _stopped(study, what, "start the cluster again", begun=begun)


def _of_a_database(error: Exception) -> str | None:
    """The first line of what a database's driver says of a connection, or None."""
    for one in disk.chain(error):
        if isinstance(one, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
            return redaction.redacted(str(one.orig).strip().split("\n", 1)[0])
    return None


def _stopped(study: Study, what: str, remedy: str, *, begun: bool = True) -> StudyStopped:
    how = "--resume goes on with it" if begun else "start the command again"
    return StudyStopped(
        f"study {study.name!r} stopped: {what}; what was reported is kept: {remedy}, then {how}"
    )
