"""Confidence intervals for values that are not plain means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


Z = 1.959964  # two-sided 95%
# Two-sided 95% quantile of Student's t for each number of groups of the jackknife that is in use.
STUDENT_T = {5: 2.776445, 10: 2.262157, 20: 2.093024}


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95% interval of a proportion; meaningful at 0 and 1 too, where the standard error is 0.

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953.

    >>> low, high = wilson(0, 100)
    >>> low, round(high, 3)
    (0.0, 0.037)
    """
    share, z2 = successes / trials, Z * Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def jackknife(
    measure: Callable[[np.ndarray], dict[str, float]], size: int, groups: int, seed: int
) -> dict[str, float]:
    """Standard errors of values of a whole set of samples, by leaving out one random group of samples at a time.

    The bootstrap is no use here: it draws samples twice, and a sample drawn twice has Self-BLEU 1 and spoils
    distinct-n. Leaving out repeats nothing. Shao and Wu (1989), https://doi.org/10.1214/aos/1176347263.

    Args:
        measure: from the indices of the samples kept to values by name.
        size: number of samples.
        groups: number of groups, one of `STUDENT_T`.
        seed: of the assignment to groups.

    Returns:
        Standard error by name; empty where there are fewer than two samples a group.
    """
    if size < 2 * groups:
        return {}
    group = np.random.default_rng(seed).permutation(size) % groups
    values = [measure(np.flatnonzero(group != left_out)) for left_out in range(groups)]
    table = np.array([list(value.values()) for value in values])  # (groups, number of values)
    errors = np.sqrt((groups - 1) * table.var(axis=0))
    return dict(zip(values[0], map(float, errors), strict=True))
