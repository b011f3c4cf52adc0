"""Speed of the n-gram metrics at the size at which the field reports them, beside a plain implementation.

The bounds are those for two cores; counting runs on one. Captions are drawn from a small grammar with the length and
roughly the vocabulary of Image COCO.
"""

import random

import pytest

from seqgan_hf.evaluation.metrics.bleu import bleu
from seqgan_hf.evaluation.metrics.judge import judge
from seqgan_hf.evaluation.metrics.lm_score import lm_score
from seqgan_hf.evaluation.metrics.self_bleu import self_bleu
from tests.benchmarks import plain


def captions(seed, number):
    """Texts of 7 to 16 words out of 5,000 with a long tail, every word depending a little on the one before."""
    source = random.Random(seed)
    texts = []
    for _ in range(number):
        text = [0]
        for _ in range(source.randint(7, 16)):
            rank = int(5000 ** source.random()) - 1
            text.append((text[-1] * 7 + rank) % 5000 if source.random() < 0.6 else rank)
        texts.append([str(word) for word in text[1:]])
    return texts


@pytest.fixture(scope="module")
def corpus():
    return captions(0, 100_000)


@pytest.mark.parametrize("size", [10_000, 100_000])
@pytest.mark.benchmark(group="self_bleu")
def test_self_bleu(benchmark, corpus, size):
    benchmark.pedantic(self_bleu, (corpus[:size],), rounds=3, warmup_rounds=1)
    assert benchmark.stats.stats.min <= 1.5 * size / 10_000


@pytest.mark.benchmark(group="self_bleu")
def test_plain_self_bleu(benchmark, corpus):
    found = benchmark.pedantic(plain.self_bleu, (corpus[:10_000],), rounds=1)
    assert found == pytest.approx(self_bleu(corpus[:10_000]), abs=1e-9)


@pytest.mark.parametrize("size", [10_000, 90_000])
@pytest.mark.benchmark(group="bleu")
def test_bleu(benchmark, corpus, size):
    samples, references = corpus[-size:], corpus[:10_000]
    benchmark.pedantic(bleu, (samples, references), rounds=3, warmup_rounds=1)
    assert benchmark.stats.stats.min <= 1.5 * size / 10_000


@pytest.mark.parametrize("metric", [lm_score, judge], ids=lambda metric: metric.__name__)
@pytest.mark.benchmark(group="other")
def test_other_metrics(benchmark, corpus, metric):
    benchmark.pedantic(metric, (corpus[:10_000], corpus[10_000:20_000]), rounds=2)
