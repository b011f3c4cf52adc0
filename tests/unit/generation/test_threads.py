"""Work of generation that is shared out among threads: the same results as by one, whoever is held up."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn

from seqgan_hf import functional
from seqgan_hf.functional import linear_kl, linear_nll
from seqgan_hf.generation import rollouts, verdicts
from seqgan_hf.generation.memory import in_parts, threads_for
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import features, judge, rewards
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import modeling_cnn_discriminator, modeling_products, modeling_threads
from seqgan_hf.objectives import Models, SeqGAN
from tests.tools.tiny import build_discriminator, build_generator


@pytest.fixture(autouse=True)
def several_threads(monkeypatch):
    """Three threads, none of which is left out where pieces sleep, and pieces of a few rows."""
    monkeypatch.setattr(modeling_threads, "_gain", modeling_threads._Gain())
    monkeypatch.setattr(modeling_threads._Gain, "least", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(rollouts, "block_rows", lambda vocab_size, device: 2)
    monkeypatch.setattr("seqgan_hf.generation.sampling.block_rows", lambda vocab_size, device: 2)
    monkeypatch.setattr(verdicts, "LEAST_TOKENS", 12)
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(generator, count: int = 9):
    return sample(generator, start_prompt(generator, count), 6, rng=seeded())


def held_up(module: nn.Module) -> set[int]:
    """Make some calls of a module slow, others not, and note which threads call it."""
    seen: set[int] = set()

    def wait(*_) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.002 * (len(seen) % 2))

    module.register_forward_pre_hook(wait)
    return seen


def with_threads(count: int, run):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("masked", [False, True])
def test_convolutions_of_several_threads_are_those_of_one(masked, monkeypatch):
    """Scores, and the gradients of all parameters, in blocks of a few rows."""
    monkeypatch.setattr(modeling_threads, "LEAST_OPERATIONS", 0)
    monkeypatch.setattr(modeling_cnn_discriminator, "BLOCK", 200)
    discriminator = build_discriminator("cnn").eval()
    ids = torch.randint(5, (20, 7), generator=seeded())
    mask = torch.arange(7) < torch.randint(1, 8, (20, 1), generator=seeded()) if masked else None
    workers = set()
    original = modeling_products.multiply

    def multiply(*factors, **options):
        workers.add(threading.get_ident())
        time.sleep(0.001)
        return original(*factors, **options)

    monkeypatch.setattr(modeling_cnn_discriminator, "multiply", multiply)

    def run() -> list[torch.Tensor]:
        logits = discriminator(ids, attention_mask=mask).logits
        return [logits, *torch.autograd.grad(logits.square().sum(), list(discriminator.parameters()))]

    for found, expected in zip(run(), with_threads(1, run), strict=True):
        assert torch.equal(found, expected)
    assert len(workers - {threading.get_ident()}) > 1


def test_models_that_threads_cannot_share_are_run_by_one():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    assert threads_for(generator) == threads_for(discriminator) == 3
    discriminator.text_reader = lambda samples: {}
    assert threads_for(discriminator) == 1
    generator.to("meta")
    assert threads_for(generator) == 1


@pytest.mark.parametrize("kind", ["lstm", "gpt2", "memory"])
@pytest.mark.parametrize("eos", [True, False])
def test_rollouts_of_several_threads_are_those_of_one(kind, eos):
    generator = build_generator(kind) if eos else build_generator(kind, eos=None)
    samples = drawn(generator)
    if kind == "lstm":
        assert samples.mask.all() != eos

    def run() -> list[torch.Tensor]:
        parts = list(complete(generator, samples, 4, rng=seeded(1)))
        fields = [(part.samples.ids, part.samples.mask, part.row, part.prefix_length) for part in parts]
        return [torch.cat(field) for field in zip(*fields, strict=True)]

    expected = with_threads(1, run)
    seen = held_up(generator.base_model)
    for _ in range(3):
        for found, wanted in zip(run(), expected, strict=True):
            assert torch.equal(found, wanted)
    assert len(seen) > 3


@pytest.mark.parametrize("function", [features, verdicts.realness])
@pytest.mark.parametrize("kind", ["cnn", "rnn", "relgan"])
def test_verdicts_of_several_threads_are_those_of_one(kind, function):
    """`features` reads them where the model passes by, in all threads at the same time."""
    discriminator, samples = build_discriminator(kind), drawn(build_generator("lstm"), 40)
    expected = with_threads(1, lambda: judge(discriminator, samples, function))
    seen = held_up(discriminator)
    for _ in range(3):
        torch.testing.assert_close(judge(discriminator, samples, function), expected)
    assert len(seen) > 1


def test_samples_of_several_threads_are_those_of_one():
    generator = build_generator("lstm")
    expected, found = with_threads(1, lambda: drawn(generator, 50)), drawn(generator, 50)
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.mask, expected.mask)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_rewards_are_the_same_to_the_bit_each_time(dtype):
    """Whatever thread did what: so a run that is resumed ends as one that was not interrupted."""
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    samples, models = drawn(generator), Models(generator, discriminator)
    held_up(discriminator), held_up(generator.base_model)

    def run() -> torch.Tensor:
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            return SeqGAN(rollouts=4).action_values(models, samples, samples)

    expected = run()
    assert all(torch.equal(run(), expected) for _ in range(3))
    torch.testing.assert_close(expected, with_threads(1, run), rtol=0, atol=0.02 if dtype else 1e-5)


def test_memory_that_runs_out_in_a_thread_is_taken_in_smaller_pieces(caplog):
    """No more than `max_rows` at the same time, in all threads together."""
    at_once, most, lock = [0], [0], threading.Lock()

    def needs(rows: slice) -> list[int]:
        count = rows.stop - rows.start
        with lock:
            at_once[0] += count
            most[0] = max(most[0], at_once[0])
        try:
            time.sleep(0.001)
            if count > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return list(range(rows.start, rows.stop))
        finally:
            with lock:
                at_once[0] -= count

    parts = in_parts(nn.Linear(1, 1), "a task", 200, 60, needs, least=2)
    assert [row for part in parts for row in part] == list(range(200))
    assert most[0] <= 60 and "a task ran out of memory; going on with 30 rows at a time" in caplog.text


def test_rollouts_that_run_out_of_memory_in_a_thread_are_taken_in_smaller_walks(caplog, monkeypatch):
    generator = build_generator("lstm")
    samples = drawn(generator)
    expected = [part.row for part in complete(generator, samples, 4, rng=seeded(1))]
    walk = rollouts.walk

    def fails(generator, samples, units, *policy):
        if sum(len(unit.rows) for unit in units) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return walk(generator, samples, units, *policy)

    monkeypatch.setattr(rollouts, "walk", fails)
    monkeypatch.setattr(rollouts, "PIECES_PER_THREAD", 1)
    found = [part.row for part in complete(generator, samples, 4, rng=seeded(1))]
    assert torch.equal(torch.cat(found), torch.cat(expected)) and "rollouts ran out of memory" in caplog.text


def test_scores_need_one_thread_where_rows_are_few():
    discriminator, samples = build_discriminator("cnn"), drawn(build_generator("lstm"), 2)
    seen = held_up(discriminator)
    rewards(discriminator, samples)
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_several_threads_are_those_of_one_and_the_same_each_time(rows, bias, monkeypatch):
    """Of blocks of three rows, in six parts; a larger weight is left to one."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 3)
    monkeypatch.setattr(functional, "LEAST_ROWS", 1)
    head, hidden = nn.Linear(5, 11, bias=bias), torch.randn(rows, 5, requires_grad=True)
    other = (torch.randn(rows, 4), torch.randn(11, 4), None)
    targets, weights, parameters = torch.randint(11, (rows,)), torch.rand(rows), [hidden, *head.parameters()]

    def run() -> list[torch.Tensor]:
        nll, logprobs = linear_nll(hidden, head.weight, head.bias, targets, weights)
        kl, values = linear_kl((hidden, head.weight, head.bias), other, weights, forward=False)
        return [nll, logprobs, kl, values, *torch.autograd.grad(nll + kl, parameters)]

    expected, first = with_threads(1, run), run()
    for found, wanted in zip(first, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(torch.equal(found, wanted) for found, wanted in zip(run(), first, strict=True))
    monkeypatch.setattr(functional, "SHARED_WEIGHT", 54)
    assert all(torch.equal(found, wanted) for found, wanted in zip(run(), expected, strict=True))
