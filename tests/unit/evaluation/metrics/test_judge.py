"""The judge: a guess where both kinds are the same, sharp where they differ."""

import numpy as np
import scipy.stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from seqgan_hf.evaluation.metrics.judge import judge, ngram_features
from tests.tools.small_language import random_texts


def test_judge_guesses_where_both_kinds_are_one():
    values = [judge(random_texts(seed, 300), random_texts(seed + 100, 300), seed=seed) for seed in range(20)]
    covered = sum(v["judge_accuracy"].low <= 0.5 <= v["judge_accuracy"].high for v in values)
    assert covered >= 16  # 95% intervals: fewer than 16 of 20 has probability below 0.003
    assert scipy.stats.kstest([v["judge_p_value"].value for v in values], "uniform").pvalue > 1e-3


def test_judge_tells_different_kinds_apart():
    result = judge(random_texts(0, 300, "abcdef"), random_texts(1, 300, "fedcba"))
    assert result["judge_accuracy"].low > 0.8 and result["judge_p_value"].value < 1e-6


def plain_features(texts):
    """Which 1- to 3-grams occur, by scikit-learn's own counting."""
    words = [" ".join(["<s>", *text, "</s>"]) for text in texts]
    counts = CountVectorizer(ngram_range=(1, 3), analyzer="word", token_pattern=r"\S+", binary=True)
    return normalize(counts.fit_transform(words).astype(float))


def test_judge_sees_which_ngrams_occur():
    texts = random_texts(0, 40, "abc")
    found, expected = ngram_features(texts, 3), plain_features(texts)
    assert found.shape == expected.shape
    np.testing.assert_allclose((found @ found.T).toarray(), (expected @ expected.T).toarray(), atol=1e-12)


def test_judge_learns_from_one_half_and_is_tested_on_the_other():
    """The same accuracy from scikit-learn's features, with the halves drawn as documented."""
    samples, references = random_texts(0, 60, "abcd"), random_texts(1, 60, "dcba")
    order = np.random.default_rng(5)
    kinds = [[texts[i] for i in order.permutation(60)] for texts in (samples, references)]
    features, labels = plain_features(kinds[0] + kinds[1]), np.repeat([0, 1], 60)
    model = LogisticRegression(C=10.0, fit_intercept=False).fit(features[::2], labels[::2])
    assert judge(samples, references, seed=5)["judge_accuracy"].value == model.score(features[1::2], labels[1::2])
