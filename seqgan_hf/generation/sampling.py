"""Sequences drawn from any causal LM."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..functional import block_rows
from ..samples import LongTensor, Samples
from .decoder import LEAVE_PADDING_OUT, Decoder
from .memory import in_parts
from .modes import evaluating
from .vocabulary import special_tokens, vocabulary_size


# Rows that are completed at the same time when the caller sets no limit, and the bytes their caches may take.
MAX_ROWS, MAX_CACHE_BYTES = 32_768, 2**31


@torch.no_grad()
def sample(
    generator: PreTrainedModel,
    prompt: LongTensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
    max_rows: int | None = None,
) -> Samples:
    """Write a continuation of every prompt, token by token, from the generator's own distribution.

    Args:
        generator: any causal LM with a cache; put into eval mode meanwhile.
        prompt: start token and condition, padded on the left, shape (B, P).
        max_new_tokens: T, at least 1; a sequence ends earlier at the config's `eos_token_id`.
        temperature, top_k, top_p: see `filter_logits`; the defaults sample from the model as it is.
        rng: source of the random numbers, on the generator's device; torch's global one by default.
        prompt_mask: true on real prompt tokens, shape (B, P); `None` if no prompt is padded.
        max_rows: sequences written at the same time; chosen by the size of the cache by default. It bounds memory
            and changes no result.

    Returns:
        Samples with `ids` and `mask` of shape (B, T).
    """
    check_sampling(max_new_tokens, temperature, top_k, top_p)
    start = nothing_written(prompt, prompt_mask)
    uniforms = torch.rand(len(prompt), max_new_tokens, 2, generator=rng, device=prompt.device)

    def part(rows: slice) -> Samples:
        return sample_rows(generator, start.select(rows), uniforms[rows], temperature, top_k, top_p)

    with evaluating(generator):
        if max_rows is None:
            max_rows = rows_that_fit(generator, start, max_new_tokens)
        least = block_rows(vocabulary_size(generator), prompt.device)
        return Samples.concatenate(in_parts(generator, "sampling", len(prompt), max_rows, part, least))


def nothing_written(prompt: LongTensor, prompt_mask: Tensor | None = None) -> Samples:
    """Prompts that nothing continues yet: T = 0."""
    return Samples(prompt, prompt[:, :0], prompt[:, :0].bool(), prompt_mask)


def sample_mixture(
    generator: PreTrainedModel,
    prompt: LongTensor,
    max_new_tokens: int,
    temperatures: tuple[float, float],
    share: float,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
) -> Samples:
    """As `sample`, at one of two temperatures: a coin is flipped for each sequence.

    Args:
        temperatures: two of them.
        share: the probability of the second, from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share={share}", "a probability in [0, 1]", "set it accordingly")
    second = torch.rand(len(prompt), generator=rng, device=prompt.device) < share
    groups = [(~second).nonzero().squeeze(1), second.nonzero().squeeze(1)]
    parts = []
    for rows, temperature in zip(groups, temperatures, strict=True):
        mask = None if prompt_mask is None else prompt_mask[rows]
        if len(rows):
            parts.append(sample(generator, prompt[rows], max_new_tokens, temperature, top_k, top_p, rng, mask))
    return Samples.concatenate(parts).select(torch.cat(groups).argsort())


def check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    greedy = "top_k=1 is greedy, as is temperature 0 of `generate`"
    for name, value, holds, expected in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1 token"),
        ("temperature", temperature, temperature > 0, f"a positive number; {greedy}"),
        ("top_k", top_k, top_k >= 0, "0 (keep all) or a positive number of tokens"),
        ("top_p", top_p, 0 < top_p <= 1, "a probability in (0, 1]"),
    ):
        if not holds:
            raise UserError(f"{name}={value}", expected, f"set `{name}` accordingly")


def sample_rows(
    generator: PreTrainedModel, start: Samples, uniforms: Tensor, temperature: float, top_k: int, top_p: float
) -> Samples:
    """Continuations of B prompts, by uniforms (B, T, 2)."""
    eos, pad = special_tokens(generator)
    batch, length, _ = uniforms.shape
    ids = torch.full((batch, length), pad, dtype=torch.long, device=uniforms.device)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    active, ends = torch.arange(batch, device=ids.device), torch.tensor(eos, dtype=torch.long, device=ids.device)
    leaves = bool(eos) and ids.device.type in LEAVE_PADDING_OUT
    decoder = Decoder(generator, start)
    decoder.reserve(batch, start.prompt.shape[1] + length)
    for position in range(length):
        tokens = decoder.draw(slice(None), uniforms[active, position], temperature, top_k, top_p)
        ids[active, position] = tokens
        mask[active, position] = True
        if position + 1 == length:
            break
        if leaves:
            going = unfinished(tokens, ends)
            active, tokens = active[going], tokens[going]
            if not len(active):
                break
            if len(active) < len(decoder.features):
                decoder.select(going, going[:0])
        decoder.feed(tokens)
    whole = start._replace(ids=ids, mask=mask)
    return whole if leaves or not eos else cut(whole, ends, pad)


def cut(samples: Samples, ends: LongTensor, pad: int) -> Samples:
    """Padding in place of what stands after an end token, and no longer counted."""
    ended = torch.isin(samples.ids, ends)
    after = ended.cumsum(dim=1) > ended
    return samples._replace(ids=samples.ids.masked_fill(after, pad), mask=samples.mask & ~after)


def unfinished(tokens: LongTensor, ends: LongTensor) -> LongTensor:
    """Indices of the rows that did not just end, shape (K,)."""
    return torch.isin(tokens, ends, invert=True).nonzero().squeeze(1)


def rows_that_fit(generator: PreTrainedModel, samples: Samples, length: int) -> int:
    """How many rows may run at the same time so that their caches stay within `MAX_CACHE_BYTES`."""
    probe = Decoder(generator, samples.select(slice(0, 1)))
    row = probe.bytes_per_row(samples.prompt.shape[1] + length)
    return max(1, min(MAX_ROWS, MAX_CACHE_BYTES // row))


@torch.no_grad()
def mix_in_own_tokens(
    generator: PreTrainedModel, samples: Samples, probability: float, rng: torch.Generator | None = None
) -> LongTensor:
    """Real sequences in which each token is replaced by the generator's own choice at that point with `probability`.

    The generator reads the mixed sequence as it goes (scheduled sampling, Bengio et al. 2015, section 2.4).

    Returns:
        Token ids, shape (B, T).
    """
    mixed = samples.ids.clone()
    device, length = mixed.device, mixed.shape[1]
    replaced = torch.rand(mixed.shape, generator=rng, device=device) < probability
    uniforms = torch.rand(*mixed.shape, 2, generator=rng, device=device)
    with evaluating(generator):
        decoder = Decoder(generator, samples)
        decoder.reserve(samples.batch_size, samples.prompt.shape[1] + length)
        for position in range(length - 1):
            drawn = decoder.draw(slice(None), uniforms[:, position], temperature=1.0, top_k=0, top_p=1.0)
            mixed[:, position] = torch.where(replaced[:, position], drawn, mixed[:, position])
            decoder.feed(mixed[:, position])
    return mixed
