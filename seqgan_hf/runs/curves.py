"""Learning curves of one run or several in one picture, published points beside them, and the numbers drawn.

One curve alone shows no effect: SeqGAN belongs beside maximum likelihood that goes on, and beside a constant reward.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ..errors import UserError
from ..evaluation.report import write_csv
from ..evaluation.sweep import COLORS
from .record import Run, by_label, check_measured, is_number, measured_metrics, name_experiments, read_runs, unit
from .signatures import unequal_signatures


# What is drawn unless other metrics are asked for, and how its panels are called; then how others are.
TITLES = {"nll_oracle": "NLL_oracle (quality)", "nll_test": "NLL_test (coverage)", "jsd_oracle": "JSD to the oracle"}
DIRECTIONS = {"kl_generator_oracle": "KL(generator, oracle)", "kl_oracle_generator": "KL(oracle, generator)"}
SHARES = {"grammar_acceptance": "grammatical sentences (share)", "distinct_2": "different pairs of words (share)"}
MEASURED_IN = {"nll_": "nats per token", "kl_": "nats", "jsd_": "nats"}
FORMATS = (".pdf", ".png", ".svg")
POINT_COLUMNS = ("round", "metric", "value")
# More points than this stand so close that their markers would hide the line.
MARKED = 60
# Of a picture that shows all metrics.
MOST_PANELS = 9


class Point(NamedTuple):
    """One value in the picture, and one row of the numbers beside it.

    Attributes:
        label: of its curve.
        metric: its name in `metrics.jsonl`.
        x: where it stands: a round, a time in seconds, or an epoch.
        value: of one run, or the mean over seeds.
        low, high: 95% confidence interval; of several seeds the one of their mean, by Student's t, which takes the
            values of the seeds for normal; of one run the one it logged, over samples; `None` where there is none.
        n: number of runs behind it; `None` for a published point.
    """

    label: str
    metric: str
    x: float
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


Curves = dict[tuple[str, str], list[Point]]  # by label and metric, in the order of training


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
        output: the picture (PDF, PNG or SVG); the numbers lie beside it as CSV with the columns of `Point`, in
            seconds where `axis` is a time.
        labels: one a run; runs of one label are seeds of one thing, drawn as their mean. By default runs whose
            recipes differ in seeds and folders only share the name of the first.
        metrics: a panel for each; by default those of `TITLES` that were measured.
        points: CSV of published values, see `read_points`.
        axis: "rounds" of adversarial training, 0 being the end of pretraining; "seconds" of wall-clock time since
            the pretraining that the runs share (see `shared_end`); or "epochs" of pretraining, then rounds.

    Returns:
        Where picture and numbers are, and what could not be drawn, for the terminal; raises a UserError for what
        cannot be read, drawn or written.
    """
    picture = _checked_output(Path(output), points)
    runs = _read_runs(run_dirs, labels)
    _check_axis(runs, axis, points)
    chosen = _chosen_metrics(runs, metrics)
    curves, absent, gaps = _curves(runs, chosen, axis)
    unequal, notes = unequal_signatures(runs), absent + gaps
    for metric in filter(unequal.get, chosen):
        notes.append(f"{metric} was measured under unequal signatures ({'; '.join(unequal[metric].values())})")
    published: Curves = {}
    for point in read_points(points) if points else ():
        published.setdefault((point.label, point.metric), []).append(point)
    panels = _panels(runs, curves, chosen, axis)
    notes += [f"{metric}: nothing to draw over {axis}, so no panel" for metric in chosen if metric not in panels]
    for metric in dict.fromkeys(metric for _, metric in published if metric not in panels):
        notes.append(f"{points}: points of {metric} are not drawn, as no panel shows it")
    drawn = [*curves.values(), *(found for (_, metric), found in published.items() if metric in panels)]
    rows, numbers = [point for curve in drawn for point in curve], picture.with_suffix(".csv")
    try:
        _draw(curves, published, panels, axis, _start_of_rounds(runs, axis)).savefig(picture, dpi=150)
        _write_numbers(rows, numbers)
    except OSError as error:
        problem = f"cannot write {str(error.filename or picture)!r} ({error.strerror})"
        raise UserError(problem, fix="name another --output") from error
    return "\n".join([f"picture: {picture}", f"numbers: {numbers} ({len(rows)} rows)", *notes])


