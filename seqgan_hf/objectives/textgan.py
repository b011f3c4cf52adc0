"""TextGAN: the generator matches the discriminator's features of real text, by their maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import squared_mmd
from ..generation.relaxation import relax
from ..generation.verdicts import features
from ..generation.vocabulary import special_tokens, token_embeddings
from ..samples import Samples
from .base import Loss, Models, Objective


class TextGAN(Objective):
    """G minimises MMD^2 between the discriminator's features of real and of relaxed generated sequences.

    The discriminator tells both apart as ever, and a larger MMD^2 lowers its loss as well. Generated sequences
    are relaxed (see `relax`), so that the gradient reaches the generator through them.

    Args:
        kernel_widths: of the Gaussian kernels, which are summed.
        weight_mmd: of MMD^2 in the loss of the discriminator.
        beta: inverse temperature of the relaxation.
        unbiased: leave pairs of a sequence with itself out of MMD^2.

    References:
        Zhang et al., Adversarial Feature Matching for Text Generation, ICML 2017, https://arxiv.org/abs/1706.03850.
    """

    citation = """@inproceedings{zhang2017adversarial,
  title = {Adversarial Feature Matching for Text Generation},
  author = {Zhang, Yizhe and Gan, Zhe and Fan, Kai and Chen, Zhi and Henao, Ricardo and Shen, Dinghan and
            Carin, Lawrence},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  pages = {4006--4015},
  year = {2017}
}"""

    def __init__(
        self,
        kernel_widths: Sequence[float] = (1.0, 2.0, 5.0, 10.0, 20.0),
        weight_mmd: float = 1e-3,
        beta: float = 100.0,
        unbiased: bool = False,
    ):
        if not kernel_widths or not all(0 < width < float("inf") for width in kernel_widths):
            raise UserError(
                f"kernel_widths={list(kernel_widths)}", "one or more positive numbers", "20 is the paper's"
            )
        if not 0 <= weight_mmd < float("inf"):
            raise UserError(f"weight_mmd={weight_mmd}", "a number from 0 on", "0 leaves it out")
        if not 0 < beta < float("inf"):
            raise UserError(f"beta={beta}", "a positive number", "the larger, the nearer to one-hot")
        self.kernel_widths, self.weight_mmd = tuple(kernel_widths), weight_mmd
        self.beta, self.unbiased = beta, unbiased

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that cannot read the soft tokens, and batches without pairs."""
        super().check(models, batch_size, conditional)
        token_embeddings(models.discriminator, padded=bool(special_tokens(models.generator)[0]))
        if self.unbiased and batch_size < 2:
            raise UserError("unbiased=True with batches of 1", "pairs", "set `training.per_device_train_batch_size`")

    def _distance(self, models: Models, real: Samples, fake: Samples) -> Tensor:
        """MMD^2 of the features, a scalar."""
        ours, theirs = (features(models.discriminator, part).float() for part in (fake, real))
        return squared_mmd(ours, theirs, self.kernel_widths, self.unbiased)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """MMD^2."""
        distance = self._distance(models, real, relax(models.generator, fake, self.beta))
        return Loss(distance, {"mmd": distance.detach()})

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """Cross-entropy less `weight_mmd` MMD^2."""
        with torch.no_grad():
            fake = relax(models.generator, fake.uncredited, self.beta)
        loss = super().discriminator_loss(models, real, fake)
        if not self.weight_mmd:
            return loss
        return loss._replace(value=loss.value - self.weight_mmd * self._distance(models, real, fake))
