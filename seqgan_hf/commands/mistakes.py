"""Mistakes in recipes and command lines, in words that name the setting, what was given, and what is allowed."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace

from ..errors import RecipeError, UserError, chain, import_by_path
from .command_parser import unknown_key
from .yaml_structure import check_structure


# What jsonargparse says of unknown keys.
UNKNOWN_KEY = re.compile(
    r"(?:Group '(?P<section>[\w.]+)' does not accept option|Option|unrecognized arguments:) '?-*(?P<key>[\w.]+)"
)
STRAY = re.compile(r"unrecognized arguments: (?!--)(?P<word>\S+)")
# Types as Python names them, and in words; the second of a pair is for several.
WORDS = {
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "bool": ("true or false", "true and false"),
    "str": ("a text", "texts"),
    "list": ("a list", "lists"),
    "dict": ("settings by name", "settings by name"),
    "NoneType": ("null", "nulls"),
}
LONGEST_VALUE = 60  # characters of a value that are shown


# --- Recipes ---------------------------------------------------------------------------------------------------------


def read_recipe(path: str, command: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Args:
        path: of the file.
        command: that it is given to, for the advice.

    Raises:
        RecipeError: it is no file, or holds something else than settings by name.
    """
    expected = f"a recipe of `seqgan-hf {command}` (.yaml)"
    if Path(path).is_dir():
        raise RecipeError(f"{path!r} is a folder", expected, _instead(path, command))
    check_structure(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        settings, reason = None, getattr(error, "strerror", None) or str(error)
        if Path(path).suffix in (".yaml", ".yml"):
            raise RecipeError(f"recipe {path!r} is no YAML ({_line(reason)})", expected, "correct it") from error
    if isinstance(settings, dict):
        return settings
    is_empty = not Path(path).stat().st_size or settings is None and Path(path).suffix in (".yaml", ".yml")
    found = "is empty" if is_empty else f"holds {'a list' if isinstance(settings, list) else 'text'}, no settings"
    raise RecipeError(f"{path!r} {found}", expected, _instead(path, command))


def _instead(path: str, command: str) -> str:
    """What someone may have meant who named this file or folder as the recipe."""
    if (Path(path) / "metrics.jsonl").exists() and command == "train":
        return f"name its recipe, {str(Path(path) / 'recipe.yaml')!r}"
    if Path(path).is_dir():
        return f"for a generator: `--model {path}`" if command == "evaluate" else "name a file"
    if Path(path).suffix in (".yaml", ".yml"):
        return "correct it, or name another"
    if command == "evaluate":
        return f"for generated texts: `--samples {path} --references FILE`"
    return f"for a file of texts: `seqgan-hf {command} text/seqgan --data.train_file {path}`"


# --- What the parser says --------------------------------------------------------------------------------------------


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """What a command line says; raises a `RecipeError` for what it must not."""
    try:
        return parser.parse_args(arguments)
    except argparse.ArgumentError as error:
        raise explain(error, parser, arguments) from error


def explain(error: Exception, parser: ArgumentParser, arguments: Iterable[str] = ()) -> RecipeError:
    """The parser's error in words that help: the setting, what was given, and what is allowed there."""
    message = str(error)
    if re.search("expected (at least )?one argument", message) and (option := _without_value(list(arguments))):
        return RecipeError(f"{option} without a value", "one", f"write `{option} VALUE`")
    keys = [*dict.fromkeys(re.findall(r'Parser key "([^"]+)":', message))]  # of the settings, the innermost last
    if required := re.search(r"(?:class_path '([\w.]+)':\s+)?the following arguments are required: (.*)", message):
        names = required[2].split(", ")
        if required[1]:
            problem = f"{required[1].rpartition('.')[2]} without {' and '.join(names)}"
            fix = "set " + " and ".join(f"`--{'.'.join([*keys, name])}`" for name in names)
            return RecipeError(problem, "a value, as it has no default", f"{fix}, or name it in `init_args`")
        problem = f"no {' and no '.join(f'`{name}`' for name in names)}"
        if "config" not in parser.get_defaults():
            return RecipeError(problem, "one", f"`{parser.prog} --help` says more")
        return RecipeError(problem, "a recipe that names it", "give a recipe first: `seqgan-hf recipes` lists some")
    if stray := STRAY.search(message):
        problem = f"{stray['word']!r} is no option"
        return RecipeError(problem, "options such as `--name value`", "put two dashes before the name of a setting")
    unknown = UNKNOWN_KEY.search(message)
    if classes := re.findall(r"class_path '([^']+)':", message):
        name = classes[-1].rpartition(".")[2]
        try:
            kind = import_by_path(classes[-1], "class_path")
        except UserError as missing:
            fix = "check the name, and put its file beside the recipe, or its folder on PYTHONPATH (PYTHONPATH=.)"
            return RecipeError(missing.problem, "a class that can be imported", fix)
        if unknown:
            return unknown_key(unknown["key"].partition(".")[0], settings_of(kind), name)
    if unknown:
        path = ".".join(filter(None, [unknown["section"], unknown["key"]]))
        return _unknown_in_a_section(path, parser.get_defaults())
    return _wrong_value(".".join(keys), message.rpartition(f'"{keys[-1]}":')[2] if keys else message, parser)


def settings_of(kind: Any) -> list[str]:
    """The names of a class's settings, with those that it passes on to its bases."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind)
    return list(vars(parser.get_defaults()))


def _without_value(arguments: list[str]) -> str | None:
    """The option that ends the command line, or is followed by another one."""
    pairs = zip(arguments, [*arguments[1:], "--"], strict=True)
    lonely = (one for one, following in pairs if one.startswith("--") and "=" not in one and following[:2] == "--")
    return next(lonely, None)


def _unknown_in_a_section(path: str, defaults: Namespace) -> RecipeError:
    """The first name of a path that does not exist: `lorra` of `generator.lorra.r`."""
    node, section, top = defaults, "", "the recipe" if "config" in defaults else "the options"
    for name in path.split("."):
        keys = [key for key in vars(node) if key != "config" or section]
        if name not in keys:
            return unknown_key(name, keys, section or top)
        node, section = node[name], f"{section}.{name}".strip(".")
        if not isinstance(node, Namespace):
            break
    return RecipeError(f"{path} names a setting of {section}, which has none", "a value", f"set {section}")


def _wrong_value(place: str, said: str, parser: ArgumentParser) -> RecipeError:
    """A value of a wrong kind, from what the parser says of the innermost setting."""
    given = re.search(r"(?:Got value|Given value): (.*)", said)
    value = "" if given is None else given[1]
    types = re.search(r"Subtypes: \[(.*)\]", said) or re.search(r"Expected an? (.*?)(?:\. Got value|$)", said)
    section = re.search(r"Unable to load config ['\"](.*)['\"]", said)
    if section and isinstance(node := parser.get_defaults().get(place), Namespace):
        return RecipeError(f"{place}={_short(section[1])}", _by_name(vars(node)))
    if types is None:
        shown = "--print_config` shows all settings" if "config" in parser.get_defaults() else "--help` says more"
        hint = f"`{parser.prog} {shown}"
        return RecipeError(f"{place}: {_line(said)}" if place else _line(said), None, hint)
    if (below := re.match(r"NestedArg\(key='(.*?)', val='?(.*?)'?\)$", value)) and "." not in types[1]:
        problem = f"{place}.{below[1]}={_short(below[2])}"
        return RecipeError(problem, f"nothing below {place}, which is {in_words(types[1])}", f"set {place}")
    if classes := [name for name in re.findall(r"<class '([\w.]+)'>", types[1]) if "." in name]:
        return _wrong_class(place, said, value, import_by_path(classes[0], place))
    return RecipeError(f"{place}={_short(value)}", in_words(types[1]))


def _wrong_class(place: str, said: str, value: str, base: Any) -> RecipeError:
    """A value that is no class, or none of those that belong there."""
    if not inspect.isabstract(base):
        return RecipeError(f"{place}={_short(value)}", _by_name(inspect.signature(base).parameters))
    names = [kind.__name__ for kind in _concrete(base) if kind.__module__.startswith("seqgan_hf.")]
    expected = f"one of {', '.join(dict.fromkeys(names))}, or the dotted path of a class of your own"
    try:
        beside = [name for name in ast.literal_eval(value) if name not in ("class_path", "init_args")]
    except (ValueError, TypeError, SyntaxError):
        beside = []
    if "class_path" in value and beside and "Not a valid subclass" in said:
        problem = f"{place}.{beside[0]} stands beside class_path"
        return RecipeError(problem, "class_path and init_args only", f"put {beside[0]} into init_args")
    named = re.search(r"'class_path': '([^']*)'", value)
    if "is abstract" in said or "NestedArg" in value:
        return RecipeError(f"{place} without a class", expected, f"give a recipe, or set {place}")
    return RecipeError(f"{place}={_short(named[1] if named else value)}", expected, "check the spelling")


def _concrete(base: Any) -> Iterator[type]:
    for kind in base.__subclasses__():
        if not inspect.isabstract(kind):
            yield kind
        yield from _concrete(kind)


def _by_name(names: Iterable[str]) -> str:
    return f"settings by name ({', '.join(names)})"


def in_words(types: str) -> str:
    """What types allow, as Python writes them.

    >>> in_words("list[str], <class 'NoneType'>")
    'a list of texts, or null'
    """
    found = []
    for literal, container, item, plain in re.findall(
        r"Literal\[([^\]]*)\]|\b(list|dict)\[(\w+)[^\]]*\]|(?:<class ')?\b(\w+)\b(?:'>)?", types.replace("typing.", "")
    ):
        if literal:
            found.append("one of " + literal.replace("'", ""))
        elif container == "list":
            found.append(f"a list of {WORDS.get(item, ('', item))[1]}")
        elif (name := container or plain) != "class":
            found.append(WORDS.get(name, (name, ""))[0])
    # in one order, since Python remembers whichever order of a union it saw first
    return ", or ".join(sorted(set(found), key=lambda words: (words == "null", len(words), words)))


def _short(value: str) -> str:
    line = _line(value)
    return line if len(line) <= LONGEST_VALUE else f"{line[:LONGEST_VALUE]}..."


def _line(text: str) -> str:
    return " ".join(text.split())


def refusal(error: Exception) -> RecipeError | None:
    """What a class said that refused its settings, without what the parser wraps around it; `None` if none did."""
    named = re.search(r"class_path='([^']*)'", str(error))
    causes = list(chain(error))
    if named is None or any(isinstance(each, UserError) for each in causes):
        return None
    return RecipeError(f"{named[1]} refuses its settings ({_line(str(causes[-1]))})", None, "correct them")


# --- What the parser lets through ------------------------------------------------------------------------------------


def check_nulls(values: Mapping[str, Any], kind: Any, place: str) -> None:
    """Raise a `RecipeError` for a setting that is null, which the parser takes for all types, but needs a value.

    Args:
        values: settings by name.
        kind: the class whose settings these are; `None` for nodes that name a class of their own.
        place: where they stand in the recipe.
    """
    try:
        parameters = {} if kind is None else inspect.signature(kind, eval_str=True).parameters
    except (NameError, AttributeError, TypeError):  # names that only a type checker knows
        return
    for name, value in values.items():
        where = f"{place}.{name}" if place else name
        if isinstance(value, Namespace) and "class_path" in value:
            check_nulls(vars(value.get("init_args") or Namespace()), import_by_path(value.class_path, where), where)
        elif value is None and name in parameters and parameters[name].default is not None:
            hint = parameters[name].annotation
            if hint not in (Any, inspect.Parameter.empty) and NoneType not in get_args(hint):
                expected = in_words(hint.__name__ if isinstance(hint, type) else str(hint))
                raise RecipeError(f"{where}=null", expected, "give it a value, or leave it out for the default")
