"""Log-probabilities and losses: one matrix over recurrent and attention models."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_hf import functional
from seqgan_hf.generation import decoder as decoder_module
from seqgan_hf.generation import likelihood
from seqgan_hf.generation.likelihood import (
    full_kl,
    sequence_logprobs,
    tempered_logprobs,
    token_logprobs,
    weighted_nll,
)
from seqgan_hf.generation.modes import evaluating
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.samples import Samples
from tests.tools.drawn import exact_logprobs, padded_prompts, seeded
from tests.tools.small_runs import text
from tests.tools.tiny import build_generator


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
    monkeypatch.setitem(likelihood.SCORE_ROWS, "cpu", 2)
    generator = build_generator("gpt2").train()
    samples = sample(generator, start_prompt(generator, 5), 6, rng=seeded(0))
    found = sequence_logprobs(generator, samples)
    assert found.dtype == torch.float64 and not found.requires_grad and generator.training
    expected = exact_logprobs(generator.eval(), samples).double().sum(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_short_sequences_are_read_without_the_padding_of_long_ones(generator, monkeypatch):
    """In order of their lengths, with prompts and tokens that do not count; the result is in the given order."""
    monkeypatch.setitem(likelihood.SCORE_ROWS, "cpu", 2)
    prompt, prompt_mask = padded_prompts()
    lengths = torch.tensor([6, 1, 5, 2])[: len(prompt)]
    mask = torch.arange(6) < lengths[:, None]
    ids = torch.randint(3, generator.config.vocab_size, mask.shape, generator=seeded(0))
    samples, counted = Samples(prompt, ids, mask, prompt_mask), mask & (ids % 2 == 0)
    widths, logprobs = [], likelihood.token_logprobs

    def counting(generator, samples, temperature):
        widths.append(samples.ids.shape[1])
        return logprobs(generator, samples, temperature)

    monkeypatch.setattr(likelihood, "token_logprobs", counting)
    found = sequence_logprobs(generator, samples, counted)
    with evaluating(generator):
        expected = logprobs(generator, samples).masked_fill(~counted, 0.0).double().sum(1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    pairs = sorted(lengths.tolist())
    assert widths == [max(pairs[first : first + 2]) for first in range(0, len(pairs), 2)]
    torch.testing.assert_close(tempered_logprobs(generator, samples, 1.0, counted)[:, 0], found, rtol=1e-5, atol=1e-5)


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


def test_likelihood_at_a_temperature_has_the_derivatives_that_differences_show(generator):
    """With a suppressed token and with tokens that do not count."""
    generator.generation_config.suppress_tokens = [7]
    samples = text(6)
    counted = samples.mask & (samples.ids != 7)
    inverse, step = 0.7, 1e-3
    at = [tempered_logprobs(generator, samples, 1 / x, counted) for x in (inverse - step, inverse, inverse + step)]
    plain = sequence_logprobs(generator, samples, counted, 1 / inverse)
    torch.testing.assert_close(at[1][:, 0], plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(at[1][:, 1], (at[2][:, 0] - at[0][:, 0]) / (2 * step), atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(at[1][:, 2], (at[2][:, 1] - at[0][:, 1]) / (2 * step), atol=2e-2, rtol=1e-2)
    assert (at[1][:, 2] < 0).all()
