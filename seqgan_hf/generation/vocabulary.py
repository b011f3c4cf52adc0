"""What a causal LM says of its tokens: how many there are, which one starts a sequence and which ones end it."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import LongTensor


def special_tokens(generator: PreTrainedModel) -> tuple[list[int], int]:
    """The token ids that end a sequence (none for sequences of fixed length) and the one that fills up after it."""
    eos = generator.config.eos_token_id
    eos = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    pad = generator.config.pad_token_id
    return eos, pad if pad is not None else eos[0] if eos else 0


def start_prompt(generator: PreTrainedModel, batch_size: int) -> LongTensor:
    """Prompts of nothing but the start token, shape (B, 1)."""
    bos = generator.config.bos_token_id
    if bos is None:
        raise UserError("a generator without `bos_token_id`", "a start token", "set it in its config")
    return torch.full((batch_size, 1), bos, device=generator.device)


def vocabulary_size(generator: PreTrainedModel) -> int:
    """V, the number of token ids a generator can write.

    Raises:
        ValueError: the config says none, as that of a model of more than text.
    """
    size = getattr(generator.config, "vocab_size", None)
    if size is None:
        raise UserError(f"the config of {type(generator).__name__} has no `vocab_size`", "a causal LM over text alone")
    return size
