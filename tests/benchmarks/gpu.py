"""The paper's steps on a GPU, and what its whole schedule would take: the table of docs/performance.md.

    python -m tests.benchmarks.gpu

Some minutes, which it tells at the end. Times are medians with the device waited for before and after; operations
are those that launch a kernel at least (views are none); the device is busy for the sum of its kernels' times in one
call, as a profiler records them. Compiled steps are those of `training.torch_compile` in float32, as they come and
with `torch_compile_mode: reduce-overhead` (CUDA graphs). `--device cpu` only shows that the script runs.
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
from seqgan_hf.objectives import MLE, Loss, Models, Reinforce, SeqGAN
from seqgan_hf.training.arguments import AdversarialTrainingArguments
from seqgan_hf.training.compiling import Compiled
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
COMPILED = {"compiled": None, "compiled, CUDA graphs": "reduce-overhead"}
TARGETS = {"rollout rewards": "30 ms", "D step": "1 ms", "whole schedule": "20 minutes"}


class Row(NamedTuple):
    """One step: median seconds in float32, in bfloat16 and by way of compiling; operations that are launched.

    `busy`: seconds that the device computes in float32; `None` where the device is the host.
    """

    float32: float
    bfloat16: float
    compiled: dict[str, float]
    operations: int
    busy: float | None


class Operations(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returns = function._schema.returns
        self.count += not any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        return function(*args, **(kwargs or {}))


def steps(size: Size, device: str, args: AdversarialTrainingArguments) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each leaves the device at work."""
    models = Models(size.generator().to(device), size.judge().to(device))
    learning = [adam(model, fused=True) for model in (models.generator, models.discriminator)]
    compiled = [Compiled(model, args) for model in (models.generator, models.discriminator)]
    real = size.sequences(BATCH).to(device)
    half = real.select(slice(0, BATCH // 2))
    objective = SeqGAN(rollouts=size.rollouts)
    credited = real._replace(advantages=torch.ones_like(real.ids, dtype=torch.float32))

    def step(player: int, loss: Callable[[], Loss]) -> None:
        (models.generator, models.discriminator)[player].train()  # as in training; cuDNN has no gradients otherwise
        with compiled[player]():
            value = loss().value
        descend(value, learning[player])

    return {
        "sampling 10,000": lambda: sample(models.generator, start_prompt(models.generator, size.sampled), size.length),
        "rollout rewards": lambda: objective.action_values(models, real, real),
        "G update": lambda: step(0, lambda: objective.generator_loss(models, real, credited)),
        "MLE step": lambda: step(0, lambda: MLE().generator_loss(models, real, None)),
        "D step": lambda: step(1, lambda: Reinforce().discriminator_loss(models, half, half)),
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


def busy_seconds(run: Callable[[], object], device: str) -> float | None:
    """What the kernels of one call take together."""
    if device != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def measure(size: Size, device: str, repetitions: int = 30) -> dict[str, Row]:
    def arguments(**compiling: object) -> AdversarialTrainingArguments:
        return AdversarialTrainingArguments(output_dir="unused", **compiling)

    backend = {} if device == "cuda" else {"torch_compile_backend": "eager"}
    compiled = {
        way: steps(size, device, arguments(torch_compile=True, **(backend or {"torch_compile_mode": mode})))
        for way, mode in COMPILED.items()
    }
    rows = {}
    for name, run in steps(size, device, arguments()).items():

        def mixed(run: Callable[[], object] = run) -> None:
            with torch.autocast(device, torch.bfloat16):
                run()

        times = seconds(run, device, repetitions), seconds(mixed, device, repetitions)
        with Operations() as operations:
            run()
        training = name in ("G update", "MLE step", "D step")
        ways = {way: seconds(compiled[way][name], device, repetitions) for way in COMPILED if training}
        rows[name] = Row(*times, ways, operations.count, busy_seconds(run, device))
    return rows


def table(rows: dict[str, Row]) -> list[str]:
    titles = ["step", "target", "float32", "bfloat16", *COMPILED, "operations", "the device is busy"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in rows.items():
        times = [row.float32, row.bfloat16, *(row.compiled.get(way) for way in COMPILED)]
        *cells, busy = ("" if each is None else f"{each * 1e3:.3g} ms" for each in (*times, row.busy))
        lines.append(f"| {' | '.join([name, TARGETS.get(name, ''), *cells, str(row.operations), busy])} |")
    kinds = [lambda row: row.float32, lambda row: row.bfloat16]
    kinds += [lambda row, way=way: row.compiled.get(way, row.float32) for way in COMPILED]
    whole = [sum(times * kind(rows[name]) for name, times in SCHEDULE.items()) / 60 for kind in kinds]
    cells = [f"{minutes:.3g} min" for minutes in whole]
    lines.append(f"| {' | '.join(['whole schedule', TARGETS['whole schedule'], *cells, '', ''])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is there: expected one. Pass --device cpu to see the script run")
    began = time.perf_counter()
    torch.set_float32_matmul_precision("high")  # TF32 where there is
    print("\n".join(table(measure(SIZES[0], device, 30 if device == "cuda" else 1))))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    took = time.perf_counter() - began
    print(
        f"\n{name}, torch {torch.__version__}; the whole schedule is the sum of its steps. Measured in {took:.0f} s."
    )


if __name__ == "__main__":
    main()
