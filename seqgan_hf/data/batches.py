"""From rows of token ids to padded batches. Masks say what is real; the padding is never looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor

from ..errors import DataError
from ..samples import Samples
from .sources import reading_stream


class TokenIds(Protocol):
    """What padding needs to know; a `Corpus` will do, and so will the configuration of a generator."""

    bos_token_id: int
    pad_token_id: int | None


# One padded tensor of more elements than this is refused: 2**30 ids and masks take 9 GiB.
LARGEST_TENSOR = 2**30


def to_samples(
    rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence], corpus: TokenIds, max_length: int | None = None
) -> Samples:
    """Pad rows of a corpus: prompts on the left, ids on the right.

    Args:
        rows: a list of rows or, as `dataset[i:j]` gives them, columns; `input_ids` and, optionally, `prompt_ids`.
        corpus: gives `bos_token_id`, the prompt of rows without one, and `pad_token_id`.
        max_length: T, the width of the result; `None` takes the longest row.

    Returns:
        B rows; `prompt_mask` is `None` if no prompt is padded.

    Raises:
        DataError: if there is no row or no `input_ids`, if a row is longer than `max_length`, or if lengths differ and
            there is no padding token.
    """
    if not rows:
        raise DataError("no rows", "at least one", "check the split and the filters")
    if not isinstance(rows, Mapping):
        rows = {name: [row[name] for row in rows] for name in rows[0]}
    if "input_ids" not in rows:
        raise DataError(f"rows with the columns {list(rows)}", "a column 'input_ids'")
    columns = {}
    for name in rows.keys() & {"input_ids", "prompt_ids"}:
        parts = [np.asarray(ids, dtype=np.int64) for ids in ([], *rows[name])]
        columns[name] = np.concatenate(parts), np.fromiter(map(len, rows[name]), dtype=np.int64)
    return _padded(columns, corpus.bos_token_id, corpus.pad_token_id, max_length)


def materialize(
    dataset: Dataset, bos_token_id: int, pad_token_id: int | None, max_length: int | None = None
) -> Samples:
    """All rows of a dataset as one padded record on the CPU, for corpora that fit into memory.

    Args: see `to_samples`; `pad_token_id` may be `None` if all rows are of one length.

    Raises:
        DataError: as `to_samples`, or if the result would take more than 9 GiB.
    """
    if len(dataset) == 0:
        raise DataError("a dataset without rows", "at least one", "check the split and the filters")
    table = dataset.with_format("arrow")[:]
    columns = {name: flat_lists(table[name]) for name in ("input_ids", "prompt_ids") if name in table.column_names}
    return _padded(columns, bos_token_id, pad_token_id, max_length)


def stream_samples(
    dataset: Dataset | IterableDataset, corpus: TokenIds, batch_size: int, max_length: int | None = None
) -> Iterator[Samples]:
    """One pass over a dataset that need not fit into memory, in its own order, as padded batches.

    Shuffle with `dataset.shuffle(seed, buffer_size)` and `dataset.set_epoch(epoch)` first. The last of the batches of
    B = `batch_size` rows may be smaller; the other arguments are those of `to_samples`, for each batch.

    Raises:
        DataError: as `to_samples`, or if a stream cannot be read to its end.
    """
    with reading_stream():
        for rows in dataset.iter(batch_size):
            yield to_samples(rows, corpus, max_length)


def flat_lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values (number of tokens,) and lengths (number of rows,) of a column of lists."""
    if column.null_count:
        raise DataError(f"{column.null_count} rows without ids", "a list in every row", "remove them")
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(values), np.concatenate(lengths).astype(np.int64)


def _padded(columns: dict, bos_token_id: int, pad_token_id: int | None, max_length: int | None) -> Samples:
    values, lengths = columns["input_ids"]
    longest = int(lengths.max(initial=0))
    width = longest if max_length is None else max_length
    if longest > width:
        problem = f"a row of {longest} tokens (row {int(lengths.argmax())})"
        raise DataError(problem, f"at most {width}", "truncate or drop it when loading")
    if pad_token_id is None and bool((lengths != width).any()):
        problem = f"rows of {int(lengths.min())} to {longest} tokens for a width of {width}"
        raise DataError(problem, "one length, as there is no padding token", "give a pad_token_id")
    fill = 0 if pad_token_id is None else pad_token_id
    ids, mask = _place(values, lengths, width, fill, left=False)
    if "prompt_ids" not in columns:
        prompt = torch.full((len(lengths), 1), bos_token_id, dtype=torch.long)
        return Samples(prompt=prompt, ids=ids, mask=mask)
    values, lengths = columns["prompt_ids"]
    prompt, prompt_mask = _place(values, lengths, int(lengths.max(initial=1)), fill, left=True)
    return Samples(prompt=prompt, ids=ids, mask=mask, prompt_mask=None if prompt_mask.all() else prompt_mask)


def _place(values: np.ndarray, lengths: np.ndarray, width: int, fill: int, left: bool) -> tuple[Tensor, Tensor]:
    """Lay flat values out as rows, shape (B, width) each: ids and a mask of the real ones."""
    if len(lengths) * width > LARGEST_TENSOR:
        size = len(lengths) * width * 9 / 2**30
        problem = f"{len(lengths)} rows of up to {width} tokens, {size:.0f} GiB when padded"
        raise DataError(problem, "at most 9 GiB", "set a smaller max_length, or streaming=true")
    positions = np.arange(width)
    mask = positions >= (width - lengths)[:, None] if left else positions < lengths[:, None]
    ids = np.full(mask.shape, fill, dtype=np.int64)
    ids[mask] = values
    return torch.from_numpy(ids), torch.from_numpy(mask)
