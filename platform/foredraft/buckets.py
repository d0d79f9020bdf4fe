"""A storage that is a bucket of S3: each node has a working copy, and the bucket what all share.

    storage = working_copy("s3://team/runs")    # a folder of this machine
    fetch(storage / "drafts" / key)             # afterwards here, as the bucket has it
    keep(storage / "drafts" / key)              # afterwards in the bucket, as it is here

A working copy's name tells its bucket: a task that is given a path finds it on whichever node it
runs. Of any other path nothing is done here, as all nodes see what is written to a shared folder.

Which version of the bucket's a file is, is told by the bucket's ETag, which lies beside the copy;
no clock is asked. Where the bucket has another version than the file came from, somebody kept one
since, and it is the bucket's that counts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from foredraft import files
from foredraft.errors import ConfigError

SCHEME = "s3://"
COPIES = ("foredraft", "buckets")
"""The folders, in the user's cache, that hold the working copies."""
# What a folder's name can hold, and what joins the parts of an address to one.
_PART, _JOINT = re.compile(r"[A-Za-z0-9._=-]+"), "+"
FOLLOW_S = 10.0
"""Between two looks at a bucket of what is looked at live."""
VERSIONS = ".versions"
"""Of a working copy: the folder that tells which version of the bucket's each file is."""
# Objects of gigabytes take longer than the half minute that the client allows by itself.
CLIENT: Any = {"timeout": "1h", "connect_timeout": "10s", "read_timeout": "60s"}
RETRIES: Any = {"max_retries": 50, "retry_timeout": timedelta(minutes=1)}


OUT_OF_REACH = re.compile(r"storage s3://\S+ is out of reach \(.*\)")
"""How an error says so, also once Ray has put it in words of its own."""


class OutOfReach(ConfigError):
    """A bucket does not answer, does not exist, or refuses: which, and why, in one line."""


class _Place(NamedTuple):
    """A path in a working copy."""

    root: Path
    """of the copy"""
    address: str
    """of the storage, s3://bucket/prefix"""
    name: str
    """of the path in it; empty for the storage itself"""


class _Object(NamedTuple):
    """What the bucket tells of an object."""

    name: str
    e_tag: str


class _Version(NamedTuple):
    """What a file was when it was fetched or kept last."""

    e_tag: str
    mtime_ns: int
    size: int
    writer: str
    """the process that changes the file and keeps it; empty where it was fetched"""


def is_address(text: str | Path) -> bool:
    """Whether this names a bucket; also as a path, of which `//` became `/`."""
    return str(text).startswith((SCHEME, SCHEME[:-1]))


def located(path: Path) -> Path:
    """Where on this machine an address of a storage, or of something in a study of one, lies.

    Any other path is where it says.
    """
    if not is_address(path):
        return path
    storage, studies, rest = str(path).partition("/studies/")
    return working_copy(storage) / studies.strip("/") / rest


def working_copy(address: str) -> Path:
    """The folder of this machine that stands for `s3://bucket/prefix`, and what lies below it.

    Raises:
        ConfigError: the address names no bucket.
    """
    parts = [part for part in address.removeprefix(SCHEME[:-1]).split("/") if part]
    if not parts or not all(map(_PART.fullmatch, parts)):
        raise ConfigError(
            f"storage {address} names no bucket: give s3://BUCKET/PREFIX, of letters, digits and "
            ". _ = - alone"
        )
    return files.cache_folder() / COPIES[1] / _JOINT.join(("s3", *parts))


def address_of(path: Path) -> str | None:
    """Where in a bucket the path is kept; None of a path in no working copy."""
    place = _place(path)
    return place and f"{place.address}/{place.name}".rstrip("/")


