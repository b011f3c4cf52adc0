"""The arguments of a command without a recipe. A wrong call is answered in one line: given, expected, what to do."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from ..errors import RecipeError
from . import COMMANDS


TYPES = {"int": "a whole number", "float": "a number"}
MOST_NAMED = 40  # keys that are all listed although a near one is known


class CommandParser(argparse.ArgumentParser):
    """Options have to be written in full; a wrong call raises a `RecipeError`."""

    def __init__(self, **options: Any):
        super().__init__(**options | {"allow_abbrev": False})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known = [each.option_strings[-1] for each in self._actions if each.option_strings]
        for word in args or []:  # first of all, as what is misspelt will seem to be missing
            if word.startswith("--") and (name := word.partition("=")[0]) not in known:
                raise unknown_key(name, known, f"the options of `{self.prog}`")
        options, more = self.parse_known_args(args, namespace)
        if more:
            raise RecipeError(f"one word too many, {more[0]!r}", usage(self.prog), "leave it out")
        return options

    def error(self, message: str) -> NoReturn:
        raise self._mistake(message)

    def _mistake(self, message: str) -> RecipeError:
        """What argparse says of a wrong call, in words that help."""
        about, _, said = message.partition(": ")
        if about == "the following arguments are required":
            name = said.split(", ")[0]
            wanted = next(each for each in self._actions if name in (*each.option_strings, each.metavar, each.dest))
            return RecipeError(f"`{self.prog}` without {name}", wanted.help, f"write {usage(self.prog)}")
        name, more = about.removeprefix("argument "), f"`{self.prog} --help` says more"
        if "ignored explicit argument" in said:
            return RecipeError(f"{name} with a value", "none", f"write `{name}`")
        if "expected" in said:
            return RecipeError(f"{name} without a value", "one", f"write `{name} VALUE`")
        if choice := re.match(r"invalid choice: (.*) \(choose from (.*)\)", said):
            problem = f"{name} {choice[1]}" if name.startswith("-") else f"{choice[1]} as {name}"
            return RecipeError(problem, f"one of {choice[2].replace(chr(39), '')}", more)
        if value := re.match(r"invalid (\w+) value: '(.*)'", said):
            return RecipeError(f"{name} {value[2]}", TYPES.get(value[1], value[1]), more)
        return RecipeError(message, None, more)


def usage(prog: str) -> str:
    """How a command is written: `seqgan-hf demo RUN [RUN] [--port N]`."""
    return f"`{COMMANDS[prog.split()[1]].partition(': ')[2] or prog}`"


def unknown_key(key: str, valid: Iterable[str], place: str) -> RecipeError:
    """The error for a key that does not exist there, with those that do and those that may be meant."""
    valid = list(valid)
    near = [name for name in valid if name.startswith(key)][:4] or difflib.get_close_matches(key, valid, n=1)
    near += [name for name in valid if len(key) > 3 and key in name and name not in near][:4]
    fix = f"did you mean {' or '.join(map(repr, near))}?" if near else "use one of these"
    expected = f"one of {len(valid)} names" if near and len(valid) > MOST_NAMED else f"one of {', '.join(valid)}"
    return RecipeError(f"unknown key {key!r} in {place}", expected, fix)
