"""Sequences from any causal LM: sample them, complete their prefixes (Monte Carlo rollouts), and score them.

Everything here works for any `PreTrainedModel` with `GenerationMixin` and a cache (recurrent states or keys and
values). Random numbers are drawn for whole batches before these are cut into blocks, so no memory setting ever
changes a result.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import LongTensor, Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Cache, EncoderDecoderCache, PreTrainedModel

from .functional import (
    block_rows,
    evaluating,
    fewer_rows,
    filter_logits,
    fitting_rows,
    in_parts,
    linear_nll,
    multiply,
    sample_categorical,
)
from .reserved_cache import reserve, select_rows
from .samples import Samples


# Rows that are completed at the same time when the caller sets no limit, and the bytes their caches may take.
MAX_ROWS = 32_768
MAX_CACHE_BYTES = 2**31


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
        raise ValueError("got a generator without `bos_token_id` -> expected a start token -> set it in its config")
    return torch.full((batch_size, 1), bos, dtype=torch.long, device=generator.device)


def vocabulary_size(generator: PreTrainedModel) -> int:
    """V, the number of token ids a generator can write.

    Raises:
        ValueError: the config says none, as that of a model of more than text.
    """
    size = getattr(generator.config, "vocab_size", None)
    if size is None:
        raise ValueError(
            f"got {type(generator).__name__}, whose config has no `vocab_size` -> expected a causal LM over text "
            "alone -> load the language model inside it, by the class for that (such as Gemma3ForCausalLM)"
        )
    return size


# --- A causal LM as trunk and head -----------------------------------------------------------------------------------

_HEADS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def _has_plain_head(generator: PreTrainedModel) -> bool:
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
                plain = features.shape[-1] == head.in_features and torch.allclose(
                    head(features).float(), logits.float(), rtol=1e-3, atol=1e-4
                )
        _HEADS[generator] = plain
    return _HEADS[generator]


# Devices that are spared the work at padding; on others, not to wait for a number of tokens is worth more.
LEAVE_PADDING_OUT = {"cpu"}


def _is_product(head: nn.Module) -> bool:
    """Whether a head is a product with its own weight and nothing else: no hook, no offloading, no packed weight."""
    if type(head) is not nn.Linear or head.weight.is_meta:
        return False
    return not (head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head))


def _logits(head: nn.Module, features: Tensor) -> Tensor:
    """Logits (N, V) of features (N, H), by the fast product where the head is nothing but one and none is learnt."""
    if _is_product(head) and not torch.is_grad_enabled():
        return multiply(features, head.weight, head.bias)
    return head(features)


def _row_bytes(state: Tensor) -> int:
    return state[:1].numel() * state.element_size()


def _keep_and_repeat(values: Tensor, kept: LongTensor | None, repeated: LongTensor) -> Tensor:
    return torch.cat([values if kept is None else values[kept], values[repeated]])


def _positions(ids: LongTensor, mask: Tensor | None, start: int = 0) -> dict[str, Tensor]:
    """The positions of tokens (B, K), behind `start` others, as `generate` numbers them: padding does not count.

    They are said even where nothing is padded: some models count from zero in every call, cache or not.
    """
    if mask is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    else:
        positions = torch.arange(start, start + ids.shape[1], device=ids.device).expand_as(ids)
    return {"position_ids": positions}


class _Decoder:
    """A batch of sequences that grow together, one token a step, on top of the generator's cache.

    All rows have the same number of tokens, so the caches of rows that began at different prefixes line up.
    """

    def __init__(self, generator: PreTrainedModel, samples: Samples):
        self.plain_head = _has_plain_head(generator)
        self.model = generator.base_model if self.plain_head else generator
        self.head = generator.get_output_embeddings() if self.plain_head else nn.Identity()
        self.vocab_size = vocabulary_size(generator)
        accepted = inspect.signature(generator.forward).parameters
        self.accepts_positions = "position_ids" in accepted
        # state space models of transformers, and some only, have a name of their own for it
        self.cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self.mask = None if samples.prompt_mask is None else samples.prompt_mask.long()
        self.cache = None
        self.selected: tuple[int, LongTensor | None, LongTensor] | None = None  # what the cache has yet to follow
        self.features = self._forward(samples.prompt)

    def _forward(self, ids: LongTensor) -> Tensor:
        start = 0 if self.cache is None else self.length
        self.length = start + ids.shape[1]
        arguments = _positions(ids, self.mask, start) if self.accepts_positions else {}
        # a state space model reads a mask of the new tokens only, which are all real
        if self.mask is not None and not (self.cache_name == "cache_params" and self.cache is not None):
            arguments["attention_mask"] = self.mask
        output = self.model(input_ids=ids, use_cache=True, **{self.cache_name: self.cache}, **arguments)
        cache = getattr(output, self.cache_name, None)
        # a decoder that could attend to an encoder, but has none
        self.cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        if not isinstance(self.cache, Cache):
            raise ValueError(
                f"got {type(self.model).__name__}, which returns no cache of transformers (`past_key_values`) -> "
                "expected a causal LM with one -> use another architecture or set `use_cache=True` in its config"
            )
        return output[0][:, -1]

    def reserve(self, rows: int, length: int) -> None:
        """Make room for so many rows of so many tokens, where that spares copies (`reserved_cache`)."""
        reserve(self.cache, rows, length)

    def feed(self, tokens: LongTensor) -> None:
        """Append one token to every row, shape (N,)."""
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
        """The next token of the given rows; logits are computed and used block by block while they are in the cache.

        Args:
            rows: K of the batch's rows.
            uniforms: shape (K, 2).

        Returns:
            Token ids, shape (K,).
        """
        features = self.features[rows]
        size = block_rows(self.vocab_size, features.device)
        tokens = [
            sample_categorical(filter_logits(_logits(self.head, block), temperature, top_k, top_p), numbers)
            for block, numbers in zip(features.split(size), uniforms.split(size), strict=True)
        ]
        return torch.cat(tokens) if tokens else torch.empty(0, dtype=torch.long, device=features.device)

    def bytes_per_row(self, length: int) -> int:
        """Memory of one row's cache once it holds `length` tokens: keys and values grow, recurrent states do not."""
        total = 0
        for layer in self.cache.layers:
            for state in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                if isinstance(state, Tensor):
                    growth = length / max(1, layer.get_seq_length()) if state.dim() == 4 else 1
                    total += int(_row_bytes(state) * growth)
            for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
                total += sum(_row_bytes(state) for state in states.values() if state is not None)
        beside = getattr(self.cache, "linear_cache", [])  # MiniMax's
        total += sum(_row_bytes(state) for state in beside if isinstance(state, Tensor))
        return max(1, total)


