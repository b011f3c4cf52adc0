"""One record from the metric to the report, the card and the log."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


Z = 1.959964  # two-sided 95% of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value with all that is needed to believe it.

    Attributes:
        value: the metric's value.
        low, high: 95% confidence interval; `None` where there is none.
        signature: the settings under which the value holds; only equal signatures may be compared.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signature: str = ""

    @classmethod
    def from_error(cls, value: float, standard_error: float, signature: str = "") -> Estimate:
        """The value with the interval of a normal error; a standard error that is no number gives none."""
        half = Z * standard_error
        return (
            cls(value, value - half, value + half, signature)
            if math.isfinite(half)
            else cls(value, signature=signature)
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: what is not finite is `None`."""
        return {
            "value": self.value if math.isfinite(self.value) else None,
            "low": self.low,
            "high": self.high,
            "signature": self.signature,
        }
