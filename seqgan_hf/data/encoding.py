"""From rows of text to rows of token ids, with the counts that the corpus report shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from .corpus import Corpus, DataError
from .splitting import check_nulls, is_blank
from .tokenization import encode_batch, unknown_token_id


MOST_SHOWN = 1000
COUNTS = ("length", "unknown", "prompt_length")


@dataclass
class Encoding:
    """How a line becomes ids.

    Attributes:
        tokenizer: of text; `None` for rows that are lists of ids already.
        bos_token_id: put in front of every prompt.
        eos_token_id: put behind every sequence; `None` for sequences of fixed length.
        max_length: T, where sequences are cut; `None` cuts none.
        max_prompt_length: the last tokens of a prompt to keep; `None` keeps all.
    """

    tokenizer: PreTrainedTokenizerBase | None
    bos_token_id: int
    eos_token_id: int | None
    max_length: int | None
    max_prompt_length: int | None


def check_lengths(max_length: int | None, max_prompt_length: int | None, too_long: str, eval_fraction: float) -> None:
    """Raise a `DataError` for settings that no corpus can meet."""
    for name, value in (("max_length", max_length), ("max_prompt_length", max_prompt_length)):
        if value is not None and value < 1:
            raise DataError(f"got {name}={value} -> expected at least 1, or none -> set it to a number of tokens")
    if too_long not in ("truncate", "drop"):
        raise DataError(f"got too_long={too_long!r} -> expected 'truncate' or 'drop' -> choose one")
    if not 0.0 < eval_fraction < 1.0:
        raise DataError(
            f"got eval_fraction={eval_fraction} -> expected a share between 0 and 1 -> set 0.1, for example"
        )


def encode_table(table: pa.Table, encoding: Encoding) -> pa.Table:
    """Columns `text` and perhaps `prompt` to `input_ids` and perhaps `prompt_ids`, with counts beside them.

    `length` is the number of tokens before cutting, the end token included, or 0 for a line without a token;
    `unknown` the number of unknown tokens among them; `prompt_length` the number of prompt tokens before cutting.
    """
    check_nulls(table, "training or held-out", 0)
    texts = _token_lists(table["text"], encoding)
    end = [] if encoding.eos_token_id is None else [encoding.eos_token_id]
    lengths = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))
    columns = {
        "input_ids": _list_array([(ids + end)[: encoding.max_length] for ids in texts]),
        "length": pa.array(np.where(is_blank(table["text"]) | (lengths == 0), 0, lengths + len(end)), pa.int32()),
        "unknown": pa.array(_unknown(texts, lengths, encoding.tokenizer), pa.int32()),
    }
    if "prompt" in table.column_names:
        prompts = _token_lists(table["prompt"], encoding)
        columns["prompt_length"] = pa.array([len(ids) for ids in prompts], pa.int32())
        kept = slice(encoding.max_prompt_length and -encoding.max_prompt_length, None)
        columns["prompt_ids"] = _list_array([[encoding.bos_token_id, *ids[kept]] for ids in prompts])
    return pa.table(columns)


def _flat(rows: list[list[int]], count: int) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=count)


def _list_array(rows: list[list[int]]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, rows), dtype=np.int32, count=len(rows)), out=offsets[1:])
    return pa.ListArray.from_arrays(offsets, _flat(rows, int(offsets[-1])))


def _token_lists(column: pa.ChunkedArray, encoding: Encoding) -> list[list[int]]:
    if encoding.tokenizer is not None:
        return encode_batch(encoding.tokenizer, column.to_pylist())
    # Rows of ids may end in the end token already.
    return [ids[:-1] if ids and ids[-1] == encoding.eos_token_id else ids for ids in column.to_pylist()]


def _unknown(rows: list[list[int]], lengths: np.ndarray, tokenizer: PreTrainedTokenizerBase | None) -> np.ndarray:
    """How many unknown tokens stand in each row, shape (rows,)."""
    unknown = None if tokenizer is None else unknown_token_id(tokenizer)
    if unknown is None:
        return np.zeros(len(rows), dtype=np.int32)
    row_of_token = np.repeat(np.arange(len(rows)), lengths)
    return np.bincount(row_of_token[_flat(rows, int(lengths.sum())) == unknown], minlength=len(rows))


def _features(names: Iterable[str]) -> Features:
    prompt = {"prompt_ids": List(Value("int32")), "prompt_length": Value("int32")} if "prompt" in names else {}
    return Features({"input_ids": List(Value("int32")), "length": Value("int32"), "unknown": Value("int32")} | prompt)


def encode_rows(rows: Dataset | IterableDataset, encoding: Encoding) -> Dataset | IterableDataset:
    """`encode_table` on all rows: kept in the cache of `datasets`, or, for a stream, done while iterating."""
    options = {"desc": "Tokenizing"} if isinstance(rows, Dataset) else {}
    encoded = rows.with_format("arrow").map(
        encode_table,
        batched=True,
        fn_kwargs={"encoding": encoding},
        remove_columns=rows.column_names,
        features=_features(rows.column_names),
        **options,
    )
    return encoded.with_format(None)


def finish(corpus: Corpus, max_length: int | None, too_long: str) -> Corpus:
    """Leave out what has no token or is too long, count, and fill in `max_length` and the report.

    Args:
        corpus: encoded rows with their counts beside them; a stream is left to itself, and not counted.
        max_length: T, at which rows were cut; `None` takes the longest line.
        too_long: `truncate` or `drop`.

    Raises:
        DataError: if no line is left, or lengths differ although there is no end token.
    """
    names = [name for name in ("train", "eval") if isinstance(getattr(corpus, name), Dataset)]
    if max_length is None:
        max_length = max(1, *(int(_column(getattr(corpus, name), "length").max()) for name in names))
    corpus.max_length = max_length
    for name in names:
        rows = getattr(corpus, name)
        lengths = _column(rows, "length")
        keep = (lengths > 0) & ((lengths <= max_length) | (too_long == "truncate"))
        if not keep.any():
            raise DataError(
                f"got {len(rows)} {name} lines, none of 1 to {max_length} tokens -> expected at least one -> raise "
                "max_length, or set too_long=truncate"
            )
        if corpus.eos_token_id is None:
            _check_fixed_length(lengths, keep, max_length, name)
        corpus.report[name] |= _counts(rows, lengths, keep, max_length, corpus.eos_token_id is not None)
        histogram = np.bincount(lengths[lengths > 0])
        corpus.report.setdefault("lengths", {n: int(count) for n, count in enumerate(histogram) if count})
        if not keep.all():
            rows = rows.select(np.flatnonzero(keep))
        setattr(corpus, name, without_counts(rows))
    corpus.report |= {"vocab_size": corpus.vocab_size, "max_length": max_length}
    return corpus


def without_counts(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Only the columns that training needs."""
    return rows.select_columns([column for column in rows.column_names if column not in COUNTS])


