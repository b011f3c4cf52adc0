"""What is particular to each policy gradient: exact expectations, invariances, and what its settings turn it into."""

from __future__ import annotations

import math
import sys
from functools import partial

import pytest
import torch

from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import class_logits, features
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import (
    DPGAN,
    FGAN,
    GAD,
    GRPO,
    MLE,
    ORGAN,
    PGBLEU,
    RLOO,
    CatGAN,
    ColdGAN,
    FunctionReward,
    MaliGAN,
    MaskGAN,
    Models,
    RankGAN,
    Reinforce,
    ScratchGAN,
    SentiGAN,
    SeqGAN,
    StepGAN,
    TextGAIL,
)
from seqgan_hf.objectives.classes import class_of
from seqgan_hf.objectives.fgan import REWARDS
from seqgan_hf.objectives.ratios import clipped
from seqgan_hf.samples import Samples
from tests.tools.tables import (
    PREFIXES,
    SEQUENCES,
    FeatureJudge,
    T,
    TableGenerator,
    TableJudge,
    V,
    all_sequences,
    last_ids,
)
from tests.tools.tiny import BOS, EOS, PAD, build_discriminator, build_generator


assert_close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
DATA = torch.arange(1, 28) / 378  # p, for which `TableJudge` is optimal against the uniform generator
REINFORCE = torch.tensor((0.0685856, -0.0136128, -0.0549728))


def random_table(seed: int = 0) -> TableGenerator:
    torch.manual_seed(seed)
    return TableGenerator(torch.randn(len(PREFIXES), V))


def gradient(objective, models, fake, real=None) -> torch.Tensor:
    """Of the loss of a generator step, by the whole table."""
    models.generator.table.grad = None
    objective.generator_loss(models, fake if real is None else real, fake).value.backward()
    return models.generator.table.grad


def exact(generator: TableGenerator, function) -> torch.Tensor:
    """The gradient of a function of the 27 probabilities, by the whole table."""
    return torch.autograd.grad(function(generator.probabilities(SEQUENCES)), generator.table)[0]


def credited(objective, models, batch: Samples | None = None) -> Samples:
    batch = all_sequences() if batch is None else batch
    with torch.no_grad():
        return objective.credit(models, batch, batch).samples


class Judge(TableJudge):
    """Any log-odds for the 27 sequences."""

    def __init__(self, log_odds: torch.Tensor):
        super().__init__()
        self.log_odds = log_odds


# --- What all of them share ------------------------------------------------------------------------------------------


def test_real_text_is_added_with_its_weight():
    generator, batch = random_table(), all_sequences()
    models = Models(generator, TableJudge())
    fake = credited(Reinforce(), models)
    plain = gradient(Reinforce(), models, fake)
    likely = gradient(MLE(), models, batch) * T  # the mean over tokens of MLE is a sum over tokens here
    found = gradient(Reinforce(likelihood_weight=0.3), models, fake)
    assert_close(found, plain + 0.3 * likely)


def test_the_kl_in_the_reward_has_the_gradient_of_the_divergence_from_the_reference():
    generator, reference = TableGenerator(), random_table()
    models = Models(generator, TableJudge(), Reinforce(kl=1.0).copies())
    models.begin()
    models["reference"].load_state_dict(reference.state_dict())
    free = gradient(Reinforce(), models, credited(Reinforce(), models))
    priced = gradient(Reinforce(kl=0.5), models, credited(Reinforce(kl=0.5), models))
    target = reference.probabilities(SEQUENCES).detach()
    kl = exact(generator, lambda p: (p * (p / target).log()).sum())
    # compared with the 26 others, where each of the 27 stands once
    assert_close(priced - free, 0.5 * kl * 27 / 26)


