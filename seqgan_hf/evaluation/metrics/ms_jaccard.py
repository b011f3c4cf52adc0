"""MS-Jaccard of Montahaei, Alihosseini and Baghshah (2019), https://arxiv.org/abs/1904.03971, section 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ngrams import ORDERS, Text, check_texts, encode, number_ngrams
from .bleu import check_orders


def ms_jaccard(
    samples: Sequence[Text], references: Sequence[Text], orders: Sequence[int] = ORDERS
) -> dict[str, float]:
    """Multiset Jaccard similarity of n-gram frequencies per text, as the geometric mean over 1 .. n.

    With c(g) the mean number of times that n-gram g stands in a text, the similarity for one n is the sum over g of
    min(c_samples(g), c_references(g)) divided by the sum of their maxima: quality and diversity in one number.

    Unseen n-grams are most n-grams, so the value depends on how many texts are compared, and even real text against
    real text is far below 1: read it beside the value of real text.

    Returns:
        `ms_jaccard_<n>` in [0, 1]; an order of which neither side has an n-gram counts as 0.

    >>> ms_jaccard([["a", "b"], ["a", "c"]], [["a", "b"], ["a", "b"]], orders=[1])
    {'ms_jaccard_1': 0.6}
    """
    check_texts("samples", samples)
    check_texts("references", references)
    check_orders(orders)
    encoded = encode([*samples, *references])
    boundary = encoded.lengths[: len(samples)].sum()
    similarities = []
    for starts, ngrams, num_ngrams in number_ngrams(encoded, max(orders)):
        split = np.searchsorted(starts, boundary)
        ours = np.bincount(ngrams[:split], minlength=num_ngrams) / len(samples)
        theirs = np.bincount(ngrams[split:], minlength=num_ngrams) / len(references)
        union = np.maximum(ours, theirs).sum()
        similarities.append(np.minimum(ours, theirs).sum() / union if union else 0.0)
    return {f"ms_jaccard_{n}": float(np.prod(similarities[:n]) ** (1 / n)) for n in orders}
