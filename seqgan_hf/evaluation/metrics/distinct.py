"""Distinct-n of Li et al. (2016), https://arxiv.org/abs/1510.03055, equation of section 5.3, over all samples."""

from __future__ import annotations

from collections.abc import Sequence

from ..ngrams import Text, check_texts, encode, number_ngrams
from .bleu import check_orders


def distinct(samples: Sequence[Text], orders: Sequence[int] = (1, 2, 3, 4)) -> dict[str, float]:
    """Different n-grams as a share of all n-grams, and different samples as a share of all samples.

    It falls as more samples are drawn (new n-grams run out), so compare only values of equally many samples. Random
    words score best: it sees diversity, never quality.

    Returns:
        `distinct_<n>` in [0, 1] (0 where no sample has n tokens), the number of different n-grams `unique_ngrams_<n>`,
        and `distinct_texts`.

    >>> distinct([["a", "cat"], ["a", "dog"]], orders=[1])
    {'distinct_texts': 1.0, 'distinct_1': 0.75, 'unique_ngrams_1': 3.0}
    """
    check_texts("samples", samples)
    check_orders(orders)
    result = {"distinct_texts": len(set(map(tuple, samples))) / len(samples)}
    for n, (starts, _, num_ngrams) in enumerate(number_ngrams(encode(samples), max(orders)), start=1):
        if n in orders:
            result[f"distinct_{n}"] = num_ngrams / max(len(starts), 1)
            result[f"unique_ngrams_{n}"] = float(num_ngrams)
    return result
