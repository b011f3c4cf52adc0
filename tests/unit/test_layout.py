"""The house's own rules: imports go down and never in a circle; classes, functions and files stay readable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import seqgan_hf


PACKAGE = Path(seqgan_hf.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# From the ground up; rooms of one floor never import each other.
FLOORS = [
    {"errors"},
    {"samples", "models"},
    {"functional"},
    {"generation"},
    {"data"},
    {"objectives"},
    {"evaluation"},
    {"runs"},
    {"training"},
    {"commands", "integrations"},
]
FLOOR_OF = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in FILES}


def defined(path: Path) -> set[str]:
    """Classes and functions that a module defines."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))}


DEFINED = {module: defined(path) for module, path in MODULES.items()}


def homes(package: tuple[str, ...], name: str) -> set[tuple[str, ...]]:
    """Modules directly in a package that define a name which is taken from the package, however it exports it."""
    return {module for module in MODULES if module and module[:-1] == package and name in DEFINED[module]}


def imported(path: Path) -> set[tuple[str, ...]]:
    """Modules of the package that a file imports, wherever in it, and for types only as well.

    A name that is taken from a package (`from . import FGAN`) counts as its module, too.
    """
    own, found = module_of(path), set()
    package = own if path.name == "__init__.py" else own[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (
                *package[: len(package) - node.level + 1],
                *(node.module or "").split(".")[: 9 if node.module else 0],
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "seqgan_hf":
            base = tuple(node.module.split(".")[1:])
        elif isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "seqgan_hf"}
            continue
        else:
            continue
        inner = {(*base, alias.name) for alias in node.names}
        found |= (inner & MODULES.keys()) or {base}
        if not inner <= MODULES.keys():
            found.add(base)
        found |= {home for alias in node.names for home in homes(base, alias.name)}
    return found - {own}


def room(module: tuple[str, ...]) -> str | None:
    return module[0] if module and module[0] not in ("__main__",) else None


def test_the_package_has_a_dozen_rooms_at_most():
    entries = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")} - {"py.typed"}
    assert len(entries) <= 12
    assert {entry.removesuffix(".py") for entry in entries} == set(FLOOR_OF), "a room stands on no floor"


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)) or "__init__")
def test_imports_go_down_only(path):
    own = room(module_of(path))
    if own is None:  # the package itself and its command line may name anything
        return
    for other in map(room, imported(path)):
        below = other in FLOOR_OF and FLOOR_OF[other] < FLOOR_OF[own]
        assert other in (own, None) or below, f"imports {other}, which is above {own} or beside it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)) or "__init__")
def test_nothing_but_the_version_is_taken_from_above(path):
    """The package itself names what is in all rooms, so that whoever imports from it could import anything."""
    if room(module_of(path)) is None:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        root = isinstance(node, ast.ImportFrom) and not node.module and node.level == len(module_of(path))
        if root or (isinstance(node, ast.ImportFrom) and node.module == "seqgan_hf" and not node.level):
            assert {alias.name for alias in node.names} <= {"__version__", *FLOOR_OF}


def named_as_text(path: Path) -> set[tuple[str, ...]]:
    """Modules of the package whose dotted path is a string in a file, outside of docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    paths = [text for text in strings if isinstance(text, str) and re.fullmatch(r"seqgan_hf(\.\w+)+", text)]
    return {tuple(text.split(".")[1:]) for text in paths}


def test_a_dotted_path_in_a_string_is_found_and_one_in_a_docstring_is_not(tmp_path):
    (tmp_path / "some.py").write_text('"""seqgan_hf.runs.card"""\nPRELOAD = ["seqgan_hf.commands.build"]\n')
    assert named_as_text(tmp_path / "some.py") == {("commands", "build")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)) or "__init__")
def test_strings_name_no_module_from_above(path):
    """What is imported by its name later on is an import as well."""
    own = room(module_of(path))
    if own is None:
        return
    for other in map(room, named_as_text(path)):
        assert other == own or FLOOR_OF[other] < FLOOR_OF[own], f"names {other}, which is above {own} or beside it"


def circles(graph: dict) -> list[list]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of more than one module)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_modules_import_each_other_in_a_circle():
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["c", "b", "a"]]
    assert circles({"a": ["b"], "b": ["a"], "c": []}) == [["b", "a"]]
    assert homes(("objectives",), "DPGAN") == {("objectives", "dpgan")}  # exported by a loop
    # what a package exports says nothing of who uses it, so the root is left out
    graph = {module: imported(path) - {()} for module, path in MODULES.items() if module}
    assert circles(graph) == []


def test_modeling_files_are_complete_in_themselves():
    """They are copied to the Hub with the modeling files that they import: nothing else of the package may be."""
    for path in (PACKAGE / "models").glob("modeling_*.py"):
        others = {module for module in imported(path) if not module[-1].startswith("modeling_")}
        assert not others, path.name


def length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a definition, all of them: decorators, signature, docstring and body."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.end_lineno - first + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)) or "__init__")
def test_files_classes_and_functions_stay_readable(path):
    """At most 500, 300 and 50 lines, so that nobody has to scroll through one thought."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert length(node) <= 300, node.name
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert length(node) <= 50, node.name


def test_the_trainer_is_short():
    assert len((PACKAGE / "training" / "trainer.py").read_text(encoding="utf-8").splitlines()) < 250