def draw_runs(runs: Sequence[Run], path: Path, metrics: Iterable[str] = tuple(TITLES)) -> tuple[bool, list[str]]:
    """Draw runs over epochs of pretraining, then rounds: a panel for each of the first metrics with two points.

    Returns:
        Whether there was anything to draw, and notes on what is missing in the picture.
    """
    curves, _, notes = _curves(runs, list(metrics), "epochs")
    points = Counter(metric for (_, metric), curve in curves.items() for _ in curve)
    panels = [metric for metric in metrics if points[metric] > 1]
    if panels:
        figure = _draw(curves, {}, panels[:MOST_PANELS], "epochs", _start_of_rounds(runs, "epochs"))
        figure.savefig(path, dpi=150)
    if len(panels) > MOST_PANELS:
        notes.append(f"the picture shows the first {MOST_PANELS} of {len(panels)} metrics; --metrics chooses others")
    return bool(panels), notes


def read_points(path: str) -> list[Point]:
    """Published values: CSV with a head, columns `round,metric,value` and perhaps `label`, by default the file's name.

    Raises:
        UserError: there is no such file, or a column or row of it is not as expected.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the points {path!r} ({why})", "a CSV file in UTF-8") from error
    columns = [name.strip() for name in rows[0]] if rows else []
    if not set(POINT_COLUMNS) <= set(columns) <= {*POINT_COLUMNS, "label"} or len(set(columns)) < len(columns):
        found = f"points {path!r} with the columns {','.join(columns) or 'none'}"
        raise UserError(found, "round,metric,value and perhaps label", "name them in the first line")
    points = [_published(row, columns, path, number) for number, row in enumerate(rows[1:], start=2) if row]
    if not points:
        raise UserError(f"points {path!r} without a row", "one row for each point", "leave --points out")
    return points


def _published(cells: list[str], columns: list[str], path: str, number: int) -> Point:
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    try:
        x, value = float(row["round"]), float(row["value"])
        right = len(cells) == len(columns) and 0 <= x < math.inf and math.isfinite(value) and row["metric"]
    except (KeyError, ValueError):
        right = False
    if not right:
        expected = f"{','.join(columns)}: a round of at least 0, the name of a metric, a number"
        raise UserError(f"row {number} of the points {path!r} ({','.join(cells)})", expected, "fix that line")
    return Point(row.get("label") or Path(path).stem, row["metric"], x, value)


# --- What is asked for -----------------------------------------------------------------------------------------------


def _checked_output(picture: Path, points: str | None) -> Path:
    """Refuse before any work what cannot be written, and what would be written over the points."""
    given, numbers = f"--output {str(picture)!r}", picture.with_suffix(".csv")
    if picture.suffix.lower() not in FORMATS:
        raise UserError(given, f"a file in {', '.join(FORMATS)}", "change the suffix")
    if not picture.parent.is_dir():
        raise UserError(f"{given} is in a folder that does not exist", fix="make the folder first")
    if points is not None and numbers.resolve() == Path(points).resolve():
        raise UserError(f"{given} would write its numbers over the points {points!r}", fix="choose another name")
    head = ",".join(Point._fields).encode()
    if numbers.is_file() and numbers.stat().st_size and numbers.read_bytes()[: len(head)] != head:
        problem = f"{given} would overwrite {numbers.name}, which does not hold drawn numbers"
        raise UserError(problem, fix="choose another name, or move that file")
    return picture


def _read_runs(folders: Sequence[str], labels: Sequence[str] | None) -> list[Run]:
    """Runs with the labels of their curves."""
    if labels is not None and len(labels) != len(folders):
        expected, fix = "one label for each run, in their order", "repeat a label for the seeds of one thing"
        raise UserError(f"{len(labels)} labels for {len(folders)} runs", expected, fix)
    runs = read_runs(folders)
    if labels is None:
        name_experiments(runs)
    for run, label in zip(runs, labels or (), strict=labels is not None):
        run.label = label
    for label, members in by_label(runs).items():
        epochs = sorted({run.pretraining for run in members if run.rounds})
        if len(epochs) > 1:
            problem = f"runs with {' and '.join(map(str, epochs))} epochs of pretraining share the label {label!r}"
            raise UserError(problem, "seeds of one thing under one label", "give --labels that tell them apart")
    return runs


def _check_axis(runs: Sequence[Run], axis: str, points: str | None) -> None:
    if axis == "rounds" and (without := [run.name for run in runs if not run.rounds]):
        fix = "set --axis seconds (beside maximum likelihood that goes on) or --axis epochs, or leave it out"
        raise UserError(f"no adversarial rounds in {', '.join(without)}", fix=fix)
    if axis != "rounds" and points is not None:
        raise UserError(f"--points with --axis {axis}", "--axis rounds, by which points are known", "leave one out")


def _chosen_metrics(runs: Sequence[Run], metrics: Sequence[str] | None) -> list[str]:
    chosen = list(dict.fromkeys(metrics or [name for name in TITLES if name in measured_metrics(runs)]))
    if not chosen:
        known = ", ".join(measured_metrics(runs)) or "nothing"
        raise UserError(f"the runs measured none of {', '.join(TITLES)}", fix=f"choose --metrics from {known}")
    check_measured(runs, chosen)
    return chosen


def _panels(runs: Sequence[Run], curves: Curves, chosen: Sequence[str], axis: str) -> list[str]:
    """The chosen metrics that have a curve; raises a `UserError` if none has."""
    panels = [metric for metric in chosen if any(metric == name for _, name in curves)]
    if not panels:
        fix = f"choose other metrics or another axis ({', '.join(measured_metrics(runs))} were measured)"
        problem = f"no value of {', '.join(chosen)} to draw over {axis}"
        raise UserError(problem, "one measured there by all runs of a label", fix)
    return panels


# --- Curves ----------------------------------------------------------------------------------------------------------


def shared_end(run: Run, runs: Sequence[Run]) -> float:
    """The time at which a run had done the pretraining that the runs share, in seconds of its log.

    With rounds, that is the end of the generator's own pretraining: the time of D's pretraining belongs to the
    adversarial method. A run without rounds shares it with those runs with rounds that began from the same weights
    (`generator.pretrained`, or fresh ones). One that began from weights of its own, and every run where none has
    rounds, is timed from its start.

    Raises:
        UserError: a run without rounds has no such time, or no single one.
    """
    adversarial, fix = [other for other in runs if other.rounds], "leave it out, or set --axis epochs"
    if run.rounds:
        epochs = {run.pretraining}
    elif fellows := [other for other in adversarial if other.start == run.start]:
        epochs = {other.pretraining for other in fellows}
    elif run.start or not adversarial:
        epochs = {0}
    else:
        problem = f"{run.name} has no rounds and began from fresh weights, which no run with rounds did"
        raise UserError(problem, "a common beginning from which to count seconds", fix)
    if len(epochs) > 1 or max(epochs) > run.pretraining:
        begun = f"beside runs whose rounds begin after {' and '.join(map(str, sorted(epochs)))}"
        problem = f"{run.name} has {run.pretraining} epochs and no rounds, {begun}"
        raise UserError(problem, "one beginning of the rounds, and at least as many epochs", fix)
    (end,) = epochs
    times = [_seconds(line, run) for line in run.lines if unit(line) == ("pretrain_generator", end)]
    return times[-1] if times else 0.0


def _seconds(line: dict[str, Any], run: Run) -> float:
    if not is_number(line.get("seconds")):
        raise UserError(f"a line of {run.name} without `seconds`", "a log with times", "set --axis rounds or epochs")
    return line["seconds"]


def _placed(run: Run, axis: str, zero: float) -> Iterator[tuple[tuple[str, int], float, dict[str, Any]]]:
    """Lines of a log that have a place on the axis: unit, x, the line."""
    for line in run.lines:
        phase, number = unit(line)
        if phase == "pretrain_discriminator":  # it leaves the generator as it is
            continue
        pretraining = phase == "pretrain_generator"
        if axis == "epochs":
            yield (phase, number), number if pretraining else run.pretraining + number, line
        elif axis == "seconds":
            if (x := _seconds(line, run) - zero) >= 0:
                yield (phase, number), x, line
        elif not pretraining or number == run.pretraining:
            yield (phase, number), 0 if pretraining else number, line


def _curves(runs: Sequence[Run], metrics: Sequence[str], axis: str) -> tuple[Curves, list[str], list[str]]:
    """The curves, notes on what was not measured at all, and notes on what was and is left out."""
    curves: Curves = {}
    absent, gaps = [], []
    for label, members in by_label(runs).items():
        placed = [list(_placed(run, axis, shared_end(run, runs) if axis == "seconds" else 0.0)) for run in members]
        for metric in metrics:
            found = [{key: (x, line) for key, x, line in lines if is_number(line.get(metric))} for lines in placed]
            # where not all seeds have measured, a mean would jump from one subset of them to another
            shared = [key for key in found[0] if all(key in values for values in found)]
            everything = {key for values in found for key in values}
            if shared:
                curves[label, metric] = [_point(label, metric, [values[key] for values in found]) for key in shared]
            if not everything:
                absent.append(f"{label}: {metric} was not measured, or not over {axis}")
            elif not shared:
                why = f"its {len(members)} runs share no place where it was measured"
                gaps.append(f"{label}: {metric} is not drawn, as {why}")
            elif len(shared) < len(everything):
                places = f"{len(shared)} of {len(everything)} places, those which all of its {len(members)} runs"
                gaps.append(f"{label}: {metric} is drawn at {places} measured")
    return curves, absent, gaps


def _point(label: str, metric: str, found: Sequence[tuple[float, dict[str, Any]]]) -> Point:
    """One run's value with the interval that it logged, or the mean of several with the interval over them."""
    xs, values = [x for x, _ in found], [line[metric] for _, line in found]
    if len(found) == 1:
        low, high = found[0][1].get("intervals", {}).get(metric, (None, None))
        known = is_number(low) and is_number(high)
        return Point(label, metric, xs[0], values[0], low if known else None, high if known else None, 1)
    from scipy.stats import t

    mean, half = float(np.mean(values)), t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return Point(label, metric, float(np.mean(xs)), mean, float(mean - half), float(mean + half), len(values))


