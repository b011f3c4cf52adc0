"""What is particular to each policy gradient: rewards, invariances, and what its settings turn it into."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import class_logits, features
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import (
    DPG,
    DPGAN,
    FGAN,
    GRPO,
    ORGAN,
    PGBLEU,
    CatGAN,
    ColdGAN,
    MaliGAN,
    MaskGAN,
    Models,
    RankGAN,
    Reinforce,
    ScratchGAN,
    SentiGAN,
    StepGAN,
    TextGAIL,
)
from seqgan_hf.objectives.classes import class_of
from seqgan_hf.samples import Samples
from tests.tools.small_runs import text
from tests.tools.tables import (
    Judge,
    TableGenerator,
    TableJudge,
    all_sequences,
    assert_close,
    credited,
    language_model,
    last_ids,
    random_table,
)
from tests.tools.tiny import BOS, EOS, PAD, build_discriminator, build_generator
from tests.tools.two_processes import on_two


# --- What all of them share ------------------------------------------------------------------------------------------


def test_the_kl_is_logged_in_nats_a_sequence():
    generator, objective = random_table(), Reinforce(kl=1.0)
    models = Models(generator, TableJudge(), objective.copies())
    models.begin()
    with torch.no_grad():
        generator.table += torch.randn_like(generator.table)
        found = objective.credit(models, all_sequences(), all_sequences()).metrics["kl_reference"]
        ratios = token_logprobs(generator, all_sequences()) - token_logprobs(models["reference"], all_sequences())
    assert found == pytest.approx(float(ratios.sum(dim=1).mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["kl", "likelihood_weight"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_that_are_no_weights_are_refused(name, value):
    with pytest.raises(UserError, match=f"^{name}={value}: expected a number from 0 on"):
        Reinforce(**{name: value})


@pytest.mark.parametrize("kind", ["cnn", "rnn", "per_token", "bert"])
def test_features_are_what_the_last_layer_reads(kind):
    discriminator, generator = build_discriminator(kind).eval(), build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 5), 6)
    with torch.no_grad():
        found = features(discriminator, samples)
        head = discriminator.classifier if kind == "bert" else discriminator.score
        logits = class_logits(discriminator, samples)
    if kind == "per_token":
        logits = logits[torch.arange(5), samples.lengths - 1]
    assert_close(head(found), logits)


# --- DPG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [None, 4])
def test_dpg_draws_from_the_generator_as_the_objective_began(group_size):
    """For both players; for the generator in groups of one prompt where it is told so."""
    objective, generator, real = DPG(group_size=group_size), build_generator("lstm"), text(8)
    start = copy.deepcopy(generator)
    models = Models(generator, None, objective.copies())
    models.begin()
    with torch.no_grad():
        generator.lm_head.weight.zero_()
    grouped = real if group_size is None else real.select(torch.tensor([0] * 4 + [1] * 4))
    for draw, asked in ((objective.sample, grouped), (objective.fakes, real)):
        torch.manual_seed(0)
        expected = sample(start, asked.prompt, 5)
        torch.manual_seed(0)
        assert torch.equal(draw(models, real, 5).ids, expected.ids)


def test_dpg_asks_for_groups_where_there_are_prompts():
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    with pytest.raises(UserError, match="Set `objective.group_size`"):
        DPG().check(models, 8, conditional=True)
    DPG(group_size=4).check(models, 8, conditional=True)
    with pytest.raises(UserError, match="group_size=3 with batches of 8"):
        DPG(group_size=3).check(models, 8, conditional=True)


def test_dpg_tells_of_two_processes_what_it_tells_of_one():
    """The weights, and how many count, which is no mean of each one's own."""
    values = torch.tensor([3.0, 0.0, 1.0, 0.0, -1.0, 0.0, 2.0, 0.0])

    def credit(rows: slice):
        objective, batch = DPG(), all_sequences().select(slice(0, 8)).select(rows)
        objective.reward = lambda models, samples, real: values[rows]
        credit = objective.credit(None, batch, batch)
        return credit.samples.advantages[:, 0], credit.metrics["effective_share"]

    (first, one), (second, other) = on_two(lambda rank: credit(slice(4 * rank, 4 * rank + 4)))
    weights, share = credit(slice(0, 8))
    assert_close(torch.cat([first, second]), weights)
    assert_close(torch.stack([one, other]), share.expand(2))


