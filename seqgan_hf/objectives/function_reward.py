"""Any function of texts as the reward: no discriminator, nothing adversarial."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ..samples import Samples
from .base import Models
from .functions import Functions, RewardFunctions
from .reinforce import Baseline
from .seqgan import SeqGAN


class FunctionReward(SeqGAN):
    """A sequence earns what functions of one's own say: plain reinforcement learning.

    Args:
        functions: the dotted path of a function from a list of K sequences to K numbers; a list of paths (the mean
            counts); or paths with weights.
        reads: `texts` or `ids`, what the functions are given.
        rollouts: see `SeqGAN`; 0 credits every token with the whole sequence's reward.
        baseline, shared: see `Reinforce`.

    Raises:
        UserError: see `RewardFunctions`.
    """

    adversary = None
    citation = ""

    def __init__(
        self,
        functions: Functions,
        reads: Literal["texts", "ids"] = "texts",
        rollouts: int = 0,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(rollouts, baseline=baseline, **shared)
        self.functions = RewardFunctions(functions, reads)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """The weighted sum of the functions, shape (K,)."""
        return self.functions(models, samples)
