"""Cooperative training: the opponent is a language model of the mixture of data and samples."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import masked_mean
from ..generation.likelihood import full_kl, weighted_nll
from ..samples import Samples
from .base import Loss, Models, Objective
from .reinforce import Baseline, Reinforce


class CoT(Objective):
    """The mediator M, a causal LM, learns the mixture of data and samples; G minimises its divergence from M.

    M maximises (E_P log M + E_G log M) / 2. G minimises sum_t KL(G_t || M_t) over the vocabulary, at the prefixes of
    its own samples, with no gradient through these. With the exact mixture as M that sum is KL(G || M) in the mean;
    its gradient is the part of the Jensen-Shannon divergence's that looks one token ahead.

    Args:
        credit: `myopic`, the paper's gradient; or `full`, which adds what a token does to the divergences after it,
            and is then that of 2 JSD(P, G) for an exact M.
        baseline: of the score term of `full`, see `Reinforce`.

    References:
        Lu et al., CoT: Cooperative Training for Generative Modeling of Discrete Data, ICML 2019,
        https://arxiv.org/abs/1804.03782.
    """

    citation = """@inproceedings{lu2019cot,
  title = {{CoT}: Cooperative Training for Generative Modeling of Discrete Data},
  author = {Lu, Sidi and Yu, Lantao and Feng, Siyuan and Zhu, Yaoming and Zhang, Weinan and Yu, Yong},
  booktitle = {Proceedings of the 36th International Conference on Machine Learning},
  pages = {4164--4172},
  year = {2019}
}"""
    adversary = "language_model"

    def __init__(self, credit: Literal["myopic", "full"] = "myopic", baseline: Baseline = "leave_one_out"):
        if credit not in ("myopic", "full"):
            raise UserError(f"credit={credit!r}", "myopic or full", "choose one")
        self.full = credit == "full"
        self.score = Reinforce(baseline)

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        super().check(models, batch_size, conditional)
        if self.full:
            self.score.check_baseline(batch_size)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """sum_t KL(G_t || M_t): a sum over tokens, a mean over B."""
        weights = torch.full_like(fake.ids, 1 / fake.batch_size, dtype=torch.float32)
        loss, divergences = full_kl(models.generator, models.discriminator, fake, weights)
        metrics = {"kl_mediator": divergences.sum(dim=1).mean()}
        if self.full:
            # E[log G(y_t) sum_{u > t} KL_u]: what the token leads to, by the score function
            later = divergences.flip(1).cumsum(dim=1).flip(1) - divergences
            advantages = self.score.advantages(models, later, fake)
            loss = loss - weighted_nll(models.generator, fake, advantages / fake.batch_size)[0]
        return Loss(loss, metrics)

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-(E_P log M + E_G log M) / 2: sums over tokens, so that sequences of both kinds count alike."""
        both, sizes = Samples.concatenate([real.uncredited, fake.uncredited]), [real.batch_size, fake.batch_size]
        weights = torch.cat([torch.full((size, 1), 0.5 / size) for size in sizes]).to(both.ids.device)
        loss, logprobs = weighted_nll(models.discriminator, both, weights.expand(both.ids.shape))
        (of_real, of_fake), (real_mask, fake_mask) = logprobs.split(sizes), both.mask.split(sizes)
        metrics: dict[str, Tensor | float] = {
            "nll_mediator_real": -masked_mean(of_real, real_mask),
            "nll_mediator_fake": -masked_mean(of_fake, fake_mask),
            "discriminator_loss": loss.detach(),
        }
        return Loss(loss, metrics)

    def state_dict(self) -> dict[str, Any]:
        return self.score.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score.load_state_dict(state)
