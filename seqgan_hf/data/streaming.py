"""Corpora that are never held as a whole: read, tokenized and padded while training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset

from .corpus import DataError
from .encoding import Encoding, encode_rows, without_counts
from .splitting import check_nulls, is_blank


# Lines held out of a stream unless told otherwise: a share of an unknown number of lines cannot be cut.
EVAL_SIZE = 1000


def split_stream(
    train: IterableDataset, held_out: IterableDataset | None, eval_size: int | None
) -> tuple[IterableDataset, Dataset, dict[str, Any]]:
    """Hold out the first lines of a stream, unless held-out lines are given.

    Returns:
        Training lines, held-out lines, and what can be said of them in the report: `None` for what was not counted.

    Raises:
        DataError: if the stream ends before there is a line to train on.
    """
    train = _without_blanks(train)
    report: dict[str, Any] = {"held_out": "named", "overlap": None}
    if held_out is None:
        size = EVAL_SIZE if eval_size is None else eval_size
        report["held_out"] = f"the first {size} lines"
        held_out, train = train.take(size), train.skip(size)
    else:
        held_out = _without_blanks(held_out)
        if eval_size is not None:
            held_out = held_out.take(eval_size)
    lines = Dataset.from_list(list(held_out.with_format(None)))
    if len(lines) == 0 or next(iter(train), None) is None:
        raise DataError(
            f"got a stream of {len(lines)} held-out lines and no more -> expected at least one line to hold out and "
            "one to train on -> set a smaller eval_size, or name an eval_file or eval_split"
        )
    report |= {"train": {"lines": None}, "eval": {}}
    return train, lines, report


def _without_blanks(rows: IterableDataset) -> IterableDataset:
    return rows.filter(_not_blank, batched=True, with_indices=True)


def _not_blank(batch: dict[str, list], indices: list[int]) -> list[bool]:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in batch.items()})
    check_nulls(table, "streamed", indices[0])
    return (~is_blank(table["text"])).tolist()


def counted(rows: IterableDataset, counts: dict[str, Any]) -> Iterator[dict[str, list]]:
    """Batches of a stream, whose rows are counted on the way."""
    counts["lines"] = 0
    for batch in rows.iter(batch_size=1000):
        counts["lines"] += len(batch["text"])
        yield batch


def encode_stream(rows: IterableDataset, encoding: Encoding, too_long: str) -> IterableDataset:
    """Token ids while iterating; lines without a token, and, if asked, those that are too long, are left out."""
    settings = {"max_length": encoding.max_length, "too_long": too_long, "fixed": encoding.eos_token_id is None}
    encoded = encode_rows(rows, encoding).filter(_usable, batched=True, fn_kwargs=settings)
    return without_counts(encoded)


def _usable(batch: dict[str, list], max_length: int, too_long: str, fixed: bool) -> list[bool]:
    lengths = np.asarray(batch["length"])
    keep = (lengths > 0) & ((lengths <= max_length) | (too_long == "truncate"))
    if fixed and bool((keep & (lengths < max_length)).any()):
        raise DataError(
            f"got a line of {int(lengths[keep].min())} tokens and eos=false -> expected {max_length} tokens in every "
            "line, as nothing else ends them -> set eos=true, or a smaller max_length"
        )
    return keep.tolist()
