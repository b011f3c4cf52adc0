"""YAML files that nobody could read to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import RecipeError


MOST_LEVELS, MOST_VALUES = 100, 100_000


def check_structure(path: str) -> None:
    """Refuse a YAML file that refers to itself, or is far deeper or larger than a recipe, once aliases are followed.

    The events of the parser are looked at one by one, since what reads all of it would not end, or run out of stack or
    memory. A file that is missing or no YAML is left to whoever reads it.

    Raises:
        RecipeError: the message names the line.
    """
    opened: list[list[Any]] = []  # the collections around the present place: anchor, and values so far
    sizes: dict[str | None, int] = {}  # values of a collection with an anchor
    try:
        for event in yaml.parse(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            size, line = 1, f"line {event.start_mark.line + 1} of {path!r}"
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append([event.anchor, 0])
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, size = opened.pop()
                sizes[anchor] = size
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor in [anchor for anchor, _ in opened]:
                    problem = f"*{event.anchor} in {line} is part of what it refers to"
                    raise RecipeError(problem, "a value", "write it out")
                size = sizes.get(event.anchor, 1)
            if opened:
                opened[-1][1] += size
                if len(opened) > MOST_LEVELS or opened[-1][1] > MOST_VALUES:
                    found = f"{len(opened)} levels" if len(opened) > MOST_LEVELS else f"{opened[-1][1]:,} values"
                    expected = f"at most {MOST_LEVELS} levels and {MOST_VALUES:,} values in a recipe"
                    raise RecipeError(f"{found} in {line}", expected, "name a recipe")
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