def fetch(path: Path) -> Path:
    """The path, at which there is now what the bucket has: of a file, or of all below a folder.

    What was changed here since, and what a process of this machine is at work on, stays.

    Raises:
        OutOfReach: the bucket is.
    """
    if place := _place(path):
        with _reaching(place):
            held = [one for one in _held(place) if not _is_hidden(one.name)]
            for one in sorted(held, key=lambda one: one.name.endswith(f"/{files.COMPLETE}")):
                _fetch(place, one)
    return path


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
            with contextlib.suppress(OutOfReach):
                fetch(folder)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def keep(path: Path) -> None:
    """Nothing; afterwards the bucket has the file, or all below the folder, as it is here.

    A folder's marker goes last, as it is written last: who fetches it half kept has no whole one.

    Raises:
        OutOfReach: the bucket is.
    """
    if place := _place(path):
        with _reaching(place):
            for file in _visible(path):
                _keep(place, file)


def remove(path: Path) -> None:
    """Nothing; afterwards the file, or the folder and all below it, is gone: here, and there.

    A folder's marker goes first: what is half gone is none.

    Raises:
        OutOfReach: the bucket is.
    """
    if place := _place(path):
        _remove_there(place)
    if path.is_dir():
        (path / files.COMPLETE).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process may be at it too
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_there(place: _Place) -> None:
    import obstore

    with _reaching(place):
        held = [one.name for one in _held(place)]
        for marked in (True, False):
            gone = [name for name in held if name.endswith(files.COMPLETE) == marked]
            if gone:
                obstore.delete(_store(place.address), gone)
        if any(name.startswith(f"{folder}/") for folder in held for name in held):
            _remove_folder_marks(place)
    for name in held:
        _version_file(place, place.root / name).unlink(missing_ok=True)


def _remove_folder_marks(place: _Place) -> None:
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
    place = _place(folder)
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


class Note:
    """A small object that only one of all who try creates; a claim is one (`bank.claims`)."""

    beat_s, poll_s = 15.0, 1.0
    """seconds between two signs of life, and between two looks: each is a request or two"""

    def __init__(self, path: Path) -> None:
        place = _place(path)
        assert place is not None, f"{path} lies in no working copy"
        self._place = place

    def create(self, content: str) -> bool:
        """Whether there was none, so that this one is ours (a conditional write)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with _reaching(self._place):
            try:
                obstore.put(self._store, self._place.name, content.encode(), mode="create")
            except AlreadyExistsError:
                return False
        return True

    def read(self) -> str | None:
        """What it says; None where there is none."""
        import obstore

        with _reaching(self._place):
            try:
                return bytes(obstore.get(self._store, self._place.name).bytes()).decode()
            except FileNotFoundError:
                return None

    def age_s(self) -> float:
        """Seconds since its last sign of life, by the bucket's own clock; 0 where there is none."""
        import obstore

        folder, _, name = self._place.name.rpartition("/")
        probe = f"{folder}/.{name}-{os.getpid()}"
        with _reaching(self._place):
            obstore.put(self._store, probe, b"")
            try:
                now = obstore.head(self._store, probe)["last_modified"]
                own = obstore.head(self._store, self._place.name)["last_modified"]
            except FileNotFoundError:
                return 0.0
            finally:
                obstore.delete(self._store, probe)
        return float((now - own).total_seconds())

    def touch(self, content: str) -> None:
        """Nothing; gives a sign of life, where it still says `content` (a conditional write)."""
        import obstore
        from obstore.exceptions import BaseError

        # One beat that is lost is made good by the next; a lease is many of them.
        with contextlib.suppress(BaseError, OSError):
            found = obstore.get(self._store, self._place.name)
            version = {"e_tag": found.meta["e_tag"]}
            if bytes(found.bytes()).decode() == content:
                obstore.put(
                    self._store,
                    self._place.name,
                    content.encode(),
                    mode=version,  # type: ignore[arg-type]
                )

    def remove(self) -> None:
        """Nothing; it is gone."""
        import obstore

        with _reaching(self._place), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, self._place.name)

    @property
    def _store(self) -> Any:
        return _store(self._place.address)


