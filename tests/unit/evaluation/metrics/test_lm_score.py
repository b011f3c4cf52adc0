"""The n-gram language model and its scores, against dictionaries and equations."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from seqgan_hf.evaluation.metrics.lm_score import (
    cross_entropy,
    discounts,
    lm_score,
    log_probabilities,
    reverse_lm_score,
)
from tests.tools.small_language import random_texts


class PlainKneserNey:
    """Interpolated modified Kneser-Ney in dictionaries, written from Chen and Goodman's equations."""

    def __init__(self, train, order, vocabulary):
        framed = [("<s>", *text, "</s>") for text in train]
        plain = Counter(t[i : i + n] for t in framed for n in range(1, order + 1) for i in range(len(t) - n + 1))
        self.order, self.events = order, len(vocabulary) + 1
        self.count = {n: {} for n in range(1, order + 1)}
        for gram, count in plain.items():
            if gram == ("<s>",):
                continue
            if len(gram) < order and gram[0] != "<s>":
                count = sum(longer[1:] == gram for longer in plain if len(longer) == len(gram) + 1)
            self.count[len(gram)][gram] = count
        self.discount = {n: discounts(np.array(list(c.values()))) for n, c in self.count.items()}
        self.by_context = defaultdict(list)
        for n, counts in self.count.items():
            for gram, count in counts.items():
                self.by_context[gram[:-1], n].append(count)

    def probability(self, history, word):
        result = 1 / self.events
        for n in range(1, min(self.order, len(history) + 1) + 1):
            context = tuple(history[len(history) - n + 1 :])
            counts, discount = self.by_context.get((context, n), []), self.discount[n]
            if not counts:
                continue
            count = self.count[n].get((*context, word), 0)
            freed = sum(discount[min(c, 3)] for c in counts)
            result = (count - discount[min(count, 3)] + freed * result) / sum(counts)
        return result


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("number", [1, 6, 60])
def test_language_model_equals_dictionaries(order, number):
    train, texts = random_texts(0, number), random_texts(1, 20, "abcdefgh")
    vocabulary = {word for text in train + texts for word in text}
    model = PlainKneserNey(train, order, vocabulary)
    expected = [
        math.log(model.probability(["<s>", *text[:i]], word))
        for text in texts
        for i, word in enumerate([*text, "</s>"])
    ]
    np.testing.assert_allclose(log_probabilities(texts, train, order), expected, rtol=0, atol=1e-10)


def test_estimated_discounts_are_used_on_text_that_allows_it():
    counts = np.array([1] * 50 + [2] * 20 + [3] * 10 + [4] * 6)
    y = 50 / (50 + 2 * 20)
    expected = [0, 1 - 2 * y * 20 / 50, 2 - 3 * y * 10 / 20, 3 - 4 * y * 6 / 10]
    np.testing.assert_allclose(discounts(counts), expected)
    assert discounts(np.array([5, 5])).tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("history", [[], ["a"], ["b", "a", "c"], ["h", "g"]])
def test_language_model_probabilities_add_up_to_one(history):
    train = random_texts(3, 40, "abcdef")
    words = list("abcdefgh")
    texts = [[*history, word] for word in words] + [history, words]  # the last one only brings all words in
    values = log_probabilities(texts, train, 4)
    width = len(history) + 2
    total = sum(math.exp(values[row * width + len(history)]) for row in range(len(words)))
    total += math.exp(values[len(words) * width + len(history)])  # the end of text
    assert total == pytest.approx(1.0, abs=1e-12)


def test_cross_entropy_is_per_token_with_the_error_of_a_ratio():
    texts, train = random_texts(5, 30), random_texts(6, 30)
    values, lengths = log_probabilities(texts, train, 3), np.array([len(text) + 1 for text in texts])
    nats = [-part.sum() for part in np.split(values, np.cumsum(lengths)[:-1])]
    mean, error = cross_entropy(texts, train, 3)
    assert mean == pytest.approx(sum(nats) / lengths.sum())
    source = np.random.default_rng(0)
    draws = [source.integers(0, 30, 30) for _ in range(4000)]
    bootstrap = np.std([np.array(nats)[rows].sum() / lengths[rows].sum() for rows in draws])
    assert error == pytest.approx(bootstrap, rel=0.1)
    score = lm_score(texts, train, 3)["lm_score"]
    assert (score.value, score.high - score.low) == pytest.approx((mean, 2 * 1.959964 * error))


def test_lm_scores_look_in_opposite_directions():
    train, test = random_texts(7, 300), random_texts(8, 300)
    collapsed = [["a", "a", "b"]] * 300
    assert lm_score(collapsed, train)["lm_score"].value < lm_score(test, train)["lm_score"].value
    assert reverse_lm_score(collapsed, test)["reverse_lm_score"] > reverse_lm_score(train, test)["reverse_lm_score"]
