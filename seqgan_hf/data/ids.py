"""Sequences that are not text: columns of integer ids, used as they are."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, List, Value

from ..errors import DataError
from .batches import flat_lists
from .corpus import Corpus, DataSource
from .encoding import Encoding, check_lengths, describe, encode_part, finish
from .sources import check_columns_differ, check_source, find_files, read_dataset, read_files
from .splitting import SCAN_ROWS, check_nulls, check_seed, split
from .tokenization import integer_tokenizer


# Every id up to the largest gets a name in the tokenizer and a row in the embeddings, whether it occurs or not.
LARGEST_VOCABULARY = 2**24
INTEGER = re.compile("[+-]?[0-9]+")


class IdsData(DataSource):
    """Sequences of integers: music, events, actions, text that is tokenized already.

    Name either `train_file` or `dataset`. The ids of the data stay what they are; start, end and padding token get the
    ids after them, unless they are named.

    Args:
        train_file: path, pattern or list of them: .json, .jsonl or .parquet with a column of lists, or text with
            integers separated by white space, one sequence a line.
        eval_file: held-out rows, likewise.
        dataset: Hub id, local folder laid out like a Hub dataset, folder written by `save_to_disk`, or, in Python, a
            `Dataset` or `DatasetDict`.
        dataset_config: name of the configuration of a Hub dataset.
        train_split: split of `dataset` to train on.
        eval_split: split of `dataset` to hold out.
        ids_column: column with the ids; `None` takes `input_ids`, `ids`, or the only one there is.
        prompt_column: column with the ids of what is given: the generator continues it.
        vocab_size: number of ids in the data, 0 to vocab_size - 1; `None` takes the largest id plus one.
        bos_token_id: an id of the data that serves as the start token; `None` adds one.
        eos_token_id: an id of the data that ends sequences; `None` adds one.
        eos: append the end token where it is missing; `False` for sequences of fixed length.
        max_length: T, the most ids of a sequence, the end token included; `None` takes the longest.
        too_long: `truncate` or `drop` longer ones; both are counted.
        max_prompt_length: the most ids of a prompt; longer ones keep their last ids. `None` keeps all.
        eval_fraction: share of the rows to hold out if no held-out rows are named.
        eval_size: number of rows to hold out instead.
        deduplicate: keep the first of equal rows only.
        seed: of the choice of held-out rows.
    """

    def __init__(
        self,
        train_file: str | list[str] | None = None,
        eval_file: str | list[str] | None = None,
        dataset: str | Dataset | DatasetDict | None = None,
        dataset_config: str | None = None,
        train_split: str = "train",
        eval_split: str | None = None,
        ids_column: str | None = None,
        prompt_column: str | None = None,
        vocab_size: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        eos: bool = True,
        max_length: int | None = None,
        too_long: Literal["truncate", "drop"] = "truncate",
        max_prompt_length: int | None = None,
        eval_fraction: float = 0.1,
        eval_size: int | None = None,
        deduplicate: bool = False,
        seed: int = 0,
    ):
        check_source(train_file, eval_file, dataset, dataset_config, train_split, eval_split)
        check_lengths(max_length, max_prompt_length, too_long, eval_fraction)
        check_seed(seed)
        self.train_file = train_file
        self.eval_file = eval_file
        self.dataset = dataset
        self.dataset_config = dataset_config
        self.train_split = train_split
        self.eval_split = eval_split
        self.ids_column = ids_column
        self.prompt_column = prompt_column
        self.vocab_size = vocab_size
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.eos = eos
        self.max_length = max_length
        self.too_long = too_long
        self.max_prompt_length = max_prompt_length
        self.eval_fraction = eval_fraction
        self.eval_size = eval_size
        self.deduplicate = deduplicate
        self.seed = seed

    def load(self) -> Corpus:
        """Read, check and split.

        Raises:
            DataError: if the data cannot be read, or an id lies outside the vocabulary; the message names the row.
        """
        train, held_out = self._rows(self.train_file, self.train_split), None
        if self.eval_file is not None:
            held_out = self._rows(self.eval_file, None)
        elif self.eval_split is not None:
            held_out = self._rows(None, self.eval_split)
        named = {"training": train} | ({"held-out": held_out} if held_out is not None else {})
        ids = self._special_ids(named)
        train, held_out, report = split(
            train, held_out, self.deduplicate, self.eval_fraction, self.eval_size, self.seed
        )
        encoding = Encoding(None, ids["bos_token_id"], ids["eos_token_id"], self.max_length, self.max_prompt_length)
        corpus = Corpus(
            train=encode_part(train, encoding),
            eval=encode_part(held_out, encoding),
            max_length=0,
            report=report,
            **ids,
        )
        return describe(finish(corpus, encoding, self.too_long), train.examples())

    def _rows(self, files: str | list[str] | None, split_name: str | None) -> Dataset:
        if files is not None:
            rows = read_files(find_files(files), ["text"], "utf-8", streaming=False)
        else:
            rows = read_dataset(self.dataset, self.dataset_config, split_name, streaming=False)
        return id_rows(rows, self.ids_column, self.prompt_column)

    def _special_ids(self, named: dict[str, Dataset]) -> dict[str, Any]:
        """Check every id, and give the special tokens theirs."""
        if self.vocab_size is not None and not 1 <= self.vocab_size <= LARGEST_VOCABULARY:
            raise DataError(
                f"vocab_size={self.vocab_size}",
                f"1 to {LARGEST_VOCABULARY}",
                "set it to the largest id plus one, or leave it out",
            )
        largest = max(check_ids(rows, name, self.vocab_size, self.eos_token_id) for name, rows in named.items())
        words = self.vocab_size if self.vocab_size is not None else largest + 1
        free = iter(range(words, words + 3))
        bos = next(free) if self.bos_token_id is None else self.bos_token_id
        eos = (next(free) if self.eos_token_id is None else self.eos_token_id) if self.eos else None
        pad = next(free) if self.eos else None
        for name, value in (("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)):
            if value is not None and not 0 <= value < words:
                raise DataError(
                    f"{name}={value}",
                    f"an id of the data, 0 to {words - 1}",
                    "correct it, raise vocab_size, or leave it out to get a new id",
                )
        tokenizer = integer_tokenizer(words, bos, eos, pad)
        return {
            "vocab_size": len(tokenizer),
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "tokenizer": tokenizer,
        }


def id_rows(rows: Dataset, ids_column: str | None, prompt_column: str | None) -> Dataset:
    """Keep the ids, as column `text`, and the prompts, as column `prompt`: lists of integers.

    Raises:
        DataError: if a column does not exist, is named twice or holds something else; the message names column or row.
    """
    types = {name: rows.features.arrow_schema.field(name).type for name in rows.column_names}
    if ids_column is None:
        usable = [name for name, type_ in types.items() if _holds_ids(type_) and name != prompt_column]
        preferred = [name for name in ("input_ids", "ids", *(usable if len(usable) == 1 else ())) if name in usable]
        if not preferred:
            shown = {name: str(types[name]) for name in usable or types}
            raise DataError(f"no ids_column, and columns {shown}", "one of lists of integers", "name it")
        ids_column = preferred[0]
    check_columns_differ(ids_column, prompt_column)
    renamed = {ids_column: "text"} | ({prompt_column: "prompt"} if prompt_column else {})
    for column in renamed:
        if column not in types:
            raise DataError(f"column {column!r}", f"one of {list(types)}", "name one of these")
        if not _holds_ids(types[column]):
            raise DataError(
                f"column {column!r} of type {types[column]}",
                "lists of integers, or text with integers separated by white space",
                "name another column, or use TextData for text",
            )
    rows = rows.select_columns(list(renamed))
    rows = rows.rename_columns({old: new for old, new in renamed.items() if old != new})
    for column in rows.column_names:
        if not pa.types.is_nested(rows.features.arrow_schema.field(column).type):
            features = Features(rows.features | {column: List(Value("int64"))})
            rows = rows.map(
                _parse,
                batched=True,
                with_indices=True,
                fn_kwargs={"column": column},
                features=features,
                desc="Reading ids",
            )
    return rows


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
            raise DataError(
                f"{text[:60]!r} in row {index}",
                "integers below 2**63, as digits 0 to 9 separated by white space",
                "correct the row, or use TextData for text",
            ) from error
    return {column: parsed}


def _parsed(number: str) -> int:
    value = int(number)
    if not INTEGER.fullmatch(number) or abs(value) >= 2**63:  # Python also reads 1_000 and the digits of other scripts
        raise ValueError(number)
    return value


def check_ids(rows: Dataset, name: str, vocab_size: int | None, eos_token_id: int | None) -> int:
    """The largest id. Raises a `DataError` that names the first row with an id that cannot be."""
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
                raise DataError(
                    f"id {values[wrong[0]]} in row {row_of[wrong[0]]} of the {name} rows",
                    f"0 to {limit - 1}",
                    f"{remedy}",
                )
            last = np.cumsum(lengths) - 1
            inside = np.flatnonzero(values == eos_token_id) if eos_token_id is not None and column == "text" else []
            early = np.setdiff1d(inside, last)
            if len(early):
                raise DataError(
                    f"the end token {eos_token_id} inside row {row_of[early[0]]} of the {name} rows",
                    "it at the end only",
                    "split the row there, or leave eos_token_id out",
                )
            largest = max(largest, int(values.max()))
        start += table.num_rows
    return largest
