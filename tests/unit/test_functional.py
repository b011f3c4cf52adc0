"""Pure functions: distributions by chi-square, losses and gradients against plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from seqgan_hf import functional
from seqgan_hf.functional import filter_logits, linear_nll, masked_mean, sample_categorical
from seqgan_hf.generation.modes import evaluating, train_without_dropout
from tests.tools.tiny import build_generator


@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 1000])
def test_categorical_samples_follow_softmax(vocab_size):
    rng = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(vocab_size, generator=rng) * 2
    draws = 200_000
    tokens = sample_categorical(logits.expand(draws, -1), torch.rand(draws, 2, generator=rng))
    expected = logits.double().softmax(0) * draws
    observed = torch.bincount(tokens, minlength=vocab_size).double()
    rare = expected < 5  # chi-square needs cells that are expected a few times: the rare ones are pooled
    cells = [(observed[~rare], expected[~rare])]
    if rare.any():
        cells.append((observed[rare].sum()[None], expected[rare].sum()[None]))
    observed, expected = (torch.cat(part) for part in zip(*cells, strict=True))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert vocab_size == 1 or stats.chi2.sf(statistic, len(expected) - 1) > 1e-3


def test_categorical_is_exact_for_a_large_vocabulary():
    """Float32 sums over 150,000 entries would misplace the tail; blocks keep every part within its share."""
    vocab_size, draws = 150_000, 6_000
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(vocab_size, generator=rng)
    tokens = torch.cat(
        [sample_categorical(logits.expand(1000, -1), torch.rand(1000, 2, generator=rng)) for _ in range(draws // 1000)]
    )
    share = logits.double().softmax(0).view(50, 3000).sum(1)
    observed = torch.bincount(tokens // 3000, minlength=50).double()
    assert stats.chisquare(observed.numpy(), (share * draws).numpy()).pvalue > 1e-3


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0 - 2**-24]))
@settings(max_examples=60, deadline=None)
def test_categorical_never_draws_an_impossible_token(seed, extreme):
    rng = torch.Generator().manual_seed(seed)
    vocab_size = int(torch.randint(1, 300, (), generator=rng))
    logits = torch.randn(50, vocab_size, generator=rng) * 30
    logits[torch.rand(50, vocab_size, generator=rng) < 0.7] = -math.inf
    keep = torch.randint(vocab_size, (50,), generator=rng)
    logits[torch.arange(50), keep] = 0.0
    uniforms = torch.rand(50, 2, generator=rng)
    uniforms[::2] = extreme
    tokens = sample_categorical(logits, uniforms)
    assert (tokens < vocab_size).all()
    assert (logits.softmax(-1)[torch.arange(50), tokens] > 0).all()


def test_filter_logits_keeps_what_generate_keeps():
    """Order and borders are those of transformers' own logits warpers."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)) * 3
    ours = filter_logits(logits, temperature=0.7, top_k=20, top_p=0.8)
    theirs = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        theirs = warper(None, theirs)
    torch.testing.assert_close(ours, theirs)
    assert filter_logits(logits) is logits


