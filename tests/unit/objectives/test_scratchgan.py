"""ScratchGAN: discounted returns of a verdict a token."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.functional import discounted
from seqgan_hf.objectives import Models, ScratchGAN
from tests.tools.tables import TableGenerator, TableJudge, all_sequences
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


def test_padding_earns_nothing():
    batch = all_sequences()
    batch = batch._replace(mask=torch.ones_like(batch.mask).tril())
    rewards = ScratchGAN().reward(Models(TableGenerator(), TableJudge(per_token=True)), batch, batch)
    assert not rewards[~batch.mask].any()


def test_the_moving_average_has_the_momentum_that_is_set():
    objective, batch = ScratchGAN(baseline_momentum=0.25), all_sequences()
    objective.moving_average = torch.zeros(3)
    objective.advantages(torch.ones(27, 3), batch)
    torch.testing.assert_close(objective.moving_average, torch.full((3,), 0.75))


@pytest.mark.parametrize("kind", ["cnn", "bert"])
def test_a_discriminator_of_whole_sequences_is_refused(kind):
    generator = build_generator("lstm")
    models, batch = Models(generator, build_discriminator(kind)), all_sequences()
    with pytest.raises(ValueError, match="judges whole sequences: expected one that judges every token. Use"):
        ScratchGAN().credit(models, batch, batch)


@pytest.mark.parametrize("discount", [-0.1, 1.1])
def test_discounts_out_of_range_are_refused(discount):
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
        ScratchGAN(discount=discount)
