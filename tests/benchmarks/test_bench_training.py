"""The paper's sizes (V = 5000, T = 20, LSTM 32/32, B = 64, N = 16): ours beside plain code and the arithmetic.

pytest tests/benchmarks/test_bench_training.py --benchmark-only -s
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from seqgan_hf.objectives import MLE, Reinforce, SeqGAN
from seqgan_hf.samples import Samples
from seqgan_hf.sampling import sample, start_prompt
from seqgan_hf.scoring import rewards

from .conftest import median_seconds


VOCAB, LENGTH, BATCH, ROLLOUTS = 5000, 20, 64, 16
GENERATOR_FLOP_A_TOKEN = 2 * 32 * VOCAB
DISCRIMINATOR_FLOP_A_SEQUENCE = 27e6


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=VOCAB, initializer_range=0.5)).eval()


@pytest.fixture(scope="module")
def discriminator():
    torch.manual_seed(0)
    return CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig(vocab_size=VOCAB)).eval()


@torch.no_grad()
def plain_continue(generator, ids: torch.Tensor, length: int) -> torch.Tensor:
    """One token after another, by softmax and `torch.multinomial`."""
    start = torch.zeros(len(ids), 1, dtype=torch.long)
    output = generator(input_ids=torch.cat([start, ids], dim=1), use_cache=True)
    while True:
        token = torch.multinomial(output.logits[:, -1].softmax(-1), 1)
        ids = torch.cat([ids, token], dim=1)
        if ids.shape[1] == length:
            return ids
        output = generator(input_ids=token, past_key_values=output.past_key_values, use_cache=True)


@torch.no_grad()
def plain_action_values(generator, discriminator, samples: Samples, rollouts: int) -> torch.Tensor:
    """The loop that every peer writes: over rollouts, over prefixes, over the tokens that remain."""
    values = torch.zeros(samples.ids.shape)
    for _ in range(rollouts):
        for t in range(1, LENGTH):
            whole = plain_continue(generator, samples.ids[:, :t], LENGTH)
            values[:, t - 1] += discriminator(input_ids=whole).logits.softmax(-1)[:, 1] / rollouts
        values[:, -1] += discriminator(input_ids=samples.ids).logits.softmax(-1)[:, 1] / rollouts
    return values


class PlainLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(VOCAB, 32), nn.LSTM(32, 32, batch_first=True)
        self.output = nn.Linear(32, VOCAB)

    def forward(self, ids):
        return self.output(self.lstm(self.embedding(ids))[0])


class PlainCNN(nn.Module):
    """The paper's discriminator in `nn.Conv1d`."""

    def __init__(self, config: CNNDiscriminatorConfig):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, config.embedding_size)
        sizes = list(zip(config.filter_sizes, config.num_filters, strict=True))
        self.filters = nn.ModuleList(nn.Conv1d(config.embedding_size, count, width) for width, count in sizes)
        total = sum(config.num_filters)
        self.transform, self.gate, self.output = nn.Linear(total, total), nn.Linear(total, total), nn.Linear(total, 2)

    def forward(self, ids):
        embedded = self.embedding(ids).transpose(1, 2)
        pooled = torch.cat([convolution(embedded).relu().amax(-1) for convolution in self.filters], dim=1)
        gate = self.gate(pooled).sigmoid()
        return self.output(F.dropout(gate * self.transform(pooled).relu() + (1 - gate) * pooled, 0.25))


def report(name: str, ours: float, plain: float | None = None, floor: float | None = None) -> None:
    parts = [f"\n{name}: ours {ours:.3f} s"]
    if plain is not None:
        parts.append(f"plain {plain:.3f} s, {plain / ours:.1f} times as fast ({ours / plain:.2f} of plain)")
    if floor is not None:
        parts.append(f"arithmetic at the matrix rate {floor:.3f} s, {ours / floor:.2f} of it")
    print("; ".join(parts))


