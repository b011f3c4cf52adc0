"""Sampling: one matrix over recurrent and attention models."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy import stats

from seqgan_hf.generation import decoder as decoder_module
from seqgan_hf.generation import sampling
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import mix_in_own_tokens, sample, sample_mixture
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.samples import Samples
from tests.tools.drawn import KINDS, exact_logprobs, padded_prompts, rollouts_of, seeded
from tests.tools.tiny import BOS, EOS, PAD, build_generator, limit_memory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_samples_follow_the_models_distribution(kind, padded):
    """Two tokens from every model: frequencies of all pairs against the exact probabilities, by chi-square."""
    generator = build_generator(kind, eos=None, vocab_size=5).eval()
    count = 20_000
    prompt, mask = (torch.tensor([[PAD, BOS, 3]]), torch.tensor([[False, True, True]])) if padded else (None, None)
    prompt = start_prompt(generator, count) if prompt is None else prompt.expand(count, -1)
    mask = None if mask is None else mask.expand(count, -1)
    drawn = sample(generator, prompt, 2, rng=seeded(1), prompt_mask=mask).ids
    pairs = torch.tensor(list(product(range(5), repeat=2)))
    row = Samples(prompt[:25], pairs, torch.ones_like(pairs, dtype=torch.bool), None if mask is None else mask[:25])
    expected = exact_logprobs(generator, row).sum(1).exp().detach().double() * count
    observed = torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25)
    assert stats.chisquare(observed.numpy(), expected.numpy() * count / expected.sum().item()).pvalue > 1e-3


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, every step reads all tokens")
@pytest.mark.parametrize("padded", [False, True])
def test_every_token_is_read_at_its_position(padded):
    """Padding does not count. Some models count from zero in every call unless they are told, so all are told."""
    generator, read = build_generator("gpt2", eos=None), []
    assert decoder_module.has_plain_head(generator)  # tried without positions
    generator.base_model.register_forward_pre_hook(
        lambda module, inputs, options: read.append(options["position_ids"].tolist()), with_kwargs=True
    )
    prompt, mask = padded_prompts() if padded else (start_prompt(generator, 1), None)
    samples = sample(generator, prompt, 3, prompt_mask=mask, max_rows=3)
    if padded:
        assert read == [[[0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]], [[2], [4], [1]], [[3], [5], [2]]]
    else:
        assert read == [[[0]], [[1]], [[2]]]
    read.clear()
    token_logprobs(generator, samples)
    assert read == ([[[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2]]] if padded else [[[0, 1, 2]]])


def test_sequences_end_at_eos_and_are_padded_after_it(generator):
    drawn = sample(generator, start_prompt(generator, 200), 9, rng=seeded(0))
    for ids, mask in zip(drawn.ids.tolist(), drawn.mask, strict=True):
        length = ids.index(EOS) + 1 if EOS in ids else len(ids)
        assert mask.tolist() == [position < length for position in range(len(ids))]
        assert all(token == PAD for token in ids[length:])
    assert 1 < drawn.lengths.float().mean() < 9


@pytest.mark.parametrize("max_rows", [1, 3, 1000])
def test_the_memory_limit_changes_no_sample(generator, max_rows):
    prompt, mask = padded_prompts()
    expected = sample(generator, prompt, 8, rng=seeded(3), prompt_mask=mask)
    limited = sample(generator, prompt, 8, rng=seeded(3), prompt_mask=mask, max_rows=max_rows)
    assert torch.equal(expected.ids, limited.ids) and torch.equal(expected.mask, limited.mask)


def test_a_single_token_is_drawn():
    generator = build_generator("gpt2")
    drawn = sample(generator, start_prompt(generator, 3), 1)
    assert drawn.ids.shape == drawn.mask.shape == (3, 1) and drawn.mask.all() and drawn.ids.dtype == torch.long


def test_the_prompt_of_what_is_drawn_is_the_one_that_was_given():
    generator, (prompt, mask) = build_generator("gpt2"), padded_prompts()
    drawn = sample(generator, prompt, 4, prompt_mask=mask)
    assert torch.equal(drawn.prompt, prompt) and torch.equal(drawn.prompt_mask, mask)


def test_a_coin_between_temperatures_is_flipped_for_every_sequence():
    """Pairs of tokens: a share of .25 at the one temperature and the others at the other, prompts in their order."""
    generator = build_generator("lstm", eos=None, vocab_size=4)
    prompt = torch.randint(0, 4, (40_000, 2), generator=torch.Generator().manual_seed(0))
    prompt = torch.cat([torch.full((40_000, 1), BOS), prompt], dim=1)
    rng = torch.Generator().manual_seed(1)
    drawn = sample_mixture(generator, prompt, 2, (0.3, 3.0), 0.25, rng=rng)
    assert drawn.prompt.equal(prompt)
    groups = [sample(generator, prompt, 2, temperature=t, rng=rng).ids @ torch.tensor([4, 1]) for t in (0.3, 3.0)]
    shares = [torch.bincount(pairs, minlength=16) / 40_000 for pairs in (*groups, drawn.ids @ torch.tensor([4, 1]))]
    torch.testing.assert_close(shares[2], 0.75 * shares[0] + 0.25 * shares[1], rtol=0, atol=0.012)
    assert (shares[0] - shares[1]).abs().max() > 0.1
    alone = sample_mixture(generator, prompt[:50], 2, (0.3, 3.0), 0.0, top_k=1)
    assert alone.ids.equal(sample(generator, prompt[:50], 2, top_k=1).ids)
    with pytest.raises(ValueError, match=r"share=1.5: expected a probability in \[0, 1\]"):
        sample_mixture(generator, prompt, 2, (0.3, 3.0), 1.5)


def test_a_coin_between_temperatures_leaves_padding_unread_and_has_its_own_random_source():
    generator, (prompt, mask) = build_generator("gpt2").eval(), padded_prompts()
    prompt, mask, found = prompt.repeat(4, 1), mask.repeat(4, 1), []
    for seed, padding in ((0, PAD), (1, 7)):
        torch.manual_seed(seed)
        given = prompt.masked_fill(~mask, padding)
        found.append(sample_mixture(generator, given, 5, (0.5, 2.0), 0.5, rng=seeded(3), prompt_mask=mask))
    assert torch.equal(found[0].ids, found[1].ids) and torch.equal(found[0].prompt_mask, mask)


def test_sampling_options_are_honoured():
    generator = build_generator("gpt2", eos=None)
    prompt = start_prompt(generator, 500)
    greedy = generator.eval().generate(prompt[:1], do_sample=False, max_new_tokens=4, min_new_tokens=4)[0, 1:]
    for options in ({"top_k": 1}, {"temperature": 1e-4}, {"top_p": 1e-6}):
        assert (sample(generator, prompt, 4, **options, rng=seeded(0)).ids == greedy).all(), options


@pytest.mark.parametrize(
    ("name", "value"), [("max_new_tokens", 0), ("temperature", 0.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5)]
)
def test_options_out_of_range_are_refused(name, value):
    generator = build_generator("lstm")
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        sample(generator, start_prompt(generator, 2), **({"max_new_tokens": 3} | {name: value}))


def test_training_flags_and_gradients_are_left_as_they_were(generator):
    generator.train()
    drawn = sample(generator, start_prompt(generator, 4), 5)
    assert all(module.training for module in generator.modules())
    list(complete(generator, drawn, 2))
    assert all(module.training for module in generator.modules())
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_out_of_memory_while_sampling_changes_nothing(caplog):
    generator = build_generator("lstm")
    prompt = start_prompt(generator, 20)
    expected = sample(generator, prompt, 7, rng=seeded(0))
    asked = limit_memory(generator, 6)
    limited = sample(generator, prompt, 7, rng=seeded(0))
    assert "sampling ran out of memory; going on with 10 rows at a time" in caplog.text
    assert [rows for rows in asked if rows > 6] == [20, 10] and asked.count(5) >= 4
    assert torch.equal(expected.ids, limited.ids) and torch.equal(expected.mask, limited.mask)


def test_mixing_in_own_tokens_reaches_from_none_to_all():
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 300), 6, rng=seeded(0))._replace(
        ids=torch.randint(13, (300, 6), generator=seeded(9))
    )
    assert torch.equal(mix_in_own_tokens(generator, samples, 0.0), samples.ids)
    half = mix_in_own_tokens(generator, samples, 0.5, rng=seeded(2))[:, :-1]
    changed = (half != samples.ids[:, :-1]).float().mean()
    assert 0.3 < changed < 0.55  # half of the tokens, some of which are replaced by themselves
    own = mix_in_own_tokens(generator, samples, 1.0, rng=seeded(2))
    likely = token_logprobs(generator.eval(), samples._replace(ids=own))[:, :-1].mean()
    assert likely > token_logprobs(generator, samples)[:, :-1].mean() + 0.1


def test_own_tokens_follow_the_models_distribution():
    """As samples do; the last token is never read, so it stays."""
    generator, count = build_generator("lstm", eos=None, vocab_size=4), 20_000
    given = torch.zeros(count, 3, dtype=torch.long)
    samples = Samples(start_prompt(generator, count), given, torch.ones_like(given, dtype=torch.bool))
    mixed = mix_in_own_tokens(generator, samples, 1.0, rng=seeded(4))
    assert (mixed[:, 2] == 0).all() and (samples.ids == 0).all()
    pairs = torch.tensor(list(product(range(4), repeat=2)))
    row = Samples(samples.prompt[:16], pairs, torch.ones_like(pairs, dtype=torch.bool))
    expected = exact_logprobs(generator.eval(), row).sum(1).exp().detach().double() * count
    observed = torch.bincount(mixed[:, 0] * 4 + mixed[:, 1], minlength=16)
    assert stats.chisquare(observed.numpy(), expected.numpy() * count / expected.sum().item()).pvalue > 1e-3


def test_what_is_drawn_depends_on_the_given_random_source_alone():
    generator = build_generator("lstm", eos=None)
    given = sample(generator, start_prompt(generator, 50), 6, rng=seeded(0))
    for draw in (
        lambda rng: sample(generator, given.prompt, 6, rng=rng).ids,
        lambda rng: mix_in_own_tokens(generator, given, 0.5, rng=rng),
        lambda rng: rollouts_of(generator, given, 1, rng=rng)[0].ids,
    ):
        state = torch.get_rng_state()
        first = draw(seeded(3))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, draw(seeded(3))) and not torch.equal(first, draw(seeded(4)))


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_rows_run_at_once_as_fit_into_the_memory_for_caches(kind, monkeypatch):
    """With their whole length, prompt included; at least one, and no more than a limit where rows are small."""
    generator = build_generator(kind)
    prompt = Samples(torch.zeros(5, 3, dtype=torch.long), *[torch.zeros(5, 0).long()] * 2)
    row = decoder_module.Decoder(generator, prompt).bytes_per_row(3 + 7)
    for available, rows in ((10 * row, 10), (10 * row - 1, 9), (row - 1, 1), (10**6 * row, 100)):
        monkeypatch.setattr(sampling, "MAX_CACHE_BYTES", available)
        monkeypatch.setattr(sampling, "MAX_ROWS", 100)
        assert sampling.rows_that_fit(generator, prompt, 7) == rows


def test_cache_size_bounds_the_rows_in_flight(monkeypatch):
    """Keys and values grow with the length, recurrent states do not."""
    for kind, grows in (("lstm", False), ("gpt2", True)):
        generator = build_generator(kind)
        decoder = decoder_module.Decoder(
            generator, Samples(start_prompt(generator, 1), *[torch.zeros(1, 0).long()] * 2)
        )
        ratio = decoder.bytes_per_row(20) / decoder.bytes_per_row(1)
        assert math.isclose(ratio, 20 if grows else 1)
