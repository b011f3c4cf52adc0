"""JSDGAN: the Jensen-Shannon divergence from the training set itself, in closed form; a control."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from ..errors import UserError
from ..functional import masked_mean
from ..generation.likelihood import token_logprobs
from ..samples import Samples
from .base import Loss, Models, Objective
from .statistics import shared_softmax


class JSDGAN(Objective):
    """Descends JSD(P, G), where P gives each of the N training sequences 1/N and nothing to any other.

    The gradient is that of likelihood with a weight for each training sequence, G(Y) log(1 + 1 / (N G(Y))) / 2; the
    weights are computed as logarithms and normalised over the batch (of all processes), which scales the step. Long
    sequences differ by so many nats that the likeliest of a batch takes all: a control, not a way to train.

    Args:
        num_sequences: N; by default as many as there are, which has to be set where they are streamed.

    References:
        Li et al., Adversarial Discrete Sequence Generation without Explicit Neural Networks as Discriminators,
        AISTATS 2019, https://proceedings.mlr.press/v89/li19g.html.
    """

    citation = """@inproceedings{li2019adversarial,
  title = {Adversarial Discrete Sequence Generation without Explicit Neural Networks as Discriminators},
  author = {Li, Zhongliang and Xia, Tian and Lou, Xingyu and Xu, Kaihe and Wang, Shaojun and Xiao, Jing},
  booktitle = {Proceedings of the 22nd International Conference on Artificial Intelligence and Statistics},
  pages = {3089--3098},
  year = {2019}
}"""
    adversary = None
    draws = False

    def __init__(self, num_sequences: int | None = None):
        if num_sequences is not None and num_sequences < 1:
            raise UserError(f"num_sequences={num_sequences}", "the number of training sequences", "count them")
        self.num_sequences = num_sequences
        self._number = num_sequences or 1  # once the sequences are known, as many as there are

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse prompts: the law of what follows each has a single sequence."""
        super().check(models, batch_size, conditional)
        if conditional:
            raise UserError("prompts with JSDGAN", "whole sequences after the start token", "choose another objective")

    def check_sequences(self, models: Models, real: Samples | None) -> None:
        """Count them, unless their number was given; a UserError where neither can be."""
        if self.num_sequences is None and real is None:
            raise UserError("streamed text, which JSDGAN cannot count", "num_sequences", "set objective.num_sequences")
        self._number = self.num_sequences or real.batch_size

    def generator_loss(self, models: Models, real: Samples, fake: Samples | None) -> Loss:
        """-sum_i w_i log G(Y_i), the w_i constants that sum to 1."""
        tokens = token_logprobs(models.generator, real)
        logprobs = tokens.sum(dim=1)
        fixed = logprobs.detach()
        # log(1 + 1 / (N G)) = softplus(-log N - log G)
        weights = shared_softmax(fixed + F.softplus(-math.log(self._number) - fixed).log())
        metrics = {"nll_train": -masked_mean(tokens.detach(), real.mask), "largest_weight": weights.max()}
        return Loss(-torch.dot(weights, logprobs), metrics)
