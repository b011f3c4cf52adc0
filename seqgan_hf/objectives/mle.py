"""Maximum likelihood, with optional scheduled sampling."""

from __future__ import annotations

from typing import Any, Literal

import torch

from ..errors import UserError
from ..generation.likelihood import weighted_nll
from ..generation.sampling import mix_in_own_tokens
from ..samples import Samples
from .base import Loss, Models, Objective


class MLE(Objective):
    """Maximise log G of the training sequences: how every text GAN is pretrained, and the baseline it has to beat.

    Args:
        scheduled_sampling: the probability that the generator reads a token of its own instead of the real one, once
            it has grown linearly from zero; 0 is plain maximum likelihood (teacher forcing).
        scheduled_sampling_steps: generator steps until that probability is reached.

    References:
        Bengio et al., Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks, NeurIPS 2015.
    """

    adversary = None
    draws = False

    def __init__(self, scheduled_sampling: float = 0.0, scheduled_sampling_steps: int = 10_000):
        if not 0 <= scheduled_sampling <= 1:
            raise UserError(f"scheduled_sampling={scheduled_sampling}", "a probability in [0, 1]", "0 is plain MLE")
        if scheduled_sampling_steps < 1:
            raise UserError(f"scheduled_sampling_steps={scheduled_sampling_steps}", "at least 1 step")
        self.scheduled_sampling = scheduled_sampling
        self.scheduled_sampling_steps = scheduled_sampling_steps
        self.steps = 0

    def generator_loss(self, models: Models, real: Samples, fake: Samples | None) -> Loss:
        """Mean of -log G over the batch's tokens, in nats."""
        read = None
        if self.scheduled_sampling:
            probability = self.scheduled_sampling * min(1.0, self.steps / self.scheduled_sampling_steps)
            read = mix_in_own_tokens(models.generator, real, probability)
        tokens = real.mask.sum()
        weights = torch.ones_like(real.ids) / tokens
        loss, _ = weighted_nll(models.generator, real, weights, read)
        return Loss(loss, {"nll_train": loss.detach()}, weight=tokens)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
