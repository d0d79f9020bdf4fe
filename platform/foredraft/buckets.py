"""A storage that is a bucket of S3: each node has a working copy, and the bucket what all share.

    storage = working_copy("s3://team/runs")    # a folder of this machine
    fetch(storage / "drafts" / key)             # afterwards here, as the bucket has it
    keep(storage / "drafts" / key)              # afterwards in the bucket, as it is here

A working copy's name tells its bucket: a task that is given a path finds it on whichever node it
runs. Of any other path nothing is fetched or kept, as all nodes see what is in a shared folder.

Which version of the bucket's a file is, is told by the bucket's ETag, which is noted beside the
copy; no clock is asked. Where the bucket has another version than the file came from, somebody kept
one since, and it is the bucket's that counts: `fetch` brings it, and `keep` does not replace it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from foredraft import files
from foredraft.errors import ConfigError
from foredraft.working_copies import (
    VERSIONS,
    Place,
    Version,
    located,
    name_of,
    place_of,
    runs,
    this_process,
    version_file,
    version_of,
    working_copy,
    write_version,
)

__all__ = [
    "OUT_OF_REACH",
    "OutOfReach",
    "address_of",
    "client_of",
    "fetch",
    "fetch_lately",
    "followed",
    "keep",
    "located",
    "names",
    "remove",
    "working_copy",
]

FOLLOW_S = 10.0
"""Between two looks at a bucket of what is looked at live."""
# Objects of gigabytes take longer than the half minute that the client allows by itself.
CLIENT: Any = {"timeout": "1h", "connect_timeout": "10s", "read_timeout": "60s"}
LATELY_S = 10.0
"""Within which what was fetched whole is not asked for again (`fetch_lately`)."""
RETRIES: Any = {"max_retries": 50, "retry_timeout": timedelta(minutes=1)}


OUT_OF_REACH = re.compile(r"storage s3://\S+ is out of reach \(.*\)")
"""How an error says so, also once Ray has put it in words of its own."""

_fetched_at: dict[Path, float] = {}
"""When this process fetched what, by its own clock."""


class OutOfReach(ConfigError):
    """A bucket does not answer, does not exist, or refuses: which, and why, in one line."""


class _Object(NamedTuple):
    """What the bucket tells of an object."""

    name: str
    e_tag: str


def address_of(path: Path) -> str | None:
    """Where in a bucket the path is kept; None of a path in no working copy."""
    place = place_of(path)
    return place and f"{place.address}/{place.name}".rstrip("/")


def fetch(path: Path) -> Path:
    """The path, at which there is now what the bucket has: of a file, or of all below a folder.

    What was changed here since, and what a process of this machine is about to keep, stays; what
    the bucket has no more goes.

    Raises:
        OutOfReach: the bucket is.
    """
    if place := place_of(path):
        with _reaching(place), _one_at_a_time(place):
            held = [one for one in _held(place) if not _is_hidden(one.name)]
            for one in sorted(held, key=lambda one: one.name.endswith(f"/{files.COMPLETE}")):
                _fetch(place, one)
            _drop_all_but(place, {one.name for one in held})
        _fetched_at[path] = time.monotonic()
    return path


def fetch_lately(path: Path) -> Path:
    """The path, fetched now or by this process a moment ago: for what is asked again and again.

    Raises:
        OutOfReach: the bucket is.
    """
    asked = _fetched_at.get(path)
    return path if asked and time.monotonic() - asked < LATELY_S else fetch(path)


@contextlib.contextmanager
def followed(folder: Path) -> Iterator[None]:
    """While the block runs, the folder is fetched again and again: for what is looked at live.

    Raises:
        OutOfReach: the bucket is, at first; later it is asked again.
    """
    if address_of(fetch(folder)) is None:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(FOLLOW_S):
            with contextlib.suppress(OutOfReach, OSError):
                fetch(folder)

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def keep(path: Path, *, alone: bool = False) -> None:
    """Nothing; afterwards the bucket has the file, or all below the folder, as it is here.

    A folder's marker goes last, as it is written last: who fetches it half kept has no whole one.
    Where another machine has kept one since, theirs stays in the bucket, and is here too now.

    Args:
        path: the file or the folder.
        alone: whether nobody else may have kept one since, so that it is an error.

    Raises:
        OutOfReach: the bucket is; or, `alone`, somebody else has kept one since.
    """
    if place := place_of(path):
        with _reaching(place):
            for file in _visible(path):
                if not _keep(place, file):
                    if alone:
                        raise OutOfReach(
                            f"storage {place.address} is out of reach (another process has kept "
                            f"{name_of(place, file)} since): end one of the two"
                        )
                    fetch(file)


def remove(path: Path) -> None:
    """Nothing; afterwards the file, or the folder and all below it, is gone: here, and there.

    A folder's marker goes first: what is half gone is none.

    Raises:
        OutOfReach: the bucket is.
    """
    if place := place_of(path):
        _remove_there(place)
    _fetched_at.pop(path, None)
    if path.is_dir():
        (path / files.COMPLETE).unlink(missing_ok=True)
        # Another process may be at it too; of what is open on NFS a file stays for a while.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_there(place: Place) -> None:
    import obstore

    with _reaching(place):
        held = [one.name for one in _held(place)]
        for marked in (True, False):
            gone = [name for name in held if name.endswith(files.COMPLETE) == marked]
            if gone:
                obstore.delete(_store(place.address), gone)
        if set(held) & {parent for name in held for parent in _parents(name)}:
            _remove_folder_marks(place)
    for name in held:
        version_file(place, place.root / name).unlink(missing_ok=True)


def _parents(name: str) -> list[str]:
    """The folders that an object's name goes through."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _remove_folder_marks(place: Place) -> None:
    """Ray Train marks folders by empty objects, `name/`, which go by its own file system alone."""
    import pyarrow.fs

    there, path = pyarrow.fs.FileSystem.from_uri(f"{place.address}/{place.name}")
    with contextlib.suppress(FileNotFoundError):
        there.delete_dir(path)


