"""Samples as a discriminator with a tokenizer of its own reads them: as text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..samples import Samples
from .tokenization import decode_ids


logger = logging.getLogger(__name__)

# Texts whose tokens are kept: those of a corpus are read in every epoch, those of the generator in some passes.
KEPT_TEXTS = 50_000
# A tokenizer without a limit names a number far above this one.
UNLIMITED = 10**6


class TextReader:
    """Turns samples into the inputs of a model that reads text.

    What the generator wrote is decoded by its tokenizer and encoded by the reader's own, real sequences likewise, so
    that both kinds went the same way. A condition and its continuation are given as a pair. A text without words is
    read as the special tokens around it, or the end token alone; one that did not end within T tokens as far as it
    goes; an unknown word as it is written (`<unk>`). Texts longer than the model's positions are cut, with a warning.

    Args:
        writer: the generator's tokenizer.
        tokenizer: the reader's own; saved with its model.
        positions: as many tokens can the model read; `None` for any number.

    Raises:
        UserError: the tokenizer has no token to pad with or to end with.
    """

    def __init__(
        self, writer: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, positions: int | None = None
    ):
        self.writer, self.tokenizer = writer, tokenizer
        limits = [tokenizer.model_max_length, *([] if positions is None else [positions])]
        self.longest = min(limits) if min(limits) < UNLIMITED else None
        ends = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self.empty = next((end for end in ends if end is not None), None)
        if self.empty is None:
            problem = f"{type(tokenizer).__name__}, the discriminator's, has no end, separator or padding token"
            raise UserError(problem, "one of these, to pad with", "add it with `add_special_tokens`")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.empty)
        self._known: dict[tuple, dict[str, list[int]]] = {}
        self._cut = False

    def __call__(self, samples: Samples) -> dict[str, Tensor]:
        """The model's inputs for B samples: `input_ids`, `attention_mask` (B, L) and what else it reads."""
        rows = list(self._rows(samples))
        if new := [row for row in dict.fromkeys(rows) if row not in self._known]:
            if len(self._known) + len(new) > KEPT_TEXTS:
                self._known.clear()
                new = list(dict.fromkeys(rows))
            self._known.update(zip(new, self._encode(new), strict=True))
        read = [self._known[row] for row in rows]
        padded = self.tokenizer.pad(read, padding_side="right", return_tensors="pt", verbose=False)
        return {name: values.to(samples.ids.device) for name, values in padded.items()}

    def _rows(self, samples: Samples) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids of condition, without the start token, and continuation of each sample."""
        prompts, masks = samples.prompt.tolist(), samples.attention_mask.tolist()
        width = samples.prompt.shape[1]
        for prompt, ids, mask in zip(prompts, samples.ids.tolist(), masks, strict=True):
            condition = [token_id for token_id, real in zip(prompt, mask[:width], strict=True) if real][1:]
            yield tuple(condition), tuple(i for i, real in zip(ids, mask[width:], strict=True) if real)

    def _encode(self, rows: list[tuple]) -> list[dict[str, list[int]]]:
        texts = decode_ids(self.writer, [list(ids) for _, ids in rows])
        conditional = any(condition for condition, _ in rows)
        conditions = decode_ids(self.writer, [list(condition) for condition, _ in rows]) if conditional else None
        given = (texts,) if conditions is None else (conditions, texts)
        encoded: BatchEncoding = self.tokenizer(*given, return_attention_mask=True, verbose=False)
        if self.longest is not None and (longest := max(map(len, encoded["input_ids"]))) > self.longest:
            if not self._cut:
                told = "A text has %d tokens for the discriminator, which reads %d; it and all others as long are cut"
                logger.warning(told, longest, self.longest)
            self._cut = True
            encoded = self.tokenizer(*given, return_attention_mask=True, truncation=True, max_length=self.longest)
        names = encoded.keys() & {"input_ids", "attention_mask", "token_type_ids"}
        read = [{name: encoded[name][i] for name in names} for i in range(len(rows))]
        empty = {"input_ids": [self.empty], "attention_mask": [1], "token_type_ids": [0]}
        return [each if each["input_ids"] else {name: empty[name] for name in names} for each in read]


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
    reader: Any = TextReader(writer, tokenizer, _positions(discriminator))
    discriminator.text_reader = reader
    discriminator.config.pad_token_id = tokenizer.pad_token_id
    discriminator.config.reads = "text"
    return discriminator


def _positions(model: PreTrainedModel) -> int | None:
    """As many tokens as a model can read; RoBERTa and its kin count theirs from behind the padding token on."""
    size = getattr(model.config, "max_position_embeddings", None)
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and len(module.weight) == size]
    return size and size - max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)


def text_reader(discriminator: PreTrainedModel | None) -> TextReader | None:
    """How a discriminator reads text; `None` if it reads ids."""
    return getattr(discriminator, "text_reader", None)
