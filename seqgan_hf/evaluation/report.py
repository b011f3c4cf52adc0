"""The suite's result as a page, a record and pictures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.lines import one_line
from .flags import compared
from .record import Estimate
from .suite import Evaluation


MODEL_COLOR, REAL_COLOR = "#2166ac", "#444444"
BETTER = {"higher": "higher", "lower": "lower", "real": "near real text"}
SHOWN_TEXTS = 10


def write_report(evaluation: Evaluation, output: Path, title: str, settings: Mapping[str, object]) -> dict:
    """Write `metrics.json`, whose content is returned, `report.md` and pictures into a folder, made if need be."""
    output.mkdir(parents=True, exist_ok=True)
    content = evaluation.to_dict() | {"settings": dict(settings)}
    write_json(output / "metrics.json", content)
    drawn = {"quality_diversity.png": draw_quality_diversity(evaluation), "lengths.png": draw_lengths(evaluation)}
    pictures = [name for name, figure in drawn.items() if figure is not None]
    for name in pictures:
        drawn[name].savefig(output / name, dpi=150)
    (output / "report.md").write_text(report_page(evaluation, title, pictures), encoding="utf-8")
    return content


def write_json(path: Path, content: Mapping) -> None:
    """Indented; functions among the settings are written as their `str`."""
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; `None` is written as nothing."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def format_value(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 or (value == int(value) and abs(value) >= 10) else f"{value:.3f}"


def format_estimate(estimate: Estimate | None) -> str:
    """The value and its interval, `0.740 [0.735, 0.745]`."""
    if estimate is None or estimate.low is None:
        return format_value(None if estimate is None else estimate.value)
    return f"{format_value(estimate.value)} [{format_value(estimate.low)}, {format_value(estimate.high)}]"


def report_page(evaluation: Evaluation, title: str, pictures: Iterable[str]) -> str:
    """The report in Markdown: flags, the table with the row of real text beside the samples', notes, signatures."""
    lines = [f"# {title}", "", "## What is wrong", ""]
    lines += [f"- {flag}" for flag in evaluation.flags] or [_all_clear(evaluation)]
    intervals = "With 95% confidence intervals over samples; real texts are taken as fixed."
    lines += ["", "## Values", "", intervals, "", "| metric | samples | real text | good is |", "|---|---|---|---|"]
    for name, result in evaluation.results.items():
        ours, real = format_estimate(result), format_estimate(result.real)
        lines.append(f"| {name} | {ours} | {real} | {BETTER[result.better]} |")
    lines += ["", *(f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in pictures), ""]
    if evaluation.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in evaluation.notes), ""]
    if evaluation.texts is not None:
        shown = [one_line(text).replace("`", "'") or "(empty)" for text in evaluation.texts.texts[:SHOWN_TEXTS]]
        lines += [f"## The first {len(shown)} samples", "", "```text", *shown, "```", ""]
    lines += ["## Signatures", "", "Only values with equal signatures can be compared.", "", "```text"]
    lines += [f"{name}|{result.signature}" for name, result in evaluation.results.items()]
    return "\n".join([*lines, "```", ""])


def _all_clear(evaluation: Evaluation) -> str:
    """That nothing is wrong, and what this was found on."""
    judged, others = compared(evaluation.results)
    found = f"None of these lies on the bad side of real text's by more than the intervals: {', '.join(judged)}."
    return found + (f" Not judged, as an interval is missing: {', '.join(others)}." if others else "")


def draw_quality_diversity(evaluation: Evaluation) -> Figure | None:
    """BLEU-n and Self-BLEU-n of samples and of real text, with intervals; `None` if neither was measured."""
    families = {"BLEU (quality)": "bleu_", "Self-BLEU (repetition)": "self_bleu_"}
    named = {label: [n for n in evaluation.results if n.startswith(start)] for label, start in families.items()}
    shown = [(label, names) for label, names in named.items() if names]
    if not shown:
        return None
    figure = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (label, names) in zip(panels, shown, strict=True):
        results, positions = [evaluation.results[name] for name in names], np.arange(len(names))
        _points(axes, positions - 0.08, results, "samples", MODEL_COLOR, "o")
        if all(result.real for result in results):
            _points(axes, positions + 0.08, [result.real for result in results], "real text", REAL_COLOR, "D")
        axes.set_xticks(positions, [name.rsplit("_", 1)[1] for name in names])
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.02), xlabel="n", title=label)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _points(axes: Axes, xs: np.ndarray, estimates: Sequence[Estimate], label: str, color: str, marker: str) -> None:
    """Points with their intervals where they have one."""
    centres = np.array([e.value for e in estimates])
    errors = np.array([(e.value - e.low, e.high - e.value) if e.low is not None else (0.0, 0.0) for e in estimates]).T
    style: dict[str, Any] = {"fmt": marker, "color": color, "label": label, "markersize": 6, "capsize": 3}
    axes.errorbar(xs, centres, yerr=errors.clip(min=0), **style)


def draw_lengths(evaluation: Evaluation) -> Figure | None:
    """How long samples and real texts are, in tokens; `None` where there are no texts."""
    if evaluation.texts is None:
        return None
    sets = [("samples", evaluation.texts, MODEL_COLOR), ("real text", evaluation.real_texts, REAL_COLOR)]
    lengths = {label: (np.array([len(text) for text in texts.tokens]), color) for label, texts, color in sets if texts}
    longest = max(int(values.max()) for values, _ in lengths.values())
    width = max(1, math.ceil((longest + 1) / 60))  # at most 60 bars
    edges = np.arange(0, longest + 1 + width, width) - 0.5
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for label, (values, color) in lengths.items():
        shares = np.histogram(values, edges)[0] / len(values)
        axes.stairs(shares, edges, color=color, label=label, linewidth=1.6, fill=label == "samples", alpha=0.55)
    xlabel = "tokens" if width == 1 else f"tokens (bars of {width})"
    axes.set(xlabel=xlabel, ylabel="share of texts", title="Length")
    axes.legend(frameon=False)
    return figure
