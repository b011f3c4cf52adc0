"""What a causal LM says of its tokens: how many there are, which start or end a sequence, which are never written."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import LongTensor
from .modes import evaluating


# Added to logits of suppressed tokens where likelihoods are computed: their probability is exactly zero in float32,
# while its logarithm stays a number, as 0 * inf is none. It fits into float16.
NEVER = -3e4

# For each model, whether it reads embeddings as it reads tokens: at real ones, and with padding after them.
_LOOKUPS: WeakKeyDictionary[PreTrainedModel, tuple[bool, bool]] = WeakKeyDictionary()


def special_tokens(generator: PreTrainedModel) -> tuple[list[int], int]:
    """The token ids that end a sequence (none for sequences of fixed length) and the one that fills up after it."""
    eos, pad = generator.config.eos_token_id, generator.config.pad_token_id
    eos = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    return eos, pad if pad is not None else eos[0] if eos else 0


def start_prompt(generator: PreTrainedModel, batch_size: int) -> LongTensor:
    """Prompts of nothing but the start token, shape (B, 1)."""
    bos = generator.config.bos_token_id
    if bos is None:
        raise UserError("a generator without `bos_token_id`", "a start token", "set it in its config")
    return torch.full((batch_size, 1), bos, device=generator.device)


def vocabulary_size(generator: PreTrainedModel) -> int:
    """V, the number of token ids a generator can write; a UserError for a model of more than text, which says none."""
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


def token_embeddings(model: PreTrainedModel, padded: bool = False, tokens: int | None = None) -> Tensor:
    """The embeddings of a model's tokens, (V, E), of which soft tokens are mixtures (`inputs_embeds`).

    Some models scale or transform what they look up. So it is tried on two tokens, once a model, instead of assumed.

    Args:
        padded: whether the model is to read padding on the right, too.
        tokens: V, where the model knows more ids than the soft tokens are mixtures of; all that it knows by default.

    Raises:
        UserError: the model reads embeddings otherwise than tokens, or not at all, or reads text, whose tokens are
            other ones.
    """
    if getattr(model, "text_reader", None) is not None:  # see `data.reading`
        problem, fix = f"soft tokens for {type(model).__name__}, which reads text", "leave out `discriminator.reads`"
        raise UserError(problem, "a discriminator that reads ids", f"{fix}, or choose another objective")
    problem = f"{type(model).__name__} cannot read soft tokens"
    expected = "a model that reads `inputs_embeds`, a plain row for each token"
    weight = getattr(model.get_input_embeddings(), "weight", None)
    if model not in _LOOKUPS:
        plain = isinstance(weight, Tensor) and not weight.is_meta
        plain = plain and "inputs_embeds" in inspect.signature(model.forward).parameters
        try:
            _LOOKUPS[model] = plain and _reads_rows(model, weight, 1), plain and _reads_rows(model, weight, 0)
        except (ValueError, NotImplementedError) as error:  # such as BART, which looks for an end token
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise UserError(f"{problem} ({reason})", expected, "choose another") from error
    plain, finds_end = _LOOKUPS[model]
    if not plain:
        raise UserError(f"{problem}: its embeddings are no plain lookup", expected, "choose another")
    if padded and not finds_end:
        problem += " with padding: it finds a sequence's end by its ids"
        raise UserError(problem, "a model that goes by the mask", "choose another, or sequences of one length")
    return weight if tokens in (None, len(weight)) else weight[:tokens]


@torch.no_grad()
def _reads_rows(model: PreTrainedModel, weight: Tensor, last: int) -> bool:
    """Whether two tokens and their embeddings give the same; `last`: whether the second one is no padding."""
    pad = getattr(model.config, "pad_token_id", None) or 0
    first, second = _ordinary_tokens(model, len(weight))
    ids = torch.tensor([[first, second if last else pad]], device=model.device)
    mask = torch.tensor([[1, last]], device=model.device)
    with evaluating(model):
        plain = model(input_ids=ids, attention_mask=mask).logits
        mixed = model(inputs_embeds=weight[ids], attention_mask=mask).logits
    return torch.allclose(plain.float(), mixed.float(), rtol=1e-3, atol=1e-4)


def _ordinary_tokens(model: PreTrainedModel, vocab_size: int) -> tuple[int, int]:
    """Two token ids that neither start nor end a sequence nor fill it up, as far as there are such."""
    named = [getattr(model.config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
    special = {token_id for ids in named for token_id in (ids if isinstance(ids, list | tuple) else [ids])}
    ordinary = (token_id for token_id in reversed(range(vocab_size)) if token_id not in special)
    first = next(ordinary, 0)
    return first, next(ordinary, first)