# --- Sampling --------------------------------------------------------------------------------------------------------


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
    _check_sampling(max_new_tokens, temperature, top_k, top_p)
    batch = prompt.shape[0]
    empty = torch.empty(batch, 0, dtype=torch.long, device=prompt.device)
    start = Samples(prompt, empty, empty.bool(), prompt_mask)
    uniforms = torch.rand(batch, max_new_tokens, 2, generator=rng, device=prompt.device)
    with evaluating(generator):
        if max_rows is None:
            max_rows = _rows_that_fit(generator, start, max_new_tokens)
        options = temperature, top_k, top_p
        parts = in_parts(
            generator,
            "sampling",
            batch,
            max_rows,
            lambda rows: _sample_rows(generator, start.select(rows), uniforms[rows], *options),
        )
    return Samples.concatenate(parts)


def _check_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    for name, value, holds, expected in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1 token"),
        ("temperature", temperature, temperature > 0, "a positive number (greedy decoding is `generate`'s)"),
        ("top_k", top_k, top_k >= 0, "0 (keep all) or a positive number of tokens"),
        ("top_p", top_p, 0 < top_p <= 1, "a probability in (0, 1]"),
    ):
        if not holds:
            raise ValueError(f"got {name}={value} -> expected {expected} -> set `{name}` accordingly")


def _sample_rows(
    generator: PreTrainedModel, start: Samples, uniforms: Tensor, temperature: float, top_k: int, top_p: float
) -> Samples:
    eos, pad = special_tokens(generator)
    batch, length, _ = uniforms.shape
    ids = torch.full((batch, length), pad, dtype=torch.long, device=uniforms.device)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    active, ends = torch.arange(batch, device=ids.device), torch.tensor(eos, dtype=torch.long, device=ids.device)
    decoder = _Decoder(generator, start)
    decoder.reserve(batch, start.prompt.shape[1] + length)
    for position in range(length):
        tokens = decoder.draw(slice(None), uniforms[active, position], temperature, top_k, top_p)
        ids[active, position] = tokens
        mask[active, position] = True
        if position + 1 == length:
            break
        if eos:
            going = _going(tokens, ends)
            active, tokens = active[going], tokens[going]
            if not len(active):
                break
            if len(active) < len(decoder.features):
                decoder.select(going, going[:0])
        decoder.feed(tokens)
    return start._replace(ids=ids, mask=mask)


