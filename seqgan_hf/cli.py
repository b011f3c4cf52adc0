"""The command line. Nothing heavy is imported before a subcommand needs it, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys


COMMANDS = {
    "train": "train a generator against a discriminator: seqgan-hf train RECIPE [--section.key value ...]",
    "generate": "write samples: seqgan-hf generate MODEL [--num_samples N] [--prompt TEXT] ...",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit status (0 done, 1 a user's mistake, 2 a wrong call, 130 interrupted)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"seqgan-hf: got the command {command!r} -> expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return _run(command, rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["usage: seqgan-hf COMMAND ...", "", *lines, "", "seqgan-hf COMMAND --help says more about a command."]
    )


def _run(command: str, arguments: list[str]) -> int:
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours are shown; those for loading and writing small files would tear them up
    from .trainer import Interrupted, TrainingError

    try:
        {"train": _train, "generate": _generate}[command](arguments)
    except (Interrupted, KeyboardInterrupt) as interrupt:
        print(f"seqgan-hf: {interrupt or 'ended at once, without a checkpoint'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, TrainingError) as error:
        if os.environ.get("SEQGAN_HF_TRACEBACK") or not is_users_mistake(error):
            raise
        print(f"seqgan-hf: {error}", file=sys.stderr)
        return 1
    return 0


def is_users_mistake(error: Exception) -> bool:
    """Whether a message was written for the user (got -> expected -> remedy); anything else is a bug of ours."""
    return "->" in str(error)


def _train(arguments: list[str]) -> None:
    if not arguments:
        raise ValueError("got no recipe -> expected the path of one -> for example recipes/oracle/quickstart.yaml")
    from .recipe import build_trainer, load_recipe

    recipe, text = load_recipe(arguments)
    build_trainer(recipe, text).train()


def _generate(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="seqgan-hf generate", description="Write samples of a trained generator.")
    parser.add_argument("model", help="a run's folder, its `generator` folder, or an id on the Hub")
    parser.add_argument("--num_samples", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--prompt", help="text that every sample continues")
    parser.add_argument("--max_new_tokens", type=int, help="longest sample (default: as in training)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 sharper, above 1 flatter (default: 1)")
    parser.add_argument("--top_k", type=int, default=0, help="draw from the k most probable tokens (default: all)")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw from this probability mass (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed writes the same samples")
    parser.add_argument("--output", help="write to this file instead of the terminal")
    options = vars(parser.parse_args(arguments))
    from .generation import generate_texts, load_generator

    output, model = options.pop("output"), options.pop("model")
    texts = generate_texts(load_generator(model), **options)
    if output is None:
        print("\n".join(texts))
        return
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join(texts) + "\n")
