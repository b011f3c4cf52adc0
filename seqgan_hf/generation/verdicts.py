"""How real a sequence is, under any sequence classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..samples import BoolTensor, LongTensor, Samples
from .memory import in_parts
from .modes import evaluating


# Tokens that are rewarded in one forward pass when the caller sets no limit: 4,096 sequences of the paper's length.
SCORE_TOKENS = 81_920


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
    if samples.prompt.shape[1] == 1:
        none = torch.zeros(samples.batch_size, dtype=torch.long, device=samples.ids.device)
        return samples.ids.masked_fill(~samples.mask, pad_token_id), samples.mask, none
    mask = samples.attention_mask
    condition = mask[:, : samples.prompt.shape[1]]
    start = condition & (condition.cumsum(dim=1) == 1)
    mask = torch.cat([condition & ~start, samples.mask], dim=1)
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)
    width = mask.shape[1] - 1
    ids = samples.sequences.masked_fill(~mask, pad_token_id).gather(1, order)[:, :width]
    return ids, mask.gather(1, order)[:, :width], condition.sum(dim=1) - 1


def realness(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """Log-odds that the discriminator gives each sequence of being real; its sigmoid is SeqGAN's reward.

    Differentiable with respect to the discriminator, and to `samples.soft` where it is given.

    Args:
        discriminator: any sequence classifier; logits (B, 2) with label 1 = real, (B, 1), or (B, L, 1) per token.
        samples: B sequences.

    Returns:
        Shape (B,), or (B, T) for a discriminator that judges every token (zero at padding).

    Raises:
        ValueError: for logits of another shape.
    """
    pad_token_id = getattr(getattr(discriminator, "config", None), "pad_token_id", None)
    ids, mask, begin = judged_tokens(samples, 0 if pad_token_id is None else pad_token_id)
    inputs = (
        {"input_ids": ids} if samples.soft is None else {"inputs_embeds": _soft_embeddings(discriminator, samples)}
    )
    logits = discriminator(**inputs, attention_mask=mask.long()).logits
    if logits.dim() == 3 and logits.shape[-1] == 1:
        position = begin[:, None] + torch.arange(samples.ids.shape[1], device=begin.device)
        return logits.squeeze(-1).gather(1, position).masked_fill(~samples.mask, 0.0)
    if logits.dim() == 2 and logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    if logits.dim() == 2 and logits.shape[1] == 1:
        return logits[:, 0]
    raise UserError(
        f"logits of shape {tuple(logits.shape)} from {type(discriminator).__name__}",
        "(B, 2) with label 1 = real, (B, 1), or (B, T, 1)",
        "set `num_labels=2`",
    )


def _soft_embeddings(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    if samples.prompt.shape[1] != 1:
        raise UserError(f"soft samples with prompts of {samples.prompt.shape[1]} tokens", "the start token only")
    embeddings: Any = discriminator.get_input_embeddings()
    return samples.soft @ embeddings.weight


@torch.no_grad()
def rewards(discriminator: PreTrainedModel, samples: Samples, max_rows: int | None = None) -> Tensor:
    """D(Y), the probability of being real: dropout off, without autograd, in batches of `max_rows`.

    By default these hold `SCORE_TOKENS` tokens, so that memory does not grow with the length of the sequences. When a
    GPU runs out of memory they are halved, with a warning, and stay so; rewards do not depend on it.

    Returns:
        Shape (B,), or (B, T) for a discriminator that judges every token (zero at padding).
    """
    if max_rows is None:
        max_rows = max(1, SCORE_TOKENS // (samples.prompt.shape[1] - 1 + samples.ids.shape[1]))
    with evaluating(discriminator):
        parts = in_parts(
            discriminator,
            "scoring",
            samples.batch_size,
            max_rows,
            lambda rows: realness(discriminator, samples.select(rows)).float().sigmoid(),
        )
    values = torch.cat(parts)
    return values if values.dim() == 1 else values.masked_fill(~samples.mask, 0.0)
