"""Mixtures of two temperatures: exact densities, what they better, and how a sweep shows it."""

import csv

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seqgan_hf.data import integer_tokenizer
from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.arguments import SuiteSettings
from seqgan_hf.evaluation.envelope import Component, Mixture, better, envelope, mixtures
from seqgan_hf.evaluation.loading import LoadedGenerator, tempered
from seqgan_hf.evaluation.run import evaluate_generator, write_evaluation
from seqgan_hf.evaluation.sweep import draw_sweep
from seqgan_hf.generation.likelihood import sequence_logprobs


def component(temperature: float, seed: int, oracle_nats: float) -> Component:
    logprobs = np.random.default_rng(seed).normal(-20 + seed, 3, 50)
    return Component(temperature, logprobs, 5.0, oracle_nats, 4.0)


def test_a_mixture_has_the_density_of_both_and_the_mean_of_nll_oracle():
    one, other = component(0.5, 0, 12.0), component(1.0, 1, 20.0)
    found = mixtures(one, other)
    assert found[0][:2] == pytest.approx((-other.logprobs.mean() / 5, 5.0))
    assert found[-1][:2] == pytest.approx((-one.logprobs.mean() / 5, 3.0))
    for mixture in found[1:-1]:
        w = mixture.weight
        density = w * np.exp(one.logprobs) + (1 - w) * np.exp(other.logprobs)
        assert mixture == pytest.approx((-np.log(density).mean() / 5, 3 * w + 5 * (1 - w), 0.5, 1.0, w))
        assert mixture.nll_test <= min(found[-1][0] - np.log(w) / 5, found[0][0] - np.log(1 - w) / 5)


def test_nll_oracle_of_samples_of_unequal_length_is_a_ratio_of_sums():
    one, other = component(0.5, 0, 12.0), component(1.0, 1, 20.0)._replace(sample_tokens=10.0)
    half = mixtures(one, other)[50]
    assert half.weight == 0.5 and half.nll_oracle == pytest.approx(16 / 7)


def test_the_envelope_is_what_no_mixture_betters():
    parts = [component(t, seed, nats) for t, seed, nats in ((0.5, 0, 12.0), (0.8, 1, 15.0), (1.0, 2, 20.0))]
    curve = envelope(parts)
    every = [m for pair in ((0, 1), (0, 2), (1, 2)) for m in mixtures(parts[pair[0]], parts[pair[1]])]
    dominated = [any(o.nll_test < m.nll_test and o.nll_oracle < m.nll_oracle for o in every) for m in every]
    assert {m[:2] for m in curve} == {m[:2] for m, bad in zip(every, dominated, strict=True) if not bad}
    assert [m.nll_test for m in curve] == sorted(m.nll_test for m in curve)
    assert envelope(parts[:1]) == []


def test_a_point_inside_is_told_the_coin_that_betters_it():
    curve = [Mixture(1.0, 5.0, 0.5, 1.0, 0.1), Mixture(2.0, 3.0, 0.5, 1.0, 0.6), Mixture(3.0, 2.0, 0.5, 1.0, 0.9)]
    assert better(curve, 2.5, 4.0) == curve[1] and better(curve, 9.0, 9.0) == curve[2]
    assert better(curve, 2.0, 3.0) is None and better(curve, 0.5, 9.0) is None


@pytest.fixture(scope="module")
def points():
    """A generator at three temperatures, and a worse one, beside their oracle."""
    oracle, first, second = (build_oracle(5, hidden_size=8, seed=seed) for seed in (0, 1, 3))
    given = {"num_samples": 400, "max_new_tokens": 4, "metrics": ["distinct"]}
    tokenizer = integer_tokenizer(5)
    a, b = (LoadedGenerator(name, model, tokenizer) for name, model in (("a", first), ("b", second)))
    found = evaluate_generator(a, SuiteSettings(**given, temperatures=[0.6, 1.0, 1.4]), oracle=oracle)
    return found + evaluate_generator(b, SuiteSettings(**given, temperatures=[1.0, 2.0]), oracle=oracle), oracle, a


def test_components_are_those_of_the_tempered_generator(points):
    found, oracle, a = points
    held_out = draw(oracle, 400, 4, seed=2**31)
    for point in found[:3]:
        with tempered(a.model, point.temperature), torch.no_grad():
            expected = sequence_logprobs(a.model, held_out).numpy()
        np.testing.assert_allclose(point.component.logprobs, expected, rtol=1e-5)
        results = point.evaluation.results
        assert results["nll_test"].value == pytest.approx(-expected.mean() / 4)
        assert point.component.oracle_nats / point.component.sample_tokens == results["nll_oracle"].value


def test_a_sweep_draws_the_envelope_and_names_the_points_inside(points, tmp_path):
    found = points[0]
    write_evaluation(found, tmp_path, {})
    curve = envelope([point.component for point in found[:3]])
    with (tmp_path / "envelope.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["nll_test"]) for row in rows] == [mixture.nll_test for mixture in curve]
    figure = draw_sweep(found)
    assert isinstance(figure, Figure)
    axes = next(axes for axes in figure.axes if axes.get_xlabel().startswith("NLL_test"))
    [line] = [line for line in axes.lines if line.get_label() == "coin between two temperatures of a"]
    assert line.get_xydata().tolist() == [[m.nll_test, m.nll_oracle] for m in curve]
    assert "coin between two temperatures of a" in [text.get_text() for text in axes.get_legend().get_texts()]
    for point in found[3:]:
        values = (point.evaluation.results[name].value for name in ("nll_test", "nll_oracle"))
        coin = better(curve, *values)
        [note] = [note for note in point.evaluation.notes if "coin" in note or "envelope" in note]
        assert note.startswith("inside the envelope of a: temperature" if coin else "no coin between two temperatures")
        assert coin is None or f"NLL_test {coin.nll_test:.3f} and NLL_oracle {coin.nll_oracle:.3f}" in note
    assert not any("envelope" in note for point in found[:3] for note in point.evaluation.notes)
    assert any("envelope" in note for point in found for note in point.evaluation.notes)


def test_a_sweep_without_temperatures_or_oracle_has_no_envelope(points, tmp_path):
    write_evaluation(points[0][2:], tmp_path, {})
    assert not (tmp_path / "envelope.csv").exists()
