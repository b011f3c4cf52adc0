"""Learning curves of several runs in one picture, published points beside them, and the numbers that were drawn.

One curve alone shows no effect: SeqGAN belongs beside maximum likelihood that goes on, and beside a constant reward.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .comparison import Run, is_number, measured_metrics, name_experiments, read_run
from .learning_curve import CURVES
from ..evaluation.sweep import COLORS
from ..errors import UserError


# What is drawn unless other metrics are asked for, and how its panels are called; then how others are.
TITLES = CURVES | {"jsd_oracle": "JSD to the oracle"}
DIRECTIONS = {"kl_generator_oracle": "KL(generator, oracle)", "kl_oracle_generator": "KL(oracle, generator)"}
UNITS = {"nll_": "nats per token", "kl_": "nats", "jsd_": "nats"}
FORMATS = (".pdf", ".png", ".svg")
COLUMNS = ("label", "metric", "x", "value", "se", "n")
POINT_COLUMNS = ("round", "metric", "value")
# More points than this stand so close that their markers would hide the line.
MARKED = 60


class Point(NamedTuple):
    """One value in the picture.

    Attributes:
        label: of its curve.
        metric: its name in `metrics.jsonl`.
        x: where it stands: a round, a time in seconds, or an epoch.
        value: of one run, or the mean over seeds.
        se: standard error: over seeds if there are several, of the run's own estimate if it was logged.
        n: number of runs behind it; `None` for a published point.
    """

    label: str
    metric: str
    x: float
    value: float
    se: float | None = None
    n: int | None = None


def write_curves(
    run_dirs: Sequence[str],
    output: str,
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    points: str | None = None,
    axis: str = "rounds",
) -> str:
    """Draw the learning curves of runs, a panel for each metric, and write the drawn numbers beside the picture.

    Args:
        run_dirs: folders of runs.
        output: the picture (PDF, PNG or SVG); the numbers lie beside it as CSV, in seconds where `axis` is a time.
        labels: one a run; runs of one label are seeds of one thing, drawn as their mean. By default runs whose
            recipes differ in seeds and folders only share the name of the first.
        metrics: a panel for each; by default those of `TITLES` that were measured.
        points: CSV of published values, see `read_points`.
        axis: "rounds" of adversarial training, 0 being the end of maximum likelihood; "seconds" of wall-clock time
            since the pretraining that the runs share (see `shared_end`); or "epochs" of pretraining, then rounds.

    Returns:
        Where picture and numbers are, and what could not be drawn, for the terminal.

    Raises:
        ValueError: one line in the form got -> expected -> remedy.
    """
    picture = _checked_output(Path(output), points)
    runs = _read_runs(run_dirs, labels)
    _check_axis(runs, axis, points)
    chosen = _chosen_metrics(runs, metrics)
    curves, notes = _curves(runs, chosen, axis)
    published = [] if points is None else read_points(points)
    panels = [metric for metric in chosen if any(metric == name for _, name in curves)]
    if not panels:
        raise UserError(
f"no value of {', '.join(chosen)} to draw over {axis}",
"one measured there by all runs of a label",
f"choose other metrics or another axis ({', '.join(measured_metrics(runs))} were measured)")
    notes += [f"{metric}: nothing to draw over {axis}, so no panel" for metric in chosen if metric not in panels]
    for metric in dict.fromkeys(point.metric for point in published if point.metric not in panels):
        notes.append(f"{points}: points of {metric} are not drawn, as no panel shows it")
    published = [point for point in published if point.metric in panels]
    numbers = picture.with_suffix(".csv")
    try:
        _draw(curves, published, panels, axis, _marks(runs, axis)).savefig(picture, dpi=150)
        count = _write_numbers([*(point for curve in curves.values() for point in curve), *published], numbers)
    except OSError as error:
        raise UserError(
f"{str(error.filename or picture)!r}, which cannot be written ({error.strerror})",
"the permission and the room to write",
"name another --output") from error
    return "\n".join([f"picture: {picture}", f"numbers: {numbers} ({count} rows)", *notes])


def read_points(path: str) -> list[Point]:
    """Published values: CSV with a head, columns `round,metric,value` and perhaps `label`.

    Args:
        path: of the file; its name is the label of rows without one.

    Raises:
        ValueError: there is no such file, or a column or row of it is not as expected.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
f"points {path!r}, which cannot be read ({why})",
"a CSV file in UTF-8",
"check it") from error
    columns = [name.strip() for name in rows[0]] if rows else []
    if not set(POINT_COLUMNS) <= set(columns) <= {*POINT_COLUMNS, "label"} or len(set(columns)) < len(columns):
        raise UserError(
f"points {path!r} with the columns {','.join(columns) or 'none'}",
"round,metric,value and perhaps label",
"name them in the first line")
    points = [
        _published(dict(zip(columns, (cell.strip() for cell in row), strict=False)), len(row), columns, path, number)
        for number, row in enumerate(rows[1:], start=2)
        if row
    ]
    if not points:
        raise UserError(
f"points {path!r} without a row",
"one a point",
"leave --points out")
    return points


