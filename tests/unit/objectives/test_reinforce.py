"""What an objective of the policy gradient family may override, and what a step of it logs."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import (
    DPGAN,
    MLE,
    ConstantReward,
    MaskGAN,
    Models,
    RandomReward,
    Reinforce,
    ScratchGAN,
    SeqGAN,
)
from seqgan_hf.samples import Samples
from tests.tools.tables import PREFIXES, SEQUENCES, T, TableGenerator, V
from tests.tools.tiny import BOS, PAD, build_discriminator, build_generator


def drawn(generator, count: int = 6, length: int = 5) -> Samples:
    return sample(generator, start_prompt(generator, count), length, rng=torch.Generator().manual_seed(0))


class Given(Reinforce):
    """Token rewards that are known."""

    def __init__(self, values: torch.Tensor, **settings):
        super().__init__(**settings)
        self.values = values

    def reward(self, models, samples, real):
        return self.values


class Ratios(Given):
    """Importance-weighted: each token counts by how much likelier it has become since it was drawn."""

    def token_weights(self, models, advantages, logprobs, samples):
        torch.testing.assert_close(logprobs, token_logprobs(models.generator, samples))
        return advantages * (logprobs - samples.logprobs).exp()


def test_a_step_logs_what_sequences_earn_how_far_that_spreads_and_the_policys_entropy():
    generator = build_generator("lstm").eval()
    ids = torch.tensor([[3, PAD, PAD], [3, 4, PAD], [3, 4, 5]])
    samples = Samples(start_prompt(generator, 3), ids, torch.ones(3, 3).tril().bool())
    objective, models = Given(torch.tensor([[1.0, 9.0, 9.0], [2.0, 4.0, 9.0], [3.0, 6.0, 7.0]])), Models(generator)
    credit = objective.credit(models, samples, samples)
    assert {name: round(float(value), 5) for name, value in credit.metrics.items()} == {
        "reward": 4.0,  # of 1, 4, 7
        "reward_std": round(6**0.5, 5),
        "action_value": round(23 / 6, 5),
    }
    loss = objective.generator_loss(models, samples, credit.samples)
    nll = -token_logprobs(generator, samples).sum() / 6
    torch.testing.assert_close(dict(loss.metrics), {"nll_policy": nll.detach()})


@pytest.mark.parametrize("updates", [1, 2])
def test_log_probabilities_are_kept_from_before_the_first_of_several_updates(updates):
    generator = build_generator("lstm").eval()
    samples, models = drawn(generator), Models(generator)
    objective = Given(torch.ones(6, 5))
    objective.updates = updates
    before, passes = token_logprobs(generator, samples).detach(), []
    generator.base_model.register_forward_hook(lambda *_: passes.append(None))
    with torch.no_grad():
        found = objective.credit(models, samples, samples).samples.logprobs
        known = objective.credit(models, samples, samples._replace(logprobs=before - 1)).samples.logprobs
    torch.testing.assert_close(known, before - 1)
    assert len(passes) == updates - 1, "a pass through the generator for nothing"
    if updates == 1:
        assert found is None
    else:
        torch.testing.assert_close(found, before)


def test_token_weights_are_computed_anew_at_every_update():
    generator = build_generator("lstm").eval()
    samples, models = drawn(generator), Models(generator)
    objective = Ratios(torch.linspace(-1, 2, 30).view(6, 5))
    objective.updates = 2
    with torch.no_grad():
        credited = objective.credit(models, samples, samples).samples
    before = token_logprobs(generator, samples).detach()
    for _ in range(2):
        loss = objective.generator_loss(models, samples, credited).value
        logprobs = token_logprobs(generator, samples)
        ratios = (logprobs.detach() - before).exp()
        plain = -(objective.values * ratios * logprobs).sum() / 6
        torch.testing.assert_close(loss, plain)
        gradients = torch.autograd.grad(loss, list(generator.parameters()))
        torch.testing.assert_close(gradients, torch.autograd.grad(plain, list(generator.parameters())))
        for parameter in generator.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("base", [Reinforce, SeqGAN])
def test_a_reward_may_compare_with_the_real_sequences(base):
    class Overlap(base):
        """The share of the real sequences that begin with the same token."""

        def reward(self, models, samples, real):
            return (samples.ids[:, :1] == real.ids[:, 0]).float().mean(dim=1)

    generator = build_generator("lstm", eos=None)
    samples, real = drawn(generator), drawn(generator, 9).select(slice(4, 9))
    credit = Overlap().credit(Models(generator), real, samples)
    shares = torch.stack([(real.ids[:, 0] == first).float().mean() for first in samples.ids[:, 0]])
    torch.testing.assert_close(credit.samples.advantages, shares[:, None].expand(6, 5))
    assert len(shares.unique()) > 1


@pytest.mark.parametrize("base", [Reinforce, SeqGAN])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda rewards: rewards[:-1], r"torch.float32 of shape \(5,\)"),
        (lambda rewards: rewards[:, None], r"torch.float32 of shape \(6, 1\)"),
        (lambda rewards: rewards.long(), r"torch.int64 of shape \(6,\)"),
        (lambda rewards: rewards.tolist(), "list"),
    ],
)
def test_a_reward_that_is_no_number_for_each_sequence_is_refused(base, given, words):
    class Wrong(base):
        def reward(self, models, samples, real):
            return given(torch.zeros(samples.batch_size))

    generator = build_generator("lstm", eos=None)
    samples = drawn(generator)
    expected = r"a tensor of floats of shape \(6,\) or \(6, 5\). Return a number for each token, or for each seq"
    with pytest.raises(UserError, match=f"^Wrong.reward gave {words}: expected {expected}"):
        Wrong(**{"rollouts": 0} if base is SeqGAN else {}).credit(Models(generator), samples, samples)
    if base is SeqGAN:
        with pytest.raises(UserError, match="^Wrong.reward gave "):
            Wrong(rollouts=2).credit(Models(generator), samples, samples)


@pytest.mark.parametrize("base", [DPGAN, MaskGAN, ScratchGAN])
def test_where_returns_are_summed_up_every_token_has_a_reward(base):
    class Wrong(base):
        def reward(self, models, samples, real):
            return torch.zeros(samples.batch_size)

    generator = build_generator("lstm", eos=None)
    samples, words = drawn(generator), r"torch.float32 of shape \(6,\): expected a tensor of floats of shape \(6, 5\)"
    with pytest.raises(UserError, match=f"^Wrong.reward gave {words}. Return a number for each token.$"):
        Wrong().credit(Models(generator), samples, samples)


def test_of_a_reward_for_every_token_rollouts_take_the_last_ones():
    class Ends(SeqGAN):
        """The first token's id at the last token, and what must not count before it."""

        def reward(self, models, samples, real):
            last = torch.arange(samples.ids.shape[1]) == samples.lengths[:, None] - 1
            return torch.where(last, samples.ids[:, :1].float(), 100.0)

    generator = build_generator("lstm")
    samples = drawn(generator)
    values = Ends(rollouts=3).action_values(Models(generator), samples, samples)
    torch.testing.assert_close(values, samples.ids[:, :1] * samples.mask.float())


