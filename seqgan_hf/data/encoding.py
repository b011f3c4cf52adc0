"""From rows of text or ids to a `Corpus`, with the counts that the corpus report shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from .corpus import Corpus
from .splitting import Part, check_nulls, is_blank
from .streaming import Stream, text_table
from .tokenization import as_prompts, encode_batch, unknown_token_id


MOST_SHOWN = 1000  # characters or ids of an example in the report
LISTS = pa.list_(pa.int32())
COUNTS = ("length", "unknown", "prompt_length", "prompt_unknown")
# What the first lines of a stream tell of all of them.
STATISTICS = ("coverage", "prompt_coverage", "length_mean", "length_median", "length_99_percent", "length_longest")
# The longest line sets T up to this many tokens; or up to so many times as many as nearly all others have, but never
# beyond `MOST_TOKENS`: one stray line would make all samples, and the work on them, as long as itself.
ALWAYS_FINE, TIMES_THE_OTHERS, MOST_TOKENS = 256, 4, 10_000
LEAST_COVERAGE = 0.05
KNOW_MORE = "lower data.tokenizer.min_count, raise vocab_size, set level=bpe, or name another pretrained tokenizer"


@dataclass
class Encoding:
    """How a row becomes ids.

    Attributes:
        tokenizer: of text, or what writes ids as text where rows are lists of ids already.
        bos_token_id: put in front of every prompt.
        eos_token_id: put behind every sequence; `None` for sequences of fixed length.
        max_length: T, where sequences are cut; `None` cuts none.
        max_prompt_length: the last tokens of a prompt to keep; `None` keeps all.
        too_long: whether to `truncate` or `drop` sequences of more than `max_length` tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    bos_token_id: int
    eos_token_id: int | None
    max_length: int | None = None
    max_prompt_length: int | None = None
    too_long: Literal["truncate", "drop"] = "truncate"


def encode_table(table: pa.Table, encoding: Encoding) -> pa.Table:
    """Columns `text` or `ids`, and perhaps `prompt`, to `input_ids` and perhaps `prompt_ids`, with counts beside them.

    `length` is the number of tokens before cutting, the end token included, or 0 for a line without a token;
    `unknown` the number of unknown tokens among them; `prompt_length` and `prompt_unknown` count the tokens of the
    prompt likewise.
    """
    check_nulls(table, "training or held-out", 0)
    sequences = table["ids" if "ids" in table.column_names else "text"]
    rows = _token_lists(sequences, encoding)
    end = [] if encoding.eos_token_id is None else [encoding.eos_token_id]
    unknown = unknown_token_id(encoding.tokenizer)
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    columns = {
        "input_ids": pa.array([(ids + end)[: encoding.max_length] for ids in rows], LISTS),
        "length": pa.array(np.where(is_blank(sequences) | (lengths == 0), 0, lengths + len(end)), pa.int32()),
        "unknown": pa.array([ids.count(unknown) for ids in rows], pa.int32()),
    }
    if "prompt" in table.column_names:
        prompts = _token_lists(table["prompt"], encoding)
        columns["prompt_length"] = pa.array([len(ids) for ids in prompts], pa.int32())
        columns["prompt_unknown"] = pa.array([ids.count(unknown) for ids in prompts], pa.int32())
        begin = (encoding.bos_token_id, encoding.max_prompt_length)
        columns["prompt_ids"] = pa.array(as_prompts(encoding.tokenizer, prompts, *begin), LISTS)
    return pa.table(columns)


def _token_lists(column: pa.ChunkedArray, encoding: Encoding) -> list[list[int]]:
    if not pa.types.is_nested(column.type):
        return encode_batch(encoding.tokenizer, column.to_pylist())
    # Rows of ids may end in the end token already.
    return [ids[:-1] if ids and ids[-1] == encoding.eos_token_id else ids for ids in column.to_pylist()]


def _features(names: Iterable[str]) -> Features:
    ids, count = List(Value("int32")), Value("int32")
    prompt = {"prompt_ids": ids, "prompt_length": count, "prompt_unknown": count} if "prompt" in names else {}
    return Features({"input_ids": ids, "length": count, "unknown": count} | prompt)


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


def encode_stream(stream: Stream, encoding: Encoding) -> IterableDataset:
    """Token ids while iterating; lines without a token, and, if asked, those that are too long, are left out.

    One step does it all: each step of `datasets` over batches joins the keys of the 1,000 rows of a batch, so that
    three in a row, one of them on Arrow tables, build keys of 1000**3 characters.
    """
    names = stream.first.rows.column_names
    return stream.rows.map(
        _encode_batch,
        batched=True,
        with_indices=True,
        fn_kwargs={"start": stream.start, "encoding": encoding},
        remove_columns=names,
        features=Features({name: kind for name, kind in _features(names).items() if name not in COUNTS}),
    )


