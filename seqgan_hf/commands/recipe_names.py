"""Recipes that come with the package, by name: `text/seqgan` is `recipes/text/seqgan.yaml`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from ..errors import RecipeError


_PACKAGE = Path(__file__).resolve().parents[1]
# An installed package carries the recipes inside; in a checkout, and so where it is installed as editable, they lie
# beside the package.
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """Of all recipes: `accelerate/cpu`, `evaluation/bleu`, `oracle/best`, ..."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml"))


def summary(name: str) -> str:
    """What a recipe is: the first line of its header."""
    return (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def find_recipe(recipe: str) -> Path:
    """The file of a recipe that is given by its path, or by its name. A file that is there comes before a name.

    The folder joins the end of `sys.path` if there is Python in it: a recipe may name what lies beside it.

    Raises:
        RecipeError: there is neither such a file or folder, nor such a name.
    """
    path = Path(recipe)
    if not path.is_file():
        if recipe in recipe_names():
            path = RECIPES / f"{recipe}.yaml"
        elif not path.exists():
            raise RecipeError(f"recipe {recipe!r} does not exist", "the path of one, or a name", _nearest(recipe))
    folder = str(path.resolve().parent)
    if folder not in sys.path and any(path.parent.glob("*.py")):
        sys.path.append(folder)
    return path


def _nearest(recipe: str) -> str:
    """Which files beside it are meant, perhaps, or which names."""
    path, names = Path(recipe), recipe_names()
    files = [each.name for kind in ("*.yaml", "*.yml") for each in path.parent.glob(kind)]
    if beside := difflib.get_close_matches(path.name, files, n=2, cutoff=0.8):
        return f"did you mean {' or '.join(str(path.with_name(name)) for name in beside)}?"
    wanted = "/".join(path.with_suffix("").parts[-2:]) if path.suffix in (".yaml", ".yml") else recipe
    wanted = wanted.removeprefix("recipes/")
    near = [name for name in names if name.rpartition("/")[2] == wanted.rpartition("/")[2]]
    near.sort(key=lambda name: -difflib.SequenceMatcher(None, name, wanted).ratio())
    near += [name for name in difflib.get_close_matches(wanted, names, cutoff=0.7) if name not in near]
    return f"did you mean {' or '.join(near[:4])}?" if near else "`seqgan-hf recipes` lists all names"
