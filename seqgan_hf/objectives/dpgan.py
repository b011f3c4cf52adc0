"""DPGAN: a language model as the opponent rewards what it did not expect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import discounted, masked_mean
from ..generation.likelihood import token_logprobs, weighted_nll
from ..samples import BoolTensor, Samples
from .base import Loss, Models
from .reinforce import Baseline, Reinforce


class DPGAN(Reinforce):
    """A token earns its surprise -log q under a language model q that learns the generated text.

    A_t = mean_s(r_s) * sum over s >= t of discount^(s-t) r_s. With q = G and the plain sum, the expected gradient is
    that of the generator's entropy: the reward is novelty, and maximum likelihood beside it has to keep the text real.

    Args:
        real_weight: of real text in q's loss, where it counts negatively; 0 makes q a language model of the samples.
        max_reward: nats at which the surprise of a token is cut off.
        discount: of later rewards.
        likelihood_weight: see `Reinforce`.
        baseline, shared: see `Reinforce`; the paper has no baseline.

    References:
        Xu et al., Diversity-Promoting GAN: A Cross-Entropy Based Generative Adversarial Network for Diversified Text
        Generation, EMNLP 2018, https://aclanthology.org/D18-1428.
    """

    citation = """@inproceedings{xu2018dpgan,
  title = {Diversity-Promoting {GAN}: A Cross-Entropy Based Generative Adversarial Network for Diversified Text Generation},
  author = {Xu, Jingjing and Ren, Xuancheng and Lin, Junyang and Sun, Xu},
  booktitle = {Proceedings of the 2018 Conference on Empirical Methods in Natural Language Processing},
  pages = {3940--3949},
  year = {2018}
}"""  # noqa: E501
    adversary = "language_model"

    def __init__(
        self,
        real_weight: float = 1e-4,
        max_reward: float = 12.0,
        discount: float = 1.0,
        likelihood_weight: float = 1.0,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(baseline, likelihood_weight=likelihood_weight, **shared)
        if not 0 <= real_weight < float("inf"):
            raise UserError(f"real_weight={real_weight}", "a number from 0 on", "0 leaves real text out")
        if not max_reward > 0:
            raise UserError(f"max_reward={max_reward}", "a positive number of nats", "12 is a good start")
        if not 0 <= discount <= 1:
            raise UserError(f"discount={discount}", "a number in [0, 1]", "1 is TextGAN-PyTorch's")
        self.real_weight, self.max_reward, self.discount = real_weight, max_reward, discount

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """-log q(y_t | Y_1:t-1) in nats, at most `max_reward`, shape (K, T), zero at padding."""
        return -token_logprobs(models.discriminator, samples).clamp(min=-self.max_reward)

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """The mean reward of the sequence times the return of the token, shape (B, T)."""
        rewards = self._earned(models, samples, real, of_tokens=True)
        means = rewards.sum(dim=1, keepdim=True) / samples.lengths[:, None]
        return means * discounted(rewards, samples.mask, self.discount)

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-log q of generated text, less `real_weight` times that of real text: means over tokens, then sequences."""
        both = Samples.concatenate([real.uncredited, fake.uncredited])
        signs = [-self.real_weight / real.batch_size] * real.batch_size + [1 / fake.batch_size] * fake.batch_size
        weights = torch.tensor(signs, device=both.ids.device)[:, None] / both.lengths[:, None]
        loss, logprobs = weighted_nll(models.discriminator, both, weights.expand(both.ids.shape))
        rows = [real.batch_size, fake.batch_size]
        masks: tuple[BoolTensor, ...] = both.mask.split(rows)
        of_real, of_fake = (-masked_mean(part, mask) for part, mask in zip(logprobs.split(rows), masks, strict=True))
        metrics = {"nll_opponent_real": of_real, "nll_opponent_fake": of_fake, "discriminator_loss": loss.detach()}
        return Loss(loss, metrics)
