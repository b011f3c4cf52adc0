"""TextGAIL: a discriminator of pairs, human text among the samples, and PPO."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.likelihood import token_logprobs
from ..generation.verdicts import judge
from ..samples import Samples
from .base import Credit, Loss, Models
from .pairwise import pairwise_loss
from .ratios import Level, check_clipping, clipped
from .reinforce import Reinforce, last_of
from .statistics import place_of_rows, samples_of_processes, sum_over_processes


# Running moments of the reward: what a row leaves of the past, and how far a normalised reward may go.
MOMENTUM, LARGEST, EPSILON = 0.9, 2.0, 1e-5


class TextGAIL(Reinforce):
    """The reward sigma(s(fake) - s(real)) of a pair, normalised by running moments; PPO on the ratio of sequences.

    A share of the rows is human text with the highest advantage, which falls to nothing: imitation that fades out.

    Args:
        demonstrations: share of human rows at the beginning.
        demonstration_steps: generator steps until it is zero.
        demonstration_advantage: what every token of human text is credited with.
        clip, clip_high, level: see `GRPO`.
        updates: generator steps on one batch of samples.
        likelihood_weight, kl: see `Reinforce`; the paper has neither.

    References:
        Wu et al., TextGAIL: Generative Adversarial Imitation Learning for Text Generation, AAAI 2021,
        https://arxiv.org/abs/2004.13796.
    """

    citation = """@inproceedings{wu2021textgail,
  title = {{TextGAIL}: Generative Adversarial Imitation Learning for Text Generation},
  author = {Wu, Qingyang and Li, Lei and Yu, Zhou},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {35},
  pages = {14067--14075},
  year = {2021}
}"""
    paired: ClassVar[bool] = True

    def __init__(
        self,
        demonstrations: float = 0.3,
        demonstration_steps: int = 1000,
        demonstration_advantage: float = 2.0,
        clip: float = 0.2,
        clip_high: float | None = None,
        level: Level = "sequence",
        updates: int = 4,
        likelihood_weight: float = 0.0,
        kl: float = 0.0,
    ):
        super().__init__(likelihood_weight=likelihood_weight, kl=kl)
        check_clipping(clip, clip_high, level, updates)
        if not 0 <= demonstrations <= 1:
            raise UserError(f"demonstrations={demonstrations}", "a share in [0, 1]", "0 leaves human text out")
        if not math.isfinite(demonstration_advantage):
            raise UserError(f"demonstration_advantage={demonstration_advantage}", "a number", "2 is the paper's")
        if demonstration_steps < 1:
            raise UserError(f"demonstration_steps={demonstration_steps}", "at least 1 step")
        self.demonstrations, self.demonstration_steps = demonstrations, demonstration_steps
        self.demonstration_advantage = demonstration_advantage
        self.clip, self.clip_high, self.level = clip, clip_high, level
        self.updates = updates
        self.mean = self.square = 0.0
        self.steps = 0

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """sigma(s(fake) - s(real)) of row i beside row i, shape (B,)."""
        of_fake, of_real = (last_of(judge(models.discriminator, rows.uncredited), rows) for rows in (samples, real))
        return (of_fake - of_real).sigmoid()

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """Normalised by running moments of the rewards of all processes, within plus and minus 2."""
        rewards = values[:, 0]
        moments = torch.stack([torch.ones_like(rewards), rewards, rewards.square()]).sum(dim=1)
        rows, total, squares = sum_over_processes(moments.double()).tolist()
        kept = MOMENTUM**rows
        self.mean = kept * self.mean + (1 - kept) * total / rows
        self.square = kept * self.square + (1 - kept) * squares / rows
        deviation = max(self.square - self.mean**2, EPSILON) ** 0.5
        return ((values - self.mean) / deviation).clamp(-LARGEST, LARGEST)

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """Advantages of the samples; the first human texts of all processes take the place of the last rows of all."""
        samples, metrics = super().credit(models, real, fake)
        share = self.demonstrations * max(0.0, 1 - self.steps / self.demonstration_steps)
        before, rows = place_of_rows(samples.batch_size, samples.ids.device)
        kept = rows - round(share * rows)
        if kept == rows:
            return Credit(samples, metrics)
        texts, own = samples_of_processes(real.uncredited), min(max(kept - before, 0), samples.batch_size)
        if own == samples.batch_size:  # other processes show them
            return Credit(samples, metrics)
        shown = texts.select(slice(before + own - kept, before + samples.batch_size - kept))
        shown = shown._replace(
            advantages=torch.full_like(shown.ids, self.demonstration_advantage, dtype=torch.float32)
        )
        if samples.logprobs is not None:
            shown = shown._replace(logprobs=token_logprobs(models.generator, shown))
        return Credit(Samples.concatenate([samples.select(slice(0, own)), shown]), metrics)

    def token_weights(self, models: Models, advantages: Tensor, logprobs: Tensor, samples: Samples) -> Tensor:
        """The clipped ratio times the advantage."""
        return clipped(advantages, logprobs, samples, self.clip, self.clip_high, self.level)

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """See `pairwise_loss`."""
        return pairwise_loss(models, real, fake)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        self.steps += player == "generator"

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"mean": self.mean, "square": self.square, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.mean, self.square, self.steps = state["mean"], state["square"], state["steps"]
