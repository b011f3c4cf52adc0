"""Policy gradient with one terminal reward per sequence, and the baselines that lower its variance."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..functional import masked_mean
from ..generation.likelihood import weighted_nll
from ..generation.verdicts import rewards
from ..samples import Samples
from .base import Loss, Objective
from .statistics import sum_over_processes


Baseline = Literal["none", "moving_average", "batch", "leave_one_out"]
BASELINES: tuple[str, ...] = ("none", "moving_average", "batch", "leave_one_out")


class Reinforce(Objective):
    """REINFORCE: every token of a sequence is credited with D's verdict on the whole of it.

    Subclasses change `action_values`, and nothing else, to spread that verdict over the tokens.

    Args:
        baseline: what is subtracted from the action values at each position, over the sequences that reach it:
            `none` (the paper's), `moving_average` of the past batches' means, the `batch` mean (which is slightly
            biased, as a sequence is part of its own mean), or the mean of the other sequences (`leave_one_out`).
        baseline_momentum: share of the past in the moving average.

    References:
        Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, 1992.
    """

    citation = """@article{williams1992simple,
  title = {Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning},
  author = {Williams, Ronald J.},
  journal = {Machine Learning},
  volume = {8},
  pages = {229--256},
  year = {1992}
}"""

    def __init__(self, baseline: Baseline = "none", baseline_momentum: float = 0.9):
        if baseline not in BASELINES:
            raise UserError(f"baseline={baseline!r}", f"one of {', '.join(BASELINES)}", "choose one")
        if not 0 <= baseline_momentum < 1:
            raise UserError(f"baseline_momentum={baseline_momentum}", "a share in [0, 1)", "0 forgets the past")
        self.baseline = baseline
        self.baseline_momentum = baseline_momentum
        self.moving_average: Tensor | None = None  # (T,)

    def action_values(self, generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples) -> Tensor:
        """Q(Y_1:t-1, y_t), the reward expected after token y_t, without gradient, shape (B, T)."""
        return sequence_rewards(discriminator, samples)[:, None].expand_as(samples.ids)

    def generator_loss(
        self, generator: PreTrainedModel, discriminator: PreTrainedModel | None, real: Samples, fake: Samples | None
    ) -> Loss:
        """-sum_t E[log G(y_t | Y_1:t-1) (Q(Y_1:t-1, y_t) - b_t)] (SeqGAN, eq. 7): a sum over tokens, a mean over B."""
        values = self.action_values(generator, discriminator, fake)
        advantages = values - self._baseline(values, fake)
        loss, logprobs = weighted_nll(generator, fake, advantages / fake.batch_size)
        last = values.gather(1, fake.lengths[:, None] - 1)
        metrics = {
            "reward": last.mean(),
            "reward_std": last.std(unbiased=False),
            "action_value": masked_mean(values, fake.mask),
            "nll_policy": -masked_mean(logprobs, fake.mask),
        }
        return Loss(loss, metrics)

    def _baseline(self, values: Tensor, samples: Samples) -> Tensor:
        """b_t, broadcastable to (B, T), from the sequences of all processes."""
        if self.baseline == "none":
            return torch.zeros_like(values)
        # a reward that is no number leaves its own step out; it must not stay in the average for ever
        mask = samples.mask & values.isfinite()
        counts, sums = sum_over_processes(
            torch.stack([mask.sum(dim=0).to(values), values.masked_fill(~mask, 0.0).sum(dim=0)])
        )
        if self.baseline == "leave_one_out":
            # a sequence that is alone at a position has no others to be compared with: it gets no signal there
            others = (sums - values) / (counts - 1).clamp(min=1)
            return torch.where(counts > 1, others, values)
        mean = sums / counts.clamp(min=1)
        if self.baseline == "batch":
            return mean
        past = mean if self.moving_average is None else self.moving_average.to(mean)
        self.moving_average = torch.where(counts > 0, past.lerp(mean, 1 - self.baseline_momentum), past)
        return past

    def state_dict(self) -> dict[str, Any]:
        return {"moving_average": self.moving_average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moving_average = state["moving_average"]


def sequence_rewards(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """D(Y) of whole sequences, shape (B,); of a discriminator that judges every token, its verdict at the last one."""
    values = rewards(discriminator, samples)
    return values if values.dim() == 1 else values.gather(1, samples.lengths[:, None] - 1).squeeze(1)
