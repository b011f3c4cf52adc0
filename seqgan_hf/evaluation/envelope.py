"""What a coin can do: sequences at one of two temperatures, chosen by chance for each.

Quality is linear, or nearly so, in the distribution of samples, while NLL_test of a mixture is at most log(1/w) nats a
sequence above that of the component with weight w. So mixtures of temperatures lie below the curve of single
temperatures, and a generator above them has shown nothing that a coin could not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit


# Weights of the first of two temperatures: dense at both ends, where a rare component costs log(1/w) and saves modes.
WEIGHTS = expit(np.linspace(-5, 5, 21))


class Plane(NamedTuple):
    """Coverage against quality, each with its label."""

    x: str
    x_label: str
    y: str
    y_label: str

    def place(self, values: Mapping[str, float]) -> tuple[float, float] | None:
        """Where values by name lie, so that lower is better in both; `None` where one was not measured."""
        if self.x not in values or self.y not in values:
            return None
        return values[self.x], -values[self.y] if self.y in HIGHER else values[self.y]


# Values of which more is better; their axes show them with the sign changed.
HIGHER = {"bleu_4", "grammar_acceptance"}
ABOVE_ENTROPY = "nll_above_entropy"  # per sequence, where the entropy of the corpus is known
PLANES = (
    Plane("kl_oracle_generator", "KL(oracle, generator), nats", "kl_generator_oracle", "KL(generator, oracle), nats"),
    Plane("nll_test", "NLL_test, nats per token", "nll_oracle", "NLL_oracle, nats per token"),
    Plane(ABOVE_ENTROPY, "NLL_test above the entropy, nats", "grammar_acceptance", "negative share accepted"),
    Plane("nll_test", "NLL_test, nats per token", "grammar_acceptance", "negative share accepted"),
    Plane("nll_test", "NLL_test, nats per token", "judge_nll", "NLL under the judge, nats per token"),
    Plane("self_bleu_4", "Self-BLEU-4", "bleu_4", "negative BLEU-4"),
    Plane("reverse_lm_score", "reverse LM score, nats", "lm_score", "LM score, nats"),
)


class Component(NamedTuple):
    """A generator at one temperature, as mixtures need to know it; all but the first three only with an oracle."""

    temperature: float  # of its samples
    held_out: np.ndarray  # log-probabilities of N held-out sequences, in nats, (N,)
    held_out_tokens: float  # their mean number of tokens
    own: Sequence[np.ndarray] = ()  # of the samples of each component of the mixtures, under this one, (M,) each
    oracle: np.ndarray | None = None  # of this one's own samples, under the oracle, (M,)
    sample_tokens: float = 1.0  # their mean number of tokens


class Mixture(NamedTuple):
    """Samples at `temperature` with probability `weight`, else at `other`, and the values by name."""

    temperature: float
    other: float
    weight: float
    values: dict[str, float]


def mixed(w: float, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """log(w p + (1 - w) q) of log p and log q, the density of a mixture."""
    return np.logaddexp(np.log(w) + one, np.log1p(-w) + other)


def mixed_likelihoods(
    w: float, components: Sequence[Component], first: int, second: int, oracle: np.ndarray | None
) -> dict[str, float]:
    """Likelihoods of a mixture of two of the components by its exact density; no new samples are drawn.

    `w` is the weight of the first; `oracle` has the oracle's log-probabilities of the held-out sequences, (N,).
    """
    one, other = components[first], components[second]
    held_out = mixed(w, one.held_out, other.held_out)
    nats = float(-held_out.mean())
    values = {"nll_test": nats / one.held_out_tokens, "nll_test_sequence": nats}
    if oracle is None or one.oracle is None or other.oracle is None:
        return values
    nats, tokens, divergence = 0.0, 0.0, 0.0
    for share, place in ((w, first), (1 - w, second)):
        density, written = mixed(w, one.own[place], other.own[place]), components[place].oracle  # of its own samples
        nats -= share * float(written.mean())
        tokens += share * components[place].sample_tokens
        divergence += share * float((density - written).mean())
    return values | {
        "nll_oracle": nats / tokens,
        "nll_oracle_sequence": nats,
        "kl_generator_oracle": divergence,
        "kl_oracle_generator": float((oracle - held_out).mean()),
    }


def envelope(places: Iterable[tuple[float, float]]) -> np.ndarray:
    """The places that no other betters in both coordinates, by the first, (K, 2)."""
    best, kept = np.inf, []
    for x, y in sorted(places):
        if y < best:
            best = y
            kept.append((x, y))
    return np.array(kept).reshape(-1, 2)


def gaps(curve: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """How far a place lies beyond an envelope: in y at its own x, and in x at its own y; negative inside of it.

    Beyond the better end of the curve, in either coordinate, it is compared with that end. Beyond the worse end in x,
    nothing is known of what other temperatures could do there: NaN.
    """
    quality = float(np.interp(x, curve[:, 0], curve[:, 1], right=np.nan)) - y
    return quality, float(np.interp(y, curve[::-1, 1], curve[::-1, 0])) - x


def better(mixtures: Sequence[Mixture], plane: Plane, x: float, y: float) -> Mixture | None:
    """A mixture that is better in both coordinates, if there is one: of these, that with the best quality."""
    placed = [(plane.place(mixture.values), mixture) for mixture in mixtures]
    found = [(place[1], mixture) for place, mixture in placed if place and place[0] < x and place[1] < y]
    return min(found, key=lambda pair: pair[0], default=(0, None))[1]