@pytest.mark.parametrize("bias", [True, False])
def test_linear_nll_equals_cross_entropy_and_its_gradients(bias, monkeypatch):
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 7)  # several blocks, the last one short
    torch.manual_seed(0)
    head = nn.Linear(5, 11, bias=bias).double()
    hidden = torch.randn(30, 5, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(11, (30,)), torch.randn(30, dtype=torch.float64)
    parameters = [hidden, *head.parameters()]

    loss, logprobs = linear_nll(hidden, head.weight, head.bias, targets, weights)
    gradients = torch.autograd.grad(loss * 3, parameters)
    plain = F.cross_entropy(head(hidden), targets, reduction="none")
    expected = torch.autograd.grad((plain * weights).sum() * 3, parameters)

    torch.testing.assert_close(loss, (plain * weights).sum(), rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(logprobs, -plain, rtol=1e-5, atol=1e-5, check_dtype=False)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_half_precision_are_summed_in_single(monkeypatch):
    """600 blocks, whose sum in bfloat16 would stop growing at 256."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 1)
    weight, bias = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True), None
    hidden, targets = torch.ones(600, 1, dtype=torch.bfloat16, requires_grad=True), torch.zeros(600, dtype=torch.long)
    loss, logprobs = linear_nll(hidden, weight, bias, targets, torch.ones(600, dtype=torch.bfloat16) * 2)
    loss.backward()
    assert loss.dtype == logprobs.dtype == torch.float32
    assert weight.grad.dtype == hidden.grad.dtype == torch.bfloat16
    assert weight.grad.tolist() == [[-600.0], [600.0]]  # 600 * 2 * (1/2 - 1) and 600 * 2 * 1/2


def test_linear_nll_needs_no_gradient_of_a_frozen_head():
    head = nn.Linear(4, 6).requires_grad_(False)
    hidden = torch.randn(3, 4, requires_grad=True)
    loss, _ = linear_nll(hidden, head.weight, head.bias, torch.tensor([0, 5, 2]), torch.ones(3))
    loss.backward()
    assert hidden.grad.abs().sum() > 0 and head.weight.grad is None


def test_masked_mean_ignores_what_is_masked_even_nan():
    values, mask = torch.tensor([[1.0, 3.0, float("nan")]]), torch.tensor([[True, True, False]])
    assert masked_mean(values, mask) == 2.0
    assert masked_mean(values, torch.zeros_like(mask)) == 0.0


def test_evaluating_restores_every_flag_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training


def test_training_without_dropout_keeps_what_else_depends_on_the_flag():
    """Recurrent layers stay in training for cuDNN; checkpointed layers go on saving memory, with the same gradient."""
    generator = build_generator("lstm")
    train_without_dropout(generator)
    assert {module.training for module in generator.modules() if isinstance(module, torch.nn.LSTM)} == {True}
    assert {module.training for module in generator.modules() if isinstance(module, torch.nn.Dropout)} == {False}

    gradients, calls = [], []
    for checkpointing in (False, True):
        model = build_generator("gpt2")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        train_without_dropout(model)
        ids = torch.arange(10).view(2, 5)
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        assert len(calls) == (3 if checkpointing else 1)  # computed again in the backward pass
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other)


def test_layers_that_drop_by_themselves_do_not_train():
    """OPT's layers read their own flag for dropout; a checkpointed one may not keep it."""
    config = OPTConfig(
        vocab_size=13, hidden_size=8, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, dropout=0.5,
        layerdrop=0.5, max_position_embeddings=16, word_embed_proj_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = OPTForCausalLM(config)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    stacked = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)
    train_without_dropout(model), train_without_dropout(stacked)
    ids, inputs = torch.arange(10).view(2, 5), torch.randn(2, 5, 4)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(stacked(inputs)[0], stacked(inputs)[0])


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_kl_is_the_divergence_of_two_softmaxes(forward, biased, monkeypatch):
    """Value and gradients against autograd over all logits, in blocks of two rows; M of another width."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 2)
    rng = torch.Generator().manual_seed(0)
    head = [torch.randn(5, 3, generator=rng), torch.randn(7, 3, generator=rng), torch.randn(7, generator=rng)]
    head = [tensor.requires_grad_() for tensor in head] if biased else [*(t.requires_grad_() for t in head[:2]), None]
    other = (torch.randn(5, 4, generator=rng), torch.randn(7, 4, generator=rng), torch.randn(7, generator=rng))
    weights = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    loss, values = functional.linear_kl(tuple(head), other, weights, forward)
    ours, theirs = F.linear(*head).log_softmax(-1), F.linear(*other).log_softmax(-1)
    expected = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    if not forward:
        expected = F.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(loss, (weights * expected).sum())
    inputs = [tensor for tensor in head if tensor is not None]
    for one, plain in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * (weights * expected).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-5)
    assert values.grad_fn is None or not values.requires_grad
