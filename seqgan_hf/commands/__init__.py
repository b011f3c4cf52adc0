"""The command line, one file a subcommand.

Nothing heavy is imported before a subcommand needs it, so that `seqgan-hf --help` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TextIO

from .. import __version__
from ..errors import Interrupted, UserError, chain


# Each has a module of its name in this folder, with a function `run`.
COMMANDS = {
    "train": "train a generator against a discriminator: seqgan-hf train RECIPE [--section.key value ...]",
    "generate": "write samples: seqgan-hf generate MODEL [--num_samples N] [--prompt TEXT] ...",
    "evaluate": "measure quality and diversity: seqgan-hf evaluate [RECIPE] [--samples FILE] [--model MODEL ...]",
    "benchmark": "many recipes under one budget: seqgan-hf benchmark RECIPE ... --budget 600s --output FOLDER ...",
    "compare": "a table and the curves of several runs: seqgan-hf compare RUN RUN ... [--output FOLDER]",
    "curves": "learning curves beside published points: seqgan-hf curves RUN ... --output FILE.png [--points FILE]",
    "data": "what a corpus holds: seqgan-hf data (RECIPE | FILE) [--data.key value ...] [--output FOLDER]",
    "demo": "a page in the browser that writes and judges samples: seqgan-hf demo RUN [RUN] [--port N]",
    "push": "share a run on the Hugging Face Hub: seqgan-hf push RUN [REPO_ID] [--space SPACE_ID] [--private] ...",
    "recipes": "what comes with the package: seqgan-hf recipes [copy NAME [DEST]]",
    "completion": "completion of commands, options and recipes for a shell: seqgan-hf completion (bash | zsh)",
    "env": "versions and devices, for a bug report",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        The exit status: 0 done, 1 an error, 2 no such command, 130 interrupted, 141 the reader of the output has left
        (`| head`).
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
    except (AttributeError, OSError, ValueError):  # this system has no poll, or there is no file behind the stream
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in outlet.poll(0))


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: seqgan-hf COMMAND ...\n")
        for name, text in COMMANDS.items():
            print(f"  {name:{max(map(len, COMMANDS))}}  {text}")
        print("\nseqgan-hf COMMAND --help says more about a command, seqgan-hf --version which version this is.")
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        print(f"seqgan-hf {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, [*COMMANDS, "--version", "--help"], n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        return _complain(f"unknown command {command!r}: expected one of {', '.join(COMMANDS)}.{meant}", 2)
    return _run(command, rest)


def _run(command: str, arguments: list[str]) -> int:
    try:
        if command != "recipes":  # which reads nothing but files of the package
            _share_the_machine()
            _quieten()
        import_module(f".{command}", __name__).run(arguments)
    except (Interrupted, KeyboardInterrupt) as interrupt:
        first = os.environ.get("LOCAL_RANK", "0") == "0"  # all processes would write the same line
        message = str(interrupt) or ("interrupted; no checkpoint was saved" if command == "train" else "interrupted")
        return _complain(message, 130) if first else 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and (_nobody_reads(sys.stdout) or _nobody_reads(sys.stderr)):
            raise
        if os.environ.get("SEQGAN_HF_TRACEBACK"):
            raise
        return _complain(for_the_user(error), 1)
    return 0


def _share_the_machine() -> None:
    """Settings of torch's threads that it reads when it is loaded; what the user has set stays.

    At the end of every operation threads wait for each other. They spin for a while, which is the fastest where each
    has a core of its own, and ruinous where the one that is waited for needs this very core: so they give up early.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:  # which the other would overrule
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if cores := cores_of_container():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def cores_of_container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Whole cores that a container may use, at least 1; `None` where they are not limited to fewer than it sees.

    Torch counts the cores that it sees, which are those of the machine. The quota may be that of the process's own
    group (a job of Slurm, a service of systemd) or of one around it, up to the root, which is all a container sees.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    inner = {"": "", "cpu": ""}  # where below the root its own groups are, by kind: of version 2 and 1 of cgroups
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            inner |= {kind: path.strip("/") for kind in kinds.split(",") if kind in inner}
    quotas = [_quota(folder, ["cpu.max"]) for folder in _around(root, inner[""])]
    files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    quotas += [_quota(folder, files) for folder in _around(root / "cpu", inner["cpu"])]
    cores = min((quota for quota in quotas if quota is not None), default=seen)
    return cores if cores < seen else None


def _around(root: Path, inner: str) -> list[Path]:
    """The folder of a group and of all around it."""
    return [root / inner, *(root / inner).parents][: len(Path(inner).parts) + 1]


def _quota(folder: Path, files: list[str]) -> int | None:
    try:
        quota, period = " ".join((folder / file).read_text() for file in files).split()
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _quieten() -> None:
    """Show our messages and progress bars; those for reading and writing small files would tear them up."""
    import datasets
    from transformers.utils import logging

    from ..runs.console import show_log

    show_log()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _complain(message: str, status: int) -> int:
    """Write one line to stderr; of several processes, each says which one it is, unless all were interrupted."""
    rank = os.environ.get("RANK") if status == 1 and os.environ.get("WORLD_SIZE", "1") != "1" else None
    print(f"seqgan-hf{'' if rank is None else f' (process {rank})'}: {message}", file=sys.stderr)
    return status


def for_the_user(error: BaseException) -> str:
    """The line of a `UserError`, wherever in the chain of causes it is; of anything else, that it was not expected.

    Libraries wrap an error in one of their own when a value is refused while they build an object.
    """
    for cause in chain(error):
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
    words = " ".join(str(error).split()) or "no message"
    return f"Unexpected {type(error).__name__}: {words}. Please report it; SEQGAN_HF_TRACEBACK=1 shows where."