def _write_numbers(points: Sequence[Point], path: Path) -> None:
    """The drawn numbers, sorted by label, metric and x."""
    ordered = sorted(points, key=lambda point: (point.label, point.metric, point.x))
    rounded = (p._replace(x=int(p.x) if float(p.x).is_integer() else round(p.x, 3)) for p in ordered)
    write_csv(path, Point._fields, rounded)


# --- The picture -----------------------------------------------------------------------------------------------------


def _start_of_rounds(runs: Sequence[Run], axis: str) -> float | None:
    """Where the adversarial phase begins on the axis of epochs, if all runs agree."""
    epochs = {run.pretraining for run in runs if run.rounds}
    return epochs.pop() if axis == "epochs" and len(epochs) == 1 else None


def _time_unit(seconds: float) -> tuple[str, float]:
    return ("seconds", 1) if seconds < 600 else ("minutes", 60) if seconds < 3 * 3600 else ("hours", 3600)


def _draw(
    curves: Curves, published: Curves, panels: Sequence[str], axis: str, start_of_rounds: float | None
) -> Figure:
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    width = max(6.0, 4.4 * columns)
    figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    time, scale = _time_unit(max(curve[-1].x for curve in curves.values())) if axis == "seconds" else ("", 1.0)
    begins = min(point.x for points in (*curves.values(), *published.values()) for point in points)
    x_label = {
        "rounds": "adversarial round" + (" (0: end of pretraining)" if begins == 0 else ""),
        "seconds": f"{time} since the shared pretraining",
        "epochs": "epochs of pretraining, then rounds",
    }[axis]
    handles: dict[tuple[bool, str], Any] = {}
    for index, metric in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for draw, series in ((_draw_curve, curves), (_draw_published, published)):
            styles = list(dict.fromkeys(label for label, _ in series))
            for (label, name), points in series.items():
                if name == metric:
                    legend = (draw is _draw_curve, _name(label, points[0].n))
                    handles[legend] = draw(axes, points, styles.index(label), scale)
        if start_of_rounds:
            axes.axvline(start_of_rounds, color="grey", linestyle="--", linewidth=1, zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=axis != "seconds"))
        _finish_panel(axes, metric, x_label)
    names = [name for _, name in handles]
    fitting = min(4, len(names), max(1, int(width * 11 // (max(map(len, names)) + 7))))
    figure.legend(handles.values(), names, loc="outside upper center", ncols=fitting, frameon=False)
    figure.set_size_inches(width, 3.5 * rows + 0.6 + 0.22 * math.ceil(len(names) / fitting))
    drawn = [curve for (_, metric), curve in curves.items() if metric in panels]
    figure.supxlabel(_caption(drawn, start_of_rounds), fontsize=8, color="#666666")
    return figure


def _caption(drawn: Sequence[Sequence[Point]], start_of_rounds: float | None) -> str:
    """What bars, bands and the dashed line mean, where there are any."""
    known = [curve for curve in drawn if any(point.low is not None for point in curve)]
    seeds = [len(curve) for curve in known if curve[0].n != 1]
    marks = {
        "bars: 95% interval over samples": len(known) > len(seeds),
        "bands: 95% interval of the mean over seeds (Student's t)": any(length > 1 for length in seeds),
        "bars of several seeds: 95% interval of their mean (Student's t)": 1 in seeds,
        "dashed: adversarial training begins": bool(start_of_rounds),
    }
    return "; ".join(text for text, holds in marks.items() if holds)


def _name(label: str, runs: int | None) -> str:
    """As the legend shows it: a dollar is no mathematics, and names that begin with _ are shown as well."""
    seeds = f" ({runs} seeds)" if runs and runs > 1 else ""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$") + seeds


def _draw_curve(axes: Axes, curve: Sequence[Point], number: int, scale: float) -> Any:
    """A line with bars for the intervals of one run's estimates, or with a band for those over seeds."""
    color, style = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
    marker = "o" if len(curve) <= MARKED else None
    xs, values = [point.x / scale for point in curve], [point.value for point in curve]
    options: dict[str, Any] = {"linewidth": 1.6, "marker": marker, "markersize": 2.8, "zorder": 3}
    if len(curve) == 1:  # no line leads the eye to it
        options["markersize"] = 7
    (line,) = axes.plot(xs, values, color=color, linestyle=style, **options)
    known: Any = [(x, point.low, point.high) for x, point in zip(xs, curve, strict=True) if point.low is not None]
    if known and (curve[0].n == 1 or len(curve) == 1):
        width, alpha = (1.6, 1.0) if len(curve) == 1 else (0.8, 0.45)
        axes.vlines(*np.transpose(known), color=color, linewidth=width, alpha=alpha, zorder=2)
    elif known:
        axes.fill_between(*np.transpose(known), color=color, alpha=0.18, linewidth=0, zorder=2)
    return line


def _draw_published(axes: Axes, points: Sequence[Point], number: int, scale: float) -> Any:
    style: dict[str, Any] = {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": "#222222"}
    style |= {"markeredgewidth": 1.2, "linestyle": "none", "marker": "DsP^v*X"[number % 7], "zorder": 4}
    return axes.plot([point.x / scale for point in points], [point.value for point in points], **style)[0]


def _finish_panel(axes: Axes, metric: str, x_label: str) -> None:
    nats = next((name for start, name in MEASURED_IN.items() if metric.startswith(start)), "")
    axes.set(xlabel=x_label, ylabel="nats per sequence" if nats and "_sequence" in metric else nats)
    axes.set_title((TITLES | DIRECTIONS | SHARES).get(metric, metric), fontsize=11)
    axes.grid(linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    if high - low < 1e-4 * max(abs(low), abs(high)):  # a value at its bound is flat, not noise in the tenth digit
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.02 * abs(middle), middle + 0.02 * abs(middle))
    axes.ticklabel_format(axis="y", useOffset=False)
