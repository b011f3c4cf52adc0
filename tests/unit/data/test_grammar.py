"""Grammars: parsing, probabilities and entropy against enumeration, a second parser, and Monte Carlo."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data.grammar import ENGLISH_RULES, Grammar, english_grammar


AMBIGUOUS = {"S": {"N": 0.6, "S_ P S": 0.4}, "S_": {"N": 0.7, "N P N": 0.3}, "N": {"a": 0.5, "b": 0.5}, "P": {"+": 1}}
FINITE = {
    "S": {"A B": 0.75, "": 0.25},
    "A": {"x": 0.9, "y x": 0.1},
    "B": {"": 0.3, "z C": 0.7},
    "C": {"": 0.6, "A": 0.4},
}
BRACKETS = {"S": {"( S ) S": 0.3, "": 0.7}}


def derivations(grammar: Grammar, names=None, depth: int = 12):
    """Every (sentence, probability) by brute force, one entry a derivation, up to a number of expansions."""
    names = (grammar.start,) if names is None else names
    for place, name in enumerate(names):
        if name in grammar.rules:
            if depth == 0:
                return
            for rule, probability in grammar.rules[name]:
                for sentence, rest in derivations(grammar, names[:place] + rule + names[place + 1 :], depth - 1):
                    yield sentence, probability * rest
            return
    yield " ".join(names), 1.0


@pytest.fixture(scope="module")
def english() -> Grammar:
    return english_grammar()


def test_finite_language_is_known_exactly():
    grammar = Grammar(FINITE, start="S")
    probabilities: dict[str, float] = {}
    for sentence, probability in derivations(grammar):
        probabilities[sentence] = probabilities.get(sentence, 0.0) + probability
    assert sum(probabilities.values()) == pytest.approx(1.0)
    for sentence, probability in probabilities.items():
        assert grammar.log_probability(sentence) == pytest.approx(math.log(probability))
    for length in range(6):
        for words in itertools.product("xyz", repeat=length):
            assert grammar.accepts(" ".join(words)) == (" ".join(words) in probabilities)
    expected = -sum(p * math.log(p) for p in probabilities.values())
    assert grammar.entropy() == pytest.approx(expected)
    assert grammar.mean_length() == pytest.approx(sum(p * len(s.split()) for s, p in probabilities.items()))


def test_probability_of_an_ambiguous_sentence_is_the_sum_of_its_parses():
    grammar = Grammar(AMBIGUOUS, start="S")
    summed: dict[str, list[float]] = {}
    for sentence, probability in derivations(grammar, depth=16):
        summed.setdefault(sentence, []).append(probability)
    several = {s: p for s, p in summed.items() if len(s.split()) == 5}  # a + a + a: all parses lie within the depth
    assert max(map(len, several.values())) == 2
    for sentence, parts in several.items():
        assert grammar.log_probability(sentence) == pytest.approx(math.log(sum(parts)))
    with pytest.raises(ValueError, match="may be ambiguous .before 'a', S may be 'N' or 'S_ P S'"):
        grammar.entropy()


def test_dangling_else_is_found_ambiguous():
    """A conflict that only shows in what may follow an empty rule."""
    grammar = Grammar({"S": {"if S E": 0.3, "x": 0.7}, "E": {"else S": 0.5, "": 0.5}}, start="S")
    one_parse = 2 * math.log(0.3) + 2 * math.log(0.5) + 2 * math.log(0.7)
    assert grammar.log_probability("if if x else x") == pytest.approx(math.log(2) + one_parse)
    with pytest.raises(ValueError, match="before 'else', E may be 'else S' or ''"):
        grammar.entropy()


def test_brackets_against_counting():
    """An infinite language whose sentences are simple to parse in another way."""
    grammar = Grammar(BRACKETS, start="S")
    for length in range(9):
        for words in itertools.product("()", repeat=length):
            depths = list(itertools.accumulate(1 if word == "(" else -1 for word in words))
            balanced = all(depth >= 0 for depth in depths) and (not depths or depths[-1] == 0)
            expected = (length / 2) * math.log(0.3) + (length / 2 + 1) * math.log(0.7) if balanced else -math.inf
            assert grammar.log_probability(" ".join(words)) == pytest.approx(expected)
    # Branching: S -> ( S ) S has 2 S, so the number of brackets solves m = 0.3 (2 + 2 m).
    assert grammar.mean_length() == pytest.approx(0.6 / (1 - 0.6))
    steps = 1 / (1 - 0.6)
    assert grammar.entropy() == pytest.approx(-steps * (0.3 * math.log(0.3) + 0.7 * math.log(0.7)))


def test_english_grammar_has_one_parse_for_every_sentence(english):
    assert english.ll1_conflict() is None
    for symbol, alternatives in ENGLISH_RULES.items():
        assert len(set(alternatives)) == len(alternatives), symbol
    reached = {english.start}
    while True:
        more = {n for s in reached for rule, _ in english.rules[s] for n in rule if n in english.rules} | reached
        if more == reached:
            break
        reached = more
    assert reached == set(english.rules)  # no rule is dead


def test_entropy_and_length_against_monte_carlo(english):
    rng = np.random.default_rng(0)
    sentences = [english.sample(rng) for _ in range(4000)]
    surprise = -np.array([english.log_probability(sentence) for sentence in sentences])
    lengths = np.array([len(sentence.split()) for sentence in sentences])
    assert np.isfinite(surprise).all()
    for sample, exact in ((surprise, english.entropy()), (lengths, english.mean_length())):
        error = sample.std(ddof=1) / math.sqrt(len(sample))
        assert abs(sample.mean() - exact) < 4 * error
        assert error < 0.02 * exact  # and the test could tell a wrong value


def test_sentences_come_with_their_probability(english):
    """Frequencies of short sentences agree with `log_probability` (chi-square)."""
    from scipy.stats import chisquare

    rng = np.random.default_rng(1)
    drawn = [english.sample(rng) for _ in range(20_000)]
    common = sorted(s for s in set(drawn) if english.log_probability(s) > math.log(1e-3))
    assert len(common) > 15
    counted = Counter(drawn)
    counts = [counted[s] for s in common]
    expected = [20_000 * math.exp(english.log_probability(s)) for s in common]
    rest = 20_000 - sum(expected)
    assert chisquare([*counts, 20_000 - sum(counts)], [*expected, rest]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("sentence", "accepted"),
    [
        ("the dogs near a house sleep .", True),
        ("  the dogs near  a house sleep . ", True),
        ("the dogs near a house sleeps .", False),  # agreement across a modifier
        ("the dog that sees the cats sleeps .", True),
        ("the dog that see the cats sleeps .", False),
        ("they say that this farmer is very happy and he runs .", True),
        ("they says that this farmer is happy .", False),
        ("a small old man often helps her .", True),
        ("two man sleep .", False),
        ("the dog sleeps", False),
        ("the dog sleeps . .", False),
        ("", False),
        ("the zebra sleeps .", False),
        ("<unk> sleeps .", False),
    ],
)
def test_what_is_english(english, sentence, accepted):
    assert english.accepts(sentence) is accepted
    assert (english.log_probability(sentence) > -math.inf) is accepted


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_changed_sentences_are_judged_by_parsing_alone(seed, data):
    """Dropping a word gives a sentence that is accepted only if a search over rules finds it."""
    grammar = english_grammar()
    words = grammar.sample(np.random.default_rng(seed)).split()
    place = data.draw(st.integers(0, len(words) - 1))
    changed = words[:place] + words[place + 1 :]
    assert grammar.accepts(" ".join(changed)) == recognised(grammar, [grammar.start], changed)


def recognised(grammar: Grammar, pending: list[str], words: list[str]) -> bool:
    """A backtracking recogniser without tables."""
    if not pending:
        return not words
    name, rest = pending[0], pending[1:]
    if name not in grammar.rules:
        return bool(words) and words[0] == name and recognised(grammar, rest, words[1:])
    return any(recognised(grammar, [*rule, *rest], words) for rule, _ in grammar.rules[name])


def test_long_sentences_neither_overflow_nor_underflow(english):
    sentence = "the dog " + "near the dog " * 300 + "sleeps ."
    assert -5000 < english.log_probability(sentence) < -1000
    flat = " and ".join(["he sleeps"] * 3000) + " ."
    assert english.accepts(flat) and not english.accepts(flat + " .")


def test_samples_are_the_same_for_the_same_generator_state(english):
    draws = [[english.sample(rng) for _ in range(5)] for rng in (np.random.default_rng(7), np.random.default_rng(7))]
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"T": {"a": 1}}, "start='S'"),
        ({"S": {"a": 0.0}}, "positive, finite weights"),
        ({"S": {"a": 1.0, "b": math.nan}}, "positive, finite weights"),
        ({"S": {"a": math.inf}}, "positive, finite weights"),
        ({"S": {}}, "positive, finite weights"),
        ({"S": {"S a": 0.5, "a": 0.5}}, "can begin with itself"),
        ({"S": {"E S a": 0.5, "a": 0.5}, "E": {"": 1.0}}, "can begin with itself"),
        ({"S": {"a S S": 0.5, "b": 0.5}}, "expand 1.000-fold"),
    ],
)
def test_impossible_grammars_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        Grammar(rules, start="S")
