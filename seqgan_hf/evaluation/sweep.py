"""Quality against diversity over temperatures, several generators in one picture.

A single point says little: a lower temperature buys quality with diversity. Caccia et al. (2020),
https://arxiv.org/abs/1811.02549, compare whole curves, and find the maximum-likelihood baseline hard to beat.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .envelope import Component, Mixture, better, envelope
from .record import Estimate
from .report import REAL_COLOR
from .suite import Evaluation


# What is drawn against what: (x, its label, y, its label). Both axes point so that lower left is better.
PANELS = (
    ("self_bleu_4", "Self-BLEU-4 (repetition)", "bleu_4", "negative BLEU-4 (quality)"),
    ("reverse_lm_score", "reverse LM score (coverage), nats", "lm_score", "LM score (quality), nats"),
    ("nll_test", "NLL_test (coverage), nats per token", "nll_oracle", "NLL_oracle (quality), nats per token"),
)
SWEEP_METRICS = ("bleu", "self_bleu", "distinct", "lm_score", "reverse_lm_score")
COLORS = ("#2166ac", "#d6604d", "#1b7837", "#9970ab", "#e08214", "#35978f", "#c51b7d", "#8c510a")
MARKERS = "osv^DPX*"


@dataclass
class Point:
    """One generator at one temperature."""

    model: str
    temperature: float
    evaluation: Evaluation
    component: Component | None = None  # of a mixture of temperatures, where there is an oracle


def first_envelope(points: Sequence[Point]) -> list[Mixture]:
    """What a coin between two temperatures of the first generator can do; empty without an oracle or temperatures."""
    return envelope([p.component for p in points if p.model == points[0].model and p.component is not None])


def note_envelope(points: Sequence[Point]) -> None:
    """Notes at the points of other generators that a coin between two temperatures of the first one betters."""
    if not (curve := first_envelope(points)):
        return
    for point in (p for p in points if p.model != points[0].model):
        values = [point.evaluation.results[name].value for name in ("nll_test", "nll_oracle")]
        if (coin := better(curve, *values)) is None:
            told = f"no coin between two temperatures of {points[0].model} is better in both NLL_test and NLL_oracle"
        else:
            told = f"inside the envelope of {points[0].model}: temperature {coin.temperature:g} with probability "
            told += f"{coin.weight:.2g}, else {coin.other:g}, has NLL_test {coin.nll_test:.3f} and NLL_oracle "
            told += f"{coin.nll_oracle:.3f}"
        point.evaluation.notes.append(told)


def write_sweep(points: Sequence[Point], output: Path) -> None:
    """Write `sweep.csv` (one row for each value of a point, then real text's) and `sweep.png`.

    Where there is an oracle, `envelope.csv` holds what a coin between two temperatures of the first generator can do.
    """
    output.mkdir(parents=True, exist_ok=True)
    if curve := first_envelope(points):
        with (output / "envelope.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Mixture._fields, *curve])
    with (output / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "temperature", "metric", "value", "low", "high", "signature"])
        rows: list[tuple[str, float | str, str, Estimate]] = [
            (point.model, point.temperature, name, found)
            for point in points
            for name, found in point.evaluation.results.items()
        ]
        rows += [("real text", "", n, found.real) for n, found in points[0].evaluation.results.items() if found.real]
        for *place, found in rows:
            writer.writerow([*place, found.value, found.low, found.high, found.signature])
    figure = draw_sweep(points)
    if figure is not None:
        figure.savefig(output / "sweep.png", dpi=150)


def draw_sweep(points: Sequence[Point]) -> Figure | None:
    """A panel for each pair of metrics that was measured, a curve for each generator, real text as a star."""
    measured = points[0].evaluation.results
    panels = [panel for panel in PANELS if panel[0] in measured and panel[2] in measured]
    if not panels:
        return None
    models = list(dict.fromkeys(point.model for point in points))
    figure = Figure(figsize=(5.0 * len(panels), 4.8), layout="constrained")
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (x, x_label, y, y_label) in zip(every_axes, panels, strict=True):
        sign = -1 if y == "bleu_4" else 1
        for number, model in enumerate(models):
            curve = sorted((p for p in points if p.model == model), key=lambda point: point.temperature)
            results = [point.evaluation.results for point in curve]
            xs, ys = [found[x].value for found in results], [sign * found[y].value for found in results]
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            axes.plot(xs, ys, marker=marker, color=color, label=model, linewidth=1.3, markersize=5)
            style: dict[str, Any] = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": 7, "color": color}
            for point, *place in zip(curve, xs, ys, strict=True):
                axes.annotate(f"{point.temperature:g}", place, **style)
        if (x, y) == ("nll_test", "nll_oracle") and (coins := first_envelope(points)):
            label = f"coin between two temperatures of {models[0]}"
            axes.plot([c.nll_test for c in coins], [c.nll_oracle for c in coins], "--", color=COLORS[0], label=label)
            axes.legend(frameon=False, fontsize=8)
        real_x, real_y = measured[x].real, measured[y].real
        if real_x is not None and real_y is not None:
            axes.plot(real_x.value, sign * real_y.value, "*", color=REAL_COLOR, ms=14, label="real text")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
        axes.margins(0.12, 0.2)  # room for the legend
    every_axes[0].legend(frameon=False, fontsize=8)
    lines = ("Numbers are temperatures. Lower left is better;", "better than real text is mode seeking")
    figure.suptitle(("\n" if len(panels) == 1 else " ").join(lines), fontsize=11)
    return figure
