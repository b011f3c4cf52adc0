"""Sampling, rollouts and log-probabilities: one matrix over recurrent and attention models."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_hf import functional
from seqgan_hf.generation import decoder as decoder_module
from seqgan_hf.generation import likelihood, rollouts, sampling
from seqgan_hf.generation.likelihood import full_kl, sequence_logprobs, token_logprobs, weighted_nll
from seqgan_hf.generation.modes import evaluating
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import mix_in_own_tokens, sample, sample_mixture
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, EOS, PAD, build_generator, limit_memory


KINDS = ["lstm", "gru", "memory", "gpt2", "llama"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padded_prompts() -> tuple[torch.Tensor, torch.Tensor]:
    prompt = torch.tensor([[PAD, PAD, BOS, 5], [BOS, 5, 6, 7], [PAD, PAD, PAD, BOS]])
    return prompt, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)


def exact_logprobs(generator, samples: Samples) -> torch.Tensor:
    """Row by row, without padding, cache or blocks."""
    rows = torch.zeros(samples.ids.shape)
    for row in range(samples.batch_size):
        prompt = samples.prompt[row][samples.attention_mask[row, : samples.prompt.shape[1]]]
        ids = samples.ids[row][samples.mask[row]]
        logits = generator(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        rows[row, : len(ids)] = logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
    return rows


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


# --- Rollouts --------------------------------------------------------------------------------------------------------


def rollouts_of(generator, samples, rollouts, **options):
    parts = list(complete(generator, samples, rollouts, **options))
    whole = Samples.concatenate([part.samples for part in parts])
    rows, lengths = (torch.cat([getattr(part, name) for part in parts]) for name in ("row", "prefix_length"))
    return whole, rows, lengths


def test_every_rollout_keeps_its_own_sentence_and_prefix(generator):
    """Sentences are traced by their tokens: each completion must start with its own sentence's prefix."""
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    whole, rows, lengths = rollouts_of(generator, samples, rollouts=3, rng=seeded(1))
    wanted = {(row, t): 3 for row in range(6) for t in range(1, int(samples.lengths[row]))}
    found: dict[tuple[int, int], int] = {}
    for ids, mask, row, t in zip(whole.ids, whole.mask, rows.tolist(), lengths.tolist(), strict=True):
        found[row, t] = found.get((row, t), 0) + 1
        assert torch.equal(ids[:t], samples.ids[row, :t]) and mask[:t].all()
    assert found == wanted
    for ids, mask in zip(whole.ids.tolist(), whole.mask.tolist(), strict=True):
        length = ids.index(EOS) + 1 if EOS in ids else len(ids)
        assert mask == [position < length for position in range(len(ids))]
        assert all(token == PAD for token in ids[length:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_completions_follow_the_models_distribution(kind, padded):
    """The last two tokens after every prefix, against their exact probabilities: the caches were the right ones."""
    generator = build_generator(kind, eos=None, vocab_size=4).eval()
    prompt, mask = (torch.tensor([[PAD, BOS], [BOS, 3]]), torch.tensor([[False, True], [True, True]]))
    if not padded:
        prompt, mask = prompt[:, 1:] * 0, None
    samples = Samples(prompt, torch.tensor([[3, 1, 2], [0, 2, 2]]), torch.ones(2, 3, dtype=torch.bool), mask)
    count = 3_000
    whole, rows, lengths = rollouts_of(generator, samples, count, rng=seeded(5))
    for row, t in product(range(2), (1, 2)):
        mine = whole.ids[(rows == row) & (lengths == t)]
        endings = torch.tensor(list(product(range(4), repeat=3 - t)))
        ids = torch.cat([samples.ids[row, :t].expand(len(endings), -1), endings], dim=1)
        case = samples.select(torch.full((len(ids),), row))._replace(ids=ids, mask=torch.ones_like(ids).bool())
        expected = exact_logprobs(generator, case)[:, t:].sum(1).exp().detach().double()
        weights = 4 ** torch.arange(2 - t, -1, -1)
        observed = torch.bincount((mine[:, t:] * weights).sum(1), minlength=len(ids))
        expected = expected / expected.sum() * count
        assert stats.chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3, (row, t)


def test_only_prefixes_of_chosen_lengths_are_completed(generator):
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    whole, rows, lengths = rollouts_of(generator, samples, 3, rng=seeded(1), prefix_lengths=[5, 2, 9])
    wanted = sorted((row, t) for row in range(6) for t in (2, 5) if t < samples.lengths[row] for _ in range(3))
    assert sorted(zip(rows.tolist(), lengths.tolist(), strict=True)) == wanted
    chosen, *_ = rollouts_of(generator, samples, 3, rng=seeded(1), prefix_lengths=range(1, 7))
    every, *_ = rollouts_of(generator, samples, 3, rng=seeded(1))
    assert torch.equal(chosen.ids, every.ids)


def test_all_completions_may_end_before_the_next_prefixes_join():
    generator = build_generator("lstm").eval()
    with torch.no_grad():
        generator.lm_head.bias[EOS] = 50.0
    ids = torch.full((3, 8), 4)
    samples = Samples(start_prompt(generator, 3), ids, torch.ones_like(ids, dtype=torch.bool))
    whole, _, lengths = rollouts_of(generator, samples, 2, prefix_lengths=[1, 6])
    assert lengths.tolist() == [1] * 6 + [6] * 6
    assert torch.equal(whole.mask.sum(dim=1), lengths + 1), "EOS at once"


@pytest.mark.parametrize("max_rows", [1, 7, 30])
def test_the_row_budget_changes_no_rollout(generator, max_rows):
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    expected = rollouts_of(generator, samples, 3, rng=seeded(1))
    limited = rollouts_of(generator, samples, 3, rng=seeded(1), max_rows=max_rows)
    for ours, theirs in zip(limited, expected, strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_row_budget_is_kept(monkeypatch):
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 4), 6, rng=seeded(0))
    parts = list(complete(generator, samples, 5, max_rows=11))
    assert max(len(part.row) for part in parts) == 8  # two rollouts of four rows: three would be too many


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="the reference reads all prefixes anew")
def test_no_row_is_fed_that_nobody_waits_for():
    """Three sequences of four tokens, two completions each, prefix length by prefix length: rows of every step.

    The sampled sequences leave when the last prefix is handed over, and nothing is fed after the last token.
    """
    generator, rows, steps = build_generator("lstm", eos=None), [], []
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    generator.base_model.register_forward_pre_hook(
        lambda module, arguments, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    for _ in complete(generator, samples, 2, max_rows=6):
        steps.append(list(rows))
        rows.clear()
    assert steps == [[3, 6, 6], [3, 6], [3]]


def test_completed_prefixes_are_counted_for_reports_of_speed():
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    before = rollouts.rollouts_done()
    list(complete(generator, samples, 2, max_rows=6))
    assert rollouts.rollouts_done() - before == 2 * 3 * 3


def test_out_of_memory_halves_the_budget_and_changes_nothing(caplog):
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    expected = rollouts_of(generator, samples, 4, rng=seeded(1))
    limit_memory(generator, 18)  # the six sequences and two rollouts of each
    limited = rollouts_of(generator, samples, 4, rng=seeded(1))
    assert "rollouts ran out of memory; going on with" in caplog.text
    for ours, theirs in zip(limited, expected, strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    caplog.clear()
    rollouts_of(generator, samples, 4, rng=seeded(1))
    assert not caplog.text, "what fits is remembered"


def test_out_of_memory_while_sampling_changes_nothing(caplog):
    generator = build_generator("lstm")
    prompt = start_prompt(generator, 20)
    expected = sample(generator, prompt, 7, rng=seeded(0))
    asked = limit_memory(generator, 6)
    limited = sample(generator, prompt, 7, rng=seeded(0))
    assert "sampling ran out of memory; going on with 10 rows at a time" in caplog.text
    assert [rows for rows in asked if rows > 6] == [20, 10] and asked.count(5) >= 4
    assert torch.equal(expected.ids, limited.ids) and torch.equal(expected.mask, limited.mask)


def test_other_errors_are_not_taken_for_memory():
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 6), 4, rng=seeded(0))
    generator.config.vocab_size = 3  # ids beyond it cannot be embedded
    generator.set_input_embeddings(torch.nn.Embedding(2, 6))
    with pytest.raises(IndexError):
        list(complete(generator, samples, 1))


