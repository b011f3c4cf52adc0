"""CatGAN's loss: in each class, real and generated sequences are judged by how far they are from the others' mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..samples import LongTensor, Samples
from .base import Models
from .classes import Classes, check_classes, check_names, check_prompts, class_of
from .relgan import RelGAN, Schedule, Verdicts
from .statistics import shared_mean, sum_over_processes


class CatGAN(RelGAN):
    """RelGAN's soft samples, and a relativistic average loss (RaGAN) in each class, summed over classes.

    D minimises E_real softplus(-(s - mean of fake)) + E_fake softplus(s - mean of real), G the same with the sign
    turned. One generator writes all classes, told by a token of its prompt which one. The paper's evolution of several
    generators is left out.

    Args:
        classes: the tokens that name them in a prompt (or their ids, where there is no text); none: all are one.
        pooled: add the same loss over all classes together.
        beta_max, adapt, beta_steps, straight_through: see `RelGAN`.

    Raises:
        UserError: a class that is no token of the tokenizer, or a prompt that does not hold one.

    References:
        Liu, Wang and Liang, CatGAN: Category-aware Generative Adversarial Networks with Hierarchical Evolutionary
        Learning for Category Text Generation, AAAI 2020, https://arxiv.org/abs/1911.06641.
    """

    citation = """@inproceedings{liu2020catgan,
  title = {{CatGAN}: Category-aware Generative Adversarial Networks with Hierarchical Evolutionary Learning for
           Category Text Generation},
  author = {Liu, Zhiyue and Wang, Jiahai and Liang, Zhiwei},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {34},
  pages = {8425--8432},
  year = {2020}
}"""

    def __init__(
        self,
        classes: Classes = None,
        pooled: bool = False,
        beta_max: float = 100.0,
        adapt: Schedule = "exp",
        beta_steps: int = 5000,
        straight_through: bool = False,
    ):
        super().__init__(beta_max=beta_max, adapt=adapt, beta_steps=beta_steps, straight_through=straight_through)
        check_names(classes)
        self.classes, self.pooled = classes, pooled

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse class names that are no tokens, and prompts that cannot name one."""
        super().check(models, batch_size, conditional)
        check_classes(self.classes, models, conditional)

    def check_sequences(self, models: Models, real: Samples | None) -> None:
        """Refuse a class that no prompt names, and a prompt that names none or several."""
        if real is not None:
            check_prompts(self.classes, models, real)

    def of_discriminator(self, models: Models, real: Verdicts, fake: Verdicts) -> Tensor:
        """The sum over classes, each a mean over its sequences."""
        return self._over_classes(models, real, fake, 1.0)

    def of_generator(self, models: Models, real: Verdicts, fake: Verdicts) -> Tensor:
        """The same with the sign turned."""
        return self._over_classes(models, real, fake, -1.0)

    def _over_classes(self, models: Models, real: Verdicts, fake: Verdicts, sign: float) -> Tensor:
        of_real, of_fake = (class_of(self.classes, models, verdicts.samples) for verdicts in (real, fake))
        scores, count = (real.of_sequences, fake.of_sequences), len(self.classes or [0])
        loss = relativistic_average(*scores, of_real, of_fake, count, sign)
        if self.pooled:
            loss = loss + relativistic_average(*scores, torch.zeros_like(of_real), torch.zeros_like(of_fake), 1, sign)
        return loss


def relativistic_average(
    real: Tensor, fake: Tensor, real_labels: LongTensor, fake_labels: LongTensor, classes: int, sign: float
) -> Tensor:
    """sum over classes of E_real softplus(-sign (r - mean f)) + E_fake softplus(sign (f - mean r)).

    Means and expectations are those of all processes; a class without real or without generated sequences is left out.

    Args:
        real, fake: scores, shape (B,) and (C,).
        real_labels, fake_labels: their classes, shape (B,) and (C,).
    """
    sides = [(real, F.one_hot(real_labels, classes)), (fake, F.one_hot(fake_labels, classes))]
    sums = [rows.sum(dim=0) for scores, members in sides for rows in (scores[:, None] * members, members)]
    real_sum, reals, fake_sum, fakes = sum_over_processes(torch.stack(sums), differentiable=True)
    mean_real, mean_fake = real_sum / reals.clamp(min=1), fake_sum / fakes.clamp(min=1)
    of_real = F.softplus(-sign * (real - mean_fake[real_labels]))
    of_fake = F.softplus(sign * (fake - mean_real[fake_labels]))
    losses = [
        shared_mean(of_real, real_labels == label) + shared_mean(of_fake, fake_labels == label)
        for label in range(classes)
    ]
    return torch.stack(losses).masked_fill((reals == 0) | (fakes == 0), 0.0).sum()
