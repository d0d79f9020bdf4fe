"""The data sets that go by a name: where their files are, what they hold, how they are split.

foredraft data list
foredraft data fetch ETTh1
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import http.client
import os
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from foredraft import buckets
from foredraft.data.errors import DataError
from foredraft.data.generators import GENERATORS
from foredraft.data.tables import formats
from foredraft.files import atomic_write, cache_folder

FETCH_TIMEOUT_S = 60


class Published(NamedTuple):
    """A public data set: how to know it, whence to get it, how it is split."""

    file: str
    what: str
    rows: int
    variates: int
    licence: str
    url: str = ""
    where: str = ""
    """where to get it, in words, if there is no address of the file itself"""
    sha256: str = ""
    """of the file; empty where no digest is published, then rows and variates are verified"""
    split_rows: tuple[int, int, int] | None = None
    """rows of train, validation, test; None: 70/10/20"""
    disordered: bool = False
    """the published file itself repeats a time stamp; its benchmarks go by rows"""


def _ett(file: str, *, per_hour: int, sha256: str = "") -> Published:
    step = "hourly" if per_hour == 1 else "15 minutes"
    month = 30 * 24 * per_hour
    return Published(
        file=file,
        what=f"electricity transformer: six loads and the oil temperature, {step}",
        rows=17420 * per_hour,
        variates=7,
        licence="CC BY-ND 4.0",
        url=f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/{file}",
        sha256=sha256,
        split_rows=(12 * month, 4 * month, 4 * month),
    )


_TSLIB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"
_LAI = "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/master"

DATASETS: dict[str, Published] = {
    "ETTh1": _ett(
        "ETTh1.csv",
        per_hour=1,
        sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    ),
    "ETTh2": _ett(
        "ETTh2.csv",
        per_hour=1,
        sha256="a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    ),
    "ETTm1": _ett(
        "ETTm1.csv",
        per_hour=4,
        sha256="6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
    ),
    "ETTm2": _ett(
        "ETTm2.csv",
        per_hour=4,
        sha256="db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
    ),
    "electricity": Published(
        file="electricity.csv",
        what="ECL: load of 321 clients, hourly",
        rows=26304,
        variates=321,
        licence="CC BY 4.0 (UCI ElectricityLoadDiagrams20112014)",
        url=f"{_TSLIB}/electricity/electricity.csv",
        sha256="7e45845d54c5219bad0ae6bc1b5316cf8ff9cead5d33fa998a5a51c2e4a497ad",
    ),
    "weather": Published(
        file="weather.csv",
        what="21 readings of a weather station in Jena, 10 minutes",
        rows=52696,
        variates=21,
        licence="not stated (Max Planck Institute for Biogeochemistry)",
        url=f"{_TSLIB}/weather/weather.csv",
        sha256="34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
        disordered=True,  # 2020-05-12 06:00 twice: github.com/thuml/Autoformer/issues/173
    ),
    "traffic": Published(
        file="traffic.csv",
        what="road occupancy at 862 sensors in San Francisco, hourly",
        rows=17544,
        variates=862,
        licence="not stated (Caltrans PeMS)",
        url=f"{_TSLIB}/traffic/traffic.csv",
        sha256="cb06463d56fa17d87f47027cd9389ceae82a69eddee51cdb61480e120dab0b16",
    ),
    "exchange": Published(
        file="exchange_rate.csv",
        what="exchange rates of 8 currencies, daily",
        rows=7588,
        variates=8,
        licence="not stated",
        url=f"{_TSLIB}/exchange_rate/exchange_rate.csv",
        sha256="48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842",
    ),
    "solar": Published(
        file="solar_AL.txt",
        what="output of 137 solar plants in Alabama, 10 minutes",
        rows=52560,
        variates=137,
        licence="not stated (NREL)",
        url=f"{_LAI}/solar-energy/solar_AL.txt.gz",
        sha256="230327ef72d2abb387939d4a35d6fd34f1066071bc7c40ce7ecf5531a0122ac2",
    ),
    "eia930": Published(
        file="eia930_2015_2020_54ba.parquet",
        what="electricity demand (MW) of 54 US balancing authorities, hourly",
        rows=43848,
        variates=54,
        licence="CC BY 4.0",
        where="data/release_2020_Oct/balancing_authorities of "
        "github.com/truggles/EIA_Cleaned_Hourly_Electricity_Demand_Data, joined to one table",
        sha256="c299553a3d88071861d963c56ff9ad6dbc870ce212c59a1d30d2adcd26cecd67",
    ),
}


def fetch(name: str) -> Path:
    """The data set's file: as found in the data folder, else downloaded there and verified.

    Raises:
        DataError: unknown name, no public address, no network, or other bytes than expected.
    """
    entry = _entry(name)
    if (found := _find(entry.file)) is not None:
        verified(found, entry=entry)
        return found
    target = data_folder() / entry.file
    if not entry.url:
        raise DataError(
            f"{name}: {entry.file} has no address to download from; "
            f"find it {entry.where} and put it into {target.parent}"
        )
    content = _download(entry.url, target=target)
    actual = hashlib.sha256(content).hexdigest()
    if entry.sha256 and actual != entry.sha256:
        raise DataError(
            f"{entry.url} has changed: {_other_digest(actual, entry=entry)}; get the published "
            f"file by hand and save it as {target}"
        )
    try:
        atomic_write(target, content)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}); set FOREDRAFT_DATA to another folder"
        ) from error
    buckets.keep(target)
    return target


def describe(name: str) -> dict[str, Any]:
    """One row of the catalogue: name, present, rows, variates, licence, what, source."""
    if name in GENERATORS:
        made = GENERATORS[name]
        size = {"rows": made.parameters["rows"], "variates": made.num_variates}
        told = {"licence": "none needed", "what": made.what, "source": "made here"}
        return {"name": name, "present": True, **size, **told}
    entry = _entry(name)
    return {
        "name": name,
        "present": _find(entry.file) is not None,
        "rows": entry.rows,
        "variates": entry.variates,
        "licence": entry.licence,
        "what": entry.what,
        "source": entry.url or entry.where,
    }


def catalogue() -> list[dict[str, Any]]:
    """A row for each data set that goes by a name, generators last."""
    return [describe(name) for name in (*DATASETS, *GENERATORS)]


def data_folder() -> Path:
    """Where data sets are looked for by name: $FOREDRAFT_DATA, else in the user's cache.

    Of a bucket, s3://BUCKET/PREFIX, it is the working copy.
    """
    chosen = os.environ.get("FOREDRAFT_DATA")
    if not chosen:
        return cache_folder() / "data"
    return buckets.located(Path(chosen).expanduser())


def locate(source: str) -> tuple[Path, Published | None]:
    """The file of a name or a path, and what is published about it if it was asked for by name."""
    path = Path(source).expanduser()
    if source not in DATASETS and (path.suffix or path.exists() or len(path.parts) > 1):
        if not formats.is_table(path):
            what = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what} (looked from {Path.cwd()}); correct the path")
        return path, None
    entry = _entry(source)
    if (found := _find(entry.file)) is not None:
        return found, entry
    remedy = f"run `foredraft data fetch {source}`" if entry.url else f"get it {entry.where}"
    raise DataError(
        f"{source}: {entry.file} is neither in {data_folder()} nor one folder below; {remedy}, "
        "or set FOREDRAFT_DATA to the folder that holds it"
    )


def file_of(source: str) -> Path | None:
    """The file of a name or a path; None where a generator makes the data.

    Raises:
        DataError: the file is not there.
    """
    return None if source.partition(":")[0] in GENERATORS else locate(source)[0]


def _find(file: str) -> Path | None:
    folder = data_folder()
    places = [buckets.fetch_lately(folder / file), *sorted(folder.glob(f"*/{file}"))]
    return next((place for place in places if place.is_file()), None)


def verified(path: Path, *, entry: Published | None) -> str:
    """SHA-256 of the file; raises if another one is published."""
    try:
        actual = _digest(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if entry and entry.sha256 and actual != entry.sha256:
        raise DataError(
            f"{path} is not the published file: {_other_digest(actual, entry=entry)}; "
            "replace it, or give its path to use it as it is"
        )
    return actual


def _digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the digests of a folder's parts in their order."""
    if path.is_dir():
        of_parts = "".join(_digest(part) for part in formats.parts(path))
        return hashlib.sha256(of_parts.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_digest(actual: str, *, entry: Published) -> str:
    return f"its SHA-256 is {actual[:16]}..., published is {entry.sha256[:16]}..."


def _entry(name: str) -> Published:
    if name in DATASETS:
        return DATASETS[name]
    if name in GENERATORS:
        raise DataError(f"{name} is made on the spot and has no file; use it by its name")
    known = {known.lower(): known for known in (*DATASETS, *GENERATORS)}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {known[close[0]]}" if close else f"known: {', '.join(known.values())}"
    raise DataError(f"no data set is named {name!r}: {hint}; a file is given with its suffix")


def _download(url: str, *, target: Path) -> bytes:
    """The bytes behind the address, unpacked if it ends in .gz."""
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as response:
            announced = response.headers.get("Content-Length")
            content = response.read()
        if announced and int(announced) != len(content):
            raise OSError(f"{len(content)} of {announced} bytes came")
        return gzip.decompress(content) if url.endswith(".gz") else content
    except (OSError, EOFError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} could not be downloaded ({error}); get it by hand and save it as {target}"
        ) from error
