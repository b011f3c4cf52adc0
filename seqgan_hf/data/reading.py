"""Samples as a discriminator with a tokenizer of its own reads them: as text."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..samples import Samples
from .tokenization import decode_ids


logger = logging.getLogger(__name__)

# Texts whose tokens are kept, the last ones that were new: a corpus is read in every epoch, samples in some passes.
KEPT_TEXTS = 50_000
# A tokenizer without a limit names a number far above this one.
UNLIMITED = 10**6


class TextInputs:
    """Texts as the inputs of a model that reads them by its own tokenizer.

    A text without words is read as the special tokens around it, or the end token alone. Texts longer than the model's
    positions are cut, with one warning.

    Args:
        tokenizer: the model's own.
        positions: as many tokens can the model read; `None` for any number.

    Raises:
        UserError: the tokenizer is none, or has no token to pad with or to end with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, positions: int | None = None):
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            problem = f"{tokenizer!r:.80} for the tokenizer of a discriminator that reads text"
            raise UserError(problem, "a tokenizer of transformers", "load its own: `AutoTokenizer.from_pretrained`")
        self.tokenizer = tokenizer
        limits = [tokenizer.model_max_length, *([] if positions is None else [positions])]
        self.longest = min(limits) if min(limits) < UNLIMITED else None
        ends = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self.empty = next((end for end in ends if end is not None), None)
        if self.empty is None:
            problem = f"{type(tokenizer).__name__}, the discriminator's, has no end, separator or padding token"
            raise UserError(problem, "one of these, to pad with", "add it with `add_special_tokens`")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.empty)
        self._told = False

    def __deepcopy__(self, memo: dict) -> TextInputs:
        """Itself: a copied model reads by the same tokenizer, and says no second time that texts are cut."""
        return self

    def encode(self, conditions: Sequence[str], texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids, mask and what else the model reads of each text; behind its condition, if that is not empty."""
        read: list[dict[str, list[int]]] = [{} for _ in texts]
        alone = [row for row, condition in enumerate(conditions) if not condition]
        pairs = [row for row, condition in enumerate(conditions) if condition]
        if alone:
            self._fill(read, alone, [texts[row] for row in alone])
        if pairs:
            self._fill(read, pairs, [conditions[row] for row in pairs], [texts[row] for row in pairs])
        return read

    def pad(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Rows that `encode` gave, padded behind their ends, (B, L)."""
        return dict(self.tokenizer.pad(rows, padding_side="right", return_tensors="pt", verbose=False))

    def _fill(self, read: list[dict[str, list[int]]], places: list[int], *given: list[str]) -> None:
        encoded: BatchEncoding = self.tokenizer(*given, return_attention_mask=True, verbose=False)
        if self.longest is not None and (longest := max(map(len, encoded["input_ids"]))) > self.longest:
            if not self._told:
                told = "A text has %d tokens for the discriminator, which reads %d; it and all others as long are cut"
                logger.warning(told, longest, self.longest)
            self._told = True
            encoded = self.tokenizer(*given, return_attention_mask=True, truncation=True, max_length=self.longest)
        names = encoded.keys() & {"input_ids", "attention_mask", "token_type_ids"}
        empty = {"input_ids": [self.empty], "attention_mask": [1], "token_type_ids": [0]}
        for number, place in enumerate(places):
            tokens = {name: encoded[name][number] for name in names}
            read[place] = tokens if tokens["input_ids"] else {name: empty[name] for name in names}


class TextReader:
    """Turns samples into the inputs of a model that reads text (see `TextInputs`).

    What the generator wrote is decoded by its tokenizer and encoded by the reader's own, real sequences likewise, so
    that both kinds went the same way. A condition and its continuation are given as a pair. A sample that did not end
    within T tokens is read as far as it goes; an unknown word as it is written (`<unk>`).

    Args:
        writer: the generator's tokenizer.
        tokenizer: the reader's own; saved with its model.
        positions: see `TextInputs`.

    Raises:
        UserError: see `TextInputs`.
    """

    def __init__(
        self, writer: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, positions: int | None = None
    ):
        self.writer, self.tokenizer, self.inputs = writer, tokenizer, TextInputs(tokenizer, positions)
        self._known: dict[tuple, dict[str, list[int]]] = {}

    def __call__(self, samples: Samples) -> dict[str, Tensor]:
        """The model's inputs for B samples: `input_ids`, `attention_mask` (B, L) and what else it reads."""
        rows = list(self._rows(samples))
        if new := [row for row in dict.fromkeys(rows) if row not in self._known]:
            conditions, texts = ([list(row[part]) for row in new] for part in (0, 1))
            read = self.inputs.encode(decode_ids(self.writer, conditions), decode_ids(self.writer, texts))
            self._known.update(zip(new, read, strict=True))
        padded = self.inputs.pad([self._known[row] for row in rows])
        while len(self._known) > KEPT_TEXTS:
            del self._known[next(iter(self._known))]  # the oldest
        return {name: values.to(samples.ids.device) for name, values in padded.items()}

    def _rows(self, samples: Samples) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids of condition, without the start token, and continuation of each sample."""
        prompts, masks = samples.prompt.tolist(), samples.attention_mask.tolist()
        width = samples.prompt.shape[1]
        for prompt, ids, mask in zip(prompts, samples.ids.tolist(), masks, strict=True):
            condition = [token_id for token_id, real in zip(prompt, mask[:width], strict=True) if real][1:]
            yield tuple(condition), tuple(i for i, real in zip(ids, mask[width:], strict=True) if real)


def read_as_text(
    discriminator: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, writer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Let a discriminator read the text of samples, in place of the generator's ids; returns it.

    It stays the plain model that it is. Its config says `reads: text`, so that whoever loads it knows.

    Args:
        discriminator: a sequence classifier.
        tokenizer: its own.
        writer: the generator's.
    """
    reader: Any = TextReader(writer, tokenizer, positions_of(discriminator))
    discriminator.text_reader = reader
    discriminator.config.pad_token_id = tokenizer.pad_token_id
    discriminator.config.reads = "text"
    return discriminator


def positions_of(model: PreTrainedModel) -> int | None:
    """As many tokens as a model can read; RoBERTa and its kin count theirs from behind the padding token on."""
    size = getattr(model.config, "max_position_embeddings", None)
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and len(module.weight) == size]
    return size and size - max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)


def text_reader(discriminator: PreTrainedModel | None) -> TextReader | None:
    """How a discriminator reads text; `None` if it reads ids."""
    return getattr(discriminator, "text_reader", None)
