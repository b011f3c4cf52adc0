"""Which rows are trained on, which are held out, and how often they repeat: decided on 64-bit hashes of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import Dataset

from .corpus import DataError


SCAN_ROWS = 10_000


@dataclass
class Scan:
    """One pass over a split.

    Attributes:
        hashes: a hash of every row, shape (N,); two of ten million different rows collide with probability 3e-6.
        blank: true where a row holds no text or ids, shape (N,).
    """

    hashes: np.ndarray
    blank: np.ndarray


def scan(rows: Dataset, name: str) -> Scan:
    """Hash every row and find the blank ones.

    Raises:
        DataError: if a row holds nothing at all where text or ids should stand (None, NaN), naming the row.
    """
    hashes, blank = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=bool)
    start = 0
    for table in rows.with_format("arrow").iter(batch_size=SCAN_ROWS):
        check_nulls(table, name, start)
        stop = start + table.num_rows
        blank[start:stop] = is_blank(table.column(table.column_names[0]))
        hashes[start:stop] = _hashes(table)
        start = stop
    return Scan(hashes, blank)


def check_nulls(table: pa.Table, name: str, start: int) -> None:
    for column in table.column_names:
        if table[column].null_count:
            row = start + int(np.flatnonzero(table[column].is_null().to_numpy())[0])
            raise DataError(
                f"got nothing (None or NaN) in row {row} of the {name} rows, column {column!r} -> expected a value in "
                "every row -> remove the row or fill it"
            )


def is_blank(column: pa.ChunkedArray) -> np.ndarray:
    """True where a text is empty or only white space, or a list is empty, shape (N,)."""
    if pa.types.is_nested(column.type):
        lengths = pc.list_value_length(column)
    else:
        lengths = pc.binary_length(pc.utf8_trim_whitespace(column))
    return lengths.to_numpy() == 0


def _hashes(table: pa.Table) -> np.ndarray:
    digest = xxhash.xxh3_64_intdigest
    columns = [table[name].to_pylist() for name in table.column_names]
    if len(columns) == 1 and isinstance(columns[0][0], str):
        return np.fromiter((digest(text.encode()) for text in columns[0]), dtype=np.uint64, count=table.num_rows)
    return np.fromiter(
        (digest(repr(row).encode()) for row in zip(*columns, strict=True)), dtype=np.uint64, count=table.num_rows
    )


def split(
    train: Dataset,
    held_out: Dataset | None,
    deduplicate: bool,
    eval_fraction: float,
    eval_size: int | None,
    seed: int,
) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Leave out blank and (if asked) repeated rows, and hold out rows where no held-out rows are given.

    Returns:
        Training rows, held-out rows, and the counts for the report.

    Raises:
        DataError: if nothing is left to train on or to hold out.
    """
    seen = scan(train, "training")
    kept, counts = _kept(seen, "training", deduplicate)
    report: dict[str, Any] = {"held_out": "named" if held_out is not None else "cut from the training lines"}
    if held_out is None:
        cut = _cut(len(kept), eval_fraction, eval_size, seed)
        report["train"] = counts
        report["eval"] = {"read": int(cut.sum())}
        train_hashes, eval_hashes = seen.hashes[kept[~cut]], seen.hashes[kept[cut]]
        train_rows, eval_rows = _select(train, kept[~cut]), _select(train, kept[cut])
    else:
        eval_seen = scan(held_out, "held-out")
        eval_kept, eval_counts = _kept(eval_seen, "held-out", deduplicate)
        report["train"], report["eval"] = counts, eval_counts
        train_hashes, eval_hashes = seen.hashes[kept], eval_seen.hashes[eval_kept]
        train_rows, eval_rows = _select(train, kept), _select(held_out, eval_kept)
    shared = np.isin(eval_hashes, train_hashes)
    report["overlap"] = {"held_out_lines": int(shared.sum()), "different": len(np.unique(eval_hashes[shared]))}
    return train_rows, eval_rows, report


def _kept(seen: Scan, name: str, deduplicate: bool) -> tuple[np.ndarray, dict[str, int]]:
    """Indices of the rows to keep, ascending, and what was counted."""
    kept = np.flatnonzero(~seen.blank)
    if len(kept) == 0:
        raise DataError(
            f"got {len(seen.blank)} {name} rows, {int(seen.blank.sum())} of them blank -> expected at least one with "
            "text -> look at the file or split"
        )
    _, first = np.unique(seen.hashes[kept], return_index=True)
    duplicates = len(kept) - len(first)
    counts = {"read": len(seen.blank), "blank": len(seen.blank) - len(kept), "duplicates": duplicates}
    if deduplicate:
        kept = kept[np.sort(first)]
    counts["removed_duplicates"] = duplicates if deduplicate else 0
    return kept, counts


def _cut(rows: int, fraction: float, size: int | None, seed: int) -> np.ndarray:
    """True for the rows to hold out, shape (rows,)."""
    wanted = max(1, round(rows * fraction)) if size is None else size
    if not 1 <= wanted < rows:
        raise DataError(
            f"got {rows} lines to train on, of which {wanted} should be held out -> expected at least 1 line on each "
            "side -> name an eval_file or eval_split, or set eval_size"
        )
    cut = np.zeros(rows, dtype=bool)
    cut[np.random.default_rng(seed).choice(rows, size=wanted, replace=False)] = True
    return cut


def _select(rows: Dataset, kept: np.ndarray) -> Dataset:
    return rows if len(kept) == len(rows) else rows.select(kept)