def names(folder: Path) -> list[str]:
    """What lies in the folder, in order: in the bucket, or here where it is in no working copy.

    Raises:
        OutOfReach: the bucket is.
    """
    place = place_of(folder)
    if place is None:
        found = [path.name for path in folder.glob("*")]
    else:
        import obstore

        with _reaching(place):
            told = obstore.list_with_delimiter(_store(place.address), place.name or None)
        paths = [*told["common_prefixes"], *(one["path"] for one in told["objects"])]
        # Not the folder's own mark.
        found = [path.rsplit("/", 1)[-1] for path in paths if path != place.name]
    return sorted(name for name in found if not name.startswith("."))


def client_of(path: Path) -> tuple[Any, str, Any]:
    """Of a path in a working copy: the bucket's client, the object's name, and who says its errors.

    with reaching(): obstore.head(client, name)
    """
    place = place_of(path)
    assert place is not None, f"{path} lies in no working copy"
    return _store(place.address), place.name, functools.partial(_reaching, place)


@functools.cache
def _store(address: str) -> Any:
    """The client of a bucket; credentials come from the environment or from the machine's role.

    Raises:
        ConfigError: the client is not installed, or the environment leads it nowhere.
    """
    try:
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"storage {address} needs obstore, which is not installed: pip install 'foredraft[s3]'"
        ) from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"AWS_ENDPOINT_URL is {endpoint!r}: give http://HOST or https://HOST, or unset it"
        )
    plain = {"allow_http": bool(endpoint and endpoint.startswith("http://"))}
    return from_url(address, client_options=CLIENT | plain, retry_config=RETRIES)


@contextlib.contextmanager
def _reaching(place: Place) -> Iterator[None]:
    """Say in one line why the bucket does not do what it was asked."""
    try:
        from obstore.exceptions import BaseError
    except ModuleNotFoundError:
        _store(place.address)
        raise
    try:
        _store(place.address)
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file of this machine
        reason = str(error).split("\n", 1)[0].split(": <?xml")[0].strip().rstrip(":")
        raise OutOfReach(
            f"storage {place.address} is out of reach ({reason}): correct the address, or see to "
            "AWS_REGION and the credentials"
        ) from error


