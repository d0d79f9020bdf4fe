"""A study's key figures as PNG files, drawn by a Chromium without a window.

write_pictures(read_study_files(Path("runs/studies/demo")), Path("figures"))
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from plotly import graph_objects as go

from foredraft.errors import ConfigError, Stopped
from foredraft.report import page
from foredraft.report.sections import sections_of
from foredraft.report.study_files import StudyFiles

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH = 1100
KEY = ("front", "accuracy", "fidelity", "importance", "scale", "agreement", "hypervolume")
"""The figures that stand by themselves; those of many panels are for a page."""
DRAWING_S = 120


def write_pictures(study: StudyFiles, folder: Path) -> list[Path]:
    """The paths of the key figures that the study has, each in a file of its name.

    Raises:
        ConfigError: there is no browser to draw them.
        Stopped: it drew nothing.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigError(
            "--png draws by Chromium, of which none is on PATH: install chromium, or save the "
            "figures from the report by the camera above each"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _drawn(section.figure, folder / f"{section.name}.png", browser=browser)
        for section in sections_of(study)
        if section.name in KEY
    ]


def _drawn(figure: go.Figure, path: Path, *, browser: str) -> Path:
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "figure.html"
        source.write_text(page.figure_page(figure))
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--force-device-scale-factor=2", "--virtual-time-budget=10000"),
            f"--window-size={WIDTH},{int(figure.layout.height)}",
            *(f"--user-data-dir={work}/profile", f"--screenshot={path.absolute()}"),
            source.as_uri(),
        ]
        path.unlink(missing_ok=True)
        ended = subprocess.run(command, capture_output=True, timeout=DRAWING_S, check=False)
    if not path.is_file():
        last = ended.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise Stopped(f"{browser} drew no {path.name}: {last}")
    return path
