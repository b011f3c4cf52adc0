"""ORGAN: a discriminator keeps the samples near the data while functions of one's own pull them elsewhere."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ..errors import UserError
from ..samples import Samples
from .base import Models
from .functions import Functions, RewardFunctions
from .reinforce import Baseline
from .seqgan import SeqGAN


class ORGAN(SeqGAN):
    """A sequence earns lambda D(Y) + (1 - lambda) f(Y), carried back to tokens by rollouts as in SeqGAN.

    Args:
        functions: f, see `FunctionReward`; the paper's lie in [0, 1], as D does.
        discriminator_weight: lambda.
        reads: `texts` or `ids`, what the functions are given.
        rollouts, baseline, shared: see `SeqGAN`, `Reinforce`.

    Raises:
        UserError: see `RewardFunctions`.

    References:
        Guimaraes et al., Objective-Reinforced Generative Adversarial Networks (ORGAN) for Sequence Generation Models,
        2017, https://arxiv.org/abs/1705.10843.
    """

    citation = """@article{guimaraes2017organ,
  title = {Objective-Reinforced Generative Adversarial Networks ({ORGAN}) for Sequence Generation Models},
  author = {Guimaraes, Gabriel Lima and Sanchez-Lengeling, Benjamin and Outeiral, Carlos and Farias, Pedro Luis Cunha and Aspuru-Guzik, Al{\\'a}n},
  journal = {arXiv preprint arXiv:1705.10843},
  year = {2017}
}"""  # noqa: E501

    def __init__(
        self,
        functions: Functions,
        discriminator_weight: float = 0.5,
        reads: Literal["texts", "ids"] = "texts",
        rollouts: int = 16,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(rollouts, baseline=baseline, **shared)
        if not 0 <= discriminator_weight <= 1:
            problem = f"discriminator_weight={discriminator_weight}"
            raise UserError(problem, "a share in [0, 1]", "1 is SeqGAN; FunctionReward needs no discriminator")
        self.functions, self.discriminator_weight = RewardFunctions(functions, reads), discriminator_weight

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """lambda D(Y) + (1 - lambda) f(Y), shape (K,)."""
        verdicts = super().reward(models, samples, real)
        return verdicts.lerp(self.functions(models, samples), 1 - self.discriminator_weight)
