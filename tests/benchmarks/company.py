"""Steps of the paper's size alone and beside a busy neighbour, by all threads and by one; of other editions, too.

    python -m tests.benchmarks.company [STEP ...] [--editions FOLDER ...] [--turns 8] > company.jsonl
    python -m tests.benchmarks.company --table company.jsonl

Each edition (this one, and those checked out in the folders) has a process of its own, which builds the step and then
works when it is asked to, for two seconds at least: all editions with all threads, this one with one; and again.
Machines change their speed within minutes, so only what was measured side by side is compared. Prints a line of JSON
for each turn, of seconds, first alone, then beside a process that spins. The table has medians [quartiles] of the
ratios to one thread in the same turn, so beside the neighbour to one thread beside the neighbour; and of the ratios of
medians, how many times as long a step takes there.
"""

from __future__ import annotations

import argparse
import json
import math
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


def measure(step: str, folders: dict[str, Path], turns: int) -> None:
    """Prints the turns of editions by their names, of which the first is this one."""
    editions, most = {name: Edition(folder, step) for name, folder in folders.items()}, torch.get_num_threads()
    kinds = [(name, most) for name in editions] + [(next(iter(editions)), 1)]

    def turn(neighbour: bool) -> None:
        seconds = {f"{name}, {threads} threads": editions[name].seconds(threads) for name, threads in kinds}
        print(json.dumps({"step": step, "neighbour": neighbour} | seconds), flush=True)

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


def table(turns: list[dict]) -> list[str]:
    """Three rows for each step: alone, beside the neighbour, and how many times as long it takes there."""
    kinds = list(dict.fromkeys(key for turn in turns for key in turn if key not in ("step", "neighbour")))
    single = next(kind for kind in kinds if kind.endswith(", 1 threads"))
    kinds.remove(single)
    lines = [f"| step | | {single}, seconds | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 3) + "|"]
    for step in dict.fromkeys(turn["step"] for turn in turns):
        own = [turn for turn in turns if turn["step"] == step]
        medians = {}
        for neighbour, name in ((False, "alone"), (True, "neighbour")):
            rows = [turn for turn in own if turn["neighbour"] == neighbour]
            medians[name] = {
                kind: float(np.median(found)) if (found := [row[kind] for row in rows if kind in row]) else math.nan
                for kind in (single, *kinds)
            }
            ratios = [[row[kind] / row[single] for row in rows if {kind, single} <= set(row)] for kind in kinds]
            quartiles = [np.quantile(each, [0.5, 0.25, 0.75]) if each else [] for each in ratios]
            cells = [f"{q[0]:.2f} [{q[1]:.2f}, {q[2]:.2f}]" if len(q) else "" for q in quartiles]
            lines.append(f"| {step} | {name} | {medians[name][single]:.3g} | {' | '.join(cells)} |")
        times = [f"{medians['neighbour'][kind] / medians['alone'][kind]:.2f}" for kind in (single, *kinds)]
        lines.append(f"| {step} | neighbour / alone | {' | '.join('' if each == 'nan' else each for each in times)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"out of {', '.join(OPERATIONS)}; some by default")
    parser.add_argument("--editions", nargs="*", type=Path, default=[], metavar="FOLDER", help="other checkouts")
    parser.add_argument("--turns", type=int, default=8, help="alone, and as many with the neighbour")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the table of what was measured before")
    parser.add_argument("--serve", metavar="STEP", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if unknown := sorted(set(options.steps) - set(OPERATIONS)):
        parser.error(f"step {unknown[0]!r}: expected one of {', '.join(OPERATIONS)}")
    if options.table is not None:
        print("\n".join(table([json.loads(line) for line in options.table.read_text().splitlines()])))
        return
    folders = {folder.name: folder for folder in (HERE, *(folder.resolve() for folder in options.editions))}
    if len(folders) <= len(options.editions):
        parser.error("two editions have the same name: expected folders with names of their own")
    for step in options.steps or STEPS:
        measure(step, folders, options.turns)


if __name__ == "__main__":
    main()
