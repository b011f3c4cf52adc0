"""Which rows are trained on, which are held out, and how often they repeat.

Memory does not grow with the corpus but for one byte a row: rows are compared by 64-bit hashes that lie in a temporary
file, and are chosen by masks instead of lists of indices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import Dataset

from ..errors import DataError


SCAN_ROWS = 10_000
BLOCK = 1 << 17  # hashes looked at together


@dataclass
class Part:
    """Some rows of a dataset.

    Attributes:
        rows: all of them.
        keep: true for those that belong to the part, shape (N,).
    """

    rows: Dataset
    keep: np.ndarray

    def __len__(self) -> int:
        return int(self.keep.sum())

    def tables(self) -> Iterator[pa.Table]:
        """The rows of the part, some together."""
        for number, table in enumerate(self.rows.with_format("arrow").iter(batch_size=SCAN_ROWS)):
            yield table.filter(pa.array(self.keep[number * SCAN_ROWS : (number + 1) * SCAN_ROWS]))

    def examples(self) -> list[dict[str, Any]]:
        """Ten rows, spread evenly over the part."""
        starts = np.arange(0, len(self.keep), BLOCK)
        ends = np.cumsum(np.add.reduceat(self.keep, starts, dtype=np.int64))
        shown = []
        for rank in np.unique(np.linspace(0, len(self) - 1, num=10, dtype=np.int64)):
            block = int(np.searchsorted(ends, rank, side="right"))
            inside = rank - (ends[block - 1] if block else 0)
            row = starts[block] + np.flatnonzero(self.keep[starts[block] : starts[block] + BLOCK])[inside]
            shown.append(self.rows[int(row)])
        return shown


def check_seed(seed: int) -> None:
    """Raise a `DataError` for a seed that no random source takes."""
    if seed < 0:
        raise DataError(f"seed={seed}", "0 or more")


def split(
    train: Dataset, held_out: Dataset | None, deduplicate: bool, eval_fraction: float, eval_size: int | None, seed: int
) -> tuple[Part, Part, dict[str, Any]]:
    """Leave out blank and (if asked) repeated rows, and hold out rows where no held-out rows are given.

    Returns:
        Training rows, held-out rows, and the counts for the report.

    Raises:
        DataError: if a row holds nothing where text or ids should stand, or nothing is left to train on or to hold
            out.
    """
    with tempfile.TemporaryFile() as train_file, tempfile.TemporaryFile() as eval_file:
        hashes, keep, counts = _scan(train, "training", deduplicate, train_file)
        report: dict[str, Any] = {"held_out": "named", "train": counts}
        if held_out is None:
            cut = _cut(keep, eval_fraction, eval_size, seed)
            parts = Part(train, keep & ~cut), Part(train, cut)
            eval_hashes = hashes
            report |= {"held_out": "cut from the training lines", "eval": {"read": len(parts[1])}}
        else:
            eval_hashes, eval_keep, report["eval"] = _scan(held_out, "held-out", deduplicate, eval_file)
            parts = Part(train, keep), Part(held_out, eval_keep)
        report["overlap"] = _overlap(hashes, parts[0].keep, eval_hashes, parts[1].keep)
    return *parts, report


def _scan(
    rows: Dataset, name: str, deduplicate: bool, file: IO[bytes]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """One pass: a hash of every row, which rows to keep, shape (N,) each, and what was counted."""
    keep = np.zeros(len(rows), dtype=bool)
    hashes = np.memmap(file, dtype=np.uint64, mode="w+", shape=(max(len(rows), 1),))
    start = 0
    for table in rows.with_format("arrow").iter(batch_size=SCAN_ROWS) if len(rows) else ():
        check_nulls(table, name, start)
        stop = start + table.num_rows
        keep[start:stop] = ~is_blank(table.column(0))
        hashes[start:stop] = _hashes(table)
        start = stop
    used = int(keep.sum())
    if used == 0:
        problem = f"{len(rows)} {name} rows, {len(rows)} of them blank"
        raise DataError(problem, "at least one that is not", "check the file or split")
    repeated = _repeated(hashes, keep)
    counts = {"read": len(rows), "blank": len(rows) - used, "duplicates": int(repeated.sum())}
    counts["removed_duplicates"] = counts["duplicates"] if deduplicate else 0
    return hashes, keep & ~repeated if deduplicate else keep, counts


def check_nulls(table: pa.Table, name: str, start: int) -> None:
    """Raise a `DataError` that names the first row without a value; `start` is the number of the first row."""
    for column in table.column_names:
        if table[column].null_count:
            row = start + int(np.flatnonzero(table[column].is_null().to_numpy())[0])
            problem = f"no value (None or NaN) in row {row} of the {name} rows, column {column!r}"
            raise DataError(problem, "a value in every row", "remove the row or fill it")


def is_blank(column: pa.ChunkedArray) -> np.ndarray:
    """True where a text is empty or only white space, or a list is empty, shape (N,)."""
    nested = pa.types.is_nested(column.type)
    lengths = pc.list_value_length(column) if nested else pc.binary_length(pc.utf8_trim_whitespace(column))
    return lengths.to_numpy() == 0


def _hashes(table: pa.Table) -> np.ndarray:
    """Two of ten million different rows have the same hash with probability 3e-6."""
    digest = xxhash.xxh3_64_intdigest
    columns = [table[name].to_pylist() for name in table.column_names]
    if len(columns) == 1 and isinstance(columns[0][0], str):
        encoded = (text.encode() for text in columns[0])
    else:
        encoded = (repr(row).encode() for row in zip(*columns, strict=True))
    return np.fromiter(map(digest, encoded), dtype=np.uint64, count=table.num_rows)


def _blocks(hashes: np.ndarray, keep: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hashes of kept rows and their row numbers, a block at a time."""
    for start in range(0, len(keep), BLOCK):
        rows = start + np.flatnonzero(keep[start : start + BLOCK])
        yield np.asarray(hashes[rows]), rows


