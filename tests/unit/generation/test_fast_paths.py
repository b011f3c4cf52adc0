"""Every fast path gives what its plain reference gives (`plain_paths.py`), and the switch between them works."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf import functional
from seqgan_hf.generation import decoder, likelihood, modes, rollouts
from seqgan_hf.generation.likelihood import full_kl, token_logprobs, weighted_nll
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import mix_in_own_tokens, sample
from seqgan_hf.models import modeling_cnn_discriminator, modeling_rnn_generator
from seqgan_hf.objectives import MLE, Models, Reinforce
from seqgan_hf.samples import Samples
from seqgan_hf.training import compiling
from tests.tools.plain_paths import PLAIN, fast_paths
from tests.tools.tiny import BOS, PAD, build_discriminator, build_generator


# The plain one draws other tokens from the same distribution, which test_functional.py compares.
SAMPLER = (functional.sample_categorical,)


def prompts(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = torch.tensor([[PAD, PAD, BOS, 5], [BOS, 5, 6, 7], [PAD, PAD, PAD, BOS]]).repeat(rows, 1)
    return prompt, (prompt != PAD)


def batch() -> Samples:
    generator = build_generator("lstm")
    prompt, mask = prompts()
    return sample(generator, prompt, 6, rng=torch.Generator().manual_seed(0), prompt_mask=mask)


def drawn(generator):
    prompt, mask = prompts()
    samples = sample(generator, prompt, 6, rng=torch.Generator().manual_seed(3), prompt_mask=mask)
    return samples.ids, samples.mask


def completed(generator):
    parts = complete(generator, batch(), 3, rng=torch.Generator().manual_seed(1))
    whole = [(part.samples.ids, part.samples.mask, part.row, part.prefix_length) for part in parts]
    return [torch.cat(field) for field in zip(*whole, strict=True)]


def mixed(generator):
    return [mix_in_own_tokens(generator, batch(), 0.5, rng=torch.Generator().manual_seed(1))]


def losses(generator):
    samples, parameters = batch(), list(generator.parameters())
    weights = torch.linspace(-1, 1, samples.ids.numel()).view_as(samples.ids)
    logprobs = token_logprobs(generator, samples)
    loss, values = weighted_nll(generator, samples, weights)
    total = (logprobs * weights).sum() + 2 * loss + MLE().generator_loss(Models(generator), samples, None).value
    kl, divergences = full_kl(generator, build_generator("gru", seed=5), samples, weights)
    further, others = full_kl(generator, build_generator("gru", seed=5), samples, weights, forward=True)
    total = total + kl + 3 * further
    return [logprobs, loss, values, divergences, others, *torch.autograd.grad(total, parameters, allow_unused=True)]


@pytest.mark.parametrize("compute", [drawn, completed, mixed, losses], ids=lambda function: function.__name__)
def test_generators_are_the_same_with_fast_paths_on_and_off(generator, compute):
    """With the same random numbers the same tokens, losses and gradients; padding included."""
    generator.eval()
    results = []
    for setting in ("off", "on", "auto"):
        with fast_paths(setting, kept=SAMPLER):
            results.append(compute(generator))
    for other in results[1:]:
        for fast, plain in zip(other, results[0], strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_discriminators_are_the_same_with_fast_paths_on_and_off(discriminator):
    """Scores and all gradients of a d-step on sequences of unequal length."""
    discriminator.eval()
    results = []
    for setting in ("off", "on", "auto"):
        with fast_paths(setting, kept=SAMPLER):
            loss = (
                Reinforce()
                .discriminator_loss(
                    Models(build_generator("lstm"), discriminator), batch(), batch().select(slice(0, 5))
                )
                .value
            )
            results.append([loss, *torch.autograd.grad(loss, list(discriminator.parameters()), allow_unused=True)])
    for other in results[1:]:
        for fast, plain in zip(other, results[0], strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_the_switch_reaches_every_place_and_is_undone():
    places = [
        (functional, "linear_nll"),
        (likelihood, "linear_nll"),
        (likelihood, "linear_kl"),
        (decoder, "sample_categorical"),
        (decoder, "layer_memory"),
        (decoder, "multiply"),
        (decoder, "reserve"),
        (rollouts, "walk"),
        (rollouts, "Decoder"),
        (modeling_cnn_discriminator, "MaxOverTime"),
        (modeling_cnn_discriminator, "max_over_windows"),
        (modeling_cnn_discriminator, "looks_up"),
        (modeling_cnn_discriminator, "multiply"),
        (modeling_rnn_generator, "run_padded"),
        (modes, "fused_activations"),
        (compiling, "fused_activations"),
    ]
    before = [getattr(*place) for place in places]
    with fast_paths("off"):
        assert all(getattr(*place) in PLAIN.values() for place in places)
        with fast_paths("on"):
            assert all(getattr(*place) in PLAIN for place in places)
            assert decoder.block_rows(13, torch.device("cpu")) == 7
    assert [getattr(*place) for place in places] == before


def test_plain_rollouts_do_not_depend_on_the_walk(monkeypatch):
    """The reference is one: it calls no fast path."""

    def fails(*arguments, **options):
        raise AssertionError("a fast path was taken")

    with fast_paths("off"):
        for module, name in ((functional, "first_above"), (functional.LinearLoss, "apply"), (rollouts, "joining")):
            monkeypatch.setattr(module, name, fails)
        monkeypatch.setattr(modeling_cnn_discriminator, "windows_of", fails)
        generator = build_generator("gpt2")
        losses(generator)
        completed(generator)
        build_discriminator("cnn")(batch().ids).logits.sum().backward()


def test_padding_that_is_left_out_is_padding_that_counts_nothing(generator, monkeypatch):
    """Accelerators compute it rather than wait for its number."""
    generator.eval()
    left_out = losses(generator)
    monkeypatch.setattr(likelihood, "LEAVE_PADDING_OUT", set())
    for one, other in zip(left_out, losses(generator), strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
