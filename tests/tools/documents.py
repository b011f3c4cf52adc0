"""The snippets of the documents: what is shown as code, found where Markdown says that it is."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt


ROOT = Path(__file__).parents[2]
SHELL = {"bash", "console", "sh", "shell"}
# What a line of a shell begins with; other indented blocks show text.
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


class Command(NamedTuple):
    """A line of a shell.

    Attributes:
        where: its snippet.
        variables: set in front of it, by name.
        words: the program and its arguments.
    """

    where: str
    variables: dict[str, str]
    words: list[str]


def commands() -> list[Command]:
    """All commands of all shell blocks, and of the heads of recipes."""
    found = []
    for snippet in snippets():
        if snippet.language in SHELL or (not snippet.language and _is_shell(snippet.text)):
            found += [_command(str(snippet), line) for line in _lines(snippet.text)]
    for recipe in sorted((ROOT / "recipes").rglob("*.yaml")):
        head = re.match(r"(#.*\n)*", recipe.read_text(encoding="utf-8"))[0]
        lines = _lines(re.sub(r"^# ?", "", head, flags=re.MULTILINE))
        name = recipe.relative_to(ROOT).as_posix()
        found += [_command(name, line) for line in lines if re.match(r"(\w+=\S+ )*seqgan-hf [a-z]", line)]
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


def _command(where: str, line: str) -> Command:
    words, variables = shlex.split(line, comments=True), {}
    while (name := words[0].partition("=")[0]).isidentifier() and "=" in words[0]:
        variables[name] = words.pop(0).partition("=")[2]
    return Command(where, variables, words)


def _is_shell(text: str) -> bool:
    """Whether the first line that is no remark is a command."""
    lines = _lines(text)
    try:
        return bool(lines) and _program(_command("", lines[0])) in PROGRAMS
    except (ValueError, IndexError):  # text with a quotation mark
        return False


def _program(command: Command) -> str:
    return Path(command.words[0]).name
