"""Controls: the same training with a reward that knows nothing. What they reach is not the discriminator's merit."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..samples import Samples
from .reinforce import Baseline, Reinforce


class ConstantReward(Reinforce):
    """Every sequence earns the same: the generator is trained to repeat what it says anyway.

    Args:
        reward: the reward of every token; 1 by default.
        baseline: see `Reinforce`. Any but `none` leaves no signal at all, which is a control as well.
        baseline_momentum: see `Reinforce`.
    """

    def __init__(self, reward: float = 1.0, baseline: Baseline = "none", baseline_momentum: float = 0.9):
        super().__init__(baseline, baseline_momentum)
        self.reward = reward

    def action_values(self, generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples) -> Tensor:
        return torch.full_like(samples.ids, self.reward, dtype=torch.float32)


class RandomReward(Reinforce):
    """Every sequence earns a number drawn uniformly from [0, 1), which is shared by its tokens."""

    def action_values(self, generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples) -> Tensor:
        drawn = torch.rand(samples.batch_size, 1, device=samples.ids.device)
        return drawn.expand_as(samples.ids)