# --- MaliGAN ---------------------------------------------------------------------------------------------------------


def test_maligan_does_not_change_with_the_level_of_the_log_odds():
    log_odds, models = torch.randn(27), Models(random_table(), None)
    for objective in (MaliGAN(), MaliGAN(likelihood_prefix=1, completions=3)):
        found = []
        for shift in (0.0, 1.5, -200.0):
            models.discriminator = Judge(log_odds + shift)
            found.append(credited(objective, models).advantages)
        assert_close(found[0], found[1])
        assert_close(found[0], found[2], rtol=1e-4, atol=1e-4)  # log-odds near -200 have fewer digits


def test_maligan_with_a_judge_that_knows_nothing_has_no_signal():
    assert not credited(MaliGAN(), Models(TableGenerator(), Judge(torch.ones(27)))).advantages.any()


def test_maligan_cuts_off_large_ratios():
    models = Models(TableGenerator(), Judge(torch.full((27,), 50.0)))
    values = MaliGAN(max_log_odds=2.0).action_values(models, all_sequences(), all_sequences())
    assert_close(values, torch.full((27, 3), 2.0))


def test_maligan_shows_the_discriminator_no_real_prefix():
    generator = build_generator("lstm")
    real = sample(generator, start_prompt(generator, 8), 6)
    torch.manual_seed(1)
    fakes = MaliGAN(likelihood_prefix=2, completions=4).fakes(Models(generator), real, 6)
    torch.manual_seed(1)
    assert torch.equal(fakes.ids, sample(generator, real.prompt, 6).ids)
    assert not torch.equal(fakes.ids[:, :2], real.ids[:, :2])


def test_maligan_continues_real_prefixes_in_groups():
    generator, objective = build_generator("lstm"), MaliGAN(likelihood_prefix=2, completions=4)
    torch.manual_seed(0)
    real = sample(generator, start_prompt(generator, 40), 6)
    models = Models(generator, build_discriminator("cnn"))
    fake = objective.sample(models, real, 6)
    fake_rows, real_rows = fake.ids.view(10, 4, 6), real.ids[:10, None]
    assert (fake_rows[:, :, :2] == real_rows[:, :, :2]).all()
    ended = real.lengths[:10] <= 2
    assert 0 < ended.sum() < 10
    assert torch.equal(fake.mask.view(10, 4, 6)[ended], real.mask[:10][ended][:, None].expand(-1, 4, -1))
    assert (fake_rows[~ended][:, 1:] != fake_rows[~ended][:, :1]).any()
    through = ((fake.ids == EOS) & fake.mask).cumsum(dim=1) - (fake.ids == EOS).long()
    assert torch.equal(fake.mask, through == 0), "up to the end token, or to the last place"
    advantages = credited(objective, models, fake).advantages.view(10, 4, 6)
    assert (advantages[:, :, :2] == 1).all()
    assert_close(advantages[:, :, 2:].mean(dim=1), torch.zeros(10, 4))


@pytest.mark.parametrize("padded", [True, False])
def test_maligan_draws_what_is_behind_its_prefix(padded, monkeypatch):
    """One token where one is left; padding of the prompt stays padding."""
    generator, given = build_generator("lstm", eos=None), []

    def noted(generator, prompt, max_new_tokens, prompt_mask=None):
        given.append((prompt, max_new_tokens, prompt_mask))
        return sample(generator, prompt, max_new_tokens, prompt_mask=prompt_mask)

    monkeypatch.setattr("seqgan_hf.objectives.maligan.sample", noted)
    prompt = torch.tensor([[PAD, BOS, 5], [BOS, 6, 7]]) if padded else torch.tensor([[BOS, 5, 6], [BOS, 6, 7]])
    mask = prompt != PAD if padded else None
    real = sample(generator, prompt, 4, prompt_mask=mask)
    fake = MaliGAN(likelihood_prefix=3, completions=2).sample(Models(generator), real, 4)
    (read, length, read_mask), rows = given[0], torch.tensor([0])
    assert length == 1 and fake.mask.all() and torch.equal(read[:, :3], prompt[rows.expand(2)])
    assert torch.equal(read[:, 3:], real.ids[rows.expand(2), :3])
    if padded:
        assert read_mask.tolist() == [[False, True, True, True, True, True]] * 2
    else:
        assert read_mask is None


