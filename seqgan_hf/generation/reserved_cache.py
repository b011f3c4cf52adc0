"""Keys and values of a causal LM in memory that is reserved ahead.

The cache of `transformers` is concatenated anew at every token, and copied whole when rows are selected: for a small
model that takes more time than the model itself. Here a token is written behind those before it, a row that is
repeated behind the other rows, and rows that end are closed up in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..samples import LongTensor


# Numbers that are moved at the same time where rows close up: the only memory that takes besides the cache.
MOVED_TOGETHER = 2**22


class ReservedLayer(DynamicLayer):
    """Keys and values (rows, heads, tokens, width) as views of memory for so many rows of so many tokens."""

    def __init__(self, layer: DynamicLayer, rows: int, length: int):
        super().__init__()
        self.device, self.is_initialized = layer.device, True
        given = layer.keys, layer.values
        self._memory = [state.new_empty(rows, state.shape[1], length, state.shape[3]) for state in given]
        self._show(layer.keys.shape[0], layer.keys.shape[2])
        for state, old in zip((self.keys, self.values), given, strict=True):
            state.copy_(old)

    def _show(self, rows: int, length: int) -> None:
        reserved_rows, _, reserved_length, _ = self._memory[0].shape
        if rows > reserved_rows or length > reserved_length:
            most = f"at most {reserved_rows} rows of {reserved_length} tokens"
            raise IndexError(f"{rows} rows of {length} tokens: expected {most}. Reserve more.")
        self.keys, self.values = (memory[:rows, :, :length] for memory in self._memory)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write new tokens behind those before; returns all keys and values."""
        rows, _, length, _ = self.keys.shape
        self._show(rows, length + key_states.shape[2])
        self.keys[:, :, length:] = key_states
        self.values[:, :, length:] = value_states
        return self.keys, self.values

    def repeat_rows(self, rows: LongTensor) -> None:
        """Append copies of rows (K,)."""
        count, _, length, _ = self.keys.shape
        self._show(count + len(rows), length)
        for state in (self.keys, self.values):
            state[count:] = state[rows.to(state.device)]

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        """Keep rows (K,), in ascending order. In place: no row moves to where one that is still to move stands."""
        _, heads, length, width = self.keys.shape
        together = max(1, MOVED_TOGETHER // (heads * length * width))
        for state in (self.keys, self.values):
            for start in range(0, len(beam_idx), together):
                moved = beam_idx[start : start + together].to(state.device)
                state[start : start + len(moved)] = state[moved]
        self._show(len(beam_idx), length)


def reserve(cache: Cache, rows: int, length: int) -> None:
    """Put a cache's keys and values into reserved memory, in place, with room for so many rows of so many tokens.

    Those that do more than append tokens stay as they are.
    """
    layers: list[Any] = cache.layers
    if type(cache) is DynamicCache and all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers):
        cache.layers = [ReservedLayer(layer, rows, length) for layer in layers]


def select_rows(cache: Cache, batch_size: int, kept: LongTensor | None, repeated: LongTensor) -> None:
    """Keep rows (K,), in ascending order (`None`: all), of the `batch_size` of a cache; append copies of rows (L,)."""
    everything = torch.arange(batch_size + len(repeated), device=repeated.device)
    if not (type(cache) is DynamicCache and all(isinstance(layer, ReservedLayer) for layer in cache.layers)):
        # both select rows: a cache with states of its own knows of them in one of the two only, as layers do
        own = type(cache).batch_select_indices is not Cache.batch_select_indices
        select: Any = cache.batch_select_indices if own else cache.reorder_cache
        select(torch.cat([everything[:batch_size] if kept is None else kept, repeated]))
        return
    layers: list[Any] = cache.layers
    for layer in layers:
        if len(repeated):
            layer.repeat_rows(repeated)
        if kept is not None:
            layer.reorder_cache(torch.cat([kept, everything[batch_size:]]))
