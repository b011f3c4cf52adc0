"""Samples that are compared with each other: groups, ratios and clipping, discriminators of pairs."""

from __future__ import annotations

import math

import pytest
import torch

from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import (
    GAD,
    GRPO,
    RLOO,
    MaliGAN,
    Models,
    TextGAIL,
)
from seqgan_hf.objectives.ratios import clipped
from seqgan_hf.training.batches import InMemoryData
from tests.tools.tables import (
    Judge,
    T,
    TableGenerator,
    TableJudge,
    all_sequences,
    assert_close,
    credited,
    random_table,
)
from tests.tools.tiny import BOS, build_discriminator, build_generator
from tests.tools.two_processes import on_two


# --- Groups, ratios --------------------------------------------------------------------------------------------------


def test_groups_are_compared_with_themselves():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = torch.tensor([[-1.5, -0.5, 0.5, 1.5]]) / (math.sqrt(5 / 3) + 1e-4)
    assert_close(GRPO().relative(rewards, rewards), expected)
    assert_close(RLOO().relative(rewards, rewards), torch.tensor([[-2.0, -2 / 3, 2 / 3, 2.0]]))
    assert_close(GRPO(scale=False).relative(rewards, rewards), rewards - 2.5)
    among = torch.tensor([[1.0, 2.0, 3.0, 4.0, 10.0]])
    assert_close(GRPO(scale=False).relative(rewards, among), rewards - 4)
    assert_close(RLOO().relative(rewards, among), (rewards - 4) * 5 / 4)
    groups = torch.tensor([[1.0, 3.0], [10.0, 30.0]])
    deviations = torch.tensor([[math.sqrt(2)], [math.sqrt(200)]])
    assert_close(GRPO().relative(groups, groups), torch.tensor([[-1.0, 1.0], [-10.0, 10.0]]) / (deviations + 1e-4))
    two = torch.tensor([[1.0, 3.0]])
    assert_close(RLOO().relative(two, two), torch.tensor([[-2.0, 2.0]]))
    equal = torch.full((2, 4), 0.7)
    assert not GRPO().relative(equal, equal).any()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (GRPO(group_size=5), "group_size=5 with batches of 64: expected a size that divides the batch"),
        (MaliGAN(likelihood_prefix=2, completions=3), "completions=3 with batches of 64"),
    ],
)
def test_a_batch_of_broken_groups_is_refused(objective, message):
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    for conditional in (True, False):
        with pytest.raises(ValueError, match=message):
            objective.check(models, 64, conditional)
        objective.check(models, 60, conditional)


@pytest.mark.parametrize("start", [[BOS], []])
def test_groups_are_rows_of_one_prompt(start):
    """Prompts of one token, too."""
    generator, objective = build_generator("lstm"), GRPO(group_size=3, scale=False)
    prompt = torch.tensor([[*start, token] for token in range(3, 10)])
    real = sample(generator, prompt, 4)
    data = InMemoryData(real, real.ids.device)
    objective.check(Models(generator, build_discriminator("cnn")), 6, data.conditional)
    fake = objective.sample(Models(generator), real, 4)
    assert fake.prompt[:, -1].tolist() == [3, 3, 3, 4, 4, 4]  # the seventh prompt fills no group
    values = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])[:, None].expand(6, 4)
    found = objective.advantages(None, values, fake)
    assert_close(found[:, 0], torch.tensor([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]))
    seen = []
    objective.reward = lambda models, samples, real: seen.append(real) or torch.zeros(6)
    objective.credit(Models(generator), real, fake)
    assert torch.equal(seen[0].prompt, fake.prompt)


