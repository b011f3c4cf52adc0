"""SeqGAN: the reward of a whole sequence is carried back to every token by Monte Carlo search."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..generation.memory import in_parts
from ..generation.rollouts import complete
from ..samples import Samples
from .reinforce import Baseline, Reinforce, sequence_rewards


class SeqGAN(Reinforce):
    """Policy gradient with action values from rollouts (SeqGAN, equation 4).

    Q(Y_1:t-1, y_t) is the mean of D over N completions of Y_1:t under the rollout policy, and D(Y) itself for t = T.

    Args:
        rollouts: N, completions of every prefix (16 in the paper).
        rollout_lag: the rollout policy is the generator itself (0), or an exponential moving average of it that keeps
            this share of its past at every generator step.
        max_rows: completions in flight at the same time; chosen by the size of the generator's cache by default. It
            bounds memory; results stay the same up to rounding, or, below the batch size, in distribution.
        baseline: see `Reinforce`; the paper has none.
        baseline_momentum: see `Reinforce`.

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
        baseline: Baseline = "none",
        baseline_momentum: float = 0.9,
    ):
        super().__init__(baseline, baseline_momentum)
        if rollouts < 1:
            raise UserError(
                f"rollouts={rollouts}",
                "at least 1 completion of each prefix",
                "set `objective.rollouts` (16 in the paper), or use the objective Reinforce, which needs none",
            )
        if not 0 <= rollout_lag < 1:
            raise UserError(f"rollout_lag={rollout_lag}", "a share in [0, 1)", "0 rolls out with the generator itself")
        if max_rows is not None and max_rows < 1:
            raise UserError(f"max_rows={max_rows}", "at least 1 row", "leave it out to have it chosen")
        self.rollouts = rollouts
        self.rollout_lag = rollout_lag
        self.max_rows = max_rows
        self.lagging: PreTrainedModel | None = None
        self.restored_weights: dict[str, Tensor] | None = None

    def action_values(self, generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples) -> Tensor:
        """Q(Y_1:t-1, y_t): the mean of D over completions of Y_1:t, shape (B, T), zero at padding."""
        rows = samples.batch_size
        at_once = min(self.max_rows or rows, rows)  # below that, every sequence has one completion in flight
        task = "rollouts of one prefix of every sequence"
        parts = in_parts(
            generator, task, rows, at_once, lambda part: self._values(generator, discriminator, samples.select(part))
        )
        return torch.cat(parts)

    def _values(self, generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples) -> Tensor:
        policy = self._rollout_policy(generator)
        totals = torch.zeros_like(samples.ids, dtype=torch.float32)
        for completions in complete(policy, samples, self.rollouts, max_rows=self.max_rows):
            rewards = sequence_rewards(discriminator, completions.samples)
            # the completions of Y_1:t value the action y_t, which stands in column t - 1
            totals.index_put_((completions.row, completions.prefix_length - 1), rewards, accumulate=True)
        values = totals / self.rollouts
        return values.scatter(1, samples.lengths[:, None] - 1, sequence_rewards(discriminator, samples)[:, None])

    def _rollout_policy(self, generator: PreTrainedModel) -> PreTrainedModel:
        if not self.rollout_lag:
            return generator
        if self.lagging is None:
            self.lagging = copy.deepcopy(generator).requires_grad_(False)
            if self.restored_weights is not None:
                self.lagging.load_state_dict(self.restored_weights)
        return self.lagging

    @torch.no_grad()
    def after_generator_step(self, generator: PreTrainedModel) -> None:
        if self.rollout_lag:
            for old, new in zip(self._rollout_policy(generator).parameters(), generator.parameters(), strict=True):
                old.lerp_(new, 1 - self.rollout_lag)

    def state_dict(self) -> dict[str, Any]:
        lagging = self.restored_weights if self.lagging is None else self.lagging.state_dict()
        return super().state_dict() | {"lagging": lagging}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.lagging, self.restored_weights = None, state["lagging"]
