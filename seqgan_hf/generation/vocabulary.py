"""What a causal LM says of its tokens: how many there are, which start or end a sequence, which are never written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import LongTensor


# Added to logits of suppressed tokens where likelihoods are computed: their probability is exactly zero in float32,
# while its logarithm stays a number, as 0 * inf is none. It fits into float16.
NEVER = -3e4


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


def suppressed_tokens(generator: PreTrainedModel) -> list[int]:
    """The token ids that the policy never writes: `generation_config.suppress_tokens`, as in `generate`."""
    settings = getattr(generator, "generation_config", None)
    return getattr(settings, "suppress_tokens", None) or []


@contextmanager
def suppressing(generator: PreTrainedModel, token_ids: Iterable[int]) -> Iterator[None]:
    """Within it these tokens are never written either."""
    settings, before = generator.generation_config, generator.generation_config.suppress_tokens
    settings.suppress_tokens = sorted({*(before or ()), *token_ids}) or None
    try:
        yield
    finally:
        settings.suppress_tokens = before


def suppression(generator: PreTrainedModel, value: float) -> Tensor | None:
    """What is added to logits: `value` at suppressed tokens, else zero, shape (V,); `None` where there are none."""
    if not (token_ids := suppressed_tokens(generator)):
        return None
    added = torch.zeros(vocabulary_size(generator), dtype=generator.dtype, device=generator.device)
    return added.index_fill_(0, torch.tensor(token_ids, device=generator.device), value)
