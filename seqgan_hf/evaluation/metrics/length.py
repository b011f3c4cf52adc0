"""Length statistics: the cheapest sign that a generator stops too early, too late or never."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ngrams import Text, check_texts
from ..record import Estimate


def length_statistics(samples: Sequence[Text]) -> dict[str, Estimate | float]:
    """Mean, spread and extremes of the number of tokens, `length_...`, and `empty_share`, that of texts without any.

    >>> statistics = length_statistics([["a"], ["a", "b", "c"]])
    >>> [statistics[f"length_{name}"].value for name in ("mean", "max")], statistics["empty_share"].value
    ([2.0, 3.0], 0.0)
    """
    check_texts("samples", samples)
    lengths = np.fromiter(map(len, samples), np.float64, len(samples))
    return {
        "length_mean": Estimate.of_mean(lengths),
        "length_sd": float(lengths.std(ddof=1)) if len(lengths) > 1 else float("nan"),
        "length_min": Estimate(float(lengths.min())),  # extremes of the set at hand: no interval
        "length_median": float(np.median(lengths)),
        "length_max": Estimate(float(lengths.max())),
        "empty_share": Estimate.of_share(int((lengths == 0).sum()), len(lengths)),
    }
