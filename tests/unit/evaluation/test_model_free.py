"""Language-model scores, embedding distances, the judge, intervals and warnings, against independent references."""

import doctest
import importlib
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from seqgan_hf.evaluation.confidence import STUDENT_T, Z, jackknife, wilson
from seqgan_hf.evaluation.metrics.distinct import distinct
from seqgan_hf.evaluation.metrics.frechet import frechet_distance
from seqgan_hf.evaluation.metrics.grammar_acceptance import grammar_acceptance
from seqgan_hf.evaluation.metrics.judge import fit_logistic_regression, judge, ngram_features
from seqgan_hf.evaluation.metrics.language_model import (
    cross_entropy,
    discounts,
    lm_score,
    log_probabilities,
    reverse_lm_score,
)
from seqgan_hf.evaluation.metrics.self_bleu import self_bleu
from seqgan_hf.evaluation.tokenization import tokenize
from seqgan_hf.training.callbacks.collapse import CollapseMonitor


# --- Language model ------------------------------------------------------------------------------------------------


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


def random_texts(seed, number, words="abcdef", longest=7):
    source = random.Random(seed)
    weights = [2.0**-i for i in range(len(words))]
    return [source.choices(words, weights, k=source.randint(0, longest)) for _ in range(number)]


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


def test_lm_scores_look_in_opposite_directions():
    train, test = random_texts(7, 300), random_texts(8, 300)
    collapsed = [["a", "a", "b"]] * 300
    assert lm_score(collapsed, train)["lm_score"] < lm_score(test, train)["lm_score"]
    assert reverse_lm_score(collapsed, test)["reverse_lm_score"] > reverse_lm_score(train, test)["reverse_lm_score"]


# --- Embeddings ----------------------------------------------------------------------------------------------------


def reference_frechet(ours, theirs):
    s, t = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    shift = ours.mean(0) - theirs.mean(0)
    return shift @ shift + np.trace(s + t) - 2 * np.trace(scipy.linalg.sqrtm(s @ t)).real


@pytest.mark.parametrize(("size", "other", "width"), [(500, 400, 8), (200, 300, 40)])
def test_frechet_distance_equals_the_matrix_root(size, other, width):
    source = np.random.default_rng(0)
    mix = source.normal(size=(width, width))
    ours, theirs = source.normal(size=(size, width)) @ mix, source.normal(size=(other, width)) + 0.3
    assert frechet_distance(ours, theirs) == pytest.approx(reference_frechet(ours, theirs), rel=1e-9)


def test_frechet_distance_is_exact_with_fewer_texts_than_dimensions():
    source = np.random.default_rng(1)
    ours = source.normal(size=(20, 64))
    assert frechet_distance(ours, ours) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(ours, ours + 2.0) == pytest.approx(64 * 4.0, rel=1e-12)


def test_frechet_distance_of_gaussians_has_its_closed_form():
    scales = np.array([1.0, 2.0, 3.0])
    grid = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T.astype(float)  # uncorrelated columns
    deviation = math.sqrt(8 / 7)
    expected = ((scales - 1) ** 2).sum() * deviation**2
    assert frechet_distance(grid * scales, grid) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.zeros((1, 2)), np.zeros((5, 2)), r"shapes \(1, 2\) and \(5, 2\)"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "shapes"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message + ".*->"):
        frechet_distance(ours, theirs)


# --- Judge ---------------------------------------------------------------------------------------------------------


def test_judge_guesses_where_both_kinds_are_one():
    values = [judge(random_texts(seed, 300), random_texts(seed + 100, 300), seed=seed) for seed in range(20)]
    covered = sum(v["judge_accuracy_low"] <= 0.5 <= v["judge_accuracy_high"] for v in values)
    assert covered >= 16  # 95% intervals: fewer than 16 of 20 has probability below 0.003
    assert scipy.stats.kstest([v["judge_p_value"] for v in values], "uniform").pvalue > 1e-3


def test_judge_tells_different_kinds_apart():
    result = judge(random_texts(0, 300, "abcdef"), random_texts(1, 300, "fedcba"))
    assert result["judge_accuracy_low"] > 0.8 and result["judge_p_value"] < 1e-6


def test_judge_weights_are_where_the_gradient_vanishes():
    texts = random_texts(0, 40, "abc") + random_texts(1, 40, "cba")
    features, labels = ngram_features(texts, 2), np.arange(80) >= 40
    learns = np.arange(80) % 3 > 0
    weights = fit_logistic_regression(features, labels, learns, strength=2.0, steps=500)
    probabilities = 1 / (1 + np.exp(-features.times(weights)))
    gradient = features.transposed_times(np.where(learns, probabilities - labels, 0.0)) + weights / 2.0
    assert np.abs(gradient).max() < 1e-4


# --- Grammar, intervals --------------------------------------------------------------------------------------------