@contextlib.contextmanager
def _one_at_a_time(place: Place) -> Iterator[None]:
    """Of all on this machine who fetch the same, one does: what it fetches, others find."""
    folder = place.root / VERSIONS / ".fetching" / place.name.replace("/", "+")
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder):
        yield


def _held(place: Place) -> list[_Object]:
    """What the bucket has of the path: below it as a folder, else the one object that it is."""
    import obstore

    store = _store(place.address)
    below = [one for many in obstore.list(store, place.name or None) for one in many]
    if not below and place.name:
        with contextlib.suppress(FileNotFoundError):
            below = [obstore.head(store, place.name)]
    return [_Object(one["path"], str(one["e_tag"])) for one in below]


def _is_hidden(name: str) -> bool:
    """Whether it is a lock, a file half written, a version: nobody else's."""
    return any(part.startswith(".") for part in name.split("/")) or name.endswith("-journal")


def _visible(path: Path) -> list[Path]:
    """The files at or below a path that are others' business too, markers last."""
    found = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    place = place_of(path)
    assert place is not None
    shown = [f for f in found if not _is_hidden(name_of(place, f))]
    return sorted(shown, key=lambda file: (file.name == files.COMPLETE, file))


def _fetch(place: Place, one: _Object) -> None:
    import obstore

    file = place.root / one.name
    version = version_of(place, file)
    if version and file.is_file():
        if one.e_tag == version.e_tag:
            return
        if not version.is_of(file) and version.writer != this_process() and runs(version.writer):
            return  # a change of this machine's, on its way to the bucket
    try:
        found = obstore.get(_store(place.address), one.name)
    except FileNotFoundError:
        return  # gone since it was listed, or the mark of a folder
    with files.atomic_file(file) as part:
        for chunk in found.stream(min_chunk_size=8 << 20):
            part.write(chunk)
        # What a killed process left of a database is not to be played into another.
        for suffix in ("-journal", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
    state = file.stat()
    version = Version(str(found.meta["e_tag"]), state.st_mtime_ns, state.st_size, writer="")
    write_version(place, file, version)


def _drop_all_but(place: Place, held: set[str]) -> None:
    """Remove what was fetched or kept, has not changed here since, and is in the bucket no more."""
    folder = place.root / place.name
    for file in _visible(folder) if folder.exists() else ():
        version = version_of(place, file)
        if name_of(place, file) in held or version is None or not version.e_tag:
            continue
        with contextlib.suppress(FileNotFoundError):
            if version.is_of(file):
                file.unlink()
                version_file(place, file).unlink(missing_ok=True)


def _keep(place: Place, file: Path) -> bool:
    """Whether the bucket has the file as it is here; not where somebody else kept one since."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    version, store, name = version_of(place, file), _store(place.address), name_of(place, file)
    try:
        if version and version.is_of(file):
            return True
        state, content = file.stat(), file.read_bytes()
    except FileNotFoundError:
        return True  # gone since it was listed
    e_tag = version.e_tag if version else ""
    # Before it is on its way: from now on no other process fetches over it.
    write_version(place, file, Version(e_tag, 0, -1, this_process()))
    mode: Any = {"e_tag": e_tag} if e_tag else "create"
    try:
        made = str(obstore.put(store, name, content, mode=mode, use_multipart=False)["e_tag"])
    except (AlreadyExistsError, PreconditionError):
        # Its own, where the answer to the first try was lost; or another's equal one.
        theirs = obstore.get(store, name)
        if bytes(theirs.bytes()) != content:
            version_file(place, file).unlink(missing_ok=True)
            return False
        made = str(theirs.meta["e_tag"])
    write_version(place, file, Version(made, state.st_mtime_ns, state.st_size, this_process()))
    return True