def test_sequences_that_ended_take_no_rollouts():
    generator = build_generator("gpt2")
    ids = torch.tensor([[EOS, PAD, PAD], [4, EOS, PAD]])
    samples = Samples(start_prompt(generator, 2), ids, torch.tensor([[1, 0, 0], [1, 1, 0]]).bool())
    _, rows, lengths = rollouts_of(generator, samples, 2)
    assert rows.tolist() == [1, 1] and lengths.tolist() == [1, 1]
    whole = samples.select(slice(0, 1))
    assert list(complete(generator, whole, 2)) == []


def test_rollouts_of_zero_are_refused():
    generator = build_generator("lstm")
    with pytest.raises(ValueError, match="rollouts=0: expected at least 1"):
        list(complete(generator, sample(generator, start_prompt(generator, 2), 3), 0))


# --- Log-probabilities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_logprobs_are_those_of_unpadded_rows(generator, padded, monkeypatch):
    monkeypatch.setattr(likelihood, "block_rows", lambda vocab_size, device: 5)
    generator.eval()
    prompt, mask = padded_prompts() if padded else (start_prompt(generator, 3), None)
    samples = sample(generator, prompt, 6, rng=seeded(2), prompt_mask=mask)
    expected = exact_logprobs(generator, samples)
    torch.testing.assert_close(token_logprobs(generator, samples), expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn(samples.ids.shape, generator=seeded(4))
    loss, logprobs = weighted_nll(generator, samples, weights)
    torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, -(weights * expected).sum(), rtol=1e-4, atol=1e-4)