def test_the_kl_is_logged_in_nats_a_sequence():
    generator, objective = random_table(), Reinforce(kl=1.0)
    models = Models(generator, TableJudge(), objective.copies())
    models.begin()
    with torch.no_grad():
        generator.table += torch.randn_like(generator.table)
        found = objective.credit(models, all_sequences(), all_sequences()).metrics["kl_reference"]
        ratios = token_logprobs(generator, all_sequences()) - token_logprobs(models["reference"], all_sequences())
    assert found == pytest.approx(float(ratios.sum(dim=1).mean()), rel=1e-5)


@pytest.mark.parametrize("setting", [{"kl": -1.0}, {"likelihood_weight": -0.1}, {"kl": math.nan}])
def test_negative_weights_are_refused(setting):
    with pytest.raises(ValueError, match="expected a number from 0 on"):
        Reinforce(**setting)


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


# --- MaliGAN ---------------------------------------------------------------------------------------------------------


def test_maligan_does_not_change_with_the_level_of_the_log_odds():
    log_odds, models = torch.randn(27), Models(random_table(), None)
    found = []
    for shift in (0.0, 1.5):
        models.discriminator = Judge(log_odds + shift)
        found.append(credited(MaliGAN(), models).advantages)
    assert_close(found[0], found[1])


def test_maligan_with_a_judge_that_knows_nothing_has_no_signal():
    assert not credited(MaliGAN(), Models(TableGenerator(), Judge(torch.ones(27)))).advantages.any()


def test_maligan_cuts_off_large_ratios():
    models = Models(TableGenerator(), Judge(torch.full((27,), 50.0)))
    values = MaliGAN(max_log_odds=2.0).action_values(models, all_sequences(), all_sequences())
    assert_close(values, torch.full((27, 3), math.exp(2.0)))


def test_maligan_with_everything_given_is_maximum_likelihood():
    generator, objective = random_table(), MaliGAN(likelihood_prefix=T, completions=3)
    models, real = Models(generator, TableJudge()), all_sequences().select(slice(0, 9))
    fake = objective.sample(models, real, T)
    assert torch.equal(fake.ids, SEQUENCES[[0, 0, 0, 1, 1, 1, 2, 2, 2]])
    found = gradient(objective, models, credited(objective, models, fake))
    assert_close(found, gradient(MLE(), models, fake) * T)


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
    assert prefixes == [4, 4, 3, 2, 2, 2, 1, 0, 0, 0]


# --- RankGAN ---------------------------------------------------------------------------------------------------------


def test_rankgan_takes_the_mean_of_the_shares():
    objective = RankGAN()
    half = math.sqrt(0.5)
    y, u, c = torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([[half, half]])
    assert float(objective.log_rank(y, u, c).exp()) == pytest.approx(0.451471, abs=1e-6)
    objective.gamma = 0.0
    assert float(objective.log_rank(torch.randn(1, 2), u, torch.randn(4, 2)).exp()) == pytest.approx(1 / 5)


def test_rankgan_rewards_rows_by_themselves():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    torch.manual_seed(0)
    real, fake = (sample(generator, start_prompt(generator, 6), 5) for _ in range(2))
    objective, models = RankGAN(references=2), Models(generator, discriminator)
    parts = [objective.reward(models, fake.select(slice(i, i + 1)), real) for i in range(6)]
    assert_close(objective.reward(models, fake, real), torch.cat(parts))
    plain = RankGAN(references=2, log_reward=False).reward(models, fake, real)
    assert_close(plain, torch.cat(parts).exp())


def test_the_ranker_puts_real_sequences_first():
    """Against generated ones; and generated ones last, against real ones."""
    objective, models, batch = RankGAN(references=2, gamma=3.0), Models(None, FeatureJudge()), all_sequences()
    real, fake = batch.select(slice(20, 25)), batch.select(slice(0, 4))
    of_real, of_fake = (features(models.discriminator, rows) for rows in (real, fake))
    of_others = objective.log_rank(of_real[2:], of_real[:2], of_fake)
    of_generated = objective.log_rank(of_fake, of_real[:2], of_real[2:])
    expected = (-of_others.mean() - (1 - of_generated.exp()).log().mean()) / 2
    assert_close(objective.discriminator_loss(models, real, fake).value, expected)


