"""Steps of the paper's size alone and beside a busy neighbour, by all threads and by one.

    GOMP_SPINCOUNT=3000 python -m tests.benchmarks.company [STEP ...]

Prints a line of JSON for each step: seconds of three runs alone and of three with the neighbour, each repeated for at
least six seconds (whoever waits for the neighbour finds out in steps of seconds), and how many cores others kept busy
meanwhile. Run it at two commits, one after the other, to compare them.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from tests.benchmarks.measuring import Case, OtherWork, busy_neighbour, whole_seconds
from tests.benchmarks.steps import OPERATIONS, SIZES


STEPS = (
    "sampling 10,000",
    "rollout rewards",
    "rollout rewards, bfloat16",
    "MLE epoch",
    "D epoch",
    "D epoch, bfloat16",
)


def lasting(case: Case, least: float = 6.0) -> list[float]:
    """Mean seconds of the whole step, three times, over as many calls as last so long."""
    found = []
    for _ in range(3):
        began, calls = time.perf_counter(), []
        while time.perf_counter() - began < least:
            calls.append(whole_seconds(case.ours))
        found.append(round(sum(calls) / len(calls), 2))
    return found


def measure(step: str) -> dict[str, list[float]]:
    """Seconds by number of threads; the first run of each warms up."""
    case, found, most = OPERATIONS[step](SIZES[0]), {}, torch.get_num_threads()
    for threads in (most, 1):
        torch.set_num_threads(threads)
        whole_seconds(case.ours)
        others = OtherWork()
        found[f"{threads} threads, alone"] = lasting(case)
        found[f"{threads} threads, cores of others"] = [round(others.cores(), 2)]
        with busy_neighbour():
            found[f"{threads} threads, neighbour"] = lasting(case)
    torch.set_num_threads(most)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"out of {', '.join(OPERATIONS)}; some by default")
    chosen = parser.parse_args().steps
    if unknown := sorted(set(chosen) - set(OPERATIONS)):
        parser.error(f"step {unknown[0]!r}: expected one of {', '.join(OPERATIONS)}")
    for step in chosen or STEPS:
        print(json.dumps({"step": step} | measure(step)), flush=True)
