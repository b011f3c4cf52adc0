"""PG-BLEU: the reward is a sentence's BLEU against real ones, a control that shows a metric being gamed."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.vocabulary import special_tokens
from ..samples import Samples
from .base import Credit, Models
from .reinforce import Baseline, Reinforce
from .seqgan import SeqGAN
from .statistics import samples_of_processes


class PGBLEU(Reinforce):
    """Every token earns the BLEU of its sequence, on token ids, against the first rows of the real batch.

    Args:
        max_n: longest n-gram; weights are uniform.
        references: real sequences that each sample is compared with.
        baseline, shared: see `Reinforce`.

    References:
        Yu et al., SeqGAN, AAAI 2017 (the baseline of section 4.3); sentence BLEU with an epsilon of 0.1 in place of a
        count of zero: Chen and Cherry, A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU, 2014.
    """

    adversary = None
    citation = SeqGAN.citation

    def __init__(self, max_n: int = 3, references: int = 20, baseline: Baseline = "leave_one_out", **shared: Any):
        super().__init__(baseline, **shared)
        if max_n < 1 or references < 1:
            raise UserError(f"max_n={max_n}, references={references}", "at least 1 of both")
        self.max_n, self.references = max_n, references

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """The references are the first real rows of all processes."""
        return super().credit(models, samples_of_processes(real.uncredited), fake)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """BLEU of each continuation without its end token, shape (K,)."""
        ends = set(special_tokens(models.generator)[0])
        references = _tokens(real.select(slice(0, self.references)), ends)
        lengths = [len(reference) for reference in references]
        most: list[Counter] = []
        for n in range(1, self.max_n + 1):
            most.append(Counter())
            for reference in references:
                most[-1] |= _ngrams(reference, n)
        found = [_bleu(tokens, most, lengths) for tokens in _tokens(samples, ends)]
        return torch.tensor(found, device=samples.ids.device)


def _tokens(samples: Samples, ends: set[int]) -> list[list[int]]:
    """The tokens of each continuation; an end token is no word, and every text would match it."""
    rows = [ids[:length] for ids, length in zip(samples.ids.tolist(), samples.lengths.tolist(), strict=True)]
    return [row[:-1] if row and row[-1] in ends else row for row in rows]


def _ngrams(tokens: list[int], n: int) -> Counter:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _bleu(tokens: list[int], most: list[Counter], lengths: list[int]) -> float:
    """Geometric mean of the clipped precisions, times the brevity penalty to the closest reference."""
    logs = 0.0
    for n, highest in enumerate(most, start=1):
        ngrams = _ngrams(tokens, n)
        matches = sum(min(count, highest[ngram]) for ngram, count in ngrams.items())
        if n == 1 and matches == 0:
            return 0.0
        logs += math.log((matches or 0.1) / max(1, ngrams.total())) / len(most)
    closest = min(lengths, key=lambda length: (abs(length - len(tokens)), length))
    return math.exp(logs + min(0.0, 1 - closest / len(tokens)))
