"""`seqgan-hf data`: what a corpus holds."""

from __future__ import annotations

import re

from ..data.corpus_report import corpus_report, write_corpus_report
from ..errors import UserError
from .command_parser import CommandParser, unknown_key
from .recipe import load_source


def run(arguments: list[str]) -> None:
    """`(RECIPE | FILE) [--data.key value ...] [--output FOLDER]`."""
    if not arguments:
        raise UserError("no corpus", "a recipe or a file", "for example seqgan-hf data lines.txt")
    description = "Report what a corpus holds."
    parser = CommandParser(prog="seqgan-hf data", description=description)
    parser.add_argument("corpus", help="a recipe (.yaml), or a file of text")
    parser.add_argument("--output", default="corpus", help="folder for the report and the picture (default: corpus)")
    options, overrides = parser.parse_known_args(arguments)
    for option in overrides:
        if option.startswith("--") and not re.match(r"--data(\.|=|$)", option):
            raise unknown_key(option, ["--output", "--data", "--data.NAME"], "the options")
    source = load_source(options.corpus, overrides)
    corpus = source.load()
    write_corpus_report(corpus, source, options.output)
    print(corpus_report(corpus, source))
    print(f"Written to {options.output}: this page (corpus.md), its numbers (corpus.json), the lengths (lengths.png)")