def test_maligan_gives_the_prefix_up_step_by_step():
    objective = MaliGAN(likelihood_prefix=4, likelihood_prefix_decay=0.5)
    prefixes = []
    for _ in range(10):
        prefixes.append(objective.prefix)
        objective.after_step("generator", None)
        for _ in range(3):
            objective.after_step("discriminator", None)
    assert MaliGAN().prefix == 0
    other = MaliGAN(likelihood_prefix=4, likelihood_prefix_decay=0.5)
    other.load_state_dict(objective.state_dict())
    assert other.prefix == objective.prefix < 4


def test_ratios_of_two_processes_are_normalised_together():
    values = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).expand(8, 3)
    both = on_two(lambda rank: MaliGAN().advantages(None, values[4 * rank : 4 * rank + 4], None))
    assert_close(torch.cat(both), MaliGAN().advantages(None, values, None))


# --- Verdicts on every token -----------------------------------------------------------------------------------------


class TokenJudge(torch.nn.Module):
    """Given probabilities (B, T) of being real, whatever is read."""

    def __init__(self, verdicts: list[list[float]]):
        super().__init__()
        self.logits = torch.tensor(verdicts).logit()[..., None]

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": self.logits})


def two_rows(length: int) -> tuple[Samples, Samples]:
    row = Samples(torch.zeros(1, 1).long(), torch.zeros(1, length).long(), torch.ones(1, length).bool())
    return row, row


def test_stepgan_averages_probabilities_inside_the_logarithm():
    models = Models(None, TokenJudge([[0.2, 0.6], [0.9, 0.7]]))
    loss = StepGAN().discriminator_loss(models, *two_rows(2))
    assert float(loss.value) == pytest.approx(-math.log(0.4) - math.log(0.2), abs=1e-6)
    assert float(loss.metrics["discriminator_accuracy"]) == 0.0
    models = Models(None, TokenJudge([[0.9, 0.6], [0.9, 0.7]]))
    metrics = StepGAN().discriminator_loss(models, *two_rows(2)).metrics
    assert float(metrics["discriminator_accuracy"]) == 0.5, "the real row is called real, and so is the other"


def test_stepgan_averages_each_sequence_over_its_own_tokens():
    rows = Samples(*(torch.zeros(2, n).long() for n in (1, 3)), torch.tensor([[True, False, False], [True] * 3]))
    models = Models(None, TokenJudge([[0.2, 0.9, 0.9], [0.4, 0.6, 0.2], [0.5, 0.9, 0.9], [0.5] * 3]))
    expected = -(math.log(0.2) + math.log(0.4)) / 2 - math.log(0.5)
    assert float(StepGAN().discriminator_loss(models, rows, rows).value) == pytest.approx(expected, abs=1e-6)


def test_stepgan_of_one_token_is_the_usual_discriminator():
    models = Models(None, TokenJudge([[0.3], [0.6]]))
    usual = Reinforce().discriminator_loss(models, *two_rows(1)).value
    assert_close(StepGAN().discriminator_loss(models, *two_rows(1)).value, 2 * usual)


def test_stepgan_credits_each_token_with_its_own_verdict():
    models, batch = Models(TableGenerator(), TableJudge(per_token=True)), all_sequences()
    verdicts = torch.cat([torch.full((27, 2), 0.5), TableJudge().log_odds.sigmoid()[:, None]], dim=1)
    assert_close(credited(StepGAN(baseline="none"), models, batch).advantages, verdicts)
    assert_close(credited(StepGAN(True, "none"), models, batch).advantages, verdicts * torch.tensor([3.0, 2.0, 1.0]))


