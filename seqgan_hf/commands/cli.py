"""The command line. Nothing heavy is imported before a subcommand needs it, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from ..errors import UserError


COMMANDS = {
    "train": "train a generator against a discriminator: seqgan-hf train RECIPE [--section.key value ...]",
    "generate": "write samples: seqgan-hf generate MODEL [--num_samples N] [--prompt TEXT] ...",
    "evaluate": "measure quality and diversity: seqgan-hf evaluate [RECIPE] [--samples FILE] [--model MODEL ...]",
    "compare": "a table and the curves of several runs: seqgan-hf compare RUN RUN ... [--output FOLDER]",
    "curves": "learning curves beside published points: seqgan-hf curves RUN ... --output FILE.png [--points FILE]",
    "data": "what a corpus holds: seqgan-hf data (RECIPE | FILE) [--data.key value ...] [--output FOLDER]",
    "push": "share a run on the Hugging Face Hub: seqgan-hf push RUN REPO_ID [--private] [--license ID] ...",
    "env": "versions and devices, for a report of a bug",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        The exit status: 0 done, 1 a user's mistake, 2 a wrong call, 130 interrupted, 141 nobody reads on (`| head`).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()  # not at the interpreter's end, where an error can no longer be caught
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if _nobody_reads(stream)]
        if not unread:
            raise
        for stream in unread:  # what is left in its buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141  # 128 + SIGPIPE, which would have ended a program that is not in Python


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the stream is a pipe that was closed at its other end."""
    import select

    try:
        outlet = select.poll()
        outlet.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # no such thing as poll; no file behind the stream
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in outlet.poll(0))


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"seqgan-hf: unknown command {command!r}: expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return _run(command, rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["usage: seqgan-hf COMMAND ...", "", *lines, "", "seqgan-hf COMMAND --help says more about a command."]
    )


def _run(command: str, arguments: list[str]) -> int:
    import datasets
    from transformers.utils import logging

    # ours are shown; those for reading and writing small files would tear them up
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    from ..training.trainer import Interrupted

    handlers = {"train": _train, "generate": _generate, "evaluate": _evaluate, "compare": _compare, "curves": _curves}
    try:
        (handlers | {"data": _data, "push": _push, "env": _env})[command](arguments)
    except (Interrupted, KeyboardInterrupt) as interrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # all processes say the same
            print(f"seqgan-hf: {str(interrupt) or 'ended at once, without a checkpoint'}", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and (_nobody_reads(sys.stdout) or _nobody_reads(sys.stderr)):
            raise
        if os.environ.get("SEQGAN_HF_TRACEBACK"):
            raise
        process = f" (process {os.environ['RANK']})" if "RANK" in os.environ and _launched() else ""
        print(f"seqgan-hf{process}: {for_the_user(error)}", file=sys.stderr)
        return 1
    return 0


def for_the_user(error: BaseException) -> str:
    """The line of a `UserError`, wherever in the chain of causes it is; of anything else, that it was not expected.

    Libraries wrap an error in one of their own when a value is refused while they build an object.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
        cause = cause.__cause__ or cause.__context__
    words = " ".join(str(error).split()) or "no message"
    return f"Unexpected {type(error).__name__}: {words}. Please report it; SEQGAN_HF_TRACEBACK=1 shows where."


# Variables in which launchers tell a process its number.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def _launched() -> bool:
    """Whether several processes were asked for."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _train(arguments: list[str]) -> None:
    if _launched() and not any(name in os.environ for name in RANKS):
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} and no RANK in the environment",
            "both, as launchers set them",
            "start with `torchrun --nproc_per_node N -m seqgan_hf train RECIPE`, or unset WORLD_SIZE",
        )
    if not arguments:
        raise UserError("no recipe", "the path of one", "for example recipes/oracle/quickstart.yaml")
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
    import torch

    from ..evaluation.loading import load_generator
    from .generation import generate_texts

    output, model = options.pop("output"), options.pop("model")
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:  # before any work is done
        file = sys.stdout if output is None else open(output, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output!r} ({error.strerror})", "a file to write", "change it") from error
    texts = generate_texts(load_generator(model, device), **options)
    print("\n".join(texts), file=file)
    if output is not None:
        file.close()


def _evaluate(arguments: list[str]) -> None:
    from ..evaluation.run import run_evaluation
    from .recipe import load_evaluation

    settings = load_evaluation(arguments)
    run_evaluation(settings)
    report = Path(settings.output) / "report.md"
    print(report.read_text(encoding="utf-8") if report.exists() else f"written to {settings.output}")


