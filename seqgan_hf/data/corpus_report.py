"""The corpus report: what was read, as a page, as numbers, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..errors import DataError
from .corpus import Corpus, DataSource
from .encoding import KNOW_MORE


SPLIT_ROWS = {
    "read": "lines read",
    "blank": "blank lines, left out",
    "duplicates": "repeated lines",
    "removed_duplicates": "repeated lines, left out",
    "without_tokens": "lines without a token, left out",
    "dropped": "too long, left out",
    "truncated": "too long, cut",
    "lines": "lines used",
    "tokens": "tokens used, end tokens included",
    "coverage": "tokens in the vocabulary",
    "length_mean": "tokens a line: mean",
    "length_median": "tokens a line: median",
    "length_99_percent": "tokens a line before cutting: 99 % have at most",
    "length_longest": "tokens a line before cutting: longest",
    "prompt_longest": "tokens of the longest prompt",
    "prompt_coverage": "prompt tokens in the vocabulary",
    "truncated_prompts": "prompts cut at their beginning",
}
LOST = ("blank", "removed_duplicates", "without_tokens", "dropped", "truncated", "truncated_prompts")
COVERAGES = ("coverage", "prompt_coverage")
GOOD_COVERAGE = 0.9
REMEDY = f"All others are the same unknown token: {KNOW_MORE}"

MOST_BINS = 80  # each a whole number of tokens wide


def corpus_report(corpus: Corpus, source: DataSource | str) -> str:
    """What was read, as a page of Markdown.

    Args:
        corpus: what a data source loaded.
        source: the data source, or a name for it.

    Raises:
        DataError: if the source does not count what it reads.
    """
    return _page(_numbers(corpus, source))


def write_corpus_report(corpus: Corpus, source: DataSource | str, output_dir: str | Path) -> None:
    """Save the report, as of `corpus_report`, as `corpus.json`, `corpus.md` and `lengths.png` in a folder.

    Raises:
        DataError: if there can be no such folder, or the source does not count what it reads.
    """
    numbers, folder = _numbers(corpus, source), Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the report cannot be written into {str(folder)!r} ({error.strerror})"
        raise DataError(problem, "a folder, or a path for one", "set --output") from error
    (folder / "corpus.json").write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "corpus.md").write_text(_page(numbers), encoding="utf-8")
    draw_lengths(numbers["lengths"], corpus.max_length).savefig(folder / "lengths.png", dpi=150)


def corpus_lines(corpus: Corpus) -> tuple[list[str], list[str]]:
    """What a run says of its corpus before it begins: a line for each split, and warnings of unknown tokens.

    Both are empty for a source that does not count what it reads.
    """
    lines: list[str] = []
    warnings: list[str] = []
    for split, name in {"train": "Training data", "eval": "Held-out data"}.items():
        if "examples" not in corpus.report:
            continue
        counts = corpus.report[split]
        parts = _labelled(counts, ("lines", *COVERAGES)) + _labelled(counts, [key for key in LOST if counts.get(key)])
        if split == "train" and (first := corpus.report.get("first")):
            lost = _labelled(first, [key for key in LOST if first.get(key)]) or ["no line cut or left out"]
            parts.append(f"of the first {first['read']:,} lines, {', '.join(lost)}")
        lines.append(f"{name}: {'; '.join(parts)}")
        low = [key for key in COVERAGES if counts.get(key, 1.0) < GOOD_COVERAGE]
        warnings += [f"{name}: only {_number(counts[key], key)} of the {SPLIT_ROWS[key]}. {REMEDY}" for key in low]
    return lines, warnings


def _labelled(counts: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{SPLIT_ROWS[key]}: {_number(counts[key], key)}" for key in keys if key in counts]


def _numbers(corpus: Corpus, source: DataSource | str) -> dict[str, Any]:
    named = {"name": source} if isinstance(source, str) else {"class": type(source).__name__}
    if "examples" not in corpus.report:
        raise DataError(f"{[*named.values()][0]} does not count what it reads", "TextData, IdsData or GrammarData")
    settings = {} if isinstance(source, str) else vars(source)
    plain = (str, int, float, list, type(None))
    return {"source": named | {k: v if isinstance(v, plain) else str(v) for k, v in settings.items()}, **corpus.report}


def _number(value: Any, name: str) -> str:
    if value is None or name.endswith("coverage"):
        return "not counted" if value is None else f"{100 * value:.2f} %"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _page(numbers: dict[str, Any]) -> str:
    source = ", ".join(f"{name}={value}" for name, value in numbers["source"].items() if value is not None)
    lines = ["# Corpus", "", f"Source: {source}", ""]
    lines += ["| | training | held out |", "|---|--:|--:|"]
    for name, label in SPLIT_ROWS.items():
        cells = [_number(numbers[s][name], name) if name in numbers[s] else "" for s in ("train", "eval")]
        if any(cells):
            lines.append(f"| {label} | {cells[0]} | {cells[1]} |")
    overlap = numbers["overlap"]
    shared = "{held_out_lines:,} ({different:,} different)".format(**overlap) if overlap else "not counted"
    lines += [
        "",
        f"- held-out lines: {numbers['held_out']}",
        f"- held-out lines that are also trained on: {shared}",
        f"- vocabulary: {numbers['vocab_size']:,} tokens, special tokens included",
        f"- length to generate: {numbers['max_length']:,} tokens (`lengths.png`)",
    ]
    if "first" in numbers:
        read = f"{numbers['first']['read']:,}"
        lines.append(f"- a stream: coverage and lengths of training lines are those of the first {read}")
    lines += [f"- grammar, {name}: {value:.4f}" for name, value in numbers.get("grammar", {}).items()]
    lines += ["", "## Examples", "", "```text"]
    for row in numbers["examples"]:
        lines.append(" => ".join(_shortened(row[name]) for name in ("prompt", "text", "ids") if name in row))
    example = numbers["example"]
    shown = [f"{token!r}={number}" for token, number in zip(example["tokens"], example["input_ids"], strict=True)]
    lines += ["```", "", "The first training line as tokens:", "", "```text", _shortened(" ".join(shown), 2000)]
    if "prompt_ids" in example:
        lines.append(f"after the prompt {_shortened(example['prompt_ids'], 2000)}")
    return "\n".join([*lines, "```", ""])


def _shortened(value: str | list[int], limit: int = 200) -> str:
    """On one line, and without control characters that a terminal would obey."""
    text = value if isinstance(value, str) else " ".join(map(str, value))
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return text if len(text) <= limit else text[:limit] + "..."


def draw_lengths(lengths: dict[int, int], max_length: int) -> Figure:
    """Histogram of the tokens a line, with the length that is generated.

    Args:
        lengths: how many lines have how many tokens.
        max_length: T, the length to generate.
    """
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        longest = max(max(lengths), max_length)
        width = -(-longest // MOST_BINS)
        edges = [width * number + 0.5 for number in range(-(-longest // width) + 1)]
        axes.hist(list(lengths), bins=edges, weights=list(lengths.values()), color="#4878a8")
        axes.axvline(max_length + 0.5, color="#c44e52", linestyle="--", label=f"length to generate: {max_length:,}")
        axes.set(xlabel="tokens a line, end token included", ylabel="training lines")
        axes.legend(frameon=False)
    return figure
