"""The first picture of the README, from the raw values of a benchmark on an oracle.

    python tests/tools/gain_and_price.py docs/figures/benchmark_oracle/leaderboard.csv docs/figures/gain_and_price.png

Each dot is a way of training, at temperature 1: KL(G||O) over KL(O||G), less those of maximum likelihood that was
stopped in time. What played with one seed or none, since the time was used up before its first round, is left out.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from statistics import fmean, stdev

from matplotlib.figure import Figure


AXES = "kl_oracle_generator", "kl_generator_oracle"
REFERENCE = "maximum likelihood, early-stopped"
START = "maximum likelihood"
LIMITS = (-0.34, 1.0), (-0.75, 1.95)  # in nats from the reference; what is further out is named beside the picture
ADVERSARIAL, PLAIN, WORDS = "#2166ac", "#636363", "#8c8c8c"
# How the names are written, and where those near the reference stand, in points from the dot.
NAMES = {
    "catgan": "CatGAN",
    "coldgan": "ColdGAN",
    "dgsan": "DGSAN",
    "dpgan": "DP-GAN",
    "fgan": "f-GAN, GAD, MaliGAN,\nDPG: hardly move",
    "fmgan": "FM-GAN",
    "grpo": "GRPO",
    "gsgan": "GSGAN",
    "jsdgan": "JSD-GAN",
    "leakgan": "LeakGAN",
    "maskgan": "MaskGAN",
    "pgbleu": "BLEU as the reward",
    "quickstart": "SeqGAN",
    "relgan": "RelGAN",
    "scratchgan": "ScratchGAN",
    "sentigan": "SentiGAN",
    "stepgan": "StepGAN",
    "textgail": "TextGAIL",
    "textgan": "TextGAN",
    REFERENCE: "maximum likelihood,\nstopped in time",
    START: "maximum likelihood\n(where most begin)",
}
PLACES = {
    REFERENCE: (-106, -34),
    START: (-124, 8),
    "relgan": (8, -16),
    "catgan": (12, 4),
    "textgan": (-62, 16),
    "dgsan": (-44, 34),
    "gsgan": (16, -10),
    "fmgan": (14, 6),
    "fgan": (-96, 62),
    "textgail": (14, -14),
    "coldgan": (10, 14),
    "quickstart": (14, -14),
    "leakgan": (8, 8),
    "grpo": (8, 6),
    "maskgan": (8, 6),
    "sentigan": (8, 6),
}


def places(file: str) -> dict[str, tuple[list[float], list[float]]]:
    """Means over seeds and their standard errors, by method, along both axes."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open(file, encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if (
                row["metric"] in AXES
                and float(row["temperature"]) == 1.0
                and row["played"] != "no"
                and row["kind"] != "real"
            ):
                found[row["name"]][row["metric"]].append(float(row["value"]))
    found = {name: own for name, own in found.items() if len(own[AXES[0]]) > 1}
    errors = {name: [stdev(own[axis]) / math.sqrt(len(own[axis])) for axis in AXES] for name, own in found.items()}
    return {name: ([fmean(own[axis]) for axis in AXES], errors[name]) for name, own in found.items()}


def draw(methods: dict[str, tuple[list[float], list[float]]]) -> Figure:
    """The dots near the reference with their names, and what each corner means."""
    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    axes, outside, better = figure.subplots(), [], []
    origin, _ = methods[REFERENCE]
    for name, (place, error) in methods.items():
        if name.startswith(START + " (") or name == START + ", longer":
            continue  # the starts of single methods, and what nobody would do
        x, y = (value - zero for value, zero in zip(place, origin, strict=True))
        label = NAMES.get(name, name)
        better += [label] if x < 0 > y else []
        if not all(low < value < high for value, (low, high) in zip((x, y), LIMITS, strict=True)):
            outside.append(label)
            continue
        color = PLAIN if name.startswith(START) else ADVERSARIAL
        shape = {"fmt": "s" if color == PLAIN else "o", "ms": 7, "zorder": 4 if color == PLAIN else 3}
        axes.errorbar(x, y, error[1], error[0], color=color, ecolor="#c6d3e0", elinewidth=1, **shape)
        if name in PLACES:
            line = {"arrowstyle": "-", "color": WORDS, "linewidth": 0.6}
            axes.annotate(label, (x, y), PLACES[name], textcoords="offset points", color=color, arrowprops=line)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlim=LIMITS[0], ylim=LIMITS[1], xticks=[], yticks=[])
    corners = {
        (0.02, 0.02, "left", "bottom"): f"better in both:\n{', '.join(better) or 'none of them'}",
        (0.98, 0.02, "right", "bottom"): "fewer mistakes, bought with variety",
        (0.98, 0.97, "right", "top"): "worse in both",
        (0.02, 0.97, "left", "top"): "more variety,\nmore mistakes",
    }
    for (x, y, across, up), text in corners.items():
        axes.text(x, y, text, transform=axes.transAxes, ha=across, va=up, color=WORDS, fontsize=12, fontweight="bold")
    axes.set_title("What a game against a discriminator gains, and what it costs", fontsize=13)
    axes.set_xlabel("less variety: leaves out more of what real text has  →", fontsize=12)
    axes.set_ylabel("more mistakes: writes more of what real text has not  →", fontsize=12)
    far = (
        f"Bars: one standard error over the seeds that played. Further out, up and to the right: {', '.join(outside)}."
    )
    figure.text(0.5, -0.01, far, ha="center", va="top", fontsize=9, color=PLAIN)
    return figure


if __name__ == "__main__":
    source, target = sys.argv[1:]
    draw(places(source)).savefig(target, dpi=110, bbox_inches="tight")
