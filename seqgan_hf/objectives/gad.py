"""GAD: generative adversarial distillation; a student against a discriminator of pairs with its teacher's answers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..generation.verdicts import judge
from ..samples import Samples
from .base import Loss, Models
from .grpo import GRPO
from .pairwise import pairwise_loss
from .reinforce import last_of


class GAD(GRPO):
    """Group-relative advantages of the discriminator's raw score, which learns to rank the teacher's answer first.

    Only differences of scores to the same prompt mean anything, so the reward's level does not. For the optimal
    discriminator, and without `scale`, the gradient is that of KL(G || P).

    Args:
        kl: weight of the divergence from the generator that the objective began with.
        shared: of `GRPO`.

    References:
        Ye et al., Black-Box On-Policy Distillation of Large Language Models, 2025, https://arxiv.org/abs/2511.10643.
    """

    citation = """@article{ye2025gad,
  title = {Black-Box On-Policy Distillation of Large Language Models},
  author = {Ye, Tianzhu and Dong, Li and Chi, Zewen and Wu, Xun and Huang, Shaohan and Wei, Furu},
  journal = {arXiv preprint arXiv:2511.10643},
  year = {2025}
}"""
    paired: ClassVar[bool] = True

    def __init__(self, kl: float = 0.001, **shared: Any):
        super().__init__(kl=kl, **shared)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """The discriminator's score s(Y), shape (K,)."""
        return last_of(judge(models.discriminator, samples), samples)

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """See `pairwise_loss`."""
        return pairwise_loss(models, real, fake)
