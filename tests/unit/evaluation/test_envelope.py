"""Mixtures of two temperatures: exact densities, what they better, and how a sweep shows it."""

import csv
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seqgan_hf.data import integer_tokenizer
from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.arguments import SuiteSettings
from seqgan_hf.evaluation.envelope import (
    PLANES,
    Component,
    Mixture,
    better,
    envelope,
    gaps,
    mixed_likelihoods,
)
from seqgan_hf.evaluation.loading import LoadedGenerator, tempered
from seqgan_hf.evaluation.run import evaluate_generator, write_evaluation
from seqgan_hf.evaluation.sweep import curve_of_coins, draw_sweep
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt


KLS, LIKELIHOODS, _, ACCEPTED, *_ = PLANES
P, Q, R = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8]), np.array([0.3, 0.5, 0.2])


def outcomes(distribution: np.ndarray) -> np.ndarray:
    """Outcomes in the very proportions of a distribution over three."""
    return np.repeat(np.arange(3), np.round(distribution * 1000).astype(int))


def components() -> list[Component]:
    """P and Q as generators of one-token sequences; every set of samples has exactly the shares that it should."""
    held_out, samples = outcomes(R), [outcomes(P), outcomes(Q)]
    return [
        Component(t, np.log(g)[held_out], 1.0, [np.log(g)[y] for y in samples], np.log(R)[samples[i]], 1.0)
        for i, (t, g) in enumerate([(0.5, P), (1.0, Q)])
    ]


@pytest.mark.parametrize("w", [0.01, 0.3, 0.5, 0.99])
def test_likelihoods_of_a_mixture_are_those_of_its_distribution(w):
    found = mixed_likelihoods(w, components(), 0, 1, np.log(R)[outcomes(R)])
    mixture = w * P + (1 - w) * Q
    assert found["nll_test"] == found["nll_test_sequence"] == pytest.approx(-(R @ np.log(mixture)))
    assert found["nll_oracle"] == found["nll_oracle_sequence"] == pytest.approx(-(mixture @ np.log(R)))
    assert found["kl_generator_oracle"] == pytest.approx(mixture @ np.log(mixture / R))
    assert found["kl_oracle_generator"] == pytest.approx(R @ np.log(R / mixture))


def test_nll_of_unequal_lengths_is_a_ratio_of_sums():
    one, other = components()
    parts = [one._replace(held_out_tokens=4.0, sample_tokens=4.0), other._replace(sample_tokens=10.0)]
    found = mixed_likelihoods(0.5, parts, 0, 1, np.log(R)[outcomes(R)])
    assert found["nll_oracle"] == pytest.approx(found["nll_oracle_sequence"] / 7)
    assert found["nll_test"] == pytest.approx(found["nll_test_sequence"] / 4)


def test_without_an_oracle_there_is_nll_test_alone():
    assert set(mixed_likelihoods(0.5, components(), 0, 1, None)) == {"nll_test", "nll_test_sequence"}


def test_the_envelope_is_what_nothing_betters():
    places = np.random.default_rng(0).random((200, 2))
    curve = envelope(map(tuple, places))
    good = [place for place in places if not any((other < place).all() for other in places)]
    assert sorted(map(tuple, good)) == list(map(tuple, curve))
    assert len(envelope([])) == 0


def test_gaps_are_distances_to_the_envelope_in_each_axis():
    curve = np.array([[1.0, 5.0], [2.0, 3.0], [4.0, 2.0]])
    assert gaps(curve, 1.5, 3.5) == pytest.approx((0.5, 0.25))  # beyond in both
    assert gaps(curve, 2.0, 4.0) == pytest.approx((-1.0, -0.5))  # inside
    assert gaps(curve, 0.5, 6.0) == pytest.approx((-1.0, 0.5))  # more coverage than any mixture, less quality
    assert gaps(curve, 3.0, 1.0) == pytest.approx((1.5, 1.0))  # better than all of them
    quality, coverage = gaps(curve, 9.0, 1.0)  # what colder samples could do there was not measured
    assert math.isnan(quality) and coverage == pytest.approx(-5.0)


def test_a_point_inside_is_told_the_coin_that_betters_it():
    places = [(0.1, 1.0, 5.0), (0.6, 2.0, 3.0), (0.9, 3.0, 2.0)]
    coins = [Mixture(0.5, 1.0, w, {"nll_test": x, "nll_oracle": y}) for w, x, y in places]
    assert better(coins, LIKELIHOODS, 2.5, 4.0) == coins[1] and better(coins, LIKELIHOODS, 9.0, 9.0) == coins[2]
    assert better(coins, LIKELIHOODS, 2.0, 3.0) is None and better(coins, LIKELIHOODS, 0.5, 9.0) is None
    assert better(coins, KLS, 9.0, 9.0) is None  # nothing is known there
    assert ACCEPTED.place({"nll_test": 1.0, "grammar_acceptance": 0.75}) == (1.0, -0.75)


