"""Quality against diversity over temperatures, several generators in one picture.

A single point says little: a lower temperature buys quality with diversity. Caccia et al. (2020),
https://arxiv.org/abs/1811.02549, compare whole curves, and find the maximum-likelihood baseline hard to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .envelope import PLANES, Mixture, Plane, better, envelope
from .report import REAL_COLOR, write_csv
from .suite import Evaluation


SWEEP_METRICS = ("bleu", "self_bleu", "distinct", "lm_score", "reverse_lm_score")
COLORS = ("#2166ac", "#d6604d", "#1b7837", "#9970ab", "#e08214", "#35978f", "#c51b7d", "#8c510a")
MARKERS = "osv^DPX*"


@dataclass
class Point:
    """One generator at one temperature."""

    model: str
    temperature: float
    evaluation: Evaluation
    mixtures: Sequence[Mixture] = ()  # of the generator's temperatures, at the first point of the first generator

    @property
    def values(self) -> dict[str, float]:
        return {name: found.value for name, found in self.evaluation.results.items()}


def curve_of_coins(points: Sequence[Point], plane: Plane) -> np.ndarray:
    """What a coin between two temperatures of the first generator can do, (K, 2); empty where that is not known."""
    mixtures = [mixture.values for mixture in points[0].mixtures]
    alone = [point.values for point in points if point.model == points[0].model]
    places = [place for values in [*mixtures, *alone] if (place := plane.place(values))]
    return envelope(places if len(places) > len(alone) else [])


def note_envelope(points: Sequence[Point]) -> None:
    """Notes at the points of other generators that a coin between two temperatures of the first one betters."""
    for plane in PLANES:
        if not len(curve_of_coins(points, plane)):
            continue
        for point in (p for p in points if p.model != points[0].model):
            if (place := plane.place(point.values)) is None:
                continue
            if (coin := better(points[0].mixtures, plane, *place)) is None:
                told = f"no coin between two temperatures of {points[0].model} is better in both "
                told += f"{plane.x} and {plane.y}"
            else:
                told = f"inside the envelope of {points[0].model}: temperature {coin.temperature:g} with probability "
                told += f"{coin.weight:.2g}, else {coin.other:g}, has {plane.x} {coin.values[plane.x]:.3f} and "
                told += f"{plane.y} {coin.values[plane.y]:.3f}"
            point.evaluation.notes.append(told)


def write_mixtures(mixtures: Sequence[Mixture], path: Path) -> None:
    """A row for each mixture: two temperatures, the weight of the first, and the values."""
    names = list(dict.fromkeys(name for mixture in mixtures for name in mixture.values))
    rows = ([*mixture[:3], *map(mixture.values.get, names)] for mixture in mixtures)
    write_csv(path, ["temperature", "other", "weight", *names], rows)


def write_sweep(points: Sequence[Point], output: Path) -> None:
    """Write `sweep.csv` (one row for each value of a point, then real text's) and `sweep.png`.

    Where there are several temperatures, `mixtures.csv` holds what a coin between two of the first generator's gives.
    """
    output.mkdir(parents=True, exist_ok=True)
    if points[0].mixtures:
        write_mixtures(points[0].mixtures, output / "mixtures.csv")
    measured = [(p.model, p.temperature, *result) for p in points for result in p.evaluation.results.items()]
    real = [("real text", "", n, found.real) for n, found in points[0].evaluation.results.items() if found.real]
    rows = ([*place, e.value, e.low, e.high, e.signature] for *place, e in [*measured, *real])
    write_csv(output / "sweep.csv", ["model", "temperature", "metric", "value", "low", "high", "signature"], rows)
    if (figure := draw_sweep(points)) is not None:
        figure.savefig(output / "sweep.png", dpi=150)


def draw_sweep(points: Sequence[Point]) -> Figure | None:
    """A panel for each plane that was measured, a curve for each generator, real text as a star, coins dashed."""
    panels = [plane for plane in PLANES if plane.place(points[0].values)]
    if not panels:
        return None
    models = list(dict.fromkeys(point.model for point in points))
    figure = Figure(figsize=(5.0 * len(panels), 4.8), layout="constrained")
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, plane in zip(every_axes, panels, strict=True):
        for number, model in enumerate(models):
            curve = sorted((p for p in points if p.model == model), key=lambda point: point.temperature)
            places = [place for point in curve if (place := plane.place(point.values))]
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            axes.plot(*np.transpose(places), marker=marker, color=color, label=model, linewidth=1.3, markersize=5)
            style: dict[str, Any] = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": 7, "color": color}
            for point, place in zip(curve, places, strict=True):
                axes.annotate(f"{point.temperature:g}", place, **style)
        if len(coins := curve_of_coins(points, plane)):
            label = f"coin between two temperatures of {models[0]}"
            axes.plot(*coins.T, "--", color=COLORS[0], label=label)
        real = {n: found.real.value for n, found in points[0].evaluation.results.items() if found.real is not None}
        if (place := plane.place(real)) is not None:
            axes.plot(*place, "*", color=REAL_COLOR, ms=14, label="real text")
        axes.set(xlabel=f"{plane.x_label} (coverage)", ylabel=f"{plane.y_label} (quality)")
        axes.grid(alpha=0.3)
        axes.margins(0.12, 0.2)  # room for the legend
        axes.legend(frameon=False, fontsize=8)
    lines = ("Numbers are temperatures. Lower left is better;", "better than real text is mode seeking")
    figure.suptitle(("\n" if len(panels) == 1 else " ").join(lines), fontsize=11)
    return figure
