"""Text as a source of sequences: files and datasets in, token ids out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import pyarrow as pa
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from .corpus import Corpus, DataSource
from .encoding import Encoding, check_lengths, describe, encode_part, encode_stream, finish
from .sources import check_source, find_files, read_dataset, read_files, text_rows
from .splitting import check_seed, split
from .streaming import split_stream
from .tokenization import TokenizerConfig, build_tokenizer


class TextData(DataSource):
    """Lines of text, from files, from the Hub, from a folder, or from memory.

    Name either `train_file` or `dataset`. Without `eval_file` or `eval_split`, held-out lines are cut from the
    training lines, the same ones for the same `seed`.

    Args:
        train_file: path, pattern (`data/*.txt`) or list of them: text with one sequence a line, .csv, .tsv, .json or
            .jsonl, .parquet, each also compressed (.gz).
        eval_file: held-out lines, likewise.
        dataset: Hub id, local folder laid out like a Hub dataset, folder written by `save_to_disk`, or, in Python, a
            `Dataset` or `DatasetDict` (or, with `streaming`, an iterable one).
        dataset_config: name of the configuration of a Hub dataset.
        train_split: split of `dataset` to train on.
        eval_split: split of `dataset` to hold out.
        text_column: column with the text; `None` takes `text`, or the only column of text.
        prompt_column: column with what is given (a dialogue turn, a first line, a label): the generator continues it.
        tokenizer: how text becomes tokens; trained on the training lines unless a pretrained one is named.
        max_length: T, the most tokens of a sequence, the end token included; `None` takes the longest line.
        too_long: `truncate` lines of more tokens, which then end without the end token, or `drop` them; both are
            counted.
        max_prompt_length: the most tokens of a prompt; longer ones keep their last tokens. `None` keeps all.
        eos: append the end token; `False` for sequences of fixed length.
        eval_fraction: share of the lines to hold out if no held-out lines are named.
        eval_size: number of lines to hold out instead.
        deduplicate: keep the first of equal lines only.
        streaming: read, tokenize and pad while training, for what does not fit on the disk; needs `max_length`.
        encoding: of text and CSV files.
        seed: of the choice of held-out lines.
    """

    def __init__(
        self,
        train_file: str | list[str] | None = None,
        eval_file: str | list[str] | None = None,
        dataset: str | Dataset | DatasetDict | None = None,
        dataset_config: str | None = None,
        train_split: str = "train",
        eval_split: str | None = None,
        text_column: str | None = None,
        prompt_column: str | None = None,
        tokenizer: TokenizerConfig | None = None,
        max_length: int | None = None,
        too_long: Literal["truncate", "drop"] = "truncate",
        max_prompt_length: int | None = None,
        eos: bool = True,
        eval_fraction: float = 0.1,
        eval_size: int | None = None,
        deduplicate: bool = False,
        streaming: bool = False,
        encoding: str = "utf-8",
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
        self.text_column = text_column
        self.prompt_column = prompt_column
        self.tokenizer = tokenizer or TokenizerConfig()
        self.max_length = max_length
        self.too_long = too_long
        self.max_prompt_length = max_prompt_length
        self.eos = eos
        self.eval_fraction = eval_fraction
        self.eval_size = eval_size
        self.deduplicate = deduplicate
        self.streaming = streaming
        self.encoding = encoding
        self.seed = seed

    def load(self) -> Corpus:
        """Read, tokenize and split.

        Raises:
            DataError: if the data cannot be read or used; the message names file, line or row, and the remedy.
        """
        if self.streaming:
            return self._load_stream()
        train, held_out = self._read()
        train, held_out, report = split(
            train, held_out, self.deduplicate, self.eval_fraction, self.eval_size, self.seed
        )
        tokenizer = build_tokenizer(self.tokenizer, lambda: _texts(train.tables()))
        encoding = self._encoding(tokenizer)
        corpus = Corpus(
            train=encode_part(train, encoding),
            eval=encode_part(held_out, encoding),
            **self._special_ids(tokenizer),
            max_length=0,
            report=report,
        )
        return describe(finish(corpus, encoding, self.too_long), train.examples())

    def _load_stream(self) -> Corpus:
        """The same, without ever holding the training lines."""
        if self.max_length is None or self.deduplicate:
            raise DataError(
                f"streaming=true with max_length={self.max_length} and deduplicate={self.deduplicate}",
                "a max_length and no deduplication, as a stream is never seen as a whole",
                "set them so",
            )
        train, held_out, report, batches = split_stream(*self._read(), self.eval_size, self.too_long)
        tokenizer = build_tokenizer(self.tokenizer, lambda: _texts(batches()))
        encoding = self._encoding(tokenizer)
        corpus = Corpus(
            train=encode_stream(train, encoding, self.too_long),
            eval=encode_part(held_out, encoding),
            **self._special_ids(tokenizer),
            max_length=0,
            report=report,
        )
        return describe(finish(corpus, encoding, self.too_long), held_out.examples())

    def _read(self) -> tuple[Dataset, Dataset | None]:
        """Training rows and, where they are named, held-out rows: columns `text` and perhaps `prompt`."""
        train, held_out = self._rows(self.train_file, self.train_split), None
        if self.eval_file is not None:
            held_out = self._rows(self.eval_file, None)
        elif self.eval_split is not None:
            held_out = self._rows(None, self.eval_split)
        return train, held_out

    def _rows(self, files: str | list[str] | None, split_name: str | None):
        if files is not None:
            found = find_files(files)
            text_columns = [name for name in (self.text_column or "text", self.prompt_column) if name]
            rows = read_files(found, text_columns, self.encoding, self.streaming)
        else:
            rows = read_dataset(self.dataset, self.dataset_config, split_name, self.streaming)
        return text_rows(rows, self.text_column, self.prompt_column)

    def _encoding(self, tokenizer: PreTrainedTokenizerBase) -> Encoding:
        return Encoding(
            tokenizer=tokenizer,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id if self.eos else None,
            max_length=self.max_length,
            max_prompt_length=self.max_prompt_length,
        )

    def _special_ids(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            "tokenizer": tokenizer,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id if self.eos else None,
            "pad_token_id": tokenizer.pad_token_id if self.eos else None,
        }


def _texts(tables: Iterable[pa.Table]) -> Iterator[list[str]]:
    """Texts and prompts, for training a tokenizer."""
    for table in tables:
        for column in table.columns:
            yield column.to_pylist()
