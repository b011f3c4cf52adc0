"""Suppressed tokens: never drawn, without probability, and the gradient is that of the policy without them."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from seqgan_hf.generation import likelihood
from seqgan_hf.generation.likelihood import full_kl, token_logprobs, weighted_nll
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import mix_in_own_tokens, sample
from seqgan_hf.generation.vocabulary import start_prompt, suppressed_tokens, suppressing
from seqgan_hf.objectives import MLE, Models, Reinforce
from seqgan_hf.samples import Samples
from tests.tools.plain_paths import fast_paths
from tests.tools.tiny import BOS, EOS, PAD, VOCAB_SIZE, build_generator


ALLOWED = [EOS, 4, 7]
SUPPRESSED = [token for token in range(VOCAB_SIZE) if token not in ALLOWED]
SEQUENCES = torch.tensor(list(product(ALLOWED, repeat=3)))


@pytest.fixture
def policy(generator):
    """Every kind of generator, which cannot write most of its tokens."""
    generator.generation_config.suppress_tokens = SUPPRESSED
    return generator.eval()


def whole(ids: torch.Tensor) -> Samples:
    return Samples(torch.full((len(ids), 1), BOS), ids, torch.ones_like(ids, dtype=torch.bool))


def exact(generator, samples: Samples) -> torch.Tensor:
    """log-probabilities (B, T) of a softmax over the allowed tokens alone."""
    logits = generator(input_ids=samples.sequences[:, :-1]).logits[:, :, ALLOWED]
    place = torch.tensor([ALLOWED.index(token) for token in samples.ids.flatten().tolist()]).view_as(samples.ids)
    return logits.log_softmax(-1).gather(2, place[..., None]).squeeze(2)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1e6])
@pytest.mark.parametrize("top", [{}, {"top_k": 5}, {"top_p": 0.9}])
def test_a_suppressed_token_is_never_drawn(policy, temperature, top, monkeypatch):
    """At any temperature, and whatever the random numbers: 0 finds the first token of any probability."""
    prompt = start_prompt(policy, 100)
    for rand in (torch.rand, lambda *shape, **options: torch.zeros(*shape)):
        monkeypatch.setattr(torch, "rand", rand)
        samples = sample(policy, prompt, 5, temperature, **top)
        assert set(samples.ids[samples.mask].tolist()) <= set(ALLOWED)
        [*parts] = complete(policy, samples, 2, temperature, **top)
        for part in parts:
            assert set(part.samples.ids[part.samples.mask].tolist()) <= set(ALLOWED)
        mixed = mix_in_own_tokens(policy, samples._replace(mask=torch.ones_like(samples.mask)), 1.0)
        assert set(mixed[:, :-1].flatten().tolist()) <= set(ALLOWED)


def test_the_others_are_drawn_in_their_proportions(policy):
    first = sample(policy, start_prompt(policy, 20_000), 1, rng=torch.Generator().manual_seed(0)).ids[:, 0]
    found = torch.stack([(first == token).float().mean() for token in ALLOWED])
    expected = policy(input_ids=torch.tensor([[BOS]])).logits[0, -1, ALLOWED].softmax(-1)
    torch.testing.assert_close(found, expected, atol=0.015, rtol=0)


@pytest.mark.parametrize("setting", ["auto", "on", "off"])
def test_likelihoods_are_those_of_the_allowed_tokens(policy, setting):
    samples = whole(SEQUENCES)
    expected = exact(policy, samples)
    with fast_paths(setting):
        torch.testing.assert_close(token_logprobs(policy, samples), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weighted_nll(policy, samples, torch.ones(27, 3))[1], expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(token_logprobs(policy, samples), expected, rtol=1e-4, atol=1e-5)
            total = token_logprobs(policy, samples).sum(1).exp().sum()
            impossible = token_logprobs(policy, whole(torch.tensor([[4, PAD, 7]])))
    torch.testing.assert_close(total, torch.tensor(1.0))
    assert impossible[0, 1].exp() == 0


@pytest.mark.parametrize("left_out", [set(), {"cpu"}])
def test_padding_that_could_not_be_written_counts_nothing(policy, left_out, monkeypatch):
    """The padding token is suppressed itself: its infinite loss, times zero, must not spoil the others'."""
    monkeypatch.setattr(likelihood, "LEAVE_PADDING_OUT", left_out)
    ids = torch.tensor([[4, EOS, PAD], [7, 4, EOS]])
    samples = Samples(torch.full((2, 1), BOS), ids, torch.tensor([[True, True, False], [True] * 3]))
    loss, logprobs = weighted_nll(policy, samples, torch.ones(2, 3))
    alone = [exact(policy, whole(row[None])) for row in (ids[0, :2], ids[1])]
    torch.testing.assert_close(loss, -sum(each.sum() for each in alone), rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    assert logprobs[0, 2] == token_logprobs(policy, samples)[0, 2] == 0


def gradients(loss, model) -> list:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [None if gradient is None or not gradient.any() else gradient for gradient in found]


@pytest.mark.parametrize("setting", ["auto", "on", "off"])
def test_the_policy_gradient_is_that_of_the_expected_reward(policy, setting):
    """By enumeration: J = sum over the 27 sequences that can be written of G(Y) R(Y), differentiated exactly."""
    rewards = torch.rand(27, generator=torch.Generator().manual_seed(1))
    samples = whole(SEQUENCES)
    probabilities = exact(policy, samples).sum(1).exp()
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))
    expected = gradients(-(probabilities * rewards).sum(), policy)
    # a batch in which each sequence stands once is an expectation if each counts by its probability
    advantages = (27 * probabilities * rewards).detach()[:, None].expand(27, 3)
    with fast_paths(setting):
        loss = Reinforce().generator_loss(Models(policy), samples, samples._replace(advantages=advantages)).value
        found = gradients(loss, policy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_constant_reward_has_no_gradient(policy):
    """Only of a policy that is normalised over what it can write."""
    samples = whole(SEQUENCES)
    advantages = 27 * exact(policy, samples).sum(1).exp().detach()[:, None].expand(27, 3)
    loss = Reinforce().generator_loss(Models(policy), samples, samples._replace(advantages=advantages)).value
    for gradient in torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True):
        assert gradient is None or gradient.abs().max() < 1e-5


