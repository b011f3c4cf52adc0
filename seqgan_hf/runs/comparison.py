"""Runs side by side: a table of their last values, with means and spreads over seeds, and their learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..evaluation.report import format_value, write_csv
from .curves import draw_runs
from .record import Run, by_label, check_measured, measured_metrics, name_experiments, read_runs
from .signatures import split_by_signature


@dataclass
class Comparison:
    """The last values of several runs.

    Attributes:
        metrics: names, the columns; values with unequal signatures have columns of their own.
        rows: for each experiment the runs' names, and for each metric the mean, the standard deviation over runs
            (`None` for a single one) and the number of runs that measured it.
        runs: the runs themselves.
        notes: what the numbers and the picture do not show.
    """

    metrics: list[str]
    rows: dict[str, tuple[list[str], dict[str, tuple[float, float | None, int]]]]
    runs: list[Run] = field(repr=False, default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"| experiment | runs | {' | '.join(self.metrics)} |", "|---" * (len(self.metrics) + 2) + "|"]
        for experiment, (names, values) in self.rows.items():
            cells = [_cell(*values[metric]) if metric in values else "-" for metric in self.metrics]
            lines.append(f"| {experiment} | {len(names)} | {' | '.join(cells)} |")
        return "\n".join([*lines, *([""] if self.notes else []), *(f"- {note}" for note in self.notes)])


def _cell(mean: float, deviation: float | None, count: int) -> str:
    return format_value(mean) + (f" ± {format_value(deviation)} ({count})" if deviation is not None else "")


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
        UserError: no folder, one named twice, or a metric that no run has measured.
        RunFolderError: a folder without a readable record.
    """
    if not run_dirs:
        raise UserError("no runs to compare", fix="name at least one folder of a run")
    runs = read_runs(run_dirs)
    name_experiments(runs)
    check_measured(runs, metrics or ())
    split = split_by_signature(runs)
    columns = [name for metric in metrics or () for name in split.get(metric, [metric])] or measured_metrics(runs)
    comparison = Comparison(columns, {}, runs)
    for experiment, members in by_label(runs).items():
        comparison.notes += _repeated_seeds(experiment, members)
        values = {}
        for metric in comparison.metrics:
            last: dict[str, list[float]] = {}  # by seed, so that a run which stands there twice counts once
            for run in members:
                if (value := run.last(metric)) is not None:
                    last.setdefault(run.seeds or run.name, []).append(value)
            if last:
                means = [float(np.mean(same)) for same in last.values()]
                deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
                values[metric] = float(np.mean(means)), deviation, len(means)
        comparison.rows[experiment] = [run.name for run in members], values
    if output is not None:
        try:
            Path(output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {output!r} ({error.strerror})", "a folder", "choose another") from error
        _write(comparison, Path(output))
    return comparison


def _repeated_seeds(experiment: str, members: Sequence[Run]) -> list[str]:
    """A note on runs of one recipe and one seed, which are one run."""
    seeds = [run.seeds for run in members if run.seeds is not None]
    again = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    named = (", ".join(run.name for run in members if run.seeds == seed) for seed in again)
    return [f"{experiment}: {names} have the same seed: they count once" for names in named]


def _write(comparison: Comparison, output: Path) -> None:
    picture = output / "comparison.png"
    drawn, notes = draw_runs(comparison.runs, picture, comparison.metrics)
    comparison.notes += notes
    what = "Last values: mean ± standard deviation over runs (seeds)."
    page = ["# Comparison of runs", "", what, "", str(comparison)]
    page += ["", f"![learning curves]({picture.name})"] if drawn else []
    page += ["", *(f"- {experiment}: {', '.join(names)}" for experiment, (names, _) in comparison.rows.items()), ""]
    (output / "comparison.md").write_text("\n".join(page), encoding="utf-8")
    head = ["experiment", "runs", *(f"{metric}{end}" for metric in comparison.metrics for end in ("", "_sd"))]
    rows = []
    for experiment, (names, values) in comparison.rows.items():
        cells = [cell for metric in comparison.metrics for cell in values.get(metric, (None, None))[:2]]
        rows.append([experiment, len(names), *cells])
    write_csv(output / "comparison.csv", head, rows)
