"""The classifier two-sample test of Lopez-Paz and Oquab (2017), https://arxiv.org/abs/1610.06545."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ngrams import Text, check_texts, encode, frame, number_ngrams
from ..record import Estimate


if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def ngram_features(texts: Sequence[Text], max_n: int) -> csr_matrix:
    """Which n-grams, n = 1 .. max_n, occur in each text, starts and ends included; shape (N, F), rows of norm 1."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import normalize

    framed = frame(encode(texts))
    text_of_token = np.repeat(np.arange(len(texts)), framed.lengths)
    blocks = [
        csr_matrix((np.ones(len(starts)), (text_of_token[starts], ngrams)), shape=(len(texts), num_ngrams)).sign()
        for starts, ngrams, num_ngrams in number_ngrams(framed, max_n)
    ]
    return normalize(hstack(blocks, format="csr"))


def judge(samples: Sequence[Text], references: Sequence[Text], max_n: int = 3, seed: int = 0) -> dict[str, Estimate]:
    """Held-out accuracy of a fresh judge: 0.5 if it cannot tell samples from real text, 1 if it always can.

    The judge is a logistic regression (L2 penalty, C = 10) on the n-grams of a text. Equally many texts of both kinds
    are taken; one half of each teaches the judge, the other half tests it. It sees quality and, through repeated
    samples, lack of diversity; two texts that differ only in what an n-gram does not show look alike to it. A GAN's
    own discriminator says nothing here: its generator was trained to fool exactly that one.

    Args:
        samples, references: at least four of each.
        max_n: longest n-gram that the judge sees.
        seed: of the choice and of the halves.

    Returns:
        `judge_accuracy`, and `judge_p_value`: the chance of at least this accuracy if both kinds were the same (normal
        approximation).

    >>> judge([["a", "a"]] * 40, [["b", "b"]] * 40)["judge_accuracy"].value
    1.0
    """
    from sklearn.linear_model import LogisticRegression

    check_texts("samples", samples, minimum=4)
    check_texts("references", references, minimum=4)
    generator = np.random.default_rng(seed)
    size = min(len(samples), len(references)) // 2 * 2
    kinds = [[texts[i] for i in generator.permutation(len(texts))[:size]] for texts in (samples, references)]
    features = ngram_features([*kinds[0], *kinds[1]], max_n)
    labels = np.arange(2 * size) >= size  # true: real
    taught, tested = slice(0, None, 2), slice(1, None, 2)  # texts of each kind are in random order already
    model = LogisticRegression(C=10.0, fit_intercept=False, max_iter=1000).fit(features[taught], labels[taught])
    accuracy = Estimate.of_share(int((model.predict(features[tested]) == labels[tested]).sum()), size)
    p_value = 0.5 * math.erfc((2 * accuracy.value - 1) * math.sqrt(size / 2))
    return {"judge_accuracy": accuracy, "judge_p_value": Estimate(p_value)}
