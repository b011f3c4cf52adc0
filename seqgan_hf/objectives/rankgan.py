"""RankGAN: a ranker says how far a sequence stands out from others as resembling real text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..generation.verdicts import features, judge
from ..samples import Samples
from .base import Credit, Loss, Models, penalty
from .reinforce import Baseline
from .seqgan import SeqGAN
from .statistics import rows_of_processes, samples_of_processes


class RankGAN(SeqGAN):
    """The reward of a sequence is its log share among sequences to compare with, in resemblance to real references.

    R(Y | U, C) = mean over u in U of e^(gamma cos(y, u)) / (e^(gamma cos(y, u)) + sum over c in C of
    e^(gamma cos(c, u))), where y, u, c are what the discriminator's last layer reads. References U are the first rows
    of the real batch; the generator is compared with the other real rows.

    Args:
        references: U's size; half of the real rows in a batch that holds less than twice as many.
        gamma: sharpness.
        log_reward: log R, the paper's objective; its code rewards with R.
        rollouts, baseline, shared: see `SeqGAN`, `Reinforce`.

    References:
        Lin et al., Adversarial Ranking for Language Generation, NeurIPS 2017, https://arxiv.org/abs/1705.11001.
    """

    citation = """@inproceedings{lin2017rankgan,
  title = {Adversarial Ranking for Language Generation},
  author = {Lin, Kevin and Li, Dianqi and He, Xiaodong and Zhang, Zhengyou and Sun, Ming-Ting},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {30},
  year = {2017}
}"""

    def __init__(
        self,
        references: int = 16,
        gamma: float = 1.0,
        log_reward: bool = True,
        rollouts: int = 16,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(rollouts, baseline=baseline, **shared)
        if references < 1:
            raise UserError(f"references={references}", "at least 1 real sequence")
        if not 0 <= gamma < float("inf"):
            raise UserError(f"gamma={gamma}", "a number from 0 on", "0 tells nothing apart")
        self.references, self.gamma, self.log_reward = references, gamma, log_reward

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """Samples are compared with the real rows of all processes."""
        return super().credit(models, samples_of_processes(real.uncredited), fake)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """log R(Y | U, C) with C the real rows that are no references, shape (K,)."""
        of_real = judge(models.discriminator, real.uncredited, features)
        ranked = judge(models.discriminator, samples, features)
        log_rank = self.log_rank(ranked, *self._references(of_real))
        return log_rank if self.log_reward else log_rank.exp()

    def log_rank(self, ranked: Tensor, references: Tensor, others: Tensor) -> Tensor:
        """log R of each row of `ranked` (K, F), against references (U, F) and others (C, F), shape (K,)."""
        return _log_mean(self.log_odds(ranked, references, others))

    def log_odds(self, ranked: Tensor, references: Tensor, others: Tensor) -> Tensor:
        """Of each row's share in resemblance to each reference, shape (K, U); other shapes as in `log_rank`."""
        ranked, references, others = (F.normalize(rows, dim=1) for rows in (ranked, references, others))
        own = self.gamma * ranked @ references.T  # (K, U)
        rest = (self.gamma * others @ references.T).logsumexp(dim=0)  # (U,)
        return own - rest

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-E_real log R(. | U, C = fake) - E_fake log(1 - R(. | U, C = real)), averaged."""
        of_both = features(models.discriminator, Samples.concatenate([real.uncredited, fake.uncredited]))
        parts = of_both.float().split([real.batch_size, fake.batch_size])
        of_real, of_fake = (rows_of_processes(rows, differentiable=True) for rows in parts)
        references, ranked = self._references(of_real)
        log_real = self.log_rank(ranked, references, of_fake)
        fake_odds = self.log_odds(of_fake, references, ranked)
        log_rest = _log_mean(-fake_odds)  # log(1 - R), also where R rounds to 1
        loss = (-log_real.mean() - log_rest.mean()) / 2  # of all rows, on every process
        with torch.no_grad():
            metrics = {
                "rank_real": log_real.exp().mean(),
                "rank_fake": _log_mean(fake_odds).exp().mean(),
                "discriminator_loss": loss.detach(),
            }
        return Loss(loss + penalty(models.discriminator), metrics)

    def _references(self, of_real: Tensor) -> tuple[Tensor, Tensor]:
        if len(of_real) < 2:
            problem = "one real sequence in a batch for RankGAN"
            raise UserError(problem, "a reference and one beside it", "set larger batches")
        count = min(self.references, len(of_real) // 2)
        return of_real[:count], of_real[count:]


def _log_mean(log_odds: Tensor) -> Tensor:
    """The log of the mean over U of the shares with these log-odds (K, U), shape (K,)."""
    return F.logsigmoid(log_odds).logsumexp(dim=1) - torch.tensor(float(log_odds.shape[1])).log()
