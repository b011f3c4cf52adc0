"""Speed of the models at the paper's sizes, beside a plain implementation and the floor (arithmetic / matrix rate).

Run with `pytest tests/benchmarks/test_bench_models.py --benchmark-only -s` on an idle machine. Each test measures its
rivals in turns, so that a busy neighbour slows all of them, and prints their best times and ratios.
"""

import time

import pytest
import torch
from torch.nn import functional as F

from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from tests.benchmarks.plain import PlainDiscriminator, PlainMemory


VOCAB, LENGTH, BATCH = 5000, 20, 64
THREADS = 2


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def discriminators():
    """A discriminator and its plain equal, with the same weights."""
    torch.manual_seed(0)
    ours = CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig(vocab_size=VOCAB))
    return ours, PlainDiscriminator(ours)


def matrix_product():
    """A product of matrices of the highway's size by `torch.mm`, in float32: what the floor is made of."""
    a = torch.randn(1720, 1720)
    return lambda: torch.mm(a, a)


def in_turns(functions: dict, rounds: int, clock=time.perf_counter) -> dict:
    """Best milliseconds of each function by a clock, called one after the other, again and again."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            started = clock()
            function()
            best[name] = min(best[name], 1e3 * (clock() - started))
    return best


def report(benchmark, title: str, best: dict, arithmetic: float) -> None:
    """Prints times, and ratios to the plain version and to the floor; `arithmetic` in floating-point operations."""
    floor = arithmetic * best.pop("mm") / (2 * 1720**3)
    plain = best["plain"]
    print(f"\n{title}: floor {floor:.1f} ms")
    for name, value in best.items():
        print(f"  {name:<24} {value:8.1f} ms   {value / plain:5.2f} of plain   {value / floor:5.2f} of the floor")
        benchmark.extra_info[name] = {"ms": value, "of_plain": value / plain, "of_floor": value / floor}


def discriminator_flops() -> int:
    """Multiplications and additions of one forward pass over one sequence of the paper's length."""
    config = CNNDiscriminatorConfig()
    filters = zip(config.filter_sizes, config.num_filters, strict=True)
    convolutions = sum(2 * (LENGTH - size + 1) * number * size * config.embedding_size for size, number in filters)
    return convolutions + 2 * 2 * sum(config.num_filters) ** 2


def test_discriminator_scoring(benchmark, discriminators):
    ours, plain = (model.eval() for model in discriminators)
    ids = torch.randint(0, VOCAB, (2048, LENGTH))
    mask = torch.ones_like(ids, dtype=torch.bool)
    padded = mask.clone()
    padded[:100, 15:] = False

    def run(function, mixed=False):
        def call():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                return function()

        return call

    functions = {
        "mm": matrix_product(),
        "plain": run(lambda: plain(ids)),
        "ours": run(lambda: ours(ids, attention_mask=mask).logits),
        "ours, padded": run(lambda: ours(ids, attention_mask=padded).logits),
        "plain, bfloat16": run(lambda: plain(ids), mixed=True),
        "ours, bfloat16": run(lambda: ours(ids, attention_mask=mask).logits, mixed=True),
    }
    torch.testing.assert_close(functions["ours"](), functions["plain"](), atol=1e-4, rtol=1e-4)
    best = in_turns(functions, rounds=5)
    report(benchmark, "scoring 2,048 sequences", best, 2048 * discriminator_flops())
    benchmark.pedantic(functions["ours"], rounds=3)


