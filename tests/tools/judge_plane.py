"""The picture and the table of "Little text, a pretrained judge" in docs/results.md, from what `evaluate` wrote.

    python tests/tools/judge_plane.py docs/figures/judge_800 docs/figures/judge_800.png

The folder holds for each seed a folder with what its evaluations wrote: `sweep*.csv` of the generators, named as in
`SHOWN`, and the `mixtures.csv` of maximum likelihood.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from seqgan_hf.evaluation.envelope import envelope, gaps


AXES = "nll_test_sequence", "judge_nll"
SHOWN = {
    "likelihood": ("maximum likelihood", "#636363", "o-"),
    "stopped": ("maximum likelihood, stopped in time", "#a0a0a0", "s-"),
    "constant": ("the same game with a constant reward", "#b2746b", "^--"),
    "cnn": ("the same game against a CNN from scratch", "#c9a227", "v--"),
    "game": ("the game against the judge", "#2166ac", "o-"),
    "selftaught": ("DPG without the judge: all weights 1", "#c2a5cf", "D--"),
    "learnt": ("what is drawn, learnt (DPG)", "#7b3294", "D-"),
    "drawn": ("no game: drawn with the judge", "#1b7837", "*"),
}
LIKELIHOODS = "likelihood", "stopped"
COLDEST = 0.8  # colder ones lie far out, and are not in the picture
COLUMNS = {"distinct_2": 3, "self_bleu_4": 3, "reverse_lm_score": 3, "fed": 1}  # digits


def read(folder: Path) -> tuple[dict[tuple[str, float], dict[str, float]], list[dict[str, float]]]:
    """Of one seed: values by generator and temperature, and those of the coins."""
    values: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    for path in sorted(folder.glob("sweep*.csv")):
        with open(path, encoding="utf-8") as lines:
            for row in filter(lambda row: row["temperature"], csv.DictReader(lines)):  # real text has none
                values[row["model"], float(row["temperature"])][row["metric"]] = float(row["value"])
    with open(folder / "mixtures.csv", encoding="utf-8") as lines:
        return values, [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def at_equal_diversity(values: dict[tuple[str, float], dict[str, float]], found: dict[str, float]) -> float:
    """How much lower the NLL of samples is than likelihood's at the temperature with as much distinct-2."""
    curve = sorted((v["distinct_2"], v[AXES[1]]) for (name, _), v in values.items() if name == LIKELIHOODS[0])
    return float(np.interp(found["distinct_2"], *np.transpose(curve))) - found[AXES[1]]


def place(values: dict[str, float]) -> tuple[float, float]:
    return values[AXES[0]], values[AXES[1]]


def summary(numbers: list[float], digits: int) -> str:
    """Mean and standard error over seeds."""
    return f"{np.mean(numbers):.{digits}f} ± {np.std(numbers, ddof=1) / len(numbers) ** 0.5:.{digits}f}"


def main(folder: str, picture: str) -> None:
    seeds = [read(each) for each in sorted(Path(folder).iterdir()) if each.is_dir()]
    curves = []
    for values, coins in seeds:
        plain = [place(found) for (name, _), found in values.items() if name in LIKELIHOODS]
        curves.append(envelope(plain + [place(coin) for coin in coins]))
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    axes, reach = figure.subplots(), list[float]()
    print(
        "| generator | temperature | NLL_test | NLL under SmolLM2 |",
        " | ".join(COLUMNS),
        "| beyond: quality | coverage | quality at equal distinct-2 |",
    )
    for name, (label, colour, style) in SHOWN.items():
        measured = [{temperature for generator, temperature in values if generator == name} for values, _ in seeds]
        middle, temperatures = [], sorted(set.intersection(*measured))
        if not temperatures:
            continue
        for temperature in temperatures:
            found = [values[name, temperature] for values, _ in seeds]
            middle.append(np.mean([place(each) for each in found], axis=0))
            row = [summary([each[key] for each in found], 2) for key in AXES]
            for key, digits in COLUMNS.items():
                row.append(
                    summary([each[key] for each in found], digits) if all(key in each for each in found) else ""
                )
            if name not in LIKELIHOODS:
                beyond = [gaps(curve, *place(each)) for curve, each in zip(curves, found, strict=True)]
                row += [summary(list(side), 2) for side in zip(*beyond, strict=True)]
                pairs = zip(seeds, found, strict=True)
                row.append(summary([at_equal_diversity(values, each) for (values, _), each in pairs], 3))
            print("|", " | ".join([name, f"{temperature:g}", *row]), "|")
        axes.plot(*np.transpose(middle), style, color=colour, label=label, ms=11 if style == "*" else 6)
        for temperature, (x, y) in zip(temperatures, middle, strict=True):
            at = {"xytext": (5, 4), "textcoords": "offset points", "annotation_clip": True}
            axes.annotate(f"{temperature:g}", (x, y), fontsize=8, color=colour, **at)
            reach += [x] * (temperature >= COLDEST)
    coins = np.mean([[place(coin) for coin in coins] for _, coins in seeds], axis=0)
    axes.plot(*envelope(map(tuple, coins)).T, color="#c8c8c8", lw=4, zorder=0, label="coins between two temperatures")
    axes.set_xlim(min(reach) - 0.2, max(reach) + 0.2)
    axes.set_xlabel("NLL of held-out captions, nats a caption (lower: covers more)")
    axes.set_ylabel("NLL of samples under SmolLM2, nats a token\n(lower: better English)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