def _going(tokens: LongTensor, ends: LongTensor) -> LongTensor:
    """Indices of the rows that did not just end, shape (K,)."""
    return torch.isin(tokens, ends, invert=True).nonzero().squeeze(1)


def _rows_that_fit(generator: PreTrainedModel, samples: Samples, length: int) -> int:
    """How many rows may run at the same time so that their caches stay within `MAX_CACHE_BYTES`."""
    probe = _Decoder(generator, samples.select(slice(0, 1)))
    row = probe.bytes_per_row(samples.prompt.shape[1] + length)
    return max(1, min(MAX_ROWS, MAX_CACHE_BYTES // row))


# --- Monte Carlo rollouts --------------------------------------------------------------------------------------------


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


class _Unit(NamedTuple):
    """One rollout of the prefixes of one length: the rows that take part, and their random numbers."""

    prefix_length: int
    rows: LongTensor
    uniforms: Tensor  # (K, T - prefix_length, 2)


@torch.no_grad()
def complete(
    generator: PreTrainedModel,
    samples: Samples,
    rollouts: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: torch.Generator | None = None,
    max_rows: int | None = None,
) -> Iterator[Completions]:
    """Complete every proper prefix of every sequence `rollouts` times (Monte Carlo search, SeqGAN, section 3.1).

    The walk is a staircase. It goes through the positions once; at position t the sequences whose first t tokens are
    given join the batch, on copies of the cache that the sampled sequence had there, and every row of the batch takes
    one step. That is T-1 steps in all, each on a large batch, and no prefix is ever computed twice. Prefixes that
    already ended (EOS) have nothing to complete and take no part.

    Args:
        generator: the rollout policy: any causal LM with a cache; put into eval mode meanwhile.
        samples: the sequences, shape (B, T).
        rollouts: R, completions of each prefix, at least 1.
        temperature, top_k, top_p: see `filter_logits`.
        rng: source of the random numbers, on the generator's device.
        max_rows: rows that walk together (but never fewer than one rollout of one prefix length, up to B rows);
            chosen by the size of the cache by default. When a GPU runs out of memory it is halved, with a warning,
            and stays so. It bounds memory and changes no result.

    Yields:
        Parts of the R x (T-1) x B completions, ordered by prefix length.
    """
    if rollouts < 1:
        raise ValueError(f"got rollouts={rollouts} -> expected at least 1 completion of each prefix -> set `rollouts`")
    _check_sampling(samples.ids.shape[1], temperature, top_k, top_p)
    with evaluating(generator):
        if max_rows is None:
            max_rows = _rows_that_fit(generator, samples, samples.ids.shape[1])
        max_rows = fitting_rows(generator, "rollouts", max_rows)
        queue = _Units(samples, rollouts, rng)
        while units := queue.take(max_rows):
            rows = sum(len(unit.rows) for unit in units)
            completions = None
            try:
                completions = _walk(generator, samples, units, temperature, top_k, top_p)
            except RuntimeError as error:
                if len(units) == 1 or not should_reduce_batch_size(error):
                    raise
            if completions is not None:
                _WORK["rollouts"] += rows
                yield completions
                continue
            # outside the handler, since a caught error keeps the failed walk's tensors alive
            max_rows = fewer_rows(generator, "rollouts", rows)
            queue.put_back(units)


_WORK: Counter[str] = Counter()


def rollouts_done() -> int:
    """How many prefixes this process has completed so far, for reports of speed."""
    return _WORK["rollouts"]


class _Units:
    """All the rollouts to do, in order of prefix length. Random numbers are drawn in that order, whatever the cut."""

    def __init__(self, samples: Samples, rollouts: int, rng: torch.Generator | None):
        self.length, self.rng, self.device = samples.ids.shape[1], rng, samples.ids.device
        lengths = samples.lengths
        # EOS is the last counted token: the prefix that contains it is the whole sequence, so it needs no completion
        rows = [(t, (lengths > t).nonzero().squeeze(1)) for t in range(1, self.length)]
        self.todo = deque((t, unfinished) for t, unfinished in rows if len(unfinished) for _ in range(rollouts))
        self.returned: deque[_Unit] = deque()

    def take(self, max_rows: int) -> list[_Unit]:
        """The next units, at least one, of at most `max_rows` rows together; empty when all are done."""
        units: list[_Unit] = []
        total = 0
        while self.returned or self.todo:
            total += len(self.returned[0].rows if self.returned else self.todo[0][1])
            if units and total > max_rows:
                break
            units.append(self.returned.popleft() if self.returned else self._draw(*self.todo.popleft()))
        return units

    def _draw(self, prefix_length: int, rows: LongTensor) -> _Unit:
        shape = (len(rows), self.length - prefix_length, 2)
        return _Unit(prefix_length, rows, torch.rand(shape, generator=self.rng, device=self.device))

    def put_back(self, units: list[_Unit]) -> None:
        """Units whose walk failed, with the random numbers they already have."""
        self.returned.extendleft(reversed(units))


def _walk(
    generator: PreTrainedModel, samples: Samples, units: list[_Unit], temperature: float, top_k: int, top_p: float
) -> Completions:
    """One staircase over the given units.

    The decoder's rows are the sampled sequences (as long as prefixes are still to be handed over), then the
    completions that are being written, whose numbers `active` holds.
    """
    eos, pad = special_tokens(generator)
    device, length = samples.ids.device, samples.ids.shape[1]
    completions, uniforms = _given_prefixes(samples, units, pad)
    ids, mask = completions.samples.ids, completions.samples.mask
    joins = _joins(units)
    first, last = units[0].prefix_length, units[-1].prefix_length

    decoder = _Decoder(generator, _with_prefix(samples, first))
    decoder.reserve(samples.batch_size + len(ids), samples.prompt.shape[1] + length)
    active = going = torch.empty(0, dtype=torch.long, device=device)
    ends = torch.tensor(eos, dtype=torch.long, device=device)
    main = torch.arange(samples.batch_size, device=device)
    for position in range(first, length):  # tokens before `position` are fed, the one at `position` is drawn next
        if position > first:
            decoder.feed(torch.cat([samples.ids[: len(main), position - 1], ids[active, position - 1]]))
        if position in joins or len(going) < len(active):
            new = torch.arange(*joins.get(position, (0, 0)), device=device)
            still_main = main if position < last else main[:0]
            all_stay = position < last and len(going) == len(active)
            kept = None if all_stay else torch.cat([still_main, len(main) + going])
            decoder.select(kept, completions.row[new])
            active, main = torch.cat([active[going], new]), still_main
        if len(active) == 0 and position >= last:
            break
        drawn = decoder.draw(slice(len(main), None), uniforms[active, position], temperature, top_k, top_p)
        ids[active, position] = drawn
        mask[active, position] = True
        going = _going(drawn, ends) if eos else torch.arange(len(active), device=device)
    return completions


def _given_prefixes(samples: Samples, units: list[_Unit], pad: int) -> tuple[Completions, Tensor]:
    """Completions (K, T) that hold their prefixes and nothing else yet, and their random numbers, (K, T, 2)."""
    row = torch.cat([unit.rows for unit in units])
    prefix_length = torch.cat([torch.full_like(unit.rows, unit.prefix_length) for unit in units])
    given = torch.arange(samples.ids.shape[1], device=row.device) < prefix_length[:, None]
    whole = samples.select(row)._replace(ids=samples.ids[row].masked_fill(~given, pad), mask=given)
    uniforms = torch.cat([F.pad(unit.uniforms, (0, 0, unit.prefix_length, 0)) for unit in units])
    return Completions(whole, row, prefix_length), uniforms


def _joins(units: list[_Unit]) -> dict[int, tuple[int, int]]:
    """Which completions (first, past the last) join at which position: those whose prefix is fed by then."""
    joins: dict[int, tuple[int, int]] = {}
    end = 0
    for unit in units:
        start = joins.get(unit.prefix_length, (end, end))[0]
        end += len(unit.rows)
        joins[unit.prefix_length] = (start, end)
    return joins


def _with_prefix(samples: Samples, length: int) -> Samples:
    """The first `length` tokens counted as part of the prompt."""
    given = slice(0, length)
    prompt_mask = samples.prompt_mask
    if prompt_mask is not None:
        prompt_mask = F.pad(prompt_mask, (0, length), value=True)
    prompt = torch.cat([samples.prompt, samples.ids[:, given]], dim=1)
    return Samples(prompt, samples.ids[:, length:], samples.mask[:, length:], prompt_mask)


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
        decoder = _Decoder(generator, samples)
        decoder.reserve(samples.batch_size, samples.prompt.shape[1] + length)
        for position in range(length - 1):
            drawn = decoder.draw(slice(None), uniforms[:, position], temperature=1.0, top_k=0, top_p=1.0)
            mixed[:, position] = torch.where(replaced[:, position], drawn, mixed[:, position])
            decoder.feed(mixed[:, position])
    return mixed


# --- Log-probabilities -----------------------------------------------------------------------------------------------


def _predictions(generator: PreTrainedModel, samples: Samples, read: LongTensor) -> tuple[Tensor, nn.Module]:
    """Features at the positions that predict `samples.ids`, shape (B, T, H), and the head that makes them logits.

    The generator reads `read` (B, T) after the prompt, which usually are the same tokens.
    """
    plain_head = _has_plain_head(generator)
    length = samples.ids.shape[1]
    ids = torch.cat([samples.prompt, read[:, :-1]], dim=1)
    mask = None if samples.prompt_mask is None else samples.attention_mask[:, :-1].long()
    arguments = {"input_ids": ids, "use_cache": False} | ({} if mask is None else {"attention_mask": mask})
    if "position_ids" in inspect.signature(generator.forward).parameters:
        arguments |= _positions(ids, mask)
    output = (generator.base_model if plain_head else generator)(**arguments)
    return output[0][:, -length:], generator.get_output_embeddings() if plain_head else nn.Identity()


def token_logprobs(generator: PreTrainedModel, samples: Samples) -> Tensor:
    """log G(y_t | y_1:t-1) of every token, differentiable, zero where `samples.mask` is false, shape (B, T).

    Holds one block of logits at a time; the backward pass computes them again.
    """
    features, head = _predictions(generator, samples, samples.ids)
    flat, targets = features.flatten(0, 1), samples.ids.flatten()

    def block_logprobs(features: Tensor, targets: LongTensor) -> Tensor:
        return -F.cross_entropy(_logits(head, features).float(), targets, reduction="none")

    size = block_rows(vocabulary_size(generator), flat.device)
    recompute = torch.is_grad_enabled() and len(flat) > size
    values = [
        checkpoint(block_logprobs, *block, use_reentrant=False) if recompute else block_logprobs(*block)
        for block in zip(flat.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(values).view_as(samples.ids).masked_fill(~samples.mask, 0.0)


def weighted_nll(
    generator: PreTrainedModel, samples: Samples, weights: Tensor, read: LongTensor | None = None
) -> tuple[Tensor, Tensor]:
    """sum over b, t of weights * -log G(y_t | y_1:t-1): the loss of maximum likelihood and of policy gradient.

    Gives what `token_logprobs` gives, at less than half the cost for large vocabularies (`functional.linear_nll`).

    Args:
        weights: constants, shape (B, T); positions where `samples.mask` is false count as zero.
        read: the tokens that the generator reads, shape (B, T), where these are not `samples.ids` themselves.

    Returns:
        The loss, a differentiable scalar, and the log-probabilities (B, T), without gradient, zero at padding.
    """
    features, head = _predictions(generator, samples, samples.ids if read is None else read)
    weights = weights.detach().masked_fill(~samples.mask, 0.0)
    if _is_product(head):
        leaves_out = features.device.type in LEAVE_PADDING_OUT
        counted = samples.mask.flatten().nonzero().squeeze(1) if leaves_out else slice(None)
        flat, targets, weights = features.flatten(0, 1)[counted], samples.ids.flatten()[counted], weights.flatten()
        loss, found = linear_nll(flat, head.weight, head.bias, targets, weights[counted])
        logprobs = torch.zeros_like(weights, dtype=found.dtype)
        logprobs[counted] = found
        return loss, logprobs.view_as(samples.ids).masked_fill(~samples.mask, 0.0)
    logits = head(features.flatten(0, 1)).float()
    logprobs = -F.cross_entropy(logits, samples.ids.flatten(), reduction="none")
    logprobs = logprobs.view_as(samples.ids).masked_fill(~samples.mask, 0.0)
    return -(weights * logprobs).sum(), logprobs.detach()
