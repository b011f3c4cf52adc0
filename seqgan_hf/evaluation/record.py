"""A measured value with its interval and settings: what metrics return and what reports, logs and cards show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


Z = 1.959964  # two-sided 95% quantile of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value that stands for more than the samples at hand.

    Attributes:
        value: the metric's value.
        low, high: 95% confidence interval over samples, the real texts being fixed; `None` where there is none.
        signature: the settings under which the value holds; only values with equal signatures may be compared.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signature: str = ""

    @classmethod
    def from_error(cls, value: float, standard_error: float) -> Estimate:
        """The value +- 1.96 standard errors; an undefined error (NaN) gives no interval."""
        half = Z * standard_error
        return cls(value) if math.isnan(half) else cls(value, value - half, value + half)

    def within(self, least: float, most: float) -> Estimate:
        """The same with an interval between these bounds.

        A value beyond them, such as the unbiased estimate of a divergence near 0, still lies in its interval.
        """
        if self.low is None or self.high is None:
            return self
        low, high = (min(max(end, least), most) for end in (self.low, self.high))
        return replace(self, low=min(low, self.value), high=max(high, self.value))

    @classmethod
    def of_mean(cls, values: np.ndarray) -> Estimate:
        """The mean of independent values (N,); one value alone has no interval."""
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else math.nan
        return cls.from_error(float(values.mean()), float(error))

    @classmethod
    def of_share(cls, successes: int, trials: int) -> Estimate:
        """A proportion with its Wilson interval, which means something at 0 and 1, too.

        Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953.

        >>> share = Estimate.of_share(0, 100)
        >>> share.low, round(share.high, 3)
        (0.0, 0.037)
        """
        from scipy.stats import binomtest

        interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        return cls(successes / trials, float(interval.low), float(interval.high))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: `value`, `low`, `high`, `signature`; what is not finite becomes `None`."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        finite = {name: n if n is not None and math.isfinite(n) else None for name, n in numbers.items()}
        return finite | {"signature": self.signature}


@dataclass(frozen=True)
class Result(Estimate):
    """An estimate, and what is needed to judge it."""

    better: str = "real"  # `higher`, `lower`, or `real` (as close as possible to the value of real text)
    real: Estimate | None = None  # the value of real text in place of the samples

    def to_dict(self) -> dict[str, Any]:
        real = None if self.real is None else self.real.to_dict()
        return super().to_dict() | {"better": self.better, "real": real}


def jackknife(
    measure: Callable[[np.ndarray], dict[str, float]], size: int, groups: int, seed: int
) -> dict[str, float]:
    """Standard errors of values of a whole set of samples, by leaving out one random group of samples at a time.

    The bootstrap cannot be used here: it draws samples twice, and a sample drawn twice has Self-BLEU 1 and distorts
    distinct-n. Leaving out repeats nothing. Shao and Wu (1989), https://doi.org/10.1214/aos/1176347263.

    Args:
        measure: from the indices of the samples kept to values by name.
        size: number of samples.
        groups: number of groups, to which `seed` assigns the samples.

    Returns:
        Standard error by name; empty where there are fewer than two samples per group.
    """
    if size < 2 * groups:
        return {}
    group = np.random.default_rng(seed).permutation(size) % groups
    values = [measure(np.flatnonzero(group != left_out)) for left_out in range(groups)]
    table = np.array([list(value.values()) for value in values])  # (groups, number of values)
    errors = np.sqrt((groups - 1) * table.var(axis=0))
    return dict(zip(values[0], map(float, errors), strict=True))
