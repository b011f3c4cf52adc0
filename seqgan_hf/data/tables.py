"""What sources of rows have in common: the settings that name rows, split them and bound their length."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from ..errors import DataError
from .corpus import DataSource
from .delimited import FileFormat
from .sources import Rows, find_files, read_dataset, read_files
from .splitting import Part, check_seed, split


@dataclass
class TableData(FileFormat, DataSource):
    """Rows from files, from the Hub, from a folder, or from memory.

    Name either `train_file` or `dataset`. Without `eval_file` or `eval_split`, held-out rows are cut from the training
    rows, the same ones for the same `seed`. The arguments are those of `FileFormat`, and these:

    Args:
        train_file: path, pattern (`data/*.txt`) or list of them: text with one sequence a line, .csv, .tsv, .json or
            .jsonl, .parquet, each also compressed (.gz).
        eval_file: held-out rows, likewise.
        dataset: Hub id, local folder laid out like a Hub dataset, folder written by `save_to_disk`, or, in Python, a
            `Dataset` or `DatasetDict` (or, for a stream, an iterable one).
        dataset_config: name of the configuration of a Hub dataset.
        train_split: split of `dataset` to train on.
        eval_split: split of `dataset` to hold out.
        prompt_column: column with what is given (a dialogue turn, a first line, a label): the generator continues it.
        eos: append the end token where it is missing; `False` for sequences of fixed length.
        max_length: T, the most tokens of a sequence, the end token included; `None` takes the longest sequence, unless
            it is far longer than the others.
        too_long: `truncate` sequences of more tokens, which then end without the end token, or `drop` them; both are
            counted.
        max_prompt_length: the most tokens of a prompt; longer ones keep their last tokens. `None` keeps all, unless
            one is far longer than the others.
        eval_fraction: share of the rows to hold out if no held-out rows are named.
        eval_size: number of rows to hold out instead.
        deduplicate: keep the first of equal rows only.
        seed: of the choice of held-out rows.
    """

    train_file: str | list[str] | None = None
    eval_file: str | list[str] | None = None
    dataset: str | Iterable | None = None  # a class here would have the command line read files that it names
    dataset_config: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    prompt_column: str | None = None
    eos: bool = True
    max_length: int | None = None
    too_long: Literal["truncate", "drop"] = "truncate"
    max_prompt_length: int | None = None
    eval_fraction: float = 0.1
    eval_size: int | None = None
    deduplicate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_source()
        for name in ("max_length", "max_prompt_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name}={value}", "at least 1 token, or none", "leave it out for no limit")
        if self.too_long not in ("truncate", "drop"):
            raise DataError(f"too_long={self.too_long!r}", "'truncate' or 'drop'")
        if not 0.0 < self.eval_fraction < 1.0:
            raise DataError(f"eval_fraction={self.eval_fraction}", "a share between 0 and 1", "try 0.1")
        check_seed(self.seed)

    def _check_source(self) -> None:
        """Training rows are named once, held-out rows at most once, and all settings are used."""
        train, held_out = f"train_file={self.train_file!r}", f"eval_file={self.eval_file!r}"
        if (self.train_file is None) == (self.dataset is None):
            fix = "name your data, and set the other to null where a recipe names it"
            raise DataError(f"{train} and dataset={self.dataset!r}", "exactly one of them", fix)
        if self.eval_split is not None and (self.dataset is None or self.eval_file is not None):
            problem = f"eval_split={self.eval_split!r} with {train} and {held_out}"
            raise DataError(problem, "a split of a dataset, or a file", "set one of eval_split and eval_file to null")
        if self.dataset is None and (self.dataset_config is not None or self.train_split != "train"):
            problem = f"dataset_config={self.dataset_config!r} and train_split={self.train_split!r} with {train}"
            raise DataError(problem, "these settings only with a dataset", "leave them out")
        in_files = self.train_file is not None or self.eval_file is not None
        if self.of_tables and not in_files and not (isinstance(self.dataset, str) and Path(self.dataset).is_dir()):
            problem = f"{self.of_tables} with dataset={self.dataset!r:.40}"
            raise DataError(problem, "these settings only with .csv and .tsv files", "leave them out")
        if isinstance(self.dataset, str) and Path(self.dataset).is_file():
            problem = f"dataset={self.dataset!r}, which is a file"
            raise DataError(problem, "a Hub id or a folder", "name it as train_file")

    def _read(self, named: Collection[str], streaming: bool = False) -> list[Rows]:
        """Training rows and, where they are named, held-out rows; `named` are the columns that settings name."""
        sources = [(self.train_file, self.train_split)]
        if self.eval_file is not None or self.eval_split is not None:
            sources.append((self.eval_file, self.eval_split or "train"))
        return [
            read_dataset(self.dataset, self.dataset_config, split_name, named, self, streaming)
            if files is None
            else read_files(find_files(files), named, self, streaming)
            for files, split_name in sources
        ]

    def _split(self, train: Dataset, held_out: Dataset | None = None) -> tuple[Part, Part, dict[str, Any]]:
        return split(train, held_out, self.deduplicate, self.eval_fraction, self.eval_size, self.seed)