def _repeated(hashes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """True for every kept row that was seen before, shape (N,)."""
    with tempfile.TemporaryFile() as file:
        ordered = np.memmap(file, dtype=np.uint64, mode="w+", shape=(int(keep.sum()),))
        filled = 0
        for values, _ in _blocks(hashes, keep):
            ordered[filled : filled + len(values)] = values
            filled += len(values)
        ordered.sort()
        pairs = (ordered[start : start + BLOCK + 1] for start in range(0, len(ordered), BLOCK))
        several = np.unique(np.concatenate([pair[1:][pair[1:] == pair[:-1]] for pair in pairs]))
    repeated = np.zeros(len(keep), dtype=bool)
    seen: set[int] = set()
    for values, rows in _blocks(hashes, keep):
        for value, row in zip(*(array[_member(values, several)].tolist() for array in (values, rows)), strict=True):
            repeated[row] = value in seen
            seen.add(value)
    return repeated


def _member(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """True where a value stands in an ordered array, shape (values,)."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def _overlap(hashes: np.ndarray, keep: np.ndarray, eval_hashes: np.ndarray, eval_keep: np.ndarray) -> dict[str, int]:
    """How many held-out rows are also trained on, and how many different ones these are."""
    held_out = np.sort(np.concatenate([values for values, _ in _blocks(eval_hashes, eval_keep)]))
    shared = [values[_member(values, held_out)] for values, _ in _blocks(hashes, keep)]
    different = np.unique(np.concatenate(shared))
    return {"held_out_lines": int(_member(held_out, different).sum()), "different": len(different)}


def _cut(keep: np.ndarray, fraction: float, size: int | None, seed: int) -> np.ndarray:
    """True for the rows to hold out, a random choice of the kept ones, shape (N,)."""
    rows = int(keep.sum())
    wanted = max(1, round(rows * fraction)) if size is None else size
    if not 1 <= wanted < rows:
        problem = f"{rows} lines to train on, of which {wanted} should be held out"
        raise DataError(problem, "at least 1 line on each side", "name an eval_file or eval_split, or set eval_size")
    rng = np.random.default_rng(seed)
    cut = np.zeros(len(keep), dtype=bool)
    starts = np.arange(0, len(keep), BLOCK)
    available = np.add.reduceat(keep, starts, dtype=np.int64)
    # How many of the chosen rows fall into each block, then which: together a choice without preference.
    chosen = rng.multivariate_hypergeometric(available, wanted, method="marginals")
    for start, count in zip(starts, chosen, strict=True):
        candidates = start + np.flatnonzero(keep[start : start + BLOCK])
        cut[rng.choice(candidates, size=count, replace=False)] = True
    return cut
