"""How likely sequences are under any causal LM, as the policy that writes: suppressed tokens have no probability."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..functional import block_rows, filter_logits, linear_kl, linear_nll
from ..samples import BoolTensor, LongTensor, Samples
from .decoder import LEAVE_PADDING_OUT, has_plain_head, head_logits, is_plain_product, position_arguments, whole_bias
from .memory import in_parts
from .modes import evaluating
from .vocabulary import NEVER, suppression, vocabulary_size


def predictions(generator: PreTrainedModel, samples: Samples, read: LongTensor) -> tuple[Tensor, nn.Module]:
    """Features at the positions that predict `samples.ids`, shape (B, T, H), and the head that makes them logits.

    The generator reads `read` (B, T) after the prompt, which usually are the same tokens.
    """
    plain_head = has_plain_head(generator)
    length = samples.ids.shape[1]
    ids = torch.cat([samples.prompt, read[:, :-1]], dim=1)
    mask = None if samples.prompt_mask is None else samples.attention_mask[:, :-1].long()
    arguments = {"input_ids": ids, "use_cache": False} | ({} if mask is None else {"attention_mask": mask})
    if "position_ids" in inspect.signature(generator.forward).parameters:
        arguments |= position_arguments(ids, mask)
    output = (generator.base_model if plain_head else generator)(**arguments)
    return output[0][:, -length:], generator.get_output_embeddings() if plain_head else nn.Identity()


def token_logprobs(
    generator: PreTrainedModel, samples: Samples, temperature: float = 1.0, top_p: float = 1.0
) -> Tensor:
    """log G(y_t | y_1:t-1) of every token, differentiable, zero where `samples.mask` is false, shape (B, T).

    Holds one block of logits at a time; the backward pass computes them again.

    Args:
        temperature, top_p: of the policy (see `filter_logits`); a token that it never draws has -inf.
    """
    features, head = predictions(generator, samples, samples.ids)
    flat, targets, added = features.flatten(0, 1), samples.ids.flatten(), suppression(generator, NEVER)

    def block_logprobs(features: Tensor, targets: LongTensor) -> Tensor:
        logits = filter_logits(head_logits(head, features, added).float(), temperature, top_p=top_p)
        return -F.cross_entropy(logits, targets, reduction="none")

    size = block_rows(4 * vocabulary_size(generator), flat.device)  # four tensors of that size are alive
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
    features, head = predictions(generator, samples, samples.ids if read is None else read)
    weights = weights.detach().masked_fill(~samples.mask, 0.0)
    added = suppression(generator, NEVER)
    if is_plain_product(head):
        leaves_out = features.device.type in LEAVE_PADDING_OUT
        counted = samples.mask.flatten().nonzero().squeeze(1) if leaves_out else slice(None)
        flat, targets, weights = features.flatten(0, 1)[counted], samples.ids.flatten()[counted], weights.flatten()
        loss, found = linear_nll(flat, head.weight, whole_bias(head, added), targets, weights[counted])
        logprobs = torch.zeros_like(weights, dtype=found.dtype)
        logprobs[counted] = found
        return loss, logprobs.view_as(samples.ids).masked_fill(~samples.mask, 0.0)
    logits = head_logits(head, features.flatten(0, 1), added).float()
    logprobs = -F.cross_entropy(logits, samples.ids.flatten(), reduction="none")
    logprobs = logprobs.view_as(samples.ids).masked_fill(~samples.mask, 0.0)
    return -(weights * logprobs).sum(), logprobs.detach()


def full_kl(
    generator: PreTrainedModel, other: PreTrainedModel, samples: Samples, weights: Tensor, forward: bool = False
) -> tuple[Tensor, Tensor]:
    """sum over b, t of weights * KL(G_t || M_t), the divergence between two models' next-token distributions.

    Over the whole vocabulary, at the prefixes of given sequences; no gradient flows through these or to `other`.

    Args:
        generator: G, which learns.
        other: M, another causal LM over the same tokens; read in eval mode.
        weights: constants, shape (B, T); positions where `samples.mask` is false count as zero.
        forward: KL(M_t || G_t) instead, for distillation.

    Returns:
        The loss, a differentiable scalar in nats, and the divergences (B, T), without gradient, zero at padding.
    """
    features, head = predictions(generator, samples, samples.ids)
    with torch.no_grad(), evaluating(other):
        other_features, other_head = predictions(other, samples, samples.ids)
    weights, flat = weights.detach().masked_fill(~samples.mask, 0.0).flatten(), features.flatten(0, 1)
    other_flat = other_features.flatten(0, 1)
    added, other_added = suppression(generator, NEVER), suppression(other, NEVER)
    if is_plain_product(head) and is_plain_product(other_head):
        bias = whole_bias(other_head, other_added)
        fixed = (other_flat, other_head.weight.detach(), None if bias is None else bias.detach())
        loss, values = linear_kl((flat, head.weight, whole_bias(head, added)), fixed, weights, forward)
    else:
        ours = head_logits(head, flat, added).float().log_softmax(dim=-1)
        with torch.no_grad():
            theirs = head_logits(other_head, other_flat, other_added).float().log_softmax(dim=-1)
        first, second = (theirs, ours) if forward else (ours, theirs)
        values = (first.exp() * (first - second)).sum(dim=-1)
        loss = (weights * values).sum()
    return loss, values.detach().view_as(samples.ids).masked_fill(~samples.mask, 0.0)


# Sequences whose density is computed in one forward pass, by device: a CPU has small caches, other devices many lanes.
SCORE_ROWS = {"cpu": 128}
MOST_SCORE_ROWS = 512


@torch.no_grad()
def _by_length(
    model: PreTrainedModel,
    samples: Samples,
    counted: BoolTensor | None,
    logprobs: Callable[[Samples, BoolTensor], Tensor],
) -> Tensor:
    """`logprobs` of the rows and the tokens that count in them, with rows of like length together, (N, ...).

    A pass is as wide as its longest row, since a short text is not worth as much work as the longest of all.
    """
    kept = samples.mask if counted is None else counted
    ends = (samples.mask * torch.arange(1, samples.ids.shape[1] + 1, device=samples.ids.device)).amax(dim=1)
    order = ends.argsort(stable=True)
    widths, sequences, kept = ends[order].tolist(), samples.select(order), kept[order]

    def part(rows: slice) -> Tensor:
        width = max(1, *widths[rows])
        mask = sequences.mask[rows, :width]
        prompt_mask = None if sequences.prompt_mask is None else sequences.prompt_mask[rows]
        chosen = Samples(sequences.prompt[rows], sequences.ids[rows, :width], mask, prompt_mask).to(model.device)
        return logprobs(chosen, kept[rows, :width].to(model.device))

    rows = SCORE_ROWS.get(model.device.type, MOST_SCORE_ROWS)
    with evaluating(model):
        found = torch.cat(in_parts(model, "likelihoods", samples.batch_size, rows, part, least=rows // 2))
    result = torch.empty_like(found)
    result[order.to(found.device)] = found
    return result


def sequence_logprobs(
    model: PreTrainedModel, samples: Samples, counted: BoolTensor | None = None, temperature: float = 1.0
) -> Tensor:
    """log p(Y) of whole sequences in float64, natural logarithm, shape (N,); `counted` (N, T) leaves tokens out."""

    def logprobs(chosen: Samples, kept: BoolTensor) -> Tensor:
        return token_logprobs(model, chosen, temperature).masked_fill(~kept, 0.0).double().sum(dim=1)

    return _by_length(model, samples, counted, logprobs)


def tempered_logprobs(
    model: PreTrainedModel, samples: Samples, temperature: float, counted: BoolTensor | None = None
) -> Tensor:
    """log p(Y) of whole sequences at a temperature T, and its first two derivatives by 1 / T, in float64, (N, 3).

    With logits l of one token these are l_y - E l and -Var l under the softmax of l / T. `counted` as in
    `sequence_logprobs`.
    """

    def block(head: nn.Module, features: Tensor, targets: LongTensor, added: Tensor | None) -> Tensor:
        logits = head_logits(head, features, added).float()
        beyond = logits - logits.gather(1, targets[:, None])
        chances = (beyond / temperature).log_softmax(dim=1)
        found = chances.gather(1, targets[:, None]).squeeze(1)
        chances = chances.exp()
        beyond = beyond.masked_fill(chances == 0, 0.0)  # what is never written lies too far off to be squared
        mean, square = (chances * beyond).sum(dim=1), (chances * beyond.square()).sum(dim=1)
        return torch.stack([found, -mean, mean.square() - square], dim=1)

    def logprobs(chosen: Samples, kept: BoolTensor) -> Tensor:
        features, head = predictions(model, chosen, chosen.ids)
        flat, targets, added = features.flatten(0, 1), chosen.ids.flatten(), suppression(model, NEVER)
        size = block_rows(4 * vocabulary_size(model), flat.device)
        parts = [block(head, *each, added) for each in zip(flat.split(size), targets.split(size), strict=True)]
        values = torch.cat(parts).view(*chosen.ids.shape, 3)
        return values.masked_fill(~kept[..., None], 0.0).double().sum(dim=1)

    return _by_length(model, samples, counted, logprobs)