@pytest.mark.parametrize(("max_rows", "largest"), [(None, 16 * 4 * 6), (20, 18), (4, 4)])
def test_sixteen_completions_of_every_prefix_no_more_at_once_than_allowed(max_rows, largest):
    """As many as in the paper; parts are whole rollouts of the prefixes of one length, of 6 or of 4 sequences."""
    asked = []

    class Asked(SeqGAN):
        def reward(self, models, samples, real):
            asked.append(samples.batch_size)
            return torch.zeros(samples.batch_size)

    generator = build_generator("lstm", eos=None)
    Asked(max_rows=max_rows).action_values(Models(generator), drawn(generator), None)
    assert max(asked) == largest and sum(asked) == 16 * 4 * 6 + 6


@pytest.mark.parametrize("objective", [Reinforce, SeqGAN, ConstantReward, RandomReward])
def test_every_policy_gradient_takes_a_baseline_with_its_momentum(objective):
    chosen, samples = objective(baseline="moving_average", baseline_momentum=0.25), drawn(build_generator("lstm"))
    chosen.moving_average = torch.zeros(5)
    chosen.advantages(None, torch.ones(6, 5), samples)
    assert chosen.moving_average[0] == 0.75


def test_where_few_sequences_reach_they_are_compared_with_few():
    """Three sequences reach the first position, two the second; one is alone at the third, beside the others' ends."""
    values = torch.tensor([[1.0, 9.0, 9.0], [2.0, 5.0, 9.0], [4.0, 7.0, 5.0]])
    mask, any_ids = torch.ones(3, 3).tril().bool(), torch.zeros(3, 3, dtype=torch.long)
    samples = Samples(any_ids[:, :1], any_ids, mask)
    expected = {
        "leave_one_out": [[-2.0, 0, 0], [-0.5, -2, 0], [2.5, 2, 5.0 - (1 + 5) / 2]],
        "batch": [[1 - 7 / 3, 0, 0], [2 - 7 / 3, -1, 0], [4 - 7 / 3, 1, 0]],
    }
    for baseline, advantages in expected.items():
        found = Reinforce(baseline).advantages(None, values, samples)
        torch.testing.assert_close(found * mask, torch.tensor(advantages))
    for momentum, share in ((0.5, 1.5), (0.0, 2.0)):
        objective = Reinforce("moving_average", momentum)
        objective.advantages(None, values, samples)
        objective.advantages(None, 2 * values, samples)
        torch.testing.assert_close(objective.moving_average, share * torch.tensor([7 / 3, 6.0, 5.0]))