def test_grammar_acceptance_counts_valid_texts():
    result = grammar_acceptance(["()", "(", "", "(())"], lambda text: text.count("(") == text.count(")"))
    assert result["grammar_acceptance"] == 0.75
    with pytest.raises(ValueError, match="0 samples"):
        grammar_acceptance([], bool)


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_equals_scipy(trials, share):
    successes = round(share * trials)
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_quantiles():
    assert pytest.approx(scipy.stats.norm.ppf(0.975), abs=1e-6) == Z
    for groups, quantile in STUDENT_T.items():
        assert quantile == pytest.approx(scipy.stats.t.ppf(0.975, groups - 1), abs=1e-6)


@pytest.mark.parametrize(
    "metric", [lambda t: self_bleu(t, [2, 3]), lambda t: distinct(t, [1, 2])], ids=["self", "distinct"]
)
def test_jackknife_errors_are_those_of_repeated_draws(metric):
    draws = [random_texts(seed, 200, "abcdefghijkl", 6) for seed in range(60)]
    values = [metric(texts) for texts in draws]
    errors = [jackknife(lambda rows, t=texts: metric([t[i] for i in rows]), 200, 20, 0) for texts in draws[:20]]
    for name in values[0]:
        true = np.std([value[name] for value in values], ddof=1)
        assert 0.7 < np.mean([error[name] for error in errors]) / true < 1.45, name


def test_jackknife_of_a_mean_is_its_standard_error():
    numbers = np.random.default_rng(0).normal(size=4000)
    error = np.mean([jackknife(lambda rows: {"m": numbers[rows].mean()}, 4000, 20, seed)["m"] for seed in range(30)])
    assert error == pytest.approx(numbers.std() / math.sqrt(4000), rel=0.15)
    assert jackknife(lambda rows: {"m": 0.0}, 39, 20, 0) == {}


def test_jackknife_of_a_mean_over_equal_groups_is_that_of_the_groups_means():
    numbers, groups = np.arange(20.0) ** 2, {}

    def mean(rows):
        left_out = tuple(np.setdiff1d(np.arange(20), rows))
        groups[left_out] = numbers[list(left_out)].mean()
        return {"m": numbers[rows].mean()}

    error = jackknife(mean, 20, 5, 0)["m"]
    assert len(groups) == 5 and error == pytest.approx(np.std(list(groups.values()), ddof=1) / math.sqrt(5))


# --- Tokenization --------------------------------------------------------------------------------------------------


def test_tokenizations():
    assert tokenize(["A man's dog."]) == [["A", "man's", "dog."]]
    assert tokenize(["A man's dog."], "treebank", lowercase=True) == [["a", "man", "'s", "dog", "."]]
    assert tokenize(["白日 依"], "character") == [["白", "日", " ", "依"]]


def test_tokenization_by_dotted_path():
    assert tokenize(["1+1"], "builtins.list") == [["1", "+", "1"]]


@pytest.mark.parametrize("name", ["words", "no.such.module", "builtins.nothing"])
def test_unknown_tokenization_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*->.*->"):
        tokenize(["a"], name)


# --- Warnings ------------------------------------------------------------------------------------------------------


def test_collapse_is_reported_once_and_again_after_recovery():
    monitor = CollapseMonitor()
    values = [0.8, 0.7, 0.3, 0.2, 0.6, 0.1]
    said = [monitor.update({"distinct_2": value}) for value in values]
    assert [len(warnings) for warnings in said] == [0, 0, 1, 0, 0, 1]
    assert "mode collapse" in said[2][0] and "Try" in said[2][0] and "0.300" in said[2][0]


@pytest.mark.parametrize(
    ("metrics", "rounds", "words"),
    [
        ({"self_bleu_3": 0.99}, 1, "mode collapse"),
        ({"distinct_2": 0.01}, 1, "mode collapse"),
        ({"reward": 0.995}, 5, "saturated"),
        ({"reward": 0.002}, 5, "saturated"),
        ({"discriminator_accuracy": 0.5}, 5, "guesses"),
        ({"discriminator_accuracy": 1.0}, 5, "always wins"),
    ],
)
def test_each_warning_waits_for_its_patience(metrics, rounds, words):
    monitor = CollapseMonitor(distinct_bound=0.1)
    said = [monitor.update(metrics) for _ in range(rounds + 3)]
    assert [bool(warnings) for warnings in said] == [False] * (rounds - 1) + [True] + [False] * 3
    assert words in said[rounds - 1][0] and "Try" in said[rounds - 1][0]


def test_healthy_rounds_give_no_warning():
    monitor = CollapseMonitor()
    healthy = {"distinct_2": 0.5, "self_bleu_3": 0.8, "reward": 0.4, "discriminator_accuracy": 0.7, "nll_test": 3.0}
    assert all(monitor.update(healthy) == [] for _ in range(20))


def test_monitor_goes_on_after_a_checkpoint():
    first, second = CollapseMonitor(), CollapseMonitor()
    for _ in range(4):
        first.update({"reward": 1.0, "distinct_2": 0.8})
    second.load_state_dict(first.state_dict())
    assert len(second.update({"reward": 1.0, "distinct_2": 0.3})) == 2


@pytest.mark.parametrize(
    "name", ["language_model", "frechet", "judge", "grammar_acceptance", "confidence", "tokenization"]
)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(f"seqgan_hf.evaluation.{name}"))
    assert result.attempted > 0 and result.failed == 0
