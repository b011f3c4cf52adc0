"""BLEU of samples against *all* reference texts.

Papineni et al. (2002), https://aclanthology.org/P02-1040, with smoothing method 1 of Chen and Cherry (2014),
https://aclanthology.org/W14-3346; of a text GAN in Yu et al. (2017), https://arxiv.org/abs/1609.05473, and, with these
settings, in Texygen (Zhu et al., 2018), https://arxiv.org/abs/1802.01886.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UserError
from ..ngrams import ORDERS, Text, check_texts, count_ngrams, encode
from ..record import Estimate


SMOOTHING = 0.1  # method 1: the numerator of a precision without any match


def closest_lengths(lengths: np.ndarray, reference_lengths: np.ndarray) -> np.ndarray:
    """The reference length nearest to each length, the shorter one of two equally near; shape of `lengths`."""
    choices = np.unique(reference_lengths)
    above = np.searchsorted(choices, lengths).clip(max=len(choices) - 1)
    below = (above - 1).clip(min=0)
    nearer_below = np.abs(lengths - choices[below]) <= np.abs(choices[above] - lengths)
    return np.where(nearer_below, choices[below], choices[above])


def scores_from_matches(
    matches: np.ndarray, lengths: np.ndarray, reference_lengths: np.ndarray, orders: Sequence[int]
) -> np.ndarray:
    """Sentence BLEU, shape (N, len(orders)); a sample without a single known word scores 0, whatever the smoothing.

    Args:
        matches: clipped, of n-grams for n = 1 .. max(orders), shape (N, max(orders)).
        lengths: tokens of each sample, shape (N,).
        reference_lengths: the reference length to which each sample is held, shape (N,).
    """
    n = np.arange(1, matches.shape[1] + 1)
    possible = np.maximum(lengths[:, None] - n + 1, 1)  # (N, max order)
    precisions = np.where(matches == 0, SMOOTHING, matches) / possible
    means = np.cumsum(np.log(precisions), axis=1) / n  # column n-1: equal weights 1/n
    brevity = np.exp(np.minimum(0.0, 1.0 - reference_lengths / np.maximum(lengths, 1)))
    scores = np.exp(means) * np.where(matches[:, 0] == 0, 0.0, brevity)[:, None]
    return scores[:, np.asarray(orders) - 1]


def check_orders(orders: Sequence[int]) -> None:
    if not orders or min(orders) < 1:
        raise UserError(f"orders={list(orders)}", "n-gram orders of at least 1", "use (2, 3, 4, 5), for example")


def sentence_bleu(samples: Sequence[Text], references: Sequence[Text], orders: Sequence[int] = ORDERS) -> np.ndarray:
    """BLEU-n of every sample against all references, shape (N, len(orders)).

    Equal to `nltk.translate.bleu_score.sentence_bleu` with weights 1/n and `SmoothingFunction().method1`.
    """
    check_texts("samples", samples)
    check_texts("references", references)
    check_orders(orders)
    encoded, size = encode([*samples, *references]), len(samples)
    matches = np.zeros((size, max(orders)))
    for column, (text, ngram, count, num_ngrams) in enumerate(count_ngrams(encoded, max(orders))):
        split = np.searchsorted(text, size)  # entries are ordered by text: samples first
        allowed = np.zeros(num_ngrams, np.int64)
        np.maximum.at(allowed, ngram[split:], count[split:])
        clipped = np.minimum(count[:split], allowed[ngram[:split]])
        matches[:, column] = np.bincount(text[:split], clipped, minlength=size)
    lengths, reference_lengths = encoded.lengths[:size], encoded.lengths[size:]
    return scores_from_matches(matches, lengths, closest_lengths(lengths, reference_lengths), orders)


def mean_bleu(scores: np.ndarray, orders: Sequence[int]) -> dict[str, Estimate]:
    """`bleu_<n>` from independent sentence scores (N, len(orders))."""
    return {f"bleu_{n}": Estimate.of_mean(column) for n, column in zip(orders, scores.T, strict=True)}


def bleu(samples: Sequence[Text], references: Sequence[Text], orders: Sequence[int] = ORDERS) -> dict[str, Estimate]:
    """Mean over samples of sentence BLEU against all references: `bleu_<n>` in [0, 1].

    High values mean samples made of real n-grams. Mode seeking raises it: a generator that repeats its few best
    sentences scores above real text. Read it beside Self-BLEU and beside the value of real text.

    >>> bleu([["a", "cat", "sat"]], [["a", "cat", "sat", "down"], ["a", "cat"]], orders=[2])["bleu_2"].value
    1.0
    """
    return mean_bleu(sentence_bleu(samples, references, orders), orders)
