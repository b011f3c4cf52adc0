"""Steps of the paper's size alone and beside a busy neighbour, by all threads and by one; of other editions, too.

    python -m tests.benchmarks.company [STEP ...] [--editions FOLDER ...] [--turns 8] > company.jsonl

Each edition (this one, and those checked out in the folders) has a process of its own, which builds the step and then
works when it is asked to, for two seconds at least: this edition with all threads, with one, the others with all; and
again. Machines change their speed within minutes, so only what was measured side by side is compared. Prints a line of
JSON for each turn, of seconds, first alone, then with a process that spins; and at the end, on the other stream, a
table of the medians of ratios within turns, to one thread alone, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks import measuring
from tests.benchmarks.steps import OPERATIONS, SIZES


HERE = Path(__file__).resolve().parents[2]
STEPS = (
    "sampling 10,000",
    "rollout rewards",
    "rollout rewards, bfloat16",
    "MLE epoch",
    "D epoch",
    "D epoch, bfloat16",
)


def serve(step: str) -> None:
    """For each line `THREADS SECONDS` of the input one of mean seconds of the whole step, over so long at least."""
    case = OPERATIONS[step](SIZES[0])
    print("ready", flush=True)
    for line in sys.stdin:
        threads, least = line.split()
        torch.set_num_threads(int(threads))
        began, calls = time.perf_counter(), []
        while not calls or time.perf_counter() - began < float(least):
            calls.append(measuring.whole_seconds(case.ours))
        print(sum(calls) / len(calls), flush=True)


class Edition:
    """The process that does a step as the edition in `folder` does it: this file is run, what it imports is theirs.

    Waits are as long as that edition's command makes them.
    """

    def __init__(self, folder: Path, step: str):
        commands = (folder / "seqgan_hf").rglob("*.py")
        waits = {"GOMP_SPINCOUNT": "3000"} if any("GOMP_SPINCOUNT" in path.read_text() for path in commands) else {}
        environment = waits | os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, __file__, "--serve", step]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{folder}: the step {step!r} cannot be done there.")

    def seconds(self, threads: int, least: float = 2.0) -> float:
        self.process.stdin.write(f"{threads} {least}\n")
        self.process.stdin.flush()
        return round(float(self.process.stdout.readline()), 4)


def measure(step: str, folders: list[Path], turns: int) -> list[dict]:
    """Turns as they are printed."""
    editions, most, found = {folder.name: Edition(folder, step) for folder in folders}, torch.get_num_threads(), []
    kinds = [(name, most) for name in editions] + [(HERE.name, 1)]

    def turn(neighbour: bool) -> None:
        seconds = {f"{name}, {threads} threads": editions[name].seconds(threads) for name, threads in kinds}
        found.append({"step": step, "neighbour": neighbour} | seconds)
        print(json.dumps(found[-1]), flush=True)

    try:
        for name, threads in kinds:
            editions[name].seconds(threads, least=0.0)  # warms up
        for _ in range(turns):
            turn(False)
        with measuring.busy_neighbour():
            for _ in range(turns):
                turn(True)
    finally:
        for edition in editions.values():
            edition.process.kill()
    return found


def table(turns: list[dict]) -> list[str]:
    """A row for each step: medians [quartiles] of ratios to one thread alone; its median seconds."""
    single = f"{HERE.name}, 1 threads"
    kinds = [key for key in turns[0] if key not in ("step", "neighbour")]
    heads = [f"{kind}{near}" for near in ("", ", neighbour") for kind in kinds if near or kind != single]
    lines = ["| step | one thread, seconds | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for step in dict.fromkeys(turn["step"] for turn in turns):
        alone = [turn for turn in turns if turn["step"] == step and not turn["neighbour"]]
        beside = [turn for turn in turns if turn["step"] == step and turn["neighbour"]]
        seconds = float(np.median([turn[single] for turn in alone]))
        cells = []
        for rows, bases in ((alone, [turn[single] for turn in alone]), (beside, [seconds] * len(beside))):
            for kind in kinds:
                if rows is beside or kind != single:
                    ratios = [turn[kind] / base for turn, base in zip(rows, bases, strict=True)]
                    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
                    cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {step} | {seconds:.3g} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"out of {', '.join(OPERATIONS)}; some by default")
    parser.add_argument("--editions", nargs="*", type=Path, default=[], metavar="FOLDER", help="other checkouts")
    parser.add_argument("--turns", type=int, default=8, help="alone, and as many with the neighbour")
    parser.add_argument("--serve", metavar="STEP", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if unknown := sorted(set(options.steps) - set(OPERATIONS)):
        parser.error(f"step {unknown[0]!r}: expected one of {', '.join(OPERATIONS)}")
    folders = [HERE, *(folder.resolve() for folder in options.editions)]
    turns = [turn for step in options.steps or STEPS for turn in measure(step, folders, options.turns)]
    print("\n".join(table(turns)), file=sys.stderr)


if __name__ == "__main__":
    main()
