"""Objectives: action values against exact expectations, gradients against the formulas of the papers."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

from seqgan_hf.generation import rollouts
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import realness, rewards
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import MLE, ConstantReward, Models, RandomReward, Reinforce, SeqGAN
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, EOS, PAD, build_discriminator, build_generator, limit_memory


class FirstTokenJudge(torch.nn.Module):
    """Log-odds that only depend on the first token, which every rollout of a sentence shares."""

    def forward(self, input_ids, attention_mask):
        return SequenceClassifierOutput(logits=(input_ids[:, :1].float() - 6) / 2)


def drawn(generator, count: int = 6, length: int = 5) -> Samples:
    return sample(generator, start_prompt(generator, count), length, rng=torch.Generator().manual_seed(0))


def test_every_reward_stays_with_its_sentence_and_step():
    """Hand-computed: the judge's verdict follows from a sentence's own first token, so each row of Q is constant.

    Mixing up sentences, rollouts or steps (one wrong `.view`) gives rows of other sentences' rewards.
    """
    generator = build_generator("lstm")
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, EOS, PAD], [9, 3, 3, EOS], [12, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    samples = Samples(start_prompt(generator, 5), ids, mask)
    for max_rows in (None, 1, 9):
        objective = SeqGAN(rollouts=4, max_rows=max_rows)
        values = objective.action_values(Models(generator, FirstTokenJudge()), samples, samples)
        expected = ((ids[:, :1].float() - 6) / 2).sigmoid() * mask
        torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_action_values_are_the_expected_reward_of_all_completions(kind):
    """Q(Y_1:t-1, y_t) = sum over all completions of G(completion) D(whole), enumerated; within 4 standard errors."""
    generator, discriminator = build_generator(kind, eos=None, vocab_size=4).eval(), build_discriminator("cnn", 4)
    for parameter in discriminator.parameters():
        parameter.data *= 3  # rewards that differ
    samples = Samples(torch.zeros(2, 1).long(), torch.tensor([[3, 1, 2], [0, 2, 2]]), torch.ones(2, 3).bool())
    rollouts = 6000
    torch.manual_seed(0)
    values = SeqGAN(rollouts=rollouts).action_values(Models(generator, discriminator), samples, samples)
    for row, t in product(range(2), range(1, 4)):
        endings = torch.tensor(list(product(range(4), repeat=3 - t))).long()
        ids = torch.cat([samples.ids[row, :t].expand(len(endings), -1), endings], dim=1)
        cases = Samples(torch.zeros(len(ids), 1).long(), ids, torch.ones_like(ids).bool())
        weights = token_logprobs(generator, cases)[:, t:].sum(1).exp().detach()
        scores = rewards(discriminator, cases)
        mean = (weights * scores).sum()
        error = ((weights * (scores - mean) ** 2).sum() / rollouts).sqrt()
        assert abs(values[row, t - 1] - mean) <= 4 * error + 1e-6, (row, t)


def test_the_last_token_is_valued_by_the_sequence_itself():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    samples = drawn(generator)
    values = SeqGAN(rollouts=2).action_values(Models(generator, discriminator), samples, samples)
    last = values.gather(1, samples.lengths[:, None] - 1).squeeze(1)
    torch.testing.assert_close(last, rewards(discriminator, samples))
    assert (values[~samples.mask] == 0).all()


@pytest.mark.parametrize("baseline", ["none", "moving_average", "batch", "leave_one_out"])
def test_policy_gradient_is_that_of_the_formula(baseline):
    """-mean_b sum_t (Q - b) grad log G, with the baseline computed by hand."""
    generator, discriminator = build_generator("lstm").eval(), build_discriminator("cnn")
    samples = drawn(generator)
    objective = Reinforce(baseline=baseline, baseline_momentum=0.5)
    objective.moving_average = torch.full((5,), 0.25)
    models = Models(generator, discriminator)
    values = objective.action_values(models, samples, samples)
    by_hand = torch.zeros_like(values)
    for row, t in product(range(6), range(5)):
        here = [values[other, t] for other in range(6) if samples.mask[other, t]]
        others = [values[other, t] for other in range(6) if samples.mask[other, t] and other != row]
        if baseline == "batch" and here:
            by_hand[row, t] = torch.stack(here).mean()
        if baseline == "leave_one_out":
            by_hand[row, t] = torch.stack(others).mean() if others else values[row, t]
        if baseline == "moving_average":
            by_hand[row, t] = 0.25
    loss = objective.generator_loss(models, samples, objective.credit(models, samples, samples).samples)
    plain = -((values - by_hand) * token_logprobs(generator, samples)).sum() / 6
    torch.testing.assert_close(loss.value, plain)
    parameters = list(generator.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss.value, parameters), torch.autograd.grad(plain, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_moving_average_follows_the_batch_means_and_survives_a_checkpoint():
    generator, discriminator = build_generator("lstm", eos=None), build_discriminator("cnn")
    samples = drawn(generator)
    objective = Reinforce(baseline="moving_average", baseline_momentum=0.75)
    mean = rewards(discriminator, samples).mean()
    objective.credit(Models(generator, discriminator), samples, samples)
    torch.testing.assert_close(objective.moving_average, mean.expand(5))
    objective.moving_average = torch.zeros(5)
    objective.credit(Models(generator, discriminator), samples, samples)
    torch.testing.assert_close(objective.moving_average, (0.25 * mean).expand(5))
    restored = Reinforce(baseline="moving_average")
    restored.load_state_dict(objective.state_dict())
    torch.testing.assert_close(restored.moving_average, objective.moving_average)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_stays_out_of_the_moving_average(bad):
    samples = drawn(build_generator("lstm", eos=None))
    count = samples.batch_size
    rewarded = torch.arange(count * 5.0).view(count, 5)
    spoiled = rewarded.clone()
    spoiled[0] = bad
    for first in (None, torch.full((5,), 0.25)):
        objective = Reinforce(baseline="moving_average", baseline_momentum=0.75)
        objective.moving_average = first
        objective.advantages(None, spoiled, samples)
        mean = rewarded[1:].mean(dim=0)
        torch.testing.assert_close(objective.moving_average, mean if first is None else first.lerp(mean, 0.25))
        before = objective.moving_average
        objective.advantages(None, torch.full_like(rewarded, bad), samples)
        assert torch.equal(objective.moving_average, before), "nothing was measured"


def test_baselines_lower_the_variance_and_leave_the_expectation():
    """One token, three choices, known rewards: the mean gradient over many batches is the exact one."""
    generator = build_generator("lstm", eos=None, vocab_size=3).eval()
    prize = torch.tensor([0.2, 0.5, 0.9])

    class Judge(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return SequenceClassifierOutput(logits=prize.logit()[input_ids[:, :1]])

    bias = generator.lm_head.bias
    probabilities = generator(torch.tensor([[BOS]])).logits[0, -1].softmax(0).detach()
    exact = -probabilities * (prize - (probabilities * prize).sum())  # d E[-prize] / d logits
    spread = {}
    torch.manual_seed(0)
    for baseline in ("none", "leave_one_out"):
        gradients = []
        for _ in range(150):
            samples = sample(generator, start_prompt(generator, 8), 1)
            objective, models = Reinforce(baseline), Models(generator, Judge())
            credited = objective.credit(models, samples, samples).samples
            loss = objective.generator_loss(models, samples, credited).value
            gradients.append(torch.autograd.grad(loss, bias)[0])
        gradients = torch.stack(gradients)
        error = gradients.std(0) / 150**0.5
        assert ((gradients.mean(0) - exact).abs() < 4 * error).all(), baseline
        spread[baseline] = gradients.std(0).sum()
    assert spread["leave_one_out"] < 0.7 * spread["none"]


@pytest.mark.parametrize("judge", ["rnn", "per_token", "bert"])
def test_discriminator_loss_is_the_cross_entropy_of_telling_real_from_fake(judge):
    discriminator = build_discriminator(judge).eval()
    generator = build_generator("lstm")
    real, fake = drawn(generator, 4), drawn(generator, 3, length=7)

    def errors(samples: Samples, label: float) -> torch.Tensor:
        scores = realness(discriminator, samples)
        values = F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label), reduction="none")
        return values[samples.mask].mean() if scores.dim() == 2 else values.mean()

    loss = Reinforce().discriminator_loss(Models(generator, discriminator), real, fake)
    torch.testing.assert_close(loss.value, (errors(real, 1.0) + errors(fake, 0.0)) / 2)


def test_discriminator_loss_adds_the_models_own_regularization():
    discriminator = build_discriminator("cnn").eval()
    generator = build_generator("lstm")
    samples = drawn(generator)
    loss = Reinforce().discriminator_loss(Models(generator, discriminator), samples, samples)
    extra = discriminator.regularization()
    assert extra > 0
    torch.testing.assert_close(loss.value - extra, loss.metrics["discriminator_loss"])


def test_mle_is_the_cross_entropy_of_real_tokens(generator):
    generator.eval()
    real = drawn(generator)
    loss = MLE().generator_loss(Models(generator), real, None)
    expected = -token_logprobs(generator, real).sum() / real.mask.sum()
    torch.testing.assert_close(loss.value, expected)


def test_the_share_of_own_tokens_grows_in_a_straight_line_and_stays(monkeypatch):
    generator, shares = build_generator("lstm"), []
    real = sample(generator, start_prompt(generator, 4), 5)
    monkeypatch.setattr(
        "seqgan_hf.objectives.mle.mix_in_own_tokens",
        lambda model, samples, share: shares.append(share) or samples.ids,
    )
    objective = MLE(scheduled_sampling=0.5, scheduled_sampling_steps=4)
    for _ in range(7):
        loss = objective.generator_loss(Models(generator), real, None)
        objective.after_step("generator", Models(generator))
    assert shares == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert loss.metrics == {"nll_train": loss.value.detach()} and loss.weight == real.mask.sum()


def test_scheduled_sampling_grows_from_none():
    generator = build_generator("lstm", eos=None).eval()
    real = drawn(generator)
    objective = MLE(scheduled_sampling=1.0, scheduled_sampling_steps=4)
    plain = MLE().generator_loss(Models(generator), real, None).value
    torch.testing.assert_close(objective.generator_loss(Models(generator), real, None).value, plain)
    for _ in range(4):
        objective.after_step("generator", Models(generator))
    assert abs(objective.generator_loss(Models(generator), real, None).value - plain) > 1e-3
    restored = MLE(scheduled_sampling=1.0)
    restored.load_state_dict(objective.state_dict())
    assert restored.steps == 4


def test_the_rollout_policy_is_a_moving_average_of_the_generator():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    objective = SeqGAN(rollouts=1, rollout_lag=0.75)
    models = Models(generator, discriminator, objective.copies())
    models.begin()
    before = [parameter.detach().clone() for parameter in generator.parameters()]
    for parameter in generator.parameters():
        parameter.data += 1.0
    models.follow()
    for old, averaged in zip(before, models["rollout_policy"].parameters(), strict=True):
        torch.testing.assert_close(averaged, old + 0.25)
    assert SeqGAN(rollouts=1).copies() == {}


def test_rollouts_are_drawn_from_the_rollout_policy(monkeypatch):
    generator, discriminator, seen = build_generator("lstm"), build_discriminator("cnn"), []
    samples = drawn(generator)
    complete = rollouts.complete

    def recorded(policy, *arguments, **options):
        seen.append(policy)
        return complete(policy, *arguments, **options)

    monkeypatch.setattr("seqgan_hf.objectives.seqgan.complete", recorded)
    for lag in (0.0, 0.5):
        objective = SeqGAN(rollouts=1, rollout_lag=lag)
        models = Models(generator, discriminator, objective.copies())
        models.begin()
        objective.action_values(models, samples, samples)
        assert seen[-1] is (models["rollout_policy"] if lag else generator)


def test_controls_know_nothing_of_the_discriminator():
    generator = build_generator("lstm")
    samples = drawn(generator, 200)
    assert (ConstantReward(reward=2.0).action_values(Models(generator), samples, samples) == 2.0).all()
    values = RandomReward().action_values(Models(generator), samples, samples)
    assert (values == values[:, :1]).all() and values[:, 0].std() > 0.2 and 0.4 < values.mean() < 0.6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SeqGAN(rollouts=-1), "rollouts=-1: expected a number of completions"),
        (lambda: SeqGAN(rollout_lag=1.0), "rollout_lag=1.0: expected a share"),
        (lambda: SeqGAN(max_rows=0), "max_rows=0: expected at least 1"),
        (lambda: Reinforce(baseline="mean"), "baseline='mean': expected one of none, moving_average"),
        (lambda: Reinforce(baseline_momentum=1.0), "baseline_momentum=1.0: expected a share"),
        (lambda: MLE(scheduled_sampling=2.0), "scheduled_sampling=2.0: expected a probability"),
        (lambda: MLE(scheduled_sampling_steps=0), "scheduled_sampling_steps=0: expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_rollouts_go_on_with_a_part_of_the_batch_when_one_prefix_of_all_does_not_fit(caplog):
    """What is bounded is how many completions are in flight; below the batch size sequences take turns."""
    samples = Samples(
        torch.zeros(6, 1, dtype=torch.long), torch.randint(7, (6, 4)), torch.ones(6, 4, dtype=torch.bool)
    )
    generator = build_generator("lstm")
    asked = limit_memory(generator, 3)
    values = SeqGAN(rollouts=2).action_values(Models(generator, FirstTokenJudge()), samples, samples)
    assert "rollouts of one prefix of every sequence ran out of memory; going on with 3" in caplog.text
    expected = ((samples.ids[:, :1].float() - 6) / 2).sigmoid().expand(6, 4)
    torch.testing.assert_close(values, expected)
    assert asked[-1] == 3
