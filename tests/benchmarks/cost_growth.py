"""How time and memory of rollout rewards grow with T, V, R and B, at the paper's other sizes: a CSV and a picture.

    python -m tests.benchmarks.cost_growth --output cost_growth

writes `cost_growth.csv` and `cost_growth.png`, prints the fitted exponents, and exits with status 1 where the cost
grows faster than it should. `--quick` takes small sizes, only to see that the command works: it judges nothing.

One point is `SeqGAN.action_values` on one batch: R completions of every prefix, scored by the paper's discriminator.
With an LSTM that is B R T (T-1) / 2 tokens and B R (T-1) sequences of length T, so that time is quadratic in T and
linear in the rest. Every point is measured with the row budget that is chosen by default and with a small one, which
bounds the memory: beyond it, more rollouts or a larger batch must not take more.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from seqgan_hf.objectives import Models, SeqGAN
from tests.benchmarks.measuring import peak_memory


SMALL_BUDGET = 2048  # rows that walk together
TOLERANCE = 0.2  # of an exponent: two points a factor of 4 apart, 30% of noise
MEMORY_TOLERANCE, MEMORY_NOISE = 1.5, 32  # a factor, and MiB


class Panel(NamedTuple):
    """One quantity that grows while the others stay.

    Attributes:
        name: `length`, `vocab_size`, `rollouts` or `batch_size`.
        label: its letter.
        values: from small to large.
        exponent: of time, expected for large values.
        others: what stays, where it is not the paper's.
        bounded: whether memory must stay as it is once the small budget is reached.
    """

    name: str
    label: str
    values: tuple[int, ...]
    exponent: float
    others: dict[str, int]
    bounded: bool = False


PAPER = {"length": 20, "vocab_size": 5000, "rollouts": 16, "batch_size": 64}
PANELS = [
    Panel("length", "T", (20, 40, 80, 160, 320), 2.0, {"batch_size": 8, "rollouts": 1}),
    Panel("vocab_size", "V", (1_000, 5_000, 20_000, 50_000, 150_000), 1.0, {"batch_size": 32, "rollouts": 4}),
    Panel("rollouts", "R", (1, 2, 4, 8, 16, 32, 64), 1.0, {"batch_size": 32}, bounded=True),
    Panel("batch_size", "B", (8, 16, 32, 64, 128, 256, 512), 1.0, {"rollouts": 4}, bounded=True),
]
QUICK = {"length": (4, 8, 16), "vocab_size": (20, 50, 100), "rollouts": (1, 2, 4), "batch_size": (2, 4, 8)}


class Point(NamedTuple):
    """One measurement: seconds of the faster of two calls (of one, if it is long), MiB added at the peak."""

    panel: str
    value: int
    budget: str
    length: int
    vocab_size: int
    rollouts: int
    batch_size: int
    seconds: float
    added_mib: float


def measure(panel: Panel, value: int, budget: int | None) -> Point:
    sizes = PAPER | panel.others | {panel.name: value}
    torch.manual_seed(0)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=sizes["vocab_size"])).eval()
    discriminator = CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig(vocab_size=sizes["vocab_size"]))
    samples = sample(generator, start_prompt(generator, sizes["batch_size"]), sizes["length"])
    objective = SeqGAN(rollouts=sizes["rollouts"], max_rows=budget)
    times = []

    def run() -> None:
        started = time.perf_counter()
        objective.action_values(Models(generator, discriminator.eval()), samples, samples)
        times.append(time.perf_counter() - started)

    _, added = peak_memory(run)
    if times[0] < 3:
        run()
    return Point(
        panel.label, value, "default" if budget is None else str(budget), **sizes, seconds=min(times), added_mib=added
    )


def exponent(points: list[Point]) -> float:
    """Slope of log seconds over log value, in the upper half of the values, where what is constant counts least."""
    upper = points[len(points) // 2 :]
    return float(np.polyfit(np.log([p.value for p in upper]), np.log([p.seconds for p in upper]), 1)[0])


def complaints(panel: Panel, points: dict[str, list[Point]]) -> list[str]:
    """Where time or memory grow faster than they should."""
    found = []
    for budget, line in points.items():
        if (slope := exponent(line)) > panel.exponent + TOLERANCE:
            found.append(f"time grows as {panel.label}^{slope:.2f} with budget {budget}, expected {panel.exponent:g}")
    if panel.bounded:
        small = points[str(SMALL_BUDGET)]
        reached = [p for p in small if p.batch_size * p.rollouts * (p.length - 1) >= SMALL_BUDGET]
        first, most = reached[0].added_mib, max(p.added_mib for p in reached)
        if most > MEMORY_TOLERANCE * first + MEMORY_NOISE:
            found.append(f"memory grows with {panel.label} beyond the budget, from {first:.0f} to {most:.0f} MiB")
    return found


def draw(results: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """Four panels: time on the left axis with the expected slope through its last point, memory on the right one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for panel, axis in zip(PANELS, axes.flat, strict=True):
        memory = axis.twinx()
        for (budget, line), color in zip(results[panel.label].items(), ("C0", "C1"), strict=True):
            values = [p.value for p in line]
            rows = "default budget" if budget == "default" else f"{budget} rows"
            axis.plot(
                values,
                [p.seconds for p in line],
                "o-",
                color=color,
                label=f"{rows}: {panel.label}^{exponent(line):.2f}",
            )
            memory.plot(values, [p.added_mib for p in line], "x:", color=color)
        last = results[panel.label]["default"][-1]
        expected = [last.seconds * (value / last.value) ** panel.exponent for value in values]
        axis.plot(values, expected, "--", color="grey", label=f"expected: {panel.label}^{panel.exponent:g}")
        fixed = {name[0].upper(): size for name, size in (PAPER | panel.others).items() if name != panel.name}
        letters = {"L": "T"}
        axis.set_title(", ".join(f"{letters.get(name, name)} = {size}" for name, size in fixed.items()), fontsize=9)
        axis.set(xscale="log", yscale="log", xlabel=panel.label, ylabel="seconds (circles)")
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.minorticks_off()
        # room for the legend above all lines of both scales
        axis.set_ylim(top=axis.get_ylim()[1] * 8)
        memory.set(ylabel="MiB added at the peak (crosses)", ylim=(0, memory.get_ylim()[1] * 1.4))
        axis.legend(fontsize=8, loc="upper left")
    figure.suptitle("Rollout rewards of one batch: cost by size, and fitted exponents (upper half of the points)")
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("cost_growth"), help="where, without a suffix")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that the command works")
    options = parser.parse_args()
    if not options.quick:
        torch.set_num_threads(2)
    results: dict[str, dict[str, list[Point]]] = {}
    failed = []
    measure(PANELS[0], 4, None)  # libraries take memory when they are first called
    for panel in PANELS:
        values = QUICK[panel.name] if options.quick else panel.values
        lines = {
            "default" if budget is None else str(budget): [measure(panel, value, budget) for value in values]
            for budget in (None, SMALL_BUDGET)
        }
        results[panel.label] = lines
        for budget, line in lines.items():
            points = ", ".join(f"{p.value}: {p.seconds:.2f} s +{p.added_mib:.0f} MiB" for p in line)
            print(f"{panel.label}, budget {budget}, exponent {exponent(line):.2f}: {points}", flush=True)
        failed += [] if options.quick else complaints(panel, lines)
    points = [point for lines in results.values() for line in lines.values() for point in line]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)
    draw(results, options.output.with_suffix(".png"))
    print("\n".join(failed) or ("no verdict" if options.quick else "time and memory grow no faster than expected"))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