def test_rollout_rewards(benchmark, generator, discriminator, matrix_rate):
    torch.manual_seed(0)
    samples = sample(generator, start_prompt(generator, BATCH), LENGTH)
    objective = SeqGAN(rollouts=ROLLOUTS)
    ours = benchmark.pedantic(objective.action_values, (generator, discriminator, samples), rounds=5, warmup_rounds=1)
    # One rollout of the plain loop is timed; both estimates of Q agree within their sampling errors.
    few = 4
    plain = plain_action_values(generator, discriminator, samples, few)
    seconds = median_seconds(lambda: plain_action_values(generator, discriminator, samples, 1), 1) * ROLLOUTS
    rows = BATCH * ROLLOUTS * (LENGTH - 1)
    tokens = BATCH * ROLLOUTS * sum(range(1, LENGTH))
    floor = (rows * DISCRIMINATOR_FLOP_A_SEQUENCE + tokens * GENERATOR_FLOP_A_TOKEN) / matrix_rate
    report("rollout rewards, B 64, N 16", benchmark.stats.stats.median, seconds, floor)
    torch.testing.assert_close(ours[:, -1], rewards(discriminator, samples))
    difference = (ours - plain)[:, :-1]
    # rewards lie in [0, 1]: a mean over 64 sentences of the difference has a standard error of at most this
    bound = 0.5 * (1 / ROLLOUTS + 1 / few) ** 0.5 / BATCH**0.5
    assert (difference.mean(0).abs() < 4 * bound).all()


def test_sampling(benchmark, generator):
    count = 10_000
    benchmark.pedantic(lambda: sample(generator, start_prompt(generator, count), LENGTH), rounds=5, warmup_rounds=1)
    batch = torch.zeros(64, 0, dtype=torch.long)
    plain = median_seconds(lambda: plain_continue(generator, batch, LENGTH), 5) * count / 64
    report("sampling 10,000 x 20", benchmark.stats.stats.median, plain)


def test_mle_epoch(benchmark, generator):
    """Timed on 20 of the 157 batches."""
    ids = torch.randint(VOCAB, (BATCH, LENGTH))
    samples = Samples(torch.zeros(BATCH, 1, dtype=torch.long), ids, torch.ones_like(ids, dtype=torch.bool))
    model = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=VOCAB))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)

    def ours():
        for _ in range(20):
            MLE().generator_loss(model, None, samples, None).value.backward()
            optimizer.step()
            optimizer.zero_grad()

    plain_model = PlainLSTM()
    plain_optimizer = torch.optim.Adam(plain_model.parameters(), lr=0.01)
    read = torch.cat([torch.zeros(BATCH, 1, dtype=torch.long), ids[:, :-1]], dim=1)

    def plain():
        for _ in range(20):
            F.cross_entropy(plain_model(read).flatten(0, 1), ids.flatten()).backward()
            plain_optimizer.step()
            plain_optimizer.zero_grad()

    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    scale = 157 / 20
    report("MLE epoch", benchmark.stats.stats.median * scale, median_seconds(plain, 5) * scale)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_discriminator_epoch(benchmark, precision):
    """Timed on 10 of the 313 batches of 64."""
    ids = torch.randint(VOCAB, (64, LENGTH))
    half = Samples(torch.zeros(32, 1, dtype=torch.long), ids[:32], torch.ones(32, LENGTH, dtype=torch.bool))
    other = half._replace(ids=ids[32:])
    config = CNNDiscriminatorConfig(vocab_size=VOCAB)
    model = CNNDiscriminatorForSequenceClassification(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    objective = Reinforce()

    def ours():
        for _ in range(10):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = objective.discriminator_loss(model, half, other).value
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    plain_model = PlainCNN(config)
    plain_optimizer = torch.optim.Adam(plain_model.parameters(), lr=1e-4)
    labels = torch.arange(64).lt(32).long()

    def plain():
        for _ in range(10):
            F.cross_entropy(plain_model(ids), labels).backward()
            plain_optimizer.step()
            plain_optimizer.zero_grad()

    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    seconds = median_seconds(plain, 5) * 31.3
    report(f"D epoch of 20,000, {precision} (plain: float32)", benchmark.stats.stats.median * 31.3, seconds)