def _place(path: Path) -> _Place | None:
    parts = path.absolute().parts
    for at, part in enumerate(parts):
        if part.startswith(f"s3{_JOINT}") and parts[at - 2 : at] == COPIES:
            address = SCHEME + part.split(_JOINT, 1)[1].replace(_JOINT, "/")
            return _Place(Path(*parts[: at + 1]), address, "/".join(parts[at + 1 :]))
    return None


@functools.cache
def _store(address: str) -> Any:
    """The client of a bucket; credentials come from the environment or from the machine's role."""
    try:
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"storage {address} needs obstore, which is not installed: pip install 'foredraft[s3]'"
        ) from error
    # What the client reads of the environment by itself goes where options are given.
    plain = {"allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"}
    return from_url(address, client_options=CLIENT | plain, retry_config=RETRIES)


@contextlib.contextmanager
def _reaching(place: _Place) -> Iterator[None]:
    """Say in one line why the bucket does not do what it was asked."""
    _store(place.address)
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file of this machine
        reason = str(error).split("\n", 1)[0].split(": <?xml")[0].strip().rstrip(":")
        raise OutOfReach(
            f"storage {place.address} is out of reach ({reason}): correct the address, or see to "
            "AWS_REGION and the credentials"
        ) from error


def _held(place: _Place) -> list[_Object]:
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
    place = _place(path)
    assert place is not None
    shown = [f for f in found if not _is_hidden(f.relative_to(place.root).as_posix())]
    return sorted(shown, key=lambda file: (file.name == files.COMPLETE, file))


def _fetch(place: _Place, one: _Object) -> None:
    import obstore

    file = place.root / one.name
    version = _version(place, file)
    if version and file.is_file() and one.e_tag == version.e_tag:
        return
    if version and version.writer and version.writer != _writer() and _is_at_work(version.writer):
        return  # a change of this machine's that is on its way to the bucket
    try:
        found = obstore.get(_store(place.address), one.name)
    except FileNotFoundError:
        return  # gone since it was listed
    with files.atomic_file(file) as part:
        for chunk in found.stream(min_chunk_size=8 << 20):
            part.write(chunk)
    _note_version(place, file, e_tag=str(found.meta["e_tag"]), writer="")


def _keep(place: _Place, file: Path) -> None:
    import obstore

    version = _version(place, file)
    try:
        state = file.stat()
    except FileNotFoundError:
        return  # gone since it was listed
    if version and (version.mtime_ns, version.size) == (state.st_mtime_ns, state.st_size):
        return
    name = file.relative_to(place.root).as_posix()
    # Before it is on its way: from now on no other process fetches over it.
    _write_version(place, file, _Version(version.e_tag if version else "", 0, -1, _writer()))
    with contextlib.suppress(FileNotFoundError):
        put = obstore.put(_store(place.address), name, file)
        known = _Version(str(put["e_tag"]), state.st_mtime_ns, state.st_size, _writer())
        _write_version(place, file, known)


def _version_file(place: _Place, file: Path) -> Path:
    return place.root / VERSIONS / file.relative_to(place.root)


def _version(place: _Place, file: Path) -> _Version | None:
    try:
        return _Version(*json.loads(_version_file(place, file).read_text()))
    except (OSError, ValueError):
        return None


def _note_version(place: _Place, file: Path, *, e_tag: str, writer: str) -> None:
    state = file.stat()
    _write_version(place, file, _Version(e_tag, state.st_mtime_ns, state.st_size, writer))


def _write_version(place: _Place, file: Path, version: _Version) -> None:
    files.atomic_write(_version_file(place, file), json.dumps(version))


@functools.cache
def _writer_of(pid: int) -> str:
    return f"{pid}:{_began(pid)}"


def _writer() -> str:
    """This process, which no later one of the same number is."""
    return _writer_of(os.getpid())


def _is_at_work(writer: str) -> bool:
    pid, _, began = writer.partition(":")
    return _began(int(pid)) == began != ""


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none, or no telling."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