def test_rankgan_learns_to_rank():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    torch.manual_seed(0)
    real, fake = sample(generator, start_prompt(generator, 16), 5), sample(generator, start_prompt(generator, 16), 5)
    real = real._replace(ids=real.ids.clamp(min=6))
    objective, models = RankGAN(references=4, gamma=5.0), Models(generator, discriminator.eval())
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective.discriminator_loss(models, real, fake)
        loss.value.backward()
        optimizer.step()
        losses.append(float(loss.metrics["discriminator_loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert loss.metrics["rank_real"] > loss.metrics["rank_fake"]


def test_rankgan_keeps_half_of_a_small_batch_beside_the_references():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    torch.manual_seed(0)
    real = sample(generator, start_prompt(generator, 5), 4)
    models = Models(generator, discriminator)
    found = RankGAN(references=16).reward(models, real, real)
    assert_close(found, RankGAN(references=2).reward(models, real, real))
    with pytest.raises(ValueError, match="one real sequence in a batch for RankGAN: expected a reference"):
        RankGAN().reward(models, real, real.select(slice(0, 1)))


# --- PG-BLEU, functions of one's own ---------------------------------------------------------------------------------


def test_pgbleu_is_nltks_sentence_bleu():
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    torch.manual_seed(0)
    ids, lengths = torch.randint(0, 5, (60, 8)), torch.randint(1, 9, (60,))
    rows = Samples(torch.zeros(60, 1, dtype=torch.long), ids, torch.arange(8) < lengths[:, None])
    real, fake = rows.select(slice(0, 10)), rows.select(slice(10, None))
    found = PGBLEU(max_n=3, references=10).reward(Models(build_generator("lstm", eos=None)), fake, real)
    texts = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
    smoothing = SmoothingFunction().method1
    expected = [sentence_bleu(texts[:10], text, (1 / 3,) * 3, smoothing_function=smoothing) for text in texts[10:]]
    assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_pgbleu_of_a_reference_is_one_and_counts_the_first_rows_only():
    batch = all_sequences()
    found = PGBLEU(references=9).reward(Models(build_generator("lstm", eos=None)), batch, batch)
    assert (found[:9] == 1).all() and (found[9:] < 1).all()


def test_functions_are_weighed_and_given_texts_or_ids():
    batch, models = all_sequences(), Models(TableGenerator())
    last = SEQUENCES[:, -1] + 1.0
    assert_close(FunctionReward(last_ids, reads="ids").reward(models, batch, batch), last)
    paths = {"tests.tools.tables.last_ids": 2.0, len_of_all: 0.5}
    found = FunctionReward(paths, reads="ids").reward(models, batch, batch)
    assert_close(found, 2 * last + 0.5 * 3)
    found = FunctionReward([last_ids, len_of_all], reads="ids").reward(models, batch, batch)
    assert_close(found, (last + 3) / 2)
    seen = []
    FunctionReward(lambda texts: seen.extend(texts) or [0.0] * len(texts)).reward(models, batch, batch)
    assert seen[5] == "0 1 2"  # ids, where no tokenizer writes text
    models.tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["good", "bad"] * 9])
    FunctionReward(lambda texts: seen.extend(texts) or [0] * len(texts)).reward(models, batch, batch)
    assert set(seen[27:]) == {""}  # of which these ids are special tokens


def len_of_all(rows):
    return [len(row) for row in rows]


def test_functions_that_read_ids_see_no_end_token():
    generator, seen = build_generator("lstm"), []
    torch.manual_seed(0)
    fake = sample(generator, start_prompt(generator, 8), 6)
    objective = FunctionReward(lambda rows: seen.extend(rows) or [0.0] * len(rows), reads="ids")
    objective.reward(Models(generator), fake, fake)
    ended = (fake.ids == generator.config.eos_token_id).any(dim=1)
    assert 0 < ended.sum() < 8
    assert [len(row) for row in seen] == (fake.lengths - ended.long()).tolist()
    generator.config.eos_token_id = [EOS, 3]  # a chat model has several
    seen.clear()
    objective.reward(Models(generator), fake, fake)
    assert not {EOS, 3} & {token for row in seen for token in row}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: [1.0], r"returned shape \(1,\) for 27 sequences: expected one number each"),
        (lambda texts: [math.nan] * len(texts), "returned nan for '0 0 0': expected finite numbers"),
        (lambda texts: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda texts: sys.exit("no scorer"), "raised SystemExit: no scorer: expected a list of numbers"),
        (lambda texts: ["a"] * len(texts), "raised "),
    ],
)
def test_a_function_that_misbehaves_is_named(function, message):
    batch = all_sequences()
    with pytest.raises(ValueError, match=f"reward function .*lambda.* {message}"):
        FunctionReward(function).reward(Models(TableGenerator()), batch, batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"functions": "no.such.function"}, "reward function 'no.such.function' cannot be imported"),
        ({"functions": []}, "no reward function: expected the dotted path of at least one"),
        ({"functions": last_ids, "reads": "bytes"}, "reads='bytes': expected texts or ids"),
    ],
)
def test_functions_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FunctionReward(**settings)


