"""Controls: the same training with a reward that knows nothing. Gains they also show cannot be credited to D."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..samples import Samples
from .base import Models
from .reinforce import Reinforce


class ConstantReward(Reinforce):
    """Every sequence earns the same: the generator is trained to repeat what it says anyway. No discriminator.

    Args:
        reward: the reward of every token; 1 by default.
        shared: of `Reinforce`. Any baseline but `none` leaves no signal at all, which is a control as well.
    """

    adversary = None

    def __init__(self, reward: float = 1.0, **shared: Any):
        super().__init__(**shared)
        self.constant = reward

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        return torch.full_like(samples.ids, self.constant, dtype=torch.float32)


class RandomReward(Reinforce):
    """Every sequence earns a number drawn uniformly from [0, 1), which is shared by its tokens. No discriminator."""

    adversary = None

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        return torch.rand(samples.batch_size, 1, device=samples.ids.device).expand_as(samples.ids)
