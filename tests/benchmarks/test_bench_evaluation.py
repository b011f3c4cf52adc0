"""Speed of the n-gram metrics at the size at which the field reports them, beside a plain implementation.

The bounds are those for two cores; counting runs on one. Captions are drawn from a small grammar with the length and
roughly the vocabulary of Image COCO.
"""

import math
import random
from collections import Counter, defaultdict

import pytest

from seqgan_hf.evaluation.bleu import bleu
from seqgan_hf.evaluation.judge import judge
from seqgan_hf.evaluation.language_model import lm_score
from seqgan_hf.evaluation.self_bleu import self_bleu


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


def plain_self_bleu(samples, orders=(2, 3, 4, 5)):
    """The same in dictionaries: the two largest counts of every n-gram and who holds the largest."""
    best = [defaultdict(lambda: (0, -1, 0)) for _ in range(max(orders))]
    grams = [[Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for n in range(1, 6)] for t in samples]
    for row, counters in enumerate(grams):
        for table, counter in zip(best, counters, strict=True):
            for gram, count in counter.items():
                first, owner, second = table[gram]
                table[gram] = (count, row, first) if count > first else (first, owner, max(second, count))
    lengths = Counter(map(len, samples))
    totals = dict.fromkeys(orders, 0.0)
    for row, (text, counters) in enumerate(zip(samples, grams, strict=True)):
        logs = []
        for table, counter in zip(best, counters, strict=True):
            matched = sum(min(c, table[g][2] if table[g][1] == row else table[g][0]) for g, c in counter.items())
            logs.append(math.log((matched or 0.1) / max(1, sum(counter.values()))))
        assert lengths[len(text)] > 1  # so that no brevity penalty is due
        for n in orders:
            totals[n] += math.exp(sum(logs[:n]) / n)
    return {f"self_bleu_{n}": totals[n] / len(samples) for n in orders}


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
    found = benchmark.pedantic(plain_self_bleu, (corpus[:10_000],), rounds=1)
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