def _published(row: dict[str, str], cells: int, columns: list[str], path: str, number: int) -> Point:
    try:
        x, value = float(row["round"]), float(row["value"])
        right = cells == len(columns) and x >= 0 and math.isfinite(x) and math.isfinite(value) and row["metric"]
    except (KeyError, ValueError):
        right = False
    if not right:
        raise UserError(
f"row {number} of the points {path!r} ({','.join(row.values())})",
f"{','.join(columns)}: a round of at least 0, the name of a metric, a number",
"mend that line")
    return Point(row.get("label") or Path(path).stem, row["metric"], x, value)


# --- What is asked for -----------------------------------------------------------------------------------------------


def _checked_output(picture: Path, points: str | None) -> Path:
    """Refuse before any work what cannot be written, and what would be written over the points."""
    if picture.suffix.lower() not in FORMATS:
        raise UserError(
f"--output {str(picture)!r}",
f"a file in {', '.join(FORMATS)}",
"change its end")
    if not picture.parent.is_dir():
        raise UserError(
f"--output {str(picture)!r} in a folder that does not exist",
"one",
"make it first")
    numbers = picture.with_suffix(".csv")
    if points is not None and numbers.resolve() == Path(points).resolve():
        raise UserError(
f"--output {str(picture)!r}, whose numbers would be written over the points {points!r}",
"another name",
"change --output")
    head = ",".join(COLUMNS).encode()
    if numbers.is_file() and numbers.stat().st_size and numbers.read_bytes()[: len(head)] != head:
        raise UserError(
f"--output {str(picture)!r}, beside which {numbers.name} holds something else than drawn "
"numbers",
"a name of which nothing is lost",
"change --output or move that file")
    return picture


