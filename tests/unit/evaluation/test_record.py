"""Estimates and their intervals, against scipy; the jackknife against repeated draws."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from seqgan_hf.evaluation.metrics.distinct import distinct
from seqgan_hf.evaluation.metrics.self_bleu import self_bleu
from seqgan_hf.evaluation.record import Estimate, Result, jackknife
from seqgan_hf.evaluation.suite import evaluate_texts
from tests.tools.small_language import random_texts, sentences


def test_an_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(size=50)
    found = Estimate.of_mean(values)
    expected = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6) and found.value == values.mean()
    assert Estimate.of_mean(values[:1]) == Estimate(values[0])
    assert Estimate.from_error(1.0, math.nan) == Estimate(1.0)


@given(st.integers(1, 400), st.floats(0, 1))
def test_an_interval_of_a_share_is_wilsons(trials, share):
    successes, z2 = round(share * trials), 1.959963985**2
    found = Estimate.of_share(successes, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for bound in (found.low, found.high):  # where the score test has exactly 5%
        assert (found.value - bound) ** 2 == pytest.approx(z2 * bound * (1 - bound) / trials, abs=1e-9)


@given(*[st.floats(-3, 3) for _ in range(2)], st.floats(0, 3))
def test_an_interval_holds_possible_values_and_its_own(value, least, width):
    half, most = abs(value) + 0.1, least + width
    found = Estimate(value, value - half, value + half, "s").within(least, most)
    assert (found.value, found.signature) == (value, "s") and found.low <= value <= found.high
    low, high = np.clip([value - half, value + half], least, most)
    assert found.low == (value if value < least else low) and found.high == (value if value > most else high)
    assert Estimate(value).within(least, most) == Estimate(value)


def test_a_record_is_ready_for_json():
    real = Estimate(math.inf, None, None)
    result = Result(math.nan, 0.0, 1.0, "samples:3", "higher", real)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == {
        "value": None,
        "low": 0.0,
        "high": 1.0,
        "signature": "samples:3",
        "better": "higher",
        "real": {"value": None, "low": None, "high": None, "signature": ""},
    }
    assert Result(1.0).to_dict()["real"] is None


def test_intervals_of_whole_sets_are_students_with_the_jackknifes_error():
    texts = sentences(0, 60)
    found = evaluate_texts(texts, None, None, ["distinct"]).results["distinct_2"]
    tokens = [text.split() for text in texts]
    error = jackknife(lambda rows: {"d": distinct([tokens[i] for i in rows])["distinct_2"]}, 60, 20, 0)["d"]
    assert (found.low, found.high) == pytest.approx(scipy.stats.t.interval(0.95, 19, found.value, error))


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
