"""Which tokens the generator must never write: those that stand for no text, and in no training sequence."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenization import blank_token_ids, special_token_ids
from ..generation.vocabulary import special_tokens, vocabulary_size
from .batches import InMemoryData, TrainingData


ROWS = 100_000  # looked at together


def suppress_special_tokens(
    models: Iterable[PreTrainedModel], data: TrainingData, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Keep language models from special tokens, and from ids without a name, that no training sequence holds.

    Start, padding and unknown token and those of blanks, each unless the data hold it; the end token is never among
    them. They become `generation_config.suppress_tokens`, which is saved with a model and which `generate` of
    transformers follows, too. Of a stream only start and padding token and those of blanks are known not to stand in
    its sequences.
    """
    blanks = set(blank_token_ids(tokenizer))
    for model in (model for model in models if model.can_generate()):
        size, ends = vocabulary_size(model), special_tokens(model)[0]
        special = {token_id for token_id in special_token_ids(tokenizer) | blanks if token_id < size}
        if not isinstance(data, InMemoryData):
            special &= {tokenizer.bos_token_id, tokenizer.pad_token_id} | blanks
        if size > len(tokenizer):
            special |= set(range(size)).difference(tokenizer.get_vocab().values())
        suppressed = sorted(special - held_tokens(data, size) - set(ends))
        model.generation_config.suppress_tokens = suppressed or None


def held_tokens(data: TrainingData, vocab_size: int) -> set[int]:
    """The token ids that stand in training sequences; of a stream, none is known."""
    held = torch.zeros(vocab_size, dtype=torch.bool)
    if isinstance(data, InMemoryData):
        for part in data.samples.split(ROWS):
            held[part.ids[part.mask].cpu()] = True
    return set(held.nonzero().squeeze(1).tolist())
