"""Claims about the report that only a browser can settle: it draws, and it stays at home."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from foredraft import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Parallel coordinates are drawn with WebGL.
    "--enable-unsafe-swiftshader",
    "--virtual-time-budget=8000",
    "--dump-dom",
]
# What was drawn, and whatever the page asked for, granted or refused, ends up in the page itself.
WITNESS = """<script>
const asked = [];
document.addEventListener("securitypolicyviolation", (event) => asked.push(event.blockedURI));
addEventListener("load", () => setTimeout(() => {
  asked.push(...performance.getEntriesByType("resource").map((entry) => entry.name));
  const drawn = Object.fromEntries([...document.querySelectorAll(".plot")].map(
    (plot) => [plot.id, plot.querySelectorAll("svg.main-svg").length]
  ));
  document.body.dataset.seen = JSON.stringify({asked, drawn});
}, 1000));
</script>"""

STAGE = {"name": "scratch", "data": "synthetic-etth:rows=1200"}
STUDY = {
    "name": "drawn",
    "target": "demo",
    "draft": {"stages": [STAGE]},
    "evaluation": {"data": STAGE["data"], "horizon": 336},
    "acceptance": {"rule": "gaussian", "bias": 2.0},
    "dimensions": {"sigma": {"type": "float", "low": 0.1, "high": 1.0}},
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture
def study_dir(tmp_path: Path, make_trial: Callable[..., Any]) -> Path:
    rng, count = np.random.default_rng(3), 24
    trials = []
    for number in range(count):
        scale, acceptance = float(rng.choice([0.5, 0.7, 0.9])), float(rng.uniform(0.3, 0.95))
        settings = {
            "scale": scale,
            "sigma": float(10 ** rng.uniform(-2, 1)),
            "lookahead": int(rng.integers(1, 6)),
        }
        trial = make_trial(
            number,
            settings=settings,
            draft={"key": f"d-{scale}"},
            acceptance_rate=acceptance,
            predicted_speedup=0.6 + acceptance * float(rng.uniform(0.5, 1.0)),
            mse_ratio=float(rng.uniform(0.99, 1.03)),
        )
        trials.append(trial.model_dump(mode="json"))
    curves = pd.DataFrame({"epoch": range(1, 6), "train_loss": 0.4, "validation_loss": 0.5})
    curves = curves.assign(label="target", kind="target", stage="scratch")
    target = {"key": "t", "parameters": 1000, "patch": 96, "mse": 0.4, "mae": 0.5}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "references.json").write_text(json.dumps({"target": target}))
    (tmp_path / "trials.json").write_text(json.dumps(trials))
    curves.to_parquet(tmp_path / "curves.parquet")
    return tmp_path


def look(page: Path) -> dict[str, Any]:
    """What the witness saw when a browser opened the page."""
    page.write_text(page.read_text().replace("<title>", f"{WITNESS}<title>", 1))
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (seen,) = re.findall(r'data-seen="([^"]*)"', shown.stdout)
    return json.loads(unescape(seen))


def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(study_dir: Path) -> None:
    seen = look(report.write_report(study_dir))
    assert set(seen["drawn"]) == {
        "front",
        "fidelity",
        "accuracy",
        "importance",
        "settings",
        "slices",
        "scale",
        "hypervolume",
        "curves",
    }
    assert all(seen["drawn"].values())
    assert seen["asked"] == []


def test_the_page_itself_refuses_a_request_to_the_outside(study_dir: Path) -> None:
    page = report.write_report(study_dir)
    outside = "https://example.invalid/logo.png"
    page.write_text(page.read_text().replace("<main>", f'<main><img src="{outside}">', 1))
    assert set(look(page)["asked"]) == {outside}
