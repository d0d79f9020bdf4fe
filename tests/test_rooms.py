"""Claims about the architecture: which room imports which, and what an `__init__` may hold.

Data flows one way. A room imports what stands before it, never what stands after it; the models
know nothing of the platform, and what is general about speculation knows no family.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform" / "foredraft"
ROOMS = (
    *("data", "settings", "train", "bank", "judge", "cluster"),
    *("search", "report", "dashboard", "forecast", "cli"),
    "__main__",
)
"""In the order in which data flows; what lies loose beside them (errors, files) is below all."""
FOREIGN_TO_MODELS = {"foredraft", "ray", "optuna", "plotly", "pandas", "pydantic", "time"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, dotted, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """The room of a dotted module of the platform; None for what lies loose."""
    parts = module.split(".")
    return parts[1] if parts[0] == "foredraft" and len(parts) > 1 and parts[1] in ROOMS else None


def platform_files() -> list[Path]:
    return sorted(PLATFORM.rglob("*.py"))


@pytest.mark.parametrize("path", platform_files(), ids=lambda p: str(p.relative_to(PLATFORM)))
def test_a_room_imports_only_what_stands_before_it(path: Path) -> None:
    own = room_of(".".join(("foredraft", *path.relative_to(PLATFORM).with_suffix("").parts)))
    place = ROOMS.index(own) if own else -1
    for module in imports(path):
        other = room_of(module)
        assert other is None or ROOMS.index(other) <= place, f"{path.name} imports {module}"


def test_models_know_nothing_of_the_platform_and_have_no_clock() -> None:
    for path in sorted((ROOT / "models").rglob("*.py")):
        found = {module.split(".")[0] for module in imports(path)}
        assert not found & FOREIGN_TO_MODELS, f"{path} imports {found & FOREIGN_TO_MODELS}"


def test_what_is_general_about_speculation_knows_no_family() -> None:
    families = {p.name for p in (ROOT / "models").iterdir() if p.is_dir()} - {"speculation"}
    for path in sorted((ROOT / "models" / "speculation").rglob("*.py")):
        found = {module.split(".")[0] for module in imports(path)}
        assert not found & families, f"{path} imports {found & families}"


def test_an_init_holds_names_and_no_logic() -> None:
    for path in sorted(ROOT.glob("platform/**/__init__.py")) + sorted(
        ROOT.glob("models/**/__init__.py")
    ):
        for node in ast.parse(path.read_text()).body:
            kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
            assert isinstance(node, kinds), f"{path}, line {node.lineno}"


def test_the_two_roots_are_no_packages() -> None:
    """`platform/__init__.py` would shadow the standard library's module of that name."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "models" / "__init__.py").exists()
