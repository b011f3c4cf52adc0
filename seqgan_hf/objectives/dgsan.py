"""DGSAN: the discriminator is a ratio of densities, that of the generator and of an earlier one of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..generation.likelihood import token_logprobs
from ..generation.sampling import sample
from ..samples import Samples
from .base import Copy, Loss, Models, Objective


Divergence = Literal["jensen_shannon", "forward_kl", "reverse_kl", "chi_square", "squared_hellinger", "jeffreys"]
# With u = log G / G_old and r = e^u: f'(r), which real sequences gain, and r f'(r) - f(r), which those of G_old cost,
# both less f'(1). The mean gain less the mean cost is at most D_f(P || G_old), is that at G = P, and 0 at G = G_old.
Term = Callable[[Tensor], Tensor]
DIVERGENCES: dict[str, tuple[Term, Term]] = {
    "jensen_shannon": (lambda u: math.log(2) - F.softplus(-u), lambda u: F.softplus(u) - math.log(2)),  # 2 JSD
    "forward_kl": (lambda u: u, torch.expm1),  # KL(P || G_old)
    "reverse_kl": (lambda u: -torch.expm1(-u), lambda u: u),  # KL(G_old || P)
    "chi_square": (lambda u: 2 * torch.expm1(u), lambda u: torch.expm1(2 * u)),  # sum (P - G_old)^2 / G_old
    "squared_hellinger": (lambda u: -torch.expm1(-u / 2), lambda u: torch.expm1(u / 2)),  # sum (sqrt P - sqrt G_old)^2
    "jeffreys": (lambda u: u - torch.expm1(-u), lambda u: u + torch.expm1(u)),  # KL(P || G_old) + KL(G_old || P)
}


class DGSAN(Objective):
    """D = G / (G + G_old), with a snapshot G_old of the generator: what tells data from its samples is the next one.

    With u = log G - log G_old of a whole sequence, G minimises E_P softplus(-u) + E_G_old softplus(u), whose optimum
    is P. At G = G_old the gradient is half of maximum likelihood's; from there on a real sequence counts by D's doubt,
    sigmoid(-u), so that each may only become so much more likely before the next snapshot.

    Args:
        divergence: between data and snapshot, which the loss bounds from below; a name in `DIVERGENCES`.
        snapshot_every: generator steps until the snapshot is taken anew.

    References:
        Montahaei et al., DGSAN: Discrete Generative Self-Adversarial Network, 2019, https://arxiv.org/abs/1908.09127.
    """

    citation = """@article{montahaei2019dgsan,
  title = {{DGSAN}: Discrete Generative Self-Adversarial Network},
  author = {Montahaei, Ehsan and Alihosseini, Danial and Soleymani Baghshah, Mahdiyeh},
  journal = {arXiv preprint arXiv:1908.09127},
  year = {2019}
}"""
    adversary = None

    def __init__(self, divergence: Divergence = "jensen_shannon", snapshot_every: int = 100):
        if divergence not in DIVERGENCES:
            raise UserError(f"divergence={divergence!r}", f"one of {', '.join(DIVERGENCES)}", "choose one")
        if snapshot_every < 1:
            raise UserError(f"snapshot_every={snapshot_every}", "at least 1 generator step", "set it to an epoch's")
        self.divergence, self.snapshot_every = divergence, snapshot_every
        self.steps = 0

    def copies(self) -> dict[str, Copy]:
        return {"snapshot": Copy()}

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """Continuations of the real prompts that the snapshot writes."""
        return sample(models["snapshot"], real.prompt, max_new_tokens, prompt_mask=real.prompt_mask)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """E_G_old[cost(u)] - E_P[gain(u)]: means over sequences, of their whole log-probabilities."""
        gain, cost = DIVERGENCES[self.divergence]
        both = Samples.concatenate([real.uncredited, fake.uncredited])
        with torch.no_grad():
            old = token_logprobs(models["snapshot"], both)
        log_ratio = (token_logprobs(models.generator, both) - old).sum(dim=1)
        of_real, of_fake = log_ratio.split([real.batch_size, fake.batch_size])
        bound = gain(of_real).mean() - cost(of_fake).mean()
        metrics = {
            "divergence": bound.detach(),
            "log_ratio_real": of_real.detach().mean(),
            "log_ratio_snapshot": of_fake.detach().mean(),
        }
        return Loss(-bound, metrics)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        self.steps += 1
        if self.steps % self.snapshot_every == 0:
            models.refresh("snapshot")

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
