"""Runs side by side: a table with means and spreads over seeds, and all learning curves in one picture."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from ..evaluation.report import format_value
from ..evaluation.sweep import COLORS
from ..errors import UserError


# Where the next line of `metrics.jsonl` stands; everything else in it is a metric.
POSITION = ("step", "phase", "epoch", "round", "global_step", "seconds")
# How fast the run was, and how much memory it took: no measure of what it made.
COST = r"_per_second$|_seconds_left$|^peak_"
# Settings in which runs of one experiment may differ.
SEED_SETTINGS = {
    "seed",
    "data_seed",
    "output_dir",
    "run_name",
    "logging_dir",
    "overwrite_run",
    "resume_from_checkpoint",
}


@dataclass
class Run:
    """The record of one run.

    Attributes:
        name: of its folder.
        experiment: what it repeats: equal for runs that differ in nothing but the seed.
        lines: of `metrics.jsonl`.
        start: the weights that the generator began from (`generator.pretrained`); `None` for fresh ones.
    """

    name: str
    experiment: str
    lines: list[dict[str, Any]]
    start: str | None = None

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        """The metric against epochs of pretraining, then rounds of adversarial training."""
        epochs = self.pretraining
        points = [
            (_x(line, epochs), line[metric])
            for line in self.lines
            if line.get("phase") != "pretrain_discriminator" and is_number(line.get(metric))
        ]
        return [x for x, _ in points], [y for _, y in points]

    @property
    def pretraining(self) -> int:
        """Epochs of the generator's pretraining."""
        epochs = [line.get("epoch") or 0 for line in self.lines if line.get("phase") == "pretrain_generator"]
        return int(max(epochs, default=0))

    @property
    def rounds(self) -> int:
        """Adversarial rounds."""
        rounds = [line.get("round") or 0 for line in self.lines if line.get("phase") == "adversarial"]
        return int(max(rounds, default=0))

    def last(self, metric: str) -> float | None:
        """The last measured value."""
        values = [line[metric] for line in self.lines if is_number(line.get(metric))]
        return values[-1] if values else None


def _x(line: dict[str, Any], epochs: int) -> float:
    if line.get("phase") == "pretrain_generator":
        return line.get("epoch") or 0
    return epochs + (line.get("round") or 0)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass
