"""Claims about what people install: the wheel is whole, and a study runs from an empty directory.

The wheel is installed into an empty environment that finds the dependencies, and nothing of this
tree, where these tests find them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "foredraft": ROOT / "platform",
    **dict.fromkeys(("speculation", "timer", "timer_xl"), ROOT / "models"),
}

pytestmark = pytest.mark.install


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(command, check=True, env=os.environ | {"PIP_NO_INDEX": "1"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("foredraft-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment that holds the wheel."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    pip("--python", programs / "python", "install", "--no-deps", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    # The .pth files in those folders, the one of an editable install among them, are not followed.
    (site / "dependencies.pth").write_text(
        "\n".join(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    )
    return programs


def run(program: Path, *words: str, folder: Path) -> str:
    """Standard output of the program, run in the folder without a word about this tree."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_the_wheel_holds_every_module_and_every_search_space_as_they_are(wheel: Path) -> None:
    wanted = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package, root in PACKAGES.items()
        for path in (root / package).rglob("*.py")
    }
    for path in (ROOT / "search_spaces").glob("*.yaml"):
        wanted[f"foredraft/search_spaces/{path.name}"] = path.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert {name: held.get(name) for name in wanted} == wanted
    assert {name.partition("/")[0] for name in held} == {*PACKAGES, f"{wheel.stem[:15]}.dist-info"}


def test_what_is_installed_is_the_wheel_and_not_this_tree(installed: Path, empty: Path) -> None:
    ask = "import foredraft, timer_xl; print(foredraft.__file__); print(timer_xl.__file__)"
    for found in run(installed / "python", "-c", ask, folder=empty).splitlines():
        assert Path(found).is_relative_to(installed.parent)


def test_an_installed_foredraft_names_its_verbs(installed: Path, empty: Path) -> None:
    verbs = ("data", "train", "search", "report", "forecast", "drafts", "bench", "evaluate")
    overview = run(installed / "foredraft", "--help", folder=empty)
    assert all(verb in overview for verb in verbs)
    assert list(empty.iterdir()) == []


@pytest.mark.timeout(900)
def test_a_study_runs_from_an_empty_directory_and_leaves_its_report_there(
    installed: Path, empty: Path
) -> None:
    told = run(installed / "foredraft", "search", "smoke", "--json", folder=empty)
    result = json.loads(told.splitlines()[-1])
    report = empty / "runs" / "studies" / "smoke" / "report.html"
    assert (empty / result["report"]).samefile(report)
    assert "<html" in report.read_text()
    # Where nothing is established to be faster, which so short a study cannot, that is the answer.
    assert result["best"]["choice"] in ("target alone", "draft and target")
    assert [path.name for path in empty.iterdir()] == ["runs"]
