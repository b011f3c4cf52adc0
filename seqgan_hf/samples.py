"""The one record that flows through the house: a batch of generated (or real) sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import UserError


# What a tensor holds, for readers: torch has no types for it.
LongTensor: TypeAlias = Tensor
BoolTensor: TypeAlias = Tensor
FloatTensor: TypeAlias = Tensor


class Samples(NamedTuple):
    """A batch of sequences: what was given (`prompt`) and what was written (`ids`).

    The first real token of every prompt is the start token; whatever follows it is the condition. Losses, rewards and
    metrics count `ids` where `mask` is true, and nothing else.

    Attributes:
        prompt: start token and condition, padded on the left, shape (B, P).
        ids: tokens after the prompt, EOS included where there is one, padding after it, shape (B, T).
        mask: true from the first token through EOS, shape (B, T).
        prompt_mask: true on real prompt tokens, shape (B, P); `None` means that no prompt is padded.
        soft: a differentiable relaxation of `ids`, shape (B, T, V), for pathwise objectives only: a tensor, or
            `SoftTokens`, which compute it where it is used.
        logprobs: of each token under the policy that it was drawn from, in nats, shape (B, T).
        advantages: what each token is credited with in a policy gradient, shape (B, T).
        origin: of completions: which sequence of a batch each completes, and how many of its tokens are given, shape
            (B, 2). A hint for discriminators that read what completions share once for all.
    """

    prompt: LongTensor
    ids: LongTensor
    mask: BoolTensor
    prompt_mask: BoolTensor | None = None
    soft: Any = None
    logprobs: FloatTensor | None = None
    advantages: FloatTensor | None = None
    origin: LongTensor | None = None

    @property
    def batch_size(self) -> int:
        return self.ids.shape[0]

    @property
    def sequences(self) -> LongTensor:
        """Prompt and continuation as one tensor, shape (B, P+T)."""
        return torch.cat([self.prompt, self.ids], dim=1)

    @property
    def attention_mask(self) -> BoolTensor:
        """True where `sequences` holds a real token, shape (B, P+T)."""
        prompt_mask = torch.ones_like(self.prompt, dtype=torch.bool) if self.prompt_mask is None else self.prompt_mask
        return torch.cat([prompt_mask, self.mask], dim=1)

    @property
    def lengths(self) -> LongTensor:
        """Number of real tokens of each continuation, EOS included, shape (B,)."""
        return self.mask.sum(dim=1)

    @property
    def uncredited(self) -> Samples:
        """The same sequences without `logprobs` and `advantages`."""
        return self._replace(logprobs=None, advantages=None)

    def map(self, function: Callable[[Any], Any]) -> Samples:
        """A function applied to every field that is there."""
        return Samples(*(None if field is None else function(field) for field in self))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Samples:
        return self.map(lambda field: field.to(device, non_blocking=non_blocking))

    def select(self, rows: Tensor | slice) -> Samples:
        """The given rows of every field; `rows` is a slice, a boolean mask (B,) or indices (K,)."""
        return self.map(lambda field: field[rows])

    def split(self, size: int) -> list[Samples]:
        """Consecutive parts of at most `size` rows."""
        return [self.select(slice(start, start + size)) for start in range(0, self.batch_size, size)]

    @staticmethod
    def concatenate(parts: Sequence[Samples], pad_token_id: int = 0) -> Samples:
        """Join batches row-wise; prompts are padded on the left and continuations on the right to a common length."""
        if len(parts) == 1:
            return parts[0]
        prompt_width = max(part.prompt.shape[1] for part in parts)
        width = max(part.ids.shape[1] for part in parts)
        if any(part.soft is not None for part in parts):
            raise UserError("samples with a soft relaxation", "token ids only", "drop `soft` before joining them")
        padded = any(part.prompt_mask is not None or part.prompt.shape[1] != prompt_width for part in parts)

        def left(fields: list[Tensor], value: int) -> Tensor:
            return torch.cat([F.pad(field, (prompt_width - field.shape[1], 0), value=value) for field in fields])

        def right(name: str, value: int = 0) -> Tensor | None:
            fields = [field for part in parts if (field := getattr(part, name)) is not None]
            if 0 < len(fields) < len(parts):
                raise UserError(f"`{name}` in some of the samples only", "them in all or none", "fill in the others")
            filled = [F.pad(field, (0, width - field.shape[1]), value=value) for field in fields]
            return torch.cat(filled) if filled else None

        origins = [part.origin for part in parts if part.origin is not None]
        masks = [part.attention_mask[:, : part.prompt.shape[1]] for part in parts]
        return Samples(
            prompt=left([part.prompt for part in parts], pad_token_id),
            ids=right("ids", pad_token_id),
            mask=right("mask"),
            prompt_mask=left(masks, 0) if padded else None,
            logprobs=right("logprobs"),
            advantages=right("advantages"),
            origin=torch.cat(origins) if len(origins) == len(parts) else None,
        )


class Completions(NamedTuple):
    """Completed sequences, each labelled with the prefix it grew from, so that a reward cannot lose its owner.

    Attributes:
        samples: K whole sequences: the first `prefix_length` tokens are given, the rest is drawn.
        row: index of the sentence in the batch whose prefix was completed, shape (K,).
        prefix_length: number of given tokens, from 1 to T-1, shape (K,).
    """

    samples: Samples
    row: LongTensor
    prefix_length: LongTensor