def test_organ_mixes_the_verdict_with_the_function():
    batch, models = all_sequences(), Models(TableGenerator(), TableJudge())
    verdicts, last = SeqGAN(0).reward(models, batch, batch), SEQUENCES[:, -1] + 1.0
    for share in (0.0, 0.25, 1.0):
        found = ORGAN(last_ids, discriminator_weight=share, reads="ids").reward(models, batch, batch)
        assert_close(found, share * verdicts + (1 - share) * last)


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


def test_sentigan_penalises_the_probability_even_by_a_constant():
    table = torch.zeros(len(PREFIXES), V)
    table[0] = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = TableGenerator(table)
    rows = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)[:, None]  # as often as they are drawn
    batch = Samples(torch.zeros_like(rows), rows, torch.ones_like(rows, dtype=torch.bool))
    objective, models = SentiGAN(rollouts=0), Models(generator, None)
    fake = batch._replace(advantages=objective.advantages(models, torch.full((10, 1), -1.0), batch).detach())
    found = gradient(objective, models, fake)[0]
    assert_close(found, torch.tensor([0.06, -0.024, -0.036]))


def test_sentigan_without_the_probability_is_seqgan(monkeypatch):
    models, objective = Models(random_table(), TableJudge()), SentiGAN(rollouts=0)
    monkeypatch.setattr(objective, "advantages", lambda models, values, samples: values + 1)
    found = gradient(objective, models, credited(objective, models))
    assert_close(found, gradient(SeqGAN(0), models, credited(SeqGAN(0), models)))


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
    with pytest.raises(ValueError, match="class 'good' is no token"):
        kind(["good", "bad"]).check(models, 4, conditional=True)
    kind([7, 8]).check(models, 4, conditional=True)


@pytest.mark.parametrize("classes", [[7], [7, 7]])
def test_sentigan_refuses_one_class(classes):
    with pytest.raises(ValueError, match="two or more different tokens"):
        SentiGAN(classes)


# --- DPGAN -----------------------------------------------------------------------------------------------------------


