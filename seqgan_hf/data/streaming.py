"""Corpora that are read, tokenized and padded while training, and never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset

from ..errors import DataError
from .sources import reading_stream
from .splitting import Part, check_nulls, is_blank


# Lines held out of a stream unless told otherwise: a share of an unknown number of lines cannot be cut.
EVAL_SIZE = 1000


def split_stream(
    rows: IterableDataset, held_out: IterableDataset | None = None, *, eval_size: int | None, too_long: str
) -> tuple[IterableDataset, Part, dict[str, Any], Callable[[], Iterator[pa.Table]]]:
    """Hold out the first lines of a stream, unless held-out lines are given.

    Returns:
        Training lines, held-out lines, what the report says of them (`None` for what is not counted), and a
        function that gives the training lines in batches, and counts what it reads in the report.

    Raises:
        DataError: if the stream ends before there is a line to train on.
    """
    train, skipped = rows.filter(_not_blank, batched=True, with_indices=True), 0
    report: dict[str, Any] = {"held_out": "named", "overlap": None}
    if held_out is None:
        skipped = EVAL_SIZE if eval_size is None else eval_size
        report["held_out"] = f"the first {skipped} lines"
        held_out, train = train.take(skipped), train.skip(skipped)
    else:
        held_out = held_out.filter(_not_blank, batched=True, with_indices=True)
        if eval_size is not None:
            held_out = held_out.take(eval_size)
    with reading_stream():
        lines = Dataset.from_list(list(held_out.with_format(None)))
        rest = next(iter(train), None)
    if len(lines) == 0 or rest is None:
        expected = "at least one line to hold out and one to train on"
        fix = "set a smaller eval_size, or name an eval_file or eval_split"
        raise DataError(f"a stream of only {len(lines)} held-out lines", expected, fix)
    # Lines are tokenized, and found too long, while training.
    unknown = ("read", "blank", "duplicates", "without_tokens", "dropped", "truncated", "lines")
    counts = dict.fromkeys(unknown)
    report |= {"train": counts, "eval": dict.fromkeys(unknown[:3])}

    def batches() -> Iterator[pa.Table]:
        yield from _counted(rows, skipped, counts)
        if too_long == "truncate":
            counts["lines"] = counts["read"] - counts["blank"] - skipped

    return train, Part(lines, np.ones(len(lines), dtype=bool)), report, batches


def _not_blank(batch: dict[str, list], indices: list[int]) -> list[bool]:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in batch.items()})
    check_nulls(table, "streamed", indices[0])
    return (~is_blank(table["text"])).tolist()


def _counted(rows: IterableDataset, skipped: int, counts: dict[str, Any]) -> Iterator[pa.Table]:
    """Batches of lines that are not blank, but for the first ones; all are counted on the way."""
    counts |= {"read": 0, "blank": 0}
    with reading_stream():
        for table in rows.with_format("arrow").iter(batch_size=1000):
            check_nulls(table, "streamed", counts["read"])
            blank = is_blank(table["text"])
            counts["read"] += table.num_rows
            counts["blank"] += int(blank.sum())
            kept = table.filter(pa.array(~blank))
            yield kept.slice(skipped)
            skipped = max(0, skipped - kept.num_rows)
