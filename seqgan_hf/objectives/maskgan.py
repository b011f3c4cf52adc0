"""MaskGAN: text with gaps is filled in, and every token that fills one earns the discriminator's log verdict on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import discounted
from ..generation.verdicts import rewards
from ..samples import Samples
from .base import Models
from .reinforce import Baseline, Reinforce, check_verdicts_on_tokens


class MaskGAN(Reinforce):
    """A token earns log D_t and is credited with its discounted return, cut off at a largest advantage.

    The text with its gaps is the prompt, what fills them the continuation, and
    the discriminator reads both. Without prompts it is a policy gradient with a reward for every token.

    Args:
        discount: of later rewards.
        max_advantage: advantages are cut off at plus and minus this.
        baseline: in place of the paper's critic.
        shared: of `Reinforce`.

    References:
        Fedus et al., MaskGAN: Better Text Generation via Filling in the ______, ICLR 2018,
        https://arxiv.org/abs/1801.07736.
    """

    citation = """@inproceedings{fedus2018maskgan,
  title = {{MaskGAN}: Better Text Generation via Filling in the \\_\\_\\_\\_\\_\\_},
  author = {Fedus, William and Goodfellow, Ian and Dai, Andrew M.},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}"""

    def __init__(
        self,
        discount: float = 0.89,
        max_advantage: float = 5.0,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(baseline, **shared)
        if not 0 <= discount <= 1:
            raise UserError(f"discount={discount}", "a number in [0, 1]", "0 looks at a token's own reward only")
        if not max_advantage > 0:
            raise UserError(f"max_advantage={max_advantage}", "a positive number", "5 is the paper's")
        self.discount, self.max_advantage = discount, max_advantage

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that judges whole sequences."""
        super().check(models, batch_size, conditional)
        check_verdicts_on_tokens(self, models)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """log(D_t + 1e-7), shape (K, T), zero at padding."""
        verdicts = rewards(models.discriminator, samples)
        return torch.log(verdicts + 1e-7).masked_fill(~samples.mask, 0.0)

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """R_t, shape (B, T), zero at padding."""
        return discounted(self._earned(models, samples, real, of_tokens=True), samples.mask, self.discount)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """R_t - b_t, between plus and minus `max_advantage`."""
        return super().advantages(models, values, samples).clamp(-self.max_advantage, self.max_advantage)
