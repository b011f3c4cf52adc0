"""Likelihood evaluators: what they return, and under which settings."""

import copy
import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.likelihood import (
    LIKELIHOODS,
    HeldOutNLL,
    OracleNLL,
    calibration,
    divergences,
    measure_likelihoods,
    nll,
)
from seqgan_hf.generation.likelihood import sequence_logprobs, tempered_logprobs, token_logprobs
from seqgan_hf.generation.vocabulary import suppressing


@pytest.fixture(scope="module")
def synthetic():
    """A generator and an oracle of one vocabulary, samples and held-out sequences."""
    generator, oracle = (build_oracle(vocab_size=7, embedding_size=4, hidden_size=4, seed=seed) for seed in (0, 1))
    return generator, oracle, draw(generator, 30, 6, seed=2), draw(oracle, 20, 6, seed=3)


def test_evaluators_return_signed_estimates(synthetic):
    generator, oracle, samples, held_out = synthetic
    found = HeldOutNLL(held_out).evaluate(generator, samples, seed=5)
    found |= OracleNLL(oracle, held_out).evaluate(generator, samples, seed=5)
    expected = nll(generator, held_out, "test") | nll(generator, samples, "div") | nll(oracle, samples, "oracle")
    expected |= LIKELIHOODS["oracle_divergence"](
        generator=generator, oracle=oracle, samples=samples, held_out=held_out
    )
    assert (
        found["jsd_oracle"].high == math.log(2) < divergences(generator, oracle, samples, held_out)["jsd_oracle"].high
    )
    assert {n: (e.value, e.low, e.high) for n, e in found.items()} == {
        n: (e.value, e.low, e.high) for n, e in expected.items()
    }
    drawn = "vocabulary:7|samples:30|held_out:20|temperature:1|seed:5|version:1"
    for name, estimate in found.items():
        per = "token" if name in ("nll_test", "nll_div", "nll_oracle") else "sequence"
        assert estimate.signature == f"per:{per}|{drawn}"


def test_tokens_that_are_never_written_are_left_out_and_counted(synthetic):
    """A held-out word that training did not show has no probability: the others are measured, and it is told."""
    generator, _, samples, held_out = synthetic
    unknown = held_out.ids == 3
    assert 0 < int(unknown.sum()) < held_out.ids.numel() and len(held_out.ids[~unknown].unique()) == 6
    with suppressing(generator, {3}):
        drawn = samples._replace(ids=torch.where(samples.ids == 3, 4, samples.ids))
        found = HeldOutNLL(held_out).evaluate(generator, drawn, seed=5)
        logprobs = token_logprobs(generator, held_out).masked_fill(unknown, 0.0)
    assert found["nll_test"].value == pytest.approx(float(-logprobs.sum() / (~unknown).sum()), rel=1e-5)
    assert found["nll_test_sequence"].value == pytest.approx(float(-logprobs.sum(1).mean()), rel=1e-5)
    for estimate in found.values():
        assert f"|suppressed:1|left_out:{int(unknown.sum())}|" in estimate.signature


def test_what_is_not_given_is_not_measured(synthetic):
    generator, _, samples, held_out = synthetic
    given = {"generator": generator, "samples": samples, "held_out": held_out}
    found = measure_likelihoods(LIKELIHOODS, 0, 0.7, 6, **given)
    assert found.keys() == {"nll_div", "nll_div_sequence", "nll_test", "nll_test_sequence"}
    assert found["nll_test"].better == "lower" and found["nll_div"].better == "real"
    assert "|temperature:0.7|" in found["nll_div"].signature
    assert found["nll_div"].signature.endswith("|max_new_tokens:6")


def test_the_interval_of_a_ratio_is_that_of_repeated_draws(synthetic):
    """Sequences of unequal length: the per-token value is a ratio of sums."""
    generator, _, _, _ = synthetic
    samples = draw(generator, 400, 6, seed=4)
    mask = torch.arange(6) < torch.randint(1, 7, (400, 1), generator=torch.Generator().manual_seed(0))
    samples = samples._replace(mask=mask)
    found = nll(generator, samples, "test")["nll_test"]
    rng = torch.Generator().manual_seed(1)
    nats = [nll(generator, samples.select(row), "x")["nll_x"].value for row in map(slice, range(400), range(1, 401))]
    sums, lengths = torch.tensor(nats) * samples.lengths, samples.lengths
    draws = torch.randint(400, (2000, 400), generator=rng)
    error = (sums[draws].sum(1) / lengths[draws].sum(1)).std()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * float(error), rel=0.1)


@pytest.mark.parametrize(("factor", "expected"), [(40.0, 4.0), (0.01, 0.25), (3.0, 3.0)])
def test_few_passes_find_it_and_none_leaves_its_bounds(factor, expected, monkeypatch):
    writer = build_oracle(vocab_size=7, embedding_size=4, hidden_size=4, seed=1)
    held_out, passes = draw(writer, 2000, 8, seed=3), []

    def counted(*arguments):
        passes.append(arguments)
        return tempered_logprobs(*arguments)

    monkeypatch.setattr("seqgan_hf.evaluation.likelihood.tempered_logprobs", counted)
    with torch.no_grad():
        for parameter in writer.get_output_embeddings().parameters():
            parameter.mul_(factor)
    found = calibration(writer, held_out)["calibration_temperature"]
    assert found.value == pytest.approx(expected, rel=0.1) and len(passes) <= 8


def test_the_temperature_is_found_at_which_held_out_text_is_likeliest():
    """A generator that is sharper than the one that wrote the text, by a factor that is known."""
    writer = build_oracle(vocab_size=7, embedding_size=4, hidden_size=4, seed=1)
    held_out, sharper = draw(writer, 3000, 8, seed=3), copy.deepcopy(writer)
    with torch.no_grad():
        for parameter in sharper.get_output_embeddings().parameters():
            parameter.mul_(1.5)
    found = measure_likelihoods(("calibration", "nll_test"), 0, generator=sharper, samples=held_out, held_out=held_out)
    assert found["calibration_temperature"].value == pytest.approx(1.5, abs=0.08)
    gain = found["calibration_gain"]
    fitted = -sequence_logprobs(sharper, held_out, temperature=found["calibration_temperature"].value).sum()
    assert gain.value == pytest.approx(found["nll_test"].value - float(fitted) / int(held_out.mask.sum()), abs=1e-6)
    assert 0 < gain.low < gain.value < gain.high
    best = minimize_scalar(
        lambda x: -float(sequence_logprobs(sharper, held_out, temperature=math.exp(x)).sum()), bounds=(-1.0, 1.0)
    )
    assert found["calibration_temperature"].value == pytest.approx(math.exp(best.x), abs=2e-3)
    own = measure_likelihoods(("calibration",), 0, generator=writer, samples=held_out, held_out=held_out)
    assert own["calibration_temperature"].value == pytest.approx(1.0, abs=0.06)
    assert not measure_likelihoods(
        ("calibration",), 0, temperature=0.5, generator=writer, samples=held_out, held_out=held_out
    ), "of the generator as it is only"