def test_maximum_likelihood_leaves_suppressed_tokens_alone(policy):
    samples = whole(SEQUENCES)
    loss = MLE().generator_loss(Models(policy), samples, None).value
    torch.testing.assert_close(loss, -exact(policy, samples).mean(), rtol=1e-4, atol=1e-5)
    expected = gradients(-exact(policy, samples).mean(), policy)
    for one, other in zip(gradients(loss, policy), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("setting", ["auto", "on", "off"])
def test_divergences_are_those_over_the_allowed_tokens(policy, forward, setting):
    other = build_generator("gru", seed=5).eval()
    other.generation_config.suppress_tokens = SUPPRESSED
    samples, weights = whole(SEQUENCES), torch.linspace(-1, 1, 81).view(27, 3)
    ours, theirs = (
        model(input_ids=samples.sequences[:, :-1]).logits[:, :, ALLOWED].log_softmax(-1) for model in (policy, other)
    )
    first, second = (theirs.detach(), ours) if forward else (ours, theirs.detach())
    expected = (first.exp() * (first - second)).sum(-1)
    with fast_paths(setting):
        loss, values = full_kl(policy, other, samples, weights, forward)
        found = gradients(loss, policy)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    for one, two in zip(found, gradients((weights * expected).sum(), policy), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_a_bias_of_the_head_is_kept_and_learnt():
    policy = build_generator("lstm").eval()
    policy.lm_head.bias = torch.nn.Parameter(torch.linspace(-2, 2, VOCAB_SIZE))
    policy.generation_config.suppress_tokens = SUPPRESSED
    samples = whole(SEQUENCES)
    with torch.no_grad():
        torch.testing.assert_close(token_logprobs(policy, samples), exact(policy, samples), rtol=1e-4, atol=1e-5)
    loss, _ = weighted_nll(policy, samples, torch.ones(27, 3))
    for one, other in zip(gradients(loss, policy), gradients(-exact(policy, samples).sum(), policy), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_saved_policy_writes_as_before_here_and_in_transformers(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded = type(policy).from_pretrained(tmp_path).eval()
    assert suppressed_tokens(loaded) == SUPPRESSED
    first, again = (
        sample(m, start_prompt(m, 50), 5, rng=torch.Generator().manual_seed(0)).ids for m in (policy, loaded)
    )
    assert torch.equal(first, again)
    torch.manual_seed(0)
    written = loaded.generate(start_prompt(loaded, 50), do_sample=True, top_k=0, max_new_tokens=5)[:, 1:]
    assert set(written[:, 0].tolist()) <= set(ALLOWED) and set(written.flatten().tolist()) <= {*ALLOWED, PAD}


def test_more_tokens_are_suppressed_for_a_while():
    generator = build_generator("lstm")
    assert suppressed_tokens(generator) == []
    with suppressing(generator, {5}):
        with suppressing(generator, {3}):
            assert suppressed_tokens(generator) == [3, 5]
        with suppressing(generator, set()):
            assert suppressed_tokens(generator) == [5]
    assert generator.generation_config.suppress_tokens is None