def _compare(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="seqgan-hf compare", description="Compare runs: last values and curves.")
    parser.add_argument(
        "runs", nargs="+", help="folders of runs; those that differ in the seed only are one experiment"
    )
    parser.add_argument("--metrics", nargs="+", help="values to compare (default: all that were measured)")
    parser.add_argument("--output", help="folder for the table (Markdown, CSV) and the picture")
    options = parser.parse_args(arguments)
    from ..runs.comparison import compare_runs

    print(compare_runs(options.runs, options.metrics, options.output))


def _curves(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="seqgan-hf curves", description="Draw learning curves of several runs, published points beside them."
    )
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument(
        "--output", required=True, help="the picture: .png, .pdf or .svg; the drawn numbers lie beside it as .csv"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        help="one a run; runs of one label are drawn as their mean (default: names of folders, one for seeds of one "
        "recipe)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        help="a panel each (default: nll_oracle, nll_test, jsd_oracle where measured)",
    )
    parser.add_argument("--points", help="published values, a CSV file: round,metric,value[,label]")
    parser.add_argument(
        "--axis",
        choices=("rounds", "seconds", "epochs"),
        default="rounds",
        help="adversarial rounds; wall-clock time since the shared pretraining; epochs of pretraining, then rounds "
        "(default: rounds)",
    )
    options = vars(parser.parse_args(arguments))
    from ..runs.curves import write_curves

    print(write_curves(options.pop("runs"), **options))


def _data(arguments: list[str]) -> None:
    if not arguments:
        raise UserError("no corpus", "a recipe or a file", "for example seqgan-hf data lines.txt")
    parser = argparse.ArgumentParser(
        prog="seqgan-hf data", allow_abbrev=False, description="Report what a corpus holds."
    )
    parser.add_argument("corpus", help="a recipe (.yaml), or a file of text")
    parser.add_argument("--output", default="corpus", help="folder for the report and the picture (default: corpus)")
    options, overrides = parser.parse_known_args(arguments)
    from ..data import corpus_report, write_corpus_report
    from .recipe import load_source

    source = load_source(options.corpus, overrides)
    corpus = source.load()
    write_corpus_report(corpus, source, options.output)
    print(corpus_report(corpus, source))


def _push(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="seqgan-hf push", description="Share a finished run on the Hub.")
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("repo_id", help="owner/name, or a name in your own account")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument(
        "--discriminator",
        choices=("subfolder", "repository", "none"),
        default="subfolder",
        help="where it goes: beside the generator, into a repository of its own, nowhere (default: subfolder)",
    )
    parser.add_argument("--license", help="as the Hub names it: apache-2.0, mit, cc-by-4.0, ...")
    options = vars(parser.parse_args(arguments))
    from ..runs.folder import RunFolder
    from ..runs.hub import push_run

    print(push_run(RunFolder(Path(options.pop("run"))), **options))


# What a report of a bug names: what must be installed, then what may be.
PACKAGES = (
    "torch transformers datasets tokenizers accelerate evaluate jsonargparse huggingface_hub safetensors numpy "
    "matplotlib tensorboard wandb trackio peft sentence-transformers mauve-text nltk"
).split()
# Variables that change a run. None of them can hold a secret.
VARIABLES = (
    "OMP_NUM_THREADS CUDA_VISIBLE_DEVICES WORLD_SIZE RANK LOCAL_RANK MASTER_PORT ACCELERATE_USE_CPU "
    "ACCELERATE_MIXED_PRECISION HF_HUB_OFFLINE TOKENIZERS_PARALLELISM PYTORCH_ALLOC_CONF"
).split()


def _backends() -> list[str]:
    from torch import distributed

    if not distributed.is_available():
        return []
    return [name for name in ("gloo", "nccl", "mpi") if getattr(distributed, f"is_{name}_available")()]


def _env(arguments: list[str]) -> None:
    import platform
    from importlib import metadata

    import torch

    import seqgan_hf

    print(f"seqgan-hf {seqgan_hf.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # the last ones are options
            continue
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"CUDA of torch: {torch.version.cuda or 'none'}; distributed: {', '.join(_backends()) or 'none'}")
    chosen = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    print(f"environment: {', '.join(f'{name}={value}' for name, value in chosen.items()) or 'nothing of note'}")
    print(f"GPUs: {', '.join(devices) or 'none'}; CPU cores: {os.cpu_count()}; threads: {torch.get_num_threads()}")
