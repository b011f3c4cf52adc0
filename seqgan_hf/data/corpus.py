"""The contract of data: what every source of sequences gives to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..samples import Samples
from .tokenization import decode_ids


@dataclass(frozen=True)
class Corpus:
    """Tokenized sequences, ready for training: what every data source gives.

    Attributes:
        train: rows with `input_ids` (the sequence, EOS included where there is one, no start token, no padding) and,
            for conditional generation, `prompt_ids` (start token and condition); or all of them as `Samples`.
        eval: held-out sequences, likewise.
        vocab_size: number of token ids.
        max_length: T, the longest `input_ids` (EOS included) and the length to generate.
        bos_token_id: the start token, given to the generator before every sequence without `prompt_ids`.
        eos_token_id: the token that ends a sequence; `None` for sequences of fixed length.
        pad_token_id: fills up batches of unequal length; `None` for sequences of fixed length.
        tokenizer: writes ids as text; saved beside the generator.
        oracle: the generator that wrote the data, where it is known: NLL_oracle can then be measured.
        report: what was read, dropped, truncated, repeated: for the log and the corpus report.
        max_prompt_length: as many of a condition's last tokens are kept; `None` keeps all.
    """

    train: Dataset | IterableDataset | Samples
    eval: Dataset | Samples
    vocab_size: int
    max_length: int
    bos_token_id: int
    eos_token_id: int | None
    pad_token_id: int | None
    tokenizer: PreTrainedTokenizerBase
    oracle: PreTrainedModel | None = None
    report: dict[str, Any] = field(default_factory=dict)
    max_prompt_length: int | None = None

    @property
    def conditional(self) -> bool:
        """Whether sequences continue prompts of their own."""
        if isinstance(self.eval, Samples):
            return self.eval.prompt.shape[1] > 1
        return "prompt_ids" in self.eval.column_names

    def rows(self, split: Literal["train", "eval"]) -> list[list[int]]:
        """The token ids of every sequence of a split, without prompts; a stream is read to its end."""
        rows = getattr(self, split)
        if isinstance(rows, Samples):
            return [ids[mask].tolist() for ids, mask in zip(rows.ids.cpu(), rows.mask.cpu(), strict=True)]
        return [ids for batch in rows.iter(1000) for ids in batch["input_ids"]]

    def texts(self, split: Literal["train", "eval"]) -> list[str]:
        """The sequences of a split as the tokenizer writes them, without prompts; a stream is read to its end."""
        return decode_ids(self.tokenizer, self.rows(split))


class DataSource(ABC):
    """A source of sequences. The arguments of `__init__` are its configuration, nothing else is."""

    @abstractmethod
    def load(self) -> Corpus:
        """Read, tokenize and split. Raises a `DataError` that names the file, the line and the remedy."""