def _read_runs(folders: Sequence[str], labels: Sequence[str] | None) -> list[Run]:
    """Runs; those of one curve have one `experiment`, which is its label."""
    if labels is not None and len(labels) != len(folders):
        raise UserError(
f"{len(labels)} labels for {len(folders)} runs",
"one for each, in their order",
"repeat a label for the seeds of one thing")
    places = [Path(folder).resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(
f"the run {folder!r} twice",
"different runs",
"leave one out")
    runs = [read_run(folder) for folder in folders]
    if labels is None:
        name_experiments(runs)
    for run, label in zip(runs, labels or (), strict=labels is not None):
        run.experiment = label
    for label, members in _by_label(runs).items():
        epochs = sorted({run.pretraining for run in members if run.rounds})
        if len(epochs) > 1:
            raise UserError(
f"runs of {' and '.join(map(str, epochs))} epochs of maximum likelihood as {label!r}",
"seeds of one thing under one label",
"give --labels that tell them apart")
    return runs


def _by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {run.experiment: [other for other in runs if other.experiment == run.experiment] for run in runs}


def _check_axis(runs: Sequence[Run], axis: str, points: str | None) -> None:
    if axis == "rounds" and (without := [run.name for run in runs if not run.rounds]):
        raise UserError(
f"{', '.join(without)} without adversarial rounds",
"some to draw over",
"set --axis seconds (beside maximum likelihood that goes on) or --axis epochs, or leave "
"it out")
    if axis != "rounds" and points is not None:
        raise UserError(
f"--points, which are known by rounds, and --axis {axis}",
"--axis rounds",
"leave one out")


def _chosen_metrics(runs: Sequence[Run], metrics: Sequence[str] | None) -> list[str]:
    measured = measured_metrics(runs)
    chosen = list(dict.fromkeys(metrics or [name for name in TITLES if name in measured]))
    unknown = [name for name in chosen if name not in measured and all(run.last(name) is None for run in runs)]
    if unknown or not chosen:
        asked = f"got metric {unknown[0]!r}" if unknown else f"got runs that measured none of {', '.join(TITLES)}"
        known = ", ".join(measured) or "none"
        raise UserError(
f"{asked}",
f"one that a run measured ({known})",
"name it with --metrics")
    return chosen


# --- Curves ----------------------------------------------------------------------------------------------------------


def shared_end(run: Run, runs: Sequence[Run]) -> float:
    """The time at which a run had done the pretraining that the runs share, in seconds of its log.

    With rounds, that is the end of its own maximum likelihood: the time of D's pretraining belongs to the adversarial
    method. A run without rounds shares it with those runs with rounds that began from the same weights
    (`generator.pretrained`, or fresh ones). One that began from weights of its own, and every run where none has
    rounds, is timed from its start.

    Raises:
        ValueError: a run without rounds has no such time, or no single one.
    """
    adversarial = [other for other in runs if other.rounds]
    if run.rounds:
        epochs = {run.pretraining}
    elif fellows := [other for other in adversarial if other.start == run.start]:
        epochs = {other.pretraining for other in fellows}
    elif run.start or not adversarial:
        epochs = {0}
    else:
        raise UserError(
f"{run.name} without rounds, which began afresh, and no run with rounds that did",
"a common beginning from which to count seconds",
"leave it out, or set --axis epochs")
    if len(epochs) > 1 or max(epochs) > run.pretraining:
        raise UserError(
f"{run.name} of {run.pretraining} epochs without rounds beside runs whose rounds begin "
f"after {' and '.join(map(str, sorted(epochs)))}",
"one beginning of the rounds, and at least as many epochs",
"leave it out, or set --axis epochs")
    (end,) = epochs
    times = [_seconds(line, run) for line in run.lines if _unit(line) == ("pretrain_generator", end)]
    return times[-1] if times else 0.0


def _unit(line: dict[str, Any]) -> tuple[str, int]:
    """The phase, and the number of its epoch or round: what seeds of one thing have in common."""
    phase = line.get("phase") or ""
    return phase, line.get("epoch" if phase == "pretrain_generator" else "round") or 0


def _seconds(line: dict[str, Any], run: Run) -> float:
    if not is_number(line.get("seconds")):
        raise UserError(
f"a line of {run.name} without `seconds`",
"a log with times",
"set --axis rounds or epochs")
    return line["seconds"]


def _placed(run: Run, axis: str, zero: float) -> Iterator[tuple[tuple[str, int], float, dict[str, Any]]]:
    """Lines of a log that have a place on the axis: unit, x, the line."""
    for line in run.lines:
        phase, number = unit = _unit(line)
        if phase == "pretrain_discriminator":  # it leaves the generator as it is
            continue
        pretraining = phase == "pretrain_generator"
        if axis == "epochs":
            yield unit, number if pretraining else run.pretraining + number, line
        elif axis == "seconds":
            if (x := _seconds(line, run) - zero) >= 0:
                yield unit, x, line
        elif not pretraining or number == run.pretraining:
            yield unit, 0 if pretraining else number, line


def _curves(
    runs: Sequence[Run], metrics: Sequence[str], axis: str
) -> tuple[dict[tuple[str, str], list[Point]], list[str]]:
    """Points by label and metric in the order of training, and notes on what is missing."""
    curves, notes = {}, []
    for label, members in _by_label(runs).items():
        placed = [list(_placed(run, axis, shared_end(run, runs) if axis == "seconds" else 0.0)) for run in members]
        for metric in metrics:
            found = [{unit: (x, line) for unit, x, line in lines if is_number(line.get(metric))} for lines in placed]
            # where not all seeds have measured, a mean would jump from one subset of them to another
            shared = [unit for unit in found[0] if all(unit in values for values in found)]
            everything = {unit for values in found for unit in values}
            if shared:
                curves[label, metric] = [_mean(label, metric, [values[unit] for values in found]) for unit in shared]
            if not shared:
                notes.append(f"{label}: {metric} was not measured by all of its runs, or not over {axis}")
            elif len(shared) < len(everything):
                notes.append(
                    f"{label}: {metric} at {len(shared)} of {len(everything)} places, those which all of its "
                    f"{len(members)} runs measured"
                )
    return curves, notes


def _mean(label: str, metric: str, values: Sequence[tuple[float, dict[str, Any]]]) -> Point:
    """One run's value with its logged standard error, or the mean of several with the standard error over them."""
    xs, ys = [x for x, _ in values], [line[metric] for _, line in values]
    if len(values) == 1:
        logged = values[0][1].get(f"{metric}_se")
        return Point(label, metric, xs[0], ys[0], logged if is_number(logged) and logged >= 0 else None, 1)
    error = float(np.std(ys, ddof=1)) / math.sqrt(len(ys))
    return Point(label, metric, float(np.mean(xs)), float(np.mean(ys)), error, len(ys))


def _write_numbers(points: Sequence[Point], path: Path) -> int:
    """The drawn numbers, sorted by label, metric and x; returns how many rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for point in sorted(points, key=lambda point: (point.label, point.metric, point.x)):
            x = int(point.x) if float(point.x).is_integer() else round(point.x, 3)
            writer.writerow(point._replace(x=x))  # `None` is written as nothing
    return len(points)


# --- The picture -----------------------------------------------------------------------------------------------------


def _marks(runs: Sequence[Run], axis: str) -> float | None:
    """Where the adversarial phase begins on the axis of epochs, if all runs agree."""
    epochs = {run.pretraining for run in runs if run.rounds}
    return epochs.pop() if axis == "epochs" and len(epochs) == 1 else None


def _time_unit(seconds: float) -> tuple[str, float]:
    return ("seconds", 1) if seconds < 600 else ("minutes", 60) if seconds < 3 * 3600 else ("hours", 3600)


def _draw(
    curves: dict[tuple[str, str], list[Point]],
    published: Sequence[Point],
    panels: Sequence[str],
    axis: str,
    mark: float | None,
) -> Figure:
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    width = max(6.0, 4.4 * columns)
    figure = Figure(layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    unit, scale = ("", 1.0)
    if axis == "seconds":
        unit, scale = _time_unit(max(point.x for curve in curves.values() for point in curve))
    x_label = {
        "rounds": "adversarial round (0: end of maximum likelihood)",
        "seconds": f"{unit} since the shared maximum likelihood",
        "epochs": "epochs of pretraining, then rounds",
    }[axis]
    styles = {label: index for index, label in enumerate(dict.fromkeys(label for label, _ in curves))}
    sources = {label: index for index, label in enumerate(dict.fromkeys(point.label for point in published))}
    handles: dict[tuple[str, str], Any] = {}
    for index, metric in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for (label, name), curve in curves.items():
            if name == metric:
                handles["run", _name(label, curve[0].n)] = _draw_curve(axes, curve, styles[label], scale)
        for label, number in sources.items():
            own = [point for point in published if (point.label, point.metric) == (label, metric)]
            if own:
                handles["point", _name(label)] = _draw_published(axes, own, number)
        if mark:
            axes.axvline(mark, color="grey", linestyle="--", linewidth=1, zorder=1)
        _finish_panel(axes, metric, x_label)
    names = [name for _, name in handles]
    fitting = min(4, len(names), max(1, int(width * 11 // (max(map(len, names)) + 7))))
    figure.legend(handles.values(), names, loc="outside upper center", ncols=fitting, frameon=False)
    figure.set_size_inches(width, 3.5 * rows + 0.6 + 0.22 * math.ceil(len(names) / fitting))
    figure.supxlabel(_legend_of_errors(curves.values()), fontsize=8, color="#666666")
    return figure


def _legend_of_errors(curves: Iterable[Sequence[Point]]) -> str:
    """What bars and bands mean, where there are any."""
    points = [point for curve in curves for point in curve if point.se]
    bars = ["bars: standard error of the estimate"] if any(point.n == 1 for point in points) else []
    return "; ".join([*bars, *(["bands: standard error over seeds"] if any(point.n > 1 for point in points) else [])])


def _name(label: str, runs: int | None = None) -> str:
    """As the legend shows it: a dollar is no mathematics, and names that begin with _ are shown as well."""
    seeds = f" ({runs} seeds)" if runs and runs > 1 else ""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$") + seeds


def _draw_curve(axes, curve: Sequence[Point], number: int, scale: float):
    """A line with bars for the error of one run's estimates, or with a band for the error over seeds."""
    color, style = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
    xs, ys = np.array([point.x for point in curve]) / scale, np.array([point.value for point in curve])
    errors = np.array([point.se or 0.0 for point in curve])
    marker = "o" if len(curve) <= MARKED else None
    (line,) = axes.plot(xs, ys, color=color, linestyle=style, linewidth=1.6, marker=marker, markersize=2.8, zorder=3)
    if curve[0].n > 1:
        axes.fill_between(xs, ys - errors, ys + errors, color=color, alpha=0.18, linewidth=0, zorder=2)
    elif errors.any():
        axes.errorbar(xs, ys, yerr=errors, fmt="none", ecolor=color, elinewidth=0.8, alpha=0.45, zorder=2)
    return line


def _draw_published(axes, points: Sequence[Point], number: int):
    marker = "DsP^v*X"[number % 7]
    style = {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": "#222222", "markeredgewidth": 1.2}
    xs, ys = [point.x for point in points], [point.value for point in points]
    (marks,) = axes.plot(xs, ys, linestyle="none", marker=marker, zorder=4, **style)
    return marks


def _finish_panel(axes, metric: str, x_label: str) -> None:
    axes.set_title((TITLES | DIRECTIONS).get(metric, metric), fontsize=11)
    axes.set_xlabel(x_label)
    unit = next((unit for start, unit in UNITS.items() if metric.startswith(start)), "")
    axes.set_ylabel("nats per sequence" if unit and metric.endswith("_sequence") else unit)
    axes.grid(linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    if high - low < 1e-4 * max(abs(low), abs(high)):  # a value at its bound is flat, not noise in the tenth digit
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.02 * abs(middle), middle + 0.02 * abs(middle))
    axes.ticklabel_format(axis="y", useOffset=False)
