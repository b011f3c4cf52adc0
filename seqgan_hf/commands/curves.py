"""`seqgan-hf curves`: learning curves of several runs, published points beside them."""

from __future__ import annotations

from ..evaluation.arguments import split_names
from ..runs.curves import write_curves
from .command_parser import CommandParser


LABELS = (
    "one for each run; runs with the same label are drawn as their mean (default: names of folders, one for seeds of "
    "one recipe)"
)
AXIS = (
    "adversarial rounds; wall-clock time since the shared pretraining; epochs of pretraining, then rounds (default: "
    "rounds)"
)


def run(arguments: list[str]) -> None:
    """`RUN ... --output FILE`, and the other arguments of `write_curves`."""
    description = "Draw learning curves of several runs, published points beside them."
    parser = CommandParser(prog="seqgan-hf curves", description=description)
    add = parser.add_argument
    add("runs", nargs="+", help="folders of runs")
    add("--output", required=True, help="the picture: .png, .pdf or .svg; the drawn numbers lie beside it as .csv")
    add("--labels", nargs="+", help=LABELS)
    add("--metrics", nargs="+", help="a panel each (default: nll_oracle, nll_test, jsd_oracle where measured)")
    add("--points", help="published values, a CSV file: round,metric,value[,label]")
    add("--axis", choices=("rounds", "seconds", "epochs"), default="rounds", help=AXIS)
    options = vars(parser.parse_args(arguments))
    options["metrics"] = options["metrics"] and split_names(",".join(options["metrics"]))
    print(write_curves(options.pop("runs"), **options))
