"""Sequences that are not text: columns of integer ids, used as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from ..errors import DataError
from .batches import flat_lists
from .corpus import Corpus
from .encoding import Encoding, encode_corpus
from .sources import keep_columns
from .splitting import SCAN_ROWS, check_nulls
from .tables import TableData
from .tokenization import integer_tokenizer


# Every id up to the largest gets a name in the tokenizer and a row in the embeddings, whether it occurs or not.
LARGEST_VOCABULARY = 2**24
INTEGER = re.compile("[+-]?[0-9]+")


@dataclass
class IdsData(TableData):
    """Sequences of integers: music, events, actions, text that is tokenized already.

    A row is a list of integers, or text with integers separated by white space. The ids of the data stay as they are;
    start, end and padding token get the ids after them, unless they are named. The arguments are those of `TableData`,
    and these:

    Args:
        ids_column: column with the ids; `None` takes `input_ids`, `ids`, or the only one there is.
        vocab_size: number of ids in the data, 0 to vocab_size - 1; `None` takes the largest id plus one.
        bos_token_id: an id of the data that serves as the start token; `None` adds one.
        eos_token_id: an id of the data that ends sequences; `None` adds one.
    """

    ids_column: str | None = None
    vocab_size: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def load(self) -> Corpus:
        """Read, check and split.

        Raises:
            DataError: if the data cannot be read, or an id lies outside the vocabulary; the message names the row.
        """
        named = {"ids", "input_ids", self.ids_column, self.prompt_column} - {None}
        rows = [id_rows(each, self.ids_column, self.prompt_column) for each in self._read(named)]
        words = self._vocabulary(rows)
        # the special tokens that the data do not have get the ids after theirs
        free = iter(range(words, words + 3))
        bos = next(free) if self.bos_token_id is None else self.bos_token_id
        eos = (next(free) if self.eos_token_id is None else self.eos_token_id) if self.eos else None
        tokenizer = integer_tokenizer(words, bos, eos, pad_token_id=next(free) if self.eos else None)
        encoding = Encoding(tokenizer, bos, eos, self.max_length, self.max_prompt_length, self.too_long)
        return encode_corpus(*self._split(*rows), encoding)

    def _vocabulary(self, rows: list[Dataset]) -> int:
        """The number of ids in the data; every id is checked."""
        if self.vocab_size is not None and not 1 <= self.vocab_size <= LARGEST_VOCABULARY:
            fix = "set it to the largest id plus one, or leave it out"
            raise DataError(f"vocab_size={self.vocab_size}", f"1 to {LARGEST_VOCABULARY}", fix)
        named = zip(rows, ("training", "held-out"), strict=False)
        largest = max(check_ids(each, name, self.vocab_size, self.eos_token_id) for each, name in named)
        words = self.vocab_size if self.vocab_size is not None else largest + 1
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < words:
                fix = "correct it, raise vocab_size, or leave it out for a new id"
                raise DataError(f"{name}={value}", f"an id of the data, 0 to {words - 1}", fix)
        return words


def id_rows(rows: Dataset, ids_column: str | None, prompt_column: str | None) -> Dataset:
    """Keep the ids, as column `ids`, and the prompts, as column `prompt`: lists of integers.

    Raises:
        DataError: if a column does not exist, is named twice or holds something else; the message names column or row.
    """
    types = {name: rows.features.arrow_schema.field(name).type for name in rows.column_names}
    if ids_column is None:
        usable = [name for name, type_ in types.items() if _holds_ids(type_) and name != prompt_column]
        preferred = [name for name in ("input_ids", "ids", *(usable if len(usable) == 1 else ())) if name in usable]
        if not preferred:
            shown = {name: str(types[name]) for name in usable or types}
            fix = "name it" if usable else _instead_of_ids(types.values())
            raise DataError(f"no ids_column, and columns {shown}", "one column of lists of integers", fix)
        ids_column = preferred[0]
    rows = keep_columns(rows, {ids_column: "ids"}, prompt_column)
    for column in filter(None, (ids_column, prompt_column)):
        if not _holds_ids(types[column]):
            expected = "lists of integers, or text with integers separated by white space"
            raise DataError(f"column {column!r} of type {types[column]}", expected, _instead_of_ids([types[column]]))
    for column in rows.column_names:
        if not pa.types.is_nested(rows.features.arrow_schema.field(column).type):
            features = Features(rows.features | {column: List(Value("int64"))})
            arguments = {"fn_kwargs": {"column": column}, "features": features, "desc": "Reading ids"}
            rows = rows.map(_parse, batched=True, with_indices=True, **arguments)
    return rows


def _instead_of_ids(types: Iterable[pa.DataType]) -> str:
    """What to do with columns that hold no ids."""
    if any(pa.types.is_nested(type_) and "string" in str(type_) for type_ in types):
        return "write ids for the words of each list, or join them into one text for TextData"
    return "name another column"


def _holds_ids(type_: pa.DataType) -> bool:
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return pa.types.is_integer(type_.value_type)
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _parse(batch: dict[str, list], indices: list[int], column: str) -> dict[str, list]:
    parsed = []
    for index, text in zip(indices, batch[column], strict=True):
        try:
            parsed.append(None if text is None else [_parsed(number) for number in text.split()])
        except ValueError as error:
            expected = "integers below 2**63, as digits 0 to 9 separated by white space"
            fix = "correct the row, or use TextData for text"
            raise DataError(f"{text[:60]!r} in row {index}", expected, fix) from error
    return {column: parsed}


def _parsed(number: str) -> int:
    value = int(number)
    if not INTEGER.fullmatch(number) or abs(value) >= 2**63:  # Python also reads 1_000 and the digits of other scripts
        raise ValueError(number)
    return value


def check_ids(rows: Dataset, name: str, vocab_size: int | None, eos_token_id: int | None) -> int:
    """The largest id. Raises a `DataError` that names the first row with an impossible id."""
    largest, start = 0, 0
    for table in rows.with_format("arrow").iter(batch_size=SCAN_ROWS):
        check_nulls(table, name, start)
        for column in table.column_names:
            values, lengths = flat_lists(table[column])
            if not len(values):
                continue
            row_of = np.repeat(np.arange(start, start + table.num_rows), lengths)
            limit = LARGEST_VOCABULARY if vocab_size is None else vocab_size
            wrong = np.flatnonzero(~((values >= 0) & (values < limit)))  # a missing id is NaN, and wrong as well
            if len(wrong):
                remedy = "map the ids to 0, 1, 2, ..." if vocab_size is None else "correct the row or vocab_size"
                problem = f"id {values[wrong[0]]} in row {row_of[wrong[0]]} of the {name} rows"
                raise DataError(problem, f"0 to {limit - 1}", remedy)
            early = np.setdiff1d(np.flatnonzero(values == eos_token_id), np.cumsum(lengths) - 1)
            if column == "ids" and len(early):
                problem = f"the end token {eos_token_id} inside row {row_of[early[0]]} of the {name} rows"
                raise DataError(problem, "it only at the end of a row", "split the row, or leave eos_token_id out")
            largest = max(largest, int(values.max()))
        start += table.num_rows
    return largest
