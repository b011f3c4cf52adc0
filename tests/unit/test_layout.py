"""The house's own rules: imports go down only, every floor is known."""

from __future__ import annotations

import ast
from pathlib import Path

import seqgan_hf


PACKAGE = Path(seqgan_hf.__file__).parent
# From the ground up; modules of one floor may import each other only where they are the same package.
FLOORS = [
    {"samples", "models", "grammar"},
    {"functional", "reserved_cache", "data"},
    {"sampling", "scoring"},
    {"oracle"},
    {"objectives", "evaluation", "metrics"},
    {"checkpointing", "run_folder", "training_args", "training_data", "processes", "meter", "trackers"},
    {"model_card"},
    {"hub"},
    {"trainer"},
    {"recipe", "run_callbacks", "generation"},
    {"cli"},
]


def imported_modules(path: Path) -> set[str]:
    """Top-level parts of the package that a file imports, wherever in the file."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(*base, *name.split("."))[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seqgan_hf."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("seqgan_hf.")}
    return found


def test_imports_go_down_only():
    floor_of = {name: height for height, names in enumerate(FLOORS) for name in names}
    files = [path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert len(files) > 20
    for path in files:
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        assert own in floor_of, f"{own} stands on no floor"
        for other in imported_modules(path) - {own}:
            below = floor_of[other] < floor_of[own]
            together = floor_of[other] == floor_of[own] and not {own, other} <= {"objectives", "evaluation"}
            assert below or together, f"{path.name} imports {other}, which is above it or beside it"


def test_modeling_files_are_complete_in_themselves():
    """They are copied alone to the Hub: nothing of the package may be imported."""
    for path in (PACKAGE / "models").glob("modeling_*.py"):
        assert not imported_modules(path), path.name


def test_functions_stay_readable():
    """About 50 lines at most, docstring included, so that nobody has to scroll through one thought."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= 50, f"{path.name}: {node.name} has {length} lines"
