"""Sequences drawn with a discriminator at hand: by importance resampling, or by rejection.

Both draw from the residual energy-based model P(Y) = G(Y) exp(a s(Y)) / Z, where G is the generator, s the log-odds
that the discriminator gives a sequence of being real, and a an exponent (Deng et al. 2020,
https://arxiv.org/abs/2004.11714). With a = 1 and the discriminator that is optimal against G, P is the distribution of
the data. Of a prompt x, G(Y|x) and Z(x) take their places.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import LongTensor, Samples
from .sampling import sample
from .verdicts import judge
from .vocabulary import vocabulary_size


# Tokens of the proposals that are held at the same time, if there is more than one for each output.
PROPOSAL_TOKENS = 2**21
# Proposals on which the bound of rejection is estimated.
PILOT = 2_000


class Resampled(NamedTuple):
    """What `resample` drew."""

    samples: Samples  # one sequence for each prompt, (B, T)
    log_weights: Tensor  # a s(Y) of all proposals, in nats, float64, shape (B, K)


class Accepted(NamedTuple):
    """What `reject` drew."""

    samples: Samples  # one sequence for each prompt, (B, T)
    rate: float  # the share of proposals that were accepted
    bound: float  # that was taken for the largest log-odds
    above: float  # the share of proposals whose log-odds were above it: of these too few were accepted


@dataclass(frozen=True)
class _Proposer:
    """Draws sequences of the generator that continue B prompts, and has them judged."""

    generator: PreTrainedModel
    discriminator: PreTrainedModel
    prompt: LongTensor  # (B, P)
    prompt_mask: Tensor | None
    max_new_tokens: int
    options: dict[str, Any]  # of `sample`

    def propose(self, rows: LongTensor, count: int) -> tuple[Samples, Tensor]:
        """`count` sequences for each of these K prompts, (K * count, T), and their log-odds, float64, (K, count)."""
        repeated = rows.repeat_interleave(count)
        mask = None if self.prompt_mask is None else self.prompt_mask[repeated]
        drawn = sample(self.generator, self.prompt[repeated], self.max_new_tokens, prompt_mask=mask, **self.options)
        seen, max_rows = drawn.to(self.discriminator.device), self.options["max_rows"]
        log_odds = judge(self.discriminator, seen, max_rows=max_rows)
        _check_verdicts(self.discriminator, log_odds)
        return drawn, log_odds.to(rows.device).double().view(len(rows), count)

    def uniforms(self, like: Tensor) -> Tensor:
        """Random numbers in [0, 1), float64, one for each entry."""
        return torch.rand(like.shape, dtype=torch.float64, generator=self.options["rng"], device=like.device)

    def answered(self, samples: Samples) -> Samples:
        """The B sequences behind the prompts as they were given."""
        return samples._replace(prompt=self.prompt, prompt_mask=self.prompt_mask)


@torch.no_grad()
def resample(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    prompt: LongTensor,
    max_new_tokens: int,
    proposals: int = 16,
    exponent: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
    max_rows: int | None = None,
) -> Resampled:
    """Draw K proposals for every prompt, and keep one of them, by chance, with weights exp(a s).

    The law of what is kept is the residual model's up to an error of O(1/K), K being large against the spread of the
    weights: see `effective_sample_size`. With K = 1, or with a = 0, it is the generator's.

    Args:
        generator: any causal LM with a cache.
        discriminator: any sequence classifier that `realness` reads, with one verdict for a sequence.
        prompt: start token and condition, padded on the left, shape (B, P).
        max_new_tokens: T, at least 1.
        proposals: K, for each prompt; those of one prompt compete with each other only.
        exponent: a, at least 0; below 1 the discriminator is believed less.
        temperature, top_k, top_p: of the proposals; see `sample`. G is the distribution that they make.
        rng: source of the random numbers, on the generator's device; torch's global one by default.
        prompt_mask: true on real prompt tokens, shape (B, P); `None` if no prompt is padded.
        max_rows: sequences written or judged at the same time; chosen by memory by default. It changes no result.

    Raises:
        UserError: a value out of range, or a discriminator that has no verdict on these sequences.
    """
    if proposals < 1:
        raise UserError(f"proposals={proposals}", "at least 1 for each sample", "set `proposals`")
    check_discriminator(generator, discriminator, exponent)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rng": rng, "max_rows": max_rows}
    proposer = _Proposer(generator, discriminator, prompt, prompt_mask, max_new_tokens, options)
    return _keep_one_each(proposer, proposals, exponent)


@torch.no_grad()
def reject(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    prompt: LongTensor,
    max_new_tokens: int,
    exponent: float = 1.0,
    bound: float | None = None,
    percentile: float = 100.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
    max_rows: int | None = None,
    max_proposals: int = 10_000,
) -> Accepted:
    """Draw proposals for every prompt until one is accepted, with probability min(1, exp(a (s - bound))).

    Discriminator rejection sampling, Azadi et al. 2019, https://arxiv.org/abs/1810.06758. What is drawn has weights
    exp(a min(s, bound)): exactly the residual model if no log-odds s lie above `bound`. An estimated bound is no such
    promise: `above` says how many proposals were beyond it.

    Args:
        generator, discriminator, prompt, max_new_tokens, exponent: as in `resample`, and so are temperature, top_k,
            top_p, rng, prompt_mask and max_rows.
        bound: on the log-odds s; by default this `percentile` of those of `PILOT` proposals, which continue the
            prompts in turn.
        percentile: 100 is the largest; less accepts more, and trusts the highest log-odds less.
        max_proposals: for each prompt, before this gives up.

    Raises:
        UserError: as in `resample`, or some prompt had no proposal accepted.
    """
    if not 0 < percentile <= 100:
        raise UserError(f"percentile={percentile:g}", "a number above 0, at most 100", "set `percentile`")
    check_discriminator(generator, discriminator, exponent)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rng": rng, "max_rows": max_rows}
    proposer = _Proposer(generator, discriminator, prompt, prompt_mask, max_new_tokens, options)
    if bound is None:
        turn = torch.arange(PILOT, device=prompt.device) % len(prompt)
        bound = float(torch.quantile(proposer.propose(turn, 1)[1], percentile / 100))
    return _until_accepted(proposer, exponent, bound, max_proposals)


def check_discriminator(generator: PreTrainedModel, discriminator: PreTrainedModel, exponent: float = 1.0) -> None:
    """Raise a UserError for a discriminator that cannot judge the generator's sequences, or a meaningless exponent."""
    if not 0 <= exponent < math.inf:
        raise UserError(f"exponent={exponent:g}", "a number of at least 0", "set `exponent`")
    embeddings: Any = None  # of what reads something else than these tokens
    if getattr(discriminator, "text_reader", None) is None:  # see `data.reading`
        with suppress(NotImplementedError):
            embeddings = discriminator.get_input_embeddings()
    if embeddings is not None and (known := len(embeddings.weight)) < (size := vocabulary_size(generator)):
        problem = f"the discriminator knows {known} token ids, the generator {size}"
        raise UserError(problem, "one vocabulary", "give the discriminator of the generator's run")
    ids = torch.zeros(1, 2, dtype=torch.long, device=discriminator.device)
    _check_verdicts(discriminator, judge(discriminator, Samples(ids[:, :1], ids, ids == 0)))