def test_dpgan_with_itself_as_the_opponent_climbs_its_entropy():
    """T216: every row of the table is a permutation of (1, 2, 3) / 6; each sequence stands 216 G(Y) times."""
    torch.manual_seed(0)
    table = torch.stack([(torch.randperm(3) + 1.0).log() for _ in PREFIXES])
    generator = TableGenerator(table)
    probabilities = generator.probabilities(SEQUENCES).detach()
    batch = all_sequences().select(torch.arange(27).repeat_interleave((216 * probabilities).round().long()))
    assert batch.batch_size == 216
    objective, models = DPGAN(likelihood_weight=0.0, baseline="none"), Models(generator, TableGenerator(table.clone()))
    fake = credited(objective, models, batch)
    means = objective.reward(models, batch, batch).mean(dim=1, keepdim=True)
    found = gradient(objective, models, fake._replace(advantages=fake.advantages / means))
    negative_entropy = exact(generator, lambda p: (p * p.log()).sum())
    assert_close(found, negative_entropy)


def test_dpgans_opponent_without_real_text_learns_the_samples_by_maximum_likelihood():
    opponent, batch = random_table(), all_sequences()
    real, fake = batch.select(slice(0, 9)), batch.select(slice(9, None))
    DPGAN(real_weight=0.0).discriminator_loss(Models(None, opponent), real, fake).value.backward()
    assert_close(opponent.table.grad, gradient(MLE(), Models(opponent), fake))


def test_dpgans_opponent_unlearns_real_text_by_its_weight():
    opponent, batch = random_table(), all_sequences()
    real, fake = batch.select(slice(0, 9)), batch.select(slice(9, None))
    DPGAN(real_weight=0.25).discriminator_loss(Models(None, opponent), real, fake).value.backward()
    found = opponent.table.grad.clone()
    expected = gradient(MLE(), Models(opponent), fake).clone() - 0.25 * gradient(MLE(), Models(opponent), real)
    assert_close(found, expected)


def test_dpgan_cuts_surprise_off():
    objective, models = DPGAN(max_reward=0.5), Models(None, TableGenerator())
    assert (objective.reward(models, all_sequences(), None) == 0.5).all()


# --- ColdGAN ---------------------------------------------------------------------------------------------------------


def test_coldgans_weights_give_the_generators_own_gradient():
    """T27-IS: each sequence once, labelled as drawn from the uniform distribution, at any generator."""
    generator, judge = random_table(), TableJudge()
    objective = ColdGAN(max_weight=1e6, baseline="none")
    batch = all_sequences()._replace(logprobs=torch.full((27, T), -math.log(V)))
    models = Models(generator, judge)
    found = gradient(objective, models, credited(objective, models, batch))
    rewards = judge.log_odds.sigmoid()
    assert_close(found, exact(generator, lambda p: -(p * rewards).sum()))


def test_coldgan_counts_no_padding():
    rows = all_sequences().select(slice(0, 2))._replace(mask=torch.tensor([[True, False, False], [True, True, True]]))
    found = ColdGAN().behaviour(Models(random_table()), rows)
    assert (found[0, 1:] == 0).all() and (found[1] != 0).all()


def test_coldgan_at_the_generators_own_temperature_is_reinforce():
    generator = random_table()
    models, cold = Models(generator, TableJudge()), ColdGAN(temperature=1.0, top_p=1.0, baseline="none")
    batch = all_sequences()._replace(logprobs=cold.behaviour(models, all_sequences()).detach())
    found = gradient(cold, models, credited(cold, models, batch))
    expected = gradient(Reinforce(), models, credited(Reinforce(), models))
    assert_close(found, expected)


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


def test_groups_are_rows_of_one_prompt():
    generator, objective = build_generator("lstm"), GRPO(group_size=3, scale=False)
    prompt = torch.tensor([[0, token] for token in range(3, 10)])
    real = sample(generator, prompt, 4)
    fake = objective.sample(Models(generator), real, 4)
    assert fake.prompt[:, 1].tolist() == [3, 3, 3, 4, 4, 4]  # the seventh prompt fills no group
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
    found = []
    for rewards in ([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], [0.0, 0.0, 3.0, 5.0, 5.0, 5.0]):
        objective.reward = lambda models, samples, real, rewards=rewards: torch.tensor(rewards)
        found.append(float(objective.credit(Models(generator), rows, rows).metrics["reward_std"]))
    assert found == pytest.approx([0.0, math.sqrt(2) / 2])
    whole = sample(generator, start_prompt(generator, 6), 4)
    last = objective.credit(Models(generator), whole, whole).metrics["reward_std"]
    assert float(last) == pytest.approx(float(torch.tensor(rewards).std(unbiased=False)))


