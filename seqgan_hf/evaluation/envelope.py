"""What a coin can do: sequences at one of two temperatures, chosen by chance for each.

NLL_oracle is linear in the distribution of samples, while NLL_test of a mixture is at most log(1/w) nats a sequence
above that of the component with weight w. So mixtures of temperatures lie below the curve of single temperatures, and
a generator above them has shown nothing that a coin could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np


# Weights of the first of two temperatures.
WEIGHTS = np.linspace(0.0, 1.0, 101)


class Component(NamedTuple):
    """A generator at one temperature, as a mixture needs to know it.

    Attributes:
        temperature: of its samples.
        logprobs: of N held-out sequences, in nats, (N,).
        held_out_tokens: their mean number of tokens.
        oracle_nats: mean -log of the oracle's density of its samples, per sequence.
        sample_tokens: their mean number of tokens.
    """

    temperature: float
    logprobs: np.ndarray
    held_out_tokens: float
    oracle_nats: float
    sample_tokens: float


class Mixture(NamedTuple):
    """Samples at `temperature` with probability `weight`, else at `other`; NLL in nats per token."""

    nll_test: float
    nll_oracle: float
    temperature: float
    other: float
    weight: float


def mixtures(one: Component, other: Component) -> list[Mixture]:
    """Mixtures of two temperatures, NLL_test by the exact density w p + (1 - w) q of each held-out sequence."""
    found = []
    with np.errstate(divide="ignore"):  # log 0 = -inf: the other component alone
        for w in WEIGHTS:
            density = np.logaddexp(np.log(w) + one.logprobs, np.log1p(-w) + other.logprobs)
            nats = w * one.oracle_nats + (1 - w) * other.oracle_nats
            tokens = w * one.sample_tokens + (1 - w) * other.sample_tokens
            nll_test = float(-density.mean() / one.held_out_tokens)
            found.append(Mixture(nll_test, nats / tokens, one.temperature, other.temperature, float(w)))
    return found


def envelope(components: Sequence[Component]) -> list[Mixture]:
    """The mixtures of two temperatures that no other betters in both NLL_test and NLL_oracle, by rising NLL_test."""
    every = sorted(m for pair in combinations(components, 2) for m in mixtures(*pair))
    best, kept = np.inf, []
    for mixture in every:
        if mixture.nll_oracle < best:
            best = mixture.nll_oracle
            kept.append(mixture)
    return kept


def better(curve: Sequence[Mixture], nll_test: float, nll_oracle: float) -> Mixture | None:
    """A mixture that is better in both, if there is one: of these, that with the lowest NLL_oracle."""
    found = [m for m in curve if m.nll_test < nll_test and m.nll_oracle < nll_oracle]
    return min(found, key=lambda mixture: mixture.nll_oracle, default=None)