@pytest.mark.parametrize("objective", [GRPO(group_size=3), RLOO(group_size=3, kl=0.0), GAD(group_size=3, kl=0.0)])
def test_the_spread_that_is_logged_is_that_within_groups(objective):
    """Rewards that are equal in every group teach nothing, however far apart the groups are."""
    generator = build_generator("lstm")
    rows = sample(generator, torch.tensor([[0, 3]] * 3 + [[0, 4]] * 3), 4)
    models = Models(generator, build_discriminator("cnn"))
    objective.check(models, 6, conditional=True)
    found = []
    for rewards in ([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], [0.0, 0.0, 3.0, 5.0, 5.0, 5.0]):
        objective.reward = lambda models, samples, real, rewards=rewards: torch.tensor(rewards)
        found.append(float(objective.credit(Models(generator), rows, rows).metrics["reward_std"]))
    assert found == pytest.approx([0.0, math.sqrt(2) / 2])
    whole = sample(generator, start_prompt(generator, 6), 4)
    objective.check(models, 6, conditional=InMemoryData(whole, whole.ids.device).conditional)
    last = objective.credit(Models(generator), whole, whole).metrics["reward_std"]
    assert float(last) == pytest.approx(float(torch.tensor(rewards).std(unbiased=False)))


def test_length_normalized_advantages_are_shares():
    batch = all_sequences()
    values = torch.arange(27.0)[:, None].expand(27, 3)
    plain = GRPO().advantages(None, values, batch)
    assert_close(GRPO(length_normalized=True).advantages(None, values, batch), plain / 3)


def test_a_price_in_the_loss_is_divided_by_the_length_where_advantages_are():
    generator, batch = random_table(), all_sequences()
    batch = batch._replace(mask=torch.arange(T) < torch.tensor([1, 2, 3] * 9)[:, None])
    batch = batch._replace(advantages=torch.zeros(27, T))
    reference = random_table(1)
    ratio = (token_logprobs(reference, batch) - token_logprobs(generator, batch)).detach()
    for length_normalized in (False, True):
        objective = GRPO(kl=2.0, kl_in="loss", length_normalized=length_normalized)
        models = Models(generator, None, objective.copies())
        models.begin()
        models["reference"].load_state_dict(reference.state_dict())
        weights = 2.0 * torch.expm1(ratio) / (batch.lengths[:, None] if length_normalized else 1)
        expected = -(weights * token_logprobs(generator, batch)).sum() / 27
        assert_close(objective.generator_loss(models, batch, batch).value, expected)


def test_ratios_are_clipped_in_the_direction_of_the_advantage_only():
    samples = all_sequences().select(slice(0, 4))._replace(logprobs=torch.zeros(4, 3))
    logprobs = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()[:, None].expand(4, 3)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None].expand(4, 3)
    found = clipped(advantages, logprobs, samples, 0.2, None, "token")[:, 0]
    assert_close(found, torch.tensor([0.0, -1.5, 0.5, 0.0]))
    found = clipped(advantages, logprobs, samples, 0.2, 0.6, "token")[:, 0]
    assert_close(found, torch.tensor([1.5, -1.5, 0.5, 0.0]))
    found = clipped(advantages, logprobs, samples, 0.2, 9.0, "sequence")[:2, 0]
    assert_close(found, torch.tensor([1.5**3, -(1.5**3)]))


# --- Pairs -----------------------------------------------------------------------------------------------------------


def test_gad_does_not_change_with_the_level_of_the_scores():
    models, objective = Models(random_table(), TableJudge()), GAD(kl=0.0)
    found = credited(objective, models).advantages
    models.discriminator.log_odds = models.discriminator.log_odds + 3.0
    assert_close(credited(objective, models).advantages, found)


def test_textgail_rewards_a_row_by_its_own_real_row():
    models, batch = Models(None, TableJudge()), all_sequences()
    found = TextGAIL().reward(models, batch, batch.select(torch.arange(26, -1, -1)))
    log_odds = TableJudge().log_odds
    assert_close(found, (log_odds - log_odds.flip(0)).sigmoid())


def test_textgail_normalises_by_running_moments():
    objective, batch = TextGAIL(), all_sequences().select(slice(0, 4))
    values = torch.full((4, 3), 0.5)
    found = objective.advantages(None, values, batch)
    mean, square = 0.5 * (1 - 0.9**4), 0.25 * (1 - 0.9**4)
    assert_close(found, torch.full((4, 3), (0.5 - mean) / math.sqrt(square - mean**2)))
    for _ in range(50):
        found = objective.advantages(None, torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None].expand(4, 3), batch)
    expected = torch.tensor([-0.3, -0.1, 0.1, 0.3]) / math.sqrt(0.05)
    assert_close(found[:, 0], expected)
    far = torch.tensor([99.0, -99.0, 0.5, 0.5])[:, None].expand(4, 3)
    assert objective.advantages(None, far, batch)[:2, 0].tolist() == [2.0, -2.0]


