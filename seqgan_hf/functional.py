"""Tensor maths: sampling from logits, returns, distances of sets, softmax losses."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .models.modeling_products import ONEDNN_LINEAR, compute_dtype, in_float32, multiply
from .models.modeling_threads import SHARED_WEIGHT, side_by_side, thread_count
from .samples import BoolTensor, LongTensor


# Vocabulary entries summed into one block of the two-level inverse CDF: about the square root of usual vocabularies.
CDF_BLOCKS = range(128, 31, -1)


LN_2 = math.log(2)
LOG2_E = 1 / LN_2
# Devices on which a power of two takes so much less time than one of e that it makes up for a product.
POWERS_OF_TWO = {"cpu"}


def exp_(values: Tensor) -> Tensor:
    """e^values, in place."""
    return values.mul_(LOG2_E).exp2_() if values.device.type in POWERS_OF_TWO else values.exp_()


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


def squared_mmd(ours: Tensor, theirs: Tensor, widths: Sequence[float], unbiased: bool = False) -> Tensor:
    """Squared maximum mean discrepancy: mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j), a scalar.

    The kernel is a sum of Gaussian ones, k(x, y) = sum over widths of exp(-|x - y|^2 / (2 width^2)).

    Args:
        ours: n vectors x, shape (n, F).
        theirs: m vectors y, shape (m, F).
        widths: positive; about the distances at which vectors shall count as near.
        unbiased: leave out pairs i = j, which each find themselves near: zero in the mean for equal laws, but below
            zero as often as above.

    References:
        Gretton et al., A Kernel Two-Sample Test, JMLR 2012.
    """
    sizes, both = [len(ours), len(theirs)], torch.cat([ours, theirs])
    both = both - both.detach().mean(dim=0)  # less is lost in the difference of squares below
    norms = both.square().sum(dim=1)
    with torch.autocast(both.device.type, enabled=False):
        squares = norms[:, None] + norms - 2 * both @ both.T
    kernel = torch.stack([(-squares / (2 * width**2)).exp() for width in widths]).sum(dim=0)
    (xx, xy), (_, yy) = (rows.split(sizes, dim=1) for rows in kernel.split(sizes))
    if not unbiased:
        return xx.mean() + yy.mean() - 2 * xy.mean()
    within = [(part.sum() - part.diagonal().sum()) / (len(part) * (len(part) - 1)) for part in (xx, yy)]
    return within[0] + within[1] - 2 * xy.mean()


@torch.no_grad()
def transport_plan(costs: Tensor, beta: float = 1.0, outer: int = 50, inner: int = 1) -> Tensor:
    """The cheapest way to carry n equal weights to m places of equal room (IPOT, Xie et al. 2019, algorithm 1).

    A proximal point method: unlike Sinkhorn's its result nears the exact optimum, whatever `beta` is. Computed as
    logarithms, without gradient: that of the cost of the best plan is the plan (envelope theorem).

    Args:
        costs: shape (n, m).
        beta: step size; large ones go slowly, small ones take more `inner` steps for their marginals.
        outer: proximal steps.
        inner: scalings of rows and columns in each.

    Returns:
        The plan, shape (n, m): rows sum to about 1/n, columns to 1/m.
    """
    rows, columns = costs.shape
    plan, of_columns = torch.zeros_like(costs), costs.new_full((columns,), -math.log(columns))
    for _ in range(outer):
        plan = plan - costs / beta
        for _ in range(inner):
            of_rows = -math.log(rows) - (plan + of_columns).logsumexp(dim=1)
            of_columns = -math.log(columns) - (plan + of_rows[:, None]).logsumexp(dim=0)
        plan = plan + of_rows[:, None] + of_columns
    return plan.exp()


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


def sample_categorical(weights: Tensor, uniforms: Tensor) -> LongTensor:
    """Draw one token a row by inverting the cumulative distribution on two levels.

    The first uniform picks a block of the vocabulary by the blocks' total weights, the second a token inside it.
    Two random numbers a row suffice (multinomial and Gumbel sampling draw V), and no cumulative sum is longer than
    about sqrt(V), which keeps float32 exact for vocabularies of 150,000. A token of weight zero is never drawn.

    Args:
        weights: what the probabilities are in proportion to, shape (N, V).
        uniforms: numbers in [0, 1), shape (N, 2).

    Returns:
        Token ids, shape (N,).
    """
    vocab_size = weights.shape[1]
    # a size that divides the vocabulary, if there is one, spares a copy
    size = next((size for size in CDF_BLOCKS if vocab_size % size == 0), CDF_BLOCKS[-1])
    if vocab_size % size:
        weights = F.pad(weights, (0, -vocab_size % size))
    blocks = weights.view(len(weights), -1, size)
    block = first_above(blocks.sum(dim=-1), uniforms[:, :1])
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, size)).squeeze(1)
    return (block * size + first_above(inside, uniforms[:, 1:])).squeeze(1)


def first_above(weights: Tensor, uniforms: Tensor) -> LongTensor:
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
    """Rows whose logits are computed together: on a CPU 8 MiB, which stay in the cache of many; elsewhere 256 MiB."""
    logits = 2**21 if device.type == "cpu" else 2**26
    return max(16, logits // vocab_size)


# Devices whose host reads a bound on logits, to spare work; on others it would wait for it.
BOUND_LOGITS = {"cpu"}


class SoftmaxLayer:
    """A linear layer before a softmax, ready for blocks of rows. It learns nothing by itself.

    Where it has few inputs, a pass over the logits costs as much as the product that makes them. So on a CPU the bias
    is a column of the product (it is copied to every row otherwise), and the largest logit is not looked for where a
    bound on all of them shows that exponentials are safe without it.

    Args:
        weight: shape (V, H).
        bias: shape (V,), `-inf` allowed, or `None`.
    """

    NARROW = 128  # inputs
    SAFE = 60.0  # the sum of 10^12 exponentials is a float32, and tokens of e^-27 of the largest still count

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        narrow = weight.shape[1] <= self.NARROW and weight.dtype == torch.float32
        self.narrow = narrow and weight.device.type in BOUND_LOGITS
        if not self.narrow:
            return
        self.norm = float(self.weight.norm(dim=1).max())
        self.offset = 0.0 if self.bias is None else abs(float(self.bias.max()))
        if self.bias is not None:
            self.weight, self.bias = torch.cat([self.weight, self.bias[:, None]], dim=1), None

    def is_safe(self, hidden: Tensor) -> bool:
        """Whether the exponentials of all logits of inputs (N, H) are numbers, and not all too small."""
        if not self.narrow or not len(hidden):
            return False
        return float(hidden.float().norm(dim=1).max()) * self.norm + self.offset <= self.SAFE

    def reads(self, hidden: Tensor, safe: bool) -> Tensor:
        """Inputs (N, H) as `logits` takes them: where they are safe, of logits in bits, which are powers of two."""
        if not self.narrow:
            return hidden
        hidden = hidden.float()
        if self.weight.shape[1] > hidden.shape[1]:
            hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        return hidden * LOG2_E if safe else hidden

    def logits(self, inputs: Tensor, memory: Tensor | None = None) -> Tensor:
        """Logits (N, V); they may lie in `memory`, which holds them until the next call."""
        if not self.narrow:
            return multiply(inputs, self.weight, self.bias, memory)
        with torch.autocast("cpu", enabled=False):
            return torch.mm(inputs, self.weight.T, out=None if memory is None else memory[: len(inputs)])


_kept = threading.local()


def layer_memory(rows: int, vocab_size: int, device: torch.device) -> Tensor | None:
    """Memory for logits on a CPU, which each thread keeps: to give fresh memory costs as much as a pass over it.

    None elsewhere.
    """
    if device.type != "cpu":
        return None
    memory, numbers = getattr(_kept, "memory", None), rows * vocab_size
    if memory is None or len(memory) < numbers:
        with torch.inference_mode(False):  # whose tensors could be written to in this mode only
            memory = torch.empty(numbers, dtype=torch.float32, device=device)
        if type(memory) is Tensor:  # none of a tracer's
            _kept.memory = memory
    return memory[:numbers].view(rows, vocab_size)


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

    layer = SoftmaxLayer(weight, bias)
    safe = layer.is_safe(hidden.detach())

    def nll(rows: slice, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = targets[rows, None]
        slope = logits if safe else logits.sub_(logits.amax(dim=-1, keepdim=True))
        own = slope.gather(1, target)
        own, powers = (own * LN_2, slope.exp2_()) if safe else (own, exp_(slope))
        whole = powers.sum(dim=-1, keepdim=True)
        # d loss / d logits = weight * (softmax - one-hot); what is the same for a row, its weight and the denominator
        # of the softmax, goes to the narrower factors
        slope.scatter_add_(1, target, -whole)
        return (whole.log() - own).squeeze(1), slope, weights[rows] / whole.squeeze(1)

    loss, losses = LinearLoss.apply(hidden, weight, bias, weights, layer, safe, nll)
    return loss, -losses


class LinearLoss(torch.autograd.Function):
    """A weighted sum of losses of a linear layer's logits, and each of them.

    `of_rows` gives, for a block of rows and its logits (K, V), the losses (K,), and two factors (K, V) and (K,) whose
    product is the derivative of their weighted sum by the logits.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, weights, layer, safe, of_rows):
        inputs, read = (hidden, weight, bias), layer.reads(hidden, safe)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)

        def add(rows: slice, gradients: list[Tensor | None], memory: Tensor | None) -> None:
            losses[rows], slope, share = of_rows(rows, layer.logits(read[rows], memory).float())
            _accumulate(gradients, rows, slope, share, hidden, weight)

        gradients = _summed_over_blocks(inputs, ctx.needs_input_grad, add)
        ctx.save_for_backward(*(g if g is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)))
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, upstream, _):
        return *(None if g is None else g * upstream for g in ctx.saved_tensors), None, None, None, None


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

    def kl(rows: slice, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ours = logits.log_softmax(dim=-1)
        theirs = multiply(other[0][rows], *other[1:]).float().log_softmax(dim=-1)
        if forward:  # sum_v M log(M / G), whose derivative by the logits of G is G - M
            expected = theirs.exp()
            return (expected * (theirs - ours)).sum(dim=-1), ours.exp() - expected, weights[rows]
        # sum_v G q with q = log(G / M), whose derivative is G (q - <G, q>)
        probabilities, ratio = ours.exp(), ours - theirs
        divergences = (probabilities * ratio).sum(dim=-1)
        return divergences, probabilities * (ratio - divergences[:, None]), weights[rows]

    return LinearLoss.apply(*head, weights, SoftmaxLayer(*head[1:]), False, kl)


# The fewest rows that are worth a share of their own.
LEAST_ROWS = 32


def _summed_over_blocks(
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    add: Callable[[slice, list[Tensor | None], Tensor | None], None],
) -> list[Tensor | None]:
    """Gradients of a head's inputs, weight and bias, to which `add` adds those of each block of rows.

    It is given `layer_memory`. Threads take blocks that follow each other, and what they found is added in this order.
    """
    hidden, weight, bias = inputs
    size, rows = block_rows(len(weight), hidden.device), len(hidden)
    threads = thread_count() if hidden.device.type == "cpu" and weight.numel() <= SHARED_WEIGHT else 1
    number = max(1, min(2 * threads, rows // LEAST_ROWS)) if threads > 1 else 1
    (of_hidden,) = _zero_gradients(inputs[:1], needed)

    def share(part: int) -> list[Tensor | None]:
        gradients = [of_hidden, *_zero_gradients((weight.T, bias), needed[1:])]  # its transpose is the cheaper product
        first, end = rows * part // number, rows * (part + 1) // number
        memory = layer_memory(min(size, end - first), len(weight), hidden.device)
        for start in range(first, end, size):
            add(slice(start, min(start + size, end)), gradients, memory)
        return gradients

    gradients, *others = side_by_side(share, range(number), threads)
    for other in others:
        for total, more in zip(gradients[1:], other[1:], strict=True):
            if total is not None:
                total += more
    of_hidden, of_weight, of_bias = gradients
    return [of_hidden, None if of_weight is None else of_weight.T, of_bias]


def _zero_gradients(inputs: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor | None]:
    """Sums of blocks begin in float32, whatever the inputs are in; none where no gradient is asked for."""
    return [
        tensor.new_zeros(tensor.shape, dtype=torch.float32) if tensor is not None and asked else None
        for tensor, asked in zip(inputs, needed, strict=False)
    ]


def _accumulate(gradients, rows: slice, slope: Tensor, weights: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Add a block's share to the gradients of inputs, weight and bias; `slope` (K, V): d loss / d logits of a row.

    float16 holds neither a row's factors nor powers that are yet to be divided: its gradients are those of float32.
    """
    if compute_dtype(weight) == torch.float16:
        with torch.autocast(weight.device.type, enabled=False):
            _accumulate(gradients, rows, slope, weights, hidden.float(), weight.float())
        return
    of_hidden, of_weight, of_bias = gradients
    slope_as_weight = slope.to(weight.dtype)
    if of_hidden is not None:
        of_hidden[rows] = multiply(slope_as_weight, weight.T) * weights[:, None]
    if of_weight is not None:
        weighted = (hidden[rows] * weights[:, None]).to(weight.dtype)
        if ONEDNN_LINEAR is None and in_float32(slope_as_weight, weighted):
            of_weight.addmm_(weighted.T, slope_as_weight)
        else:
            of_weight.add_(multiply(weighted.T, slope_as_weight.T))
    if of_bias is not None:
        of_bias += weights.to(slope.dtype) @ slope
