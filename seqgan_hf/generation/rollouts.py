"""Monte Carlo rollouts: every prefix of every sequence, completed many times in one pass."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..errors import UserError
from ..functional import block_rows
from ..models.modeling_threads import side_by_side
from ..samples import Completions, Samples
from .decoder import LEAVE_PADDING_OUT, Decoder
from .memory import PIECES_PER_THREAD, fewer_rows, fitting_rows, threads_for
from .modes import evaluating
from .sampling import check_sampling, cut, rows_that_fit, unfinished
from .vocabulary import special_tokens, vocabulary_size


class _Unit(NamedTuple):
    """One rollout of the prefixes of one length: the rows that take part, and their random numbers."""

    prefix_length: int
    rows: np.ndarray  # on the host
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
    prefix_lengths: Collection[int] | None = None,
) -> Iterator[Completions]:
    """Complete every proper prefix of every sequence `rollouts` times (Monte Carlo search, SeqGAN, section 3.1).

    All rollouts advance together, one token a step. The walk goes through the positions once; at position t the
    sequences whose first t tokens are given join the batch, on copies of the cache that the sampled sequence had
    there, and every row of the batch takes one step. That is T-1 steps in all, each on a large batch, and no prefix is
    ever computed twice. Prefixes that already ended (EOS) have nothing to complete and take no part.

    Args:
        generator: the rollout policy: any causal LM with a cache; put into eval mode meanwhile.
        samples: the sequences, shape (B, T).
        rollouts: R, completions of each prefix, at least 1.
        temperature, top_k, top_p: see `filter_logits`.
        rng: source of the random numbers, on the generator's device.
        max_rows: rows that walk together (but never fewer than one rollout of one prefix length, up to B rows);
            chosen by the size of the cache by default. When a GPU runs out of memory it is halved, with a warning,
            and stays so. It bounds memory and changes no result.
        prefix_lengths: only prefixes of so many tokens; all from 1 to T-1 by default.

    Yields:
        Parts of the R x (T-1) x B completions, ordered by prefix length.
    """
    if rollouts < 1:
        raise UserError(f"rollouts={rollouts}", "at least 1 completion of each prefix", "set `rollouts`")
    check_sampling(samples.ids.shape[1], temperature, top_k, top_p)
    # completions are other sequences: what was computed for the given ones is not theirs
    samples = samples.uncredited
    with evaluating(generator):
        if max_rows is None:
            max_rows = rows_that_fit(generator, samples, samples.ids.shape[1])
        max_rows = fitting_rows(generator, "rollouts", max_rows)
        queue = _Units(samples, rollouts, rng, prefix_lengths)
        while units := queue.take(max_rows):
            if (completions := _walk_if_they_fit(generator, samples, units, temperature, top_k, top_p)) is None:
                max_rows = fewer_rows(generator, "rollouts", sum(len(unit.rows) for unit in units))
                queue.put_back(units)
                continue
            _WORK["rollouts"] += len(completions.row)
            yield completions


_WORK: Counter[str] = Counter()


def rollouts_done() -> int:
    """How many prefixes this process has completed so far, for reports of speed."""
    return _WORK["rollouts"]


class _Units:
    """All the rollouts to do, in order of prefix length. Random numbers are drawn in that order, whatever the cut."""

    def __init__(
        self, samples: Samples, rollouts: int, rng: torch.Generator | None, prefix_lengths: Collection[int] | None
    ):
        length, self.device = samples.ids.shape[1], samples.ids.device
        lengths = np.array(samples.lengths.tolist())  # the one wait for the device
        # EOS is the last counted token: the prefix that contains it is the whole sequence, so it needs no completion
        chosen = [t for t in range(1, length) if prefix_lengths is None or t in prefix_lengths]
        left = [(t, going) for t in chosen if len(going := np.flatnonzero(lengths > t))]
        self.todo = self._draw(left, length, rollouts, rng)
        self.returned: deque[_Unit] = deque()

    def _draw(
        self, left: list[tuple[int, np.ndarray]], length: int, rollouts: int, rng: torch.Generator | None
    ) -> Iterator[_Unit]:
        for prefix_length, rows in left:
            shape = (rollouts, len(rows), length - prefix_length, 2)
            for uniforms in torch.rand(shape, generator=rng, device=self.device).unbind():
                yield _Unit(prefix_length, rows, uniforms)

    def take(self, max_rows: int) -> list[_Unit]:
        """The next units, at least one, of at most `max_rows` rows together; empty when all are done."""
        units: list[_Unit] = []
        total = 0
        while (unit := self.returned.popleft() if self.returned else next(self.todo, None)) is not None:
            total += len(unit.rows)
            if units and total > max_rows:
                self.returned.appendleft(unit)
                break
            units.append(unit)
        return units

    def put_back(self, units: list[_Unit]) -> None:
        """Units whose walk failed, with the random numbers they already have."""
        self.returned.extendleft(reversed(units))


def _walk_if_they_fit(
    generator: PreTrainedModel, samples: Samples, units: list[_Unit], *policy: Any
) -> Completions | None:
    """Completions of all units, `walk`ed side by side on a CPU; `None` if memory was too small for several.

    The tensors of what did not fit are free again when this returns.
    """
    threads, device = threads_for(generator), samples.ids.device
    least = block_rows(vocabulary_size(generator), device)
    pieces = _pieces(units, samples.ids.shape[1], threads, least)
    try:
        parts = side_by_side(lambda piece: walk(generator, samples, piece, *policy), pieces, threads)
    except RuntimeError as error:
        if len(units) == 1 or not should_reduce_batch_size(error):
            raise
        return None
    whole, row, prefix_length = zip(*parts, strict=True)
    origin = torch.stack([torch.cat(row), torch.cat(prefix_length)], dim=1)
    return Completions(Samples.concatenate(whole)._replace(origin=origin), *origin.unbind(dim=1))


def _pieces(units: list[_Unit], length: int, threads: int, least: int) -> list[list[_Unit]]:
    """Consecutive units, cut into pieces with about as many tokens to draw, of `least` rows or more on average."""
    rows = sum(len(unit.rows) for unit in units)
    number = 1 if threads == 1 else max(1, min(threads * PIECES_PER_THREAD, rows // least))
    work = [len(unit.rows) * (length - unit.prefix_length) for unit in units]
    pieces: list[list[_Unit]] = [[] for _ in range(number)]
    for unit, own, end in zip(units, work, accumulate(work), strict=True):
        pieces[number * (2 * end - own) // (2 * sum(work))].append(unit)
    return [piece for piece in pieces if piece]


def walk(
    generator: PreTrainedModel, samples: Samples, units: list[_Unit], temperature: float, top_k: int, top_p: float
) -> Completions:
    """One walk over the given units.

    The decoder's rows are the sampled sequences (as long as prefixes are still to be handed over), then the
    completions that are being written, whose numbers `active` holds.
    """
    eos, pad = special_tokens(generator)
    device, length = samples.ids.device, samples.ids.shape[1]
    completions, uniforms = given_prefixes(samples, units, pad)
    ids, mask = completions.samples.ids, completions.samples.mask
    joins, leaves = joining(units), bool(eos) and device.type in LEAVE_PADDING_OUT
    first, last = units[0].prefix_length, units[-1].prefix_length

    decoder = Decoder(generator, with_prefix(samples, first))
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
        if len(active) == 0:
            if position >= last:
                break
            continue  # all have ended, and the next ones join later
        drawn = decoder.draw(slice(len(main), None), uniforms[active, position], temperature, top_k, top_p)
        ids[active, position] = drawn
        mask[active, position] = True
        going = unfinished(drawn, ends) if leaves else torch.arange(len(active), device=device)
    if eos and not leaves:
        completions = completions._replace(samples=cut(completions.samples, ends, pad))
    return completions


def given_prefixes(samples: Samples, units: list[_Unit], pad: int) -> tuple[Completions, Tensor]:
    """Completions (K, T) that hold their prefixes and nothing else yet, and their random numbers, (K, T, 2)."""
    given_tokens = np.repeat([unit.prefix_length for unit in units], [len(unit.rows) for unit in units])
    origin = torch.from_numpy(np.stack([np.concatenate([unit.rows for unit in units]), given_tokens]))
    row, prefix_length = origin.to(samples.ids.device)
    given = torch.arange(samples.ids.shape[1], device=row.device) < prefix_length[:, None]
    whole = samples.select(row)._replace(ids=samples.ids[row].masked_fill(~given, pad), mask=given)
    numbers = torch.cat([unit.uniforms.flatten() for unit in units])  # all in order: row after row, from its prefix on
    uniforms = numbers.new_zeros(*given.shape, 2).masked_scatter_(~given[..., None], numbers)
    return Completions(whole, row, prefix_length), uniforms


def joining(units: list[_Unit]) -> dict[int, tuple[int, int]]:
    """Which completions (first, past the last) join at which position: those whose prefix is fed by then."""
    joins: dict[int, tuple[int, int]] = {}
    for unit, end in zip(units, accumulate(len(unit.rows) for unit in units), strict=True):
        start, _ = joins.get(unit.prefix_length, (end - len(unit.rows), end))
        joins[unit.prefix_length] = (start, end)
    return joins


def with_prefix(samples: Samples, length: int) -> Samples:
    """The first `length` tokens counted as part of the prompt."""
    mask = None if samples.prompt_mask is None else F.pad(samples.prompt_mask, (0, length), value=True)
    prompt = torch.cat([samples.prompt, samples.ids[:, :length]], dim=1)
    return Samples(prompt, samples.ids[:, length:], samples.mask[:, length:], mask)
