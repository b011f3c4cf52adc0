"""How real a sequence is, under any sequence classifier."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import BoolTensor, LongTensor, Samples
from .memory import in_parts
from .modes import evaluating
from .vocabulary import token_embeddings


# Tokens that are rewarded in one forward pass when the caller sets no limit: 4,096 sequences of the paper's length.
SCORE_TOKENS = 81_920
# And the fewest that are worth a thread of their own.
LEAST_TOKENS = 2_560
# Devices on which what completions share is read once; others would wait to know which do.
READ_PREFIXES_ONCE = {"cpu"}


def judged_tokens(samples: Samples, pad_token_id: int) -> tuple[LongTensor, BoolTensor, Tensor]:
    """What a discriminator reads: condition and continuation without the start token, pushed to the left.

    Args:
        samples: B sequences.
        pad_token_id: put wherever nothing is to be read. Classifiers of `transformers` that are built on a causal LM
            look for the last other id, not at the mask.

    Returns:
        Token ids (B, P-1+T), a mask of the real ones, and the number of condition tokens of each row, at which its
        continuation begins, (B,).
    """
    mask, order = _reading_order(samples)
    ids = samples.sequences.gather(1, order)
    begin = samples.attention_mask[:, : samples.prompt.shape[1]].sum(dim=1) - 1
    return ids.masked_fill(~mask, pad_token_id), mask, begin


def _reading_order(samples: Samples) -> tuple[BoolTensor, LongTensor]:
    """What is read of each row of `sequences`: where there is something (B, P-1+T), and from which place."""
    mask, width = samples.attention_mask, samples.prompt.shape[1]
    start = mask & (mask.cumsum(dim=1) == 1)
    mask = mask & ~start
    if width == 1:
        places = torch.arange(1, mask.shape[1], device=mask.device)
        return mask[:, 1:], places.expand_as(mask[:, 1:])
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :-1]
    return mask.gather(1, order), order


def realness(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """Log-odds that the discriminator gives each sequence of being real; its sigmoid is SeqGAN's reward.

    Differentiable with respect to the discriminator, and to `samples.soft` where it is given.

    Args:
        discriminator: any sequence classifier; logits (B, 2) with label 1 = real, (B, 1), or (B, L, 1) per token.
        samples: B sequences.

    Returns:
        Shape (B,), or (B, T) for a discriminator that judges every token (zero at padding).

    Raises:
        UserError: for logits of another shape.
    """
    outputs, _, begin = _read(discriminator, samples)
    return _log_odds(discriminator, outputs.logits, samples, begin)


def verdicts(discriminator: PreTrainedModel, samples: Samples) -> tuple[Tensor, BoolTensor]:
    """All that a discriminator says of each sequence, as log-odds of being real; differentiable like `realness`.

    Args:
        discriminator: any sequence classifier. One that reads a sequence in R representations gives the log-odds of
            each as `representation_logits` (B, R) beside `logits`, whose log-odds are their mean.
        samples: B sequences.

    Returns:
        Log-odds (B, K) and which of them count, (B, K): all (K = R, or 1), or those of real tokens (K = T).

    Raises:
        UserError: for logits of another shape.
    """
    outputs, _, begin = _read(discriminator, samples)
    values = getattr(outputs, "representation_logits", None)
    if values is None:
        values = _log_odds(discriminator, outputs.logits, samples, begin)
    if outputs.logits.dim() == 3:
        return values, samples.mask
    values = values.reshape(samples.batch_size, -1)
    return values, torch.ones_like(values, dtype=torch.bool)


def _log_odds(discriminator: PreTrainedModel, logits: Tensor, samples: Samples, begin: Tensor) -> Tensor:
    """The log-odds that logits stand for, (B,), or of the continuation's tokens, (B, T)."""
    if logits.dim() == 3 and logits.shape[-1] == 1:
        position = begin[:, None] + torch.arange(samples.ids.shape[1], device=begin.device)
        return logits.squeeze(-1).gather(1, position).masked_fill(~samples.mask, 0.0)
    if logits.dim() == 2 and logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    if logits.dim() == 2 and logits.shape[1] == 1:
        return logits[:, 0]
    problem = f"logits of shape {tuple(logits.shape)} from {type(discriminator).__name__}"
    raise UserError(problem, "(B, 2) with label 1 = real, (B, 1), or (B, T, 1)", "set `num_labels=2`")


def _read(discriminator: PreTrainedModel, samples: Samples) -> tuple[Any, BoolTensor, Tensor]:
    """What a discriminator returns, and of what it read the mask and where the continuations begin."""
    if getattr(discriminator, "text_reader", None) is not None:  # see `data.reading`
        return _read_text(discriminator, samples)
    pad_token_id = getattr(getattr(discriminator, "config", None), "pad_token_id", None)
    ids, mask, begin = judged_tokens(samples, 0 if pad_token_id is None else pad_token_id)
    if samples.soft is not None:
        inputs = {"inputs_embeds": _soft_embeddings(discriminator, samples)}
    else:
        inputs = {"input_ids": ids}
        if samples.origin is not None and _reads_origins(discriminator, ids.device):
            inputs["origin"] = samples.origin
    return discriminator(**inputs, attention_mask=mask.long()), mask, begin


