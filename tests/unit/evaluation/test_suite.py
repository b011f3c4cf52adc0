"""The suite, from texts to values with intervals, real text beside them, flags and notes."""

import json
import math
import random
import re
import sys

import numpy as np
import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation import catalog
from seqgan_hf.evaluation.catalog import METRICS, Measurement, TextSettings, get_metric
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.evaluation.suite import evaluate_texts, measure, real_text_row
from tests.tools.small_language import REFERENCES, SAMPLERS, TRAIN, encoder


def word_lengths(texts):
    return np.array([len(text) / (1 + text.count(" ")) for text in texts])


@pytest.fixture(scope="module")
def evaluations():
    settings = TextSettings(encoder=encoder, accepts=lambda text: text.endswith("."), judge_lm=word_lengths)
    metrics = [name for name in METRICS if name != "mauve"]
    return {name: evaluate_texts(samples, REFERENCES, TRAIN, metrics, settings) for name, samples in SAMPLERS.items()}


# --- What the metrics see --------------------------------------------------------------------------------------------

RANKS = [  # metric, samplers from the least to the greatest value
    ("bleu_3", ["untrained", "real"]),
    ("self_bleu_3", ["untrained", "real", "collapsed"]),
    ("distinct_2", ["collapsed", "real", "untrained"]),
    ("ms_jaccard_3", ["untrained", "real"]),
    ("ms_jaccard_3", ["collapsed", "real"]),
    ("copy_rate", ["untrained", "real", "copying"]),
    ("lm_score", ["copying", "real", "untrained"]),
    ("reverse_lm_score", ["real", "untrained"]),
    ("reverse_lm_score", ["real", "collapsed"]),
    ("fed", ["real", "untrained"]),
    ("fed", ["real", "collapsed"]),
    ("judge_accuracy", ["real", "untrained"]),
    ("judge_accuracy", ["real", "collapsed"]),
    ("grammar_acceptance", ["untrained", "real"]),
]


@pytest.mark.parametrize(("metric", "order"), RANKS, ids=[f"{m}-{'<'.join(o)}" for m, o in RANKS])
def test_samplers_rank_as_they_should(evaluations, metric, order):
    results = [evaluations[name].results[metric] for name in order]
    for lower, higher in zip(results, results[1:], strict=False):
        assert lower.value < higher.value
        if None not in (lower.high, higher.low):
            assert lower.high < higher.low


def test_real_samples_raise_no_flag(evaluations):
    assert evaluations["real"].flags == []


@pytest.mark.parametrize(
    ("sampler", "words"),
    [("untrained", "not fluent"), ("collapsed", "lack of diversity"), ("copying", "copying")],
)
def test_each_failure_is_flagged(evaluations, sampler, words):
    assert any(words in flag for flag in evaluations[sampler].flags)


def test_bleu_above_real_text_is_flagged_as_mode_seeking():
    text = max(REFERENCES, key=lambda text: (REFERENCES.count(text), text))
    evaluation = evaluate_texts([text] * 100, REFERENCES, TRAIN, ["bleu"])
    assert evaluation.results["bleu_5"].value > evaluation.results["bleu_5"].real.value
    assert any("bleu_5" in flag and "mode seeking" in flag for flag in evaluation.flags)


# --- Real text, intervals, signatures --------------------------------------------------------------------------------


def measurement(samples, references=REFERENCES, train=TRAIN, **settings):
    return Measurement.of(samples, references, train, settings=TextSettings(**settings))


def test_real_row_of_a_comparison_is_training_text_against_references():
    measured = measurement(SAMPLERS["untrained"])
    assert real_text_row("bleu", measured) == measure("bleu", measurement(TRAIN))


def test_real_row_of_samples_alone_is_that_of_the_references():
    measured = measurement(SAMPLERS["untrained"])
    for name in ("self_bleu", "copy_rate", "lm_score"):
        assert real_text_row(name, measured) == measure(name, measurement(REFERENCES))


def test_real_row_has_as_many_texts_as_there_are_samples():
    few, all_of_them = (real_text_row("distinct", measurement(SAMPLERS["real"][:size])) for size in (50, 800))
    assert few["unique_ngrams_3"].value < all_of_them["unique_ngrams_3"].value
    assert few["distinct_2"].value > 0.2 > all_of_them["distinct_2"].value  # 800 texts hardly have new bigrams


