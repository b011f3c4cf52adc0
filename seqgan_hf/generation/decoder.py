"""A causal LM that writes many sequences at once, one token a step, on top of its cache."""

from __future__ import annotations

import inspect
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EncoderDecoderCache, PreTrainedModel

from ..errors import UserError
from ..functional import SoftmaxLayer, block_rows, filter_logits, layer_memory, multiply, sample_categorical
from ..models.modeling_base import cache_name, cache_of, reads_old_masks
from ..samples import LongTensor, Samples
from .modes import evaluating
from .reserved_cache import reserve, select_rows
from .vocabulary import suppression, vocabulary_size


_HEADS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def has_plain_head(generator: PreTrainedModel) -> bool:
    """Whether the logits are just `get_output_embeddings()` applied to the base model's last hidden state.

    Some models scale, shift or cap their logits. So it is tried on two tokens, once a model, instead of assumed.
    """
    if generator not in _HEADS:
        head, trunk = generator.get_output_embeddings(), generator.base_model
        plain = isinstance(head, nn.Linear) and trunk is not generator
        if plain:
            ids = torch.tensor([[0, min(1, vocabulary_size(generator) - 1)]], device=generator.device)
            with torch.no_grad(), evaluating(generator):
                features = trunk(input_ids=ids, use_cache=False)[0]
                logits = generator(input_ids=ids, use_cache=False).logits
                plain = features.shape[-1] == head.in_features
                plain = plain and torch.allclose(head(features).float(), logits.float(), rtol=1e-3, atol=1e-4)
        _HEADS[generator] = plain
    return _HEADS[generator]


# Devices that are spared the work at padding, and at rows that have ended; on others, not to wait for the number of
# those that are left is worth more.
LEAVE_PADDING_OUT = {"cpu"}


