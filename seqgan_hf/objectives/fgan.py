"""f-divergences: which reward makes the policy gradient descend which divergence between data and generator."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..generation.verdicts import judge
from ..samples import Samples
from .base import Models
from .reinforce import Baseline, last_of
from .seqgan import SeqGAN


Divergence = Literal[
    "forward_kl",
    "reverse_kl",
    "half_forward_kl",
    "jensen_shannon",
    "log_verdict",
    "squared_hellinger",
    "total_variation",
    "chi_square",
    "reverse_chi_square",
]
# With s = log p/G the log-odds of an optimal discriminator and r = e^s, D_f(P || G) has the reward r f'(r) - f(r).
REWARDS = {
    "forward_kl": torch.exp,  # KL(P || G); MaliGAN's
    "reverse_kl": lambda s: s,  # KL(G || P); GAD's
    "half_forward_kl": torch.sigmoid,  # KL(P || (P + G) / 2); SeqGAN's
    "jensen_shannon": F.softplus,  # 2 JSD(P, G): -log(1 - D)
    "log_verdict": F.logsigmoid,  # KL(G || P) - 2 JSD(P, G): log D
    "squared_hellinger": lambda s: torch.exp(s / 2),  # sum (sqrt P - sqrt G)^2
    "total_variation": lambda s: torch.sign(s) / 2,  # sum |P - G| / 2
    "chi_square": lambda s: torch.exp(2 * s),  # sum (P - G)^2 / G
    "reverse_chi_square": lambda s: -2 * torch.exp(-s),  # sum (P - G)^2 / P
}


class FGAN(SeqGAN):
    """The reward whose expected policy gradient, for the optimal D, is that of the named divergence.

    Rewards that grow like r cover the data's modes, with much variance; those that grow like log r seek them.

    Args:
        divergence: what is minimised, a name in `REWARDS`.
        clip: log-odds are cut off at plus and minus this.
        rollouts: see `SeqGAN`; 0 credits every token with the whole sequence's reward.
        baseline, shared: see `Reinforce`.

    References:
        Nowozin et al., f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization, NeurIPS
        2016, https://arxiv.org/abs/1606.00709. The rewards: docs/methods/fgan.md.
    """

    citation = """@inproceedings{nowozin2016fgan,
  title = {f-{GAN}: Training Generative Neural Samplers using Variational Divergence Minimization},
  author = {Nowozin, Sebastian and Cseke, Botond and Tomioka, Ryota},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {29},
  year = {2016}
}"""

    def __init__(
        self,
        divergence: Divergence = "reverse_kl",
        clip: float = 10.0,
        rollouts: int = 0,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(rollouts, baseline=baseline, **shared)
        if divergence not in REWARDS:
            raise UserError(f"divergence={divergence!r}", f"one of {', '.join(REWARDS)}", "choose one")
        if not 0 < clip <= 40:
            raise UserError(f"clip={clip}", "log-odds in (0, 40]", "10 is a good start")
        self.divergence, self.clip = divergence, clip

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """r f'(r) - f(r) up to a constant, shape (K,)."""
        log_odds = last_of(judge(models.discriminator, samples), samples).clamp(-self.clip, self.clip)
        return REWARDS[self.divergence](log_odds)
