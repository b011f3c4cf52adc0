"""`seqgan-hf completion`: what a shell needs to complete commands, options and names of recipes."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout, suppress
from importlib import import_module

from . import COMMANDS
from .command_parser import CommandParser
from .recipe_names import recipe_names


SHELLS = ("bash", "zsh")
SCRIPT = """\
_seqgan_hf() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words options most=1
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands!r} options="--help --version"
    elif [[ "$COMP_CWORD" -gt "$most" || "${{COMP_WORDS[COMP_CWORD-1]}}" == -* ]]; then
        words=""
    fi
    case "$current" in
        -*) words=$options ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _seqgan_hf seqgan-hf
"""


def run(arguments: list[str]) -> None:
    """`SHELL`."""
    description = "Print a script for completion: commands, options, names of recipes; files elsewhere."
    parser = CommandParser(prog="seqgan-hf completion", description=description)
    parser.add_argument("shell", choices=SHELLS, help='bash or zsh, for example: eval "$(seqgan-hf completion bash)"')
    shell = parser.parse_args(arguments).shell
    print(("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script())


def script() -> str:
    """For bash, and for zsh once it has loaded `bashcompinit`."""
    names, accelerate = recipe_names(), "accelerate/"
    train = [name for name in names if not name.startswith(("evaluation/", accelerate))]
    evaluate = [name for name in names if name.startswith("evaluation/")]
    # words that are no options, and up to which place in the line they are offered
    words = {"train": (train, 2), "data": (train, 2), "evaluate": (evaluate, 2), "recipes": (["copy", *names], 3)}
    words["benchmark"] = (train, 99)
    words["completion"] = (list(SHELLS), 2)
    cases = []
    for command in COMMANDS:
        given, most = words.get(command, ([], 2))
        cases.append(
            f"        {command}) words='{' '.join(given)}' options='{' '.join(options_of(command))}' most={most} ;;"
        )
    return SCRIPT.format(cases="\n".join(cases), commands=" ".join(COMMANDS))


def options_of(command: str) -> list[str]:
    """The options that a command's help begins a line with."""
    shown = io.StringIO()
    with redirect_stdout(shown), suppress(SystemExit):
        import_module(f".{command}", __package__).run(["--help"])
    return sorted(set(re.findall(r"^\s+(?:-\w, )?(--[\w.]+)", shown.getvalue(), re.MULTILINE)))
