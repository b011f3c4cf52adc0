"""The picture of a run, like the paper's figure: NLL over training, the switch to adversarial training marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


CURVES = {"nll_oracle": "NLL_oracle (quality)", "nll_test": "NLL_test (coverage)"}


def plot_learning_curve(lines: Sequence[dict[str, Any]], path: Path, title: str = "") -> bool:
    """Draw NLL_oracle and NLL_test against epochs of pretraining, then rounds of adversarial training.

    Args:
        lines: of `metrics.jsonl`, in order.
        path: of the picture; the suffix says the format.
        title: above the picture.

    Returns:
        Whether there was anything to draw.
    """
    epochs = max((line["epoch"] for line in lines if line["phase"] == "pretrain_generator"), default=0)
    # D's pretraining leaves the generator as it is and takes no room on the axis
    measured = [
        (line["epoch"] if line["phase"] == "pretrain_generator" else epochs + line["round"], line)
        for line in lines
        if line["phase"] != "pretrain_discriminator"
    ]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = False
    for name, label in CURVES.items():
        points = [(x, line[name], line.get(f"{name}_se", 0.0)) for x, line in measured if name in line]
        if points:
            xs, ys, errors = zip(*points, strict=True)
            axes.errorbar(xs, ys, yerr=errors, label=label, marker=".", linewidth=1.2, elinewidth=0.7)
            drawn = True
    if not drawn:
        return False
    if epochs and any(line["phase"] == "adversarial" for line in lines):
        axes.axvline(epochs, color="grey", linestyle="--", linewidth=1)
        axes.annotate(
            "adversarial training",
            (epochs, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            color="grey",
            fontsize=9,
        )
    axes.set_xlabel("epochs of pretraining, then rounds of adversarial training")
    axes.set_ylabel("nats per token")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    return True
