"""Tensor maths, nothing else: sampling from logits, masked means, returns, losses of a softmax over a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .samples import BoolTensor, LongTensor


# Vocabulary entries summed into one block of the two-level inverse CDF: about the square root of usual vocabularies.
CDF_BLOCKS = range(128, 31, -1)


def masked_mean(values: Tensor, mask: BoolTensor) -> Tensor:
    """Mean of the values where `mask` is true; both of shape (B, T) or (B,). Zero if nothing is counted."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def discounted(rewards: Tensor, mask: BoolTensor, discount: float) -> Tensor:
    """R_t = sum over s >= t of discount^(s-t) r_s, over the positions that `mask` counts; all of shape (B, T)."""
    total, returns = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        total = (rewards[:, t] + discount * total).masked_fill(~mask[:, t], 0.0)
        returns[:, t] = total
    return returns


def filter_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Temperature, then top-k, then nucleus (top-p) truncation, in the order `generate` applies them.

    Args:
        logits: shape (N, V).
        temperature: positive; below 1 sharpens, above 1 flattens.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches `top_p`; 1 keeps all.

    Returns:
        Logits with `-inf` for tokens that may not be drawn, shape (N, V).
    """
    if temperature != 1.0:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1)
        # ascending: the tail whose total mass stays within 1 - top_p goes, the most probable token always stays
        tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
        tail[:, -1] = False
        logits = logits.masked_fill(tail.scatter(1, order, tail), -torch.inf)
    return logits


def sample_categorical(logits: Tensor, uniforms: Tensor) -> LongTensor:
    """Draw one token a row by inverting the cumulative distribution on two levels.

    The first uniform picks a block of the vocabulary by the blocks' total probabilities, the second a token inside it.
    Two random numbers a row suffice (multinomial and Gumbel sampling draw V), and no cumulative sum is longer than
    about sqrt(V), which keeps float32 exact for vocabularies of 150,000. A token of probability zero is never drawn.

    Args:
        logits: unnormalised log-probabilities, `-inf` allowed, shape (N, V).
        uniforms: numbers in [0, 1), shape (N, 2).

    Returns:
        Token ids, shape (N,).
    """
    probabilities = logits.float().softmax(dim=-1)
    vocab_size = probabilities.shape[1]
    # a size that divides the vocabulary, if there is one, spares a copy
    size = next((size for size in CDF_BLOCKS if vocab_size % size == 0), CDF_BLOCKS[-1])
    if vocab_size % size:
        probabilities = F.pad(probabilities, (0, -vocab_size % size))
    blocks = probabilities.view(len(probabilities), -1, size)
    block = _first_above(blocks.sum(dim=-1), uniforms[:, :1])
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, size)).squeeze(1)
    return (block * size + _first_above(inside, uniforms[:, 1:])).squeeze(1)


def _first_above(weights: Tensor, uniforms: Tensor) -> LongTensor:
    """Index at which the running total of `weights` (N, K) first exceeds `uniforms` (N, 1) of the whole, (N, 1)."""
    totals = weights.cumsum(dim=-1)
    whole = totals[:, -1:]
    # Rounding may lift u * whole to the whole itself; just below it, the search ends at the last positive weight.
    target = torch.minimum(uniforms.to(totals.dtype) * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(totals, target, right=True)


def posterior_gumbel(logits: Tensor, ids: LongTensor, uniforms: Tensor) -> Tensor:
    """log p + g, with Gumbel noise g drawn given that the largest entry is at `ids`; without gradient.

    Where `ids` are drawn from p, g is plain independent Gumbel noise. In terms of exponential noise e = exp(-g),
    exp(-(log p + g)) is e_y at y = `ids`, and e_y + e_i / p_i elsewhere.

    Args:
        logits: of p, `-inf` allowed, shape (N, V).
        ids: shape (N,).
        uniforms: numbers in [0, 1), shape (N, V).

    Returns:
        Shape (N, V).
    """
    target = ids[:, None]
    own = uniforms.gather(1, target).clamp_(min=2**-25).log_().neg_()  # zero, too, is drawn
    rates = torch.addcdiv(own, uniforms.log(), logits.softmax(dim=-1), value=-1)
    return rates.scatter_(1, target, own).log_().neg_()


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Rows whose logits are computed together: on a CPU as many as stay in the cache, elsewhere about 256 MiB."""
    logits = 2**20 if device.type == "cpu" else 2**26
    return max(16, logits // vocab_size)


# oneDNN multiplies float32 matrices at about twice the rate of MKL, which `torch.mm` calls, on processors that are not
# Intel's. Compiled models go the same way; eager ones are offered it in lower precisions only.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b^T + bias, without gradient. (The modeling file of the CNN, which has to stand alone, has its own.)

    Args:
        a: shape (M, K).
        b: shape (N, K).
        bias: shape (N,).
    """
    plain = a.dtype == b.dtype == torch.float32 and not torch.is_autocast_enabled(a.device.type)
    if _ONEDNN_LINEAR is not None and plain and a.device.type == "cpu" and a.numel() > 0:
        return _ONEDNN_LINEAR(a.contiguous(), b, bias, "none", [], "")
    return F.linear(a, b, bias)


def linear_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: LongTensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted negative log-likelihood under a softmax over a linear layer, without ever holding all logits.

    The gradient is computed together with the loss, block by block, since a block's logits are still in the cache
    then; it is exact, but can be taken only once and only of the first result.

    Args:
        hidden: inputs of the linear layer, shape (N, H).
        weight: shape (V, H).
        bias: shape (V,), or `None`.
        targets: token ids, shape (N,).
        weights: one constant factor a row, shape (N,).

    Returns:
        The loss `sum_i weights_i * -log p(targets_i)`, a differentiable scalar; and the log-probabilities of the
        targets, shape (N,), without gradient.
    """
    return _LinearNLL.apply(hidden, weight, bias, targets, weights)


class _LinearNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, weights):
        inputs = (hidden, weight, bias)
        gradients = _zero_gradients(inputs, ctx.needs_input_grad)
        log_probabilities = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for rows in _blocks(hidden, weight):
            logits = multiply(hidden[rows], weight, bias).float()
            slope = logits.softmax(dim=-1)
            # the softmax of the largest logit is 1 / sum exp(logit - largest): no second pass of exponentials
            log_normalizer = logits.amax(dim=-1) - slope.amax(dim=-1).log()
            target = targets[rows, None]
            log_probabilities[rows] = logits.gather(1, target).squeeze(1) - log_normalizer
            # d loss / d logits = weight * (softmax - one-hot); the row's weight goes to the narrower factors below
            slope.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=slope.dtype))
            _accumulate(gradients, rows, slope, weights[rows], hidden, weight)
        ctx.save_for_backward(*(g if g is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)))
        ctx.mark_non_differentiable(log_probabilities)
        return -(log_probabilities * weights).sum(), log_probabilities

    @staticmethod
    def backward(ctx, upstream, _):
        return *(None if g is None else g * upstream for g in ctx.saved_tensors), None, None