def test_real_row_without_training_text_leaves_each_reference_out():
    measured = measurement(SAMPLERS["untrained"], train=None)
    row, alone = real_text_row("bleu", measured), measurement(REFERENCES).measure("self_bleu")
    assert {n: row[f"bleu_{n}"].value for n in (2, 5)} == {n: alone[f"self_bleu_{n}"] for n in (2, 5)}
    assert 0.8 < real_text_row("ms_jaccard", measured)["ms_jaccard_2"].value < 0.99  # two halves of the references


def test_every_value_has_a_signature_and_nearly_every_one_an_interval(evaluations):
    for name, result in evaluations["untrained"].results.items():
        assert "seed:0" in result.signature and "version:" in result.signature
        assert result.real is not None
        if result.low is None:  # facts about the set at hand, and what leaving samples out does not move (all differ)
            assert name.startswith(("length_", "unique_", "distinct_", "judge_p")) or result.value in (0, 1), name
        else:
            assert result.low <= result.value <= result.high, name


def test_signature_names_the_settings():
    evaluation = evaluate_texts(["a b c"] * 3, ["a b", "c"], None, ["bleu"], TextSettings("treebank", True, seed=7))
    assert evaluation.results["bleu_3"].signature == (
        "samples:3|references:2|tokenization:treebank|case:lower|n:3|smoothing:method1|brevity:closest|seed:7|version:1"
    )