def test_stepgan_leaves_out_padding_and_counts_down():
    real, fake = two_rows(3)
    fake = fake._replace(mask=torch.tensor([[True, True, False]]))
    models = Models(None, TokenJudge([[0.2, 0.6, 0.4], [0.9, 0.7, 0.1]]))
    loss = StepGAN().discriminator_loss(models, real, fake).value
    assert float(loss) == pytest.approx(-math.log(0.4) - math.log(0.2), abs=1e-6)
    values = torch.tensor([[0.5, 0.25, 0.0]])
    found = StepGAN(decreasing=True, baseline="none").advantages(None, values, fake)
    assert_close(found, torch.tensor([[1.0, 0.25, 0.0]]))


def test_maskgan_discounts_log_verdicts_and_cuts_advantages_off():
    models = Models(TableGenerator(), TableJudge(per_token=True))
    batch = all_sequences()
    own = MaskGAN(discount=0.0).action_values(models, batch, batch)
    assert_close(own[:, 2], (TableJudge().log_odds.sigmoid() + 1e-7).log())
    assert_close(own[:, :2], torch.full((27, 2), math.log(0.5 + 1e-7)))
    whole = MaskGAN(discount=0.5).action_values(models, batch, batch)
    assert_close(whole[:, 0], own[:, 0] + 0.5 * own[:, 1] + 0.25 * own[:, 2])
    values = torch.tensor([[-0.9, 0.2, 0.9]])
    cut = MaskGAN(max_advantage=0.3, baseline="none").advantages(None, values, batch.select(slice(0, 1)))
    assert_close(cut, torch.tensor([[-0.3, 0.2, 0.3]]))


def test_maskgan_rewards_what_is_certainly_wrong_with_a_finite_number_and_padding_with_nothing():
    rows = Samples(*(torch.zeros(1, n).long() for n in (1, 3)), torch.tensor([[True, True, False]]))
    found = MaskGAN().reward(Models(None, TokenJudge([[0.0, 0.5, 0.5]])), rows, None)
    assert_close(found, torch.tensor([[math.log(1e-7), math.log(0.5 + 1e-7), 0.0]]))


@pytest.mark.parametrize("objective", [StepGAN(), MaskGAN(), ScratchGAN()])
def test_a_judge_of_whole_sequences_is_refused(objective):
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    with pytest.raises(ValueError, match=f"{type(objective).__name__} with a discriminator that judges whole"):
        objective.check(models, 4, False)
    models.discriminator = build_discriminator("per_token")
    objective.check(models, 4, False)


# --- SentiGAN --------------------------------------------------------------------------------------------------------


class Classes(torch.nn.Module):
    """Logits (K + 1) that depend on the first token of the condition only."""

    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, -1.0], [0.5, 0.25, 0.0], [0.1, 0.2, 0.4]])

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": self.logits[: len(input_ids)]})


def conditional(classes: list[int]) -> Samples:
    prompt = torch.tensor([[0, token] for token in classes])
    ids = torch.ones(len(classes), 2, dtype=torch.long)
    return Samples(prompt, ids, torch.ones_like(ids, dtype=torch.bool))


def test_sentigan_judges_by_the_class_of_the_prompt():
    objective, models = SentiGAN(classes=[7, 8], rollouts=0), Models(None, Classes())
    assert objective.labels == ("FAKE", "7", "8")
    probabilities = Classes.logits.softmax(dim=1)
    rewards = objective.reward(models, conditional([8, 7]), None)
    assert_close(rewards, torch.stack([probabilities[0, 2], probabilities[1, 1]]) - 1)
    real, fake = conditional([8, 7, 8]), conditional([7])
    loss = objective.discriminator_loss(models, real, fake)
    of_eights = (probabilities[0, 2].log() + probabilities[2, 2].log()) / 2
    assert_close(loss.value, -(of_eights + probabilities[1, 1].log() + probabilities[3, 0].log()) / 3)
    assert_close(loss.metrics["discriminator_loss"], loss.value)
    models.discriminator.regularization = lambda: torch.tensor(2.0)
    assert_close(objective.discriminator_loss(models, real, fake).value, loss.value + 2)
    # of the eights the second is called fake, the seven, too; the generated row is called an eight
    assert float(loss.metrics["discriminator_accuracy"]) == pytest.approx((1 / 2 + 0 + 0) / 3)