def is_plain_product(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a head is a product with its own weight and nothing else: no hook, no offloading, no packed weight."""
    if type(head) is not nn.Linear or head.weight.is_meta:
        return False
    return not (head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head))


def head_logits(head: nn.Module, features: Tensor, added: Tensor | None = None) -> Tensor:
    """Logits (N, V) of features (N, H), by the fast product where the head is nothing but one and none is learnt.

    `added` (V,), where there is some, is what keeps suppressed tokens from being written.
    """
    if is_plain_product(head) and not torch.is_grad_enabled():
        return multiply(features, head.weight, whole_bias(head, added))
    return head(features) if added is None else head(features) + added


def whole_bias(head: nn.Linear, added: Tensor | None) -> Tensor | None:
    """The bias of a head and what is added to its logits, shape (V,)."""
    return head.bias if added is None else added if head.bias is None else head.bias + added


def _row_bytes(state: Tensor) -> int:
    return state[:1].numel() * state.element_size()


def _keep_and_repeat(values: Tensor, kept: LongTensor | None, repeated: LongTensor) -> Tensor:
    return torch.cat([values if kept is None else values[kept], values[repeated]])


def position_arguments(ids: LongTensor, mask: Tensor | None, start: int = 0) -> dict[str, Tensor]:
    """The positions of tokens (B, K), behind `start` others, as `generate` numbers them: padding does not count.

    They are given even where nothing is padded: some models count from zero in every call, cache or not.
    """
    if mask is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    else:
        positions = torch.arange(start, start + ids.shape[1], device=ids.device).expand_as(ids)
    return {"position_ids": positions}


class Decoder:
    """A batch of sequences that grow together, one token a step, on top of the generator's cache.

    All rows have the same number of tokens, so the caches of rows that began at different prefixes line up.
    """

    def __init__(self, generator: PreTrainedModel, samples: Samples):
        self.plain_head = has_plain_head(generator)
        self.model = generator.base_model if self.plain_head else generator
        self.head = generator.get_output_embeddings() if self.plain_head else nn.Identity()
        self.vocab_size = vocabulary_size(generator)
        self.added = suppression(generator, -torch.inf)
        self.layer = None
        if is_plain_product(self.head) and not torch.is_grad_enabled():
            self.layer = SoftmaxLayer(self.head.weight, whole_bias(self.head, self.added))
        accepted = inspect.signature(generator.forward).parameters
        self.accepts_positions = "position_ids" in accepted
        self.cache_name = cache_name(generator)
        self.mask = None if samples.prompt_mask is None else samples.prompt_mask.long()
        self.cache: Any = None
        self.length = 0  # tokens read so far
        self.selected: tuple[int, LongTensor | None, LongTensor] | None = None  # what the cache has yet to follow
        self.features = self._forward(samples.prompt)

    def _forward(self, ids: Tensor) -> Tensor:
        """Features after tokens (N, K), or after embeddings (N, K, E) in their place."""
        start = 0 if self.cache is None else self.length
        self.length = start + ids.shape[1]
        like = ids if ids.dim() == 2 else ids[:, :, 0]
        arguments = position_arguments(like, self.mask, start) if self.accepts_positions else {}
        if self.mask is not None and reads_old_masks(self.cache):
            arguments["attention_mask"] = self.mask
        arguments["input_ids" if ids.dim() == 2 else "inputs_embeds"] = ids
        output = self.model(use_cache=True, **{self.cache_name: self.cache}, **arguments)
        cache = cache_of(output)
        # a decoder that could attend to an encoder, but has none
        self.cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        if self.cache is None:
            raise UserError(f"{type(self.model).__name__} returns no cache", "a causal LM with `use_cache`")
        return output[0][:, -1]

    def reserve(self, rows: int, length: int) -> None:
        """Make room for so many rows of so many tokens, where that spares copies (`reserved_cache`)."""
        reserve(self.cache, rows, length)

    def feed(self, tokens: Tensor) -> None:
        """Append one token to every row, as its id, shape (N,), or as its embedding, (N, E)."""
        if self.selected is not None:
            select_rows(self.cache, *self.selected)
            self.selected = None
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, 1), value=1)
        self.features = self._forward(tokens[:, None])

    def select(self, kept: LongTensor | None, repeated: LongTensor) -> None:
        """Keep rows (K,), in ascending order (`None`: all), and append copies of rows (L,).

        The cache follows when the next token is fed: after the last one it need not.
        """
        self.selected = len(self.features), kept, repeated
        self.features = _keep_and_repeat(self.features, kept, repeated)
        if self.mask is not None:
            self.mask = _keep_and_repeat(self.mask, kept, repeated)

    def draw(self, rows: slice, uniforms: Tensor, temperature: float, top_k: int, top_p: float) -> LongTensor:
        """The next tokens (K,) of K rows, by uniforms (K, 2); logits are used block by block while they are cached."""
        features = self.features[rows]
        size = block_rows(self.vocab_size, features.device)
        as_it_is = temperature == top_p == 1.0 and top_k == 0
        safe = as_it_is and self.layer is not None and self.layer.is_safe(features)
        read, memory = features, None
        if self.layer is not None:
            read = self.layer.reads(features, safe)
            memory = layer_memory(min(size, len(read)), self.vocab_size, read.device)
        tokens = []
        for block, numbers in zip(read.split(size), uniforms.split(size), strict=True):
            if self.layer is not None:
                logits = self.layer.logits(block, memory)
            else:
                logits = head_logits(self.head, block, self.added)
            if safe:
                weights = logits.exp2_()
            else:
                weights = filter_logits(logits, temperature, top_k, top_p).float().softmax(dim=-1)
            tokens.append(sample_categorical(weights, numbers))
        return torch.cat(tokens)

    def bytes_per_row(self, length: int) -> int:
        """Memory of one row's cache once it holds `length` tokens: keys and values grow, recurrent states do not."""
        total, fixed = 0, list(getattr(self.cache, "linear_cache", []))  # MiniMax's
        for layer in self.cache.layers:
            for state in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                if isinstance(state, Tensor):
                    growth = length / max(1, layer.get_seq_length()) if state.dim() == 4 else 1
                    total += int(_row_bytes(state) * growth)
            for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
                fixed += states.values()
        return max(1, total + sum(_row_bytes(state) for state in fixed if isinstance(state, Tensor)))