class Comparison:
    """The last values of several runs.

    Attributes:
        metrics: names, the columns.
        rows: for each experiment the runs' names, and for each metric the mean, the standard deviation over runs
            (`None` for a single one) and the number of runs that measured it.
        runs: the runs themselves.
    """

    metrics: list[str]
    rows: dict[str, tuple[list[str], dict[str, tuple[float, float | None, int]]]]
    runs: list[Run] = field(repr=False, default_factory=list)

    def __str__(self) -> str:
        lines = [f"| experiment | runs | {' | '.join(self.metrics)} |", "|---" * (len(self.metrics) + 2) + "|"]
        for experiment, (names, values) in self.rows.items():
            cells = [_cell(*values[metric]) if metric in values else "-" for metric in self.metrics]
            lines.append(f"| {experiment} | {len(names)} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _cell(mean: float, deviation: float | None, count: int) -> str:
    return format_value(mean) + (f" ± {format_value(deviation)} ({count})" if deviation is not None else "")


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        ValueError: there is no `metrics.jsonl`, it is empty, a line of it is not a JSON object, or there is a
            `recipe.yaml` that is no recipe.
    """
    folder = Path(folder)
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(
f"{str(folder)!r} without metrics.jsonl",
"a run's folder",
"check the path")
    lines = []
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
f"{str(path)!r}, which is not UTF-8 ({error})",
"a run's log",
"mend the file") from error
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
f"line {number} of {str(path)!r}, which is no JSON ({error})",
"one object a line",
"was the run cut off while writing? remove that line") from error
        if not isinstance(line, dict):
            raise UserError(
f"line {number} of {str(path)!r}",
"a JSON object a line",
"mend the file")
        lines.append(line)
    if not lines:
        raise UserError(
f"{str(path)!r} without a line",
"a run that has measured",
"train it first")
    name = folder.resolve().name
    settings = _read_recipe(folder / "recipe.yaml")
    generator = settings.get("generator") if settings is not None else None
    start = generator.get("pretrained") if isinstance(generator, dict) else None
    return Run(name, _experiment(settings, name), lines, start)


def _read_recipe(path: Path) -> dict[str, Any] | None:
    """The settings of a run; `None` where the folder holds none."""
    if not path.exists():
        return None
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(
f"{str(path)!r}, which is no YAML ({why})",
"a recipe",
"mend the file") from error
    if not isinstance(settings, dict):
        found = "is empty" if settings is None else f"holds a {type(settings).__name__}"
        raise UserError(
f"{str(path)!r}, which {found}",
"a recipe, settings by name",
"mend the file")
    return settings


def _experiment(settings: dict[str, Any] | None, name: str) -> str:
    """A key that is equal for runs of one recipe with different seeds: the recipe without seeds, or the name."""
    if settings is not None:
        return json.dumps(_without_seeds(settings), sort_keys=True, default=str)
    return re.sub(r"[-_.]?(seed|run)?[-_.]?\d+$", "", name) or name


def _without_seeds(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_seeds(value) for key, value in node.items() if key not in SEED_SETTINGS}
    return [_without_seeds(value) for value in node] if isinstance(node, list) else node


def name_experiments(runs: Sequence[Run]) -> None:
    """Give each experiment the name of its first run, without the number of the seed where it holds several."""
    names: dict[str, str] = {}
    for run in runs:
        if run.experiment not in names:
            repeated = sum(other.experiment == run.experiment for other in runs) > 1
            name = re.sub(r"[-_.]?(seed|run)?[-_.]?\d+$", "", run.name) if repeated else run.name
            name = name or run.name
            taken = sum(re.sub(r" \(\d+\)$", "", other) == name for other in names.values())
            names[run.experiment] = f"{name} ({taken + 1})" if taken else name
    for run in runs:
        run.experiment = names[run.experiment]


def compare_runs(
    run_dirs: Sequence[str], metrics: Sequence[str] | None = None, output: str | None = None
) -> Comparison:
    """Compare runs: mean and spread of their last values over seeds, and their learning curves.

    Runs whose recipes differ in nothing but seeds and folders are one experiment.

    Args:
        run_dirs: folders of runs.
        metrics: names of the values to compare; by default all that any run measured.
        output: folder for `comparison.md`, `comparison.csv` and `comparison.png`; nothing is written without it.

    Raises:
        ValueError: no folder, a folder without a readable record, or a metric that no run has measured.
    """
    if not run_dirs:
        raise UserError(
"no runs",
"folders of runs",
"name at least one")
    runs = [read_run(folder) for folder in run_dirs]
    name_experiments(runs)
    chosen = list(metrics) if metrics else measured_metrics(runs)
    for metric in chosen:
        if all(run.last(metric) is None for run in runs):
            known = ", ".join(measured_metrics(runs)) or "none"
            raise UserError(
f"metric {metric!r}",
f"one that a run measured ({known})",
"check the name")
    rows: dict[str, tuple[list[str], dict]] = {}
    for experiment in dict.fromkeys(run.experiment for run in runs):
        members = [run for run in runs if run.experiment == experiment]
        values = {}
        for metric in chosen:
            last = [value for run in members if (value := run.last(metric)) is not None]
            if last:
                deviation = float(np.std(last, ddof=1)) if len(last) > 1 else None
                values[metric] = float(np.mean(last)), deviation, len(last)
        rows[experiment] = [run.name for run in members], values
    comparison = Comparison(chosen, rows, runs)
    if output is not None:
        _write(comparison, Path(output))
    return comparison


def measured_metrics(runs: Sequence[Run]) -> list[str]:
    """Names of all values in the records, those of evaluations first; errors and positions left out."""
    names = dict.fromkeys(name for run in runs for line in run.lines for name in line)
    values = [
        name
        for name in names
        if name not in POSITION
        and not re.search(COST, name)
        and not re.search(r"_(se|low|high)$", name)
        and any(run.last(name) is not None for run in runs)
    ]
    return sorted(values, key=lambda name: not name.startswith(("nll_", "jsd_", "kl_", "bleu_", "self_bleu_")))


def _write(comparison: Comparison, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    picture = output / "comparison.png"
    drawn = draw_curves(comparison.runs, comparison.metrics, picture)
    page = ["# Comparison of runs", "", "Last values: mean ± standard deviation over runs (seeds).", ""]
    page += [str(comparison)]
    page += ["", f"![learning curves]({picture.name})"] if drawn else []
    page += ["", *(f"- {experiment}: {', '.join(names)}" for experiment, (names, _) in comparison.rows.items()), ""]
    (output / "comparison.md").write_text("\n".join(page), encoding="utf-8")
    with (output / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["experiment", "runs", *(f"{m}{end}" for m in comparison.metrics for end in ("", "_sd"))])
        for experiment, (names, values) in comparison.rows.items():
            cells = [cell for metric in comparison.metrics for cell in values.get(metric, (None, None))[:2]]
            writer.writerow([experiment, len(names), *cells])


def draw_curves(runs: Sequence[Run], metrics: Sequence[str], path: Path) -> bool:
    """A panel for each of the first nine metrics, a colour for each experiment, thin lines for runs, thick for means.

    Returns:
        Whether there was a curve to draw.
    """
    metrics = [metric for metric in metrics if any(len(run.curve(metric)[0]) > 1 for run in runs)][:9]
    if not metrics:
        return False
    columns = min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    experiments = list(dict.fromkeys(run.experiment for run in runs))
    for index, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, columns, index + 1)
        for number, experiment in enumerate(experiments):
            members = [run for run in runs if run.experiment == experiment]
            _draw_experiment(axes, members, metric, COLORS[number % len(COLORS)], experiment)
        pretraining = {run.pretraining for run in runs if any(line.get("round") for line in run.lines)}
        if len(pretraining) == 1 and (epochs := pretraining.pop()):
            axes.axvline(epochs, color="grey", linestyle="--", linewidth=1)
        axes.set_title(metric)
        axes.grid(alpha=0.3)
        if index >= len(metrics) - columns:
            axes.set_xlabel("epochs of pretraining, then rounds")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False)
    figure.savefig(path, dpi=150)
    return True


def _draw_experiment(axes, runs: Sequence[Run], metric: str, color: str, label: str) -> None:
    curves = [run.curve(metric) for run in runs]
    for xs, ys in curves:
        single = len(curves) == 1
        axes.plot(xs, ys, color=color, linewidth=1.8 if single else 0.7, alpha=1 if single else 0.5)
    if len(curves) > 1:
        by_x: dict[float, list[float]] = {}
        for xs, ys in curves:
            for x, y in zip(xs, ys, strict=True):
                by_x.setdefault(x, []).append(y)
        # where not all runs have measured, a mean would jump from one subset of runs to another
        shared = sorted(x for x, values in by_x.items() if len(values) == len(curves))
        axes.plot(shared, [np.mean(by_x[x]) for x in shared], color=color, linewidth=2)
    axes.plot([], [], color=color, linewidth=2, label=label)