def _encode_batch(batch: dict[str, list], indices: list[int], start: int, encoding: Encoding) -> dict[str, list]:
    table = encode_table(text_table(batch, start + indices[0]), encoding)
    usable = _usable({"length": table["length"].to_pylist()}, encoding, encoding.max_length)
    ids = [name for name in table.column_names if name not in COUNTS]
    return table.select(ids).filter(pa.array(usable)).to_pydict()


def _usable(batch: dict[str, list], encoding: Encoding, max_length: int) -> list[bool]:
    """Which lines have a token and, if asked, are not too long."""
    drops = encoding.too_long == "drop"
    usable = [length > 0 and not (drops and length > max_length) for length in batch["length"]]
    if encoding.eos_token_id is None:
        short = [n for n, used in zip(batch["length"], usable, strict=True) if used and n < max_length]
        if short:
            expected = f"{max_length} tokens in every line, as nothing else ends them"
            fix = f"set eos=true, or max_length={min(short)} to cut all to this length"
            raise DataError(f"a line of {short[0]} tokens with eos=false", expected, fix)
    return usable


def encode_corpus(
    train: Part, held_out: Part, report: dict[str, Any], encoding: Encoding, stream: Stream | None = None
) -> Corpus:
    """Encode rows, leave out what has no token or is too long, and count.

    Args:
        train: rows to train on.
        held_out: rows to hold out.
        report: what was found when they were split; more is added to it.
        encoding: how they are encoded.
        stream: train on these rows, which are encoded while they are read; `train` are the first of them.

    Raises:
        DataError: if no line is left, lengths differ although there is no end token, one line is far longer than the
            others and no `max_length` is named, or nearly all tokens are unknown.
    """
    tokenizer = encoding.tokenizer
    rows: dict[str, Any] = {"train": encode_part(train, encoding), "eval": encode_part(held_out, encoding)}
    lengths = {name: _histogram(part, "length") for name, part in rows.items()}
    max_length = encoding.max_length or max(1, _longest(lengths, "line", "max_length"))
    if encoding.max_prompt_length is None and "prompt_length" in rows["train"].column_names:
        prompts = {name: _histogram(part, "prompt_length") for name, part in rows.items()}
        _longest(prompts, "prompt", "max_prompt_length")
    for name, counts in lengths.items():
        found = _counts(rows[name], counts, max_length, encoding)
        if name == "train" and stream is not None:
            report["first"] = found | {"read": len(rows[name])}
            found = {key: found[key] for key in STATISTICS if key in found}
            rows[name] = encode_stream(stream, encoding)
        elif found["lines"] == 0:
            raise _no_lines(f"{len(rows[name])} {name} lines", max_length)
        else:
            rows[name] = _chosen(rows[name], found["lines"], max_length, encoding)
        report[name] |= found
    _check_coverage(report["train"], len(tokenizer))
    report["lengths"] = {n: int(count) for n, count in enumerate(lengths["train"]) if count and n}
    report |= {"vocab_size": len(tokenizer), "max_length": max_length}
    report |= _shown(train, rows["train"], tokenizer, max_length)
    return Corpus(
        **rows,
        vocab_size=len(tokenizer),
        max_length=max_length,
        bos_token_id=encoding.bos_token_id,
        eos_token_id=encoding.eos_token_id,
        pad_token_id=None if encoding.eos_token_id is None else tokenizer.pad_token_id,
        tokenizer=tokenizer,
        report=report,
        max_prompt_length=encoding.max_prompt_length,
    )