def test_textgails_human_text_takes_the_place_of_the_last_rows():
    models, batch = Models(random_table(), TableJudge()), all_sequences()
    real = batch.select(torch.arange(26, -1, -1))
    with torch.no_grad():
        fake, metrics = TextGAIL(demonstrations=0.5, demonstration_advantage=1.5).credit(models, real, batch)
    assert torch.equal(fake.ids[:13], batch.ids[:13]) and torch.equal(fake.ids[13:], real.ids[:14])
    assert (fake.advantages[13:] == 1.5).all() and "reward" in metrics
    assert_close(fake.logprobs, token_logprobs(models.generator, fake).detach())
    assert "reward" in TextGAIL(demonstrations=0.0).credit(models, real, batch).metrics


@pytest.mark.parametrize(("share", "rows"), [(0.75, 6), (0.25, 2)])
def test_textgails_human_text_takes_the_last_rows_of_all_processes(share, rows):
    """The first of all human texts in the last of all rows, wherever they are."""
    batch = all_sequences()
    fake, real = batch.select(slice(0, 8)), batch.select(slice(8, 16))

    def credited_half(rank: int) -> tuple[torch.Tensor, list[str]]:
        half, models = slice(4 * rank, 4 * rank + 4), Models(random_table(), TableJudge())
        with torch.no_grad():
            objective = TextGAIL(demonstrations=share, updates=1)
            found, metrics = objective.credit(models, real.select(half), fake.select(half))
        return found.ids, list(metrics)

    (first, logged), (second, also_logged) = on_two(credited_half)
    assert torch.equal(torch.cat([first, second]), torch.cat([fake.ids[: 8 - rows], real.ids[:rows]]))
    assert "reward" in logged and logged == also_logged


@pytest.mark.parametrize("kind", [GRPO, TextGAIL])
def test_ratios_are_clipped_as_the_settings_say(kind):
    samples = all_sequences().select(slice(0, 2))._replace(logprobs=torch.zeros(2, 3))
    logprobs, ones = torch.tensor([[1.5, 0.5, 1.0], [1.2, 1.2, 1.0]]).log(), torch.ones(2, 3)
    for settings, expected in (
        ({"level": "token"}, [[0.0, 0.5, 1.0], [1.2, 1.2, 1.0]]),
        ({"level": "token", "clip_high": 0.6}, [[1.5, 0.5, 1.0], [1.2, 1.2, 1.0]]),
        ({"level": "sequence", "clip": 0.3}, [[0.75] * 3, [0.0] * 3]),
    ):
        objective = kind(**{"clip": 0.3, **settings})
        assert_close(objective.token_weights(None, ones, logprobs, samples), torch.tensor(expected))


def test_textgails_demonstrations_fade_out():
    objective, models = TextGAIL(demonstrations=0.5, demonstration_steps=4), Models(TableGenerator(), TableJudge())
    shares = []
    for _ in range(5):
        shares.append(int((credited(objective, models).advantages == 2.0).all(dim=1).sum()))
        objective.after_step("generator", models)
    assert shares == [14, 10, 7, 3, 0]


def test_pairs_are_told_apart_by_the_sign_of_their_margin():
    """Of whole sequences and, at their last tokens, of a judge of every token."""
    log_odds, batch = torch.zeros(27), all_sequences()
    log_odds[:5] = torch.tensor([2.0, 0.5, 0.0, -1.0, 0.0])
    judge, of_tokens = Judge(log_odds), TableJudge(per_token=True)
    of_tokens.log_odds = log_odds
    for opponent in (judge, of_tokens):
        models = Models(None, opponent)
        loss = GAD().discriminator_loss(models, batch.select(slice(0, 4)), batch.select(torch.full((4,), 4)))
        assert_close(loss.value, torch.nn.functional.softplus(-log_odds[:4]).mean())
        assert float(loss.metrics["discriminator_accuracy"]) == 0.5  # a tie is not told apart
        assert float(loss.metrics["discriminator_margin"]) == pytest.approx(0.375) and float(loss.weight) == 4