def _reads_origins(discriminator: PreTrainedModel, device: torch.device) -> bool:
    """Whether it can read once what completions of a prefix share, and may: gradients go the plain way."""
    accepted = inspect.signature(discriminator.forward).parameters
    return device.type in READ_PREFIXES_ONCE and not torch.is_grad_enabled() and "origin" in accepted


def _read_text(discriminator: Any, samples: Samples) -> tuple[Any, BoolTensor, Tensor]:
    if samples.soft is not None:
        token_embeddings(discriminator)  # which refuses it
    inputs = discriminator.text_reader(samples)
    outputs = discriminator(**inputs)
    if outputs.logits.dim() != 2:
        logits = f"logits of shape {tuple(outputs.logits.shape)} from {type(discriminator).__name__}"
        problem = f"{logits}, which reads text: its tokens are its own"
        raise UserError(problem, "a verdict on the whole text", "choose a sequence classifier")
    return outputs, inputs["attention_mask"].bool(), torch.zeros_like(samples.lengths)


def _soft_embeddings(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """Embeddings of the condition and mixtures of them for the soft tokens, in the order of `judged_tokens`."""
    mask, order = _reading_order(samples)
    weight = token_embeddings(discriminator, padded=not bool(mask.all()), tokens=samples.soft.shape[-1])
    embedded = torch.cat([weight[samples.prompt], samples.soft @ weight], dim=1)
    return embedded.gather(1, order[..., None].expand(-1, -1, embedded.shape[2]))


def class_logits(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """Logits of a classifier with K + 1 labels, 0 = generated and k = real of class k, differentiable, (B, K + 1)."""
    return _read(discriminator, samples)[0].logits


def features(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """What the discriminator's last linear layer reads of each sequence, differentiable, shape (B, F).

    Of a layer that is applied to every token, what it reads at the last one; of one that is applied to every
    representation, the mean.

    Raises:
        UserError: the logits are not those of a linear layer.
    """
    labels = (discriminator.config.num_labels, 1)  # 1: of a verdict on every token
    found: list[Tensor] = []
    linear = [layer for layer in discriminator.modules() if isinstance(layer, nn.Linear)]
    heads = [layer for layer in linear if layer.out_features in labels]
    thread = get_ident()  # others may run the same model

    def keep(head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if get_ident() == thread:
            found.append(inputs[0])

    hooks = [head.register_forward_pre_hook(keep) for head in heads]
    try:
        outputs, mask, _ = _read(discriminator, samples)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        problem = f"{type(discriminator).__name__} has no linear layer of {labels[0]} labels"
        raise UserError(problem, "a classifier whose logits are a linear layer", "choose another discriminator")
    if hasattr(outputs, "representation_logits"):
        return found[-1].mean(dim=1)
    last = mask.sum(dim=1) - 1
    return found[-1] if found[-1].dim() == 2 else found[-1][torch.arange(len(last), device=last.device), last]


@torch.no_grad()
def judge(
    discriminator: PreTrainedModel,
    samples: Samples,
    function: Callable[[PreTrainedModel, Samples], Tensor] = realness,
    max_rows: int | None = None,
) -> Tensor:
    """What a function of discriminator and samples gives: dropout off, without autograd, in batches of `max_rows`.

    By default these hold `SCORE_TOKENS` tokens, so that memory does not grow with the length of the sequences. When a
    GPU runs out of memory they are halved, with a warning, and stay so; results do not depend on it.

    Args:
        function: row-wise: `realness` (log-odds), `features`, `class_logits`.

    Returns:
        The function's rows in float32.
    """
    width = samples.prompt.shape[1] - 1 + samples.ids.shape[1]
    if max_rows is None:
        max_rows = max(1, SCORE_TOKENS // width)

    def part(rows: slice) -> Tensor:
        return function(discriminator, samples.select(rows)).float()

    least = max(1, LEAST_TOKENS // width)
    looking_up = getattr(discriminator, "looking_up", None)  # of those that read many tokens another way
    with evaluating(discriminator), nullcontext() if looking_up is None else looking_up(samples.batch_size * width):
        return torch.cat(in_parts(discriminator, "scoring", samples.batch_size, max_rows, part, least))


def rewards(discriminator: PreTrainedModel, samples: Samples, max_rows: int | None = None) -> Tensor:
    """D(Y), the probability of being real, by `judge`.

    Returns:
        Shape (B,), or (B, T) for a discriminator that judges every token (zero at padding).
    """
    values = judge(discriminator, samples, max_rows=max_rows).sigmoid()
    return values if values.dim() == 1 else values.masked_fill(~samples.mask, 0.0)
