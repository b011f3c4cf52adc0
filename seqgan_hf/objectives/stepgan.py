"""StepGAN: a verdict on every token is the value of that token; no returns, no rollouts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..functional import masked_mean
from ..generation.verdicts import realness, rewards
from ..samples import BoolTensor, Samples
from .base import Loss, Models, penalty
from .reinforce import Baseline, Reinforce, check_verdicts_on_tokens
from .statistics import shared_mean


class StepGAN(Reinforce):
    """Q(Y_1:t-1, y_t) is D_t, of a discriminator whose verdict on a sequence is the mean of those on its tokens.

    Only that mean is learnt: what moves from D_t+1 to D_t leaves the discriminator's loss and changes the generator's
    gradient.

    Args:
        decreasing: token t counts T - t + 1 times (StepGAN-W).
        baseline: in place of the paper's learnt value of the prefix.
        shared: of `Reinforce`.

    References:
        Tuan and Lee, Improving Conditional Sequence Generative Adversarial Networks by Stepwise Evaluation, IEEE/ACM
        TASLP 2019, https://arxiv.org/abs/1808.05599.
    """

    citation = """@article{tuan2019stepgan,
  title = {Improving Conditional Sequence Generative Adversarial Networks by Stepwise Evaluation},
  author = {Tuan, Yi-Lin and Lee, Hung-Yi},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume = {27},
  number = {4},
  pages = {788--798},
  year = {2019}
}"""

    def __init__(self, decreasing: bool = False, baseline: Baseline = "leave_one_out", **shared: Any):
        super().__init__(baseline, **shared)
        self.decreasing = decreasing

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that judges whole sequences."""
        super().check(models, batch_size, conditional)
        check_verdicts_on_tokens(self, models)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """D_t, shape (K, T), zero at padding."""
        return rewards(models.discriminator, samples)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """alpha_t (D_t - b_t), with alpha_t = 1, or T - t + 1 of a sequence of T tokens."""
        advantages = super().advantages(models, values, samples)
        if not self.decreasing:
            return advantages
        return advantages * samples.mask.flip(1).cumsum(dim=1).flip(1)

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-log(mean_t D_t(real)) - log(1 - mean_t D_t(fake)): the mean of probabilities inside the logarithm."""
        both = Samples.concatenate([real.uncredited, fake.uncredited])
        scores = realness(models.discriminator, both).float()
        of_real, of_fake = scores.split([real.batch_size, fake.batch_size])
        real_mask, fake_mask = both.mask.split([real.batch_size, fake.batch_size])
        log_real, log_fake = _log_mean(F.logsigmoid(of_real), real_mask), _log_mean(F.logsigmoid(-of_fake), fake_mask)
        every_real, every_fake = (torch.ones_like(rows, dtype=torch.bool) for rows in (log_real, log_fake))
        loss = shared_mean(-log_real, every_real) + shared_mean(-log_fake, every_fake)
        with torch.no_grad():
            right = [
                masked_mean((rows > math.log(0.5)).float(), every)
                for rows, every in ((log_real, every_real), (log_fake, every_fake))
            ]
            metrics = {"discriminator_accuracy": sum(right) / 2, "discriminator_loss": loss.detach()}
        return Loss(loss + penalty(models.discriminator), metrics)


def _log_mean(logs: Tensor, mask: BoolTensor) -> Tensor:
    """log of the mean of exp(logs) over the counted tokens of each row, (B, T) to (B,)."""
    return logs.masked_fill(~mask, -torch.inf).logsumexp(dim=1) - mask.sum(dim=1).log()
