"""What is said to be wrong, and where nothing can be said."""

import random

import pytest

from seqgan_hf.evaluation.catalog import Texts, TextSettings
from seqgan_hf.evaluation.flags import find_flags, short_sighted
from seqgan_hf.evaluation.record import Estimate, Result
from seqgan_hf.evaluation.suite import evaluate_texts
from tests.tools.small_language import REFERENCES, SAMPLERS, TRAIN


SOURCE = random.Random(0)
# real and random words of one alphabet, without a space
REAL = ["".join(SOURCE.choices(("CC", "C(=O)", "c1ccccc1", "N", "O"), k=6)) for _ in range(200)]
NUMBERS = [str(SOURCE.random()) for _ in range(100)]


def texts(*lines, **settings):
    return Texts(lines, TextSettings(**settings).for_texts_of(None))


def verdicts(*arguments, **settings):
    """The flags that say that nothing can be said, and the others."""
    flags = evaluate_texts(*arguments, settings=TextSettings(**settings)).flags
    blind = [flag for flag in flags if flag.startswith("cannot judge: ")]
    return blind, [flag for flag in flags if flag not in blind]


# --- Where nothing can be said ---------------------------------------------------------------------------------------


def test_text_without_spaces_cannot_be_judged_by_its_words():
    blind, _ = verdicts(NUMBERS, REAL[:100], REAL[100:])
    fix = "set --tokenization character"
    assert blind == [f"cannot judge: the median text has 1 token (tokenization white_space): {fix}"]


def test_and_can_by_its_characters():
    blind, flags = verdicts(NUMBERS, REAL[:100], REAL[100:], tokenization="character")
    assert not blind and any("not fluent" in flag for flag in flags) and any("fresh judge" in flag for flag in flags)
    assert verdicts(REAL[50:100], REAL[:50], REAL[100:], tokenization="character") == ([], [])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a b c"] * 3, None),
        (["a b c", "a b d", "a b"], None),  # the median has 3
        (["a b", "a b", "a b c"], "the median text has 2 tokens"),
        (["", "", "a b c"], "the median text has 0 tokens"),
        (["a b c", "d e f", "g h i", "a j k"], "50% of the different texts share no token with another"),
        (["a b c", "d e f", "g h i", "a d k"], None),
        (["a b c"], None),
    ],
)
def test_texts_of_too_few_or_lonely_tokens_are_named(lines, message):
    found = short_sighted(texts(*lines), "evaluation.tokenization")
    if message is None:
        assert found is None
    else:
        assert found == f"{message} (tokenization white_space): set evaluation.tokenization character"


def test_where_characters_are_tokens_already_the_remedy_is_another():
    for lines, fix in ((("ab", "ab"), "give longer texts"), (("abc", "def"), "give more real texts")):
        assert short_sighted(texts(*lines, tokenization="character")).endswith(f"(tokenization character): {fix}")


def test_one_sample_is_no_evidence():
    blind, _ = verdicts(["a man rides a horse ."], REFERENCES, TRAIN)
    assert blind == ["cannot judge: there is 1 sample: give more"]
    assert verdicts(SAMPLERS["real"][:2], REFERENCES, TRAIN)[0] == []


def test_values_without_intervals_are_no_evidence():
    """Self-BLEU and distinct-n of few samples have none."""
    blind, _ = verdicts(SAMPLERS["collapsed"][:10], REFERENCES, TRAIN, ["self_bleu", "distinct"])
    assert [flag.partition(": give")[0] for flag in blind] == [
        "cannot judge: no value has an interval beside one of real text"
    ]
    assert verdicts(SAMPLERS["real"], None, None, ["distinct"])[0][0].endswith("real text: give `references`")
    assert verdicts(SAMPLERS["real"], REFERENCES, TRAIN, ["self_bleu"]) == ([], [])


# --- Lengths ---------------------------------------------------------------------------------------------------------


def test_empty_samples_are_flagged_whatever_is_measured():
    samples = [*SAMPLERS["real"][:90], *[" "] * 10]
    _, flags = verdicts(samples, REFERENCES, TRAIN, ["copy_rate"])
    assert flags == ["10 of 100 samples are empty (0 of 800 real texts)"]
    _, flags = verdicts(samples, [*REFERENCES[:90], *[""] * 10], TRAIN, ["copy_rate"])
    assert flags == []  # as often as in real text


@pytest.mark.parametrize(
    ("samples", "far_off"),
    [
        ([f"{text} {text}" for text in SAMPLERS["real"]], True),
        ([" ".join(text.split()[:3]) for text in SAMPLERS["real"]], True),
        ([f"{text} ." for text in SAMPLERS["real"]], False),
        ([f"{text} {text}" for text in SAMPLERS["real"][:1]], False),  # one length has no interval
    ],
    ids=["long", "short", "near", "one"],
)
def test_lengths_far_off_are_flagged_whatever_is_measured(samples, far_off):
    _, flags = verdicts(samples, REFERENCES, TRAIN, ["copy_rate"])
    assert [flag.endswith("lengths are far off") for flag in flags] == [True] * far_off


# --- Copying ---------------------------------------------------------------------------------------------------------


def test_short_samples_do_not_copy_for_being_short():
    """Nearly all of a sample of one word stands in the training text: a large share, and no long run."""
    evaluation = evaluate_texts([text.split()[0] for text in SAMPLERS["untrained"]], REFERENCES, TRAIN, ["copy_rate"])
    share, tokens = (evaluation.results[name] for name in ("longest_copy_share", "longest_copy"))
    assert share.value > share.real.high and tokens.value < tokens.real.low
    assert not any("copying" in flag for flag in evaluation.flags)


def test_long_samples_do_not_copy_for_being_long():
    long = [" ".join(SAMPLERS["untrained"][number : number + 40]) for number in range(200)]
    evaluation = evaluate_texts(long, REFERENCES, TRAIN, ["copy_rate"])
    share, tokens = (evaluation.results[name] for name in ("longest_copy_share", "longest_copy"))
    assert share.value < share.real.low
    results = evaluation.results | {"longest_copy": Result(9.0, 8.5, 9.5, real=Estimate(4.0, 3.5, 4.5))}
    assert not any("copying" in flag for flag in find_flags(results, evaluation.texts, evaluation.real_texts))


def test_long_runs_of_long_samples_are_named_with_both_values():
    def result(value, real):
        return Result(value, value, value, real=Estimate(real, real, real))

    results = {"longest_copy": result(8.0, 4.0), "longest_copy_share": result(0.9, 0.5)}
    meaning = "longer runs of training text than in held-out text: copying"
    values = "longest_copy 8.000 (real text 4.000), longest_copy_share 0.900 (real text 0.500)"
    flags = find_flags(results, texts(*SAMPLERS["real"]), texts(*REFERENCES))
    assert flags == [f"{values}: {meaning}"]
