"""SentiGAN: a penalty on probabilities, and a discriminator that also tells which class real text has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..functional import masked_mean
from ..generation.likelihood import token_logprobs
from ..generation.verdicts import class_logits, judge
from ..samples import Samples
from .base import Loss, Models, penalty
from .classes import Classes, check_classes, check_names, check_prompts, class_of
from .seqgan import SeqGAN
from .statistics import shared_mean


class SentiGAN(SeqGAN):
    """Minimises sum_t G(y_t | Y_1:t-1) V_t, where the penalty V = 1 - D_k is carried back to tokens by rollouts.

    It is the probability that is weighed, not its logarithm: even a constant penalty drives the generator, namely to
    be uniform. With `classes` one generator serves them all, told by a token of its prompt which one to write; D has a
    label for generated text and one for each class.

    Args:
        classes: the tokens that name them in a prompt (or their ids, where there is no text); none: D has two labels.
        rollouts, rollout_lag, max_rows: see `SeqGAN`.
        likelihood_weight, kl: see `Reinforce`; a baseline would change the objective.

    Raises:
        UserError: a class that is no token of the tokenizer, or a prompt that does not hold one.

    References:
        Wang and Wan, SentiGAN: Generating Sentimental Texts via Mixture Adversarial Networks, IJCAI 2018,
        https://doi.org/10.24963/ijcai.2018/618.
    """

    citation = """@inproceedings{wang2018sentigan,
  title = {{SentiGAN}: Generating Sentimental Texts via Mixture Adversarial Networks},
  author = {Wang, Ke and Wan, Xiaojun},
  booktitle = {Proceedings of the Twenty-Seventh International Joint Conference on Artificial Intelligence},
  pages = {4446--4452},
  year = {2018}
}"""

    def __init__(
        self,
        classes: Classes = None,
        rollouts: int = 16,
        rollout_lag: float = 0.0,
        max_rows: int | None = None,
        likelihood_weight: float = 0.0,
        kl: float = 0.0,
    ):
        super().__init__(rollouts, rollout_lag, max_rows, likelihood_weight=likelihood_weight, kl=kl)
        check_names(classes)
        self.classes = classes
        if classes:
            self.labels = ("FAKE", *map(str, classes))

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse class names that are no tokens, prompts that cannot name one, and a discriminator of other labels."""
        super().check(models, batch_size, conditional)
        check_classes(self.classes, models, conditional)
        if self.classes and (labels := models.discriminator.config.num_labels) != len(self.labels):
            problem = f"a discriminator of {labels} labels for {len(self.classes)} classes"
            expected = f"{len(self.labels)} labels: of generated text, and of each class"
            raise UserError(problem, expected, "set `num_labels` in its config")

    def check_sequences(self, models: Models, real: Samples | None) -> None:
        """Refuse a class that no prompt names, and a prompt that names none or several."""
        if real is not None:
            check_prompts(self.classes, models, real)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """-(1 - D_k), D_k the probability of being real, and of the class that the prompt names, shape (K,)."""
        if not self.classes:
            return super().reward(models, samples, real) - 1
        verdicts = judge(models.discriminator, samples, class_logits).softmax(dim=1)
        return verdicts.gather(1, 1 + class_of(self.classes, models, samples)[:, None]).squeeze(1) - 1

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """-V_t G(y_t | Y_1:t-1), whose product with grad log G is the gradient of the penalised probability."""
        return values * token_logprobs(models.generator, samples).exp()

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-E_fake log D_0 - sum over classes of E_real log D_k, averaged over the labels."""
        if not self.classes:
            return super().discriminator_loss(models, real, fake)
        both = Samples.concatenate([real.uncredited, fake.uncredited])
        labels = 1 + class_of(self.classes, models, both)
        labels[real.batch_size :] = 0
        logits = class_logits(models.discriminator, both).float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        each = [shared_mean(losses, labels == label) for label in range(len(self.labels))]
        loss = torch.stack(each).mean()
        with torch.no_grad():
            correct = (logits.argmax(dim=1) == labels).float()
            accuracy = torch.stack([masked_mean(correct, labels == label) for label in labels.unique()]).mean()
            metrics = {"discriminator_accuracy": accuracy, "discriminator_loss": loss.detach()}
        return Loss(loss + penalty(models.discriminator), metrics)
