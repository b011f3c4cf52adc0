"""Corpora that are read, tokenized and padded while training, and never stored."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset

from ..errors import DataError
from .sources import reading_stream
from .splitting import Part, check_nulls, is_blank


# Lines held out of a stream unless told otherwise: a share of an unknown number of lines cannot be cut.
EVAL_SIZE = 1000
# Training lines of a stream whose lengths and unknown tokens stand for all.
FIRST_LINES = 1000


@dataclass
class Stream:
    """Training lines that are read while training.

    Attributes:
        rows: blank lines are still among them; the held-out lines are not.
        start: number of the first of these rows, for messages.
        first: the first lines that are not blank.
    """

    rows: IterableDataset
    start: int
    first: Part


def split_stream(
    rows: IterableDataset, held_out: IterableDataset | None = None, *, eval_size: int | None, too_long: str
) -> tuple[Stream, Part, dict[str, Any], Callable[[], Iterator[pa.Table]]]:
    """Hold out the first lines of a stream, unless held-out lines are given.

    Returns:
        Training lines, held-out lines, what the report says of them (`None` for what is not counted), and a
        function that gives the training lines in batches, and counts what it reads in the report.

    Raises:
        DataError: if the stream ends before there is a line to train on, or a row holds nothing.
    """
    if eval_size is not None and eval_size < 1:
        raise DataError(f"eval_size={eval_size}", "at least 1 line to hold out")
    rows = rows.with_format(None)
    report: dict[str, Any] = {"held_out": "named", "overlap": None}
    if held_out is None:
        skipped = eval_size or EVAL_SIZE
        report["held_out"] = f"the first {skipped} lines"
        lines, start = _first_lines(rows, skipped, 0)
        # One source instead of several files: processes that share files out would skip some lines of each.
        train = IterableDataset.from_generator(_each, gen_kwargs={"rows": rows.skip(start), "start": start})
    else:
        lines, _ = _first_lines(held_out.with_format(None), eval_size or sys.maxsize, 0)
        train, start, skipped = rows, 0, 0
    first, _ = _first_lines(train, FIRST_LINES, start)
    if len(lines) == 0 or len(first) == 0:
        expected = "at least one line to hold out and one to train on"
        fix = "set a smaller eval_size, or name an eval_file or eval_split"
        raise DataError(f"a stream of only {len(lines)} held-out lines", expected, fix)
    # All lines are tokenized, and found too long, while training.
    unknown = ("read", "blank", "duplicates", "without_tokens", "dropped", "truncated", "lines")
    counts = dict.fromkeys(unknown)
    report |= {"train": counts, "eval": dict.fromkeys(unknown[:3])}

    def batches() -> Iterator[pa.Table]:
        yield from _counted(rows, skipped, counts)
        if too_long == "truncate":
            counts["lines"] = counts["read"] - counts["blank"] - skipped

    return Stream(train, start, first), lines, report, batches


def _each(rows: IterableDataset, start: int) -> Iterator[dict[str, str]]:
    for table in _tables(rows, start):
        yield from table.to_pylist()


def text_table(batch: dict[str, list], start: int) -> pa.Table:
    """A batch of a stream; raise a `DataError` if a value is missing. `start` is the number of its first row."""
    table = pa.table({name: pa.array(values, pa.string()) for name, values in batch.items()})
    check_nulls(table, "streamed", start)
    return table


def _tables(rows: IterableDataset, start: int) -> Iterator[pa.Table]:
    with reading_stream():
        for batch in rows.iter(batch_size=1000):
            yield (table := text_table(batch, start))
            start += table.num_rows


def _first_lines(rows: IterableDataset, size: int, start: int) -> tuple[Part, int]:
    """The first lines that are not blank, and how many rows these are with the blank ones before and among them."""
    lines: list[dict[str, str]] = []
    read = 0
    for table in _tables(rows, start):
        kept = np.flatnonzero(~is_blank(table["text"]))[: size - len(lines)]
        lines += table.take(pa.array(kept)).to_pylist()
        if len(lines) == size:
            return _part(lines), read + int(kept[-1]) + 1
        read += table.num_rows
    return _part(lines), read


def _part(lines: list[dict[str, str]]) -> Part:
    return Part(Dataset.from_list(lines), np.ones(len(lines), dtype=bool))


def _counted(rows: IterableDataset, skipped: int, counts: dict[str, Any]) -> Iterator[pa.Table]:
    """Batches of lines that are not blank, but for the first ones; all are counted on the way."""
    counts |= {"read": 0, "blank": 0}
    for table in _tables(rows, 0):
        blank = is_blank(table["text"])
        counts["read"] += table.num_rows
        counts["blank"] += int(blank.sum())
        kept = table.filter(pa.array(~blank))
        yield kept.slice(skipped)
        skipped = max(0, skipped - kept.num_rows)
