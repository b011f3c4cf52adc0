"""The paper's steps on a GPU, and what its whole schedule would take: the table of docs/performance.md.

    python -m tests.benchmarks.gpu

Two minutes or so. Times are medians with the device waited for before and after; operations are those that launch a
kernel at least (views are none). `--device cpu` only shows that the script runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import MLE, Models, Reinforce, SeqGAN
from tests.benchmarks.plain import descend
from tests.benchmarks.steps import BATCH, SEQUENCES, SIZES, Size, adam


# How often the paper's schedule takes each step: 120 MLE epochs; 50 and 200 x 5 turns of D with 3 epochs each over
# real and generated sequences; 200 generator steps.
TURNS = 50 + 200 * 5
SCHEDULE = {
    "MLE step": 120 * SEQUENCES / BATCH,
    "D step": TURNS * 3 * 2 * SEQUENCES / BATCH,
    "sampling 10,000": TURNS,
    "rollout rewards": 200,
    "G update": 200,
}
TARGETS = {"rollout rewards": "30 ms", "D step": "1 ms", "whole schedule": "20 minutes"}


class Row(NamedTuple):
    """One step: median seconds in float32 and in bfloat16, and how many operations the host launches."""

    float32: float
    bfloat16: float
    operations: int


class Operations(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returns = function._schema.returns
        self.count += not any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        return function(*args, **(kwargs or {}))


def steps(size: Size, device: str) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each leaves the device at work."""
    models = Models(size.generator().to(device), size.judge().to(device))
    learning = [adam(model, fused=True) for model in (models.generator, models.discriminator)]
    real = size.sequences(BATCH).to(device)
    half = real.select(slice(0, BATCH // 2))
    objective = SeqGAN(rollouts=size.rollouts)
    credited = real._replace(advantages=torch.ones_like(real.ids, dtype=torch.float32))
    return {
        "sampling 10,000": lambda: sample(models.generator, start_prompt(models.generator, size.sampled), size.length),
        "rollout rewards": lambda: objective.action_values(models, real, real),
        "G update": lambda: descend(objective.generator_loss(models, real, credited).value, learning[0]),
        "MLE step": lambda: descend(MLE().generator_loss(models, real, None).value, learning[0]),
        "D step": lambda: descend(Reinforce().discriminator_loss(models, half, half).value, learning[1]),
    }


def seconds(run: Callable[[], object], device: str, repetitions: int) -> float:
    """Median of single calls, the first three of which are thrown away."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    found = []
    for _ in range(repetitions + 3):
        wait()
        began = time.perf_counter()
        run()
        wait()
        found.append(time.perf_counter() - began)
    return statistics.median(found[3:])


def measure(size: Size, device: str, repetitions: int = 30) -> dict[str, Row]:
    rows = {}
    for name, run in steps(size, device).items():

        def mixed(run: Callable[[], object] = run) -> None:
            with torch.autocast(device, torch.bfloat16):
                run()

        times = seconds(run, device, repetitions), seconds(mixed, device, repetitions)
        with Operations() as operations:
            run()
        rows[name] = Row(*times, operations.count)
    return rows


def table(rows: dict[str, Row]) -> list[str]:
    lines = ["| step | target | float32 | bfloat16 | operations |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        target = TARGETS.get(name, "")
        lines.append(f"| {name} | {target} | {row[0] * 1e3:.3g} ms | {row[1] * 1e3:.3g} ms | {row.operations} |")
    whole = [sum(times * rows[name][column] for name, times in SCHEDULE.items()) / 60 for column in (0, 1)]
    lines.append(f"| whole schedule | {TARGETS['whole schedule']} | {whole[0]:.3g} min | {whole[1]:.3g} min | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is there: expected one. Pass --device cpu to see the script run")
    torch.set_float32_matmul_precision("high")  # TF32 where there is
    print("\n".join(table(measure(SIZES[0], device, 30 if device == "cuda" else 1))))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"\n{name}, torch {torch.__version__}; the whole schedule is the sum of its steps.")


if __name__ == "__main__":
    main()
