"""Claims about a dry run over depth and width: it tells each draft that a trial can ask for once.

Sizes that no trial can ask for are not timed, and a study that cannot be run ends before any is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from foredraft.cli.command import main

STAGE = {
    "name": "scratch",
    "data": "synthetic-etth:rows=1200",
    "epochs": 1,
    "windows_per_epoch": 64,
}
MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 4}
SIZES = {"type": "float", "low": 0.5, "high": 1.0, "step": 0.5}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def dry_run(*, draft: dict[str, Any] | None = None, **dimensions: Any) -> None:
    tree = {
        "name": "tiny",
        "target": {"model": MODEL, "stages": [STAGE], "dtype": "fp32"},
        "draft": {"stages": [STAGE], "dtype": "fp32", **(draft or {})},
        "evaluation": {"data": STAGE["data"], "horizon": 60},
        "dimensions": {"mse_tol": {"type": "float", "low": 0.1, "high": 1.0}, **dimensions},
        "machine": {"use_gpu": False},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(tree))
    main(["search", "tiny.yaml", "--dry-run", "--json"])


def planned(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_dry_run_over_depth_and_width_tells_every_draft_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry_run(depth={**SIZES, "step": 0.05}, width=SIZES)
    plan = planned(capsys)
    assert plan["distinct_drafts"] == plan["distinct_architectures"] == 6
    sizes = [(draft["n_layers"], draft["d_model"]) for draft in plan["drafts"]]
    assert sorted(sizes) == [(layers, width) for layers in (2, 3, 4) for width in (16, 32)]
    assert all(draft["training_s"] > 0 for draft in plan["drafts"])


def test_a_width_that_hangs_on_the_depth_is_planned_beside_that_depth_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry_run(draft={"scale": 0.5}, depth=SIZES, width={**SIZES, "when": {"depth": 1.0}})
    plan = planned(capsys)
    sizes = [(draft["n_layers"], draft["d_model"]) for draft in plan["drafts"]]
    assert sorted(sizes) == [(2, 16), (4, 16), (4, 32)]


def test_a_dry_run_of_sizes_that_have_no_effect_ends_with_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        dry_run(scale=SIZES, depth=SIZES, width=SIZES)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tiny.yaml: dimensions.scale has no effect" in line