def _keep_one_each(proposer: _Proposer, proposals: int, exponent: float) -> Resampled:
    """See `resample`."""
    rows = torch.arange(len(proposer.prompt), device=proposer.prompt.device)
    kept: Samples | None = None
    best = torch.full(rows.shape, -torch.inf, dtype=torch.float64, device=rows.device)
    log_weights = []
    most = max(1, PROPOSAL_TOKENS // max(1, len(rows) * proposer.max_new_tokens))
    for done in range(0, proposals, most):
        count = min(most, proposals - done)
        drawn, log_odds = proposer.propose(rows, count)
        log_weights.append(exponent * log_odds)
        # the largest of a s + Gumbel noise has the law of a draw with weights exp(a s), in however many passes
        keys, index = (log_weights[-1] - (-proposer.uniforms(log_odds).log()).log()).max(dim=1)
        chosen, better = drawn.select(rows * count + index), keys > best
        kept = chosen if kept is None else kept
        kept.ids[better], kept.mask[better] = chosen.ids[better], chosen.mask[better]
        best = torch.where(better, keys, best)
    return Resampled(proposer.answered(kept), torch.cat(log_weights, dim=1))


def _until_accepted(proposer: _Proposer, exponent: float, bound: float, max_proposals: int) -> Accepted:
    """See `reject`."""
    pending = torch.arange(len(proposer.prompt), device=proposer.prompt.device)
    kept: Samples | None = None
    count, tried, proposed, accepted, above = 1, 0, 0, 0, 0
    while len(pending):
        if tried >= max_proposals:
            lost = f"{len(pending)} of {len(proposer.prompt)} samples had {tried} proposals rejected"
            fix = "lower `exponent` or `percentile`, or use `resample`"
            raise UserError(f"{lost} (bound {bound:.3g})", "one accepted for each", fix)
        drawn, log_odds = proposer.propose(pending, count)
        passed = proposer.uniforms(log_odds) < (exponent * (log_odds - bound)).exp()
        tried, proposed = tried + count, proposed + log_odds.numel()
        accepted, above = accepted + int(passed.sum()), above + int((log_odds > bound).sum())
        found, first = passed.any(dim=1), passed.int().argmax(dim=1)  # argmax: the first of those that passed
        chosen = drawn.select(torch.arange(len(pending), device=pending.device) * count + first)
        kept = chosen if kept is None else kept
        rows = pending[found]
        kept.ids[rows], kept.mask[rows] = chosen.ids[found], chosen.mask[found]
        pending = pending[~found]
        # about as many as one acceptance takes, within memory
        most = PROPOSAL_TOKENS // max(1, len(pending) * proposer.max_new_tokens)
        count = max(1, min(-(-proposed // max(1, accepted)), most, max_proposals - tried))
    return Accepted(proposer.answered(kept), accepted / proposed, bound, above / proposed)


def _check_verdicts(discriminator: PreTrainedModel, log_odds: Tensor) -> None:
    """Raise a UserError where log-odds are not one finite number for each sequence."""
    name = type(discriminator).__name__
    if log_odds.dim() != 1:
        fix = "train one without `per_token`"
        raise UserError(f"{name} judges every token", "a discriminator with one verdict for a sequence", fix)
    if not bool(log_odds.isfinite().all()):
        raise UserError(f"{name} gives log-odds that are not finite", "numbers", "train it again, or on less")


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of the last axis, between 1 (one proposal has all the weight) and K, shape (...)."""
    return (2 * log_weights.logsumexp(dim=-1) - (2 * log_weights).logsumexp(dim=-1)).exp()


def log_normalizer(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Two estimates of log Z = log E_G[w] from n samples of G on the last axis, n at least 2.

    T_n, the logarithm of the mean weight, is too low in the mean (Jensen), by b/n + O(1/n^2). The second is too high
    by as much: (2n - 1) T_n - 2 (n - 1) T'_{n-1}, T'_{n-1} being the mean of T over all ways to leave one sample out:
    twice the jackknife's correction (Deng et al. 2020). The middle of both is the jackknife's own estimate, whose bias
    is O(1/n^2). How far they are apart says nothing of the noise, which is that of T_n.

    Returns:
        The lower and the upper estimate, in nats, shape (...).

    Raises:
        UserError: there is one sample only.
    """
    n = log_weights.shape[-1]
    if n < 2:
        raise UserError("log Z from 1 proposal", "at least 2", "set `proposals`")
    total = log_weights.logsumexp(dim=-1, keepdim=True)
    largest, index = log_weights.max(dim=-1, keepdim=True)
    # log(S - w): where w is nearly all of S it would cancel, so there the others are summed
    others = log_weights.scatter(-1, index, -torch.inf).logsumexp(dim=-1, keepdim=True)
    left_out = total + torch.log1p(-(log_weights - total).exp().clamp(max=0.5))
    left_out = left_out.scatter(-1, index, others)
    low = total.squeeze(-1) - math.log(n)
    without = left_out.mean(dim=-1) - math.log(n - 1)
    return low, (2 * n - 1) * low - 2 * (n - 1) * without
