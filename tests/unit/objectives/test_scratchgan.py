"""ScratchGAN: discounted returns of a verdict a token."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from seqgan_hf.errors import UserError
from seqgan_hf.functional import discounted
from seqgan_hf.objectives import Models, ScratchGAN
from tests.tools.tables import SEQUENCES, TableGenerator, TableJudge, all_sequences
from tests.tools.tiny import build_discriminator, build_generator


def test_returns_are_discounted_sums_of_later_rewards():
    rewards = torch.tensor([[0.2, -0.4, 0.6], [0.2, -0.4, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = torch.tensor([[0.15, -0.1, 0.6], [0.0, -0.4, 0.0]])
    torch.testing.assert_close(discounted(rewards, mask, 0.5), expected)
    torch.testing.assert_close(discounted(rewards, mask, 0.0), rewards.masked_fill(~mask, 0.0))


def test_without_looking_ahead_a_token_is_credited_with_its_own_verdict():
    models, batch = Models(TableGenerator(), TableJudge(per_token=True)), all_sequences()
    values = ScratchGAN(discount=0.0).action_values(models, batch, batch)
    torch.testing.assert_close(values[:, :2], torch.zeros(27, 2))
    torch.testing.assert_close(values[:, 2], 2 * TableJudge().log_odds.sigmoid() - 1)


class PrefixTable(torch.nn.Module):
    """Log-odds of its own for each of the 39 prefixes."""

    def __init__(self):
        super().__init__()
        self.log_odds = torch.nn.Parameter(torch.zeros(54))

    def forward(self, input_ids, attention_mask):
        numbers, number = [], 1
        for column in input_ids.T:
            number = 3 * number + column
            numbers.append(number)
        return SequenceClassifierOutput(logits=self.log_odds[torch.stack(numbers, dim=1)][..., None])


def test_the_best_judge_of_prefixes_says_which_share_of_them_is_real():
    """D_t = p / (p + g) of the first t tokens: p of sequence i is (i + 1) / 378, g is uniform."""
    fake, objective = all_sequences(), ScratchGAN()
    real = fake.select(torch.arange(27).repeat_interleave(torch.arange(1, 28)))
    models = Models(TableGenerator(), PrefixTable())
    optimizer = torch.optim.LBFGS(models.discriminator.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = objective.discriminator_loss(models, real, fake).value
        loss.backward()
        return loss

    optimizer.step(closure)
    p = torch.arange(1.0, 28) / 378
    same = torch.stack([(SEQUENCES[:, None, :t] == SEQUENCES[:, :t]).all(dim=2) for t in (1, 2, 3)])
    of_real, of_fake = ((same * law).sum(dim=2).T for law in (p, torch.full((27,), 1 / 27)))
    best = of_real / (of_real + of_fake)
    torch.testing.assert_close(objective.reward(models, fake, real), 2 * best - 1, rtol=0, atol=5e-3)


def test_padding_earns_nothing():
    batch = all_sequences()
    batch = batch._replace(mask=torch.ones_like(batch.mask).tril())
    rewards = ScratchGAN().reward(Models(TableGenerator(), TableJudge(per_token=True)), batch, batch)
    assert not rewards[~batch.mask].any()


def test_the_moving_average_has_the_momentum_that_is_set():
    objective, batch = ScratchGAN(baseline_momentum=0.25), all_sequences()
    objective.moving_average = torch.zeros(3)
    objective.advantages(None, torch.ones(27, 3), batch)
    torch.testing.assert_close(objective.moving_average, torch.full((3,), 0.75))


@pytest.mark.parametrize("kind", ["cnn", "bert"])
def test_a_discriminator_of_whole_sequences_is_refused(kind):
    models = Models(build_generator("lstm"), build_discriminator(kind))
    with pytest.raises(UserError, match="judges whole sequences: expected one that judges every token. Use"):
        ScratchGAN().check(models, 4, False)


def test_a_discriminator_that_judges_every_token_is_left_as_it_was():
    models = Models(build_generator("lstm"), build_discriminator("per_token"))
    models.discriminator.train()
    before = torch.get_rng_state()
    ScratchGAN().check(models, 4, False)
    assert models.discriminator.training and torch.equal(before, torch.get_rng_state())


def test_a_reward_that_reads_real_text_is_given_the_batch():
    class BesideReal(ScratchGAN):
        def reward(self, models, samples, real):
            return super().reward(models, samples, real) + real.batch_size

    models, batch = Models(TableGenerator(), TableJudge(per_token=True)), all_sequences()
    real = batch.select(slice(0, 5))
    plain = ScratchGAN(discount=0.5).action_values(models, batch, real)
    values = BesideReal(discount=0.5).action_values(models, batch, real)
    torch.testing.assert_close(values - plain, torch.tensor([8.75, 7.5, 5.0]).expand(27, 3))


@pytest.mark.parametrize("discount", [-0.1, 1.1])
def test_discounts_out_of_range_are_refused(discount):
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
        ScratchGAN(discount=discount)