def test_rloo_of_the_whole_batch_is_reinforce_with_the_others_as_baseline():
    models = Models(random_table(), TableJudge())
    plain = Reinforce("leave_one_out")
    expected = gradient(plain, models, credited(plain, models))
    objective = RLOO(kl=0.0)
    assert_close(gradient(objective, models, credited(objective, models)), expected)


def test_length_normalized_advantages_are_shares():
    batch = all_sequences()
    values = torch.arange(27.0)[:, None].expand(27, 3)
    plain = GRPO().advantages(None, values, batch)
    assert_close(GRPO(length_normalized=True).advantages(None, values, batch), plain / 3)


def test_a_price_in_the_loss_is_divided_by_the_length_where_advantages_are():
    generator, batch = random_table(), all_sequences()
    batch = batch._replace(mask=torch.arange(T) < torch.tensor([1, 2, 3] * 9)[:, None])
    found = []
    for length_normalized in (False, True):
        objective = GRPO(kl=1.0, kl_in="loss", length_normalized=length_normalized)
        models = Models(generator, None, objective.copies())
        models.begin()
        models["reference"].load_state_dict(random_table(1).state_dict())
        logprobs = token_logprobs(generator, batch).detach()
        found.append(objective.token_weights(models, torch.zeros(27, T), logprobs, batch).detach())
    assert found[0].any()
    assert_close(found[1], found[0] / batch.lengths[:, None])


@pytest.mark.parametrize(
    ("kl_in", "expected"),
    [("loss", (-1 / 6, 1 / 30, 2 / 15)), ("reward", tuple(27 / 26 * k for k in (-0.158568, 0.011707, 0.146862)))],
)
def test_the_two_places_of_the_kl_follow_two_divergences(kl_in, expected):
    generator, objective = TableGenerator(), GRPO(kl=1.0, kl_in=kl_in)
    models = Models(generator, Judge(torch.zeros(27)), objective.copies())
    models.begin()
    with torch.no_grad():
        models["reference"].table[0] = torch.tensor([0.5, 0.3, 0.2]).log()
    found = gradient(objective, models, credited(objective, models))[0]
    assert_close(found, torch.tensor(expected))


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


@pytest.mark.parametrize("objective", [GRPO(updates=3, scale=False), TextGAIL(demonstrations=0.0)])
def test_the_first_update_is_that_of_reinforce(objective):
    models = Models(random_table(), TableJudge())
    fake = credited(objective, models)
    plain = Reinforce()
    expected = gradient(plain, models, fake)
    assert_close(gradient(objective, models, fake), expected)


# --- Pairs -----------------------------------------------------------------------------------------------------------


def pairs() -> tuple[Samples, Samples]:
    """Every real sequence, (i + 1) times, beside every generated one."""
    real = torch.arange(27).repeat_interleave(torch.arange(1, 28)).repeat_interleave(27)
    batch = all_sequences()
    return batch.select(real), batch.select(torch.arange(27).repeat(378))


@pytest.mark.parametrize("objective", [GAD(), TextGAIL()])
def test_the_best_judge_of_pairs_is_the_log_ratio_up_to_a_constant(objective):
    judge = Judge((TableJudge().log_odds + 0.7).requires_grad_())
    objective.discriminator_loss(Models(None, judge), *pairs()).value.backward()
    assert_close(judge.log_odds.grad, torch.zeros(27))


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


