"""SeqGAN: the reward of a whole sequence is carried back to every token by Monte Carlo search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.memory import in_parts
from ..generation.rollouts import complete
from ..samples import Completions, Samples
from .base import Copy, Models
from .reinforce import Reinforce, last_of


class SeqGAN(Reinforce):
    """Policy gradient with action values from rollouts (SeqGAN, equation 4).

    Q(Y_1:t-1, y_t) is the mean of D over N completions of Y_1:t under the rollout policy, and D(Y) itself for t = T.

    Args:
        rollouts: N, completions of every prefix (16 in the paper); 0 credits every token with D(Y), as `Reinforce`.
        rollout_lag: the rollout policy is the generator itself (0), or an exponential moving average of it that keeps
            this share of its past at every generator step.
        max_rows: completions in flight at the same time; chosen by the size of the generator's cache by default. It
            bounds memory; results stay the same up to rounding, or, below the batch size, in distribution.
        shared: of `Reinforce`; the paper has no baseline.

    References:
        Yu et al., SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient, AAAI 2017,
        https://arxiv.org/abs/1609.05473.
    """

    citation = """@inproceedings{yu2017seqgan,
  title = {{SeqGAN}: Sequence Generative Adversarial Nets with Policy Gradient},
  author = {Yu, Lantao and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle = {Proceedings of the Thirty-First AAAI Conference on Artificial Intelligence},
  pages = {2852--2858},
  year = {2017}
}"""

    def __init__(
        self,
        rollouts: int = 16,
        rollout_lag: float = 0.0,
        max_rows: int | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        if rollouts < 0:
            raise UserError(f"rollouts={rollouts}", "a number of completions of each prefix", "0 draws none")
        if not 0 <= rollout_lag < 1:
            raise UserError(f"rollout_lag={rollout_lag}", "a share in [0, 1)", "0 rolls out with the generator itself")
        if max_rows is not None and max_rows < 1:
            raise UserError(f"max_rows={max_rows}", "at least 1 row", "leave it out to have it chosen")
        self.rollouts = rollouts
        self.rollout_lag = rollout_lag
        self.max_rows = max_rows

    def copies(self) -> dict[str, Copy]:
        lagging = {"rollout_policy": Copy(decay=self.rollout_lag)} if self.rollout_lag else {}
        return super().copies() | lagging

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """Q(Y_1:t-1, y_t): the mean reward of completions of Y_1:t, shape (B, T), zero at padding."""
        if not self.rollouts:
            return super().action_values(models, samples, real)
        rows = samples.batch_size
        at_once = min(self.max_rows or rows, rows)  # below that, every sequence has one completion in flight
        task = "rollouts of one prefix of every sequence"
        parts = in_parts(
            models.generator, task, rows, at_once, lambda part: self._values(models, samples.select(part), real)
        )
        return torch.cat(parts)

    def completions(self, models: Models, samples: Samples) -> Iterator[Completions]:
        """The rollouts: `rollouts` completions of every prefix under the rollout policy."""
        policy = models["rollout_policy"] if self.rollout_lag else models.generator
        return complete(policy, samples, self.rollouts, max_rows=self.max_rows)

    def _values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        totals = torch.zeros_like(samples.ids, dtype=torch.float32)
        for completions in self.completions(models, samples):
            rewards = last_of(self._earned(models, completions.samples, real), completions.samples)
            # the completions of Y_1:t value the action y_t, which stands in column t - 1
            totals.index_put_((completions.row, completions.prefix_length - 1), rewards, accumulate=True)
        last = last_of(self._earned(models, samples, real), samples)
        return (totals / self.rollouts).scatter(1, samples.lengths[:, None] - 1, last[:, None])