def _shown(
    train: Part, encoded: Iterable[dict[str, list]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Any]:
    """Some texts as they were read, and the first row as it is trained on.

    Raises:
        DataError: there is no row.
    """
    first = next(iter(encoded), None)
    if first is None:
        raise _no_lines("a stream of lines", max_length)
    texts = [{name: value[:MOST_SHOWN] for name, value in row.items()} for row in train.examples()]
    example = {name: ids[:MOST_SHOWN] for name, ids in first.items()}
    ids = example["input_ids"]
    written = {"tokens": tokenizer.convert_ids_to_tokens(ids), "decoded": tokenizer.decode(ids)}
    return {"examples": texts, "example": example | written}


def _chosen(rows: Dataset, usable: int, max_length: int, encoding: Encoding) -> Dataset:
    """The ids of the usable rows."""
    if usable < len(rows) or encoding.eos_token_id is None:
        given = {"encoding": encoding, "max_length": max_length}
        rows = rows.filter(_usable, batched=True, fn_kwargs=given, desc="Choosing lines")
    return rows.select_columns([column for column in rows.column_names if column not in COUNTS])


def _longest(histograms: dict[str, np.ndarray], what: str, setting: str) -> int:
    """The greatest length in both splits, which nothing bounds.

    Raises:
        DataError: if it is far above the 99.9th percentile (of less than 1,000 lines, above the second longest).
    """
    counts = np.zeros(max(map(len, histograms.values())), dtype=np.int64)
    for histogram in histograms.values():
        counts[: len(histogram)] += histogram
    longest, lines = len(counts) - 1, int(counts.sum())
    usual = max(1, int(np.searchsorted(np.cumsum(counts), lines - max(1, lines // 1000))))
    most = max(ALWAYS_FINE, min(TIMES_THE_OTHERS * usual, MOST_TOKENS))
    if longest > most:
        over = int(counts[usual + 1 :].sum())
        problem = f"a {what} of {longest:,} tokens, where {lines - over:,} of {lines:,} have at most {usual:,}"
        expected = f"at most {most:,} unless a length is named"
        cut = "are cut, or left out with data.too_long=drop" if what == "line" else "keep their last tokens"
        fix = f"set data.{setting}={usual} (longer ones {cut}), or data.{setting}={longest} to keep all"
        raise DataError(problem, expected, fix)
    return longest


def _check_coverage(counts: dict[str, Any], vocab_size: int) -> None:
    """Raise a `DataError` if nearly all that is trained on is unknown."""
    for name, what in {"coverage": "training", "prompt_coverage": "prompt"}.items():
        if counts.get(name, 1.0) < LEAST_COVERAGE:
            problem = f"{100 * counts[name]:.2f} % of the {what} tokens are in the vocabulary of {vocab_size:,}"
            expected = f"at least {100 * LEAST_COVERAGE:.0f} %, as all others are the same unknown token"
            raise DataError(problem, expected, KNOW_MORE)


def _no_lines(found: str, max_length: int) -> DataError:
    problem = f"{found}, none of 1 to {max_length} tokens"
    return DataError(problem, "at least one", "raise max_length, or set too_long=truncate")


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


def _counts(rows: Dataset, lengths: np.ndarray, max_length: int, encoding: Encoding) -> dict[str, Any]:
    """What the report says of one split; `lengths` counts the lines of 0, 1, ... tokens."""
    with_tokens = np.where(np.arange(len(lengths)) > 0, lengths, 0)
    over = int(lengths[max_length + 1 :].sum())
    kept = np.zeros(max_length + 1, dtype=np.int64)
    kept[: len(lengths)] = with_tokens[: max_length + 1]
    truncated = over if encoding.too_long == "truncate" else 0
    kept[max_length] += truncated
    lines, tokens = int(kept.sum()), _sum(kept)
    ends = int(with_tokens.sum()) if encoding.eos_token_id is not None else 0
    counts = {
        "lines": lines,
        "without_tokens": int(lengths[0]),
        "truncated": truncated,
        "dropped": over - truncated,
        "tokens": tokens,
        "coverage": _coverage(rows, "unknown", _sum(lengths) - ends),
        "length_mean": tokens / max(lines, 1),
        "length_median": _quantile(kept, 0.5),
        "length_99_percent": _quantile(with_tokens, 0.99),
        "length_longest": len(lengths) - 1,
    }
    if "prompt_length" in rows.column_names:
        prompts = _histogram(rows, "prompt_length")
        limit = encoding.max_prompt_length or len(prompts)
        counts |= {"prompt_longest": len(prompts) - 1, "truncated_prompts": int(prompts[limit + 1 :].sum())}
        counts["prompt_coverage"] = _coverage(rows, "prompt_unknown", _sum(prompts))
    return counts


def _sum(counts: np.ndarray) -> int:
    """Of the lengths, of which `counts` tells how often 0, 1, ... occur."""
    return int(counts @ np.arange(len(counts)))


def _coverage(rows: Dataset, unknown: str, tokens: int) -> float:
    """The share of so many tokens that is in the vocabulary."""
    return 1.0 - (pc.sum(rows.data.column(unknown)).as_py() or 0) / max(tokens, 1)
