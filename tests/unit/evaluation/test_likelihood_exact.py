"""Likelihoods against exact values: every sequence of a small oracle is enumerated."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch

from seqgan_hf.data.oracle import build_oracle, draw, load_oracle
from seqgan_hf.evaluation.likelihood import divergences, nll
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.samples import Samples
from tests.tools.tiny import build_generator


PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "oracle_seqgan.safetensors"


def every_sequence(vocab_size: int, length: int) -> Samples:
    ids = torch.tensor(list(product(range(vocab_size), repeat=length)))
    return Samples(torch.zeros(len(ids), 1).long(), ids, torch.ones_like(ids).bool())


def standard_error(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2 / 1.959964


def test_nll_of_own_samples_is_the_entropy():
    """V = 4, T = 3: the entropy of all 64 sequences; and the reported standard error is right."""
    oracle = build_oracle(vocab_size=4, hidden_size=4, seed=1)
    logs = sequence_logprobs(oracle, every_sequence(4, 3))
    assert math.isclose(float(logs.exp().sum()), 1.0, rel_tol=1e-5)
    entropy = float(-(logs.exp() * logs).sum())
    values = nll(oracle, draw(oracle, 20_000, 3, seed=5), "oracle")
    error = standard_error(values["nll_oracle"])
    assert abs(values["nll_oracle"].value - entropy / 3) < 4 * error
    deviation = float(((logs.exp() * logs**2).sum() - entropy**2).sqrt())
    assert math.isclose(error, deviation / 3 / math.sqrt(20_000), rel_tol=0.05)
    assert math.isclose(values["nll_oracle_sequence"].value, 3 * values["nll_oracle"].value, rel_tol=1e-9)


def test_padding_does_not_count_in_nll():
    model = build_generator("lstm").eval()
    ids = torch.tensor([[3, 4, 1, 2, 2], [5, 1, 2, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]).bool()
    short = Samples(torch.zeros(2, 1).long(), ids[:, :3], mask[:, :3])
    long = Samples(torch.zeros(2, 1).long(), ids, mask)
    ours, theirs = nll(model, long, "test"), nll(model, short, "test")
    assert {n: e.value for n, e in ours.items()} == pytest.approx({n: e.value for n, e in theirs.items()})
    assert ours["nll_test"].value == pytest.approx(-float(sequence_logprobs(model, short).sum()) / 5)


def test_divergences_are_the_enumerated_ones():
    generator, oracle = build_oracle(3, hidden_size=4, seed=1), build_oracle(3, hidden_size=4, seed=2)
    g, o = (sequence_logprobs(model, every_sequence(3, 2)).exp() for model in (generator, oracle))
    m = (g + o) / 2
    exact = {
        "kl_generator_oracle": (g * (g / o).log()).sum(),
        "kl_oracle_generator": (o * (o / g).log()).sum(),
        "jsd_oracle": ((g * (g / m).log()).sum() + (o * (o / m).log()).sum()) / 2,
    }
    count = 20_000
    values = divergences(generator, oracle, draw(generator, count, 2, 3), draw(oracle, count, 2, 4))
    for name, value in exact.items():
        assert abs(values[name].value - float(value)) < 4 * standard_error(values[name]), name
        assert 0 < standard_error(values[name]) < 0.1
    itself = divergences(oracle, oracle, draw(oracle, 50, 2, 3), draw(oracle, 50, 2, 4))
    assert itself["kl_generator_oracle"].value == itself["jsd_oracle"].value == 0


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published oracle is not part of the repository")
def test_the_published_oracle_has_its_published_entropy(request):
    if request.config.getoption("--fast-paths") == "off":
        pytest.skip("10,000 sequences of a vocabulary of 5,000 take minutes without a cache")
    oracle = load_oracle(PUBLISHED)
    values = nll(oracle, draw(oracle, 10_000, 20, seed=0), "oracle")
    assert abs(values["nll_oracle"].value - 5.7525) < 0.012
