"""Pictures of a benchmark: for each plane a panel for each method, beside maximum likelihood and its envelope."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ..evaluation.envelope import Plane
from ..evaluation.report import MODEL_COLOR, REAL_COLOR
from .leaderboard import PAGE, Board, Method, page, read_board


COLUMNS = 4
BETWEEN = 12  # ellipses of a band from one temperature to the next
GREYS = ("#636363", "#969696", "#bdbdbd", "#d9d9d9")


def write_leaderboard(output: Path) -> str:
    """Write `leaderboard.md` and a picture for each plane; returns the page, or raises as `read_board`."""
    board, pictures = read_board(output), []
    for plane in board.planes():
        name = f"{plane.y}_{plane.x}.png"
        draw_plane(board, plane).savefig(output / name, dpi=130)
        pictures.append(name)
    text = page(board, pictures)
    (output / PAGE).write_text(text, encoding="utf-8")
    return text


def draw_plane(board: Board, plane: Plane) -> Figure:
    """A panel for each objective and control; numbers are temperatures, and lower left is better."""
    methods = [m for m in board.order() if m.kind in ("objective", "control") and m.places(plane)]
    columns = max(1, min(COLUMNS, len(methods)))
    rows = max(1, math.ceil(len(methods) / columns))
    figure = Figure(figsize=(3.6 * columns + 0.8, 3.3 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, method in zip(panels, [*methods, *[None] * (len(panels) - len(methods))], strict=True):
        if method is None and methods:
            axes.set_axis_off()
            continue
        shown = _background(axes, board, plane)
        if method is not None:
            shown = [*shown, _curve(axes, method, plane, MODEL_COLOR, marked=True)]
            axes.set_title(method.name, fontsize=10)
        _frame(axes, shown, _real(board, plane))
        axes.grid(alpha=0.3)
    kept: dict[str, Any] = {}
    for axes, name in ((axes, axes.get_title()) for axes in panels):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            kept.setdefault("the method" if label == name else label, handle)
    figure.legend(kept.values(), kept.keys(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel(f"{plane.x_label}\n(coverage; left is better)", fontsize=10)
    figure.supylabel(f"{plane.y_label}\n(quality; lower is better)", fontsize=10)
    return figure


def _real(board: Board, plane: Plane) -> np.ndarray:
    """Where real text lies, (1, 2), or (0, 2)."""
    places = [place for m in board.methods.values() if m.kind == "real" for place in m.places(plane).values()]
    return np.mean(places, axis=0)[None] if places else np.empty((0, 2))


def _frame(axes: Axes, shown: list[np.ndarray], real: np.ndarray) -> None:
    """Limits that hold these points (N, 2): what is far from them all would leave nothing to see of the others.

    Where real text is so far away, a word in the corner says where it is.
    """
    points = np.concatenate([*shown, np.empty((0, 2))])
    if len(points) and len(real):
        low, high = points.min(axis=0), points.max(axis=0)
        if ((low - real[0] > high - low) | (real[0] - high > high - low)).any():
            told = "real text: {:.3g}, {:.3g}".format(*real[0])
            axes.annotate(told, (0.03, 0.03), xycoords="axes fraction", fontsize=6, color=REAL_COLOR)
            real = real[:0]
    if len(real):
        axes.plot(*real[0], "*", color=REAL_COLOR, ms=12, label="real text")
    points = np.concatenate([points, real])
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        (left, bottom), (right, top) = low - 0.08 * (high - low), high + 0.08 * (high - low)
        if left < right and bottom < top:
            axes.set(xlim=(left, right), ylim=(bottom, top))


def _background(axes: Axes, board: Board, plane: Plane) -> list[np.ndarray]:
    """Maximum likelihood over temperatures, and coins; returns the envelopes."""
    likelihoods = [method for method in board.likelihoods if method.places(plane)]
    for method, color in zip(likelihoods, GREYS * len(likelihoods), strict=False):
        _curve(axes, method, plane, color)
    curves = [curve for seed in sorted(board.coins) if len(curve := board.curve(seed, plane))]
    for number, curve in enumerate(curves):
        label = "envelope of coins between temperatures (each seed)" if number == 0 else None
        axes.plot(*curve.T, "--", color="black", linewidth=0.9, label=label)
    return curves


def _curve(axes: Axes, method: Method, plane: Plane, color: str, marked: bool = False) -> np.ndarray:
    """The means over seeds, (temperatures, 2), as a curve; the band has the width of one standard error over seeds."""
    places = method.places(plane)
    at = {t: [places[seed, t] for seed in method.seeds(t) if (seed, t) in places] for t in method.temperatures}
    means = {t: np.mean(found, axis=0) for t, found in at.items() if found}
    if not means:
        return np.empty((0, 2))
    xy = np.array(list(means.values()))
    style = {"marker": "o", "markersize": 3.5} if marked else {"linewidth": 1.0}
    axes.plot(*xy.T, color=color, label=method.name, **style)
    band = [np.std(at[t], axis=0, ddof=1) / math.sqrt(len(at[t])) for t in means if len(at[t]) > 1]
    if len(band) == len(xy):
        _band(axes, xy, np.array(band), color)
    label: dict[str, Any] = {"textcoords": "offset points", "xytext": (4, 3), "fontsize": 6, "color": color}
    for temperature, place in means.items() if marked else ():
        axes.annotate(f"{temperature:g}", place, **label)
    return xy


def _band(axes: Axes, xy: np.ndarray, errors: np.ndarray, color: str) -> None:
    """Ellipses with the standard errors as half axes, so close that they make a band."""
    steps = np.linspace(0, len(xy) - 1, (len(xy) - 1) * BETWEEN + 1)
    columns = [np.interp(steps, range(len(xy)), column) for column in np.hstack([xy, errors]).T]
    for x, y, width, height in zip(*columns, strict=True):
        axes.add_patch(Ellipse((x, y), 2 * width, 2 * height, facecolor=color, edgecolor="none", alpha=0.04))
