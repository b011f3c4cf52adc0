"""A discriminator of pairs: which of two sequences that answer the same prompt is the real one? (Bradley and Terry)"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..generation.verdicts import realness
from ..samples import Samples
from .base import Loss, Models, penalty
from .reinforce import last_of


def pairwise_loss(models: Models, real: Samples, fake: Samples) -> Loss:
    """-log sigmoid(s(real) - s(fake)) of rows that answer each other, a mean over pairs.

    Only differences are learnt. At the optimum s is log p / G, up to a constant for each prompt.
    """
    both = Samples.concatenate([real.uncredited, fake.uncredited])
    scores = last_of(realness(models.discriminator, both).float(), both)
    of_real, of_fake = scores.split([real.batch_size, fake.batch_size])
    margin = of_real - of_fake
    loss = F.softplus(-margin).mean()
    metrics = {
        "discriminator_accuracy": (margin > 0).float().mean(),
        "discriminator_margin": margin.detach().mean(),
        "discriminator_loss": loss.detach(),
    }
    return Loss(loss + penalty(models.discriminator), metrics, weight=torch.tensor(float(len(margin))))
