"""`seqgan-hf recipes`: what comes with the package."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..errors import UserError
from .command_parser import CommandParser
from .recipe_names import RECIPES, find_recipe, recipe_names, summary


def run(arguments: list[str]) -> None:
    """Nothing, or `copy NAME [DEST]`."""
    description = "List the recipes that come with the package, or copy one to edit it."
    parser = CommandParser(prog="seqgan-hf recipes", description=description)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    copy = commands.add_parser("copy", help="write a recipe, with the Python files that it names, to edit it")
    copy.add_argument("name", help="the name of a recipe, such as text/seqgan")
    copy.add_argument("dest", nargs="?", default=".", help="a folder, or a file (.yaml); default: this folder")
    options = parser.parse_args(arguments)
    if options.command == "copy":
        print("\n".join(map(str, copy_recipe(options.name, Path(options.dest)))))
    else:
        names = recipe_names()
        width = max(map(len, names))
        print("\n".join(f"{name:{width}}  {summary(name)}" for name in names))


def copy_recipe(name: str, dest: Path) -> list[Path]:
    """Write a recipe and the Python files beside it that it names.

    Args:
        name: of the recipe.
        dest: a folder, which is made if it is not there, or the path of the new recipe.

    Returns:
        The files that were written, the recipe first.

    Raises:
        RecipeError: there is no such recipe.
        UserError: one of these files is there already, or cannot be written; then none is.
    """
    recipe = find_recipe(name)
    if recipe.parent.parent != RECIPES:
        raise UserError(f"{name!r} is a file", "the name of a recipe of this package", "copy it as any other file")
    text = recipe.read_text(encoding="utf-8")
    folder, own = (dest.parent, dest.name) if dest.suffix in (".yaml", ".yml") else (dest, recipe.name)
    files = {recipe: folder / own}
    files |= {
        path: folder / path.name for path in recipe.parent.glob("*.py") if re.search(rf"\b{path.stem}\.\w", text)
    }
    for new in files.values():
        if new.exists():
            raise UserError(f"{str(new)!r} exists", "a place for a new file", "name another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old, new in files.items():
            shutil.copyfile(old, new)
    except OSError as error:
        problem = f"{str(folder)!r} cannot be written ({error.strerror})"
        raise UserError(problem, "a folder", "name another") from error
    return list(files.values())