def test_sentigan_reads_the_class_as_a_word():
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["good", "bad"] * 9])
    good, bad = (token for (token,) in encode_batch(tokenizer, ["good", "bad"]))
    words, ids = SentiGAN(classes=["good", "bad"], rollouts=0), SentiGAN(classes=[good, bad], rollouts=0)
    models, rows = Models(None, Classes(), tokenizer=tokenizer), conditional([bad, good])
    assert_close(words.reward(models, rows, None), ids.reward(models, rows, None))
    losses = [each.discriminator_loss(models, rows, conditional([good])).value for each in (words, ids)]
    assert_close(*losses)


@pytest.mark.parametrize(
    ("classes", "prompts", "message"),
    [
        ([7, 8], [7, 9], r"a prompt with 0 of the class tokens \[7, 8\]: expected one in every prompt"),
        (["positive", "negative"], [7, 8], "class 'positive' is no token of the vocabulary: expected a word of the"),
        (["good", "not good"], [7, 8], "class 'not good' is no token of the vocabulary"),
    ],
)
def test_sentigan_names_what_is_wrong_with_classes(classes, prompts, message):
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["good", "bad", "not good"]])
    with pytest.raises(ValueError, match=message):
        class_of(classes, Models(None, tokenizer=tokenizer), conditional(prompts))


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_classes_are_words_as_they_stand_in_the_prompts(level):
    """A word's token has the space before it; a user does not write that."""
    tokenizer = build_tokenizer(TokenizerConfig(level=level), lambda: [["good", "bad"] * 9])
    prompts = [token for (token,) in encode_batch(tokenizer, ["bad", "good", "bad"])]
    found = class_of(["good", "bad"], Models(None, tokenizer=tokenizer), conditional(prompts))
    assert found.tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", [SentiGAN, CatGAN])
def test_data_and_classes_that_do_not_fit_are_refused_before_the_run(kind):
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    with pytest.raises(ValueError, match="for sequences without prompts: expected a prompt that names the class"):
        kind([7, 8]).check(models, 4, conditional=False)
    models.discriminator.config.num_labels = 3
    with pytest.raises(ValueError, match="class 'good' is no token"):
        kind(["good", "bad"]).check(models, 4, conditional=True)
    with pytest.raises(UserError, match="class 99 for a vocabulary of 13 tokens: expected ids from 0 to 12"):
        kind([7, 99]).check(models, 4, conditional=True)
    with pytest.raises(UserError, match="class 13 for a vocabulary"):
        kind([0, 13]).check(models, 4, conditional=True)
    kind([0, 12]).check(models, 4, conditional=True)
    for classes, prompts, message in (
        ([7, 8, 9], [7, 8, 7], "class 9 is in no prompt of the training data: expected classes that prompts name"),
        ([7, 9], [7, 8, 7], "class 9 is in no prompt"),
        ([7, 8], [7, 8, 9], "a prompt with 0 of the class tokens"),
    ):
        with pytest.raises(UserError, match=message):
            kind(classes).check_sequences(models, conditional(prompts))
    kind([7, 8]).check_sequences(models, conditional([7, 8, 7]))
    kind().check_sequences(models, conditional([7, 8, 7]))


@pytest.mark.parametrize("kind", [SentiGAN, CatGAN])
def test_words_that_no_prompt_holds_are_refused_before_the_run(kind):
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["good", "bad"] * 9])
    models, (good, bad) = (
        Models(None, tokenizer=tokenizer),
        [ids[0] for ids in encode_batch(tokenizer, ["good", "bad"])],
    )
    kind(["good", "bad"]).check_sequences(models, conditional([bad, good]))
    with pytest.raises(UserError, match="class 'bad' is in no prompt"):
        kind(["good", "bad"]).check_sequences(models, conditional([good, good]))


def test_sentigan_refuses_a_discriminator_of_other_labels():
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    with pytest.raises(UserError, match="a discriminator of 2 labels for 2 classes: expected 3 labels: of generated"):
        SentiGAN([7, 8]).check(models, 4, conditional=True)
    SentiGAN().check(models, 4, conditional=True)


