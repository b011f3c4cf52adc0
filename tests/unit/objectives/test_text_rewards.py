"""Rewards that compare with real text or are functions of one's own: RankGAN, PGBLEU, FunctionReward, ORGAN."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import features
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import (
    ORGAN,
    PGBLEU,
    FunctionReward,
    Models,
    RankGAN,
    SeqGAN,
)
from seqgan_hf.samples import Samples
from tests.tools.tables import (
    SEQUENCES,
    FeatureJudge,
    TableGenerator,
    TableJudge,
    all_sequences,
    assert_close,
    last_ids,
)
from tests.tools.tiny import BOS, EOS, PAD, build_discriminator, build_generator


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
    assert RankGAN().reward(models, real, real.select(slice(0, 2))).isfinite().all()


class TurnedJudge(FeatureJudge):
    """Turns a sequence by its last token times an angle that is learnt."""

    def __init__(self):
        super().__init__()
        self.turn = torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids, attention_mask):
        angle = math.pi / 27 * (input_ids @ torch.tensor([9, 3, 1])) + self.turn * input_ids[:, -1]
        points = torch.stack([angle.cos(), angle.sin()], dim=1)
        return SequenceClassifierOutput(logits=self.score(points))


def test_rankgans_loss_and_gradient_are_right_where_a_share_rounds_to_one():
    """Generated rows are the references themselves, the other real rows lie nearly opposite."""
    judge = TurnedJudge()
    real, fake = (all_sequences().select(torch.tensor(rows)) for rows in ([0, 0, 26, 26], [0, 0, 0, 0]))
    loss = RankGAN(gamma=20.0).discriminator_loss(Models(None, judge), real, fake)
    assert float(loss.metrics["rank_fake"]) == 1.0
    # log-odds of a generated row among two others, 20 - (20 cos + log 2); of those others among four generated rows
    cosine, slope = math.cos(math.pi * 26 / 27), -2 * math.sin(math.pi * 26 / 27)
    expected = (40 * (1 - cosine) + math.log(4) - math.log(2)) / 2  # log(1 + e^x) = x at these
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-6)
    loss.value.backward()
    assert float(judge.turn.grad) == pytest.approx(-20 * slope, rel=1e-5)


# --- PG-BLEU, functions of one's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 2])  # with two, few are as long as a sample
def test_pgbleu_is_nltks_sentence_bleu(count):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    torch.manual_seed(0)
    ids, lengths = torch.randint(0, 5, (60, 8)), torch.randint(1, 9, (60,))
    rows = Samples(torch.zeros(60, 1, dtype=torch.long), ids, torch.arange(8) < lengths[:, None])
    real, fake = rows.select(slice(0, count)), rows.select(slice(10, None))
    found = PGBLEU(max_n=3, references=count).reward(Models(build_generator("lstm", eos=None)), fake, real)
    texts = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
    smoothing = SmoothingFunction().method1
    expected = [sentence_bleu(texts[:count], text, (1 / 3,) * 3, smoothing_function=smoothing) for text in texts[10:]]
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
        (lambda texts: sys.exit("no\n  scorer\n"), "raised SystemExit: no scorer: expected a list of numbers"),
        (lambda texts: ["a"] * len(texts), "raised "),
    ],
)
def test_a_function_that_misbehaves_is_named(function, message):
    batch = all_sequences()
    with pytest.raises(ValueError, match=f"reward function .*lambda.* {message}"):
        FunctionReward(function).reward(Models(TableGenerator()), batch, batch)


def test_an_object_that_misbehaves_is_named_by_its_class():
    class Scorer:
        def __call__(self, texts):
            raise ValueError("of no use")

    with pytest.raises(UserError, match="the reward function Scorer raised ValueError: of no use"):
        FunctionReward(Scorer()).reward(Models(TableGenerator()), all_sequences(), all_sequences())


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


def test_an_end_token_is_no_word_of_bleu():
    """Every text that ends would match it."""
    models = Models(build_generator("lstm"))
    ids = torch.tensor([[9, EOS, PAD], [5, 6, EOS]])
    mask = ids != PAD
    rows = Samples(torch.full((2, 1), BOS), ids, mask)
    references = Samples(torch.full((1, 1), BOS), torch.tensor([[5, 6, EOS]]), torch.ones(1, 3, dtype=torch.bool))
    assert PGBLEU(max_n=2).reward(models, rows, references).tolist() == pytest.approx([0.0, 1.0])


def test_a_function_named_twice_counts_twice_and_a_weight_is_a_number():
    twice = FunctionReward(["tests.tools.tables.last_ids"] * 2, reads="ids").functions
    assert [weight for _, weight in twice.weights] == [1.0]
    with pytest.raises(UserError, match="a reward function with the weight nan"):
        FunctionReward({"tests.tools.tables.last_ids": float("nan")}, reads="ids")