def test_textgail_with_nothing_but_human_text_is_maximum_likelihood():
    models, objective = Models(random_table(), TableJudge()), TextGAIL(demonstrations=1.0)
    batch = all_sequences()
    fake = credited(objective, models)
    assert torch.equal(fake.ids, batch.ids)
    assert_close(gradient(objective, models, fake), 2 * T * gradient(MLE(), models, batch))


def test_textgails_human_text_takes_the_place_of_the_last_rows():
    models, batch = Models(random_table(), TableJudge()), all_sequences()
    real = batch.select(torch.arange(26, -1, -1))
    with torch.no_grad():
        fake, metrics = TextGAIL(demonstrations=0.5, demonstration_advantage=1.5).credit(models, real, batch)
    assert torch.equal(fake.ids[:13], batch.ids[:13]) and torch.equal(fake.ids[13:], real.ids[:14])
    assert (fake.advantages[13:] == 1.5).all() and "reward" in metrics
    assert_close(fake.logprobs, token_logprobs(models.generator, fake).detach())
    assert "reward" in TextGAIL(demonstrations=0.0).credit(models, real, batch).metrics


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


# --- f-divergences ---------------------------------------------------------------------------------------------------


def mean(g, p):
    return (p + g) / 2


DIVERGENCES = {
    "forward_kl": lambda g, p: (p * (p / g).log()).sum(),
    "reverse_kl": lambda g, p: (g * (g / p).log()).sum(),
    "half_forward_kl": lambda g, p: (p * (p / mean(g, p)).log()).sum(),
    "jensen_shannon": lambda g, p: (p * (p / mean(g, p)).log() + g * (g / mean(g, p)).log()).sum(),
    "log_verdict": lambda g, p: (g * (g / p).log() - p * (p / mean(g, p)).log() - g * (g / mean(g, p)).log()).sum(),
    "squared_hellinger": lambda g, p: (p.sqrt() - g.sqrt()).square().sum(),
    "total_variation": lambda g, p: (p - g).abs().sum() / 2,
    "chi_square": lambda g, p: ((p - g).square() / g).sum(),
    "reverse_chi_square": lambda g, p: ((p - g).square() / p).sum(),
}


@pytest.mark.parametrize("divergence", REWARDS)
def test_each_reward_descends_its_divergence(divergence):
    generator = random_table(1)
    probabilities = generator.probabilities(SEQUENCES).detach()
    models = Models(generator, Judge((DATA / probabilities).log()))
    objective = FGAN(divergence, clip=30.0, baseline="none")
    fake = credited(objective, models)
    fake = fake._replace(advantages=fake.advantages * 27 * probabilities[:, None])  # each as often as it is drawn
    found = gradient(objective, models, fake)
    expected = exact(generator, lambda g: DIVERGENCES[divergence](g, DATA))
    assert_close(found, expected)


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


def test_an_end_token_is_no_word_of_bleu():
    """Every text that ends would match it."""
    models = Models(build_generator("lstm"))
    ids = torch.tensor([[9, EOS, PAD], [5, 6, EOS]])
    mask = ids != PAD
    rows = Samples(torch.full((2, 1), BOS), ids, mask)
    references = Samples(torch.full((1, 1), BOS), torch.tensor([[5, 6, EOS]]), torch.ones(1, 3, dtype=torch.bool))
    assert PGBLEU(max_n=2).reward(models, rows, references).tolist() == pytest.approx([0.0, 1.0])


def test_real_prefixes_pay_no_price():
    with pytest.raises(UserError, match="kl=0.1 with likelihood_prefix=2: expected one of them"):
        MaliGAN(likelihood_prefix=2, kl=0.1)


def test_a_function_named_twice_counts_twice_and_a_weight_is_a_number():
    twice = FunctionReward(["tests.tools.tables.last_ids"] * 2, reads="ids").functions
    assert [weight for _, weight in twice.weights] == [1.0]
    with pytest.raises(UserError, match="a reward function with the weight nan"):
        FunctionReward({"tests.tools.tables.last_ids": float("nan")}, reads="ids")