def test_both_losses_have_the_gradient_of_the_plain_formula(generator, monkeypatch):
    monkeypatch.setattr(likelihood, "block_rows", lambda vocab_size, device: 5)
    generator.eval()
    samples = sample(generator, start_prompt(generator, 4), 6, rng=seeded(2))
    weights = torch.randn(samples.ids.shape, generator=seeded(4))
    parameters = list(generator.parameters())

    def gradient(loss):
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    plain = gradient(-(weights * exact_logprobs(generator, samples)).sum())
    for loss in (-(weights * token_logprobs(generator, samples)).sum(), weighted_nll(generator, samples, weights)[0]):
        for ours, theirs in zip(gradient(loss), plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """The most numbers that one operation returned."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else [results]:
            self.size = max(self.size, result.numel() if isinstance(result, torch.Tensor) else 0)
        return results


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="plain code holds all logits")
@pytest.mark.parametrize(
    "compute",
    [
        lambda generator, samples: token_logprobs(generator, samples).sum(),
        lambda generator, samples: weighted_nll(generator, samples, torch.ones(4, 6))[0],
        lambda generator, samples: full_kl(generator, build_generator("gru", None, 5000), samples, torch.ones(4, 6))[
            0
        ],
    ],
    ids=["token_logprobs", "weighted_nll", "full_kl"],
)
def test_no_loss_holds_the_logits_of_all_tokens(compute, monkeypatch):
    """Neither forward nor backward: with a large vocabulary they would take most of the memory."""
    for module in (functional, likelihood):
        monkeypatch.setattr(module, "block_rows", lambda vocab_size, device: 5)
    generator = build_generator("lstm", eos=None, vocab_size=5000)
    samples, kept = sample(generator, start_prompt(generator, 4), 6, rng=seeded(2)), []
    with (
        LargestTensor() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        compute(generator, samples).backward()
    assert largest.size < samples.ids.numel() * 5000
    assert not [tensor.shape for tensor in kept if tensor.shape[-1:] == (5000,) and len(tensor) <= 5]


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="plain code computes padding, too")
@pytest.mark.parametrize("left_out", [True, False])
def test_padding_takes_no_logits_on_a_cpu(left_out, monkeypatch):
    """Accelerators compute it, rather than wait for the number of tokens."""
    monkeypatch.setattr(likelihood, "LEAVE_PADDING_OUT", {"cpu"} if left_out else set())
    generator, rows = build_generator("lstm"), []
    samples = sample(generator, start_prompt(generator, 20), 6, rng=seeded(2))
    nll = likelihood.linear_nll
    monkeypatch.setattr(
        likelihood, "linear_nll", lambda hidden, *others: (rows.append(len(hidden)), nll(hidden, *others))[1]
    )
    weighted_nll(generator, samples, torch.ones(20, 6))
    assert rows == [int(samples.mask.sum()) if left_out else 120] and not samples.mask.all()


def test_a_loss_may_read_other_tokens_than_it_predicts(generator):
    """As scheduled sampling does: y_t is predicted from what was read before it."""
    generator.eval()
    samples = sample(generator, start_prompt(generator, 4), 6, rng=seeded(2))
    read = torch.randint(3, 13, (4, 6), generator=seeded(3))
    logits = generator(torch.cat([samples.prompt, read[:, :-1]], dim=1)).logits
    expected = logits.log_softmax(-1).gather(2, samples.ids[..., None]).squeeze(2).masked_fill(~samples.mask, 0.0)
    loss, logprobs = weighted_nll(generator, samples, torch.ones(4, 6), read)
    torch.testing.assert_close(logprobs, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, -expected.sum(), rtol=1e-4, atol=1e-4)


def test_losses_and_the_trial_of_a_head_keep_no_cache():
    """The keys and values of all positions would wait for the backward pass."""
    generator, caches = build_generator("gpt2"), []
    generator.base_model.register_forward_hook(lambda module, inputs, output: caches.append(output.past_key_values))
    assert decoder_module.has_plain_head(generator)
    samples = Samples(start_prompt(generator, 2), torch.full((2, 3), 4), torch.ones(2, 3, dtype=torch.bool))
    token_logprobs(generator, samples), weighted_nll(generator, samples, torch.ones(2, 3))
    assert caches == [None] * 4  # two of them to try the head


def test_weights_of_half_precision_do_not_round_the_log_probabilities(generator):
    samples, weights = sample(generator, start_prompt(generator, 4), 6, rng=seeded(2)), torch.ones(4, 6)
    with evaluating(generator):
        expected = weighted_nll(generator, samples, weights)[1]
        found = weighted_nll(generator, samples, weights.bfloat16())[1]
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_out_of_memory_while_likelihoods_are_computed_changes_nothing(monkeypatch, caplog):
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 5), 4, rng=seeded(0))
    expected, logprobs = sequence_logprobs(generator, samples), likelihood.token_logprobs

    def fails_on_large_batches(generator, samples, temperature):
        if samples.batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return logprobs(generator, samples, temperature)

    monkeypatch.setattr(likelihood, "token_logprobs", fails_on_large_batches)
    torch.testing.assert_close(sequence_logprobs(generator, samples), expected)
    assert caplog.messages == ["likelihoods ran out of memory; going on with 2 rows at a time"]


def test_padding_has_no_influence_on_losses(generator):
    """More padding, of any content, changes neither log-probabilities nor the loss."""
    generator.eval()
    samples = sample(generator, start_prompt(generator, 5), 6, rng=seeded(2))
    noise = torch.randint(3, 13, (5, 3), generator=seeded(6))
    wider = samples._replace(
        ids=torch.cat([torch.where(samples.mask, samples.ids, 7), noise], dim=1),
        mask=torch.cat([samples.mask, torch.zeros_like(noise, dtype=torch.bool)], dim=1),
    )
    ours, theirs = token_logprobs(generator, wider), token_logprobs(generator, samples)
    torch.testing.assert_close(ours[:, :6], theirs)
    assert (ours[:, 6:] == 0).all()
    left, _ = weighted_nll(generator, wider, torch.ones(wider.ids.shape))
    right, _ = weighted_nll(generator, samples, torch.ones(samples.ids.shape))
    torch.testing.assert_close(left, right)


def test_a_head_that_is_not_plain_is_not_bypassed():
    """A model that caps its logits must be used through its own forward."""
    capped = build_generator("lstm")
    forward = capped.forward

    def capping(*arguments, **options):
        output = forward(*arguments, **options)
        output.logits = torch.tanh(output.logits)
        return output

    capped.forward = capping
    capped.eval()
    assert not decoder_module.has_plain_head(capped)
    samples = sample(capped, start_prompt(capped, 4), 5, rng=seeded(0))
    torch.testing.assert_close(token_logprobs(capped, samples), exact_logprobs(capped, samples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [lambda logits: 1.01 * logits, lambda logits: logits + 0.01])
def test_a_head_is_not_bypassed_for_a_small_difference(change):
    generator = build_generator("gpt2")
    forward = generator.forward

    def changed(*arguments, **options):
        output = forward(*arguments, **options)
        output.logits = change(output.logits)
        return output

    generator.forward = changed
    assert not decoder_module.has_plain_head(generator)


def test_a_head_is_tried_once_a_model():
    generator, calls = build_generator("gpt2"), []
    generator.register_forward_pre_hook(lambda *_: calls.append(1))
    assert [decoder_module.has_plain_head(generator) for _ in range(3)] == [True] * 3 and calls == [1]


def test_a_head_of_another_kind_is_no_plain_product():
    """Quantized and offloaded weights: their own `forward` knows how to read them."""

    class Quantized(torch.nn.Linear):
        pass

    assert decoder_module.is_plain_product(torch.nn.Linear(2, 3))
    assert not decoder_module.is_plain_product(Quantized(2, 3))
    assert not decoder_module.is_plain_product(torch.nn.Linear(2, 3, device="meta"))


def triple_logits(head):
    head.register_forward_hook(lambda module, inputs, output: 3 * output)


def triple_features(head):
    head.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))


def replace_forward(head):
    forward = head.forward
    head.forward = lambda features: 3 * forward(features)


@pytest.mark.parametrize("change", [triple_logits, triple_features, replace_forward])
@pytest.mark.parametrize("tried_before", [False, True])
def test_what_is_done_to_the_head_counts_everywhere(change, tried_before):
    """Hooks, and a `forward` that was replaced, as offloading does: sampling and both losses go through them."""
    generator = build_generator("gpt2", eos=None).eval()
    if tried_before:
        decoder_module.has_plain_head(generator)
    change(generator.lm_head)
    samples = sample(generator, start_prompt(generator, 4), 5, rng=seeded(0))
    exact = exact_logprobs(generator, samples)
    with torch.no_grad():
        torch.testing.assert_close(token_logprobs(generator, samples), exact, rtol=1e-4, atol=1e-5)
    loss, logprobs = weighted_nll(generator, samples, torch.ones(4, 5))
    torch.testing.assert_close(logprobs, exact.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, -exact.sum(), rtol=1e-4, atol=1e-5)
    plain = build_generator("gpt2", eos=None).eval()
    tripled = sample(plain, start_prompt(plain, 4), 5, temperature=1 / 3, rng=seeded(0))
    assert torch.equal(tripled.ids, samples.ids)


@pytest.mark.parametrize("changed", [0, 1])
def test_what_is_done_to_either_head_counts_in_their_divergence(changed):
    models = [build_generator("gpt2", eos=None).eval(), build_generator("gpt2", eos=None, seed=7).eval()]
    samples = sample(models[0], start_prompt(models[0], 3), 4, rng=seeded(0))
    triple_logits(models[changed].lm_head)
    ours, theirs = (model(input_ids=samples.sequences[:, :-1]).logits.log_softmax(-1).detach() for model in models)
    _, values = full_kl(*models, samples, torch.ones(3, 4))
    torch.testing.assert_close(values, (ours.exp() * (ours - theirs)).sum(-1), rtol=1e-4, atol=1e-5)


def test_the_density_of_a_sequence_is_summed_in_double_precision_without_dropout(monkeypatch):
    monkeypatch.setattr(likelihood, "SCORE_ROWS", 2)
    generator = build_generator("gpt2").train()
    samples = sample(generator, start_prompt(generator, 5), 6, rng=seeded(0))
    found = sequence_logprobs(generator, samples)
    assert found.dtype == torch.float64 and not found.requires_grad and generator.training
    expected = exact_logprobs(generator.eval(), samples).double().sum(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("forward", [False, True])
def test_full_kl_is_the_divergence_of_next_token_distributions(generator, forward, monkeypatch):
    """Over the whole vocabulary at given prefixes; prompts padded; the other model is read without dropout."""
    monkeypatch.setattr(likelihood, "block_rows", lambda vocab_size, device: 5)
    generator.eval()
    other = build_generator("gpt2", seed=7).train()
    prompt, mask = padded_prompts()
    samples = sample(generator, prompt, 6, rng=seeded(2), prompt_mask=mask)
    weights = torch.randn(samples.ids.shape, generator=seeded(4))
    loss, values = full_kl(generator, other, samples, weights, forward)
    other.eval()
    expected = torch.zeros(samples.ids.shape)
    for row, column in samples.mask.nonzero().tolist():
        kept = samples.attention_mask[row, : prompt.shape[1] + column]
        ids = samples.sequences[row, : prompt.shape[1] + column][kept][None]
        ours, theirs = (model(input_ids=ids).logits[0, -1].log_softmax(-1) for model in (generator, other))
        first, second = (theirs.detach(), ours) if forward else (ours, theirs.detach())
        expected[row, column] = (first.exp() * (first - second)).sum()
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    plain = (weights * expected).sum()
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-5)
    parameters = list(generator.parameters())
    for one, two in zip(
        torch.autograd.grad(loss, parameters, allow_unused=True),
        torch.autograd.grad(plain, parameters, allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_completions_carry_no_credit_of_the_sentences_they_grew_from():
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    credited = samples._replace(logprobs=torch.ones(3, 4), advantages=torch.ones(3, 4))
    assert all(
        part.samples.logprobs is None and part.samples.advantages is None for part in complete(generator, credited, 2)
    )
