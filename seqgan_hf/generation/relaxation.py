"""Soft tokens, through which a discriminator's gradient reaches any causal LM (Gumbel-softmax)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..errors import UserError
from ..functional import block_rows, posterior_gumbel
from ..samples import BoolTensor, LongTensor, Samples
from .decoder import Decoder, head_logits
from .likelihood import predictions
from .modes import evaluating, train_without_dropout
from .sampling import check_sampling, nothing_written
from .vocabulary import special_tokens, suppression, token_embeddings, vocabulary_size


# Uniform numbers of a sequence that are drawn from one seed, in whole positions. A change draws other noise.
NOISE_NUMBERS = 2**20

# Soft tokens of up to so many numbers are kept for the backward pass; more are computed again there.
KEPT_NUMBERS = 2**24


def relax(
    generator: PreTrainedModel,
    samples: Samples,
    beta: float,
    straight_through: bool = False,
    rng: torch.Generator | None = None,
) -> Samples:
    """Samples with `soft` tokens softmax(beta (o + g)): o log-probabilities, g the Gumbel noise that drew the tokens.

    One teacher-forced pass gives o; g is drawn given that the largest o + g is at the sampled token. Law and gradient
    are those of a loop that draws each token with such noise and feeds it back hard (RelGAN). So beta changes what a
    discriminator sees, and the gradient, never the tokens; and no gradient passes from a token to what follows it.

    Args:
        generator: any causal LM; the policy that drew the samples, dropout as then.
        samples: B sequences.
        beta: inverse temperature; the larger, the nearer to one-hot.
        straight_through: the forward pass sees the tokens themselves, the gradient is that of the soft ones.
        rng: source of the noise, on the generator's device; torch's global one by default.

    Returns:
        The samples with `SoftTokens`.

    Raises:
        UserError: beta is not positive.

    References:
        Maddison et al., The Concrete Distribution, ICLR 2017, https://arxiv.org/abs/1611.00712; Jang et al.,
        Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, https://arxiv.org/abs/1611.01144.
    """
    _check_beta(beta)
    features, head = predictions(generator, samples, samples.ids)
    seeds = torch.randint(2**62, (samples.batch_size,), generator=rng, device=samples.ids.device).cpu()
    sizes = vocabulary_size(generator), suppression(generator, -torch.inf)
    learns = torch.is_grad_enabled()
    soft = SoftTokens(features, samples.ids, samples.mask, seeds, head, *sizes, beta, straight_through, learns)
    return samples._replace(soft=soft)


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise UserError(f"beta={beta}", "a positive number", "the larger, the nearer to one-hot")


@dataclass(frozen=True, eq=False)
class SoftTokens:
    """Relaxed tokens (B, T, V) that are computed where they are used, block by block: `soft @ weight`.

    Neither they nor logits or noise of a whole batch need to be in memory. Noise comes from a seed for each row, so
    that rows can be selected, and blocks change no result. `beta` and `straight_through` are those of `relax`.
    """

    features: Tensor  # what the head reads, shape (B, T, H)
    ids: LongTensor  # of the samples, shape (B, T), and so is the mask
    mask: BoolTensor
    seeds: LongTensor  # of the noise, shape (B,), on the CPU
    head: nn.Module  # makes logits of features
    vocab_size: int
    added: Tensor | None  # to logits, shape (V,): -inf at suppressed tokens
    beta: float
    straight_through: bool
    learns: bool  # whether gradient goes to the generator

    @property
    def shape(self) -> torch.Size:
        return torch.Size([*self.ids.shape, self.vocab_size])

    def __getitem__(self, rows: Any) -> SoftTokens:
        seeds = self.seeds[rows.cpu() if isinstance(rows, Tensor) else rows]
        return replace(self, features=self.features[rows], ids=self.ids[rows], mask=self.mask[rows], seeds=seeds)

    def to(self, device: torch.device, non_blocking: bool = False) -> SoftTokens:
        """The same; the generator stays where it is, so this must be its device."""
        moved = {n: getattr(self, n).to(device, non_blocking=non_blocking) for n in ("features", "ids", "mask")}
        return replace(self, **moved)

    def __matmul__(self, weight: Tensor) -> Tensor:
        """Mixtures of the rows of a matrix (V, E), zero where the mask is false, shape (B, T, E)."""
        mixed = weight[self.ids] if self.straight_through else self._mix(weight)
        if self.straight_through and self.learns and torch.is_grad_enabled():
            soft = self._mix(weight.detach())
            mixed = mixed + (soft - soft.detach())
        return mixed.masked_fill(~self.mask[..., None], 0.0)

    def dense(self) -> Tensor:
        """All of them, shape (B, T, V), zero where the mask is false (of `straight_through`: the soft ones)."""
        return self._mix(None).masked_fill(~self.mask[..., None], 0.0)

    def uniforms(self, rows: slice, positions: slice) -> Tensor:
        """The random numbers of some rows, at some positions from the beginning of a stretch, shape (R, C, V)."""
        seeds, places = self.seeds[rows].tolist(), range(*positions.indices(self.ids.shape[1]))
        numbers = torch.empty(len(seeds), len(places), self.vocab_size, device=self.ids.device)
        source = torch.Generator(self.ids.device)
        for row, seed in zip(numbers, seeds, strict=True):
            row.uniform_(generator=source.manual_seed(seed + places.start // self._stretch))
        return numbers

    @property
    def _stretch(self) -> int:
        """Positions whose noise is drawn from one seed."""
        return max(1, NOISE_NUMBERS // self.vocab_size)

    def _mix(self, weight: Tensor | None) -> Tensor:
        """`soft @ weight`, or the soft tokens themselves; padding included."""
        batch, length = self.ids.shape
        width = min(self._stretch, length)
        size = max(1, block_rows(4 * self.vocab_size, self.ids.device) // width)  # four tensors of that size are alive
        block: Any = self._block
        if torch.is_grad_enabled() and batch * length * self.vocab_size > KEPT_NUMBERS:
            block = partial(checkpoint, self._block, use_reentrant=False, preserve_rng_state=False)
        columns = []
        for positions in (slice(start, start + width) for start in range(0, length, width)):
            every_rows = [slice(first, first + size) for first in range(0, batch, size)]
            blocks = [block(self.features[rows, positions], weight, rows, positions) for rows in every_rows]
            columns.append(torch.cat(blocks))
        return torch.cat(columns, dim=1)

    def _block(self, features: Tensor, weight: Tensor | None, rows: slice, positions: slice) -> Tensor:
        ids = self.ids[rows, positions]
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            logits = head_logits(self.head, features.flatten(0, 1), self.added).float()
            uniforms = self.uniforms(rows, positions).flatten(0, 1)
            soft = _RelaxedSoftmax.apply(logits, ids.flatten(), uniforms, self.beta)
        return (soft if weight is None else soft.to(weight.dtype) @ weight).unflatten(0, ids.shape)


class _RelaxedSoftmax(torch.autograd.Function):
    """softmax(beta (log p + g)) of logits (N, V), with g as a constant.

    Shifting log p changes nothing, so that the slope by log p is that by the logits.
    """

    @staticmethod
    def forward(ctx, logits, ids, uniforms, beta):
        soft = posterior_gumbel(logits, ids, uniforms).mul_(beta).softmax(dim=-1)
        ctx.save_for_backward(soft)
        ctx.beta = beta
        return soft

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (soft,) = ctx.saved_tensors
        slope = soft * gradient
        slope.addcmul_(soft, slope.sum(dim=-1, keepdim=True), value=-1)
        return slope.mul_(ctx.beta), None, None, None


def sample_soft(
    generator: PreTrainedModel,
    prompt: LongTensor,
    max_new_tokens: int,
    beta: float,
    gumbel: bool = True,
    rng: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
) -> Samples:
    """Write continuations whose *soft* tokens are fed back, so that gradient passes from a token to all before it.

    The soft token is softmax(beta (o + g)), o the log-probabilities and g Gumbel noise; the generator reads the
    mixture of its own embeddings. The distribution is another one than that of `sample`, which it nears as
    beta grows.

    Args:
        generator: any causal LM with a cache whose embeddings are a plain lookup.
        prompt: start token and condition, padded on the left, shape (B, P).
        max_new_tokens: T; a sequence ends earlier where the largest entry of a soft token is an end token.
        beta: inverse temperature.
        gumbel: whether noise is added; without it soft tokens are determined by the prompt.
        rng: source of the noise, on the generator's device; torch's global one by default.
        prompt_mask: true on real prompt tokens, shape (B, P); `None` if no prompt is padded.

    Returns:
        Samples with `soft` (B, T, V), zero where the mask is false, and its largest entries as `ids`.

    Raises:
        UserError: beta is not positive, or the generator cannot read its own soft tokens.
    """
    _check_beta(beta)
    check_sampling(max_new_tokens, temperature=1.0, top_k=0, top_p=1.0)
    embeddings, (eos, pad) = fed_back_embeddings(generator), special_tokens(generator)
    start = nothing_written(prompt, prompt_mask)
    decoder, going = Decoder(generator, start), torch.ones_like(prompt[:, 0], dtype=torch.bool)
    softs, ids, masks = [], [], []
    ends = torch.tensor(eos, dtype=torch.long, device=prompt.device)
    for position in range(max_new_tokens):
        perturbed = head_logits(decoder.head, decoder.features, decoder.added).float().log_softmax(dim=-1)
        if gumbel:
            perturbed = perturbed + _gumbel_noise(perturbed, rng)
        soft, tokens = (beta * perturbed).softmax(dim=-1), perturbed.argmax(dim=-1)
        softs.append(soft.masked_fill(~going[:, None], 0.0))
        ids.append(tokens.masked_fill(~going, pad))
        masks.append(going)
        going = going & ~torch.isin(tokens, ends)
        if position + 1 < max_new_tokens:
            decoder.feed(soft.to(embeddings.dtype) @ embeddings)
    return start._replace(ids=torch.stack(ids, 1), mask=torch.stack(masks, 1), soft=torch.stack(softs, 1))


def _gumbel_noise(like: Tensor, rng: torch.Generator | None) -> Tensor:
    noise = torch.rand(like.shape, generator=rng, device=like.device)
    return noise.clamp_(min=2**-25).log_().neg_().log_().neg_()


# For each model, whether gradient passes through its cache.
_CACHES: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def fed_back_embeddings(generator: PreTrainedModel) -> Tensor:
    """`token_embeddings` of a generator that is to read its own soft tokens, with gradient.

    Some caches are written in place, which autograd does not forgive. So it is tried, once a model.

    Raises:
        UserError: embeddings are no plain lookup, or no gradient passes through the cache.
    """
    weight = token_embeddings(generator)
    if generator not in _CACHES:
        _CACHES[generator] = _passes_gradient(generator, weight)
    if not _CACHES[generator]:
        problem = f"the cache of {type(generator).__name__} passes no gradient, so that soft tokens cannot be fed back"
        raise UserError(problem, "one that is not written in place", "choose another generator")
    return weight


def _passes_gradient(generator: PreTrainedModel, weight: Tensor) -> bool:
    prompt = torch.zeros(1, 1, dtype=torch.long, device=weight.device)
    token = weight[:1].detach().clone().requires_grad_()
    with evaluating(generator), torch.enable_grad():
        train_without_dropout(generator)  # cuDNN refuses the backward pass of recurrent layers in eval mode
        decoder = Decoder(generator, nothing_written(prompt))
        for _ in range(3):
            decoder.feed(token)
        try:
            torch.autograd.grad(decoder.features.sum(), token)
        except RuntimeError:
            return False
    return True
