"""MS-Jaccard: how far the n-gram frequencies of samples and real text overlap, quality and diversity in one number.

Montahaei, Alihosseini and Baghshah (2019), https://arxiv.org/abs/1904.03971, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ngrams import Text, check_texts, encode, number_ngrams
from .bleu import check_orders


def ms_jaccard(
    samples: Sequence[Text], references: Sequence[Text], orders: Sequence[int] = (2, 3, 4, 5)
) -> dict[str, float]:
    """Multiset Jaccard similarity of n-gram frequencies per text, as the geometric mean over 1 .. n.

    With c(g) the mean number of times that n-gram g stands in a text, the similarity for one n is
    sum over g of min(c_samples(g), c_references(g)) divided by the sum of their maxima.

    Unseen n-grams are most n-grams, so the value depends on how many texts are compared, and even real text against
    real text is far below 1: read it beside the value of real text.

    Args:
        samples: tokenized generated texts.
        references: tokenized real texts.
        orders: the n to report.

    Returns:
        `ms_jaccard_<n>` in [0, 1]; an order of which neither side has an n-gram counts as 0.

    Raises:
        UserError: no samples, no references, or an order below 1.

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
