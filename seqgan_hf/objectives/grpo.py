"""GRPO: samples of one prompt are compared with each other, and the policy moves within a clipped ratio."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.likelihood import token_logprobs
from ..samples import Samples
from .base import Copy, Credit, Loss, Models
from .groups import check_groups, in_groups, repeat_prompts
from .ratios import Level, check_clipping, clipped
from .reinforce import Reinforce
from .statistics import rows_of_processes


class GRPO(Reinforce):
    """Advantages relative to the other samples of the same prompt: A = (r - mean) / std.

    Without conditions every prompt is the same, and the batches of all processes are one group.

    Args:
        group_size: samples of each prompt, in consecutive rows; the batch holds B / group_size prompts. It divides B
            without conditions, too, so that settings mean one thing for both kinds of data.
        scale: divide by the group's standard deviation (n - 1, plus 1e-4).
        clip, clip_high: how far the ratio to the policy that drew the samples may go below and above 1.
        kl: weight of the divergence from the generator that the objective began with.
        kl_in: `reward`, whose expected gradient is that of KL(G || reference); or `loss`, the estimator k3 of the
            paper, whose expected gradient is that of KL(reference || G).
        level: whether ratios are those of tokens or of sequences.
        length_normalized: divide by the sequence's length, as the paper does.
        updates: generator steps on one batch of samples.
        likelihood_weight: see `Reinforce`.

    References:
        Shao et al., DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models, 2024,
        https://arxiv.org/abs/2402.03300 (section 4.1).
    """

    citation = """@article{shao2024deepseekmath,
  title = {{DeepSeekMath}: Pushing the Limits of Mathematical Reasoning in Open Language Models},
  author = {Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and Bi, Xiao and Zhang, Haowei and Zhang, Mingchuan and Li, Y. K. and Wu, Y. and Guo, Daya},
  journal = {arXiv preprint arXiv:2402.03300},
  year = {2024}
}"""  # noqa: E501

    def __init__(
        self,
        group_size: int = 8,
        scale: bool = True,
        clip: float = 0.2,
        clip_high: float | None = None,
        kl: float = 0.0,
        kl_in: Literal["reward", "loss"] = "reward",
        level: Level = "token",
        length_normalized: bool = False,
        updates: int = 1,
        likelihood_weight: float = 0.0,
    ):
        super().__init__(likelihood_weight=likelihood_weight, kl=kl)
        check_clipping(clip, clip_high, level, updates)
        if group_size < 2:
            raise UserError(f"group_size={group_size}", "at least 2 samples of each prompt", "8 is usual")
        if kl_in not in ("reward", "loss"):
            raise UserError(f"kl_in={kl_in!r}", "reward or loss", "choose one")
        self.group_size, self.scale = group_size, scale
        self.clip, self.clip_high, self.level = clip, clip_high, level
        self.kl, self.kl_loss = (kl, 0.0) if kl_in == "reward" else (0.0, kl)
        self.length_normalized = length_normalized
        self.updates = updates
        self.conditional = False  # `check` is told; one batch does not show it

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        super().check(models, batch_size, conditional)
        check_groups("group_size", self.group_size, batch_size)
        self.conditional = conditional

    def copies(self) -> dict[str, Copy]:
        return {"reference": Copy()} if self.kl or self.kl_loss else {}

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """`group_size` continuations of each of the first B / group_size prompts."""
        return super().sample(models, self._grouped(real), max_new_tokens)

    def fakes(self, models: Models, prompts: Samples, max_new_tokens: int) -> Samples:
        """One continuation of every prompt."""
        return super().sample(models, prompts, max_new_tokens)

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """Row i of the real batch goes with row i of the samples: both have the same prompt."""
        return super().credit(models, self._grouped(real), fake)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """What a sequence earns beside its group, the same for all of its tokens."""
        if self.conditional:
            own = group = in_groups(values[:, 0], self.group_size)
        else:
            own, group = values[None, :, 0], rows_of_processes(values[:, 0])[None]
        relative = self.relative(own, group).flatten()[:, None]
        if self.length_normalized:
            relative = relative / samples.lengths[:, None]
        return relative.expand_as(values)

    def relative(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """(r - mean) / std of rewards (groups, K), beside all that are in their groups, (groups, size)."""
        centred = rewards - groups.mean(dim=1, keepdim=True)
        if not self.scale or groups.shape[1] < 2:
            return centred
        return centred / (groups.std(dim=1, keepdim=True) + 1e-4)

    def spread(self, rewards: Tensor, samples: Samples) -> Tensor:
        """With prompts the mean over groups of the standard deviation within each."""
        if not self.conditional:
            return super().spread(rewards, samples)
        return in_groups(rewards, self.group_size).std(dim=1, unbiased=False).mean()

    def token_weights(self, models: Models, advantages: Tensor, logprobs: Tensor, samples: Samples) -> Tensor:
        """The clipped ratio times the advantage."""
        return clipped(advantages, logprobs, samples, self.clip, self.clip_high, self.level)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """As `Reinforce`; a price in the loss adds the weight that has the gradient of k3, and is logged."""
        if not self.kl_loss:
            return super().generator_loss(models, real, fake)
        with torch.no_grad():
            logprobs = token_logprobs(models.generator, fake)
        ratio = token_logprobs(models["reference"], fake) - logprobs
        penalty = self.kl_loss * torch.expm1(ratio)
        if self.length_normalized:
            penalty = penalty / fake.lengths[:, None]
        weights = self.token_weights(models, fake.advantages, logprobs, fake) + penalty
        loss = self._weighted(models, real, fake, weights)
        return loss._replace(metrics={**loss.metrics, "kl_reference": -ratio.sum(dim=1).mean()})

    def _grouped(self, real: Samples) -> Samples:
        return repeat_prompts(real, self.group_size) if self.conditional else real
