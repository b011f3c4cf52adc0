"""From rows of text to rows of token ids, with the counts that the corpus report shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from .corpus import Corpus
from .splitting import Part, check_nulls, is_blank
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
            raise DataError(f"{name}={value}", "at least 1, or none", "set it to a number of tokens")
    if too_long not in ("truncate", "drop"):
        raise DataError(f"too_long={too_long!r}", "'truncate' or 'drop'", "choose one")
    if not 0.0 < eval_fraction < 1.0:
        raise DataError(f"eval_fraction={eval_fraction}", "a share between 0 and 1", "set 0.1, for example")


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


def encode_part(part: Part, encoding: Encoding) -> Dataset:
    """`encode_table` on the rows of a part, kept in the cache of `datasets`."""
    encoded = part.rows.with_format("arrow").map(
        _encode_kept,
        batched=True,
        with_indices=True,
        fn_kwargs={"keep": part.keep, "encoding": encoding},
        remove_columns=part.rows.column_names,
        features=_features(part.rows.column_names),
        desc="Tokenizing",
    )
    return encoded.with_format(None)


def _encode_kept(table: pa.Table, indices: list[int], keep: np.ndarray, encoding: Encoding) -> pa.Table:
    return encode_table(table.filter(pa.array(keep[indices])), encoding)


def encode_stream(rows: IterableDataset, encoding: Encoding, too_long: str) -> IterableDataset:
    """Token ids while iterating; lines without a token, and, if asked, those that are too long, are left out."""
    encoded = rows.with_format("arrow").map(
        encode_table,
        batched=True,
        fn_kwargs={"encoding": encoding},
        remove_columns=rows.column_names,
        features=_features(rows.column_names),
    )
    fixed_length = encoding.max_length if encoding.eos_token_id is None else None
    settings = {"longest": encoding.max_length if too_long == "drop" else None, "fixed_length": fixed_length}
    return _without_counts(encoded.with_format(None).filter(_usable, batched=True, fn_kwargs=settings))


def _usable(batch: dict[str, list], longest: int | None, fixed_length: int | None) -> list[bool]:
    """Which lines have a token and are not too long."""
    usable = [0 < length <= (longest or length) for length in batch["length"]]
    if fixed_length is not None:
        short = [
            length for length, used in zip(batch["length"], usable, strict=True) if used and length < fixed_length
        ]
        if short:
            raise DataError(
                f"a line of {short[0]} tokens and eos=false",
                f"{fixed_length} tokens in every line, as nothing else ends them",
                f"set eos=true, or max_length={min(short)} to cut all to this length",
            )
    return usable


def _without_counts(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    return rows.select_columns([column for column in rows.column_names if column not in COUNTS])


def finish(corpus: Corpus, encoding: Encoding, too_long: str) -> Corpus:
    """Leave out what has no token or is too long, count, and fill in `max_length` and the report.

    Args:
        corpus: encoded rows with their counts beside them; the training rows may be a stream, left as it is.
        encoding: how they were encoded.
        too_long: `truncate` or `drop`.

    Raises:
        DataError: if no line is left, or lengths differ although there is no end token.
    """
    names = [name for name in ("train", "eval") if isinstance(getattr(corpus, name), Dataset)]
    lengths = {name: _histogram(getattr(corpus, name), "length") for name in names}
    corpus.max_length = encoding.max_length or max(1, *(len(counts) - 1 for counts in lengths.values()))
    for name in names:
        rows, counts = getattr(corpus, name), lengths[name]
        corpus.report[name] |= _counts(rows, counts, corpus.max_length, too_long, encoding)
        corpus.report.setdefault("lengths", {n: int(count) for n, count in enumerate(counts) if count and n})
        if corpus.report[name]["lines"] == 0:
            raise DataError(
                f"{len(rows)} {name} lines, none of 1 to {corpus.max_length} tokens",
                "at least one",
                "raise max_length, or set too_long=truncate",
            )
        if corpus.report[name]["lines"] < len(rows) or encoding.eos_token_id is None:
            longest = corpus.max_length if too_long == "drop" else None
            fixed_length = corpus.max_length if encoding.eos_token_id is None else None
            settings = {"longest": longest, "fixed_length": fixed_length}
            rows = rows.filter(_usable, batched=True, fn_kwargs=settings, desc="Choosing lines")
        setattr(corpus, name, _without_counts(rows))
    corpus.report |= {"vocab_size": corpus.vocab_size, "max_length": corpus.max_length}
    return corpus


def _histogram(rows: Dataset, column: str) -> np.ndarray:
    """How many rows have the value 0, 1, ... in a column, shape (largest value + 1,)."""
    chunks = [chunk.to_numpy() for chunk in rows.data.column(column).chunks]
    counts = np.zeros(1 + max((int(chunk.max()) for chunk in chunks if len(chunk)), default=0), dtype=np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk, minlength=len(counts))
    return counts


def _quantile(counts: np.ndarray, share: float) -> int:
    """The smallest value that at least this share of the rows do not exceed."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _counts(rows: Dataset, lengths: np.ndarray, max_length: int, too_long: str, encoding: Encoding) -> dict[str, Any]:
    """What is said of one split in the report; `lengths` counts the lines of 0, 1, ... tokens."""
    with_tokens = np.where(np.arange(len(lengths)) > 0, lengths, 0)
    over = int(lengths[max_length + 1 :].sum())
    kept = np.zeros(max_length + 1, dtype=np.int64)
    kept[: len(lengths)] = with_tokens[: max_length + 1]
    kept[max_length] += over if too_long == "truncate" else 0
    lines, tokens = int(kept.sum()), int(kept @ np.arange(len(kept)))
    ends = int(with_tokens.sum()) if encoding.eos_token_id is not None else 0
    words = int(lengths @ np.arange(len(lengths))) - ends
    counts = {
        "lines": lines,
        "without_tokens": int(lengths[0]),
        "truncated": over if too_long == "truncate" else 0,
        "dropped": over if too_long == "drop" else 0,
        "tokens": tokens,
        "coverage": 1.0 - (pc.sum(rows.data.column("unknown")).as_py() or 0) / max(words, 1),
        "length_mean": tokens / max(lines, 1),
        "length_median": _quantile(kept, 0.5),
        "length_99_percent": _quantile(with_tokens, 0.99),
        "length_longest": len(lengths) - 1,
    }
    if "prompt_length" in rows.column_names:
        prompts = _histogram(rows, "prompt_length")
        limit = encoding.max_prompt_length or len(prompts)
        counts |= {"prompt_longest": len(prompts) - 1, "truncated_prompts": int(prompts[limit + 1 :].sum())}
    return counts


def describe(corpus: Corpus, shown: list[dict[str, Any]]) -> Corpus:
    """Put examples, and one row as ids, as tokens and decoded, into the report; only the beginning of very long ones.

    Raises:
        DataError: if a stream has no row to train on.
    """
    first = next(iter(corpus.train), None)
    if first is None:
        raise DataError(
            f"a stream without a line of 1 to {corpus.max_length} tokens",
            "at least one",
            "raise max_length, or set too_long=truncate",
        )
    row = {name: ids[:MOST_SHOWN] for name, ids in first.items()}
    ids = row["input_ids"]
    corpus.report["examples"] = [{name: value[:MOST_SHOWN] for name, value in example.items()} for example in shown]
    corpus.report["example"] = row | {
        "tokens": corpus.tokenizer.convert_ids_to_tokens(ids),
        "decoded": corpus.tokenizer.decode(ids),
    }
    return corpus