@pytest.mark.parametrize("classes", [[7], [7, 7]])
def test_sentigan_refuses_one_class(classes):
    with pytest.raises(ValueError, match="two or more different tokens"):
        SentiGAN(classes)


# --- DPGAN -----------------------------------------------------------------------------------------------------------


def test_dpgan_cuts_surprise_off():
    objective, models = DPGAN(max_reward=0.5), Models(None, TableGenerator())
    assert (objective.reward(models, all_sequences(), None) == 0.5).all()


def padded_rows(rows: list[list[int]]) -> Samples:
    ids = torch.tensor([row + [0] * (3 - len(row)) for row in rows])
    return Samples(torch.full((len(rows), 1), BOS), ids, torch.arange(3) < torch.tensor([[len(row)] for row in rows]))


def test_dpgan_takes_means_over_the_tokens_of_each_sequence():
    """By hand, of lengths 2 and 3 among the samples, 1 and 3 in the real text; q gives token v (v + 1) / 6."""
    of_0, of_1, of_2 = math.log(6), math.log(3), math.log(2)
    objective, models = DPGAN(real_weight=0.5, discount=0.5), Models(None, language_model())
    fake, real = padded_rows([[2, 0], [1, 2, 0]]), padded_rows([[0], [2, 2, 2]])
    means = (of_2 + of_0) / 2, (of_1 + of_2 + of_0) / 3
    returns = [of_2 + of_0 / 2, of_0, 0.0], [of_1 + of_2 / 2 + of_0 / 4, of_2 + of_0 / 2, of_0]
    with torch.no_grad():
        found = objective.action_values(models, fake, real)
    assert_close(found, torch.tensor(means)[:, None] * torch.tensor(returns))
    loss = objective.discriminator_loss(models, real, fake)
    assert loss.value.item() == pytest.approx(sum(means) / 2 - 0.5 * (of_0 + of_2) / 2, rel=1e-5)


# --- ColdGAN ---------------------------------------------------------------------------------------------------------


def test_coldgan_counts_no_padding():
    rows = all_sequences().select(slice(0, 2))._replace(mask=torch.tensor([[True, False, False], [True, True, True]]))
    found = ColdGAN().behaviour(Models(random_table()), rows)
    assert (found[0, 1:] == 0).all() and (found[1] != 0).all()


@pytest.mark.parametrize("mixture", [0.0, 0.3])
def test_coldgans_behaviour_is_a_distribution_over_sequences(mixture):
    objective = ColdGAN(temperature=0.6, top_p=0.7, mixture=mixture)
    behaviour = objective.behaviour(Models(random_table()), all_sequences()).detach()
    assert float(behaviour.sum(dim=1).exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert behaviour.isfinite().all()


def test_coldgan_draws_what_it_says_it_draws():
    """E_q of any function of the sequence, by the probabilities that the samples carry, against their frequencies."""
    generator = build_generator("lstm")
    models = Models(generator)
    objective = ColdGAN(temperature=0.7, top_p=0.8, mixture=0.4)
    torch.manual_seed(0)
    fake = objective.sample(models, Samples(start_prompt(generator, 6000), *[torch.zeros(6000, 0).long()] * 2), 1)
    every = torch.arange(generator.config.vocab_size)[:, None]
    one_token = Samples(start_prompt(generator, len(every)), every, torch.ones_like(every, dtype=torch.bool))
    expected = objective.behaviour(models, one_token).exp().squeeze(1)
    found = torch.bincount(fake.ids[:, 0], minlength=len(every)) / 6000
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / 6000).sqrt() + 1e-4).all()
    assert_close(fake.logprobs[:, 0].exp(), expected[fake.ids[:, 0]])