def test_of_two_sequences_each_is_compared_with_the_other():
    """Behind the end of the first, where the second is alone, with what the first had at its end."""
    values, mask = torch.tensor([[1.0, 9.0], [4.0, 6.0]]), torch.ones(2, 2).tril().bool()
    any_ids = torch.zeros(2, 2, dtype=torch.long)
    found = Reinforce("leave_one_out").advantages(None, values, Samples(any_ids[:, :1], any_ids, mask))
    torch.testing.assert_close(found * mask, torch.tensor([[1.0 - 4, 0], [4.0 - 1, 6 - 1]]))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_price_of_a_token_is_compared_with_those_of_others_that_reach_it(count):
    """beta log G / reference of a token and of what follows; who is alone at a position pays it whole."""
    generator, objective = build_generator("lstm").eval(), Given(torch.zeros(count, count), kl=0.5)
    ids, mask = torch.arange(count**2).view(count, count) % 7 + 3, torch.ones(count, count).tril().bool()
    samples = Samples(start_prompt(generator, count), ids.masked_fill(~mask, PAD), mask)
    models = Models(generator, None, objective.copies())
    models.begin()
    with torch.no_grad():
        models["reference"].lm_head.bias += torch.linspace(-1, 1, 13)
        credit = objective.credit(models, samples, samples)
        ratios = token_logprobs(generator, samples) - token_logprobs(models["reference"], samples)
    prices = ratios.flip(1).cumsum(1).flip(1)
    for row, t in mask.nonzero().tolist():
        others = [float(prices[other, t]) for other in range(t, count) if other != row]
        mean = sum(others) / len(others) if others else 0.0
        assert float(credit.samples.advantages[row, t]) == pytest.approx(
            -0.5 * (float(prices[row, t]) - mean), abs=1e-5
        )
    assert float(credit.metrics["kl_reference"]) == pytest.approx(float(ratios.sum() / count), abs=1e-5)


def test_of_verdicts_on_tokens_that_on_the_last_is_the_reward():
    generator, judge = build_generator("lstm"), build_discriminator("per_token").eval()
    samples = drawn(generator)
    verdicts = rewards(judge, samples)
    expected = torch.stack([row[length - 1] for row, length in zip(verdicts, samples.lengths.tolist(), strict=True)])
    torch.testing.assert_close(Reinforce().reward(Models(generator, judge), samples, samples), expected)
    assert len(samples.lengths.unique()) > 1


def test_what_real_text_adds_is_logged_in_nats_a_token():
    generator = build_generator("lstm").eval()
    samples, real = drawn(generator), drawn(generator, 9)
    samples = samples._replace(advantages=torch.ones(6, 5))
    loss = Reinforce(likelihood_weight=0.3).generator_loss(Models(generator), real, samples)
    expected = -token_logprobs(generator, real).sum() / real.mask.sum()
    torch.testing.assert_close(loss.metrics["nll_train"], expected.detach())


def endings() -> Samples:
    """The 15 texts of at most three tokens of which 0 ends one."""
    ended = (SEQUENCES == 0).cumsum(dim=1)
    whole = torch.where(ended.roll(1, 1).index_fill(1, torch.tensor(0), 0) == 0, SEQUENCES, -1).unique(dim=0)
    return Samples(torch.full((len(whole), 1), BOS), whole.clamp(min=0), whole >= 0)