Head = tuple[Tensor, Tensor, Tensor | None]  # inputs of a linear layer (N, H), its weight (V, H) and bias (V,)


def linear_kl(head: Head, other: Head, weights: Tensor, forward: bool) -> tuple[Tensor, Tensor]:
    """Weighted KL divergence between two softmaxes over linear layers, without ever holding all logits.

    KL(G || M), or KL(M || G) if `forward` (for distillation). Like `linear_nll` it computes the gradient together with
    the loss: it goes to G only, and can be taken only once and only of the first result.

    Args:
        head: of G, which learns.
        other: of M, over the same V tokens; its width may differ.
        weights: one constant factor a row, shape (N,).
        forward: whether M is the reference.

    Returns:
        The loss `sum_i weights_i * KL_i`, a differentiable scalar in nats; and the divergences, shape (N,), without
        gradient.
    """
    return _LinearKL.apply(*head, other, weights, forward)


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, other, weights, forward):
        inputs = (hidden, weight, bias)
        gradients = _zero_gradients(inputs, ctx.needs_input_grad)
        divergences = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for rows in _blocks(hidden, weight):
            ours = multiply(hidden[rows], weight, bias).float().log_softmax(dim=-1)
            theirs = multiply(other[0][rows], *other[1:]).float().log_softmax(dim=-1)
            if forward:  # sum_v M log(M / G), whose derivative by the logits of G is G - M
                expected = theirs.exp()
                divergences[rows] = (expected * (theirs - ours)).sum(dim=-1)
                slope = ours.exp() - expected
            else:  # sum_v G q with q = log(G / M), whose derivative is G (q - <G, q>)
                probabilities, ratio = ours.exp(), ours - theirs
                divergences[rows] = (probabilities * ratio).sum(dim=-1)
                slope = probabilities * (ratio - divergences[rows, None])
            _accumulate(gradients, rows, slope, weights[rows], hidden, weight)
        ctx.save_for_backward(*(g if g is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)))
        ctx.mark_non_differentiable(divergences)
        return (divergences * weights).sum(), divergences

    @staticmethod
    def backward(ctx, upstream, _):
        return *(None if g is None else g * upstream for g in ctx.saved_tensors), None, None, None


def _blocks(hidden: Tensor, weight: Tensor) -> list[slice]:
    size = block_rows(len(weight), hidden.device)
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def _zero_gradients(inputs: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor | None]:
    """Sums of blocks begin in float32, whatever the inputs are in; none where no gradient is asked for."""
    return [
        torch.zeros_like(tensor, dtype=torch.float32) if tensor is not None and asked else None
        for tensor, asked in zip(inputs, needed, strict=False)
    ]


def _accumulate(gradients, rows: slice, slope: Tensor, weights: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Add a block's share to the gradients of inputs, weight and bias; `slope` (K, V): d loss / d logits of a row."""
    of_hidden, of_weight, of_bias = gradients
    slope_as_weight = slope.to(weight.dtype)
    if of_hidden is not None:
        of_hidden[rows] = multiply(slope_as_weight, weight.T) * weights[:, None]
    if of_weight is not None:
        weighted = (hidden[rows] * weights[:, None]).to(weight.dtype)
        of_weight.T.add_(multiply(weighted.T, slope_as_weight.T))
    if of_bias is not None:
        of_bias += weights.to(slope.dtype) @ slope
