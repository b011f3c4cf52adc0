"""What a discriminator knows: can it tell real text that it never saw from fresh samples?"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.reading import text_reader
from ..generation.likelihood import sequence_logprobs
from ..generation.verdicts import class_logits, judge, realness
from ..generation.vocabulary import suppressed_tokens
from ..objectives import Models, Objective
from ..samples import Samples
from .base import Evaluator
from .record import Estimate


def scores(models: Models, samples: Samples, classes: int = 2) -> Tensor:
    """How real the opponent finds each sequence, larger is more real, shape (N,).

    Log-odds of a classifier, the mean over tokens of one that judges each; log M - log G of a language model M, as the
    discriminator of the mixture of data and samples would be. Of more than two `classes`, all but the first are real.
    """
    discriminator = models.discriminator
    if discriminator.can_generate():
        return (sequence_logprobs(discriminator, samples) - sequence_logprobs(models.generator, samples)).float()
    if classes > 2:
        logits = judge(discriminator, samples, class_logits)
        return logits[:, 1:].logsumexp(dim=1) - logits[:, 0]
    values = judge(discriminator, samples, realness)
    return values if values.dim() == 1 else values.sum(dim=1) / samples.lengths  # which are zero at padding


def writable(generator: PreTrainedModel, held_out: Samples) -> Samples:
    """The sequences without a token that the generator never writes, or all if there is no such sequence.

    An unknown word would give them away, or count against them: either way it says nothing of what can be won.
    """
    never = torch.tensor(suppressed_tokens(generator), dtype=torch.long, device=held_out.ids.device)
    possible = ~(held_out.mask & torch.isin(held_out.ids, never)).any(dim=1)
    return held_out.select(possible) if possible.any() else held_out


def auc(real: Tensor, fake: Tensor) -> Estimate:
    """Area under the ROC curve: the chance that a real sequence scores higher than a generated one; ties count half.

    Of scores (N,) and (M,). Its standard error is that of DeLong et al. (1988), https://doi.org/10.2307/2531595.
    """
    above = _share_below(real, fake)  # of the generated ones, below each real one
    below = _share_below(-fake, -real)  # of the real ones, above each generated one
    error = math.sqrt(sum(float(part.var()) / len(part) for part in (above, below) if len(part) > 1))
    return Estimate.from_error(float(above.mean()), error).within(0.0, 1.0)


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    values, others = values.double(), others.double().sort().values
    sides = [torch.searchsorted(others, values, right=right).double() for right in (False, True)]
    return (sides[0] + sides[1]) / (2 * len(others))


class HeldOutVerdicts(Evaluator):
    """What decides how much can be won: the discriminator on real text that it has not seen, against fresh samples.

    `discriminator_auc_test` and `discriminator_accuracy_test` of held-out sequences, and `discriminator_auc_train` of
    training sequences: where the two part, the discriminator has memorised, and what it rewards is memory.

    Args:
        models: with the discriminator.
        objective: names its labels.
        held_out: sequences on which nothing is trained, and which the generator could write (`writable`).
        train: training sequences.
    """

    def __init__(self, models: Models, objective: Objective, held_out: Samples, train: Samples):
        self.models, self.classes, self.held_out, self.train = models, len(objective.labels), held_out, train

    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        samples = samples.uncredited
        fake, held_out, train = (scores(self.models, s, self.classes) for s in (samples, self.held_out, self.train))
        right = int((held_out > 0).sum()) / len(held_out), int((fake <= 0).sum()) / len(fake)
        error = math.sqrt(sum(p * (1 - p) / len(s) for p, s in zip(right, (held_out, fake), strict=True))) / 2
        found = {
            "discriminator_auc_test": auc(held_out, fake),
            "discriminator_accuracy_test": Estimate.from_error(sum(right) / 2, error).within(0.0, 1.0),
            "discriminator_auc_train": auc(train, fake),
        }
        reads = "text" if text_reader(self.models.discriminator) else "ids"
        drawn = f"reads:{reads}|samples:{len(fake)}|held_out:{len(held_out)}|temperature:1|seed:{seed}"
        return {name: replace(estimate, signature=f"{drawn}|version:2") for name, estimate in found.items()}