def test_comparing_texts_of_unequal_lengths_changes_no_expected_gradient():
    """By enumeration of all pairs of texts, of which the longer one is alone behind the end of the other."""
    torch.manual_seed(0)
    generator, texts = TableGenerator(torch.randn(len(PREFIXES), V)), endings()
    assert texts.batch_size == 15 and sorted(texts.lengths.tolist()) == [1, 2, 2, *[3] * 12]
    rewards, logprobs = torch.rand(15), token_logprobs(generator, texts).sum(dim=1)
    torch.testing.assert_close(logprobs.exp().sum(), torch.tensor(1.0))
    objective = Given(rewards, baseline="leave_one_out")
    parts = []
    for pair in product(range(15), repeat=2):
        values = rewards[list(pair), None].expand(2, T)
        chosen = texts.select(torch.tensor(pair))
        weighted = objective.advantages(None, values, chosen) * logprobs[list(pair)].sum().exp().detach() * 225
        parts.append(chosen._replace(advantages=weighted))
    batch = Samples.concatenate(parts)
    objective.generator_loss(Models(generator), batch, batch).value.backward()
    (exact,) = torch.autograd.grad(-(logprobs.exp() * rewards).sum(), generator.table)
    torch.testing.assert_close(generator.table.grad, exact, rtol=0, atol=1e-6)


def test_a_sequence_with_no_other_to_be_compared_with_is_refused(monkeypatch):
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    with pytest.raises(UserError, match="baseline=leave_one_out with batches of one sequence: expected others"):
        Reinforce("leave_one_out").check(models, 1, False)
    Reinforce("leave_one_out").check(models, 2, False)
    Reinforce("batch").check(models, 1, False)
    monkeypatch.setattr("seqgan_hf.objectives.reinforce.count_processes", lambda: 2)  # each with one of its own
    Reinforce("leave_one_out").check(models, 1, False)


def test_what_is_no_opponent_of_that_kind_is_named():
    generator = build_generator("lstm")
    for opponent, given in (
        (None, "no discriminator"),
        (build_generator("gpt2"), "the discriminator GPT2LMHeadModel"),
    ):
        with pytest.raises(UserError, match=f"^{given} for the objective Reinforce: expected a sequence classifier"):
            Reinforce().check(Models(generator, opponent), 4, False)


def test_rewards_are_where_the_samples_are():
    samples = Samples(
        *(torch.zeros(2, n, dtype=kind) for n, kind in ((1, torch.long), (3, torch.long), (3, torch.bool)))
    )
    for objective in (ConstantReward(), RandomReward()):
        assert objective.reward(None, samples.to("meta"), None).device.type == "meta"


def test_a_constant_reward_is_one_unless_said_otherwise():
    samples = drawn(build_generator("lstm"))
    assert (ConstantReward().action_values(Models(None), samples, samples) == 1).all()


# --- Maximum likelihood ----------------------------------------------------------------------------------------------


def test_a_step_of_maximum_likelihood_counts_by_its_tokens():
    """So that batches of unequal size average to the mean over all tokens; what is logged is in nats a token."""
    generator = build_generator("lstm").eval()
    batches = [drawn(generator, 3), drawn(generator, 8, 3)]
    losses = [MLE().generator_loss(Models(generator), batch, None) for batch in batches]
    together = MLE().generator_loss(Models(generator), Samples.concatenate(batches), None)
    weights = torch.stack([loss.weight for loss in losses])
    assert weights.tolist() == [int(batch.mask.sum()) for batch in batches]
    torch.testing.assert_close(
        sum(w * loss.value for w, loss in zip(weights, losses, strict=True)) / weights.sum(), together.value
    )
    assert dict(together.metrics) == {"nll_train": together.value.detach()}


def test_scheduled_sampling_grows_linearly_and_then_stays(monkeypatch):
    generator, asked = build_generator("lstm", eos=None), []
    monkeypatch.setattr(
        "seqgan_hf.objectives.mle.mix_in_own_tokens",
        lambda generator, samples, probability: asked.append(probability) or samples.ids,
    )
    real = drawn(generator)
    for steps, expected in ((4, [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]), (1, [0.0, 0.5, 0.5])):
        objective = MLE(scheduled_sampling=0.5, scheduled_sampling_steps=steps)
        asked.clear()
        for _ in expected:
            objective.generator_loss(Models(generator), real, None)
            objective.after_step("generator", Models(generator))
        assert asked == expected