def _column(rows: Dataset, name: str) -> np.ndarray:
    return rows.data.column(name).to_numpy()


def _check_fixed_length(lengths: np.ndarray, keep: np.ndarray, max_length: int, name: str) -> None:
    short = np.flatnonzero(keep & (lengths < max_length))
    if len(short):
        raise DataError(
            f"got {int(lengths[short[0]])} tokens in {name} line {int(short[0])} and eos=false -> expected "
            f"{max_length} tokens in every line, as nothing else ends them -> set eos=true, or "
            f"max_length={int(lengths[keep].min())} to cut all to the shortest"
        )


def _counts(rows: Dataset, lengths: np.ndarray, keep: np.ndarray, max_length: int, has_end: bool) -> dict[str, Any]:
    """What is said of one split in the report."""
    kept = np.minimum(lengths[keep], max_length)
    over = lengths > max_length
    words = int(lengths.sum(dtype=np.int64)) - (int((lengths > 0).sum()) if has_end else 0)
    counts = {
        "lines": len(kept),
        "without_tokens": int((lengths == 0).sum()),
        "truncated": int((over & keep).sum()),
        "dropped": int((over & ~keep).sum()),
        "tokens": int(kept.sum(dtype=np.int64)),
        "coverage": 1.0 - int(_column(rows, "unknown").sum(dtype=np.int64)) / max(words, 1),
        "length_mean": float(kept.mean()),
        "length_median": float(np.median(kept)),
        "length_99_percent": float(np.quantile(lengths[lengths > 0], 0.99)),
        "length_longest": int(lengths.max()),
    }
    if "prompt_length" in rows.column_names:
        counts["prompt_longest"] = int(_column(rows, "prompt_length").max())
    return counts


def examples(rows: Dataset, count: int = 10) -> list[dict[str, str]]:
    """Rows spread evenly over a split."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, num=count, dtype=int))
    return [rows[int(index)] for index in chosen]


def describe(corpus: Corpus, shown: list[dict[str, Any]]) -> Corpus:
    """Put examples, and one row as ids, as tokens and decoded, into the report; only the beginning of very long "
    "ones."""
    row = {name: ids[:MOST_SHOWN] for name, ids in next(iter(corpus.train)).items()}
    ids = row["input_ids"]
    corpus.report["examples"] = [{name: value[:MOST_SHOWN] for name, value in example.items()} for example in shown]
    corpus.report["example"] = row | {
        "tokens": corpus.tokenizer.convert_ids_to_tokens(ids),
        "decoded": corpus.tokenizer.decode(ids),
    }
    return corpus
