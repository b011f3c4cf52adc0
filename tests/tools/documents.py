"""The snippets of the documents: what is shown as code, found where Markdown says that it is."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt


ROOT = Path(__file__).parents[2]
SHELL = {"bash", "console", "sh", "shell"}
# What commands begin with; an indented block without any of these shows text.
PROGRAMS = {
    "seqgan-hf",
    "python",
    "python3",
    "pip",
    "make",
    "pytest",
    "torchrun",
    "accelerate",
    "hf",
    "cat",
    "head",
    "wc",
}


class Snippet(NamedTuple):
    """A block of code.

    Attributes:
        page: its path in the repository.
        line: the first one, counted from 1.
        language: as the fence says; empty for an indented block.
        text: of the block.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def snippets() -> list[Snippet]:
    """Those of the README and of all pages."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
            if token.type in ("fence", "code_block") and not token.info.startswith("{"):
                name = page.relative_to(ROOT).as_posix()
                found.append(Snippet(name, token.map[0] + 1, token.info.strip(), token.content))
    return found


IN_THE_RECIPE = "# in the recipe\n"  # ends the Python of a block


def recipe_pieces() -> list[Snippet]:
    """The snippets that show a part of a recipe, or all of it."""
    return [each for each in snippets() if each.language == "yaml" or IN_THE_RECIPE in each.text]


def write_modules(folder: Path) -> None:
    """The modules of a reader that the documents show."""
    for snippet in snippets():
        if named := re.match(r"# (\w+\.py)\b", snippet.text):
            (folder / named[1]).write_text(snippet.text.partition(IN_THE_RECIPE)[0])
    (source,) = (each.text for each in snippets() if "class Countdown(DataSource)" in each.text)
    (folder / "my_module.py").write_text(source)


class Command(NamedTuple):
    """A simple command of a shell.

    Attributes:
        where: its snippet.
        variables: set in front of it, by name.
        words: the program and its arguments.
        folder: that its block has gone to before it.
    """

    where: str
    variables: dict[str, str]
    words: list[str]
    folder: str = ""

    @property
    def program(self) -> str:
        return Path(self.words[0]).name


@cache
def shell_blocks() -> list[Snippet]:
    """The snippets that are read by a shell."""
    return [each for each in snippets() if each.language in SHELL or (not each.language and _is_shell(each.text))]


def commands() -> list[Command]:
    """All commands of all shell blocks, and of the heads of recipes."""
    found = [command for block in shell_blocks() for command in commands_of(str(block), block.text)]
    for recipe in sorted((ROOT / "recipes").rglob("*.yaml")):
        head = re.match(r"(#.*\n)*", recipe.read_text(encoding="utf-8"))[0]
        lines = _lines(re.sub(r"^# ?", "", head, flags=re.MULTILINE))
        name = recipe.relative_to(ROOT).as_posix()
        for line in lines:
            if re.match(r"(\w+=\S+ )*seqgan-hf [a-z]", line):
                found += commands_of(name, line)
    return found


def commands_of(where: str, text: str) -> list[Command]:
    """The commands of a text of shell, in lists, pipes and substitutions, too; `cd` tells where the next ones are."""
    found, folder = [], ""
    for line in _lines(text):
        for words in _simple_commands(line):
            command = _command(where, words, folder)
            if command.words[:1] == ["cd"]:
                folder = os.path.join(folder, command.words[1])
            elif command.words:
                found.append(command)
    return found


def method_page(objective: str) -> Path:
    """The page of an objective; most have one of their own name."""
    shared = {"ConstantReward": "controls", "RandomReward": "controls", "LeakPretraining": "leakgan"}
    return ROOT / "docs" / "methods" / f"{shared.get(objective, objective.lower())}.md"


def section(page: Path, anchor: str) -> str:
    """What stands on a page under the heading with this anchor, as far as the next one."""
    parts = re.findall(r"^#+ ([^\n]*)\n(.*?)(?=^#+ |\Z)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(text for heading, text in parts if heading.lower().replace(" ", "-") == anchor)


def metrics_explained(objective: str) -> tuple[set[str], set[str]]:
    """The names of what is logged on the objective's page; and in the sections that this part of the page links."""
    page = method_page(objective)
    own = section(page, "what-is-logged")
    links = re.findall(r"\]\(([\w./-]+\.md)#([\w-]+)\)", own)
    linked = [section((page.parent / path).resolve(), anchor) for path, anchor in links]
    first, second = (set(re.findall(r"`([a-z_]+)`", text)) for text in (own, "\n".join(linked)))
    return first, second


def _lines(text: str) -> list[str]:
    """Commands, each on one line, without prompts and remarks."""
    lines = (line.strip().removeprefix("$ ") for line in re.sub(r"\\\n\s*", " ", text).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _simple_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for token in [*lexer, ";"]:
        if set(token) <= set("<>"):
            redirected = True
        elif set(token) <= set("();|&"):
            if words:
                yield words
            words = []
        elif redirected:
            redirected = False
        else:
            for inner in re.findall(r"\$\((.*?)\)", token):
                yield from _simple_commands(inner)
            words.append(token)


def _command(where: str, words: list[str], folder: str) -> Command:
    words, variables = list(words), {}
    while words and (name := words[0].partition("=")[0]).isidentifier() and "=" in words[0]:
        variables[name] = words.pop(0).partition("=")[2]
    if words[:2] == ["taskset", "-c"]:  # on which cores another command runs
        del words[:3]
    return Command(where, variables, words, folder)


def _is_shell(text: str) -> bool:
    """Whether a line of it is a command."""
    for line in _lines(text):
        try:
            if any(command.program in PROGRAMS for command in commands_of("", line)):
                return True
        except (ValueError, IndexError):  # text with a quotation mark, or no word of a command
            continue
    return False