@pytest.fixture(scope="module")
def points():
    """A generator at three temperatures, and a worse one, beside their oracle."""
    oracle, first, second = (build_oracle(5, hidden_size=8, seed=seed) for seed in (0, 1, 3))
    given = {"num_samples": 400, "max_new_tokens": 4, "metrics": ["distinct"]}
    tokenizer = integer_tokenizer(5)
    a, b = (LoadedGenerator(name, model, tokenizer) for name, model in (("a", first), ("b", second)))
    found = evaluate_generator(a, SuiteSettings(**given, temperatures=[0.6, 1.0, 1.4]), oracle=oracle)
    settings = SuiteSettings(**given, temperatures=[1.0, 2.0], mixtures=False)
    return found + evaluate_generator(b, settings, oracle=oracle), oracle, a


def test_the_exact_nll_of_a_mixture_is_that_of_samples_of_the_coin(points):
    """A million sequences of the coin, counted: their shares are its density."""
    _, oracle, a = points
    settings = SuiteSettings(num_samples=400, max_new_tokens=2, metrics=["distinct"], temperatures=[1.0, 2.0])
    mixture = evaluate_generator(a, settings, oracle=oracle)[0].mixtures[8]
    count, rng = 1_000_000, torch.Generator().manual_seed(5)
    first, start = round(count * mixture.weight), start_prompt(a.model, 1)
    parts = [(first, 1.0), (count - first, 2.0)]
    drawn = torch.cat([sample(a.model, start.expand(n, 1), 2, temperature=t, rng=rng).ids for n, t in parts])
    shares = np.bincount((drawn @ torch.tensor([5, 1])).numpy(), minlength=25) / count
    held_out = draw(oracle, 400, 2, seed=2**31).ids @ torch.tensor([5, 1])
    assert 0.1 < mixture.weight < 0.3
    assert -np.log(shares[held_out.numpy()]).mean() == pytest.approx(mixture.values["nll_test_sequence"], abs=0.01)


def test_mixtures_are_of_the_tempered_generators(points):
    found, oracle, a = points
    held_out = draw(oracle, 400, 4, seed=2**31)
    with torch.no_grad():
        of_oracle = sequence_logprobs(oracle, held_out).numpy()
        logs = []
        for temperature in (0.6, 1.4):
            with tempered(a.model, temperature):
                logs.append(sequence_logprobs(a.model, held_out).numpy())
    for mixture in (m for m in found[0].mixtures if m[:2] == (0.6, 1.4)):
        w = mixture.weight
        density = w * np.exp(logs[0]) + (1 - w) * np.exp(logs[1])
        assert mixture.values["nll_test_sequence"] == pytest.approx(-np.log(density).mean(), rel=1e-5)
        assert mixture.values["kl_oracle_generator"] == pytest.approx((of_oracle - np.log(density)).mean(), rel=1e-4)
        parts = [found[i].values for i in (0, 2)]
        shares = (w, 1 - w)
        linear = sum(share * part["nll_oracle"] for share, part in zip(shares, parts, strict=True))
        assert mixture.values["nll_oracle"] == pytest.approx(linear)
        separate = sum(share * part["kl_generator_oracle"] for share, part in zip(shares, parts, strict=True))
        gained = -sum(share * math.log(share) for share in shares)  # at most the entropy of the coin
        assert separate - gained <= mixture.values["kl_generator_oracle"] <= separate


def test_a_sweep_draws_the_envelope_and_names_the_points_inside(points, tmp_path):
    found = points[0]
    write_evaluation(found, tmp_path, {})
    with (tmp_path / "mixtures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["nll_test"]) for row in rows] == [m.values["nll_test"] for m in found[0].mixtures]
    figure = draw_sweep(found)
    assert isinstance(figure, Figure)
    for axes, plane in zip(figure.axes, (KLS, LIKELIHOODS), strict=True):
        [line] = [line for line in axes.lines if line.get_label() == "coin between two temperatures of a"]
        np.testing.assert_array_equal(line.get_xydata(), curve_of_coins(found, plane))
        for point in found[3:]:
            coin = better(found[0].mixtures, plane, *plane.place(point.values))
            told = [note for note in point.evaluation.notes if f"{plane.x} " in note and f"{plane.y}" in note]
            [note] = [note for note in told if "coin" in note or "envelope" in note]
            assert note.startswith("inside the envelope of a: temperature" if coin else "no coin between two")
            assert coin is None or f"{plane.x} {coin.values[plane.x]:.3f} and {plane.y}" in note
    assert not any("envelope" in note for point in found[:3] for note in point.evaluation.notes)
    assert any("inside the envelope" in note for point in found for note in point.evaluation.notes)


def test_a_sweep_of_one_temperature_has_no_envelope(points, tmp_path):
    write_evaluation(points[0][2:], tmp_path, {})
    assert not (tmp_path / "mixtures.csv").exists()
    assert not len(curve_of_coins(points[0][2:], LIKELIHOODS))