# --- Bad and odd input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], REFERENCES), "0 samples: expected generated texts. Check the samples file or `num_samples`."),
        ((["a"], None, None, ["bleu"]), "Metric 'bleu' needs real held-out texts (`references`). Give it, or drop"),
        ((["a"], REFERENCES, None, ["lm_score"]), "Metric 'lm_score' needs the training texts (`train`). Give"),
        ((["a"], REFERENCES, None, ["blue"]), "metric 'blue': expected one of bleu"),
        ((["a"], REFERENCES, None, ["fed"]), "Metric 'fed' needs a sentence encoder (`encoder`). Give"),
        ((["a"], REFERENCES, None, ["grammar"]), "Metric 'grammar' needs a function that says whether"),
        ((["a"], REFERENCES, None, ["self_bleu"]), "1 samples: expected at least 2. Give more samples."),
        ((["a"], REFERENCES, None, ["json.dumps"]), "metric 'json.dumps' has the parameters obj"),
        (("a man rides", REFERENCES), "the text 'a man rides': expected a list of texts. Put"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate_texts(*arguments)


def test_one_sample_is_measured_and_what_cannot_be_is_said():
    evaluation = evaluate_texts(["a man ."], REFERENCES, TRAIN)
    assert "bleu_2" in evaluation.results and "self_bleu_2" not in evaluation.results
    assert any("self_bleu" in note and "2 texts or more" in note for note in evaluation.notes)
    assert evaluation.results["bleu_2"].low is None
    json.dumps(evaluation.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "samples",
    [["", "", ""], ["a", "b", "c"], ["é ü", "é ü"], ["白 日 依 山 尽"] * 5],
    ids=["empty", "one_word", "unicode", "chinese"],
)
def test_odd_texts_are_measured(samples):
    evaluation = evaluate_texts(samples, [*samples, "a b"], samples)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert {"bleu_5", "self_bleu_5", "lm_score", "copy_rate"} <= evaluation.results.keys()


def test_repeated_lines_are_noted():
    evaluation = evaluate_texts(["a b", "a b", "c d"], ["a b", "c", "c"], ["a b"], ["bleu"])
    assert "1 of 3 samples repeat an earlier one" in evaluation.notes
    assert "1 of 3 references repeat an earlier one" in evaluation.notes
    assert any("1 different texts stand both" in note for note in evaluation.notes)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("train", [None, 1, 3])
def test_few_real_texts_give_no_row_but_all_the_rest(size, train):
    evaluation = evaluate_texts(REFERENCES[10:70], REFERENCES[:size], TRAIN[:train] if train else None)
    assert "bleu_2" in evaluation.results and evaluation.results["self_bleu_2"].value > 0
    if size == 1:
        assert evaluation.results["self_bleu_2"].real is None
        assert any("no row of real text for self_bleu: too few" in note for note in evaluation.notes)


def test_an_interval_ends_where_values_end_and_is_none_where_nothing_moves():
    evaluation = evaluate_texts(TRAIN[:60], REFERENCES[:60], None, ["ms_jaccard", "distinct"])
    assert all(0 <= r.low <= r.high <= 1 for n, r in evaluation.results.items() if n.startswith("ms_jaccard"))
    different = evaluate_texts([f"w{i} v{i}" for i in range(60)], None, None, ["distinct"])
    assert different.results["distinct_1"].value == 1 and different.results["distinct_1"].low is None


RARE, COMMON = ["a b c", "x y z", "x y w", "v w x"], ["x y z w", "x y w z", "y z w x"]


@pytest.mark.parametrize("seed", range(6))
def test_no_interval_reaches_beyond_what_is_possible(seed):
    """A few texts with much spread: 1.96 standard errors, or the jackknife's, reach below 0 and above 1."""
    source = random.Random(seed)
    samples, references, train = (
        [*source.choices(COMMON, k=45), *source.choices(RARE, k=k)] for k in (source.choice((0, 1, 2)), 1, 2)
    )
    metrics = [name for name in METRICS if name not in ("mauve", "grammar", "judge_lm")]
    settings = TextSettings(encoder=lambda texts: np.array([[len(text), text.count("x")] for text in texts]))
    results = evaluate_texts(samples, references, train, metrics, settings).results
    counted = ("unique_ngrams", "length_", "longest_copy", "fed", "lm_score", "reverse_lm_score")
    for name, result in results.items():
        most = math.inf if name.startswith(counted) and not name.endswith("_share") else 1
        for estimate in (result, result.real):
            if estimate.low is not None:
                least = -6 if name == "emb_sim" else 0
                assert least <= estimate.low <= estimate.value <= estimate.high <= most, name


@pytest.mark.parametrize(("metric", "name"), [("distinct", "distinct_1"), ("copy_rate", "longest_copy_share")])
def test_the_interval_of_a_share_ends_at_1(metric, name):
    different = [f"a{i} b{i} c{i}" for i in range(58)]
    samples = [*different, "a0 b0 d", "a0 b0 d"]
    found = evaluate_texts(samples, different, different, [metric]).results[name]
    assert found.low < found.value < found.high == 1.0


@pytest.mark.parametrize(("metric", "name"), [("bleu", "bleu_5"), ("copy_rate", "longest_copy")])
def test_the_interval_of_a_mean_ends_at_0(metric, name):
    samples = ["x y z w v"] + ["q r s"] * 30
    found = evaluate_texts(samples, ["x y z w v"] * 2, ["x y z w v"] * 2, [metric]).results[name]
    assert found.low == 0.0 < found.value < found.high


def test_a_metric_of_ones_own_has_no_bounds(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_metrics", sys.modules[__name__])
    evaluation = evaluate_texts(["a", "b b"], None, None, ["my_metrics.minus_length"])
    assert evaluation.results["minus_length"].low < -1.5


def minus_length(samples):
    return {"minus_length": Estimate.of_mean(-np.array([len(text) for text in samples], dtype=float))}


def test_texts_may_come_as_an_array():
    expected = evaluate_texts(SAMPLERS["real"][:50], REFERENCES, None, ["bleu"]).results["bleu_2"].value
    arrays = [np.array(texts) for texts in (SAMPLERS["real"][:50], REFERENCES)]
    assert evaluate_texts(*arrays, None, ["bleu"]).results["bleu_2"].value == expected


# --- Metrics of one's own --------------------------------------------------------------------------------------------


def ends_in_full_stop(sample_texts):
    return {"full_stop": sum(text.endswith(".") for text in sample_texts) / len(sample_texts)}


def test_a_metric_of_ones_own_by_dotted_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_metrics", sys.modules[__name__])
    evaluation = evaluate_texts(SAMPLERS["real"], REFERENCES, None, ["my_metrics.ends_in_full_stop"])
    assert evaluation.results["full_stop"].value == 1.0
    assert "function:my_metrics.ends_in_full_stop" in evaluation.results["full_stop"].signature


def test_every_metric_asks_for_known_inputs():
    for name in METRICS:
        assert get_metric(name).inputs and set(get_metric(name).inputs) <= set(catalog.INPUTS)
