"""Likelihood ratios of the policy as it is to the one that drew the samples, and their clipping (PPO)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..samples import Samples


Level = Literal["token", "sequence"]


def check_clipping(clip: float, clip_high: float | None, level: str, updates: int) -> None:
    """Raise a UserError for settings of `clipped` that mean nothing."""
    if not 0 < clip < 1 or (clip_high is not None and not clip_high > 0):
        raise UserError(f"clip={clip}, clip_high={clip_high}", "clip in (0, 1), clip_high positive", "0.2 is usual")
    if level not in ("token", "sequence"):
        raise UserError(f"level={level!r}", "token or sequence", "choose one")
    if updates < 1:
        raise UserError(f"updates={updates}", "1 or more steps on a batch of samples", "1 needs no clipping")


def clipped(
    advantages: Tensor, logprobs: Tensor, samples: Samples, clip: float, clip_high: float | None, level: Level
) -> Tensor:
    """The factor of grad log G in the gradient of min(rho A, clip(rho, 1 - clip, 1 + clip_high) A).

    It is rho A, and 0 where the ratio has gone further in A's direction than allowed (Schulman et al., Proximal Policy
    Optimization Algorithms, 2017, eq. 7).

    Args:
        advantages: shape (B, T).
        logprobs: under the policy as it is, shape (B, T).
        samples: with the `logprobs` that they were drawn with; without them the policy is still that one.
        clip, clip_high: how far below and above 1; equal by default.
        level: whether rho is each token's ratio or its sequence's.

    Returns:
        Shape (B, T).
    """
    if samples.logprobs is None:
        return advantages
    log_ratio = logprobs - samples.logprobs
    if level == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True)
    ratio = log_ratio.exp()
    beyond = torch.where(advantages > 0, ratio > 1 + (clip_high or clip), ratio < 1 - clip)
    return (ratio * advantages).masked_fill(beyond, 0.0)
