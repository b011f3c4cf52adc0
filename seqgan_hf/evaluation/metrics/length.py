"""Length statistics: the cheapest sign that a generator stops too early, too late or never."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..confidence import wilson
from ..ngrams import Text, check_texts


def length_statistics(samples: Sequence[Text]) -> dict[str, float]:
    """Mean, spread and extremes of the number of tokens.

    Args:
        samples: tokenized texts.

    Returns:
        `length_mean` with `length_mean_se`, `length_sd`, `length_min`, `length_median`, `length_max`, all in tokens,
        and `empty_share`, the share of texts without a token, with its 95% interval (`_low`, `_high`, Wilson).

    Raises:
        ValueError: no samples.

    >>> statistics = length_statistics([["a"], ["a", "b", "c"]])
    >>> statistics["length_mean"], statistics["length_max"], statistics["empty_share"]
    (2.0, 3.0, 0.0)
    """
    check_texts("samples", samples)
    lengths = np.fromiter(map(len, samples), np.float64, len(samples))
    deviation = float(lengths.std(ddof=1)) if len(lengths) > 1 else float("nan")
    empty = int((lengths == 0).sum())
    low, high = wilson(empty, len(lengths))
    return {
        "length_mean": float(lengths.mean()),
        "length_mean_se": deviation / len(lengths) ** 0.5,
        "length_sd": deviation,
        "length_min": float(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_max": float(lengths.max()),
        "empty_share": empty / len(lengths),
        "empty_share_low": low,
        "empty_share_high": high,
    }