def test_discriminator_training_step(benchmark, discriminators):
    ours, plain = discriminators
    ids, labels = torch.randint(0, VOCAB, (BATCH, LENGTH)), torch.arange(BATCH) % 2
    mask = torch.ones_like(ids, dtype=torch.bool)
    padded = mask.clone()
    padded[:10, 15:] = False

    def step(model, function, mixed=False):
        def call():
            model.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss = F.cross_entropy(function(), labels)
            loss.backward()

        return call

    functions = {
        "mm": matrix_product(),
        "plain": step(plain, lambda: plain(ids)),
        "ours": step(ours, lambda: ours(ids, attention_mask=mask).logits),
        "ours, padded": step(ours, lambda: ours(ids, attention_mask=padded).logits),
        "plain, bfloat16": step(plain, lambda: plain(ids), mixed=True),
        "ours, bfloat16": step(ours, lambda: ours(ids, attention_mask=mask).logits, mixed=True),
    }
    ours.eval(), plain.eval()  # without dropout the gradients are comparable
    functions["ours"](), functions["plain"]()
    torch.testing.assert_close(ours.highway_gate.weight.grad, plain.gate.weight.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.embed_tokens.weight.grad, plain.embedding.weight.grad, atol=1e-5, rtol=1e-5)
    ours.train(), plain.train()
    best = in_turns(functions, rounds=20)
    report(benchmark, "a training step on 64 sequences", best, 3 * BATCH * discriminator_flops())
    benchmark.pedantic(functions["ours"], rounds=5)


def test_generator_cached_step(benchmark):
    """One token for 10,000 rows: the trunk, the bare arithmetic of its cell, and the output layer that follows."""
    rows = 10_000
    torch.manual_seed(0)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=VOCAB)).eval()
    layer, ids = generator.model.layers[0], torch.randint(0, VOCAB, (rows, 1))
    h, c = torch.randn(rows, 32), torch.randn(rows, 32)
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    mask = torch.ones(rows, 5, dtype=torch.long)
    cache = generator.base_model(ids, use_cache=True).past_key_values

    def start():
        cache.layers[0].keys, cache.layers[0].values = h, c
        return cache

    @torch.no_grad()
    def cell():
        return torch.lstm_cell(generator.model.embed_tokens(ids[:, 0]), (h, c), *weights)[0]

    @torch.no_grad()
    def trunk():
        return generator.base_model(ids, past_key_values=start(), use_cache=True).last_hidden_state

    @torch.no_grad()
    def trunk_with_mask():
        return generator.base_model(ids, attention_mask=mask, past_key_values=start(), use_cache=True)[0]

    @torch.no_grad()
    def output_layer():
        return generator.lm_head(h)

    torch.testing.assert_close(trunk()[:, 0], cell(), atol=1e-6, rtol=0)
    functions = {
        "mm": matrix_product(),
        "plain": cell,
        "ours": trunk,
        "ours, with a mask": trunk_with_mask,
        "output layer": output_layer,
    }
    best = in_turns(functions, rounds=20)
    report(benchmark, "a cached step of 10,000 rows", best, rows * 2 * 4 * 32 * 64)
    benchmark.pedantic(trunk, rounds=5)


@pytest.mark.parametrize("head_size", [64, 256])
@pytest.mark.parametrize("training", [False, True], ids=["scoring", "training"])
def test_relational_memory(benchmark, training, head_size):
    """All memories of 64 sequences, with and without a backward pass, beside a loop over single steps.

    On one thread and by processor time, since small products on two threads mostly wait for each other.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = RelationalMemoryForCausalLM(RelationalMemoryConfig(vocab_size=100, head_size=head_size)).model.memory
    plain, embedded = PlainMemory(ours), torch.randn(BATCH, LENGTH, ours.config.embedding_size)
    towards = torch.randn(BATCH, LENGTH, ours.config.memory_size)

    def run(model, function):
        def call():
            model.zero_grad(set_to_none=True)
            with torch.set_grad_enabled(training):
                states = function()
            if training:
                (states * towards).sum().backward()
            return states.detach()

        return call

    functions = {
        "mm": matrix_product(),
        "plain": run(plain, lambda: plain(embedded)),
        "ours": run(ours, lambda: ours(embedded, ours.start(embedded), None)),
    }
    torch.testing.assert_close(functions["ours"](), functions["plain"](), atol=1e-4, rtol=1e-4)
    best = in_turns(functions, 12, time.process_time)
    width, tokens = ours.config.memory_size, BATCH * LENGTH
    step = (3 + 2 + 4) * width**2  # queries, keys and values; gates; the network over both rows
    beside = 5 * width * ours.config.embedding_size  # what hangs on the input alone, through the embeddings
    name = f"{'training' if training else 'scoring'}, width {width}"
    report(benchmark, name, best, (3 if training else 1) * 2 * tokens * (step + beside))
    benchmark.pedantic(functions["ours"], rounds=3)
