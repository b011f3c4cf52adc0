"""The n-gram metrics, against NLTK and against plain counting."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_sentence_bleu

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.metrics.bleu import bleu, sentence_bleu
from seqgan_hf.evaluation.metrics.copy_rate import copy_rate, longest_shared
from seqgan_hf.evaluation.metrics.distinct import distinct
from seqgan_hf.evaluation.metrics.length import length_statistics
from seqgan_hf.evaluation.metrics.ms_jaccard import ms_jaccard
from seqgan_hf.evaluation.metrics.self_bleu import self_bleu, sentence_self_bleu
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.evaluation.tokenization import tokenize


COCO = Path(__file__).parents[5] / "shared" / "data" / "image_coco"
ORDERS = (1, 2, 3, 4, 5)
WEIGHTS = [(1 / n,) * n for n in ORDERS]

texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=8), min_size=2, max_size=7)

HARD_CASES = {
    "empty": [[], ["a"], []],
    "one_word": [["a"], ["b"], ["a"]],
    "shorter_than_n": [["a", "b"], ["a", "b", "c"], ["b", "a"]],
    "repeated_ngrams": [["a"] * 7, ["a"] * 4, ["a", "b"] * 5, ["b", "a"] * 3],
    "identical": [["a", "b", "c", "d", "e", "f"]] * 4,
    "nothing_shared": [["a", "b"], ["c", "d"], ["e", "f"]],
    "lengths_equally_near": [["a"] * 5, ["a"] * 3, ["a"] * 7],
    "chinese": [list("白日依山尽，黄河入海流。"), list("白日依山尽，"), list("欲穷千里目，更上一层楼。")],
    "unicode": [["naïve", "🙂", "e\u0301"], ["naïve", "\u00e9"], ["🙂", "🙂"]],
    "token_ids": [[3, 1, 2, 3], [3, 1], [1, 2, 3, 1]],
}


def nltk_bleu(sample, references):
    return nltk_sentence_bleu(references, sample, WEIGHTS, SmoothingFunction().method1)


def assert_equals_nltk(samples, references):
    expected = [nltk_bleu(sample, references) for sample in samples]
    np.testing.assert_allclose(sentence_bleu(samples, references, ORDERS), expected, rtol=0, atol=1e-9)


def assert_self_bleu_equals_nltk(samples):
    expected = [nltk_bleu(text, samples[:i] + samples[i + 1 :]) for i, text in enumerate(samples)]
    np.testing.assert_allclose(sentence_self_bleu(samples, ORDERS), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", HARD_CASES)
def test_bleu_and_self_bleu_equal_nltk_on_hard_cases(case):
    samples = HARD_CASES[case]
    assert_self_bleu_equals_nltk(samples)
    for references in HARD_CASES.values():
        assert_equals_nltk(samples, references)


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_bleu_and_self_bleu_equal_nltk_on_any_text(samples, references):
    assert_equals_nltk(samples, references)
    assert_self_bleu_equals_nltk(samples)


@pytest.mark.skipif(not COCO.exists(), reason="needs the COCO captions")
def test_bleu_and_self_bleu_equal_nltk_on_captions():
    test = [line.split() for line in (COCO / "test.txt").read_text().splitlines()[:400]]
    train = [line.split() for line in (COCO / "train.txt").read_text().splitlines()[:60]]
    assert_equals_nltk(train, test)
    assert_self_bleu_equals_nltk(train)


def test_bleu_is_the_mean_over_samples_with_its_standard_error():
    samples, references = [["a", "b", "c"], ["a", "x"], ["y"]], [["a", "b", "c"]]
    scores = sentence_bleu(samples, references, [2])[:, 0]
    result = bleu(samples, references, [2])
    error = scores.std(ddof=1) / math.sqrt(3)
    assert result == {"bleu_2": Estimate.from_error(scores.mean(), error)}
    assert bleu(references, references, [3])["bleu_3"].value == pytest.approx(1.0)
    assert bleu(references, references, [4])["bleu_4"].value == pytest.approx(0.1 ** (1 / 4))  # no 4-gram: smoothed


def test_self_bleu_leaves_the_sample_itself_out():
    assert self_bleu([["a", "b"], ["c", "d"]], [2]) == {"self_bleu_2": 0.0}
    assert self_bleu([["a", "b"], ["a", "b"]], [2]) == {"self_bleu_2": 1.0}


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_distinct_and_ms_jaccard_equal_plain_counting(samples, references):
    def ngrams(texts, n):
        return Counter(tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1))

    found, overlap, product = distinct(samples, ORDERS), ms_jaccard(samples, references, ORDERS), 1.0
    for n in ORDERS:
        ours, theirs = ngrams(samples, n), ngrams(references, n)
        assert found[f"distinct_{n}"] == (len(ours) / ours.total() if ours else 0.0)
        assert found[f"unique_ngrams_{n}"] == len(ours)
        pairs = [(ours[g] / len(samples), theirs[g] / len(references)) for g in ours.keys() | theirs.keys()]
        product *= sum(map(min, pairs)) / sum(map(max, pairs)) if pairs else 0.0
        assert overlap[f"ms_jaccard_{n}"] == pytest.approx(product ** (1 / n), abs=1e-12)
    assert found["distinct_texts"] == len({tuple(text) for text in samples}) / len(samples)


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_longest_copy_equals_plain_search(samples, train):
    def longest(text):
        parts = {tuple(other[i:j]) for other in train for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
        spans = [(i, j) for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
        return max((j - i for i, j in spans if tuple(text[i:j]) in parts), default=0)

    assert longest_shared(samples, train).tolist() == [longest(text) for text in samples]


def test_copy_rate_counts_copies_and_their_length():
    result = copy_rate([["a", "b"], ["b", "a"], [], ["x"]], [["a", "b"], ["c"]])
    share = result["copy_rate"]
    assert 0 < share.low < share.value == 0.25 < share.high < 1
    assert result["longest_copy"] == Estimate.of_mean(np.array([2, 1, 0, 0]))
    assert result["longest_copy_share"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_length_statistics():
    result = length_statistics([[], ["a", "b"], ["a", "b", "c", "d"]])
    assert result == {
        "length_mean": Estimate.from_error(2.0, 2 / math.sqrt(3)),
        "length_sd": 2.0,
        "length_min": Estimate(0.0),
        "length_median": 2.0,
        "length_max": Estimate(4.0),
        "empty_share": Estimate.of_share(1, 3),
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bleu([], [["a"]]), "0 samples"),
        (lambda: bleu([["a"]], []), "0 references"),
        (lambda: bleu([["a"]], [["a"]], orders=[0]), r"orders=\[0\]"),
        (lambda: self_bleu([["a"]]), "1 samples"),
        (lambda: self_bleu([]), "0 samples"),
        (lambda: distinct([]), "0 samples"),
        (lambda: ms_jaccard([["a"]], []), "0 references"),
        (lambda: copy_rate([["a"]], []), "0 training texts"),
        (lambda: length_statistics([]), "0 samples"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call, message):
    with pytest.raises(UserError, match=message + ": expected "):
        call()


def test_untokenized_text_is_refused():
    with pytest.raises(UserError, match="samples are not tokenized .'a cat'.: expected a list of tokens"):
        bleu(["a cat"], [["a", "cat"]])


def test_only_empty_texts_give_zeros_not_errors():
    assert bleu([[], []], [[]])["bleu_5"].value == 0.0
    assert self_bleu([[], []])["self_bleu_2"] == 0.0
    assert distinct([[]])["distinct_2"] == 0.0
    assert ms_jaccard([[]], [[]], [2]) == {"ms_jaccard_2": 0.0}
    assert copy_rate([[]], [["a"]])["longest_copy"].value == 0.0


@pytest.mark.skipif(not COCO.exists(), reason="needs the COCO captions")
@pytest.mark.parametrize(
    ("tokenization", "quality", "repetition"),
    [
        ("treebank", [0.740, 0.520, 0.337, 0.218], [0.906, 0.774, 0.609, 0.452]),
        ("white_space", [0.709, 0.488, 0.310, 0.202], [0.886, 0.745, 0.572, 0.419]),
    ],
)
def test_real_text_has_the_values_of_the_literature(tokenization, quality, repetition):
    files = [(COCO / f"{name}.txt").read_text().splitlines() for name in ("train", "test")]
    train, test = (tokenize(lines, tokenization) for lines in files)
    found, repeated = bleu(train, test), self_bleu(test)
    assert [found[f"bleu_{n}"].value for n in (2, 3, 4, 5)] == pytest.approx(quality, abs=0.001)
    assert [repeated[f"self_bleu_{n}"] for n in (2, 3, 4, 5)] == pytest.approx(repetition, abs=0.001)
