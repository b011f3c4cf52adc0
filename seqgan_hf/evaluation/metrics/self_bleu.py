"""Self-BLEU of Zhu et al. (2018), https://arxiv.org/abs/1802.01886, with the settings of `bleu.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ngrams import ORDERS, Text, check_texts, count_ngrams, encode
from .bleu import check_orders, scores_from_matches


def largest_among_others(text: np.ndarray, ngram: np.ndarray, count: np.ndarray, num_ngrams: int) -> np.ndarray:
    """For each entry (text, n-gram, count) the largest count of that n-gram in any *other* text, shape (E,).

    One pass finds the largest count of each n-gram and one text that holds it; a second pass, without that text, the
    runner-up. The holder is compared with the runner-up, everybody else with the holder.
    """
    largest = np.zeros(num_ngrams, np.int64)
    np.maximum.at(largest, ngram, count)
    holds = count == largest[ngram]
    holder = np.zeros(num_ngrams, np.int64)
    holder[ngram[holds]] = text[holds]  # of several holders any will do: the runner-up is then as large
    is_holder = text == holder[ngram]
    runner_up = np.zeros(num_ngrams, np.int64)
    np.maximum.at(runner_up, ngram[~is_holder], count[~is_holder])
    return np.where(is_holder, runner_up[ngram], largest[ngram])


def closest_other_lengths(lengths: np.ndarray) -> np.ndarray:
    """The length nearest to each text's among the *other* texts, the shorter of two equally near, shape (N,)."""
    choices, inverse, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    infinity = np.iinfo(np.int64).max // 2
    below = np.concatenate([[-infinity], choices[:-1]])
    above = np.concatenate([choices[1:], [infinity]])
    neighbour = np.where(choices - below <= above - choices, below, above)
    return np.where(counts > 1, choices, neighbour)[inverse]


def sentence_self_bleu(samples: Sequence[Text], orders: Sequence[int] = ORDERS) -> np.ndarray:
    """BLEU-n of every sample, of at least two, against all others, shape (N, len(orders))."""
    check_texts("samples", samples, minimum=2)
    check_orders(orders)
    encoded = encode(samples)
    matches = np.zeros((len(samples), max(orders)))
    for column, (text, ngram, count, num_ngrams) in enumerate(count_ngrams(encoded, max(orders))):
        clipped = np.minimum(count, largest_among_others(text, ngram, count, num_ngrams))
        matches[:, column] = np.bincount(text, clipped, minlength=len(samples))
    return scores_from_matches(matches, encoded.lengths, closest_other_lengths(encoded.lengths), orders)


def self_bleu(samples: Sequence[Text], orders: Sequence[int] = ORDERS) -> dict[str, float]:
    """Mean BLEU of each sample, of at least two, against all others: `self_bleu_<n>`, 1 if all occur twice.

    It grows with the number of samples (more others to resemble), so compare only values of equally many samples, and
    with that of real text: lower than real text is no virtue but noise. The sentence scores depend on one another, so
    no standard error is given here; the suite finds one by leaving out groups of samples.

    >>> self_bleu([["a", "cat"], ["a", "cat"], ["a", "cat"]], orders=[2])
    {'self_bleu_2': 1.0}
    """
    scores = sentence_self_bleu(samples, orders)
    return {f"self_bleu_{n}": float(column.mean()) for n, column in zip(orders, scores.T, strict=True)}
