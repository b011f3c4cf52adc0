"""`seqgan-hf compare`: the last values of several runs as a table, their curves as a picture."""

from __future__ import annotations

from ..evaluation.arguments import split_names
from ..runs.comparison import compare_runs
from .command_parser import CommandParser


def run(arguments: list[str]) -> None:
    """`RUN RUN ... [--metrics NAME ...] [--output FOLDER]`."""
    parser = CommandParser(prog="seqgan-hf compare", description="Compare runs: last values and curves.")
    add = parser.add_argument
    add("runs", nargs="+", help="folders of runs; those that differ in the seed only are one experiment")
    add("--metrics", nargs="+", help="values to compare (default: all that were measured)")
    add("--output", help="folder for the table (Markdown, CSV) and the picture")
    options = parser.parse_args(arguments)
    metrics = options.metrics and split_names(",".join(options.metrics))
    print(compare_runs(options.runs, metrics, options.output))