def test_coldgan_clips_weights_at_either_level():
    logprobs, samples = torch.tensor([[0.0, -1.0]]), all_sequences().select(slice(0, 1))
    samples = samples._replace(ids=samples.ids[:, :2], logprobs=torch.tensor([[-2.0, -1.0]]))
    ones = torch.ones(1, 2)
    for level, largest, expected in (
        ("sequence", 100.0, [math.exp(2), math.exp(2)]),
        ("token", 100.0, [math.exp(2), 1.0]),
        ("token", 3.0, [3.0, 1.0]),
    ):
        objective = ColdGAN(level=level, max_weight=largest)
        assert_close(objective.token_weights(None, ones, logprobs, samples), torch.tensor([expected]))


def test_coldgan_remembers_and_shows_what_it_drew_earlier():
    generator = build_generator("lstm")
    models, objective = Models(generator), ColdGAN(memory=6)
    torch.manual_seed(0)
    prompts = sample(generator, start_prompt(generator, 4), 5)
    first = objective.fakes(models, prompts, 5)
    assert torch.equal(objective.remembered.ids, first.ids)
    drawn = []
    objective.sample = lambda *given: drawn.append(ColdGAN.sample(objective, *given)) or drawn[-1]
    second = objective.fakes(models, prompts, 5)
    assert torch.equal(objective.remembered.ids[-4:], drawn[0].ids), "the newest stay"
    assert torch.equal(objective.remembered.ids[:2], first.ids[2:])
    assert second.batch_size == 4
    assert all(any(torch.equal(row, old) for old in first.ids) for row in second.ids[2:])
    assert objective.remembered.batch_size == 6
    other = ColdGAN(memory=6)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.remembered.ids, objective.remembered.ids)


# --- f-divergences ---------------------------------------------------------------------------------------------------


def test_fgan_cuts_log_odds_off_at_both_ends():
    judge = Judge(torch.linspace(-9, 9, 27))
    found = FGAN(clip=2.0).reward(Models(None, judge), all_sequences(), None)
    assert_close(found, judge.log_odds.clamp(-2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaliGAN(baseline_weight=2.0), r"baseline_weight=2.0: expected a number in \[0, 1\]"),
        (lambda: MaliGAN(max_log_odds=0), "max_log_odds=0"),
        (lambda: MaliGAN(likelihood_prefix=-1), "likelihood_prefix=-1"),
        (lambda: MaliGAN(completions=1), "completions=1"),
        (lambda: RankGAN(references=0), "references=0"),
        (lambda: RankGAN(gamma=-1.0), "gamma=-1.0"),
        (lambda: PGBLEU(max_n=0), "max_n=0"),
        (lambda: ORGAN(last_ids, 1.5), "discriminator_weight=1.5"),
        (lambda: MaskGAN(discount=2.0), "discount=2.0"),
        (lambda: MaskGAN(max_advantage=0.0), "max_advantage=0.0"),
        (lambda: DPGAN(real_weight=-1.0), "real_weight=-1.0"),
        (lambda: DPGAN(max_reward=0.0), "max_reward=0.0"),
        (lambda: DPGAN(discount=-0.5), "discount=-0.5"),
        (lambda: ColdGAN(temperature=0.0), "temperature=0.0"),
        (lambda: ColdGAN(mixture=1.0), "mixture=1.0"),
        (lambda: ColdGAN(max_weight=0.0), "max_weight=0.0"),
        (lambda: ColdGAN(level="word"), "level='word'"),
        (lambda: GRPO(group_size=1), "group_size=1: expected at least 2 samples of each prompt"),
        (lambda: GRPO(clip=1.5), "clip=1.5"),
        (lambda: GRPO(clip_high=0.0), "clip_high=0.0"),
        (lambda: GRPO(kl_in="both"), "kl_in='both'"),
        (lambda: GRPO(level="word"), "level='word'"),
        (lambda: TextGAIL(updates=0), "updates=0"),
        (lambda: TextGAIL(demonstrations=1.2), "demonstrations=1.2"),
        (lambda: TextGAIL(demonstration_steps=0), "demonstration_steps=0"),
        (lambda: FGAN("kl"), "divergence='kl': expected one of forward_kl"),
        (lambda: FGAN(clip=0.0), "clip=0.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_real_prefixes_pay_no_price():
    with pytest.raises(UserError, match="kl=0.1 with likelihood_prefix=2: expected one of them"):
        MaliGAN(likelihood_prefix=2, kl=0.1)
