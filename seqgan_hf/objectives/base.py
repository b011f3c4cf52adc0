"""The contract of an objective: what the generator is rewarded for, and how the gradient reaches it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import LongTensor, Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..functional import masked_mean
from ..generation.sampling import sample
from ..generation.verdicts import realness
from ..samples import Samples
from .statistics import shared_mean


class Loss(NamedTuple):
    """What an objective gives back: a scalar to differentiate, and values to log.

    Attributes:
        value: differentiable scalar, shape ().
        metrics: name to a number or a tensor of shape () (kept on the device until it is logged).
        weight: how much `value` counts when the batches of one step (of several processes, or accumulated) are
            averaged: the number of tokens for a mean over tokens; batches of equally many sequences all count 1.
    """

    value: Tensor
    metrics: dict[str, Tensor | float] = {}
    weight: Tensor | float = 1.0


class Objective(ABC):
    """One paper's way to train a generator against a discriminator.

    The arguments of `__init__` are its configuration, nothing else is. An objective returns losses; only the trainer
    steps optimizers. A subclass in your own file is named by its dotted path in a recipe.

    Attributes:
        citation: BibTeX of the paper; it goes into the model card.
        adversarial: whether it needs a discriminator and samples of the generator.
    """

    citation: ClassVar[str] = ""
    adversarial: ClassVar[bool] = True

    def sample(self, generator: PreTrainedModel, prompt: LongTensor, max_new_tokens: int, **options: Any) -> Samples:
        """Draw the sequences that a generator step learns from; `options` are those of `sampling.sample`."""
        return sample(generator, prompt, max_new_tokens, **options)

    @abstractmethod
    def generator_loss(
        self, generator: PreTrainedModel, discriminator: PreTrainedModel | None, real: Samples, fake: Samples | None
    ) -> Loss:
        """The loss of one generator step.

        Args:
            generator: in train mode.
            discriminator: its parameters are frozen meanwhile; `None` if the objective is not adversarial.
            real: a batch of training sequences.
            fake: what `sample` gave; `None` if the objective is not adversarial.
        """

    def discriminator_loss(self, discriminator: PreTrainedModel, real: Samples, fake: Samples) -> Loss:
        """Cross-entropy of telling real from generated sequences: -E_real log D - E_G log(1 - D) (SeqGAN, eq. 5).

        The two expectations are averaged, not summed. A discriminator with a method `regularization` has its result
        added. Sequences of both kinds go through the model together.
        """
        both = Samples.concatenate([real, fake])
        scores = realness(discriminator, both).float()
        counted = both.mask if scores.dim() == 2 else torch.ones_like(scores, dtype=torch.bool)
        of_real, of_fake = scores.split([real.batch_size, fake.batch_size])
        real_counted, fake_counted = counted.split([real.batch_size, fake.batch_size])
        # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
        loss = (shared_mean(F.softplus(-of_real), real_counted) + shared_mean(F.softplus(of_fake), fake_counted)) / 2
        with torch.no_grad():
            correct = (
                masked_mean((of_real > 0).float(), real_counted),
                masked_mean((of_fake < 0).float(), fake_counted),
            )
            metrics = {"discriminator_accuracy": (correct[0] + correct[1]) / 2, "discriminator_loss": loss.detach()}
        if hasattr(discriminator, "regularization"):
            loss = loss + discriminator.regularization()
        return Loss(loss, metrics)

    def after_generator_step(self, generator: PreTrainedModel) -> None:
        """Called after every generator step, for policies that lag behind."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
