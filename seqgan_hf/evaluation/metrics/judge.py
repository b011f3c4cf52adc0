"""A judge trained afresh: can a classifier that sees both tell samples from real text?

The classifier two-sample test of Lopez-Paz and Oquab (2017), https://arxiv.org/abs/1610.06545. A GAN's own
discriminator says nothing here: its generator was trained to fool exactly that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..confidence import wilson
from ..ngrams import Text, check_texts, encode, number_ngrams
from .language_model import frame


class Features(NamedTuple):
    """A sparse matrix of N texts by F n-grams: its E entries, ordered by text.

    Attributes:
        text: row of each entry, shape (E,).
        ngram: column of each entry, shape (E,).
        value: shape (E,).
        shape: (N, F).
    """

    text: np.ndarray
    ngram: np.ndarray
    value: np.ndarray
    shape: tuple[int, int]

    def times(self, weights: np.ndarray) -> np.ndarray:
        """The product with a vector over n-grams (F,), shape (N,)."""
        return np.bincount(self.text, self.value * weights[self.ngram], minlength=self.shape[0])

    def transposed_times(self, weights: np.ndarray) -> np.ndarray:
        """The product of the transpose with a vector over texts (N,), shape (F,)."""
        return np.bincount(self.ngram, self.value * weights[self.text], minlength=self.shape[1])


def ngram_features(texts: Sequence[Text], max_n: int) -> Features:
    """Which n-grams, n = 1 .. max_n, stand in each text, starts and ends included; every row has length 1."""
    framed = frame(encode(texts))
    text_of_token = np.repeat(np.arange(len(texts)), framed.lengths)
    rows, columns, width = [], [], 0
    for starts, ngrams, num_ngrams in number_ngrams(framed, max_n):
        rows.append(text_of_token[starts])
        columns.append(ngrams + width)
        width += num_ngrams
    text, ngram = np.divmod(np.unique(np.concatenate(rows) * width + np.concatenate(columns)), width)
    return Features(text, ngram, 1 / np.sqrt(np.bincount(text)[text]), (len(texts), width))


def fit_logistic_regression(
    features: Features, labels: np.ndarray, learns: np.ndarray, strength: float = 10.0, steps: int = 60
) -> np.ndarray:
    """Weights (F,) that minimise the logistic loss summed over some texts plus |w|^2 / (2 strength), by L-BFGS.

    Args:
        features: of N texts.
        labels: 0 or 1, shape (N,).
        learns: which texts count, boolean, shape (N,).
        strength: inverse of the penalty.
        steps: of L-BFGS, at most.
    """
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    @torch.no_grad()
    def closure() -> float:
        logits = features.times(weights.numpy())
        residuals = np.where(learns, 1 / (1 + np.exp(-logits)) - labels, 0.0)
        weights.grad = torch.from_numpy(features.transposed_times(residuals)) + weights / strength
        losses = np.logaddexp(0.0, logits) - labels * logits
        return float(losses[learns].sum() + weights.square().sum() / (2 * strength))

    optimizer.step(closure)
    return weights.detach().numpy()


def judge(samples: Sequence[Text], references: Sequence[Text], max_n: int = 3, seed: int = 0) -> dict[str, float]:
    """Held-out accuracy of a fresh judge: 0.5 if it cannot tell samples from real text, 1 if it always can.

    The judge is a logistic regression on the n-grams of a text. Equally many texts of both kinds are taken; one half
    of each teaches the judge, the other half tests it. It sees quality and, through repeated samples, lack of
    diversity; two texts that differ only in what an n-gram does not show look alike to it.

    Args:
        samples: tokenized generated texts, at least four.
        references: tokenized real texts, at least four.
        max_n: longest n-gram that the judge sees.
        seed: of the choice and of the halves.

    Returns:
        `judge_accuracy` with its 95% interval `judge_accuracy_low`, `judge_accuracy_high` (binomial, Wilson), and
        `judge_p_value`: the chance of at least this accuracy if both kinds were one (normal approximation).

    Raises:
        ValueError: fewer than four texts of a kind.

    >>> judge([["a", "a"]] * 40, [["b", "b"]] * 40)["judge_accuracy"]
    1.0
    """
    check_texts("samples", samples, minimum=4)
    check_texts("references", references, minimum=4)
    generator = np.random.default_rng(seed)
    size = min(len(samples), len(references)) // 2 * 2
    kinds = [[texts[i] for i in generator.permutation(len(texts))[:size]] for texts in (samples, references)]
    features = ngram_features([*kinds[0], *kinds[1]], max_n)
    labels = np.arange(2 * size) >= size  # true: real
    learns = np.arange(2 * size) % 2 == 0  # texts of each kind are in random order already
    weights = fit_logistic_regression(features, labels, learns)
    correct = int(((features.times(weights) > 0) == labels)[~learns].sum())
    accuracy = correct / size
    low, high = wilson(correct, size)
    return {
        "judge_accuracy": accuracy,
        "judge_accuracy_low": low,
        "judge_accuracy_high": high,
        "judge_p_value": 0.5 * math.erfc((2 * accuracy - 1) * math.sqrt(size / 2)),
    }
