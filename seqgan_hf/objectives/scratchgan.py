"""ScratchGAN: a verdict on every token, discounted returns, large batches, and no pretraining."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import UserError
from ..functional import discounted
from ..generation.verdicts import rewards
from ..samples import Samples
from .base import Models
from .reinforce import Baseline, Reinforce, check_verdicts_on_tokens


class ScratchGAN(Reinforce):
    """Every token earns 2 D_t - 1 of a discriminator that judges prefixes, and is credited with its discounted return.

    R_t = sum over s >= t of discount^(s-t) (2 D(Y_1:s) - 1). The paper trains from random weights, 512 rows a batch.

    Args:
        discount: of later rewards.
        baseline, baseline_momentum: the paper subtracts a moving average (of one number, here one a position).
        shared: of `Reinforce`.

    References:
        de Masson d'Autume et al., Training Language GANs from Scratch, NeurIPS 2019, https://arxiv.org/abs/1905.09922.
    """

    citation = """@inproceedings{demasson2019scratchgan,
  title = {Training Language {GANs} from Scratch},
  author = {de Masson d'Autume, Cyprien and Mohamed, Shakir and Rosca, Mihaela and Rae, Jack},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {32},
  year = {2019}
}"""

    def __init__(
        self,
        discount: float = 0.23,
        baseline: Baseline = "moving_average",
        baseline_momentum: float = 0.08,
        **shared: Any,
    ):
        super().__init__(baseline, baseline_momentum, **shared)
        if not 0 <= discount <= 1:
            raise UserError(f"discount={discount}", "a number in [0, 1]", "0 looks at a token's own reward only")
        self.discount = discount

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that judges whole sequences."""
        super().check(models, batch_size, conditional)
        check_verdicts_on_tokens(self, models)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """2 D_t - 1, shape (K, T), zero at padding."""
        return (2 * rewards(models.discriminator, samples) - 1).masked_fill(~samples.mask, 0.0)

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """R_t, shape (B, T), zero at padding."""
        return discounted(self._earned(models, samples, real, of_tokens=True), samples.mask, self.discount)
